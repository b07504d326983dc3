"""2,000 clients of one worker whose process is killed: how long until it has dealt with that?"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from flask_presence.backends.redis import connect

from ..stores import redis
from .figures import Line
from .load import Crowd
from .servers import Running, flask_server

SIZE, ROOMS = 2000, 20
PATIENCE = 60.0


def measure(rounds: int, seconds: float) -> list[Line]:
    """Seconds from the kill to the last member's grace, or the last disconnect handler."""
    found = [(_ours(), _theirs()) for _ in range(rounds)]
    what = f"{SIZE:,} clients killed, until all have their grace, Redis"
    return [Line(what, "an empty disconnect handler", "s", "times the cost", 1.5, found)]


def _ours() -> float:
    with redis() as url, flask_server(PRESENCE_BACKEND=url, PRESENCE_LEAVE_GRACE=60) as server:
        client = connect(url)

        def waiting() -> int:
            keys = [f"presence:deadlines:/room/{number}" for number in range(ROOMS)]
            return sum(client.zcard(key) for key in keys)

        with _crowd(server, "/presence") as kill:
            return _until(kill, lambda: waiting() == SIZE)


def _theirs() -> float:
    with flask_server() as server, _crowd(server, "/") as kill:
        return _until(kill, lambda: server.get("/gone")["gone"] == SIZE)


def _until(kill: Callable[[], None], is_over: Callable[[], bool]) -> float:
    began = time.perf_counter()
    kill()
    while not is_over():
        assert time.perf_counter() - began < PATIENCE
        time.sleep(0.05)
    return time.perf_counter() - began


@contextmanager
def _crowd(server: Running, namespace: str) -> Iterator[Callable[[], None]]:
    """Clients in a process of their own, and what kills it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_be_crowd, args=(server.port, namespace, theirs))
    process.start()
    assert ours.recv() == "ready"
    try:
        yield process.kill
    finally:
        process.kill()
        process.join()


def _be_crowd(port: int, namespace: str, pipe: Connection) -> None:
    with Crowd(port, SIZE, namespaces=(namespace,)) as crowd:
        if namespace == "/presence":
            for name in ("subscribe", "enter"):
                crowd.ask_all(name, lambda link: {"channel": f"/room/{link.number % ROOMS}"})
        pipe.send("ready")
        while True:
            crowd.turn(1)
