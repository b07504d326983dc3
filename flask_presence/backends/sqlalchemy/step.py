"""One step in SQL: the statements that `StepBackend` is made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.engine import Connection

from ..base import chunks
from ..steps import ALIVE, Counters, Lease, Row

if TYPE_CHECKING:
    from .backend import SQLAlchemyBackend

ROW_COLUMNS = Row._fields


class SQLStep:
    """Runs inside the transaction of one connection."""

    def __init__(self, backend: SQLAlchemyBackend, connection: Connection) -> None:
        self._backend = backend
        self._connection = connection
        self._tables = backend.tables

    @cached_property
    def now(self) -> int:
        return self._backend.now(self._connection)

    def lock_channel(self, name: str, epoch: str | None) -> Counters | None:
        channels = self._tables.channels
        dialect = self._backend.dialect
        new = {"name": name, "epoch": epoch} | dict.fromkeys(
            ("revision", "writes", "count", "anonymous"), 0
        )
        if epoch is not None and dialect.locks_by_upsert:
            self._connection.execute(dialect.upsert(channels, "name").values(new))
        found = self._find_channel(name)
        if found is None and epoch is not None:
            self._connection.execute(insert(channels).values(new))
            found = Counters(epoch)
        if found is not None and found.writes == 0:
            # Members of a channel that nobody entered are what is left of lost data.
            members = self._tables.members
            self._connection.execute(delete(members).where(members.c.channel == name))
        return found

    def _find_channel(self, name: str) -> Counters | None:
        channels = self._tables.channels
        found = self._connection.execute(
            select(
                channels.c.epoch,
                channels.c.revision,
                channels.c.writes,
                channels.c.count,
                channels.c.anonymous,
                channels.c.vacated,
            )
            .where(channels.c.name == name)
            .with_for_update()
        ).first()
        return None if found is None else Counters(*found)

    def save_channel(self, name: str, counters: Counters) -> None:
        channels = self._tables.channels
        self._connection.execute(
            update(channels)
            .where(channels.c.name == name)
            .values(
                revision=counters.revision,
                writes=counters.writes,
                count=counters.count,
                anonymous=counters.anonymous,
                vacated=counters.vacated,
            )
        )

    def rows(
        self, name: str, *, users: Collection[str] = (), clients: Collection[str] = ()
    ) -> list[Row]:
        members = self._tables.members
        found: dict[str, Row] = {}
        for column, wanted in ((members.c.user_id, users), (members.c.client_id, clients)):
            for some in chunks(wanted):
                found.update(self._select_rows(members.c.channel == name, column.in_(some)))
        return list(found.values())

    def _select_rows(self, *conditions: Any, limit: int | None = None) -> dict[str, Row]:
        members = self._tables.members
        columns = [members.c[column] for column in ROW_COLUMNS]
        # Locked, because who touches or releases a member does not lock its channel.
        query = select(*columns).where(*conditions).limit(limit).with_for_update()
        return {row.client_id: Row(*row) for row in self._connection.execute(query)}

    def some_rows(self, name: str, limit: int) -> list[Row]:
        here = self._tables.members.c.channel == name
        return list(self._select_rows(here, limit=limit).values())

    def due_rows(self, name: str, limit: int) -> list[Row]:
        over = [
            worker for worker, lease in self._leases.items() if lease.is_over(self.now, spared=True)
        ]
        found: dict[str, Row] = {}
        for conditions in self._backend.due_conditions(name, over, self.now):
            found.update(self._select_rows(*conditions, limit=limit - len(found)))
            if len(found) >= limit:
                break
        return list(found.values())

    def insert_row(self, name: str, row: Row) -> None:
        values = dict(zip(ROW_COLUMNS, row, strict=True))
        self._connection.execute(insert(self._tables.members).values(channel=name, **values))

    def replace_row(self, name: str, row: Row) -> None:
        members = self._tables.members
        self._connection.execute(
            update(members)
            .where(members.c.channel == name, members.c.client_id == row.client_id)
            .values(dict(zip(ROW_COLUMNS, row, strict=True)))
        )

    def delete_rows(self, name: str, client_ids: Sequence[str]) -> None:
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
        workers = self._tables.workers
        query = select(workers.c.status).where(workers.c.id == worker)
        locked = self._backend.dialect.lock_lease(query)
        return self._connection.execute(locked).scalar() == ALIVE

    def lease(self, worker: str) -> Lease | None:
        return self._leases.get(worker)

    @cached_property
    def _leases(self) -> dict[str, Lease]:
        return self._backend.leases(self._connection)
