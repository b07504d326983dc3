"""What proves that a backend of your own keeps the contract: subclass `BackendContract`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .contract import BackendContract

__all__ = ["BackendContract"]


def __getattr__(name: str) -> Any:
    """Import the contract only where it is asked for: pytest is no dependency of an app."""
    if name != "BackendContract":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest

    pytest.register_assert_rewrite(f"{__name__}.contract")
    from .contract import BackendContract

    return BackendContract
