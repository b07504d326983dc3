"""Entering and leaving on Redis, against the least that a script costs, and Discourse's steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from flask_presence.backends.redis import RedisBackend, connect
from flask_presence.model import Member

from ..stores import redis
from .discourse import Discourse
from .figures import Line
from .host import server_core
from .rounds import one_round, pairs

ROOM, EPOCH, WORKER = "/room/1", "AAAAAAAAAAAA", "W" * 16
CLIENT, USER = "C" * 20, "user"
NOTHING = "return 1"
COMMON = ["presence", "", "1234567890123", "86400000", "OOOOOOOOOOOO:1234", "presence:0"]


@contextmanager
def redis_backend() -> Iterator[RedisBackend]:
    """A backend on a Redis of the servers' core, with a lease of its worker."""
    with ExitStack() as stack:
        with server_core():
            url = stack.enter_context(redis())
        backend = RedisBackend(connect(url))
        backend.renew(WORKER, 3600, create=True)
        yield backend
        backend.close()


def member(number: int, room: str = ROOM) -> Member:
    user = f"{USER}{number}"
    return Member(room, f"{CLIENT}{number}", user, json.dumps({"name": user}))


def measure(rounds: int, seconds: float) -> list[Line]:
    """Steps per second from one client, one after another."""
    with redis_backend() as backend:
        return _compare(backend, rounds, seconds)


def _compare(backend: RedisBackend, rounds: int, seconds: float) -> list[Line]:
    client = backend.server.client
    nothing, discourse = client.register_script(NOTHING), Discourse(client)
    entering = [ROOM, EPOCH, f"{CLIENT}1", f"{USER}1", '{"name": "user1"}', "", WORKER, 0, ""]
    leaving = [ROOM, "left", f"{USER}1", "", f"{CLIENT}1"]

    def leave(number: int) -> None:
        backend.leave(ROOM, [f"{CLIENT}{number}"], user_id=f"{USER}{number}")

    contenders = {
        "ours": [lambda n: backend.enter(member(n), epoch=EPOCH, worker=WORKER), leave],
        "nothing": [
            lambda n: nothing(args=[*COMMON, *entering]),
            lambda n: nothing(args=[*COMMON, *leaving]),
        ],
        "discourse": [
            lambda n: discourse.enter("room", f"{USER}{n}", f"{CLIENT}{n}"),
            lambda n: discourse.leave("room", f"{USER}{n}", f"{CLIENT}{n}"),
        ],
    }
    found = [one_round(contenders, seconds) for _ in range(rounds)]
    return [
        Line(f"`{verb}`, Redis", against, "/s", "times as many", goal, pairs(found, "ours", who, i))
        for who, against, goal in (
            ("nothing", "an EVALSHA that does nothing", 0.65),
            ("discourse", "Discourse's four round trips", 3.0),
        )
        for i, verb in enumerate(("enter", "leave"))
    ]
