"""Many Socket.IO clients in one thread, which cost little enough to keep a server busy.

They speak WebSocket by hand: a frame is masked with zeros, which leaves it as it was written.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any

PATIENCE = 60.0
AT_ONCE = 50
"""How many connections are made at the same time."""
RECEIVED = 1 << 18
SOCKET_IO = "/socket.io/?EIO=4&transport=websocket"
HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: c3BlZWRzcGVlZHNwZWVkcw==\r\n"
    "Sec-WebSocket-Version: 13\r\n\r\n"
)


def frame(text: str) -> bytes:
    """A client's WebSocket frame."""
    body = text.encode()
    if len(body) < 126:
        return struct.pack("!BBI", 0x81, 0x80 | len(body), 0) + body
    return struct.pack("!BBHI", 0x81, 0x80 | 126, len(body), 0) + body


PONG = frame("3")


def event(
    name: str, payload: Any = None, *, namespace: str = "/presence", number: int = 1
) -> bytes:
    """A Socket.IO event that asks for an acknowledgement, as a frame."""
    words = [name] if payload is None else [name, payload]
    space = "" if namespace == "/" else f"{namespace},"
    return frame(f"42{space}{number}{json.dumps(words, separators=(',', ':'))}")


class Link:
    """One connection; ``heard`` is called with each text that is no handshake and no ping."""

    def __init__(self, port: int, number: int, path: str = SOCKET_IO) -> None:
        self.number = number
        self.bytes = 0
        """How many bytes of frames have arrived."""
        self.is_open = False
        self.heard: Callable[[Link, bytes], object] = lambda link, text: None
        self._buffer = b""
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(HANDSHAKE.format(port=port, path=path).encode())

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> bool:
        """Take what has arrived; is the connection still there?"""
        try:
            data = self.socket.recv(RECEIVED)
        except ConnectionError:
            return False
        if not data:
            return False
        if self.is_open:
            self.bytes += len(data)
        buffer = self._buffer + data if self._buffer else data
        if not self.is_open:
            head, end, buffer = buffer.partition(b"\r\n\r\n")
            if not end:
                self._buffer = head
                return True
            assert b" 101 " in head, head
            self.is_open = True
        self._buffer = self._take_frames(buffer)
        return True

    def _take_frames(self, buffer: bytes) -> bytes:
        at, size = 0, len(buffer)
        while size - at >= 2:
            length, begin = buffer[at + 1], at + 2
            if length == 126:
                begin += 2
                length = int.from_bytes(buffer[at + 2 : begin], "big")
            elif length == 127:
                begin += 8
                length = int.from_bytes(buffer[at + 2 : begin], "big")
            if size < begin + length:
                break
            at = begin + length
            text = buffer[begin:at]
            if text == b"2":
                self.send(PONG)
            else:
                self.heard(self, text)
        return buffer[at:]


class Crowd:
    """Connections to one server: by Socket.IO to each namespace, or by plain WebSocket."""

    def __init__(
        self,
        port: int,
        size: int,
        *,
        namespaces: Sequence[str] = ("/presence",),
        name: str = "u",
        path: str = SOCKET_IO,
    ) -> None:
        self._poll = select.epoll()
        self._by_file: dict[int, Link] = {}
        self.links: list[Link] = []
        self.closed = 0
        for begin in range(0, size, AT_ONCE):
            numbers = range(begin, min(begin + AT_ONCE, size))
            some = [Link(port, number, path) for number in numbers]
            for link in some:
                self._by_file[link.socket.fileno()] = link
                self._poll.register(link.socket.fileno(), select.EPOLLIN)
            self.links += some
            if path == SOCKET_IO:
                self._await_texts(some, lambda text: text.startswith(b"0{"))
            else:
                self._await_open(some)
            for namespace in namespaces:
                self._connect(some, namespace, name)

    def _connect(self, links: Sequence[Link], namespace: str, name: str) -> None:
        space = "" if namespace == "/" else f"{namespace},"
        for link in links:
            link.send(frame(f'40{space}{{"user":"{name}{link.number}"}}'))
        answer = f"40{space}".encode()
        self._await_texts(links, lambda text: text.startswith(answer))

    def _await_texts(self, links: Sequence[Link], match: Callable[[bytes], bool]) -> None:
        waiting = set(links)

        def heard(link: Link, text: bytes) -> None:
            if match(text):
                waiting.discard(link)

        self.listen(heard)
        self.run(lambda: not waiting)

    def _await_open(self, links: Sequence[Link]) -> None:
        self.run(lambda: all(link.is_open for link in links))

    def listen(self, heard: Callable[[Link, bytes], object]) -> None:
        for link in self.links:
            link.heard = heard

    def run(self, is_over: Callable[[], bool], *, patience: float = PATIENCE) -> None:
        """Take what arrives until it is over."""
        until = time.monotonic() + patience
        while not is_over():
            assert time.monotonic() < until, "the server did not answer in time"
            self.turn(0.05)

    def turn(self, seconds: float) -> None:
        """Take what has arrived, and wait for it for so long at the most."""
        for file, _ in self._poll.poll(seconds):
            link = self._by_file[file]
            if not link.receive():
                self._poll.unregister(file)
                self.closed += 1

    def ask(self, requests: Iterable[tuple[Link, bytes]]) -> list[Any]:
        """Send one event on each of these links at once, and await what they are answered."""
        answers: dict[Link, Any] = {}

        def heard(link: Link, text: bytes) -> None:
            if text.startswith(b"43"):
                answers[link] = json.loads(text[text.index(b"[") :])[0]

        self.listen(heard)
        asked = list(requests)
        for link, data in asked:
            link.send(data)
        self.run(lambda: len(answers) == len(asked))
        return [answers[link] for link, _ in asked]

    def ask_all(self, name: str, payload: Callable[[Link], Any] = lambda link: None) -> list[Any]:
        """Have each link ask the same, and be told that it is well."""
        answers: list[Any] = []
        for begin in range(0, len(self.links), AT_ONCE):
            some = self.links[begin : begin + AT_ONCE]
            answers += self.ask((link, event(name, payload(link))) for link in some)
        assert all(answer["ok"] for answer in answers), answers
        return answers

    def answered_per_second(
        self, requests: Callable[[Link], Sequence[bytes]], *, outstanding: int, seconds: float
    ) -> float:
        """How many events are acknowledged in a second, where each link always has so many
        under way; it sends its requests in turn."""
        rings = {link: list(requests(link)) for link in self.links}
        answered = dict.fromkeys(self.links, 0)
        total = 0

        def heard(link: Link, text: bytes) -> None:
            nonlocal total
            if text.startswith(b"43"):
                total += 1
                number = answered[link] = answered[link] + 1
                ring = rings[link]
                link.send(ring[(number + outstanding - 1) % len(ring)])

        self.listen(heard)
        for link, ring in rings.items():
            for number in range(outstanding):
                link.send(ring[number % len(ring)])
        self._turn_for(seconds / 4)
        before, began = total, time.perf_counter()
        self._turn_for(seconds)
        rate = (total - before) / (time.perf_counter() - began)
        self._settle(lambda: total, answered)
        return rate

    def _turn_for(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.turn(0.05)

    def _settle(self, total: Callable[[], int], answered: dict[Link, int]) -> None:
        """Let what is under way come in, without asking for more."""
        self.listen(lambda link, text: None)
        quiet_since, seen = time.monotonic(), -1
        while time.monotonic() - quiet_since < 0.3:
            self.turn(0.05)
            size = sum(link.bytes for link in self.links)
            if size != seen:
                quiet_since, seen = time.monotonic(), size

    def close(self) -> None:
        self._poll.close()
        for link in self.links:
            link.socket.close()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
