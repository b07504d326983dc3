"""Users of several server processes, and a third one who sees them come and go."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import websocket
from processes import Server
from wire import PATIENCE, Wire, eventually

ROOM = "/room/1"
QUICK = {
    "PRESENCE_WORKER_TIMEOUT": 3,
    "PRESENCE_PRUNE_INTERVAL": 0.2,
    "PRESENCE_LEAVE_GRACE": 0.2,
    "PRESENCE_RATE_LIMIT": None,
}


def enter(dial: Any, port: int, user: str) -> Wire:
    """Connect and enter as a client does: again, where the process that took it is stopping."""

    def attempt() -> Wire | None:
        with contextlib.suppress(OSError, websocket.WebSocketException):
            wire: Wire = dial(port, connect=False)
            wire.send_raw("40/presence," + json.dumps({"user": user}))
            eventually(lambda: wire.sid or wire.closed.is_set())
            answer = wire.emit("enter", {"channel": ROOM})
            eventually(lambda: not answer.empty() or wire.closed.is_set())
            if not answer.empty() and answer.get()["ok"]:
                return wire
        return None

    return eventually(attempt)


def enter_all(wires: list[Wire]) -> None:
    """All at once, for users who are expected within a few seconds."""
    for answer in [wire.emit("enter", {"channel": ROOM}) for wire in wires]:
        assert answer.get(timeout=PATIENCE)["ok"]


def await_closed(wires: list[Wire]) -> None:
    for wire in wires:
        assert wire.closed.wait(PATIENCE)


def users_at(wire: Wire) -> set[str]:
    state = wire.call("state", {"channels": [ROOM]})["states"][ROOM]
    return {user["id"] for user in state["users"]}


class Watcher:
    """A third client, who sees others come and go."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        assert wire.call("subscribe", {"channel": ROOM})["ok"]

    def sees(self, users: set[str]) -> None:
        eventually(lambda: users_at(self.wire) == users)

    def await_left(self, user: str) -> None:
        """Await that somebody leaves, who is to be the first and the only one."""
        diff = self.wire.wait_for("diff", lambda diff: diff.get("left"))
        assert [entry["id"] for entry in diff["left"]] == [user]
        assert not [diff for diff in self.wire.received("diff") if diff.get("left")]


def left(*servers: Server) -> list[tuple[str, str]]:
    """Who left and why, as all processes signalled it."""
    return [
        (signal["user_id"], signal["reason"])
        for server in servers
        for signal in list(server.signals)
        if signal["kind"] == "left"
    ]
