"""People for tests with real servers: some who stay, some who watch, one who asks all the time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from wire import PATIENCE, Wire

from flask_presence.testing.fold import Fold


class Watcher:
    """A subscriber that folds what it is sent.

    :param beat_every: seconds between its heartbeats, at the least.
    """

    def __init__(self, wire: Wire, channels: list[str], *, beat_every: float = 0) -> None:
        self.wire = wire
        self.folds = {channel: Fold() for channel in channels}
        self.left: list[str] = []
        """Ids of those whom diffs let leave."""
        self.pushed: list[dict[str, Any]] = []
        """States that the server sent of itself."""
        self._lock = threading.Lock()
        self._beat_every = beat_every
        self._beaten = time.monotonic()
        ops = [["subscribe", {"channel": channel}] for channel in channels]
        for answer in wire.call("batch", {"ops": ops})["results"]:
            self.folds[answer["state"]["channel"]].apply_state(answer["state"])

    def catch_up(self) -> None:
        """Apply what arrived, as a client does: with a beat, and states for what is stale."""
        with self._lock:
            self._catch_up()

    def _catch_up(self) -> None:
        self._apply_what_arrived()
        stale = [name for name, fold in self.folds.items() if fold.gap or fold.needs_state]
        if time.monotonic() - self._beaten >= self._beat_every:
            self._beaten = time.monotonic()
            stale += self._beat()
        if stale:
            states = self.wire.call("state", {"channels": stale}).get("states", {})
            for state in states.values():
                self.folds[state["channel"]].apply_state(state)

    def _apply_what_arrived(self) -> None:
        for kind, message in self.wire.take("diff", "state"):
            fold = self.folds[message["channel"]]
            if kind == "diff":
                self.left += [entry["id"] for entry in message.get("left", [])]
                fold.apply_diff(message)
            else:
                self.pushed.append(message)
                fold.apply_state(message)

    def _beat(self) -> list[str]:
        positions = {name: list(fold.position or [None, 0]) for name, fold in self.folds.items()}
        stale: list[str] = self.wire.call("heartbeat", {"positions": positions})["stale"]
        return stale

    def sees(self, channel: str) -> set[str]:
        return {user["id"] for user in self.folds[channel].users}

    def agrees_with(self, states: dict[str, Any]) -> bool:
        with self._lock:
            self._catch_up()
            return all(
                (fold.users, fold.count, fold.anonymous, fold.position)
                == (state["users"], state["count"], state["anonymous"], _position(state))
                for state, fold in ((states[name], self.folds[name]) for name in self.folds)
            )


def _position(state: dict[str, Any]) -> tuple[str, int]:
    return state["epoch"], state["revision"]


class Background:
    """Does something again and again, in a thread, inside of a ``with``."""

    def __init__(self, work: Callable[[], object], pause: float) -> None:
        self._work = work
        self._pause = pause
        self._over = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                self._work()
                self._over.wait(self._pause)
        except BaseException as error:
            self._error = error

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(2 * PATIENCE)
        if self._error is not None:
            raise self._error


class Crowd:
    """Users ``NAME0``, ``NAME1`` and so on, each in one of the channels, who stay and beat."""

    def __init__(self, dial: Any, port: int, name: str, size: int, channels: list[str]) -> None:
        self.users = {f"{name}{number}": channels[number % len(channels)] for number in range(size)}
        self.wires = {user: dial(port, user) for user in self.users}
        self.enter()

    def enter(self) -> None:
        answers = [
            wire.emit("enter", {"channel": self.users[user]}) for user, wire in self.wires.items()
        ]
        assert all(answer.get(timeout=2 * PATIENCE)["ok"] for answer in answers)

    def beat(self) -> None:
        """Beat, and enter again where one was lost, as every client does."""
        answers = [(user, wire, wire.emit("heartbeat")) for user, wire in self.wires.items()]
        for user, wire, answer in answers:
            if answer.get(timeout=PATIENCE)["lost"]:
                wire.emit("enter", {"channel": self.users[user]})

    def members_of(self, channel: str) -> set[str]:
        return {user for user, where in self.users.items() if where == channel}

    def is_connected(self) -> bool:
        return not any(wire.closed.is_set() for wire in self.wires.values())


class Asker:
    """One who does all that a client can do, all the time, and notes how long each answer took.

    :param channel: one of its own, where nobody else looks.
    """

    def __init__(self, dial: Any, port: int, channel: str) -> None:
        self.answers: list[tuple[str, float, dict[str, Any]]] = []
        self._channel = channel
        self._numbers = count(1000)
        self._wires = {kind: dial(port, f"asks-{kind}") for kind in self._payloads()}
        for kind in ("leave", "update"):
            assert self._wires[kind].call("enter", {"channel": channel})["ok"]

    def _payloads(self) -> dict[str, Any]:
        here = {"channel": self._channel}
        ops = []
        for _ in range(10):
            new = {"channel": self._new_channel()}
            ops += [["subscribe", new], ["unsubscribe", new]]
        return {
            "enter": here,
            "update": here | {"meta": {"n": next(self._numbers)}},
            "leave": here,
            "subscribe": {"channel": self._new_channel()},
            "state": {"channels": [self._channel]},
            "batch": {"ops": [*ops, ["enter", here], ["leave", here]]},
            "heartbeat": None,
        }

    def _new_channel(self) -> str:
        return f"/room/{next(self._numbers)}"

    def during(self, act: Callable[[], object]) -> None:
        """Ask while something happens."""
        threads = [
            threading.Thread(target=self._ask_for_ever, args=(kind,), daemon=True)
            for kind in self._wires
        ]
        self._over = threading.Event()
        for thread in threads:
            thread.start()
        try:
            act()
        finally:
            self._over.set()
            for thread in threads:
                thread.join(2 * PATIENCE)

    def _ask_for_ever(self, kind: str) -> None:
        while not self._over.wait(0.1):
            payload = self._payloads()[kind]
            self._ask(kind, kind, payload)
            if kind == "subscribe":
                self._ask(kind, "unsubscribe", payload)

    def _ask(self, who: str, kind: str, payload: Any) -> None:
        began = time.monotonic()
        answer = self._wires[who].emit(kind, payload).get(timeout=4 * PATIENCE)
        self.answers.append((kind, time.monotonic() - began, answer))

    def slowest(self) -> dict[str, float]:
        """The longest answer of each kind, in seconds."""
        found: dict[str, float] = {}
        for kind, took, _ in self.answers:
            found[kind] = max(round(took, 2), found.get(kind, 0))
        return found

    def refusals(self) -> list[dict[str, Any]]:
        """All that was refused, each operation of a batch alone."""
        single = [
            answer for _, _, whole in self.answers for answer in [whole, *whole.get("results", [])]
        ]
        return [answer for answer in single if not answer["ok"]]
