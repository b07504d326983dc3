"""Many connections at once: reloads, a burst, those who never read, and a long day."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import websocket

from .journal import Journal
from .tab import Connection, Gone

ROOMS = 50
BEAT_SECONDS = 25
BUSY_SECONDS = 30
"""For so long a server may be too busy for some of them."""
ANSWERED = (OSError, websocket.WebSocketException, AssertionError, Gone)


def _room(number: int) -> str:
    return f"/room/{100 + number % ROOMS}"


def _all(work: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def storm(journal: Journal, *, ports: list[int], tabs: int, reloads: int, seed: int) -> Any:
    """Tabs that are loaded again and again: each time a lost connection, and a new one."""
    failures: list[str] = []

    def reload_for_long(number: int) -> None:
        chance = random.Random(f"{seed} storm {number}")
        user = f"s{number}~id"
        for turn in range(reloads + 1):
            name = f"storm{number}.{turn}"
            try:
                connection = _enter(name, chance.choice(ports), user, journal, _room(number))
            except ANSWERED as error:
                failures.append(f"{name}: {error!r}")
                return
            time.sleep(chance.uniform(0, 0.5))
            _drop(connection, "dropped" if turn < reloads else "left")

    _all(reload_for_long, tabs)
    return {"operations": tabs * (reloads + 1) * 3, "failures": failures}


def _enter(name: str, port: int, user: str, journal: Journal, room: str) -> Connection:
    """A page of somebody: it enters a room and watches it."""
    journal.write(name, "opened", {"user": user, "port": port, "after": None})
    connection = Connection(name, port, user, journal)
    for event in ("enter", "subscribe"):
        _insist(connection, event, room)
    return connection


def _insist(connection: Connection, event: str, room: str) -> None:
    """Ask again while the server is too busy, as pages do."""
    until = time.monotonic() + BUSY_SECONDS
    while not (answer := connection.ask(event, {"channel": room}))["ok"]:
        assert answer["error"] == "unavailable", answer
        assert time.monotonic() < until, answer
        time.sleep(answer["retry_after"] * random.uniform(1, 2))


def _drop(connection: Connection, how: str) -> None:
    """Close a connection, unless the server was faster."""
    connection.note("closed", "lost" if connection.closed.is_set() else how)
    with contextlib.suppress(*ANSWERED):
        if how == "left":
            connection.leave_orderly()
    connection.hang_up()


class Crowd:
    """Connections that are in one room each, and beat as often as pages do; opened all at once."""

    def __init__(self, journal: Journal, port: int, count: int) -> None:
        self._journal = journal
        self._port = port
        self._turns = [0] * count
        self._lock = threading.Lock()
        self.connections: list[Connection | None] = [None] * count
        self.failures: list[str] = []
        self.beats = 0
        self._are_leaving = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()
        _all(self.open, count)

    def _beat(self) -> None:
        """Whose connection was lost comes back."""
        pause = BEAT_SECONDS / len(self.connections)
        while not self._are_leaving.is_set():
            for number, connection in enumerate(self.connections):
                if connection is not None and connection.closed.is_set():
                    threading.Thread(target=self.live, args=(number, True)).start()
                elif connection is not None:
                    with contextlib.suppress(*ANSWERED):
                        connection.emit("heartbeat", {})
                        self.beats += 1
                if self._are_leaving.wait(pause):
                    return

    def live(self, number: int, is_reload: bool) -> None:
        """One reloads its page, or leaves it and comes back later; unless it is gone just now."""
        if not self.close(number, "dropped" if is_reload else "left"):
            return
        if not is_reload:
            time.sleep(1)
        if not self._are_leaving.is_set():
            self.open(number)

    def open(self, number: int) -> None:
        """Connect and enter; again, as pages do, where a busy server lets it wait for too long."""
        until = time.monotonic() + 2 * BUSY_SECONDS
        while (error := self._open_once(number)) is not None:
            if time.monotonic() > until:
                self.failures.append(error)
                return

    def _open_once(self, number: int) -> str | None:
        self._turns[number] += 1
        name, user = f"crowd{number}.{self._turns[number]}", f"c{number}~id"
        self._journal.write(name, "opened", {"user": user, "port": self._port, "after": None})
        connection = None
        try:
            connection = Connection(name, self._port, user, self._journal)
            _insist(connection, "enter", _room(number))
        except ANSWERED as error:
            self._journal.write(name, "closed", "lost")
            if connection is not None:
                connection.hang_up()
            return f"{name}: {error!r}"
        self.connections[number] = connection
        return None

    def close(self, number: int, how: str) -> bool:
        """Close a connection; was there one, or is somebody about to open another?"""
        with self._lock:
            connection, self.connections[number] = self.connections[number], None
        if connection is None:
            return False
        _drop(connection, how)
        return True

    def close_all(self) -> None:
        self._are_leaving.set()
        for number in range(len(self.connections)):
            self.close(number, "left" if number % 2 else "dropped")


def burst(journal: Journal, *, port: int, clients: int) -> Any:
    """All connect and enter at the same moment, stay for a little, and go."""
    began = time.monotonic()
    crowd = Crowd(journal, port, clients)
    took = time.monotonic() - began
    crowd.close_all()
    operations = 2 * clients + crowd.beats
    return {"operations": operations, "failures": crowd.failures, "seconds": round(took, 1)}


def day(
    journal: Journal, *, port: int, clients: int, seconds: float, rate: float, seed: int
) -> Any:
    """Many clients who stay and beat, of whom so many a second reload, or leave and come back."""
    crowd = Crowd(journal, port, clients)
    chance = random.Random(f"{seed} day")
    began, lives = time.monotonic(), 0
    while time.monotonic() < began + seconds:
        number, is_reload = chance.randrange(clients), chance.random() < 0.5
        threading.Thread(target=crowd.live, args=(number, is_reload)).start()
        lives += 1
        time.sleep(max(0.0, began + lives / rate - time.monotonic()))
    time.sleep(2)
    crowd.close_all()
    return {"operations": 2 * clients + 3 * lives + crowd.beats, "failures": crowd.failures}


class _Silent(Connection):
    """One who stops to read."""

    def __init__(self, *args: Any) -> None:
        self.reads = threading.Event()
        self.reads.set()
        super().__init__(*args)

    def _receive(self) -> Any:
        self.reads.wait()
        return super()._receive()


def silence(
    journal: Journal, *, port: int, clients: int, seconds: float, channels: list[str]
) -> Any:
    """Subscribers to busy channels who never read."""
    silent = []
    for number in range(clients):
        name = f"silent{number}"
        journal.write(name, "opened", {"user": f"q{number}~id", "port": port, "after": None})
        connection = _Silent(name, port, f"q{number}~id", journal)
        ops = [["subscribe", {"channel": channel}] for channel in channels]
        assert connection.ask("batch", {"ops": ops})["ok"]
        connection.reads.clear()
        connection.note("closed", "lost")
        silent.append(connection)
    time.sleep(seconds)
    for connection in silent:
        connection.hang_up()
        connection.reads.set()
    return {"operations": clients, "failures": []}
