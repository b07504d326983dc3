"""Events over the wire: a heartbeat, entering and leaving, against a handler that does nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from ..stores import redis
from .figures import Line
from .load import Crowd, Link, event
from .servers import Running, flask_server

ROOMS = 20
NOTHING = event("nothing", namespace="/")
AGAINST = "empty `@socketio.on` handler"


def measure(rounds: int, seconds: float) -> list[Line]:
    """Acknowledged events per second of one worker under gevent."""
    with redis() as url, flask_server(PRESENCE_BACKEND=url) as server:
        return [
            _heartbeats(server, 200, 1, 1.7, rounds, seconds),
            _heartbeats(server, 50, 10, 2.2, rounds, seconds),
            _entering(server, rounds, seconds),
        ]


@contextmanager
def subscribed(server: Running, size: int, **options: Any) -> Iterator[tuple[Crowd, Any]]:
    """A crowd of which each subscribes to three channels, and what each of them would send as a
    heartbeat."""
    with Crowd(server.port, size, **options) as crowd:
        positions: dict[Link, dict[str, Any]] = {link: {} for link in crowd.links}
        for step in range(3):
            names = {link: f"/room/{(link.number + step) % ROOMS}" for link in crowd.links}
            answers = crowd.ask_all("subscribe", partial(_channel, names))
            for link, answer in zip(crowd.links, answers, strict=True):
                state = answer["state"]
                positions[link][names[link]] = [state["epoch"], state["revision"]]
        yield (
            crowd,
            {
                link: event("heartbeat", {"positions": places}, number=1234)
                for link, places in positions.items()
            },
        )


def _channel(names: Mapping[Link, str], link: Link) -> dict[str, str]:
    return {"channel": names[link]}


def _heartbeats(
    server: Running, connections: int, outstanding: int, goal: float, rounds: int, seconds: float
) -> Line:
    with Crowd(server.port, ROOMS, name="resident") as residents:
        # Their positions have an epoch, as those of real channels.
        residents.ask_all("enter", lambda link: {"channel": f"/room/{link.number}"})
        with subscribed(server, connections, namespaces=("/", "/presence")) as (crowd, beats):
            found = [
                (
                    crowd.answered_per_second(
                        lambda link: [beats[link]], outstanding=outstanding, seconds=seconds
                    ),
                    crowd.answered_per_second(
                        lambda link: [NOTHING], outstanding=outstanding, seconds=seconds
                    ),
                )
                for _ in range(rounds)
            ]
    what = f"`heartbeat`, {connections} connections, {outstanding} outstanding"
    return Line(what, AGAINST, "/s", "times as many", goal, found)


def _entering(server: Running, rounds: int, seconds: float) -> Line:
    def requests(link: Link) -> list[bytes]:
        payload = {"channel": f"/room/{1000 + link.number % ROOMS}"}
        return [event("enter", payload), event("leave", payload)]

    with Crowd(server.port, 200, namespaces=("/", "/presence")) as crowd:
        found = [
            (
                crowd.answered_per_second(requests, outstanding=1, seconds=seconds),
                crowd.answered_per_second(lambda link: [NOTHING], outstanding=1, seconds=seconds),
            )
            for _ in range(rounds)
        ]
    what = "`enter` + `leave`, Redis, 200 connections, 1 outstanding"
    return Line(what, AGAINST, "/s", "times as many", 0.5, found)
