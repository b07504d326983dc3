"""Two server processes on one store, and what becomes of those whose process dies."""

from __future__ import annotations

import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
from cluster import left
from crowd import Watcher
from processes import Server
from wire import Wire, eventually

CHANNELS = ["/room/1", "/room/2", "/mixed/a"]
QUICK = {
    "PRESENCE_WORKER_TIMEOUT": 3,
    "PRESENCE_PRUNE_INTERVAL": 0.5,
    "PRESENCE_LEAVE_GRACE": 1,
    "PRESENCE_RATE_LIMIT": None,
    "SOCKETIO": {"ping_interval": 0.5, "ping_timeout": 30},
}
DEAD = QUICK["PRESENCE_WORKER_TIMEOUT"] + QUICK["PRESENCE_PRUNE_INTERVAL"]


def seen_of(watcher: Watcher, kind: str) -> list[str]:
    """Ids in all diffs of this kind that arrived at a watcher."""
    return [entry["id"] for diff in watcher.wire.received("diff") for entry in diff.get(kind, [])]


@pytest.fixture(params=["SQLite and a queue", "SQLite alone", "Redis alone"])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "SQLite alone":
        return QUICK
    redis = request.getfixturevalue("redis")
    if request.param == "Redis alone":
        return QUICK | {"PRESENCE_BACKEND": redis.url}
    return QUICK | {"SOCKETIO": QUICK["SOCKETIO"] | {"message_queue": redis.url}}


@pytest.fixture
def pair(spawn: Any, options: dict[str, Any]) -> tuple[Server, Server]:
    return spawn(**options), spawn(**options)


def run_at_random(wire: Wire, seed: int, operations: int) -> None:
    chance = random.Random(seed)
    for _ in range(operations):
        channel = chance.choice(CHANNELS)
        event = chance.choice(["enter", "enter", "leave", "update"])
        payload: dict[str, Any] = {"channel": channel}
        if event == "update" or (event == "enter" and chance.random() < 0.3):
            payload["meta"] = {"n": chance.randrange(3)}
        answer = wire.call(event, payload)
        assert answer["ok"] or answer["error"] in ("not_present", "login_required"), answer


def test_two_processes_agree_and_each_transition_is_signalled_once(
    pair: tuple[Server, Server], dial: Any
) -> None:
    watchers = [Watcher(dial(server.port, "watcher"), CHANNELS) for server in pair]
    people = ["ada", "bob", "ada", None]
    wires = [dial(pair[index % 2].port, user) for index, user in enumerate(people * 2)]

    threads = [
        threading.Thread(target=run_at_random, args=(wire, seed, 60))
        for seed, wire in enumerate(wires)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    states = [watcher.wire.call("state", {"channels": CHANNELS})["states"] for watcher in watchers]
    assert states[0] == states[1]
    for watcher in watchers:
        eventually(lambda watcher=watcher: watcher.agrees_with(states[0]), patience=30)
    changes = sum(state["revision"] for state in states[0].values())
    eventually(lambda: sum(len(server.signals) for server in pair) >= changes)
    told = Counter(
        (signal["channel"], signal["revision"]) for server in pair for signal in server.signals
    )
    assert set(told.values()) == {1}
    assert {channel: max(r for c, r in told if c == channel) for channel in CHANNELS} == {
        channel: state["revision"] for channel, state in states[0].items()
    }
    assert len(told) == changes


def test_a_killed_process_leaves_no_ghost_and_who_came_back_was_never_seen_leaving(
    pair: tuple[Server, Server], dial: Any
) -> None:
    dying, living = pair
    watcher = Watcher(dial(living.port, "watcher"), ["/room/1"])
    for user in ("stays", "goes"):
        assert dial(dying.port, user).call("enter", {"channel": "/room/1"})["ok"]
    eventually(lambda: watcher.catch_up() or len(watcher.folds["/room/1"].users) == 2)

    dying.kill()
    killed = time.monotonic()
    assert dial(living.port, "stays").call("enter", {"channel": "/room/1"})["ok"]
    gone = watcher.wire.wait_for("diff", lambda diff: diff.get("left"))

    assert [entry["id"] for entry in gone["left"]] == ["goes"]
    assert time.monotonic() - killed < DEAD + 2
    assert seen_of(watcher, "left") == []
    assert eventually(lambda: left(living)) == [("goes", "worker_lost")]


def freeze(server: Server) -> None:
    """Freeze a server, but not while it holds the SQLite file: nobody else would get that."""
    path = Path(server.config["instance_path"]) / "presence.sqlite3"
    while True:
        server.send(signal.SIGSTOP)
        if not path.exists():
            return
        try:
            with closing(sqlite3.connect(path, timeout=1, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            return
        except sqlite3.OperationalError:
            server.send(signal.SIGCONT)


def test_a_frozen_process_leaves_no_ghost_and_puts_back_whom_it_hears(
    pair: tuple[Server, Server], dial: Any
) -> None:
    frozen, living = pair
    watcher = Watcher(dial(living.port, "watcher"), ["/room/1"])
    wires = {user: dial(frozen.port, user) for user in ("moves", "speaks", "silent")}
    for wire in wires.values():
        assert wire.call("enter", {"channel": "/room/1"})["ok"]
    eventually(lambda: watcher.catch_up() or len(watcher.folds["/room/1"].users) == 3)

    freeze(frozen)
    assert dial(living.port, "moves").call("enter", {"channel": "/room/1"})["ok"]
    left: set[str] = set()
    while left != {"speaks", "silent"}:
        gone = watcher.wire.wait_for("diff", lambda diff: diff.get("left"))
        left |= {entry["id"] for entry in gone["left"]}
    frozen.send(signal.SIGCONT)
    # Heard before the process noticed that it was frozen, it is put back; else told so.
    for channel in wires["speaks"].call("heartbeat")["lost"]:
        assert wires["speaks"].call("enter", {"channel": channel})["ok"]
    eventually(lambda: watcher.catch_up() or len(watcher.folds["/room/1"].users) == 2)
    lost = wires["silent"].call("heartbeat")["lost"]
    assert wires["silent"].call("enter", {"channel": "/room/1"})["ok"]
    eventually(lambda: watcher.catch_up() or len(watcher.folds["/room/1"].users) == 3)

    assert lost == ["/room/1"]
    assert [user["id"] for user in watcher.folds["/room/1"].users] == ["moves", "speaks", "silent"]
    everything = [signal for server in pair for signal in server.signals]
    assert not [s for s in everything if s["kind"] == "left" and s["user_id"] == "moves"]


def test_a_store_that_lost_all_its_data_has_everyone_back_in_a_new_epoch(
    spawn: Any, dial: Any, tmp_path: Any
) -> None:
    server = spawn(**QUICK)
    watcher = Watcher(dial(server.port, "watcher"), ["/room/1"])
    users = {f"user{number}" for number in range(20)}
    for user in users:
        assert dial(server.port, user).call("enter", {"channel": "/room/1"})["ok"]
    epoch = watcher.wire.call("state", {"channels": ["/room/1"]})["states"]["/room/1"]["epoch"]

    for file in (tmp_path / "instance").glob("presence.sqlite3*"):
        file.unlink()
    eventually(
        lambda: (
            watcher.catch_up()
            or (
                {user["id"] for user in watcher.folds["/room/1"].users} == users
                and watcher.folds["/room/1"].position[0] != epoch
            )
        )
    )

    anew = eventually(lambda: [s for s in list(server.signals) if s["epoch"] != epoch])
    assert {signal["reason"] for signal in anew} == {"healed"}


def test_clients_that_sit_still_cost_the_store_one_write_for_each_renewal(
    spawn: Any, dial: Any
) -> None:
    server = spawn(
        **QUICK | {"PRESENCE_WORKER_TIMEOUT": 6, "PRESENCE_PRUNE_INTERVAL": 1},
        COUNT_STATEMENTS=True,
    )
    wires = [dial(server.port, f"user{number}") for number in range(200)]
    for number, wire in enumerate(wires):
        ops = [
            ["enter", {"channel": f"/room/{number % 10}"}],
            ["subscribe", {"channel": f"/room/{number % 10}"}],
        ]
        assert wire.call("batch", {"ops": ops})["ok"]

    def statements() -> list[str]:
        return requests.get(f"http://127.0.0.1:{server.port}/statements", timeout=10).json()

    statements()
    began, written, renewals = time.monotonic(), [], 0
    while renewals < 4:
        for wire in wires:
            assert wire.call("heartbeat", {"positions": {"/room/1": ["epoch", 1]}})["ok"]
        found = [text for text in statements() if not text.startswith("SELECT")]
        renewals += sum(text.startswith("UPDATE presence_workers SET") for text in found)
        written += [text for text in found if text != "BEGIN IMMEDIATE"]
    took = time.monotonic() - began

    assert all(text.startswith("UPDATE presence_workers SET") for text in written), written
    assert len(written) <= took / 2 + 2


def test_a_drained_process_hands_its_members_over(spawn: Any, dial: Any) -> None:
    stopping, living = spawn(**QUICK), spawn(**QUICK)
    watcher = Watcher(dial(living.port, "watcher"), ["/room/1"])
    wires = {user: dial(stopping.port, user) for user in ("moves", "goes")}
    for wire in wires.values():
        assert wire.call("enter", {"channel": "/room/1"})["ok"]
    eventually(lambda: watcher.catch_up() or len(watcher.folds["/room/1"].users) == 2)

    assert requests.post(f"http://127.0.0.1:{stopping.port}/drain", timeout=10).ok
    refused = wires["moves"].call("enter", {"channel": "/room/2"})
    wires["moves"].leave_orderly()
    assert dial(living.port, "moves").call("enter", {"channel": "/room/1"})["ok"]
    eventually(lambda: watcher.catch_up() or len(watcher.folds["/room/1"].users) == 1)

    assert refused["error"] == "unavailable"
    assert eventually(lambda: left(stopping, living)) == [("goes", "timeout")]
