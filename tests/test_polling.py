"""Clients without WebSocket: the same, by long-polling over plain HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from polling import Polling
from processes import Server
from wire import Wire


@pytest.fixture(scope="module", params=["threading", "gevent"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    config = {
        "instance_path": str(tmp_path_factory.mktemp("instance")),
        "SOCKETIO": {"async_mode": request.param},
    }
    server = Server(config)
    yield server
    server.stop()


@pytest.fixture
def poll(server: Server) -> Iterator[Callable[..., Polling]]:
    opened: list[Polling] = []

    def connect(user: str | None = None) -> Polling:
        opened.append(Polling(server.port, user))
        return opened[-1]

    yield connect
    for polling in opened:
        polling.close()


def test_a_polling_client_is_greeted(poll: Callable[..., Polling]) -> None:
    polling = poll("ada")

    hello = polling.wait_for("hello")

    assert hello == {"client_id": polling.client_id, "user_id": "ada", "heartbeat_interval": 25}


def test_one_batch_for_twenty_channels_arrives_whole(
    server: Server, poll: Callable[..., Polling], dial: Callable[..., Wire]
) -> None:
    channels = [f"/room/{number}" for number in range(1, 21)]
    ops = [[event, {"channel": name}] for name in channels for event in ("subscribe", "enter")]
    polling, witness = poll("ada"), dial(server.port, "bob")

    results = polling.call("batch", {"ops": ops})["results"]
    states = witness.call("state", {"channels": channels})["states"]
    diffs = [polling.wait_for("diff") for _ in channels]

    assert [result["state"]["revision"] for result in results[::2]] == [0] * 20
    assert results[1::2] == [{"ok": True}] * 20
    assert [[user["id"] for user in states[name]["users"]] for name in channels] == [["ada"]] * 20
    assert sorted(diff["channel"] for diff in diffs) == sorted(channels)
    assert {diff["entered"][0]["id"] for diff in diffs} == {"ada"}


def test_a_batch_means_the_same_over_either_transport(
    poll: Callable[..., Polling], server: Server, dial: Callable[..., Wire]
) -> None:
    polling, wire = poll("ada"), dial(server.port, "ada")

    def ops(channel: str) -> list[list[Any]]:
        name = {"channel": channel}
        return [
            ["subscribe", name],
            ["enter", name | {"meta": {"a": "é\u2028"}}],
            ["state", {"channels": [channel, "/nowhere/1"]}],
            ["update", name | {"meta": {}}],
            ["enter", {"channel": "/staff/1"}],
            ["leave", name],
            ["update", name | {"meta": {}}],
        ]

    one = polling.call("batch", {"ops": ops("/room/101")})
    other = wire.call("batch", {"ops": ops("/room/102")})

    def plain(answer: Any) -> Any:
        epoch = answer["results"][2]["states"]
        (epoch,) = [state["epoch"] for state in epoch.values() if state is not None]
        text = json.dumps(answer).replace(epoch, "EPOCH")
        return json.loads(text.replace("/room/101", "/room").replace("/room/102", "/room"))

    assert plain(one) == plain(other)


def test_a_polling_client_follows_what_others_do(
    poll: Callable[..., Polling], server: Server, dial: Callable[..., Wire]
) -> None:
    polling, wire, channel = poll(), dial(server.port, "bob"), {"channel": "/room/201"}
    assert polling.call("subscribe", channel)["state"]["epoch"] is None

    wire.call("enter", channel)
    entered = polling.wait_for("diff")
    wire.call("leave", channel)
    left = polling.wait_for("diff")

    assert (entered["revisions"], entered["entered"][0]["id"]) == ([[1, 1]], "bob")
    assert (left["revisions"], left["left"]) == ([[2, 2]], [{"id": "bob", "revision": 2}])


def test_others_follow_what_a_polling_client_does(
    poll: Callable[..., Polling], server: Server, dial: Callable[..., Wire]
) -> None:
    polling, wire, channel = poll("ada"), dial(server.port, "bob"), {"channel": "/room/301"}
    wire.call("subscribe", channel)

    assert polling.call("enter", channel | {"meta": {"a": 1}}) == {"ok": True}
    entered = wire.wait_for("diff")
    assert polling.call("leave", channel) == {"ok": True}
    left = wire.wait_for("diff")

    assert entered["entered"] == [{"id": "ada", "info": {}, "meta": {"a": 1}, "revision": 1}]
    assert left["left"] == [{"id": "ada", "revision": 2}]


def test_a_polling_client_that_disconnects_leaves_at_once(
    poll: Callable[..., Polling], server: Server, dial: Callable[..., Wire]
) -> None:
    polling, wire, channel = poll("ada"), dial(server.port, "bob"), {"channel": "/room/401"}
    wire.call("subscribe", channel)
    polling.call("enter", channel)
    wire.wait_for("diff")

    began = time.monotonic()
    polling.post("41/presence,")
    left = wire.wait_for("diff")

    assert left["left"] == [{"id": "ada", "revision": 2}]
    assert time.monotonic() - began < 3, "it waited for the grace, which is 5 s"


def test_a_bad_payload_by_polling_is_refused(poll: Callable[..., Polling]) -> None:
    polling = poll("ada")

    answers = [
        polling.call("enter"),
        polling.call("enter", {"channel": "/room/501", "meta": {"a": float("inf")}}),
        polling.call("batch", {"ops": [["heartbeat", None]]}),
    ]

    assert [answer["error"] for answer in answers] == ["bad_request"] * 3
    assert polling.call("heartbeat") == {"ok": True, "stale": [], "lost": []}
