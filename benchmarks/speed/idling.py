"""What a store is written while 5,000 clients sit connected."""

from __future__ import annotations

import socket
import threading
import time

from flask_presence.backends.redis import connect
from flask_presence.backends.redis.scripts import load_scripts

from ..stores import redis
from .events import subscribed
from .figures import Line
from .load import Crowd, Link
from .servers import flask_server

SIZE, ROOMS = 5000, 100
INTERVAL = 25
"""Seconds between a client's heartbeats."""
READS = {
    *("EXISTS", "GET", "HGET", "HGETALL", "HKEYS", "HLEN", "HMGET", "PTTL", "SMEMBERS", "TIME"),
    *("ZCARD", "ZCOUNT", "ZRANGE", "ZRANGEBYLEX", "ZRANGEBYSCORE", "ZREVRANGE", "ZSCORE"),
}
RENEWALS_EACH = 5
"""Seconds between two renewals: a third of `PRESENCE_WORKER_TIMEOUT`."""


def measure(rounds: int, seconds: float) -> list[Line]:
    """Scripts that write, for each renewal; the clients send their heartbeats all the while."""
    with (
        redis() as url,
        flask_server(PRESENCE_BACKEND=url) as server,
        subscribed(server, SIZE) as (crowd, beats),
    ):
        crowd.ask_all("enter", lambda link: {"channel": f"/room/{link.number % ROOMS}"})
        time.sleep(1)
        found = [(_writes(url, crowd, beats), 0.0) for _ in range(rounds)]
    what = f"store writes for each renewal, {SIZE:,} clients connected, Redis"
    return [Line(what, "-", "", "at most", 1.0, found)]


def _writes(url: str, crowd: Crowd, beats: dict[Link, bytes]) -> float:
    with Monitor(url) as monitor:
        began = time.monotonic()
        due = crowd.links
        crowd.listen(lambda link, text: None)
        sent, seconds = 0, 2 * RENEWALS_EACH
        while (now := time.monotonic() - began) < seconds:
            while sent < now * SIZE / INTERVAL:
                due[sent % SIZE].send(beats[due[sent % SIZE]])
                sent += 1
            crowd.turn(0.01)
    return monitor.writing / max(1, monitor.renewals)


class Monitor:
    """Counts the scripts of a Redis that write: what one script does follows without a break."""

    def __init__(self, url: str) -> None:
        self._client = connect(url)
        self._renew = load_scripts(self._client)["renew"].sha
        options = self._client.connection_pool.connection_kwargs
        self._socket = socket.create_connection((options["host"], options["port"]))
        self._thread = threading.Thread(target=self._read)
        self.writing = 0
        self.renewals = 0

    def __enter__(self) -> Monitor:
        self._socket.sendall(b"MONITOR\r\n")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()
        self._client.close()

    def _read(self) -> None:
        is_writing = False
        with self._socket.makefile("r") as lines:
            for line in lines:
                place, _, command = line.partition("] ")
                if not place.endswith(" lua"):
                    self.writing += is_writing
                    is_writing = False
                    self.renewals += self._renew in command
                elif command.split('"')[1] not in READS:
                    is_writing = True
        self.writing += is_writing
