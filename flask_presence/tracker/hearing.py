"""What this process hears of the store, where that carries events itself."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from ..backends.base import Listener
from ..delivery import Interest, Recipients
from ..model import Change
from ..protocol import check_event, check_json
from .parts import Parts

log = logging.getLogger(__name__)


class Hearing:
    """The ears of this process, and the channels for which they are open."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.on_told: Callable[[], object] = lambda: None
        """Called when there is a command to read."""
        self.on_owed: Callable[[], object] = lambda: None
        """Called when subscribers are owed a state."""
        self.listener: Listener | None = None
        if parts.backend.carries_events:
            self.listener = parts.backend.listen(self)
        self.interest = Interest(
            self.listener, has_audience=parts.rooms.has_audience, clock=parts.clock
        )

    def changed(self, changes: list[Change]) -> None:
        if not changes:
            return
        first, last = changes[0], changes[-1]
        if self._parts.feed.note_heard(first.channel, first.epoch, first.revision, last.revision):
            self.on_owed()
        self._parts.announcer.hear(changes)

    def told(self) -> None:
        self.on_told()

    def publish(self, event: str, data: Any, channel: str, *, to: Recipients) -> None:
        """Send an event of the app's own to clients of all processes."""
        if self.listener is None:
            self._parts.rooms.send_event(event, data, channel, to=to)
        else:
            self._parts.backend.publish(json.dumps([event, data, channel, to]))

    def heard(self, message: str) -> None:
        try:
            event, data, channel, to = json.loads(message)
            check_event(event)
            self._parts.rooms.send_event(event, check_json(data, "data"), channel, to=to)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            # Somebody else wrote it.
            log.error("A message that presence did not publish is passed over: %r", error)

    def missed(self, channel: str) -> None:
        self._parts.feed.owe(channel)
        self.on_owed()
