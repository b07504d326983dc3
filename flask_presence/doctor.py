"""Looks for what keeps an app's presence from working, and says what to do about it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from .backends.base import Backend
from .errors import BackendUnavailable
from .settings import Settings

Status = Literal["ok", "warning", "problem"]

SLOW_STORE_SECONDS = 2.0
"""How long a store may take to answer before the backends give up."""

GAP_SECONDS = 1.0
"""How long a client waits for a missing revision before it asks for the state."""

RECONNECT_SECONDS = 1.5
"""The longest that a Socket.IO client waits before it first tries to come back."""


class Opinion(NamedTuple):
    """What one check thinks; ``text`` says what to do unless all is well."""

    status: Status
    text: str


class Finding(NamedTuple):
    """An opinion, and the name of the check whose it is."""

    check: str
    status: Status
    text: str


@dataclass(frozen=True, slots=True)
class Patient:
    """What is looked at.

    :param engine: the Engine.IO server of the app's Socket.IO.
    :param has_queue: does Flask-SocketIO have a message queue?
    :param environ: the environment variables.
    """

    backend: Backend
    settings: Settings
    engine: Any
    has_queue: bool
    environ: Mapping[str, str]


def examine(patient: Patient) -> list[Finding]:
    """Run every check, in the order in which one would put things right."""
    return [Finding(name, *check(patient)) for name, check in CHECKS.items()]


# The store, and the way between processes


def check_store(patient: Patient) -> Opinion:
    """Is it reachable, ready, and will it keep what it is given?"""
    try:
        patient.backend.check()
    except BackendUnavailable as error:
        return Opinion("problem", f"{error} PRESENCE_BACKEND says where the store is.")
    return Opinion("ok", f"{type(patient.backend).__name__} answers.")


def check_sharing(patient: Patient) -> Opinion:
    """Do all processes see the same members?"""
    if patient.backend.shared:
        return Opinion("ok", "All processes see the same members.")
    configured = _configured_processes(patient)
    if configured > 1:
        return Opinion(
            "problem",
            f"WEB_CONCURRENCY starts {configured} processes, and each would keep members of its "
            "own: set PRESENCE_BACKEND to redis://…, or to a database.",
        )
    return Opinion("ok", "Members are kept in the one process that serves; no other sees them.")


def check_events(patient: Patient) -> Opinion:
    """Will a change reach the subscribers of other processes at once?"""
    if patient.backend.carries_events:
        return Opinion("ok", "The store brings each change to every process.")
    if patient.has_queue:
        return Opinion("ok", "The message queue brings each change to every process.")
    if not patient.backend.shared:
        return Opinion("ok", "There is one process.")
    cure = (
        "give Flask-SocketIO a message_queue, or set PRESENCE_BACKEND to redis://…: without, a "
        f"change takes up to {patient.settings.renewal_interval:g} s to reach other processes, and "
        "what a channel emits never does."
    )
    try:
        alive = len(patient.backend.workers())
    except BackendUnavailable:
        return Opinion("warning", f"The store does not say how many processes there are; {cure}")
    number = max(alive, _configured_processes(patient))
    if number > 1:
        return Opinion("problem", f"{number} processes serve this app: {cure}")
    return Opinion("ok", "No second process serves this app now; several need a message queue.")


def _configured_processes(patient: Patient) -> int:
    value = patient.environ.get("WEB_CONCURRENCY", "")
    return int(value) if value.isdecimal() else 1


# Intervals


def check_heartbeats(patient: Patient) -> Opinion:
    """Is a client that is there heard in time?

    A visible page beats every heartbeat interval, and whenever an Engine.IO ping arrives. The
    timers of a hidden page sleep: it beats with the pings alone.
    """
    interval, patience = patient.engine.ping_interval, patient.engine.ping_timeout
    settings = patient.settings
    if interval >= settings.timeout:
        return Opinion(
            "problem",
            f"A hidden page is heard every {interval:g} s (ping_interval), and counts as silent "
            f"after {settings.timeout:g} s (PRESENCE_TIMEOUT): give Flask-SocketIO a "
            f"ping_interval of {settings.heartbeat_interval:g} or less.",
        )
    if interval > settings.heartbeat_interval:
        return Opinion(
            "warning",
            f"A hidden page is heard every {interval:g} s (ping_interval), not every "
            f"{settings.heartbeat_interval:g} s (PRESENCE_HEARTBEAT_INTERVAL): in a channel with a "
            f"timeout below that it would come and go. Give Flask-SocketIO a ping_interval of "
            f"{settings.heartbeat_interval:g} or less.",
        )
    if interval + patience > settings.timeout:
        return Opinion(
            "warning",
            f"A slow connection may stay open for {interval + patience:g} s (ping_interval and "
            f"ping_timeout) without a word, and counts as silent after {settings.timeout:g} s: "
            "raise PRESENCE_TIMEOUT, or lower ping_timeout.",
        )
    return Opinion("ok", f"Pages are heard every {interval:g} s at the least.")


def check_lease(patient: Patient) -> Opinion:
    """Does a worker's lease outlive one slow answer of the store?"""
    timeout, renewal = patient.settings.worker_timeout, patient.settings.renewal_interval
    if renewal + SLOW_STORE_SECONDS >= timeout:
        return Opinion(
            "warning",
            f"One slow answer of the store makes a live process count as dead after {timeout:g} s: "
            f"raise PRESENCE_WORKER_TIMEOUT above {1.5 * SLOW_STORE_SECONDS:g}.",
        )
    return Opinion("ok", f"A dead process is noticed after {timeout:g} s.")


def check_grace(patient: Patient) -> Opinion:
    """Has a dropped client time to come back, and no more than a silent one?"""
    grace, timeout = patient.settings.leave_grace, patient.settings.timeout
    if 0 < grace <= RECONNECT_SECONDS:
        return Opinion(
            "warning",
            f"A cut connection comes back after up to {RECONNECT_SECONDS:g} s, and its user has "
            f"left after {grace:g} s: raise PRESENCE_LEAVE_GRACE, or set it to 0.",
        )
    if grace > timeout:
        return Opinion(
            "warning",
            f"A user whose connection dropped counts for {grace:g} s, longer than a silent one "
            f"({timeout:g} s): lower PRESENCE_LEAVE_GRACE below PRESENCE_TIMEOUT.",
        )
    return Opinion("ok", f"Who drops out has {grace:g} s to come back.")


def check_batches(patient: Patient) -> Opinion:
    """Are diffs sent before clients take them for lost?"""
    window = patient.settings.batch_window
    if window >= GAP_SECONDS:
        return Opinion(
            "warning",
            f"Changes gather for {window:g} s; after {GAP_SECONDS:g} s a client takes those of "
            "another process for lost, and reads the whole state: lower PRESENCE_BATCH_WINDOW.",
        )
    return Opinion("ok", f"Changes are sent after {window:g} s.")


# The way in


def is_open_to_all(engine: Any) -> bool:
    """May any web page connect?"""
    origins = engine.cors_allowed_origins
    if origins is None or callable(origins):
        return False
    # An empty list turns the check of origins off.
    return origins == [] or (origins == "*" if isinstance(origins, str) else "*" in origins)


def check_origins(patient: Patient) -> Opinion:
    """Is the namespace closed to other sites' pages?"""
    engine = patient.engine
    if not is_open_to_all(engine):
        return Opinion("ok", "Other sites' pages cannot connect as the users of this app.")
    what = f"cors_allowed_origins={engine.cors_allowed_origins!r} lets any web page connect"
    if engine.cors_credentials:
        return Opinion(
            "problem",
            f"{what}, and with cookies be present as the users of this app: name the origins, or "
            "tell users by a token in auth and set cors_credentials=False.",
        )
    return Opinion(
        "warning",
        f"{what}, and a WebSocket carries cookies all the same: name the origins, unless the "
        "user_loader goes by a token in auth alone.",
    )


def check_async_mode(patient: Patient) -> Opinion:
    """Is the async mode one that works here?"""
    mode = patient.engine.async_mode
    if mode == "eventlet":
        return Opinion(
            "problem",
            "eventlet is no longer maintained, and presence does not support it: uninstall it, or "
            "use SocketIO(async_mode='threading') or gevent.",
        )
    if mode.startswith("gevent") and not _is_patched():
        return Opinion(
            "warning",
            "gevent is the async mode, and nothing is monkey-patched here: unless your server does "
            "it, as gunicorn -k gevent does, each wait for the store stops the whole process. "
            "Call gevent.monkey.patch_all() before all other imports, or use "
            "SocketIO(async_mode='threading').",
        )
    return Opinion("ok", f"The async mode is {mode}.")


def _is_patched() -> bool:
    from gevent import monkey

    return all(monkey.is_module_patched(name) for name in ("socket", "threading", "time"))


def check_websocket(patient: Patient) -> Opinion:
    """Can clients use WebSocket? By polling, a page that goes away is noticed late."""
    engine = patient.engine
    cost = "clients poll, which costs more, and needs sticky sessions with several processes"
    # What engineio itself looks at before it upgrades a connection.
    if engine._async["websocket"] is None:
        return Opinion(
            "warning",
            f"The async mode {engine.async_mode} has no WebSocket here: {cost}. Use a server that "
            "has it, or SocketIO(async_mode='threading') with pip install simple-websocket.",
        )
    if "websocket" not in engine.transports:
        return Opinion("warning", f"transports leaves WebSocket out: {cost}. Add 'websocket'.")
    if engine.async_mode == "gevent" and importlib.util.find_spec("geventwebsocket"):
        return Opinion(
            "warning",
            "gevent-websocket is installed, and makes WebSocket fail except under its own server: "
            "uninstall it, or serve with gunicorn -k "
            "geventwebsocket.gunicorn.workers.GeventWebSocketWorker.",
        )
    return Opinion("ok", "Clients can use WebSocket.")


CHECKS: dict[str, Callable[[Patient], Opinion]] = {
    "store": check_store,
    "sharing": check_sharing,
    "events": check_events,
    "heartbeats": check_heartbeats,
    "lease": check_lease,
    "grace": check_grace,
    "batches": check_batches,
    "origins": check_origins,
    "async mode": check_async_mode,
    "websocket": check_websocket,
}
