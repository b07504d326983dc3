"""One connection of this process on which Redis sends the changes of the channels asked for."""

from __future__ import annotations

import logging
import selectors
import threading
import time
from collections.abc import Iterable
from typing import Any

import redis

from ...errors import BackendUnavailable
from ..base import Ears, Listener, chunks
from ..stored import Damaged
from .events import changes_of
from .server import PAUSE_SECONDS, Server

log = logging.getLogger(__name__)

CONFIRM_SECONDS = 1.0
"""How long a subscription may take to be confirmed."""

PING_SECONDS = 3.0
"""After so much silence the server is asked whether it is there; after twice that it is not."""

READ_SECONDS = 1.0
"""How long the rest of a message may take that has begun to arrive."""

RECONNECT_SECONDS = 0.5


class RedisListener(Listener):
    """Subscribed to what concerns all processes, and to one event name for each channel.

    The wire keeps the order of what is sent under the lock, and confirmations come in that order:
    a channel is listened to once none of its subscriptions is unconfirmed.
    """

    def __init__(self, server: Server, ears: Ears) -> None:
        self._server = server
        self._ears = ears
        self._diffs = f"{server.events}:diff:"
        self._commands = f"{server.events}:commands"
        self._messages = f"{server.events}:messages"
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._pubsub: Any = None
        self._broken = False
        self._awaited: set[str] = set()
        self._confirmed: dict[str, threading.Event] = {}
        self._unconfirmed: dict[str, int] = {}
        self._cut: set[str] = set()
        self._deaf_until = float("-inf")

    def add(self, channel: str) -> None:
        with self._lock:
            confirmed = self._confirmed.get(channel)
            if confirmed is None:
                confirmed = self._confirmed[channel] = threading.Event()
                self._subscribe([channel])
        if not self._await(confirmed):
            raise BackendUnavailable(
                f"The presence store {self._server.where} sends no events just now."
            )

    def _await(self, confirmed: threading.Event) -> bool:
        # Whoever asks for many channels in a row, or for other things too, waits only once.
        is_hopeless = time.monotonic() < self._deaf_until or self._server.is_failing
        if confirmed.wait(0 if is_hopeless else CONFIRM_SECONDS):
            return True
        if not is_hopeless:
            self._deaf_until = time.monotonic() + PAUSE_SECONDS
            self._server.doubt()
        return False

    def discard(self, channel: str) -> None:
        with self._lock:
            self._cut.discard(channel)
            if self._confirmed.pop(channel, None) is not None and self._pubsub is not None:
                self._send("UNSUBSCRIBE", self._diffs + channel)

    def run(self) -> None:
        while not self._closed.is_set():
            try:
                self._listen()
            except (redis.RedisError, OSError) as error:
                if not self._closed.is_set():
                    log.warning("Presence hears nothing from %s: %s", self._server.where, error)
            except Exception:
                if not self._closed.is_set():
                    log.exception("Presence stopped hearing from %s", self._server.where)
            self._hang_up()
            self._closed.wait(RECONNECT_SECONDS)

    def close(self) -> None:
        self._closed.set()
        self._hang_up()

    def _listen(self) -> None:
        pubsub = self._connect()
        is_asked = False
        with selectors.DefaultSelector() as selector:
            selector.register(pubsub.connection._sock, selectors.EVENT_READ)
            while not self._closed.is_set():
                if not selector.select(PING_SECONDS):
                    if is_asked:
                        raise redis.TimeoutError("it answers no ping")
                    is_asked = True
                    with self._lock:
                        self._send("PING")
                for message in self._read(pubsub):
                    is_asked = False
                    self._take(message)
                if self._broken:
                    raise redis.ConnectionError("the connection broke while something was sent")

    def _read(self, pubsub: Any) -> list[dict[str, Any]]:
        """What has arrived; under the lock, because TLS does not bear to be read and written at
        the same time."""
        messages = []
        with self._lock:
            while pubsub.connection.can_read(timeout=0):
                messages.append(pubsub.get_message(timeout=READ_SECONDS))
        return [message for message in messages if message is not None]

    def _connect(self) -> Any:
        pubsub = self._server.client.pubsub()
        try:
            pubsub.subscribe(self._commands, self._messages)
        except BaseException:
            pubsub.close()
            raise
        # It may be another server by now, or another run of the same one.
        self._server.doubt()
        with self._lock:
            self._pubsub, self._broken = pubsub, False
            self._awaited = {self._commands, self._messages}
            self._subscribe(self._confirmed)
        return pubsub

    def _hang_up(self) -> None:
        with self._lock:
            pubsub, self._pubsub = self._pubsub, None
            self._unconfirmed.clear()
            for channel, confirmed in self._confirmed.items():
                confirmed.clear()
                self._cut.add(channel)
        if pubsub is not None:
            pubsub.close()

    def _subscribe(self, channels: Iterable[str]) -> None:
        if self._pubsub is None:
            return
        for some in chunks(channels):
            for channel in some:
                self._unconfirmed[channel] = self._unconfirmed.get(channel, 0) + 1
            self._send("SUBSCRIBE", *(self._diffs + channel for channel in some))

    def _send(self, *command: str) -> None:
        connection = self._pubsub and self._pubsub.connection
        try:
            # Past redis-py, which would close and open the connection under whoever reads it.
            connection._sock.sendall(b"".join(connection.pack_command(*command)))
        except (AttributeError, OSError) as error:
            # Whoever reads has to begin anew.
            self._broken = True
            log.debug("Presence could not change what it listens to: %s", error)

    def _take(self, message: dict[str, Any]) -> None:
        kind, name = message["type"], _text(message["channel"] or b"")
        if kind == "subscribe" and name.startswith(self._diffs):
            self._confirm(name.removeprefix(self._diffs))
        elif kind == "subscribe":
            if name not in self._awaited:
                raise redis.ConnectionError("the client connected again by itself")
            self._awaited.remove(name)
            if name == self._commands:
                # One may have been given while nobody listened.
                self._ears.told()
        elif kind == "message" and name == self._commands:
            self._ears.told()
        elif kind == "message" and name == self._messages:
            self._ears.heard(_text(message["data"], errors="replace"))
        elif kind == "message":
            self._take_diff(name.removeprefix(self._diffs), message["data"])

    def _take_diff(self, channel: str, data: bytes) -> None:
        try:
            changes = changes_of(channel, _text(data))
        except (Damaged, UnicodeDecodeError) as error:
            log.error("An event that presence did not publish is passed over: %s", error)
            return
        self._ears.changed(changes)

    def _confirm(self, channel: str) -> None:
        with self._lock:
            left = self._unconfirmed.get(channel, 1) - 1
            if left:
                self._unconfirmed[channel] = left
                return
            self._unconfirmed.pop(channel, None)
            was_cut = channel in self._cut
            self._cut.discard(channel)
            self._deaf_until = float("-inf")
            if channel in self._confirmed:
                self._confirmed[channel].set()
        if was_cut:
            self._ears.missed(channel)


def _text(value: Any, errors: str = "strict") -> str:
    return value.decode(errors=errors) if isinstance(value, bytes) else str(value)
