"""A change told to a channel of 1,000 who are in and watch, from wire to wire."""

from __future__ import annotations

import sys
from functools import partial

from ..stores import redis
from .figures import Line
from .load import Crowd, Link, event, frame
from .rounds import seconds_of
from .servers import Running, flask_server, running
from .sql_steps import database

AUDIENCE, COMERS = 1000, 10
CHANNEL = {"channel": "/room/1"}


def measure(rounds: int, seconds: float) -> list[Line]:
    """Changes per second, of ten that come at once, until everybody was told of all."""
    with redis() as url, flask_server(PRESENCE_BACKEND=url) as server:
        ours = _ours(server, rounds)
    with database("postgresql") as url:
        command = [sys.executable, "-m", "benchmarks.speed.django_peer", url]
        with running(command) as server:
            theirs = _theirs(server, rounds)
    return [
        Line(
            f"a change told to {AUDIENCE:,}, Redis",
            "the list sent again by django-channels-presence's receiver",
            "/s",
            "times as many",
            10.0,
            list(zip(ours, theirs, strict=True)),
        )
    ]


def _ours(server: Running, rounds: int) -> list[float]:
    with Crowd(server.port, AUDIENCE) as audience, Crowd(server.port, COMERS, name="c") as comers:
        audience.ask_all("subscribe", lambda link: CHANNEL)
        audience.ask_all("enter", lambda link: CHANNEL)
        rates = []
        for _ in range(rounds):
            _settle(audience)
            rates.append(COMERS / seconds_of(lambda: _come(audience, comers, b'"count":1010')))
            _settle(audience)
            comers.ask_all("leave", lambda link: CHANNEL)
        return rates


def _come(audience: Crowd, comers: Crowd, last: bytes) -> None:
    waiting = set(audience.links)

    def heard(link: Link, text: bytes) -> None:
        if last in text:
            waiting.discard(link)

    audience.listen(heard)
    comers.listen(lambda link, text: None)
    for link in comers.links:
        link.send(event("enter", CHANNEL))
    audience.run(lambda: not waiting)
    comers.turn(0)


def _settle(crowd: Crowd) -> None:
    """Let all arrive that is under way."""
    crowd.ask_all("state", lambda link: {"channels": ["/room/2"]})


def _theirs(server: Running, rounds: int) -> list[float]:
    with Crowd(server.port, AUDIENCE, namespaces=(), path="/") as audience:
        told: dict[Link, int] = dict.fromkeys(audience.links, 0)

        def heard(link: Link, text: bytes) -> None:
            told[link] += 1

        audience.listen(heard)
        for link in audience.links:
            link.send(frame("watch"))
        audience.run(lambda: all(told.values()))
        joins = [partial(_join, server, audience, told, number) for number in range(rounds)]
        return [COMERS / seconds_of(join) for join in joins]


def _join(server: Running, audience: Crowd, told: dict[Link, int], number: int) -> None:
    before = dict(told)
    with Crowd(server.port, COMERS, namespaces=(), path="/") as comers:
        for link in comers.links:
            link.send(frame(f"u{number * COMERS + link.number}"))
        audience.run(
            lambda: all(told[link] >= before[link] + COMERS for link in told), patience=120
        )
