"""For tests: `PresenceKit` tries out the presence of an app, and `BackendContract` proves that a
backend of your own keeps the contract: subclass it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from .client import Heartbeat, PresenceTestClient, Refused
from .clock import Clock
from .kit import PresenceKit
from .subscription import Subscription

if TYPE_CHECKING:
    from .contract import BackendContract

__all__ = [
    "BackendContract",
    "Clock",
    "Heartbeat",
    "PresenceKit",
    "PresenceTestClient",
    "Refused",
    "Subscription",
]


def __getattr__(name: str) -> Any:
    """Import the contract only where it is asked for: pytest is no dependency of an app."""
    if name != "BackendContract":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = f"{__name__}.contract"
    if module not in sys.modules:
        import pytest

        pytest.register_assert_rewrite(module)
    from .contract import BackendContract

    return BackendContract
