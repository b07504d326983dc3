"""What the logs say, put in order: who was in for certain and when, and who saw what."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .journal import Record
from .mirror import Mirror, State

FAULT_KEYS = ("name", "costs_signals", "turns_back", "is_slow")
FOR_EVER = float("inf")
LINGER_SECONDS = 3.0
"""How much later than it should a server may let go of a closed connection."""
EVICTION_SECONDS = 4.0
"""How long it may take until those are told whom another server evicted."""
FLEETING = 0.6
"""The part of its grace for which whoever was dropped is in for certain."""


class Window(NamedTuple):
    """A time in which something was wrong: from the fault until all had healed."""

    start: float
    end: float
    fault: str
    costs_signals: bool
    turns_back: bool
    is_slow: bool

    def meets(self, start: float, end: float) -> bool:
        return self.start <= end and start <= self.end


class Seen(NamedTuple):
    """A state that a client was given, when it had asked, if it did, and when it arrived."""

    asked: float | None
    at: float
    who: str
    state: State


class Stay(NamedTuple):
    """A client in a channel: from its start to its end it was in for certain, or may have been.

    ``closed``: when its connection was, if the stay goes on from there.
    """

    start: float
    end: float
    user: str | None
    who: str
    port: int
    closed: float | None = None

    def covers(self, start: float, end: float) -> bool:
        return self.start < start and end < self.end


class Signal(NamedTuple):
    at: float
    who: str
    change: dict[str, Any]


@dataclass
class Final:
    """All had healed: what the store had, and what did not agree with it."""

    at: float
    states: dict[str, Any]
    differences: list[str]
    undelivered: list[str]
    """Revisions that were never brought to a subscriber as a diff."""
    held: dict[tuple[str, str], list[Any]]
    """The metas given by the clients of each user in each channel."""
    anonymous: dict[str, int]
    """How many clients without a user are in each channel."""


@dataclass
class Line:
    """One connection, as its frames are read one after another."""

    name: str
    user: str | None
    port: int
    mirror: Mirror
    certain: dict[str, float] = field(default_factory=dict)
    possible: dict[str, float] = field(default_factory=dict)
    closed: bool = False


class History:
    """Everything that happened in one run.

    :param grace: seconds for which whoever was dropped is in nevertheless.
    """

    def __init__(self, records: Iterable[Record], *, grace: float) -> None:
        self.windows: list[Window] = []
        self.signals: list[Signal] = []
        self.seen: list[Seen] = []
        self.finals: list[Final] = []
        self.unhealed: list[tuple[float, list[str]]] = []
        self.complaints: list[tuple[float, str]] = []
        self.logged: list[tuple[float, str, dict[str, Any]]] = []
        self.frames: list[tuple[float, str, str]] = []
        """What was received: when, by whom, and the text."""
        self.answers: list[tuple[float, float, str]] = []
        """When something was asked, when it was answered, and who asked."""
        self.certain: dict[str, list[Stay]] = defaultdict(list)
        self.possible: dict[str, list[Stay]] = defaultdict(list)
        """By channel."""
        self.evictions: list[tuple[float, float, str]] = []
        """From when until when a user was being evicted."""
        self.leaves: dict[tuple[str, str], list[float]] = defaultdict(list)
        """When a user asked to leave a channel."""
        self.closings: dict[tuple[str, str], list[float]] = defaultdict(list)
        """When a connection of a user that may have been in a channel was closed in order."""
        self.downs: list[tuple[float, float, int]] = []
        """From when until when a server was not what its clients think, by its port."""
        self._grace = grace
        self._lines: dict[str, Line] = {}
        self._gone: dict[str, Mirror] = {}
        self._fault: tuple[float, dict[str, Any]] | None = None
        self._down: dict[int, float] = {}
        self._evicting: dict[str, tuple[float, str]] = {}
        for record in records:
            getattr(self, f"_take_{record.kind}", self._ignore)(record)
        self._finish()

    def window_at(self, start: float, end: float) -> Window | None:
        return next((window for window in self.windows if window.meets(start, end)), None)

    def is_evicting(self, user: str | None, start: float, end: float) -> bool:
        return any(
            user == evicted and begun <= end and start <= over
            for begun, over, evicted in self.evictions
        )

    # The stage

    def _ignore(self, record: Record) -> None:
        """Nothing to learn from it."""

    def _take_fault(self, record: Record) -> None:
        self._fault = (record.at, record.data)

    def _take_final(self, record: Record) -> None:
        states = record.data["states"]
        final = Final(record.at, states, [], [], defaultdict(list), defaultdict(int))
        for line in self._lines.values():
            if not line.closed:
                _compare(line, states, final)
        self.finals.append(final)
        self._end_window(record.at)

    def _take_unhealed(self, record: Record) -> None:
        self.unhealed.append((record.at, record.data))
        self._end_window(record.at)

    def _end_window(self, at: float) -> None:
        if self._fault is not None:
            start, about = self._fault
            name, *flags = (about[key] for key in FAULT_KEYS)
            self.windows.append(Window(start, at, name, *flags))
            self._fault = None
        for port, since in self._down.items():
            self.downs.append((since, at, port))
        self._down.clear()

    def _take_complaint(self, record: Record) -> None:
        self.complaints.append((record.at, record.data))

    def _take_down(self, record: Record) -> None:
        self._down[record.data] = record.at

    # The servers

    def _take_signal(self, record: Record) -> None:
        self.signals.append(Signal(record.at, record.who, record.data))

    def _take_log(self, record: Record) -> None:
        self.logged.append((record.at, record.who, record.data))

    # The tabs

    def _take_opened(self, record: Record) -> None:
        about = record.data
        before = self._gone.get(about["after"])
        mirror = Mirror(about["user"], before)
        self._lines[record.who] = Line(record.who, about["user"], about["port"], mirror)

    def _take_out(self, record: Record) -> None:
        line = self._lines[record.who]
        line.mirror.sent(record.data, record.at)
        self._note_leaves(line, record)
        if not line.closed:
            self._note_stays(line, record.at)

    def _note_leaves(self, line: Line, record: Record) -> None:
        if '"leave"' in record.data and line.user is not None:
            for channel in line.mirror.changing():
                self.leaves[channel, line.user].append(record.at)

    def _take_in(self, record: Record) -> None:
        line = self._lines[record.who]
        asked = line.mirror.received(record.data)
        if asked is not None:
            self.answers.append((asked, record.at, line.name))
        self.seen += [Seen(at, record.at, line.name, state) for at, state in line.mirror.states]
        line.mirror.states.clear()
        self.frames.append((record.at, line.name, record.data))
        if not line.closed:
            self._note_stays(line, record.at)

    def _take_closed(self, record: Record) -> None:
        line = self._lines[record.who]
        if line.closed:
            return
        line.closed = True
        self._gone[line.name] = line.mirror
        if record.data == "left" and line.user is not None:
            for channel in line.possible:
                self.closings[channel, line.user].append(record.at)
        self._end_stays(line, record.at, record.data)

    def _take_evicts(self, record: Record) -> None:
        self._evicting[record.who] = (record.at, record.data)

    def _take_evicted(self, record: Record) -> None:
        begun, user = self._evicting.pop(record.who)
        self.evictions.append((begun, record.at + EVICTION_SECONDS, user))

    # Who is in

    def _note_stays(self, line: Line, at: float) -> None:
        for channels, since, stays in self._kinds(line):
            for channel in since.keys() - channels:
                start = since.pop(channel)
                stays[channel].append(Stay(start, at, line.user, line.name, line.port))
            for channel in channels - since.keys():
                since[channel] = at

    def _kinds(self, line: Line) -> Iterator[tuple[set[str], dict[str, float], Any]]:
        yield line.mirror.certain(), line.certain, self.certain
        yield line.mirror.possible(), line.possible, self.possible

    def _end_stays(self, line: Line, at: float, how: str) -> None:
        """A connection closed: ``dropped`` by its client, ``left`` in order, or ``lost``."""
        about = line.user, line.name, line.port, at
        # Of what a network or a server lost, nobody knows whether a server noticed.
        certain = at + (FLEETING * self._grace if how == "dropped" and line.user else 0)
        possible = at + self._grace + LINGER_SECONDS
        for channel, start in line.certain.items():
            self.certain[channel].append(Stay(start, certain, *about))
        for channel, start in line.possible.items():
            self.possible[channel].append(Stay(start, possible, *about))
        line.certain.clear()
        line.possible.clear()

    def _finish(self) -> None:
        for line in self._lines.values():
            about = line.user, line.name, line.port
            for _, since, stays in self._kinds(line):
                for channel, start in since.items():
                    stays[channel].append(Stay(start, FOR_EVER, *about))
        if self._fault is not None:
            self._end_window(FOR_EVER)
        self.certain = {
            channel: [self._cut(channel, stay) for stay in stays]
            for channel, stays in self.certain.items()
        }

    def _cut(self, channel: str, stay: Stay) -> Stay:
        """Who is dropped is in for a while, unless another client of theirs leaves or they are
        evicted."""
        if stay.closed is None or stay.user is None:
            return stay
        ends = [*self.leaves[channel, stay.user]]
        ends += [begun for begun, _, user in self.evictions if user == stay.user]
        return stay._replace(
            end=min([stay.end, *(at for at in ends if at > stay.closed - LINGER_SECONDS)])
        )


def _compare(line: Line, states: dict[str, Any], final: Final) -> None:
    """What one connection has to say about the last states."""
    mirror = line.mirror
    for channel, meta in mirror.entered.items():
        if line.user is None:
            final.anonymous[channel] += 1
        else:
            final.held[channel, line.user].append(meta)
    for channel, watch in mirror.watched.items():
        if channel in states:
            state = states[channel]
            final.differences += [
                f"{line.name}, {channel}: it sees {difference}"
                for difference in watch.differences(state)
            ]
            if missed := watch.undelivered(state):
                final.undelivered.append(f"{line.name}, {channel}: no diff brought {missed}")
