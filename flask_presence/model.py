"""The values that everything else speaks of: who is where, and what changed.

All of them are frozen. Ids are strings; ``info`` and ``meta`` of the public values are plain
dicts, those of `Identity` and `Member` canonical JSON text, as the stores keep it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Literal, NamedTuple

Kind = Literal["entered", "updated", "left"]
Reason = Literal["left", "timeout", "worker_lost", "evicted", "cleared", "healed"]


class Position(NamedTuple):
    """Where a channel's change counter stands; revisions of different epochs are never compared."""

    epoch: str | None
    revision: int


NOWHERE = Position(None, 0)
"""The position of a channel that nobody ever entered."""


NO_GROUPS: frozenset[str] = frozenset()
"""Shared by all who are in none: another empty one would be 216 bytes for each connection."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a client belongs to, in plain values that outlive the request they were read in.

    ``user_id`` is ``None`` for an anonymous client; ``info`` is canonical JSON of an object.
    """

    user_id: str | None = None
    info: str = "{}"
    group_ids: frozenset[str] = NO_GROUPS


ANONYMOUS = Identity()


@dataclass(frozen=True, slots=True)
class Member:
    """One client in one channel; ``meta`` is ``None`` where the client gave none."""

    channel: str
    client_id: str
    user_id: str | None
    info: str = "{}"
    meta: str | None = None


@dataclass(frozen=True, slots=True)
class User:
    """A user as others in the channel see them."""

    id: str
    info: dict[str, Any] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)


def users_from(
    ids: Sequence[str], infos: Iterable[dict[str, Any]], metas: Iterable[dict[str, Any]]
) -> tuple[User, ...]:
    """Many users at once, in half the time: to make one of a frozen class takes a call a field."""
    users = tuple(map(object.__new__, repeat(User, len(ids))))
    for name, values in (("id", ids), ("info", infos), ("meta", metas)):
        deque(map(User.__dict__[name].__set__, users, values), maxlen=0)
    return users


@dataclass(frozen=True, slots=True)
class State:
    """The snapshot of a channel: users in the order of entering, and how many anonymous clients."""

    channel: str
    epoch: str | None = None
    revision: int = 0
    count: int = 0
    anonymous: int = 0
    users: tuple[User, ...] = ()

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.revision)


@dataclass(frozen=True, slots=True)
class Change:
    """One visible change of a channel: it raised the revision by exactly one.

    ``user_id`` is ``None`` for an anonymous client. ``count`` and ``anonymous`` are those of the
    channel after the change. ``reason`` says why somebody left; for entered and updated it is
    ``None``, unless a worker put back what the store had lost: ``healed``.
    """

    kind: Kind
    channel: str
    epoch: str
    revision: int
    user_id: str | None
    info: dict[str, Any]
    meta: dict[str, Any]
    count: int
    anonymous: int
    reason: Reason | None = None
