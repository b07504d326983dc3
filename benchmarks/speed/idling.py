"""What a store is written in a minute, in which each worker also compares once what it holds, while
5,000 clients sit connected."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

from flask_presence.backends.redis import connect
from flask_presence.backends.redis.scripts import load_scripts

from ..stores import redis
from .events import subscribe
from .figures import Line
from .load import Crowd, Link
from .servers import flask_server

SIZE, ROOMS = 5000, 100
INTERVAL = 25
"""Seconds between a client's heartbeats."""
RENEWALS_EACH = 5
"""Seconds between two renewals: a third of `PRESENCE_WORKER_TIMEOUT`."""


def measure(rounds: int, seconds: float) -> list[Line]:
    """Changes of the store for each renewal; the clients send their heartbeats all the while."""
    with (
        redis() as url,
        flask_server(PRESENCE_BACKEND=url) as server,
        Crowd(server.port, SIZE) as crowd,
    ):
        # Before anybody watches, as there is nobody to be told.
        crowd.ask_all("enter", lambda link: {"channel": f"/room/{link.number % ROOMS}"})
        beats = subscribe(crowd)
        # Whoever entered first may have been silent for long.
        crowd.ask(beats.items())
        stretch = max(seconds, 2 * RENEWALS_EACH)
        found = [(_writes(url, crowd, beats, stretch), 0.0) for _ in range(rounds)]
    what = f"store writes for each renewal, {SIZE:,} clients connected, Redis"
    return [Line(what, "-", "", "at most", 1.0, found)]


def _writes(url: str, crowd: Crowd, beats: dict[Link, bytes], seconds: float) -> float:
    client = connect(url)
    before = _changes(client)
    with Renewals(url) as renewals:
        _sit(crowd, beats, seconds)
    changes = _changes(client) - before
    here = sum(client.hlen(f"presence:clients:/room/{number}") for number in range(ROOMS))
    assert here == SIZE, f"{here} of {SIZE} are still in"
    client.close()
    return changes / max(1, renewals.number)


def _changes(client: Any) -> int:
    """What the store was made to keep, or would tell a replica, since it started."""
    return int(client.info("persistence")["rdb_changes_since_last_save"])


def _sit(crowd: Crowd, beats: dict[Link, bytes], seconds: float) -> None:
    crowd.listen(lambda link, text: None)
    began, sent = time.monotonic(), 0
    while (now := time.monotonic() - began) < seconds:
        while sent < now * SIZE / INTERVAL:
            link = crowd.links[sent % SIZE]
            link.send(beats[link])
            sent += 1
        crowd.turn(0.01)


class Renewals:
    """Counts the renewals that a Redis is asked for."""

    def __init__(self, url: str) -> None:
        self._client = connect(url)
        self._renew = load_scripts(self._client)["renew"].sha
        options = self._client.connection_pool.connection_kwargs
        self._socket = socket.create_connection((options["host"], options["port"]))
        self._thread = threading.Thread(target=self._read)
        self.number = 0

    def __enter__(self) -> Renewals:
        self._socket.sendall(b"MONITOR\r\n")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()
        self._client.close()

    def _read(self) -> None:
        with self._socket.makefile("r") as lines:
            self.number = sum(self._renew in line for line in lines)
