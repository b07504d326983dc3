"""One step in SQL: the statements that `StepBackend` is made of."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, select
from sqlalchemy.engine import Connection

from ..base import chunks
from ..steps import ALIVE, Counters, Lease, Row, check_rows
from .statements import ROW_COLUMNS, Statement

if TYPE_CHECKING:
    from .backend import SQLAlchemyBackend


class SQLStep:
    """Runs inside the transaction of one connection."""

    def __init__(self, backend: SQLAlchemyBackend, connection: Connection) -> None:
        self._backend = backend
        self._connection = connection
        self._tables = backend.tables
        self._statements = backend.statements

    @cached_property
    def now(self) -> int:
        return self._backend.now(self._connection)

    def lock_channel(self, name: str, epoch: str | None) -> Counters | None:
        new = {"name": name, "epoch": epoch} | dict.fromkeys(
            ("revision", "writes", "count", "anonymous"), 0
        )
        if epoch is not None and self._backend.dialect.locks_by_upsert:
            self._statements.lock_channel.run(self._connection, **new)
        row = self._statements.find_channel.run(self._connection, named=name).first()
        found = None if row is None else Counters(*row)
        if found is not None:
            found.check(name)
        if found is None and epoch is not None:
            self._statements.add_channel.run(self._connection, **new)
            found = Counters(epoch)
        if found is not None and found.writes == 0:
            # Members of a channel that nobody entered are what is left of lost data.
            members = self._tables.members
            self._connection.execute(delete(members).where(members.c.channel == name))
        return found

    def save_channel(self, name: str, counters: Counters) -> None:
        self._statements.save_channel.run(
            self._connection,
            named=name,
            revision=counters.revision,
            writes=counters.writes,
            count=counters.count,
            anonymous=counters.anonymous,
            vacated=counters.vacated,
        )

    def rows(
        self, name: str, *, users: Collection[str] = (), clients: Collection[str] = ()
    ) -> list[Row]:
        statements, members = self._statements, self._tables.members.c
        found = self._rows_of(name, users, statements.rows_of_user, "whose", members.user_id)
        others = [client for client in clients if client not in found]
        found |= self._rows_of(name, others, statements.rows_of_client, "its", members.client_id)
        return list(found.values())

    def _rows_of(
        self, name: str, ids: Collection[str], statement: Statement, its: str, column: Any
    ) -> dict[str, Row]:
        if len(ids) == 1:
            (wanted,) = ids
            return _checked(name, statement.run(self._connection, here=name, **{its: wanted}))
        found: dict[str, Row] = {}
        for some in chunks(ids):
            found |= self._select_rows(name, column.in_(some))
        return found

    def _select_rows(
        self, channel: str, *conditions: Any, limit: int | None = None
    ) -> dict[str, Row]:
        members = self._tables.members
        conditions = (members.c.channel == channel, *conditions)
        columns = [members.c[column] for column in ROW_COLUMNS]
        # Locked, because who touches or releases a member does not lock its channel.
        query = select(*columns).where(*conditions).limit(limit).with_for_update()
        return _checked(channel, self._connection.execute(query))

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
            self._statements.add_row.run(self._connection, channel=name, **rows[0]._asdict())
        else:
            values = [{"channel": name, **row._asdict()} for row in rows]
            self._connection.execute(insert(self._tables.members), values)

    def replace_row(self, name: str, row: Row) -> None:
        self._statements.replace_row.run(
            self._connection, here=name, its=row.client_id, **row._asdict()
        )

    def delete_rows(self, name: str, client_ids: Sequence[str]) -> None:
        if len(client_ids) == 1:
            self._statements.delete_row.run(self._connection, here=name, its=client_ids[0])
            return
        members = self._tables.members
        for some in chunks(client_ids):
            self._connection.execute(
                delete(members).where(members.c.channel == name, members.c.client_id.in_(some))
            )

    def keep_seen(self, until: Mapping[str, int | None]) -> None:
        if not self._backend.last_seen_retention:
            return
        seen, moments = self._backend.seen, list(until.values())
        if moments == [None]:
            # The usual case does without a look at the clock.
            seen.keep_now(self._connection, *until)
        else:
            known = [self.now if moment is None else moment for moment in moments]
            seen.keep(self._connection, dict(zip(until, known, strict=True)))

    def may_hold(self, worker: str) -> bool:
        found = self._statements.lease_status.run(self._connection, worker=worker)
        return found.scalar() == ALIVE

    def lease(self, worker: str) -> Lease | None:
        return self._leases.get(worker)

    @cached_property
    def _leases(self) -> dict[str, Lease]:
        return self._backend.leases(self._connection)


def _checked(channel: str, found: Iterable[Any]) -> dict[str, Row]:
    rows = [Row._make(row) for row in found]
    check_rows(rows, channel)
    return {row.client_id: row for row in rows}
