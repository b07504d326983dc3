"""Presence in SQL expressions, for an app's own queries."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Engine,
    and_,
    case,
    func,
    literal,
    literal_column,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.types import TypeDecorator

from ..moments import milliseconds, moment
from ..steps import LOST
from .dialects import dialect_of
from .ids import id_text
from .seen import held_until
from .tables import Tables


class Moment(TypeDecorator[datetime]):
    """Whole milliseconds in the database, an aware datetime in UTC in Python."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> int | None:
        if value is None:
            return None
        if value.utcoffset() is None:
            raise ValueError(f"{value!r} has no time zone: use one that has, such as UTC.")
        return milliseconds(value.timestamp())

    def process_result_value(self, value: int | None, dialect: Any) -> datetime | None:
        return None if value is None else moment(int(value))


class Expressions:
    """Makes expressions that read the tables of presence, for queries on the same database.

    :param clock: gives seconds instead of the database's clock; for tests only.
    """

    def __init__(
        self, tables: Tables, engine: Engine, clock: Callable[[], float] | None = None
    ) -> None:
        self._tables = tables
        self.engine = engine
        self._dialect = dialect_of(engine)
        self._clock = clock

    @property
    def _now(self) -> ColumnElement[int]:
        if self._clock is None:
            return literal_column(self._dialect.statement_clock, BigInteger)
        return literal(int(self._clock() * 1000), BigInteger)

    def is_present(
        self, user_id: Any, *, channel: str | None = None, prefix: str | None = None
    ) -> ColumnElement[bool]:
        """Is the user of this id in a channel, below a bare prefix, or anywhere?

        Nobody who is due is there.

        :raises TypeError: the column cannot be compared with the ids of users.
        """
        members, workers = self._tables.members.alias(), self._tables.workers.alias()
        now = self._now
        alive = select(workers.c.id).where(workers.c.status != LOST, workers.c.lease > now)
        here = select(members.c.user_id).where(
            members.c.user_id == id_text(user_id, self.engine.dialect.name),
            or_(members.c.deadline > now, members.c.worker.in_(alive)),
        )
        if channel is not None:
            here = here.where(members.c.channel == channel)
        if prefix is not None:
            # What comes after the slash, byte by byte, is a zero.
            here = here.where(members.c.channel >= f"/{prefix}/", members.c.channel < f"/{prefix}0")
        return and_(_is_known(user_id), here.exists())

    def last_seen_at(self, user_id: Any) -> ColumnElement[datetime | None]:
        """Until when the user of this id was seen, as `Backend.last_seen` tells it.

        :raises TypeError: likewise.
        """
        seen, members, now = self._tables.seen.alias(), self._tables.members.alias(), self._now
        user = id_text(user_id, self.engine.dialect.name)
        held_at, held = held_until(members, self._tables.workers.alias())
        kept = select(seen.c.at).where(seen.c.user_id == user).scalar_subquery()
        still = held.add_columns(func.max(func.coalesce(held_at, now))).where(
            members.c.user_id == user
        )
        greatest = getattr(func, self._dialect.greatest)
        least = getattr(func, self._dialect.least)
        # Some databases take the least and greatest of NULL for NULL, others leave it out.
        latest = greatest(func.coalesce(kept, 0), func.coalesce(still.scalar_subquery(), 0))
        until = func.nullif(least(latest, now), 0)
        return type_coerce(case((_is_known(user_id), until)), Moment())


def _is_known(user_id: Any) -> ColumnElement[bool]:
    """True for every user; it brings the column's table into the query, where the subqueries look
    for it."""
    known: ColumnElement[bool] = user_id.is_not(None)
    return known
