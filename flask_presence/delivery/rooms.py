"""Who in this process listens to which channel, and the three rooms in which they do.

Each channel has a room for those who see identities, one for those who see the count, and one for
those who are present. All local subscribers of a channel are in the same of the first two: which
one is the channel's own affair, and where that turns, they are moved together.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ..model import Change, State
from .feed import Feed
from .wire import Diff, state_forms

Recipients = Literal["present", "subscribed"]
"""Those who entered a channel, or those who watch it."""


class Transport(Protocol):
    """What delivery needs of the sockets."""

    @property
    def crosses_processes(self) -> bool:
        """Does an emit reach the clients of other processes?"""

    def emit(self, event: str, data: Any, room: str, *, local: bool) -> None:
        """Send to a room, in this process alone where ``local``; never raises."""

    def emit_to(self, event: str, data: Any, client_id: str) -> None:
        """Send to one client of this process; never raises."""

    def is_connected(self, client_id: str) -> bool:
        """Is there a live socket for this client in this process?"""

    def disconnect(self, client_id: str) -> None:
        """Close the client's connection; it may come back with a new one."""

    def join(self, client_id: str, room: str) -> None: ...

    def leave(self, client_id: str, room: str) -> None: ...


# A room that is named like a session id would be that client's private room: hence the prefix.
def full_room(channel: str) -> str:
    return f"presence:full:{channel}"


def counted_room(channel: str) -> str:
    return f"presence:counted:{channel}"


def present_room(channel: str) -> str:
    return f"presence:present:{channel}"


@dataclass(slots=True)
class _Audience:
    count_only: bool
    client_ids: set[str] = field(default_factory=set)


class Rooms:
    """Lets clients of this process in and out, and sends to those who are in.

    :param hears: does every process hear of each event by itself? Then none sends for others.
    """

    def __init__(self, transport: Transport, feed: Feed, *, hears: bool = False) -> None:
        self._transport = transport
        self._feed = feed
        self.hears = hears
        self._lock = threading.RLock()
        self._audiences: dict[str, _Audience] = {}

    def reset(self) -> None:
        """Forget the audiences of a parent process."""
        self._lock = threading.RLock()
        self._audiences = {}
        self._feed.reset()

    @property
    def crosses_processes(self) -> bool:
        """Does what one process sends reach the subscribers of all?"""
        return self._transport.crosses_processes and not self.hears

    def has_audience(self, channel: str) -> bool:
        """Has the channel a subscriber in this process?"""
        return channel in self._audiences

    def subscribe(self, client_id: str, channel: str, *, count_only: bool) -> None:
        """Let a client watch, where those who watch already are; it is the first: as told."""
        with self._lock:
            self._feed.watch(channel)
            audience = self._audiences.setdefault(channel, _Audience(count_only))
            audience.client_ids.add(client_id)
            self._transport.join(client_id, _room(channel, audience.count_only))

    def is_counted(self, channel: str) -> bool | None:
        """Do those who watch see only the count? ``None`` where nobody watches."""
        audience = self._audiences.get(channel)
        return None if audience is None else audience.count_only

    def unsubscribe(self, client_id: str, channel: str) -> None:
        with self._lock:
            audience = self._audiences.get(channel)
            if audience is not None:
                self._transport.leave(client_id, _room(channel, audience.count_only))
            self.forget(client_id, channel)

    def forget(self, client_id: str, channel: str) -> None:
        """Count a disconnected client out; its sockets have left their rooms already."""
        with self._lock:
            audience = self._audiences.get(channel)
            if audience is None:
                return
            audience.client_ids.discard(client_id)
            if not audience.client_ids:
                del self._audiences[channel]
                self._feed.unwatch(channel)

    def move_audience(self, channel: str, *, count_only: bool) -> bool:
        """Move those who watch to the room that they belong in now, and owe them a state; were
        they elsewhere?"""
        with self._lock:
            audience = self._audiences.get(channel)
            if audience is None or audience.count_only == count_only:
                return False
            for client_id in audience.client_ids:
                self._transport.leave(client_id, _room(channel, audience.count_only))
                self._transport.join(client_id, _room(channel, count_only))
            audience.count_only = count_only
            self._feed.owe(channel)
            return True

    def enter(self, client_id: str, channel: str) -> None:
        """Let a client into the room of those present."""
        self._transport.join(client_id, present_room(channel))

    def leave(self, client_id: str, channel: str) -> None:
        self._transport.leave(client_id, present_room(channel))

    def expect(self, changes: Iterable[Change]) -> None:
        """Whoever looks meanwhile is to know that these changes will be sent soon."""
        for change in changes:
            self._feed.note_coming(change.channel, change.epoch, change.revision)

    def send_diff(self, diff: Diff) -> int:
        """Send a diff to all its subscribers; how many of them this process has."""
        local = not self.crosses_processes
        audience = self._audiences.get(diff.channel)
        if local and audience is None:
            return 0
        self._transport.emit("diff", diff.forms.full, full_room(diff.channel), local=local)
        self._transport.emit("diff", diff.forms.counted, counted_room(diff.channel), local=local)
        self._feed.note_diff(diff.channel, diff.epoch, diff.revisions)
        return len(audience.client_ids) if audience is not None else 0

    def send_event(self, event: str, data: Any, channel: str, *, to: Recipients) -> None:
        """Send an event of the app's own, in this process alone where all hear of it."""
        rooms = {
            "present": [present_room(channel)],
            "subscribed": [full_room(channel), counted_room(channel)],
        }
        for room in rooms[to]:
            self._transport.emit(event, data, room, local=self.hears)

    def push_state(self, state: State) -> None:
        """Send a state to all subscribers in this process."""
        forms = state_forms(state)
        # Noted first: if it turns again meanwhile, it is owed again.
        self._feed.note_pushed(state.channel, state.position)
        self._transport.emit("state", forms.full, full_room(state.channel), local=True)
        self._transport.emit("state", forms.counted, counted_room(state.channel), local=True)

    def is_connected(self, client_id: str) -> bool:
        return self._transport.is_connected(client_id)

    def disconnect(self, client_id: str) -> None:
        self._transport.disconnect(client_id)

    def send_evicted(self, client_id: str, channel: str, reason: str) -> None:
        self._transport.emit_to("evicted", {"channel": channel, "reason": reason}, client_id)


def _room(channel: str, count_only: bool) -> str:
    return counted_room(channel) if count_only else full_room(channel)
