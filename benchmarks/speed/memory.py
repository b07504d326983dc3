"""The memory of a worker for each client that is connected, entered and subscribed."""

from __future__ import annotations

from collections.abc import Callable

from ..stores import redis
from .figures import Line
from .host import resident
from .load import Crowd
from .servers import Running, flask_server

WARM, SIZE, ROOMS = 200, 2000, 50


def measure(rounds: int, seconds: float) -> list[Line]:
    """KiB for each client, each in a process of its own."""
    found = [(_ours(), _theirs()) for _ in range(rounds)]
    what = "memory of a client that entered and subscribed, beyond a bare one"
    return [Line(what, "a bare Flask-SocketIO connection", "KiB", "at most", 3.0, found)]


def _ours() -> float:
    # With the limit that an app has by default: it is part of what a connection costs.
    limit = {"PRESENCE_RATE_LIMIT": "120/10"}
    with redis() as url, flask_server(PRESENCE_BACKEND=url, **limit) as server:
        return _each(server, "/presence", _settle)


def _theirs() -> float:
    with flask_server() as server:
        return _each(server, "/", lambda crowd: None)


def _settle(crowd: Crowd) -> None:
    for name in ("subscribe", "enter"):
        crowd.ask_all(name, lambda link: {"channel": f"/room/{link.number % ROOMS}"})


def _each(server: Running, namespace: str, settle: Callable[[Crowd], None]) -> float:
    with Crowd(server.port, WARM, namespaces=(namespace,), name="w") as warm:
        settle(warm)
        server.post("/collect")
        before = resident(server.pid)
        with Crowd(server.port, SIZE, namespaces=(namespace,)) as crowd:
            settle(crowd)
            server.post("/collect")
            return (resident(server.pid) - before) / SIZE / 1024
