"""A channel's users, from the rows that scripts wrote of them."""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter

from ...model import User
from ...protocol import load_objects
from ..stored import Damaged, are_ids

FIELDS = 9
"""Of each row, as ``rows.lua`` writes them: client, user, info, meta, place, named, wrote, worker
and timeout. A NUL follows each."""


Shown = tuple[int, str, str, str, int, int]
"""What one client shows of its user: place, user, info and meta as text, named, wrote."""


def users_of(channel: str, text: str, count: int) -> tuple[User, ...]:
    """The users that these rows of one channel belong to, in the order of entering.

    :param count: how many users the channel says that it has.
    :raises Damaged: the rows are not as presence wrote them.
    """
    shown = sorted(_rows(channel, text))
    if len(shown) != count:
        shown = sorted(_merged(shown))
    users = [row[1] for row in shown]
    if len(set(users)) != count:
        raise Damaged(f"The store holds other users of {channel} than it counts.", channel)
    infos = load_objects([row[2] for row in shown])
    metas = load_objects([row[3] or "{}" for row in shown])
    return tuple(map(User, users, infos, metas))


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
    return zip(places, users, infos, metas, named, wrote, strict=True)


def _merged(rows: Iterable[Shown]) -> Iterable[Shown]:
    """One for each user: the info given last, and the meta of the client that wrote last."""
    groups: dict[str, list[Shown]] = {}
    for row in rows:
        groups.setdefault(row[1], []).append(row)
    for some in groups.values():
        place, user, info, _, named, _ = max(some, key=itemgetter(4))
        _, _, _, meta, _, wrote = max(some, key=itemgetter(5))
        yield place, user, info, meta, named, wrote
