"""What the parts of the tracker share."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ..backends.base import Backend
from ..channels import Registry
from ..delivery import Announcer, Feed, Rooms
from ..errors import PresenceError
from ..settings import Settings
from .clients import Clients

log = logging.getLogger(__name__)


def new_epoch() -> str:
    """A random tag for the life of a channel's change counter."""
    return secrets.token_urlsafe(9)


def attempt(work: Callable[[], object], what: str) -> bool:
    """Do what must not end whoever does it; did it go well?"""
    try:
        work()
    except PresenceError as error:
        log.warning("Could not %s: %s", what, error)
        return False
    except Exception:
        log.exception("Could not %s", what)
        return False
    return True


class Runtime(Protocol):
    """Background work in the way of the server's async mode."""

    def spawn(self, target: Callable[[], None]) -> None: ...

    def sleep(self, seconds: float) -> None: ...

    def event(self) -> Any:
        """An event with ``wait(timeout)``, ``set`` and ``clear``."""

    def hang_up(self) -> None:
        """Close all connections as a server that ends does: their clients come back."""


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
