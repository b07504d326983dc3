"""What each tab does and when, from the seed alone: the same one, the same operations."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any, NamedTuple

CHANNELS = [
    *[f"/room/{number}" for number in range(4)],
    *[f"/mixed/{name}" for name in "ab"],
    "/count/a",
    "/small/a",
    "/staff/a",
]
"""One kind of config each; a few, so that all meet there."""
VIEWABLE = CHANNELS[:-1]
"""Those that anybody may watch."""
USERS = 10
WEIGHTS = {
    "enter": 300,
    "leave": 160,
    "update": 160,
    "subscribe": 70,
    "unsubscribe": 50,
    "state": 50,
    "heartbeat": 60,
    "batch": 40,
    "reload": 40,
    "close": 15,
    "move": 15,
    "evict": 3,
}
STAYING = {"leave": 0, "unsubscribe": 0, "reload": 0, "close": 0, "move": 0, "evict": 0}
"""What a watcher, who sees the whole run and stays where it entered, does not do."""
INSTEAD = {"leave": "update", "unsubscribe": "subscribe"}
"""What it does instead, in a batch."""
BATCHED = ["enter", "enter", "leave", "update", "subscribe", "unsubscribe", "state"]
IN_FLIGHT = 2
"""How many operations a connection may have under way when it is lost, at the most."""

Payload = dict[str, Any]
Op = tuple[str, Payload]


class Deed(NamedTuple):
    """One thing to do: ``at`` so many seconds after the beginning."""

    at: float
    kind: str
    payload: Payload


def user_id(number: int) -> str:
    """An id that cannot be mistaken for anything else in a frame."""
    return f"u{number:02}~id"


def info_of(user: str) -> Payload:
    return {"name": f"{user}~name"}


class Planner:
    """Plans for one tab, turn after turn. It remembers what it meant to do, not what became of it.

    Every fourth tab is a watcher: it subscribes to everything, and stays wherever it is.
    """

    def __init__(self, seed: int, number: int, *, servers: int) -> None:
        self._chance = random.Random(f"{seed} {number}")
        self._servers = servers
        self.is_watcher = number % 4 == 0
        self._weights = WEIGHTS | (STAYING if self.is_watcher else {})
        self.user = self._some_user(number)
        self.server = number // 4 % servers
        self._entered: set[str] = set()
        self._watched: set[str] = set()

    def _some_user(self, number: int) -> str | None:
        # A watcher's user is its own: nobody evicts it.
        if self.is_watcher:
            return f"w{number:02}~id"
        chosen = self._chance.randrange(USERS + 1)
        return user_id(chosen) if chosen else None

    def turn(self, seconds: float, count: int) -> list[Deed]:
        """This many deeds, at random moments."""
        moments = sorted(self._chance.uniform(0, seconds) for _ in range(count))
        return [Deed(round(at, 3), *self._deed()) for at in moments]

    def _deed(self) -> Op:
        kinds, weights = list(self._weights), list(self._weights.values())
        (kind,) = self._chance.choices(kinds, weights)
        if kind in ("reload", "close", "move"):
            return kind, self._losing(kind)
        if kind == "evict":
            return kind, {"user": user_id(self._chance.randint(1, USERS))}
        if kind == "heartbeat":
            return kind, {}
        if kind == "batch":
            names = self._chance.sample(CHANNELS, self._chance.randint(2, 6))
            return kind, {"ops": [self._op(self._chance.choice(BATCHED), name) for name in names]}
        return self._op(kind, self._some_channel(kind))

    def _losing(self, kind: str) -> Payload:
        """Lose the connection, often with requests under way, and come back or start anew."""
        number = self._chance.randrange(IN_FLIGHT + 1)
        flying = [self._op("enter", self._chance.choice(CHANNELS)) for _ in range(number)]
        if kind != "reload":
            self._entered.clear()
            self._watched.clear()
        return {"ops": flying, "server": self._chance.randrange(self._servers)}

    def _some_channel(self, kind: str) -> str:
        """Any; but who ends or updates something does so mostly where there is something."""
        there = {"leave": self._entered, "update": self._entered, "unsubscribe": self._watched}
        if there.get(kind) and self._chance.random() < 0.8:
            return self._chance.choice(sorted(there[kind]))
        return self._chance.choice(CHANNELS)

    def _op(self, kind: str, channel: str) -> Op:
        if kind == "state":
            return kind, {"channels": self._chance.sample(CHANNELS, 3)}
        if self.is_watcher:
            kind = INSTEAD.get(kind, kind)
        payload: Payload = {"channel": channel}
        if kind == "update" or (kind == "enter" and self._chance.random() < 0.3):
            payload["meta"] = {"n": self._chance.randrange(5)}
        self._intend(kind, channel)
        return kind, payload

    def _intend(self, kind: str, channel: str) -> None:
        if kind == "enter":
            self._entered.add(channel)
        elif kind == "subscribe":
            self._watched.add(channel)
        elif kind == "leave":
            self._entered.discard(channel)
        elif kind == "unsubscribe":
            self._watched.discard(channel)


def operations_of(deed: Deed) -> Counter[str]:
    """What a deed counts as."""
    counts = Counter(name for name, _ in deed.payload.get("ops", ()))
    if deed.kind != "batch":
        counts[deed.kind] += 1
    return counts
