"""Moments of the store's clock, and durations: whole milliseconds."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def moment(milliseconds: int) -> datetime:
    """A moment of the store's clock, as people know it."""
    return _EPOCH + timedelta(milliseconds=milliseconds)


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, rounded up so that nothing ends early."""
    return math.ceil(seconds * 1000)
