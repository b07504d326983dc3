"""Who comes and goes, for a process that serves nobody: found by comparing states."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..backends.base import Backend
from ..model import Kind, Position, State, User
from .states import States

NOBODY = "nobody"
"""The id of no worker: a renewal of its lease brings positions and changes nothing."""


class Sight(NamedTuple):
    """A difference between two states: what became of a user, or for ``None`` of ``number``
    anonymous clients; ``state`` is the later of the two."""

    kind: Kind
    state: State
    user: User | None
    number: int = 1


class Watch:
    """Looks at one channel, or at all that are occupied, whenever it is told to.

    While nobody moves, a look is one read of one channel's counters, or of the names and positions
    of all channels; only where a position moved is a state read. What came and went between two
    looks is not seen. Of all channels, whoever died is seen to leave once a process prunes.

    :param channel: the one to look at; ``None``: all.
    """

    def __init__(self, backend: Backend, states: States, channel: str | None = None) -> None:
        self._backend = backend
        self._states = states
        self._channel = channel
        self._known: dict[str, State] = {}

    def begin(self) -> list[State]:
        """Remember who is there now: the states to begin with."""
        for _ in self.look():
            pass
        return list(self._known.values())

    def look(self) -> Iterator[Sight]:
        """What became of whom since the last look."""
        for name, position in self._positions().items():
            before = self._known.get(name, State(name))
            if position == before.position:
                continue
            after = self._states.state(name)
            if after.count + after.anonymous or name == self._channel:
                self._known[name] = after
            else:
                self._known.pop(name, None)
            yield from differences(before, after)

    def _positions(self) -> dict[str, Position]:
        if self._channel is not None:
            return {self._channel: self._states.count(self._channel).position}
        names = sorted({*self._known, *self._backend.channels()})
        return self._backend.renew(NOBODY, 0, channels=names).positions


def differences(before: State, after: State) -> Iterator[Sight]:
    """What became of whom between two states of a channel."""
    old, new = _by_id(before.users), _by_id(after.users)
    for user in before.users:
        if user.id not in new:
            yield Sight("left", after, user)
    for user in after.users:
        if user.id not in old:
            yield Sight("entered", after, user)
        elif user != old[user.id]:
            yield Sight("updated", after, user)
    number = after.anonymous - before.anonymous
    if number:
        yield Sight("entered" if number > 0 else "left", after, None, abs(number))


def _by_id(users: Iterable[User]) -> dict[str, User]:
    return {user.id: user for user in users}
