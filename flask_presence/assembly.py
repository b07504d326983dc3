"""Puts the parts of one app's presence together."""

from __future__ import annotations

import contextvars
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Flask

from .backends.base import Backend
from .channels import ChannelConfig, Registry, Rules
from .delivery import Announcer, Feed, Rooms
from .identity import Hooks
from .jobs import Jobs
from .model import Identity
from .settings import Settings
from .sockets import SocketIOTransport, Sockets
from .tracker import Runtime, Tracker


@dataclass(frozen=True, eq=False)
class AppPresence:
    """What belongs to one app: ``app.extensions["presence"]``."""

    socketio: Any
    settings: Settings
    rules: Rules
    hooks: Hooks
    transport: SocketIOTransport
    backend: Backend
    tracker: Tracker
    sockets: Sockets
    jobs: Jobs

    @staticmethod
    def all() -> list[AppPresence]:
        """Those of all apps in this process, for who has no app at hand."""
        return list(_all)

    def serve(self, app: Flask) -> None:
        """Be the presence of the app from now on, and take over the namespace."""
        app.extensions["presence"] = self
        self.sockets.register()
        _all.add(self)

    def stop(self) -> None:
        """End the background work of this process; for tests."""
        self.jobs.stop()
        self.tracker.loops.stop()
        self.backend.close()


_all: weakref.WeakSet[AppPresence] = weakref.WeakSet()


def assemble(
    app: Flask,
    socketio: Any,
    settings: Settings,
    backend: Backend,
    *,
    rules: Rules,
    hooks: Hooks,
    transport: SocketIOTransport,
    runtime: Runtime | None = None,
    clock: Callable[[], float] = time.monotonic,
    by_hand: bool = False,
) -> AppPresence:
    """Make what belongs to one app; it serves nobody yet.

    :param runtime: what background work runs in: the server itself, where not given.
    :param clock: the process's monotonic clock; only tests need another one.
    :param by_hand: start no background work; see `Tracker`.
    """
    runtime = transport if runtime is None else runtime
    feed = Feed()
    rooms = Rooms(transport, feed, hears=backend.carries_events)
    registry = Registry(
        rules,
        call=lambda callback: _call_without_request(app, callback),
        cache_seconds=settings.config_cache_seconds,
        heartbeat_interval=settings.heartbeat_interval,
        explains=lambda: app.debug,
        clock=clock,
    )
    announcer = Announcer(
        rooms, sender=app, app_context=app.app_context, window=settings.batch_window
    )
    tracker = Tracker(
        backend=backend,
        registry=registry,
        announcer=announcer,
        rooms=rooms,
        feed=feed,
        settings=settings,
        runtime=runtime,
        clock=clock,
        by_hand=by_hand,
    )
    sockets = Sockets(
        socketio.server,
        tracker,
        settings,
        transport=transport,
        runtime=runtime,
        identify=lambda environ, auth: _identify(app, settings, hooks, environ, auth),
        clock=clock,
    )
    jobs = Jobs(tracker, settings)
    return AppPresence(socketio, settings, rules, hooks, transport, backend, tracker, sockets, jobs)


def _identify(
    app: Flask, settings: Settings, hooks: Hooks, environ: dict[str, Any], auth: Any
) -> Identity:
    with app.request_context(environ):
        return hooks.load(auth, max_info_bytes=settings.max_meta_bytes)


def _call_without_request(app: Flask, callback: Callable[[], Any]) -> ChannelConfig | None:
    """Its result is shared by everybody, so it must not depend on who happens to ask first."""

    def call() -> Any:
        with app.app_context():
            return callback()

    config: ChannelConfig | None = contextvars.Context().run(call)
    return config
