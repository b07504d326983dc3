"""The Socket.IO door: the namespace in which clients say where they are, and the way out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import socketio
from socketio.exceptions import ConnectionRefusedError

from . import protocol
from .errors import BadRequest, PresenceError, RateLimited
from .heartbeats import Heartbeats
from .model import Identity
from .settings import RateLimit, Settings
from .tracker import Runtime, Tracker

log = logging.getLogger(__name__)

Acknowledgement = dict[str, Any]

GREETING_TRIES = 1000

MAX_ATTACHMENTS = 10
"""A packet that announces more is refused: until they are there, all of them are kept."""

MAX_BACKLOG = 1000
MAX_BACKLOG_BYTES = 4_000_000
"""A connection for which more than that waits to be read is closed; its client may come back."""


class SocketIOTransport:
    """Emits and runs background work through a Socket.IO server, by its public surface alone."""

    def __init__(self, server: socketio.Server, namespace: str) -> None:
        self._server = server
        self._namespace = namespace
        _keep_rooms_whole(server.manager)

    @property
    def engine(self) -> Any:
        """The Engine.IO server below, with the intervals, origins and transports."""
        return self._server.eio

    @property
    def crosses_processes(self) -> bool:
        return isinstance(self._server.manager, socketio.PubSubManager)

    def emit(self, event: str, data: Any, room: str, *, local: bool) -> None:
        try:
            self._emit(event, data, room, ignore_queue=local)
        except Exception as error:
            # A socket that closes while the room is walked ends the walk, and with it the message
            # to the queue. Who got it already gets it twice, which changes nothing.
            log.debug("%s to %s met a closed socket: %s", event, room, error)
            self._emit_to_each(event, data, room, local=local)

    def _emit_to_each(self, event: str, data: Any, room: str, *, local: bool) -> None:
        members = [
            client_id
            for client_id, _ in self._server.manager.get_participants(self._namespace, room)
        ]
        for client_id in members:
            self.emit_to(event, data, client_id)
        if not local:
            # With everyone here skipped, this reaches just the other processes.
            _try(self._emit, event, data, room, skip_sid=members)

    def emit_to(self, event: str, data: Any, client_id: str) -> None:
        _try(self._emit, event, data, client_id, ignore_queue=True)

    def _emit(self, event: str, data: Any, room: str, **options: Any) -> None:
        self._server.emit(event, data, room=room, namespace=self._namespace, **options)

    def is_connected(self, client_id: str) -> bool:
        try:
            self._server.transport(client_id, self._namespace)
        except KeyError:
            return False
        return True

    def disconnect(self, client_id: str) -> None:
        _try(self._server.disconnect, client_id, namespace=self._namespace, ignore_queue=True)

    def end_backlogs(self) -> None:
        """Close the connections whose clients do not read."""
        for client_id, _ in list(self._server.manager.get_participants(self._namespace, None)):
            self.end_backlog(client_id)

    def end_backlog(self, client_id: str) -> bool:
        """Close a connection where too much waits to be read; was it so?"""
        connection = self._server.manager.eio_sid_from_sid(client_id, self._namespace)
        socket = self._server.eio.sockets.get(connection)
        if socket is None or not _is_backed_up(socket.queue):
            return False
        log.warning("The connection of presence client %s is closed: it does not read", client_id)
        # At once, with nothing more to send: who does not read would keep us waiting.
        reason = self._server.reason.TRANSPORT_ERROR
        _try(socket.close, wait=False, abort=True, reason=reason)
        return True

    def hang_up(self) -> None:
        for _, connection in list(self._server.manager.get_participants(self._namespace, None)):
            # Each by itself: one who does not read would keep the others waiting.
            self.spawn(partial(_try, self._server.eio.disconnect, connection))

    def join(self, client_id: str, room: str) -> None:
        self._move(self._server.enter_room, client_id, room)

    def leave(self, client_id: str, room: str) -> None:
        self._move(self._server.leave_room, client_id, room)

    def _move(self, move: Callable[..., object], client_id: str, room: str) -> None:
        # Of a client that is gone, a message queue would tell all processes, and a room would stay.
        if self._server.manager.is_connected(client_id, self._namespace):
            _try(move, client_id, room, namespace=self._namespace)

    def spawn(self, target: Callable[[], None]) -> None:
        self._server.start_background_task(target)

    def sleep(self, seconds: float) -> None:
        self._server.sleep(seconds)

    def event(self) -> Any:
        return self._server.eio.create_event()


def _keep_rooms_whole(manager: Any) -> None:
    """Let nobody enter a room while another one leaves it.

    python-socketio forgets a room that it just saw empty, together with whoever entered meanwhile:
    they would hear nothing any more. It leaves rooms by itself when a socket closes.
    """
    lock = threading.RLock()

    def alone(move: Callable[..., object]) -> Callable[..., object]:
        def moved(*args: Any, **options: Any) -> object:
            with lock:
                return move(*args, **options)

        return moved

    for name in ("basic_enter_room", "basic_leave_room"):
        setattr(manager, name, alone(getattr(manager, name)))


def _bound_attachments(server: Any, namespace: str) -> None:
    """Refuse packets of the namespace that announce many binary attachments."""

    class Bounded(server.packet_class):  # type: ignore[misc]  # the server's own class
        def decode(self, encoded_packet: Any) -> Any:
            count = super().decode(encoded_packet)
            if self.namespace == namespace and (count or 0) > MAX_ATTACHMENTS:
                raise ValueError(f"{count} attachments; at most {MAX_ATTACHMENTS} are allowed")
            return count

    server.packet_class = Bounded


def _is_backed_up(waiting: Any) -> bool:
    """Is there more in a connection's queue than a client that reads could leave there?"""
    number = waiting.qsize()
    if number <= 2:
        return False
    packets = waiting.queue.copy()
    size = sum(len(packet.data or "") for packet in packets if packet is not None)
    return number > MAX_BACKLOG or size > MAX_BACKLOG_BYTES


def _try(work: Callable[..., object], *args: Any, **options: Any) -> None:
    """Do what a socket that closes meanwhile may make fail: a change is a change all the same."""
    try:
        work(*args, **options)
    except Exception as error:
        log.debug("A presence message did not get through: %s", error)


class RateLimiter:
    """Counts what one connection does in windows of fixed length."""

    __slots__ = ("_left", "_limit", "_until")

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._left = 0
        self._until = float("-inf")

    def take(self, now: float) -> None:
        """Count one operation, or raise `RateLimited`."""
        if now >= self._until:
            self._until = now + self._limit.seconds
            self._left = self._limit.operations
        if not self._left:
            raise RateLimited(self._until - now)
        self._left -= 1


OPERATIONS, CONNECTS = "flask_presence.operations", "flask_presence.connects"


def _limiter(environ: dict[str, Any], kind: str, limit: RateLimit) -> RateLimiter:
    """The limiter of a connection, which outlives each time that it joins the namespace."""
    limiter: RateLimiter = environ.setdefault(kind, RateLimiter(limit))
    return limiter


class _OtherEvents(socketio.Namespace):  # type: ignore[misc]  # python-socketio ships no types
    """Answers events that have no handler."""

    def __init__(self, namespace: str, handle: Callable[..., Any]) -> None:
        super().__init__(namespace)
        self._handle = handle

    def trigger_event(self, event: Any, *args: Any) -> Any:
        return self._handle(event, *args)


class Sockets:
    """The handlers of the presence namespace.

    They are registered on python-socketio's server itself, each by name: an app's catch-all
    handlers do not get in between, and no request context is built for every packet.

    :param transport: sends to clients.
    :param runtime: what greetings run in.
    :param identify: tells who a connection is, from its environ and ``auth`` payload.
    :param clock: the process's monotonic clock, for the rate limit.
    """

    def __init__(
        self,
        server: socketio.Server,
        tracker: Tracker,
        settings: Settings,
        *,
        transport: SocketIOTransport,
        runtime: Runtime,
        identify: Callable[[dict[str, Any], Any], Identity],
        clock: Callable[[], float],
    ) -> None:
        self._server = server
        self._tracker = tracker
        self._settings = settings
        self._identify = identify
        self._transport = transport
        self._runtime = runtime
        self._clock = clock
        self._limiters: dict[str, RateLimiter] = {}
        self._operations: dict[type, Callable[[str, Any], Acknowledgement]] = {
            protocol.Enter: self._enter,
            protocol.Leave: self._leave,
            protocol.Update: self._update,
            protocol.Subscribe: self._subscribe,
            protocol.Unsubscribe: self._unsubscribe,
            protocol.ReadStates: self._state,
        }

    def register(self) -> None:
        """Take over the namespace."""
        on = partial(self._server.on, namespace=self._settings.namespace)
        beat = partial(self._handle, "heartbeat")
        # First: it asks which packets the app has its clients speak.
        Heartbeats(self._server, self._settings.namespace, beat).register()
        _bound_attachments(self._server, self._settings.namespace)
        on("connect", self._connect)
        on("disconnect", self._disconnect)
        for event in protocol.EVENTS:
            on(event, partial(self._handle, event))
        # Not a handler for "*": a client may send an event of that name too.
        self._server.register_namespace(_OtherEvents(self._settings.namespace, self._handle))

    # Connections

    def _connect(self, sid: str, environ: Any = None, auth: Any = None, *_: Any) -> Any:
        if environ is not self._server.get_environ(sid, self._settings.namespace):
            # A client made up this event: only the server has the very object.
            return self._server.not_handled
        try:
            limiter = self._limit(environ)
        except RateLimited as error:
            raise ConnectionRefusedError(str(error)) from None
        try:
            identity = self._identify(environ, auth)
            if environ is not self._server.get_environ(sid, self._settings.namespace):
                # It closed meanwhile, and nobody will say so again.
                return False
            self._tracker.start()
            if limiter is not None:
                self._limiters[sid] = limiter
            is_real = self._transport.is_connected(sid)
            self._tracker.connections.connect(sid, identity, is_real=is_real)
        except Exception:
            log.exception("A presence connection was refused: who it is could not be told")
            return False
        self._runtime.spawn(partial(self._greet, sid, identity))
        return None

    def _limit(self, environ: dict[str, Any]) -> RateLimiter | None:
        """Count an attempt to connect; what limits the operations from here on."""
        limit = self._settings.rate_limit
        if limit is None:
            return None
        _limiter(environ, CONNECTS, limit).take(self._clock())
        return _limiter(environ, OPERATIONS, limit)

    def _greet(self, sid: str, identity: Identity) -> None:
        # The connection is only accepted after its handler returned, and nothing says when.
        for _ in range(GREETING_TRIES):
            if not self._server.manager.is_pre_connected(sid, self._settings.namespace):
                break
            self._runtime.sleep(0.001)
        hello = {
            "client_id": sid,
            "user_id": identity.user_id,
            "heartbeat_interval": self._settings.heartbeat_interval,
        }
        self._transport.emit_to("hello", hello, sid)

    def _disconnect(self, sid: str, reason: Any = None, *_: Any) -> Any:
        if self._server.manager.is_connected(sid, self._settings.namespace):
            # A client made up this event: one that disconnects is no longer connected by now.
            return self._server.not_handled
        reasons = self._server.reason
        orderly = (reasons.CLIENT_DISCONNECT, reasons.SERVER_DISCONNECT)
        self._limiters.pop(sid, None)
        self._tracker.connections.disconnect(sid, dropped=reason not in orderly)
        return None

    # Events

    def _handle(self, event: Any, sid: str, *args: Any) -> Any:
        if self._transport.end_backlog(sid):
            return self._server.not_handled
        try:
            self._tracker.connections.hear(sid)
            return self._answer(sid, event, args[0] if args else None)
        except Exception as error:
            return _refusal(event, error)

    def _answer(self, sid: str, event: Any, payload: Any) -> Acknowledgement:
        if event not in ("heartbeat", "batch"):
            self._take(sid)
        try:
            request = protocol.parse(event, payload, max_meta_bytes=self._settings.max_meta_bytes)
        except BadRequest:
            if event == "batch":
                self._take(sid)
            raise
        if isinstance(request, protocol.Heartbeat):
            return self._heartbeat(sid, request)
        if isinstance(request, protocol.Batch):
            return {"ok": True, "results": [self._one_of_many(sid, op) for op in request.ops]}
        return self._perform(sid, request)

    def _take(self, sid: str) -> None:
        limiter = self._limiters.get(sid)
        if limiter is not None:
            limiter.take(self._clock())

    def _one_of_many(self, sid: str, op: protocol.Op) -> Acknowledgement:
        try:
            self._take(sid)
            return self._perform(sid, op)
        except Exception as error:
            return _refusal(type(op).__name__, error)

    def _perform(self, sid: str, op: protocol.Op) -> Acknowledgement:
        return {"ok": True} | self._operations[type(op)](sid, op)

    def _heartbeat(self, sid: str, request: protocol.Heartbeat) -> Acknowledgement:
        stale, lost = self._tracker.connections.heartbeat(sid, request.positions)
        return {"ok": True, "stale": stale, "lost": lost}

    def _enter(self, sid: str, op: protocol.Enter) -> Acknowledgement:
        self._tracker.connections.enter(sid, op.channel, op.meta)
        return {}

    def _leave(self, sid: str, op: protocol.Leave) -> Acknowledgement:
        self._tracker.connections.leave(sid, op.channel)
        return {}

    def _update(self, sid: str, op: protocol.Update) -> Acknowledgement:
        self._tracker.connections.update(sid, op.channel, op.meta)
        return {}

    def _subscribe(self, sid: str, op: protocol.Subscribe) -> Acknowledgement:
        return {"state": self._tracker.connections.subscribe(sid, op.channel, op.position)}

    def _unsubscribe(self, sid: str, op: protocol.Unsubscribe) -> Acknowledgement:
        self._tracker.connections.unsubscribe(sid, op.channel)
        return {}

    def _state(self, sid: str, op: protocol.ReadStates) -> Acknowledgement:
        return {"states": self._tracker.connections.states(sid, op.channels)}


def _refusal(event: Any, error: Exception) -> Acknowledgement:
    if not isinstance(error, PresenceError):
        log.error("The presence event %s failed", event, exc_info=error)
        error = PresenceError("Something went wrong on the server; it is in its log.")
        error.retry_after = 1.0
    elif error.code == "unavailable":
        log.info("The presence event %s could not be done: %s", event, error)
    refusal: Acknowledgement = {"ok": False, "error": error.code, "message": error.for_clients}
    if error.retry_after is not None:
        refusal["retry_after"] = error.retry_after
    return refusal
