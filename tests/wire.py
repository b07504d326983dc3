"""A raw WebSocket client: what travels, word for word, with no Socket.IO library in between."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
import time
from typing import Any

import websocket

PATIENCE = 10.0
"""Seconds to wait for what must come; only a failing test waits that long."""


class Wire:
    """One connection to the presence namespace of a server."""

    def __init__(
        self,
        port: int,
        *,
        auth: Any = None,
        namespace: str = "/presence",
        headers: dict[str, str] | None = None,
        connect: bool = True,
    ) -> None:
        self.namespace = namespace
        self.frames: list[str] = []
        self.sid: str | None = None
        self.refused: Any = None
        self.pings = 0
        self._acks: dict[int, queue.Queue[Any]] = {}
        self._arrived = threading.Condition()
        self._events: list[tuple[str, Any]] = []
        self._next = 0
        self._answered = threading.Event()
        self.closed = threading.Event()
        self.answers_pings = True
        self._socket = websocket.create_connection(
            f"ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket",
            header=headers or {},
            timeout=PATIENCE,
        )
        assert self._socket.recv().startswith("0{")
        self._socket.settimeout(None)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if connect:
            self.connect(auth)

    def connect(self, auth: Any = None) -> None:
        self._answered.clear()
        payload = "" if auth is None else json.dumps(auth)
        self.send_raw(f"40{self.namespace},{payload}")
        assert self._answered.wait(PATIENCE), "the server did not answer the connection"

    def send_raw(self, text: str) -> None:
        self._socket.send(text)

    def emit(self, event: Any, *args: Any) -> queue.Queue[Any]:
        """Send an event, and give back where its acknowledgement will arrive."""
        return self.emit_text(json.dumps([event, *args]))

    def emit_text(self, text: str, *attachments: bytes) -> queue.Queue[Any]:
        """Send an event as it is typed here, in words that `json.dumps` would not find."""
        self._next += 1
        answer: queue.Queue[Any] = queue.Queue()
        self._acks[self._next] = answer
        kind = f"45{len(attachments)}-" if attachments else "42"
        self.send_raw(f"{kind}{self.namespace},{self._next}{text}")
        for attachment in attachments:
            self._socket.send_binary(attachment)
        return answer

    def call(self, event: Any, *args: Any) -> Any:
        """Send an event and await its acknowledgement."""
        return self.emit(event, *args).get(timeout=PATIENCE)

    def wait_for(self, event: str, match: Any = lambda data: True) -> Any:
        """Await an event; it is taken out of those that arrived."""

        def found() -> bool:
            return any(name == event and match(data) for name, data in self._events)

        with self._arrived:
            assert self._arrived.wait_for(found, PATIENCE), f"no {event} among {self._events}"
            index = next(
                index
                for index, (name, data) in enumerate(self._events)
                if name == event and match(data)
            )
            return self._events.pop(index)[1]

    def received(self, event: str | None = None) -> list[Any]:
        """What arrived and was not waited for."""
        with self._arrived:
            return [data for name, data in self._events if event in (None, name)]

    def take(self, *events: str) -> list[tuple[str, Any]]:
        """Take out what arrived of these events, in order."""
        with self._arrived:
            taken = [item for item in self._events if item[0] in events]
            self._events = [item for item in self._events if item[0] not in events]
            return taken

    def await_quiet(self, channel: str) -> None:
        """Await an answer that was asked for now: whatever was sent before has arrived."""
        assert self.call("state", {"channels": [channel]})["ok"]

    def leave_orderly(self) -> None:
        self.send_raw(f"41{self.namespace},")

    def drop(self) -> None:
        """Close the connection as a page that unloads does, or a network that fails."""
        self.hang_up()
        assert self.closed.wait(PATIENCE)

    def hang_up(self) -> None:
        """Close the connection to a server that may not notice."""
        with contextlib.suppress(OSError, AttributeError):  # The server may have been faster.
            self._socket.sock.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        try:
            while text := self._receive():
                self._take(text if isinstance(text, str) else text.decode())
        except (OSError, websocket.WebSocketException):
            pass
        self._socket.shutdown()
        self.closed.set()

    def _receive(self) -> Any:
        # A server that waits for our kernel's acknowledgement sends the next frame 40 ms late.
        if hasattr(socket, "TCP_QUICKACK"):
            self._socket.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return self._socket.recv()

    def _take(self, text: str) -> None:
        self.frames.append(text)
        if text == "2":
            self.pings += 1
            if self.answers_pings:
                self.send_raw("3")
            return
        kind, _, rest = text.partition(self.namespace + ",")
        if kind == "40":
            self.sid = json.loads(rest)["sid"]
            self._answered.set()
        elif kind == "44":
            self.refused = json.loads(rest)
            self._answered.set()
        elif kind == "42":
            name, *args = json.loads(rest)
            self.take_event(name, args[0] if args else None)
        elif kind == "43":
            number, _, body = rest.partition("[")
            answer = json.loads("[" + body)
            self.take_answer(int(number), answer[0] if answer else None)
        elif kind == "41":
            self.closed.set()

    # Both are called by one thread, in the order in which the server sent.

    def take_event(self, name: str, data: Any) -> None:
        with self._arrived:
            self._events.append((name, data))
            self._arrived.notify_all()

    def take_answer(self, number: int, answer: Any) -> None:
        self._acks.pop(number).put(answer)


def eventually(check: Any, patience: float = PATIENCE) -> Any:
    """Await a fact that no event announces."""
    until = time.monotonic() + patience
    while not (value := check()):
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.01)
    return value
