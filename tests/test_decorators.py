"""The decorators for the app's own handlers."""

from __future__ import annotations

from typing import Any

import pytest
from flask import request

from flask_presence import remove_presence, signals, touch_presence
from flask_presence.backends.memory import MemoryBackend


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(make_app: Any, clock: Clock) -> Any:
    """A client in the app's own namespace, which entered /room/1 under its session id."""
    app, presence = make_app(PRESENCE_BACKEND=MemoryBackend(clock=clock), PRESENCE_PRUNE_INTERVAL=0)
    socketio = app.extensions["socketio"]
    heard: list[Any] = []

    @socketio.on("enter", namespace="/chat")
    def enter() -> str:
        presence.channel("/room/1").enter("ada", client_id=request.sid)
        return str(request.sid)

    @socketio.on("say", namespace="/chat")
    @touch_presence
    def say(text: str) -> None:
        heard.append(text)

    @socketio.on("bye", namespace="/chat")
    @remove_presence
    def bye() -> None:
        heard.append("bye")

    client = socketio.test_client(app, namespace="/chat", auth={"user": "ada"})
    client.app_presence, client.heard = presence, heard
    return client


def is_present(client: Any, channel: str = "/room/1") -> bool:
    with client.app.app_context():
        return "ada" in client.app_presence.channel(channel)


def test_whatever_arrives_keeps_the_client_where_it_was_entered(client: Any, clock: Clock) -> None:
    client.emit("enter", namespace="/chat")

    clock.now += 50
    client.emit("say", "hello", namespace="/chat")
    clock.now += 50

    assert is_present(client)
    assert client.heard == ["hello"]
    clock.now += 11
    assert not is_present(client)


def test_a_heartbeat_stops_before_the_handler(client: Any, clock: Clock) -> None:
    client.emit("enter", namespace="/chat")

    clock.now += 50
    client.emit("say", "heartbeat", namespace="/chat")
    clock.now += 50

    assert is_present(client)
    assert client.heard == []


def test_removing_leaves_everything_that_the_connection_entered(client: Any) -> None:
    client.connect(namespace="/presence", auth={"user": "ada"})
    client.emit("enter", namespace="/chat")
    client.emit("enter", {"channel": "/room/2"}, namespace="/presence")
    assert is_present(client)
    assert is_present(client, "/room/2")

    client.emit("bye", namespace="/chat")

    assert not is_present(client)
    assert not is_present(client, "/room/2")
    assert client.heard == ["bye"]


def test_a_presence_client_that_stays_connected_is_told_that_it_was_removed(client: Any) -> None:
    client.connect(namespace="/presence", auth={"user": "ada"})
    client.emit("enter", {"channel": "/room/2"}, namespace="/presence")
    reasons: list[Any] = []

    def left(sender: Any, channel: str, user_id: str, change: Any) -> None:
        reasons.append((channel, user_id, change.reason))

    with signals.user_left.connected_to(left, sender=client.app):
        client.emit("bye", namespace="/chat")

    assert reasons == [("/room/2", "ada", "left")]
    received = client.get_received("/presence")
    assert [event["args"] for event in received if event["name"] == "evicted"] == [
        [{"channel": "/room/2", "reason": "evicted"}]
    ]


def test_a_client_that_entered_nothing_is_left_alone(client: Any) -> None:
    client.emit("say", "hello", namespace="/chat")
    client.emit("bye", namespace="/chat")

    assert client.heard == ["hello", "bye"]
