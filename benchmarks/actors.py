"""A client process: connections that act at random, and in the end compare what they know."""

from __future__ import annotations

import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import requests
import wire

from .mirror import Mirror, Payload, State, Watch

CHANNELS = [
    *[f"/room/{number}" for number in range(6)],
    *[f"/mixed/{name}" for name in "abc"],
    *[f"/count/{name}" for name in "ab"],
    "/small/a",
    "/staff/a",
]
"""One kind of config each; a few, so that all meet there."""
USERS = 24
WEIGHTS = {
    "enter": 300,
    "leave": 180,
    "update": 180,
    "subscribe": 80,
    "unsubscribe": 70,
    "state": 50,
    "heartbeat": 60,
    "batch": 40,
    "drop": 12,
    "close": 8,
    "evict": 1,
}
STAYING = {"unsubscribe": 0, "drop": 0, "close": 0, "evict": 0}
"""What a watcher, who sees the whole run, does not do."""
BATCHED = ["enter", "enter", "leave", "update", "subscribe", "unsubscribe", "state"]
UPKEEP_SECONDS = 1.1
"""Just above once a second, more often than which a heartbeat is answered without a look."""


@dataclass(frozen=True)
class Task:
    """What one client process has to do."""

    number: int
    seed: int
    ports: list[int]
    connections: int
    operations: int
    patience: float


Findings = dict[str, list[str]]
"""What is wrong, in words, of each kind."""


class Held(NamedTuple):
    """A client in a channel, with the meta that it gave last."""

    channel: str
    user: str | None
    meta: Any
    client: str


class Actor:
    """One tab: it acts, loses its connection, comes back, and asks for what it missed."""

    def __init__(self, task: Task, number: int) -> None:
        self.name = f"client {task.number}, connection {number}"
        self.counts: Counter[str] = Counter()
        self.upkeep: Counter[str] = Counter(asked=0, lost=0)
        """How often it had to ask for a state, or to enter again."""
        self.errors: Counter[str] = Counter()
        self.failure: str | None = None
        self._chance = random.Random(f"{task.seed} {self.name}")
        self._ports = task.ports
        self._operations = task.operations // task.connections
        self._weights = WEIGHTS | (STAYING if number == 0 else {})
        self._kept_up = 0.0
        # A watcher's user is its own: nobody evicts it.
        self.user = f"watcher{task.number}" if number == 0 else self._some_user()
        self.mirror = self._dial()
        if number == 0:
            self._perform("batch", {"ops": [["subscribe", {"channel": c}] for c in CHANNELS]})

    def _some_user(self) -> str | None:
        number = self._chance.randrange(USERS + 1)
        return f"user{number}" if number else None

    def _dial(self) -> Mirror:
        return Mirror(self._chance.choice(self._ports), self.user)

    def live(self, acted: threading.Barrier, ended: threading.Event) -> None:
        """Act, then keep up until all is over."""
        try:
            while self.counts.total() < self._operations:
                self._act()
                self._keep_up()
        except Exception:
            self.failure = f"{self.name}: {traceback.format_exc()}"
        acted.wait()
        try:
            while self.failure is None and not ended.wait(UPKEEP_SECONDS / 4):
                self._keep_up()
        except Exception:
            self.failure = f"{self.name}: {traceback.format_exc()}"
        self.errors += self.mirror.errors
        self.mirror.drop()

    # Acting

    def _act(self) -> None:
        kinds, weights = list(self._weights), list(self._weights.values())
        (kind,) = self._chance.choices(kinds, weights)
        if kind in ("drop", "close"):
            self._reconnect(kind)
        elif kind == "evict":
            self._evict()
        elif kind == "heartbeat":
            self._perform(kind, {"positions": self.mirror.positions()})
        elif kind == "batch":
            names = self._chance.sample(CHANNELS, self._chance.randint(2, 6))
            ops = [self._op(self._chance.choice(BATCHED), name) for name in names]
            self._perform("batch", {"ops": ops})
        else:
            self._perform(*self._op(kind, self._some_channel(kind)))

    def _some_channel(self, kind: str) -> str:
        """Any; but who ends or updates something does so mostly where there is something."""
        mirror = self.mirror
        there = {
            "leave": mirror.entered,
            "update": mirror.entered,
            "unsubscribe": mirror.watched,
        }.get(kind)
        if there and self._chance.random() < 0.8:
            return self._chance.choice(sorted(there))
        return self._chance.choice(CHANNELS)

    def _op(self, kind: str, channel: str) -> tuple[str, Payload]:
        if kind == "state":
            return kind, {"channels": self._chance.sample(CHANNELS, 3)}
        payload: Payload = {"channel": channel}
        if kind == "update" or (kind == "enter" and self._chance.random() < 0.3):
            payload["meta"] = {"n": self._chance.randrange(5)}
        if kind == "subscribe" and self._chance.random() < 0.5:
            payload |= self._position(channel)
        return kind, payload

    def _position(self, channel: str) -> Payload:
        position = self.mirror.positions().get(channel)
        return {} if position is None else {"position": position}

    def _perform(self, event: str, payload: Payload) -> Any:
        ops = payload["ops"] if event == "batch" else [(event, payload)]
        self.counts.update(name for name, _ in ops)
        return self.mirror.call(event, payload)

    def _reconnect(self, kind: str) -> None:
        """Lose the connection, often with requests under way, and come back or start anew."""
        self.counts[kind] += 1
        for _ in range(self._chance.randrange(3)):
            event, payload = self._op("enter", self._chance.choice(CHANNELS))
            self.mirror.emit(event, payload)
            self.counts[event] += 1
        if kind == "close":
            self.mirror.leave_orderly()
        self.mirror.drop()
        before, self.mirror = self.mirror, self._dial()
        self.errors += before.errors
        if self._chance.random() < 0.6:
            self._resume(before)

    def _resume(self, before: Mirror) -> None:
        """Enter and subscribe again, from the positions that are known."""
        ops = [("enter", _entering(channel, meta)) for channel, meta in before.entered.items()]
        positions = before.positions()
        for channel, watch in before.watched.items():
            known = {"position": positions[channel]} if channel in positions else {}
            ops.append(("subscribe", {"channel": channel} | known))
            self.mirror.watched[channel] = Watch(watch.fold)
        if ops:
            self._perform("batch", {"ops": ops})

    def _evict(self) -> None:
        self.counts["evict"] += 1
        user = f"user{self._chance.randint(1, USERS)}"
        url = f"http://127.0.0.1:{self._chance.choice(self._ports)}/evict/{user}"
        while (answer := requests.post(url, timeout=wire.PATIENCE)).status_code == 503:
            self.errors["unavailable"] += 1
        answer.raise_for_status()

    # Keeping up

    def _keep_up(self) -> None:
        """Once a second: beat, enter again where lost, and ask for the states of what is behind."""
        now = time.monotonic()
        if now - self._kept_up < UPKEEP_SECONDS:
            return
        self._kept_up = now
        mirror = self.mirror
        mirror.call("heartbeat", {"positions": mirror.positions()})
        for channel in list(mirror.uncertain):
            mirror.call("leave", {"channel": channel})
        for channel, meta in list(mirror.lost.items()):
            self.upkeep["lost"] += 1
            mirror.call("enter", _entering(channel, meta))
        with mirror.changed:
            asking = {name for name, watch in mirror.watched.items() if watch.should_ask()}
            asking |= mirror.stale & set(mirror.watched)
            mirror.stale.clear()
        if asking:
            self.upkeep["asked"] += len(asking)
            mirror.call("state", {"channels": sorted(asking)})

    # Comparing

    def held(self) -> list[Held]:
        """What it is in; nothing where it failed, as its connection is closed then."""
        with self.mirror.changed:
            if self.failure is not None:
                return []
            entered = self.mirror.entered.items()
            return [Held(channel, self.user, meta, self.name) for channel, meta in entered]

    def compare(self, states: Mapping[str, State], until: float) -> Findings:
        """Where it still disagrees with the store at ``until``, and what it was never sent."""
        mirror = self.mirror
        with mirror.changed:
            if self.failure is not None:
                return {}
            mirror.changed.wait_for(lambda: not self._behind(states), until - time.monotonic())
            watched = [(name, watch, states[name]) for name, watch in mirror.watched.items()]
            return {
                "disagreeing": [
                    f"{self.name}, {channel}: it sees {', '.join(differences)}"
                    for channel, watch, state in watched
                    if (differences := watch.differences(state))
                ],
                "undelivered": [
                    f"{self.name}, {channel}: no diff brought revisions {missed}"
                    for channel, watch, state in watched
                    if (missed := watch.undelivered(state))
                ],
                "misordered": [
                    f"{self.name}, {channel}: it sees {watch.fold.users}, the store has {state}"
                    for channel, watch, state in watched
                    if watch.is_misordered(state)
                ],
            }

    def _behind(self, states: Mapping[str, State]) -> list[str]:
        watched = self.mirror.watched.items()
        return [channel for channel, watch in watched if not watch.agrees_with(states[channel])]


def _entering(channel: str, meta: Any) -> Payload:
    return {"channel": channel} | ({} if meta is None else {"meta": meta})


def run(task: Task, pipe: Connection) -> None:
    """Act, then answer questions: ``held``, the ``states`` to compare with, and ``end``."""
    # A loaded machine answers late, and that is no failure.
    wire.PATIENCE = task.patience
    actors = [Actor(task, number) for number in range(task.connections)]
    acted, ended = threading.Barrier(len(actors) + 1), threading.Event()
    threads = [threading.Thread(target=actor.live, args=(acted, ended)) for actor in actors]
    for thread in threads:
        thread.start()
    acted.wait()
    pipe.send("acted")
    while (question := pipe.recv()) != "end":
        if question == "held":
            pipe.send([held for actor in actors for held in actor.held()])
        else:
            until = time.monotonic() + task.patience
            pipe.send([actor.compare(question, until) for actor in actors])
    ended.set()
    for thread in threads:
        thread.join()
    totals = [Counter[str](), Counter[str](), Counter[str]()]
    for actor in actors:
        for total, some in zip(totals, (actor.counts, actor.upkeep, actor.errors), strict=True):
            total.update(some)
    pipe.send((*totals, [actor.failure for actor in actors if actor.failure]))
