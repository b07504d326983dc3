"""What stands in for an app's own presence during a test: in memory, on the test's clock, and with
nothing that runs by itself."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from flask import Flask

from ..assembly import AppPresence, assemble
from ..backends.memory import MemoryBackend
from ..identity import Hooks
from ..model import Identity


class Runtime:
    """Background work that waits until it is done by hand."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    def spawn(self, target: Callable[[], None]) -> None:
        self._waiting.append(target)

    def run(self) -> None:
        """Do what was begun."""
        while self._waiting:
            self._waiting.popleft()()

    def sleep(self, seconds: float) -> None:
        """Nobody sleeps: time goes by where the test moves its clock."""

    def event(self) -> Any:
        return threading.Event()

    def hang_up(self) -> None:
        """A test closes the connections that it opened."""


class StandInHooks(Hooks):
    """The app's hooks, which a test may tell who connects. Remembers what the last one raised."""

    def __init__(self, own: Hooks) -> None:
        super().__init__(own.load_user)
        self._own = own
        self.user: Any = None
        self.raised: Exception | None = None

    def load(self, auth: Any, *, max_info_bytes: int) -> Identity:
        try:
            if self.user is None:
                return self._own.load(auth, max_info_bytes=max_info_bytes)
            return self._own.identify(self.user, max_info_bytes=max_info_bytes)
        except Exception as error:
            self.raised = error
            raise


class StandIn:
    """Takes the place of the app's own presence, until `close` puts that back.

    :raises RuntimeError: as `own_presence`.
    """

    def __init__(self, app: Flask, clock: Callable[[], float]) -> None:
        self.app = app
        self._own = own_presence(app)
        self.socketio = self._own.socketio
        self.namespace = self._own.settings.namespace
        self.hooks = StandInHooks(self._own.hooks)
        self._runtime = Runtime()
        self._server_before = _sending(self.socketio.server)
        settings = self._own.settings
        backend = MemoryBackend(worker_timeout=settings.worker_timeout, clock=clock)
        backend.last_seen_retention = settings.last_seen_retention
        self._presence = assemble(
            app,
            self.socketio,
            settings,
            backend,
            rules=self._own.rules,
            hooks=self.hooks,
            transport=self._own.transport,
            runtime=self._runtime,
            clock=clock,
            by_hand=True,
        )
        self.tracker = self._presence.tracker
        self._presence.serve(app)

    def settle(self) -> None:
        """Let everything happen that is due, and arrive what is pending."""
        self._runtime.run()
        self.tracker.loops.turn()

    def prune(self) -> None:
        """End what is due, as the scheduled work does."""
        self.tracker.prune()
        self.tracker.prune_channels()

    def close(self) -> None:
        """Put the app's own presence back, and let its server send to real sockets again."""
        self._own.serve(self.app)
        _restore(self.socketio.server, self._server_before)


def own_presence(app: Flask) -> AppPresence:
    """What the app has as its presence.

    :raises RuntimeError: it has none, or one that Flask-SocketIO's test client cannot speak to.
    """
    own: AppPresence | None = app.extensions.get("presence")
    if own is None:
        raise RuntimeError("Presence is not set up on this app: call presence.init_app(app).")
    if own.transport.crosses_processes:
        raise RuntimeError(
            "This app's Flask-SocketIO has a message_queue, which its test client cannot work "
            "with: leave message_queue out of the app's test configuration."
        )
    if own.transport.engine is not own.socketio.server.eio:
        raise RuntimeError(
            "This app's SocketIO was initialised on another app since, and its test client speaks "
            "to that one: test the newest app, or give each a SocketIO of its own."
        )
    return own


# Flask-SocketIO's test client replaces these for good; no socket would hear from the server again.
_SENDING = ("_send_packet", "_send_eio_packet", "async_handlers")


def _sending(server: Any) -> tuple[dict[str, Any], bool]:
    kept = {name: vars(server)[name] for name in _SENDING if name in vars(server)}
    return kept, server.eio.async_handlers


def _restore(server: Any, before: tuple[dict[str, Any], bool]) -> None:
    kept, server.eio.async_handlers = before
    for name in _SENDING:
        vars(server).pop(name, None)
    vars(server).update(kept)
