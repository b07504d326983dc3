"""What the parts of the tracker share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ..backends.base import Backend
from ..channels import Registry
from ..delivery import Announcer, Feed, Rooms
from ..settings import Settings
from .clients import Clients


class Runtime(Protocol):
    """Background work in the way of the server's async mode."""

    def spawn(self, target: Callable[[], None]) -> None: ...

    def sleep(self, seconds: float) -> None: ...

    def event(self) -> Any:
        """An event with ``wait(timeout)``, ``set`` and ``clear``."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The floors below, the connections of this process, and its monotonic clock."""

    backend: Backend
    registry: Registry
    announcer: Announcer
    rooms: Rooms
    feed: Feed
    settings: Settings
    clients: Clients
    clock: Callable[[], float]
