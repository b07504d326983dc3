"""Time that stands still until a test moves it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

TICKS = 1024
"""In a second: a power of two, so that sums of them are exact."""

PACE = TICKS
"""The most that go by at once."""


class Clock:
    """Called, it gives the seconds of the epoch; it begins with the second in which it is made.

    :param on_move: called each time some went by, for what is due by then.
    """

    def __init__(self, *, on_move: Callable[[], object]) -> None:
        self._on_move = on_move
        self._ticks = int(time.time()) * TICKS

    def __call__(self) -> float:
        return self._ticks / TICKS

    def advance(self, seconds: float) -> None:
        """Let this many seconds go by, and everything happen that is due in the meantime.

        :raises ValueError: time would go backwards, or never stop.
        """
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"The clock goes forward by some seconds, not by {seconds!r}.")
        end = self._ticks + math.ceil(seconds * TICKS)
        while self._ticks < end:
            self._ticks = min(end, self._ticks + PACE)
            self._on_move()
