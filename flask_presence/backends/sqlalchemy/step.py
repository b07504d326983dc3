"""One step in SQL: the statements that `StepBackend` is made of."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, select

from ..base import chunks
from ..steps import ALIVE, Counters, Lease, Opening, Row, check_rows
from .statements import COUNTER_COLUMNS, ROW_COLUMNS, Question, Statement
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

    @cached_property
    def now(self) -> int:
        return self._backend.now(self._transaction.flushed)

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
        of_users = self._about(name, users, self._statements.rows_of_user, "whose")
        of_clients = self._about(name, clients, self._statements.rows_of_client, "its")
        answers = self._transaction.ask(*locking, *leases, *of_users, *of_clients)
        counters = self._counters(name, epoch, [next(answers) for _ in locking][-1])
        statuses = [next(answers) for _ in leases]
        may_hold = all(rows and rows[0][0] == ALIVE for rows in statuses)
        if counters is None or counters.writes == 0:
            # Members of a channel that nobody entered are what is left of lost data.
            return Opening(counters, [], may_hold)
        found = self._take(name, users, of_users, answers, "user_id")
        if not found.keys() >= set(clients):
            found |= self._take(name, clients, of_clients, answers, "client_id")
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
                self.now = now
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
        questions = self._about(name, users, self._statements.rows_of_user, "whose")
        answers = self._transaction.ask(*questions)
        return list(self._take(name, users, questions, answers, "user_id").values())

    def _about(
        self, name: str, ids: Collection[str], statement: Statement, its: str
    ) -> list[Question]:
        return [statement.of(here=name, **{its: wanted}) for wanted in ids] if len(ids) == 1 else []

    def _take(
        self,
        name: str,
        ids: Collection[str],
        questions: Sequence[Question],
        answers: Iterator[Rows],
        column: str,
    ) -> dict[str, Row]:
        """The rows of these ids: what was answered, or asked now of many of them at a time."""
        if questions:
            return _checked(name, next(answers))
        found: dict[str, Row] = {}
        for some in chunks(ids):
            found |= self._select_rows(name, self._tables.members.c[column].in_(some))
        return found

    def _select_rows(
        self, channel: str, *conditions: Any, limit: int | None = None
    ) -> dict[str, Row]:
        members = self._tables.members
        conditions = (members.c.channel == channel, *conditions)
        columns = [members.c[column] for column in ROW_COLUMNS]
        query = self._backend.dialect.lock_row(select(*columns).where(*conditions).limit(limit))
        return _checked(channel, self._transaction.flushed.execute(query))

    def some_rows(self, name: str, limit: int) -> list[Row]:
        return list(self._select_rows(name, limit=limit).values())

    def due_rows(self, name: str, limit: int) -> list[Row]:
        over = [
            worker for worker, lease in self._leases.items() if lease.is_over(self.now, spared=True)
        ]
        found: dict[str, Row] = {}
        for conditions in self._backend.due_conditions(name, over, self.now):
            found.update(self._select_rows(name, *conditions, limit=limit - len(found)))
            if len(found) >= limit:
                break
        return list(found.values())

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
        members = self._tables.members
        for some in chunks(client_ids):
            gone = delete(members).where(members.c.channel == name, members.c.client_id.in_(some))
            self._transaction.flushed.execute(gone)

    def keep_seen(self, until: Mapping[str, int | None]) -> None:
        if not self._backend.last_seen_retention:
            return
        seen, moments = self._backend.seen, list(until.values())
        if moments == [None] and not self._backend.has_clock:
            # The usual case does without a look at the clock.
            self._transaction.later(seen.keep_now.of(whose=next(iter(until))))
        else:
            known = [self.now if moment is None else moment for moment in moments]
            seen.keep(self._transaction.flushed, dict(zip(until, known, strict=True)))

    def lease(self, worker: str) -> Lease | None:
        return self._leases.get(worker)

    @cached_property
    def _leases(self) -> dict[str, Lease]:
        return self._backend.leases(self._transaction.flushed)


def _new_channel(name: str, epoch: str) -> dict[str, Any]:
    none_yet = dict.fromkeys(("revision", "writes", "count", "anonymous"), 0)
    return {"name": name, "epoch": epoch, **none_yet}


def _checked(channel: str, found: Iterable[Any]) -> dict[str, Row]:
    rows = [Row._make(row) for row in found]
    check_rows(rows, channel)
    return {row.client_id: row for row in rows}
