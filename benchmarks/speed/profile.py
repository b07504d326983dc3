"""Where a heartbeat's CPU goes in the worker: a table by part, and the busiest functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ..stores import redis
from .events import ROOMS, subscribe
from .load import Crowd
from .servers import flask_server

PARTS = [
    ("flask_presence/", "flask_presence"),
    ("socketio/", "python-socketio"),
    ("engineio/", "python-engineio"),
    ("simple_websocket/", "simple-websocket"),
    ("wsproto/", "wsproto, which reads and writes frames"),
    ("gevent/", "gevent"),
    ("json/", "json"),
]
"""By a piece of the path of the innermost function; the first that fits."""


def measure(connections: int, seconds: float) -> str:
    """The tables as Markdown."""
    with (
        redis() as url,
        flask_server(PRESENCE_BACKEND=url) as server,
        Crowd(server.port, ROOMS, name="resident") as residents,
    ):
        residents.ask_all("enter", lambda link: {"channel": f"/room/{link.number}"})
        with Crowd(server.port, connections) as crowd:
            beats = subscribe(crowd)
            server.post("/sample")
            rate = crowd.answered_per_second(
                lambda link: [beats[link]], outstanding=1, seconds=seconds
            )
            stacks = server.get("/samples")
    return _report(rate, [(stack, number) for stack, number in stacks])


def _report(rate: float, stacks: Iterable[tuple[list[str], int]]) -> str:
    parts: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for stack, number in stacks:
        parts[_part(stack[-1])] += number
        functions[_short(stack[-1])] += number
    total = sum(parts.values())
    each = 1e6 / rate
    rows = [
        f"| {name} | {number / total:.0%} | {number / total * each:.1f} |"
        for name, number in parts.most_common()
    ]
    busiest = [f"| `{name}` | {number / total:.1%} |" for name, number in functions.most_common(15)]
    return "\n".join(
        [
            f"{rate:,.0f} heartbeats a second, with three positions each: {each:.0f} µs of CPU for "
            "one.\n",
            "| part | share | µs |",
            "| --- | --- | --- |",
            *rows,
            "",
            "| function | share |",
            "| --- | --- |",
            *busiest,
        ]
    )


def _part(place: str) -> str:
    return next((name for piece, name in PARTS if piece in place), "the rest of Python")


def _short(place: str) -> str:
    path, _, function = place.rpartition(":")
    return f"{'/'.join(path.split('/')[-2:])}: {function}"
