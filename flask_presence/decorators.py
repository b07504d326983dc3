"""Decorators for the app's own Socket.IO handlers, which tie its connections to their presence."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, TypeVar

from flask import current_app, request

from .errors import PresenceError

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])

HEARTBEAT = "heartbeat"


def touch_presence(handler: F) -> F:
    """Whatever arrives at this handler is a sign of life. Goes below ``@socketio.on``.

    It touches the client ``request.sid`` wherever that was entered, and the presence client of the
    same connection. A payload that is just ``"heartbeat"`` stops there, before the handler.
    """

    @wraps(handler)
    def touched(*args: Any, **kwargs: Any) -> Any:
        for client_id in _clients_of_connection():
            _attempt(_tracker().touch_client, client_id)
        return None if args == (HEARTBEAT,) else handler(*args, **kwargs)

    return touched  # type: ignore[return-value]  # it takes what the handler takes


def remove_presence(handler: F) -> F:
    """Before this handler runs, its connection leaves everything it entered. Goes below
    ``@socketio.on``, most often on ``disconnect``.

    A presence client that stays connected is told so: it was evicted.
    """

    @wraps(handler)
    def removed(*args: Any, **kwargs: Any) -> Any:
        commands = _tracker().commands
        for client_id in _clients_of_connection():
            _attempt(partial(commands.evict_client_everywhere, reason="left"), client_id)
        return handler(*args, **kwargs)

    return removed  # type: ignore[return-value]  # it takes what the handler takes


def _clients_of_connection() -> list[str]:
    """The client of the handler's own namespace, and the presence client beside it."""
    sid, namespace = request.sid, request.namespace  # type: ignore[attr-defined]  # Flask-SocketIO
    manager = current_app.extensions["socketio"].server.manager
    presence_namespace = current_app.extensions["presence"].settings.namespace
    connection = manager.eio_sid_from_sid(sid, namespace)
    beside = manager.sid_from_eio_sid(connection, presence_namespace)
    return [sid] if beside in (None, sid) else [sid, beside]


def _tracker() -> Any:
    return current_app.extensions["presence"].tracker


def _attempt(work: Callable[[str], object], client_id: str) -> None:
    """The app's handler has its own work to do, whatever becomes of presence."""
    try:
        work(client_id)
    except PresenceError as error:
        log.warning("The presence of %s could not be changed: %s", client_id, error)
