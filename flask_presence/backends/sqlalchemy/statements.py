"""The statements of every step, compiled once: SQLAlchemy would build and look up each anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Integer, bindparam, delete, insert, select, update
from sqlalchemy.engine import Connection, CursorResult
from sqlalchemy.engine import Dialect as SQLDialect

from ..steps import Counters, Row
from .dialects import Dialect
from .tables import Tables

ROW_COLUMNS = Row._fields
COUNTER_COLUMNS = tuple(Counters.__dataclass_fields__)


class Statement:
    """One statement, compiled when it is first run.

    :param columns: those that an insert or update takes values for, by their names.
    """

    def __init__(self, element: Any, columns: Sequence[str] | None = None) -> None:
        self._element = element
        self._columns = columns
        self._compiled: dict[str, tuple[str, Sequence[str] | None, dict[str, Any]]] = {}

    def of(self, **values: Any) -> Question:
        """The statement with its values, by name."""
        return Question(self, values)

    def run(self, connection: Connection, **values: Any) -> CursorResult[Any]:
        """Run it by itself."""
        return connection.exec_driver_sql(*self.of(**values).bound(connection.dialect))

    def bind(self, dialect: SQLDialect, values: dict[str, Any]) -> tuple[str, Any]:
        """Its text and its parameters, in the style of the dialect."""
        style = dialect.paramstyle
        if style not in self._compiled:
            compiled = self._element.compile(dialect=dialect, column_keys=self._columns)
            # SQLite's LIMIT has an offset, always.
            own = {name: value for name, value in compiled.params.items() if value is not None}
            self._compiled[style] = str(compiled), compiled.positiontup, own
        text, order, own = self._compiled[style]
        values = own | values if own else values
        return text, values if order is None else tuple([values[name] for name in order])


class Many:
    """A statement about many at once, in one for each power of two: few serve any number, and the
    database has to prepare no more.

    :param make: makes it for so many.
    """

    def __init__(self, make: Callable[[int], Any]) -> None:
        self._make = make
        self._made: dict[int, Statement] = {}

    def of(self, names: Sequence[str], rows: Sequence[Sequence[Any]], **all: Any) -> list[Question]:
        """The statements with values for each, named ``name_0``, ``name_1`` and so on."""
        questions: list[Question] = []
        while rows:
            size = 1 << len(rows).bit_length() - 1
            some, rows = rows[:size], rows[size:]
            if size not in self._made:
                self._made[size] = Statement(self._make(size))
            each = {
                f"{name}_{place}": value
                for place, row in enumerate(some)
                for name, value in zip(names, row, strict=True)
            }
            questions.append(self._made[size].of(**all, **each))
        return questions


class Those(Many):
    """A statement about those whose ``column`` has one of some values."""

    def __init__(self, element: Any, column: ColumnElement[str]) -> None:
        super().__init__(
            lambda size: element.where(
                column.in_([bindparam(f"id_{place}") for place in range(size)])
            )
        )

    def among(self, ids: Iterable[str], **all: Any) -> list[Question]:
        return self.of(["id"], [(one,) for one in ids], **all)


class Question(NamedTuple):
    """A statement and its values."""

    statement: Statement
    values: dict[str, Any]

    def bound(self, dialect: SQLDialect) -> tuple[str, Any]:
        return self.statement.bind(dialect, self.values)


class Statements:
    """What steps do to one channel, one user, one client.

    :param clock: the store's, in a statement.
    """

    def __init__(self, tables: Tables, dialect: Dialect, clock: ColumnElement[int]) -> None:
        channels, members, workers = tables.channels, tables.members, tables.workers
        named = channels.c.name == bindparam("named")
        counted = ("revision", "writes", "count", "anonymous")
        new = ("name", "epoch", *counted)
        counters = [channels.c[name] for name in COUNTER_COLUMNS]
        self.find_channel = Statement(dialect.lock_row(select(*counters).where(named)))
        self.add_channel = Statement(insert(channels), new)
        upsert = dialect.upsert(channels, "name")
        self.make_channel = Statement(upsert, new)
        """Locks it where there is one."""
        self.make_and_find_channel = Statement(upsert.returning(*counters, clock), new)
        """The same, and tells the counters and the time, which is read after the lock."""
        self.save_channel = Statement(update(channels).where(named), (*counted, "vacated"))
        vacated = update(channels).where(named).values(vacated=clock)
        self.vacate_channel = Statement(vacated, counted)
        here = members.c.channel == bindparam("here")
        its = members.c.client_id == bindparam("its")
        rows = dialect.lock_row(select(*[members.c[name] for name in ROW_COLUMNS]))
        self.rows_of_user = Statement(rows.where(here, members.c.user_id == bindparam("whose")))
        self.rows_of_client = Statement(rows.where(here, its))
        self.rows_of_users = Those(rows.where(here), members.c.user_id)
        self.rows_of_clients = Those(rows.where(here), members.c.client_id)
        self.add_row = Statement(insert(members), ("channel", *ROW_COLUMNS))
        self.replace_row = Statement(update(members).where(here, its), ROW_COLUMNS)
        self.delete_row = Statement(delete(members).where(here, its))
        self.delete_rows = Those(delete(members).where(here), members.c.client_id)
        self.lease_status = Statement(
            dialect.lock_lease(select(workers.c.status).where(workers.c.id == bindparam("worker")))
        )
        lease = [workers.c[name] for name in ("id", "status", "lease", "timeout")]
        self.leases = Statement(select(*lease))
        self.clock = Statement(select(clock))
        # In order, so that an index is taken also where nothing is known yet of how many there are.
        past, order = members.c.deadline <= bindparam("now"), members.c.deadline
        held = members.c.worker == bindparam("worker")
        some = bindparam("at_most", type_=Integer)
        names = select(members.c.channel)
        self.channels_past = Statement(names.where(past).order_by(order).limit(some))
        self.channels_held = Statement(names.where(held).limit(some))
        set_at = members.c.held_at
        later = select(set_at).where(set_at > bindparam("now")).order_by(set_at.desc())
        self.set_later = Statement(later.limit(some))
        """Finds deadlines that were set later than now."""
        self.some_rows = Statement(rows.where(here).limit(some))
        self.rows_past = Statement(rows.where(here, past).order_by(order).limit(some))
        self.rows_held = Statement(rows.where(here, held).limit(some))
