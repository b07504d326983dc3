"""A channel's users, from the rows that scripts wrote of them."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import NamedTuple

from ...model import User
from ...protocol import load_objects
from ..stored import Damaged, are_ids

FIELDS = 9
"""Of each row, as ``rows.lua`` writes them: client, user, info, meta, place, named, wrote, worker
and timeout. A NUL follows each."""


class Shown(NamedTuple):
    """What one client shows of its user; info and meta are still text."""

    place: int
    user_id: str
    info: str
    meta: str
    named: int
    wrote: int


def users_of(channel: str, text: str, count: int) -> tuple[User, ...]:
    """The users that these rows of one channel belong to, in the order of entering.

    :param count: how many users the channel says that it has.
    :raises Damaged: the rows are not as presence wrote them.
    """
    shown = sorted(_rows(channel, text))
    if len(shown) != count:
        shown = sorted(_merged(shown))
    if len({row.user_id for row in shown}) != count:
        raise Damaged(f"The store holds other users of {channel} than it counts.", channel)
    infos = load_objects([row.info for row in shown])
    metas = load_objects([row.meta or "{}" for row in shown])
    return tuple(map(User, [row.user_id for row in shown], infos, metas))


def _rows(channel: str, text: str) -> Iterable[Shown]:
    """All rows, read and checked a column at a time: there may be thousands."""
    *fields, rest = text.split("\0")
    if rest or len(fields) % FIELDS:
        raise Damaged(f"The store holds rows of {channel} that are none.", channel)
    clients, users, infos, metas, *numbers = (fields[column::FIELDS] for column in range(7))
    try:
        places, named, wrote = (list(map(int, column)) for column in numbers)
    except ValueError as error:
        raise Damaged(f"The store holds rows of {channel} that are none: {error}") from error
    are_ids(clients, channel)
    are_ids(users, channel)
    return map(Shown, places, users, infos, metas, named, wrote)


def _merged(rows: Iterable[Shown]) -> Iterable[Shown]:
    """One for each user: the info given last, and the meta of the client that wrote last."""
    groups: dict[str, list[Shown]] = {}
    for row in rows:
        groups.setdefault(row.user_id, []).append(row)
    for some in groups.values():
        newest, writer = max(some, key=attrgetter("named")), max(some, key=attrgetter("wrote"))
        yield newest._replace(meta=writer.meta, place=some[0].place)
