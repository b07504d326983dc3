"""The statements of every step, compiled once: SQLAlchemy would build and look up each anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, Table, bindparam, delete, insert, select, update
from sqlalchemy.engine import Connection, CursorResult

from ..steps import Counters, Row
from .dialects import Dialect
from .tables import Tables

ROW_COLUMNS = Row._fields
COUNTER_COLUMNS = tuple(Counters.__dataclass_fields__)


class Statement:
    """One statement, compiled for the database that first runs it.

    :param columns: those that an insert or update takes values for, by their names.
    """

    def __init__(self, element: Any, columns: Sequence[str] | None = None) -> None:
        self._element = element
        self._columns = columns
        self._sql = ""
        self._order: Sequence[str] | None = None

    def run(self, connection: Connection, **values: Any) -> CursorResult[Any]:
        """Run it with its values, by name."""
        if not self._sql:
            self._compile(connection)
        order = self._order
        parameters = values if order is None else tuple(values[name] for name in order)
        return connection.exec_driver_sql(self._sql, parameters)

    def _compile(self, connection: Connection) -> None:
        compiled = self._element.compile(dialect=connection.dialect, column_keys=self._columns)
        self._order = compiled.positiontup
        self._sql = str(compiled)


class Statements:
    """What steps do to one channel, one user, one client."""

    def __init__(self, tables: Tables, dialect: Dialect) -> None:
        channels, members, workers = tables.channels, tables.members, tables.workers
        named = channels.c.name == bindparam("named")
        counters = ("revision", "writes", "count", "anonymous")
        new = ("name", "epoch", *counters)
        self.find_channel = Statement(
            select(*_columns(channels, COUNTER_COLUMNS)).where(named).with_for_update()
        )
        self.add_channel = Statement(insert(channels), new)
        self.lock_channel = Statement(dialect.upsert(channels, "name"), new)
        self.save_channel = Statement(update(channels).where(named), (*counters, "vacated"))
        here = members.c.channel == bindparam("here")
        its = members.c.client_id == bindparam("its")
        self.rows_of_user = Statement(
            _rows(members).where(here, members.c.user_id == bindparam("whose"))
        )
        self.rows_of_client = Statement(_rows(members).where(here, its))
        self.add_row = Statement(insert(members), ("channel", *ROW_COLUMNS))
        self.replace_row = Statement(update(members).where(here, its), ROW_COLUMNS)
        self.delete_row = Statement(delete(members).where(here, its))
        self.lease_status = Statement(
            dialect.lock_lease(select(workers.c.status).where(workers.c.id == bindparam("worker")))
        )


def _columns(table: Table, names: Sequence[str]) -> list[Any]:
    return [table.c[name] for name in names]


def _rows(members: Table) -> Select[Any]:
    # Locked, because who touches or releases a member does not lock its channel.
    return select(*_columns(members, ROW_COLUMNS)).with_for_update()
