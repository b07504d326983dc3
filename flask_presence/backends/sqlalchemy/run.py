"""Which run of a database server the connections lead to: another one may lack the last writes."""

from __future__ import annotations

import time

from ..stored import RESTORED_SECONDS

TOLERANCE = 1.5
"""Seconds by which the beginning of one run may seem to differ: some servers tell whole seconds."""


class Run:
    """The server's run, as each new connection finds it."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._restored_until = float("-inf")
        self._others = self._taken = 0

    def note(self, uptime: float) -> None:
        """A new connection leads to a server that has been up for so many seconds."""
        now = time.monotonic()
        before, self._began = self._began, now - uptime
        if before is not None and abs(self._began - before) > TOLERANCE:
            self._restored_until = now + RESTORED_SECONDS
            self._others += 1

    def take_another(self) -> bool:
        """Did another run begin, or another server take its place, since this was asked last?"""
        before, self._taken = self._taken, self._others
        return before != self._taken

    @property
    def is_restored(self) -> bool:
        """Was that lately?"""
        return time.monotonic() < self._restored_until
