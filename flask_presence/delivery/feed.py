"""What this process sent to its subscribers, held against what the store says."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ..model import NOWHERE, Position


class Verdict(NamedTuple):
    """What to do after a renewal: channels whose subscribers are behind, and those whose store
    lost its last writes, with the epoch to give up."""

    behind: list[str]
    rolled_back: dict[str, str]


@dataclass(slots=True)
class _Watched:
    sent: Position | None = None
    """The highest revision with none missing below, of what all local subscribers were sent."""
    later: list[tuple[int, int]] = field(default_factory=list)
    """Ranges sent above that."""
    coming: dict[int, bool] = field(default_factory=dict)
    """Revisions of that epoch that are about to be sent; true: and were so a renewal ago."""
    begun: str | None = None
    """The epoch of those, where none was sent yet."""
    known: Position = NOWHERE
    """The newest position known to exist."""
    older: Position | None = None
    """What the store said one renewal ago."""
    newer: Position | None = None
    """What it said last."""
    is_owed: bool = False
    """Were its subscribers promised a state?"""
    is_another: bool = False
    """Did its counter begin another life?"""
    heard: Position = NOWHERE
    """The last that the store brought as an event."""
    given_up: str | None = None
    """The epoch that has to end, because the store counts anew what it had counted before."""

    def learn(self, position: Position) -> None:
        if self.known.epoch not in (None, position.epoch):
            self.is_another = True
        if position.epoch != self.known.epoch or position.revision > self.known.revision:
            self.known = position

    def send(self, epoch: str, ranges: Iterable[tuple[int, int]]) -> None:
        later = _merged([*self.later, *ranges])
        if self.sent is None:
            self.later = later
            return
        if self.sent == NOWHERE:
            self.sent = Position(epoch, 0)
        if epoch != self.sent.epoch:
            # Another epoch: nothing that was sent says where its subscribers stand.
            return
        self.sent = Position(epoch, _reached(self.sent.revision, later))
        self.later = later

    @property
    def epoch(self) -> str | None:
        """The epoch of what was sent, or else of what is coming."""
        return self.begun if self.sent in (None, NOWHERE) else self.sent.epoch

    def will_have_sent(self) -> int:
        """The highest revision with none missing below, once what is coming is sent; what has been
        coming for so long will not come any more."""
        assert self.sent is not None
        soon = [(revision, revision) for revision, is_late in self.coming.items() if not is_late]
        self.coming = dict.fromkeys(self.coming, True)
        return _reached(self.sent.revision, _merged([*self.later, *soon]))

    def replace(self, position: Position) -> None:
        if self.sent is not None and self.sent.epoch == position.epoch:
            position = max(self.sent, position, key=lambda known: known.revision)
        else:
            self.later, self.coming, self.begun = [], {}, None
        self.sent = position
        if position.epoch is not None:
            self.send(position.epoch, [])


def _reached(revision: int, later: list[tuple[int, int]]) -> int:
    """The highest revision with none missing below; ranges that lead there are taken out."""
    while later and later[0][0] <= revision + 1:
        revision = max(revision, later.pop(0)[1])
    return revision


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


class Feed:
    """Positions of the channels that have subscribers in this process."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Watch nothing."""
        self._lock = threading.Lock()
        self._watched: dict[str, _Watched] = {}

    def watch(self, channel: str) -> None:
        with self._lock:
            self._watched.setdefault(channel, _Watched())

    def unwatch(self, channel: str) -> None:
        with self._lock:
            self._watched.pop(channel, None)

    def note_read(self, channel: str, position: Position) -> None:
        """One subscriber was given the state at this position."""
        with self._lock:
            watched = self._watched.get(channel)
            if watched is None:
                return
            watched.learn(position)
            if watched.sent is None:
                watched.sent = position
                if position.epoch is not None:
                    watched.send(position.epoch, [])

    def note_pushed(self, channel: str, position: Position) -> None:
        """All subscribers were sent the state at this position."""
        with self._lock:
            watched = self._watched.get(channel)
            if watched is not None:
                watched.is_owed = False
                watched.learn(position)
                watched.replace(position)

    def note_coming(self, channel: str, epoch: str, revision: int) -> None:
        """All subscribers are about to be sent the change with this revision."""
        with self._lock:
            watched = self._watched.get(channel)
            if watched is None or watched.sent is None:
                return
            if watched.sent == NOWHERE and watched.begun is None:
                watched.begun = epoch
            if watched.epoch == epoch:
                watched.coming[revision] = False

    def note_diff(self, channel: str, epoch: str, ranges: list[tuple[int, int]]) -> None:
        """All subscribers were sent the changes with these revisions."""
        with self._lock:
            watched = self._watched.get(channel)
            if watched is not None:
                watched.learn(Position(epoch, ranges[-1][1]))
                watched.send(epoch, ranges)
                for start, end in ranges:
                    for revision in range(start, end + 1):
                        watched.coming.pop(revision, None)

    def note_heard(self, channel: str, epoch: str, first: int, last: int) -> bool:
        """The store brought these revisions; did it bring them before, and so has turned back?"""
        with self._lock:
            watched = self._watched.get(channel)
            if watched is None:
                return False
            before, watched.heard = watched.heard, Position(epoch, last)
            if before.epoch == epoch and first <= before.revision:
                watched.given_up = epoch
            return watched.given_up is not None

    def known_of(self, channel: str) -> Position:
        """The newest position known of a channel."""
        with self._lock:
            return self._watched[channel].known if channel in self._watched else NOWHERE

    def give_up(self, channel: str, epoch: str) -> None:
        """The store turned back within this epoch."""
        with self._lock:
            if channel in self._watched:
                self._watched[channel].given_up = epoch

    def take_given_up(self) -> dict[str, str]:
        """Channels whose store turned back since this was asked last, with the epoch to end."""
        with self._lock:
            found = {
                name: watched.given_up
                for name, watched in self._watched.items()
                if watched.given_up is not None
            }
            for name in found:
                self._watched[name].given_up = None
            return found

    def owe(self, channel: str) -> None:
        """All subscribers need a state."""
        with self._lock:
            if channel in self._watched:
                self._watched[channel].is_owed = True

    def owed(self) -> list[str]:
        """Channels whose subscribers need a state."""
        with self._lock:
            return [name for name, watched in self._watched.items() if watched.is_owed]

    def take_others(self) -> list[str]:
        """Channels that began another epoch since this was asked last: the store lost some, or all,
        of what was written there."""
        with self._lock:
            others = [name for name, watched in self._watched.items() if watched.is_another]
            for name in others:
                self._watched[name].is_another = False
            return others

    def known(self) -> dict[str, Position]:
        """The newest position known of each channel."""
        with self._lock:
            return {name: watched.known for name, watched in self._watched.items()}

    def compare(
        self,
        before: Mapping[str, Position],
        now: Mapping[str, Position],
        *,
        diffs_arrive: bool,
        hears: bool = False,
    ) -> Verdict:
        """Hold what a renewal brought against what was sent.

        :param before: what was known before the store was asked.
        :param diffs_arrive: do diffs of other processes reach the subscribers by themselves? Then
            whoever misses one finds out by its position, and nobody is behind only for being so.
        :param hears: does this process send all diffs, once it has heard of the changes? Then
            what was known one renewal ago has been sent, or is missing.
        """
        verdict = Verdict([], {})
        with self._lock:
            for name, position in now.items():
                watched = self._watched.get(name)
                if watched is None or watched.sent is None:
                    continue
                watched.older, watched.newer = watched.newer, position
                due = watched.older if hears else position
                known = before.get(name, NOWHERE)
                if position.epoch == known.epoch and position.revision < known.revision:
                    if position.epoch is not None:
                        verdict.rolled_back[name] = position.epoch
                    continue
                watched.learn(position)
                if position.epoch != watched.epoch:
                    verdict.behind.append(name)
                elif diffs_arrive:
                    watched.replace(position)
                elif due is None or due.epoch != position.epoch:
                    continue
                elif due.revision > watched.will_have_sent():
                    verdict.behind.append(name)
        return verdict

    def stale(self, positions: Mapping[str, Position]) -> list[str]:
        """Which of these positions of a subscriber are those of one who missed something."""
        with self._lock:
            return [
                name
                for name, position in positions.items()
                if name in self._watched and _is_stale(self._watched[name], position)
            ]


def _is_stale(watched: _Watched, position: Position) -> bool:
    if watched.known.epoch != position.epoch:
        return True
    older = watched.older
    if older is None or older.epoch != position.epoch:
        return False
    return older.revision > position.revision
