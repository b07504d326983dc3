"""Announces changes: to the app by signals, to subscribers by diffs that gather for a moment."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from blinker import NamedSignal

from .. import signals
from ..model import Change
from .rooms import Rooms
from .wire import diffs_of

log = logging.getLogger(__name__)

PAUSE_EACH = 0.0002
"""Seconds without another diff for each client that was told the last ones. Telling one takes some
50 µs of CPU, so that telling never takes more than a quarter of a core."""

LONGEST_PAUSE = 0.5
"""Half of the time after which a client takes what another process has yet to send for lost."""


class Announcer:
    """The one way from a change to signals and rooms.

    :param sender: who signals come from, the app.
    :param app_context: the context in which receivers run.
    :param window: seconds for which the changes of a channel gather.
    """

    def __init__(
        self,
        rooms: Rooms,
        *,
        sender: Any,
        app_context: Callable[[], AbstractContextManager[Any]],
        window: float,
    ) -> None:
        self._rooms = rooms
        self._sender = sender
        self._app_context = app_context
        self._window = window
        self._lock = threading.Lock()
        self._pending: list[Change] = []
        self._wake: Any = None

    def announce(self, changes: Sequence[Change]) -> None:
        """Tell the world; call it after the commit and outside of any lock."""
        # Where the store brings all changes as events, these come back as such.
        if changes and not self._rooms.hears:
            self._rooms.expect(changes)
            self._send_soon(changes)
        for change in changes:
            self._signal(change)

    def hear(self, changes: Sequence[Change]) -> None:
        """Tell subscribers of changes that the store brought as events."""
        if changes and self._rooms.has_audience(changes[0].channel):
            self._send_soon(changes)

    def _send_soon(self, changes: Sequence[Change]) -> None:
        with self._lock:
            self._pending.extend(changes)
        wake = self._wake
        try:
            self.flush() if wake is None else wake.set()
        except Exception:
            log.exception("Presence diffs could not be sent")

    def flush(self) -> int:
        """Send everything that gathered; how many clients of this process were told."""
        with self._lock:
            changes, self._pending = self._pending, []
        return sum(self._rooms.send_diff(diff) for diff in diffs_of(changes))

    def begin(self, event: Any) -> None:
        """From now on `run` sends the diffs; ``event`` wakes it."""
        if self._window:
            self._wake = event

    def end(self) -> None:
        """Let `run` end; from now on diffs are sent at once."""
        wake, self._wake = self._wake, None
        if wake is not None:
            wake.set()

    def reset(self) -> None:
        """Forget what a parent process had going."""
        self._lock = threading.Lock()
        self._pending = []
        self._wake = None

    def run(self, sleep: Callable[[float], None]) -> None:
        """Send diffs until `end`, each batch one window after its first change; after one that many
        were told there is a pause, in which more gather."""
        wake = self._wake
        while wake is not None:
            wake.wait()
            wake.clear()
            sleep(self._window)
            # What is announced after the end is sent by who announces it.
            wake = self._wake
            told = self._flush_or_log()
            sleep(max(0.0, min(told * PAUSE_EACH, LONGEST_PAUSE) - self._window))

    def _flush_or_log(self) -> int:
        try:
            return self.flush()
        except Exception:
            log.exception("Presence diffs could not be sent")
            return 0

    def _signal(self, change: Change) -> None:
        about = {"channel": change.channel, "change": change}
        present = change.count + change.anonymous
        if change.user_id is not None and change.kind == "entered":
            self._send(signals.user_entered, user_id=change.user_id, **about)
        if change.user_id is not None and change.kind == "left":
            self._send(signals.user_left, user_id=change.user_id, **about)
        self._send(signals.presence_changed, **about)
        if change.kind == "entered" and present == 1:
            self._send(signals.channel_occupied, channel=change.channel)
        if change.kind == "left" and present == 0:
            self._send(signals.channel_vacated, channel=change.channel)

    def _send(self, signal: NamedSignal, **about: Any) -> None:
        # Signal.send would stop at the first receiver that raises.
        for receiver in signal.receivers_for(self._sender):
            try:
                with self._app_context():
                    receiver(self._sender, **about)
            except Exception:
                log.exception("A receiver of %s raised for %s", signal.name, about["channel"])
