"""One tab: does as planned, comes back when its connection is lost, asks for what it missed."""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Any

import requests
import websocket
from wire import Wire

from .journal import Journal
from .mirror import UNKNOWN, Mirror
from .plan import VIEWABLE, Deed, Op, Payload, Planner, info_of, operations_of

UPKEEP_SECONDS = 1.1
"""Just above once a second, more often than which a heartbeat is answered without a look."""
ANSWER_SECONDS = 60.0
"""By then there is an answer, whatever is frozen."""


class Gone(Exception):
    """The connection was lost."""


class Connection(Wire):
    """A connection that writes down every frame, and follows what they say."""

    def __init__(
        self, name: str, port: int, user: str | None, journal: Journal, before: Mirror | None = None
    ) -> None:
        self.name = name
        self.mirror = Mirror(user, before)
        self._journal = journal
        super().__init__(port, connect=False)
        auth = "" if user is None else json.dumps({"user": user, "info": info_of(user)})
        self.send_raw(f"40{self.namespace},{auth}")
        while self.sid is None:
            if self.closed.is_set() or self.refused:
                self.hang_up()
                raise Gone(self.refused)
            self._answered.wait(0.2)

    def send_raw(self, text: str) -> None:
        self.mirror.sent(text, time.monotonic())
        self._journal.write(self.name, "out", text)
        super().send_raw(text)

    def _take(self, text: str) -> None:
        self._journal.write(self.name, "in", text)
        self.mirror.received(text)
        self.mirror.states.clear()
        super()._take(text)
        self.frames.clear()

    def take_event(self, name: str, data: Any) -> None:
        """The mirror has taken it."""

    def note(self, kind: str, data: Any = None) -> None:
        self._journal.write(self.name, kind, data)

    def ask(self, event: str, payload: Payload) -> Any:
        """Send an event and await its acknowledgement, for as long as the connection is there.

        :raises Gone: it is not.
        """
        try:
            answer = self.emit(event, payload)
        except (OSError, websocket.WebSocketException) as error:
            raise Gone from error
        until = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < until:
            with contextlib.suppress(queue.Empty):
                return answer.get(timeout=0.2)
            if self.closed.is_set():
                raise Gone
        raise AssertionError(f"{event} {payload} was not answered")


class Tab:
    """A page of one user, with one connection after another."""

    def __init__(self, planner: Planner, number: int, ports: list[int], journal: Journal) -> None:
        self.name = f"tab{number}"
        self.operations: Counter[str] = Counter()
        self.failure: str | None = None
        self._planner = planner
        self._ports = ports
        self._journal = journal
        self._numbers = itertools.count(1)
        self._kept_up = time.monotonic()
        self._connection: Connection | None = None
        self.turn = threading.Lock()
        """Whoever has it do something holds this."""

    @property
    def mirror(self) -> Mirror:
        assert self._connection is not None
        return self._connection.mirror

    def open(self) -> None:
        """Connect for the first time."""
        self._connect(self._planner.server, None)
        self._watch_all()

    def act(self, seconds: float, count: int) -> None:
        """Do what is planned for a turn."""
        began = time.monotonic()
        with self._watching_for_failure():
            for deed in self._planner.turn(seconds, count):
                while (left := began + deed.at - time.monotonic()) > 0:
                    time.sleep(min(left, UPKEEP_SECONDS / 4))
                    self._keep_up()
                self.operations += operations_of(deed)
                self._do(deed)
                self._keep_up()

    def rest(self) -> None:
        """Keep up only."""
        with self._watching_for_failure():
            self._keep_up()

    def close(self) -> None:
        if self._connection is not None and not self._connection.closed.is_set():
            self._connection.note("closed", "dropped")
            self._connection.hang_up()

    @contextlib.contextmanager
    def _watching_for_failure(self) -> Iterator[None]:
        if self.failure is None:
            try:
                yield
            except Exception:
                self.failure = f"{self.name}: {traceback.format_exc()}"
        else:
            yield

    def _watch_all(self) -> None:
        """A watcher subscribes to what it was refused once more."""
        if self._planner.is_watcher:
            missing = [name for name in VIEWABLE if name not in self.mirror.watched]
            if missing:
                ops = [["subscribe", {"channel": channel}] for channel in missing]
                self._perform("batch", {"ops": ops})

    # Deeds

    def _do(self, deed: Deed) -> None:
        if deed.kind in ("reload", "close", "move"):
            self._lose_connection(deed)
        elif deed.kind == "evict":
            self._evict(deed.payload["user"])
        else:
            self._perform(deed.kind, deed.payload)

    def _perform(self, event: str, payload: Payload) -> None:
        """Ask for something; where the connection is lost over it, come back."""
        assert self._connection is not None
        if event == "heartbeat":
            payload = {"positions": self.mirror.positions()}
        try:
            self._connection.ask(event, payload)
        except Gone:
            self._come_back()

    def _lose_connection(self, deed: Deed) -> None:
        connection = self._connection
        assert connection is not None
        with contextlib.suppress(OSError, websocket.WebSocketException):
            for event, payload in deed.payload["ops"]:
                connection.emit(event, payload)
        # Before the server can know, and say that they left.
        connection.note("closed", "left" if deed.kind == "close" else "dropped")
        if deed.kind == "close":
            with contextlib.suppress(OSError, websocket.WebSocketException):
                connection.leave_orderly()
        connection.hang_up()
        self._connect(deed.payload["server"], connection if deed.kind == "reload" else None)

    def _evict(self, user: str) -> None:
        assert self._connection is not None
        self._connection.note("evicts", user)
        # Whoever does not answer now may still do it.
        with contextlib.suppress(requests.RequestException):
            url = f"http://127.0.0.1:{self._ports[self._planner.server]}/evict/{user}"
            requests.post(url, timeout=5)
        self._connection.note("evicted", user)

    # Coming back

    def _come_back(self) -> None:
        connection = self._connection
        assert connection is not None
        connection.note("closed", "lost")
        connection.hang_up()
        self._connect(self._planner.server, connection)

    def _connect(self, server: int, before: Connection | None) -> None:
        """Connect to this server, or else to another one, and enter and subscribe again."""
        for port in itertools.cycle(self._ports[server:] + self._ports[:server]):
            if self._dial(port, before):
                return
            time.sleep(0.1)

    def _dial(self, port: int, before: Connection | None) -> bool:
        name = f"{self.name}.{next(self._numbers)}"
        about = {"user": self._planner.user, "port": port, "after": before and before.name}
        self._journal.write(name, "opened", about)
        try:
            self._connection = Connection(
                name, port, self._planner.user, self._journal, before.mirror if before else None
            )
            if before is not None:
                self._resume(self._connection, before.mirror)
        except (OSError, websocket.WebSocketException, AssertionError, Gone):
            self._journal.write(name, "closed", "lost")
            return False
        return True

    @staticmethod
    def _resume(connection: Connection, before: Mirror) -> None:
        """Enter and subscribe again, from the positions that are known."""
        ops: list[Any] = [
            ["enter", _entering(channel, meta)]
            for channel, meta in (before.entered | before.lost).items()
        ]
        positions = before.positions()
        for channel in before.watched:
            known = {"position": positions[channel]} if channel in positions else {}
            ops.append(["subscribe", {"channel": channel} | known])
        if ops:
            connection.ask("batch", {"ops": ops})

    # Keeping up

    def _keep_up(self) -> None:
        """Once a second: beat, enter again where lost, and ask for the states of what is behind."""
        connection = self._connection
        assert connection is not None
        if connection.closed.is_set():
            self._come_back()
            return
        if time.monotonic() - self._kept_up < UPKEEP_SECONDS:
            return
        self._kept_up = time.monotonic()
        self._watch_all()
        for event, payload in self._upkeep(self.mirror):
            if self._connection is not connection:
                return
            self._perform(event, payload)

    @staticmethod
    def _upkeep(mirror: Mirror) -> Iterator[Op]:
        yield "heartbeat", {}
        for channel in list(mirror.uncertain):
            yield "leave", {"channel": channel}
        for channel, meta in list(mirror.lost.items()):
            yield "enter", _entering(channel, meta)
        asking = {name for name, watch in mirror.watched.items() if watch.should_ask()}
        asking |= mirror.stale & set(mirror.watched)
        mirror.stale.clear()
        if asking:
            yield "state", {"channels": sorted(asking)}


def _entering(channel: str, meta: Any) -> Payload:
    return {"channel": channel} | ({} if meta in (None, UNKNOWN) else {"meta": meta})
