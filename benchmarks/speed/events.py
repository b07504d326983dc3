"""Events over the wire: a heartbeat, entering and leaving, against a handler that does nothing."""

from __future__ import annotations

from collections.abc import Mapping
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


def subscribe(crowd: Crowd) -> dict[Link, bytes]:
    """Have each subscribe to three channels: what each of them sends as a heartbeat from then
    on."""
    positions: dict[Link, dict[str, Any]] = {link: {} for link in crowd.links}
    for step in range(3):
        names = {link: f"/room/{(link.number + step) % ROOMS}" for link in crowd.links}
        answers = crowd.ask_all("subscribe", partial(_channel, names))
        for link, answer in zip(crowd.links, answers, strict=True):
            state = answer["state"]
            positions[link][names[link]] = [state["epoch"], state["revision"]]
    return {
        link: event("heartbeat", {"positions": places}, number=1234)
        for link, places in positions.items()
    }


def _channel(names: Mapping[Link, str], link: Link) -> dict[str, str]:
    return {"channel": names[link]}


def _heartbeats(
    server: Running, connections: int, outstanding: int, goal: float, rounds: int, seconds: float
) -> Line:
    with Crowd(server.port, ROOMS, name="resident") as residents:
        # Their positions have an epoch, as those of real channels.
        residents.ask_all("enter", lambda link: {"channel": f"/room/{link.number}"})
        with Crowd(server.port, connections, namespaces=("/", "/presence")) as crowd:
            beats = subscribe(crowd)
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
