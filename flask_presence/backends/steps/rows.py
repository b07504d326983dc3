"""A channel and its members as they are stored, and what others see of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

from ...model import User, users_from
from ...protocol import load_objects
from ..stored import are_ids, are_whole


class Row(NamedTuple):
    """A member as it is stored. Moments are whole milliseconds of the store's clock."""

    client_id: str
    user_id: str | None
    info: str
    meta: str | None
    place: int
    """The revision at which the user entered: the user's place in the order."""
    named: int
    """When, in the channel's count of writes, this client gave its info."""
    wrote: int
    """When it wrote its meta; 0 for a client that gave none."""
    worker: str | None = None
    deadline: int | None = None
    held_at: int | None = None
    """When the deadline was set, to notice a clock that stepped back."""

    @property
    def group(self) -> str | tuple[str]:
        """Who is counted: the user, or an anonymous client by itself."""
        return (self.client_id,) if self.user_id is None else self.user_id


Columns = Mapping[str, Sequence[Any]]
"""Many rows, by the names of their fields."""


def columns_of(rows: Sequence[Row]) -> Columns:
    """The rows, field by field."""
    if not rows:
        return dict.fromkeys(Row._fields, ())
    return dict(zip(Row._fields, zip(*rows, strict=True), strict=True))


def check_rows(rows: Sequence[Row], channel: str) -> None:
    """Raise `Damaged` where a channel's rows are not as presence wrote them."""
    if rows:
        check_columns(columns_of(rows), channel)


def check_columns(columns: Columns, channel: str) -> None:
    """The same of rows that are there field by field."""
    are_ids(columns["client_id"], channel)
    are_ids(_known(columns["user_id"]), channel)
    for numbers in ("place", "named", "wrote"):
        are_whole(columns[numbers], channel)
    for moments in ("deadline", "held_at"):
        are_whole(_known(columns[moments]), channel)


def _known(values: Sequence[Any]) -> Sequence[Any]:
    return [value for value in values if value is not None] if None in values else values


@dataclass(slots=True)
class Counters:
    """A channel as it is stored. ``vacated`` is the moment when it became empty."""

    epoch: str
    revision: int = 0
    writes: int = 0
    count: int = 0
    anonymous: int = 0
    vacated: int | None = None

    def check(self, channel: str) -> None:
        """Raise `Damaged` where they are not as presence wrote them."""
        are_ids([self.epoch], channel)
        are_whole([self.revision, self.writes, self.count, self.anonymous], channel)

    @property
    def is_empty(self) -> bool:
        return self.count + self.anonymous == 0


class Seen(NamedTuple):
    """What others see of a user."""

    info: str
    meta: str


def seen(rows: Collection[Row]) -> Seen | None:
    """What others see of whom these rows belong to; ``None`` where there are no rows."""
    if not rows:
        return None
    if len(rows) == 1:
        (row,) = rows
        if row.user_id is None:
            return Seen("{}", "{}")
        return Seen(row.info, "{}" if row.meta is None else row.meta)
    writer = max(rows, key=lambda row: row.wrote)
    if writer.user_id is None:
        return Seen("{}", "{}")
    info = max(rows, key=lambda row: row.named).info
    return Seen(info, writer.meta if writer.wrote and writer.meta is not None else "{}")


def users_of(rows: Sequence[Row]) -> tuple[User, ...]:
    """The users that these rows of one channel belong to, in the order of entering."""
    return users_in(columns_of(rows))


def users_in(columns: Columns) -> tuple[User, ...]:
    """The same of rows that are there field by field."""
    users, places = columns["user_id"], columns["place"]
    if None in users or len({*users}) < len(users) or sorted(places) != list(places):
        columns = columns_of(_one_each(map(Row, *columns.values())))
    infos = load_objects(columns["info"])
    metas = load_objects(["{}" if meta is None else meta for meta in columns["meta"]])
    return users_from(columns["user_id"], infos, metas)


def _one_each(rows: Iterable[Row]) -> list[Row]:
    """A row for each user in the order of entering, with what others see of them."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.user_id is not None:
            groups.setdefault(row.user_id, []).append(row)
    return sorted(map(_as_seen, groups.values()), key=attrgetter("place", "user_id"))


def _as_seen(rows: Sequence[Row]) -> Row:
    what = seen(rows)
    assert what is not None
    return rows[0] if len(rows) == 1 else rows[0]._replace(info=what.info, meta=what.meta)
