"""Time that stands still until a test moves it."""

from __future__ import annotations

import math
from collections.abc import Callable

TICKS = 1024
"""In a second: a power of two, so that sums of them are exact."""


class Clock:
    """Called, it gives seconds since some moment.

    :param pace: the most seconds that go by at once.
    :param on_move: called each time some went by, for what is due by then.
    """

    def __init__(self, *, pace: float, on_move: Callable[[], object]) -> None:
        self._pace = max(1, int(pace * TICKS))
        self._on_move = on_move
        self._ticks = 1000 * TICKS

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
            self._ticks = min(end, self._ticks + self._pace)
            self._on_move()
