"""Clients that send more than anybody needs: what one of them can make a server do and keep."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import websocket
from watched import Connect, Start, Watched
from wire import PATIENCE, Wire, eventually

ROOM = "/room/1"
ALLOWED = 20
"""Operations that the strict server allows within the time of a test."""


@pytest.fixture(scope="module")
def strict(start: Start) -> Watched:
    """A server that does nothing in the background, and allows little for a long time."""
    return start(
        PRESENCE_RATE_LIMIT=f"{ALLOWED}/600",
        PRESENCE_PRUNE_INTERVAL=0,
        PRESENCE_WORKER_TIMEOUT=3000,
        PRESENCE_MAX_META_BYTES=8192,
        PRESENCE_HEARTBEAT_INTERVAL=300,
        PRESENCE_TIMEOUT=900,
    )


def test_no_more_reaches_the_store_than_the_rate_allows(strict: Watched, dial: Connect) -> None:
    wire = dial(strict.port, "eve")
    assert wire.call("state", {"channels": [ROOM]})["ok"]
    op = ["state", {"channels": [ROOM]}]
    strict.done()

    forced = [wire.emit(*op) for _ in range(ALLOWED - 1 + 50)]
    batch = wire.call("batch", {"ops": [op] * 100})["results"]
    answers = [answer.get(timeout=PATIENCE) for answer in forced]

    statements = [line for line in strict.done() if line.startswith("store: ")]
    assert sum(answer["ok"] for answer in [*answers, *batch]) == ALLOWED - 1
    assert 0 < len(statements) <= ALLOWED


def test_coming_back_on_the_same_connection_brings_no_new_allowance(
    strict: Watched, dial: Connect
) -> None:
    wire = dial(strict.port, "eve")
    allowed = 0

    for _ in range(3):
        for _ in range(ALLOWED):
            allowed += wire.call("leave", {"channel": ROOM})["ok"]
        wire.leave_orderly()
        wire.connect({"user": "eve"})

    assert allowed == ALLOWED
    assert dial(strict.port, "eve").call("leave", {"channel": ROOM})["ok"]


def test_who_one_is_is_asked_no_more_often_than_the_rate_allows(
    strict: Watched, dial: Connect
) -> None:
    wire = dial(strict.port, connect=False)
    strict.done()

    for _ in range(ALLOWED):
        wire.connect({"user": "eve"})
        wire.leave_orderly()
    wire.connect({"user": "eve"})

    assert "Too many operations" in wire.refused["message"]
    assert strict.done().count("callback: user_loader") == ALLOWED


def test_heartbeats_without_end_cost_the_store_nothing(strict: Watched, dial: Connect) -> None:
    wire = dial(strict.port, "eve")
    assert wire.call("subscribe", {"channel": ROOM})["ok"]
    strict.done()

    beats = [wire.emit("heartbeat", {"positions": {ROOM: ["forged", 7]}}) for _ in range(500)]
    answers = [beat.get(timeout=PATIENCE) for beat in beats]

    assert [line for line in strict.done() if line.startswith("store: ")] == []
    # Only the first is looked at; the others come within the same second, or one or two do not.
    assert sum(answer["stale"] == [ROOM] for answer in answers) < 10


def test_many_who_ask_for_one_channel_at_once_share_the_reads(
    strict: Watched, dial: Connect
) -> None:
    wires = [dial(strict.port, f"u{number}") for number in range(15)]
    strict.done()

    asked = [wire.emit("state", {"channels": [ROOM]}) for wire in wires for _ in range(ALLOWED)]

    assert all(answer.get(timeout=PATIENCE)["ok"] for answer in asked)
    statements = [line for line in strict.done() if line.startswith("store: ")]
    assert len(statements) < len(asked)


def test_subscribing_and_unsubscribing_without_end_keeps_nothing(
    server: Watched, dial: Connect
) -> None:
    wire = dial(server.port, "eve")
    before = server.kept()

    for number in range(50):
        assert wire.call("subscribe", {"channel": f"/mixed/storm-{number}"})["ok"]
        assert wire.call("unsubscribe", {"channel": f"/mixed/storm-{number}"})["ok"]

    after = server.kept()
    for table in ("audiences", "watched", "rooms", "clients"):
        assert after[table] == before[table]


def test_connections_that_come_and_go_keep_nothing(start: Start, dial: Connect) -> None:
    # Whoever is gone has a thread until the next ping would be due.
    server = start(SOCKETIO={"ping_interval": 1})
    dial(server.port).call("state", {"channels": [ROOM]})
    before = server.kept()

    wires = [dial(server.port, "eve" if number % 2 else None) for number in range(60)]
    for wire in wires:
        wire.send_raw('42/presence,["subscribe",{"channel":"/mixed/crowd"}]')
    for wire in wires:
        wire.drop()

    tables = ("clients", "rooms", "audiences", "watched")
    eventually(lambda: all(server.kept()[table] == before[table] for table in tables))
    eventually(lambda: server.kept()["threads"] < before["threads"] + 10)


def test_a_packet_that_announces_many_attachments_makes_the_server_keep_none(
    server: Watched, connect: Connect
) -> None:
    wire, bystander = connect("eve"), connect("ada")
    before = server.kept()["kilobytes"]
    wire.send_raw('459999999-/presence,["enter",{"_placeholder":true,"num":0}]')

    for _ in range(100):
        wire._socket.send_binary(b"x" * 900_000)
    wire.emit("state", {"channels": [ROOM]}).get(timeout=PATIENCE)

    assert server.kept()["kilobytes"] < before + 50_000
    assert bystander.call("state", {"channels": [ROOM]})["ok"]


def test_a_packet_may_announce_as_many_attachments_as_somebody_could_need(
    connect: Connect,
) -> None:
    wire = connect("eve")

    answer = wire.emit_text('["enter",{"channel":{"_placeholder":true,"num":9}}]', *[b"x"] * 10)

    assert answer.get(timeout=PATIENCE)["error"] == "bad_request"


class Deaf:
    """A client that asks and never reads."""

    def __init__(self, port: int, user: str) -> None:
        options = ((socket.SOL_SOCKET, socket.SO_RCVBUF, 4096),)
        url = f"ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket"
        self._socket = websocket.create_connection(url, sockopt=options, timeout=PATIENCE)
        self.send("40/presence," + json.dumps({"user": user}))

    def send(self, text: str) -> None:
        self._socket.send(text)

    def ask(self, event: str, payload: Any) -> None:
        self.send(f"42/presence,1{json.dumps([event, payload])}")

    def close(self) -> None:
        self._socket.shutdown()


@pytest.fixture
def deafen() -> Iterator[Callable[[int], Deaf]]:
    deaf: list[Deaf] = []

    def connect(port: int) -> Deaf:
        deaf.append(Deaf(port, "eve"))
        return deaf[-1]

    yield connect
    for one in deaf:
        one.close()


@pytest.fixture(scope="module")
def generous(start: Start) -> Watched:
    """A server that limits no rate, and looks after its connections often."""
    return start(
        PRESENCE_RATE_LIMIT=None, PRESENCE_MAX_META_BYTES=8192, PRESENCE_WORKER_TIMEOUT=1.5
    )


def crowd(server: Watched, dial: Connect, channel: str) -> list[Wire]:
    """Users whose state is large."""
    wires = [dial(server.port, f"u{number}") for number in range(10)]
    for wire in wires:
        meta = {"text": "y" * 8000}
        assert wire.call("enter", {"channel": channel, "meta": meta})["ok"]
    return wires


def test_one_who_asks_and_does_not_read_is_cut_off(
    generous: Watched, dial: Connect, deafen: Any
) -> None:
    wire = crowd(generous, dial, "/room/20")[0]
    deaf = deafen(generous.port)
    eventually(lambda: generous.kept()["clients"] == 11)
    before = generous.kept()

    def is_cut_off() -> bool:
        # Eight kilobytes ten times, and that often: far more than is kept for anybody.
        with contextlib.suppress(OSError):
            for _ in range(30):
                deaf.ask("state", {"channels": ["/room/20"]})
        return generous.has_logged("it does not read")

    eventually(is_cut_off)
    eventually(lambda: generous.kept()["clients"] == before["clients"] - 1)
    assert generous.kept()["kilobytes"] < before["kilobytes"] + 60_000
    assert wire.call("state", {"channels": ["/room/20"]})["ok"]


def test_one_who_watches_and_does_not_read_is_cut_off(
    generous: Watched, dial: Connect, deafen: Any
) -> None:
    wire = dial(generous.port, "ada")
    deaf = deafen(generous.port)
    deaf.ask("subscribe", {"channel": "/room/30"})
    eventually(lambda: generous.kept()["audiences"] == 1)
    wire.call("enter", {"channel": "/room/30"})

    updates = [
        wire.emit("update", {"channel": "/room/30", "meta": {"n": number, "text": "y" * 8000}})
        for number in range(1200)
    ]

    assert all(answer.get(timeout=3 * PATIENCE)["ok"] for answer in updates)
    eventually(lambda: generous.kept()["audiences"] == 0)


def test_one_who_reads_is_never_cut_off(generous: Watched, dial: Connect) -> None:
    wire, watcher = dial(generous.port, "ada"), dial(generous.port, "bob")
    assert watcher.call("subscribe", {"channel": "/room/40"})["ok"]
    wire.call("enter", {"channel": "/room/40"})

    for number in range(600):
        wire.call("update", {"channel": "/room/40", "meta": {"n": number, "text": "y" * 8000}})

    last = {"n": 599, "text": "y" * 8000}
    watcher.wait_for("diff", lambda diff: diff.get("updated", [{}])[0].get("meta") == last)
    assert not watcher.closed.is_set()
