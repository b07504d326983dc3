"""What is due: leases that ran out, and the members that nobody holds any longer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import delete, select, update
from sqlalchemy.engine import Connection

from ..moments import milliseconds
from ..steps import ALIVE, LOST, Lease
from .state import lease_of
from .statements import Question
from .transaction import Rows, Transaction

if TYPE_CHECKING:
    from .backend import SQLAlchemyBackend

SLOW_SECONDS = 0.5
"""Waiting this long for the database means that others could not write either."""


class Moment(NamedTuple):
    """The leases of all workers, who are few, and the moment at which they were read."""

    leases: Mapping[str, Lease]
    now: int

    def over(self, *, spared: bool) -> list[str]:
        """The workers whose members are due."""
        found = self.leases.items()
        return [worker for worker, lease in found if lease.is_over(self.now, spared=spared)]


class Due:
    """Looks for what is due, and ends leases; members are ended by a step for their channel.

    What is asked together takes one round trip, where the driver can.
    """

    def __init__(self, backend: SQLAlchemyBackend) -> None:
        self._backend = backend
        self._statements = backend.statements
        self._tables = backend.tables

    def read_moment(self, asked: Transaction) -> Moment:
        """The leases, and the time after they were read."""
        leases, ((now,),) = asked.ask(self._statements.leases.of(), self._statements.clock.of())
        if self._backend.has_clock:
            now = self._backend.now(asked.flushed)
        return Moment({row[0]: lease_of(*row[1:]) for row in leases}, int(now))

    def rows(self, channel: str, moment: Moment, *, spared: bool, limit: int) -> list[Question]:
        """What asks for the rows that are due in a channel: one question for each index, as no
        index serves them all."""
        statements, here = self._statements, {"here": channel, "at_most": limit}
        return [
            statements.rows_past.of(**here, now=moment.now),
            *(
                statements.rows_held.of(**here, worker=worker)
                for worker in moment.over(spared=spared)
            ),
        ]

    def is_in(self, channel: str) -> bool:
        """Is anything due in this channel?"""

        def look(asked: Transaction) -> bool:
            spared = self._backend.spares_leases
            questions = self.rows(channel, self.read_moment(asked), spared=spared, limit=1)
            return any(asked.ask(*questions))

        return self._backend.database.ask(look)

    def channels(self, limit: int) -> list[str]:
        """Names of channels with due members, found by looking at no more than ``limit`` by each
        index; leases and deadlines are ended and cut, as `Backend.due` says."""
        backend, began = self._backend, time.monotonic()
        moment, past, ahead = backend.database.ask(lambda asked: self._look(asked, limit))
        self._end_expired(moment, began)
        if any(lease.until > moment.now + lease.timeout for lease in moment.leases.values()):
            backend.database.transact(self._cut_leases)
        names = {name for (name,) in past}
        over = moment.over(spared=backend.spares_leases)
        if over:
            names |= backend.database.ask(lambda asked: self._held_by(asked, over, limit))
        if ahead:
            backend.database.transact(self._cut_deadlines)
        if over and not names:
            backend.database.transact(lambda connection: self._forget_workers(connection, over))
        return sorted(names)

    def _look(self, asked: Transaction, limit: int) -> tuple[Moment, Rows, Rows]:
        moment, statements = self.read_moment(asked), self._statements
        past, ahead = asked.ask(
            statements.channels_past.of(now=moment.now, at_most=limit),
            statements.set_later.of(now=moment.now, at_most=1),
        )
        return moment, past, ahead

    def _held_by(self, asked: Transaction, workers: list[str], limit: int) -> set[str]:
        held = self._statements.channels_held
        answers = asked.ask(*[held.of(worker=worker, at_most=limit) for worker in workers])
        return {name for rows in answers for (name,) in rows}

    def end_leases(self) -> None:
        """End each lease that ran out, unless leases are spared."""
        began = time.monotonic()
        self._end_expired(self._backend.database.ask(self.read_moment), began)

    def _end_expired(self, moment: Moment, began: float) -> None:
        """End leases that had run out, unless the store was away since ``began``."""
        over = moment.over(spared=self._backend.spares_leases)
        expired = [worker for worker in over if moment.leases[worker].status == ALIVE]
        if not expired:
            return
        backend, workers = self._backend, self._tables.workers
        where = [
            workers.c.id.in_(expired),
            workers.c.status == ALIVE,
            workers.c.lease <= moment.now,
        ]
        if not backend.has_clock:
            # A database that was frozen may run this long after it was sent.
            where.append(backend.clock() <= moment.now + milliseconds(SLOW_SECONDS))

        def work(connection: Connection) -> None:
            if time.monotonic() - began <= SLOW_SECONDS:
                connection.execute(update(workers).where(*where).values(status=LOST))

        backend.database.transact(work)
        if time.monotonic() - began > SLOW_SECONDS:
            # The store was away, though nothing failed: others may renew first.
            backend.note_failure()

    def _cut_leases(self, connection: Connection) -> None:
        workers = self._tables.workers
        latest = self._backend.now(connection) + workers.c.timeout
        connection.execute(update(workers).where(workers.c.lease > latest).values(lease=latest))

    def _cut_deadlines(self, connection: Connection) -> None:
        members = self._tables.members
        now = self._backend.now(connection)
        connection.execute(
            update(members)
            .where(members.c.held_at > now)
            .values(deadline=now + members.c.deadline - members.c.held_at, held_at=now)
        )

    def _forget_workers(self, connection: Connection, over: list[str]) -> None:
        members, workers = self._tables.members, self._tables.workers
        holds = select(members.c.channel).where(members.c.worker == workers.c.id).exists()
        connection.execute(
            delete(workers).where(workers.c.id.in_(over), workers.c.status != ALIVE, ~holds)
        )
