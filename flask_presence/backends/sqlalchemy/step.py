"""One step in SQL: the statements that `StepBackend` is made of."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert

from ..steps import ALIVE, Counters, Lease, Opening, Row, check_rows
from .due import Moment
from .statements import COUNTER_COLUMNS, Question
from .transaction import Rows, Transaction

if TYPE_CHECKING:
    from .backend import SQLAlchemyBackend


class SQLStep:
    """Runs inside one transaction."""

    def __init__(self, backend: SQLAlchemyBackend, transaction: Transaction) -> None:
        self._backend = backend
        self._transaction = transaction
        self._tables = backend.tables
        self._statements = backend.statements
        # Not by functools.cached_property: up to Python 3.11 all its objects share one lock, which
        # a step that waits for the database would keep from all others.
        self._now: int | None = None
        self._moment: Moment | None = None

    @property
    def now(self) -> int:
        if self._now is None:
            self._now = self._backend.now(self._transaction.flushed)
        return self._now

    def open(
        self,
        name: str,
        *,
        epoch: str | None = None,
        users: Collection[str] = (),
        clients: Collection[str] = (),
        worker: str | None = None,
    ) -> Opening:
        # Together, where the driver can: clients come last, as most are known by their users.
        locking = self._locking(name, epoch)
        leases = [] if worker is None else [self._statements.lease_status.of(worker=worker)]
        of_users = self._of_users(name, users)
        of_clients = self._of_clients(name, clients)
        answers = self._transaction.ask(*locking, *leases, *of_users, *of_clients)
        counters = self._counters(name, epoch, [next(answers) for _ in locking][-1])
        statuses = [next(answers) for _ in leases]
        may_hold = all(rows and rows[0][0] == ALIVE for rows in statuses)
        if counters is None or counters.writes == 0:
            # Members of a channel that nobody entered are what is left of lost data.
            return Opening(counters, [], may_hold)
        found = self._take(name, of_users, answers)
        if not found.keys() >= set(clients):
            found |= self._take(name, of_clients, answers)
        return Opening(counters, list(found.values()), may_hold)

    def _locking(self, name: str, epoch: str | None) -> list[Question]:
        """What locks the channel; the last one tells its counters."""
        statements, dialect = self._statements, self._backend.dialect
        if epoch is None or not dialect.locks_by_upsert:
            return [statements.find_channel.of(named=name)]
        new = _new_channel(name, epoch)
        if dialect.upsert_returns:
            return [statements.make_and_find_channel.of(**new)]
        return [statements.make_channel.of(**new), statements.find_channel.of(named=name)]

    def _counters(self, name: str, epoch: str | None, found: Rows) -> Counters | None:
        counters = None
        if found:
            *columns, now = found[0] if len(found[0]) > len(COUNTER_COLUMNS) else (*found[0], None)
            counters = Counters(*columns)
            counters.check(name)
            if now is not None and not self._backend.has_clock:
                self._now = now
        elif epoch is not None:
            self._transaction.later(self._statements.add_channel.of(**_new_channel(name, epoch)))
            counters = Counters(epoch)
        if counters is not None and counters.writes == 0:
            members = self._tables.members
            self._transaction.flushed.execute(delete(members).where(members.c.channel == name))
        return counters

    def save_channel(self, name: str, counters: Counters) -> None:
        statements = self._statements
        values = {
            "named": name,
            "revision": counters.revision,
            "writes": counters.writes,
            "count": counters.count,
            "anonymous": counters.anonymous,
        }
        if counters.is_empty and not self._backend.has_clock:
            # The usual case does without a look at the clock.
            self._transaction.later(statements.vacate_channel.of(**values))
        else:
            vacated = self.now if counters.is_empty else None
            self._transaction.later(statements.save_channel.of(**values, vacated=vacated))

    def rows(self, name: str, users: Collection[str]) -> Sequence[Row]:
        return self._ask(name, self._of_users(name, users))

    def _of_users(self, name: str, users: Collection[str]) -> list[Question]:
        statements = self._statements
        if len(users) == 1:
            return [statements.rows_of_user.of(here=name, whose=next(iter(users)))]
        return statements.rows_of_users.among(users, here=name)

    def _of_clients(self, name: str, clients: Collection[str]) -> list[Question]:
        statements = self._statements
        if len(clients) == 1:
            return [statements.rows_of_client.of(here=name, its=next(iter(clients)))]
        return statements.rows_of_clients.among(clients, here=name)

    def _ask(self, name: str, questions: Sequence[Question]) -> list[Row]:
        return list(self._take(name, questions, self._transaction.ask(*questions)).values())

    def _take(
        self, name: str, questions: Sequence[Question], answers: Iterator[Rows]
    ) -> dict[str, Row]:
        found: dict[str, Row] = {}
        for _ in questions:
            rows = [Row._make(row) for row in next(answers)]
            check_rows(rows, name)
            found.update((row.client_id, row) for row in rows)
        return found

    def some_rows(self, name: str, limit: int) -> list[Row]:
        return self._ask(name, [self._statements.some_rows.of(here=name, at_most=limit)])

    def due_rows(self, name: str, limit: int) -> list[Row]:
        moment = self._read_moment()
        self._now = moment.now
        due = self._backend.due_ones.rows(name, moment, spared=True, limit=limit)
        return self._ask(name, due)[:limit]

    def insert_rows(self, name: str, rows: Sequence[Row]) -> None:
        if len(rows) == 1:
            question = self._statements.add_row.of(channel=name, **rows[0]._asdict())
            self._transaction.later(question)
        else:
            values = [{"channel": name, **row._asdict()} for row in rows]
            self._transaction.flushed.execute(insert(self._tables.members), values)

    def replace_row(self, name: str, row: Row) -> None:
        its = {"here": name, "its": row.client_id}
        self._transaction.later(self._statements.replace_row.of(**its, **row._asdict()))

    def delete_rows(self, name: str, client_ids: Sequence[str]) -> None:
        if len(client_ids) == 1:
            question = self._statements.delete_row.of(here=name, its=client_ids[0])
            self._transaction.later(question)
            return
        for question in self._statements.delete_rows.among(client_ids, here=name):
            self._transaction.later(question)

    def keep_seen(self, until: Mapping[str, int | None]) -> None:
        if not self._backend.last_seen_retention:
            return
        seen, moments = self._backend.seen, list(until.values())
        if moments == [None] and not self._backend.has_clock:
            # The usual case does without a look at the clock.
            self._transaction.later(seen.keep_now.of(whose=next(iter(until))))
        else:
            known = [self.now if moment is None else moment for moment in moments]
            for question in seen.keep(dict(zip(until, known, strict=True))):
                self._transaction.later(question)

    def lease(self, worker: str) -> Lease | None:
        return self._read_moment().leases.get(worker)

    def _read_moment(self) -> Moment:
        if self._moment is None:
            self._moment = self._backend.due_ones.read_moment(self._transaction)
        return self._moment


def _new_channel(name: str, epoch: str) -> dict[str, Any]:
    none_yet = dict.fromkeys(("revision", "writes", "count", "anonymous"), 0)
    return {"name": name, "epoch": epoch, **none_yet}
