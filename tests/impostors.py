"""Servers that misbehave: one loses answers of a Redis, another only looks like a Redis."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any


class Listening:
    """Serves each connection in a thread of its own."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self._open.append(connection)
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        for found in (self._socket, *self._open):
            with contextlib.suppress(OSError):
                found.shutdown(socket.SHUT_RDWR)
            found.close()


class Forgetful(Listening):
    """Stands before a Redis, and loses the answer to a script when it is told to."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.lose_next = False
        self.lost = 0
        super().__init__()

    def _serve(self, connection: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self._target))
        self._open.append(server)
        is_losing = threading.Event()
        back = threading.Thread(
            target=self._answer, args=[server, connection, is_losing], daemon=True
        )
        back.start()
        with contextlib.suppress(OSError):
            while data := connection.recv(65536):
                if self.lose_next and b"EVALSHA" in data:
                    self.lose_next = False
                    is_losing.set()
                server.sendall(data)
        server.close()

    def _answer(
        self, server: socket.socket, connection: socket.socket, is_losing: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if is_losing.is_set():
                    self.lost += 1
                    break
                connection.sendall(data)
            connection.shutdown(socket.SHUT_RDWR)


class Fake(Listening):
    """Answers like a Redis in which ``answers`` has the last word."""

    def __init__(self, answers: Callable[[str], bytes]) -> None:
        self._answers = answers
        super().__init__()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection.makefile("rb") as lines:
            while command := _command(lines):
                connection.sendall(self._answers(command))


def _command(lines: Any) -> str:
    """The first word of the next command, or an empty one."""
    count = lines.readline()
    words = []
    for _ in range(int(count[1:] or 0)):
        words.append(lines.read(int(lines.readline()[1:])).decode())
        lines.readline()
    return words[0].upper() if words else ""
