"""The app's own events to who is here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests
from flask import Flask
from processes import Redis, Server
from wire import Wire

from flask_presence import Presence

Connect = Callable[..., Wire]


def emit(port: int, channel: str, event: str, data: Any, to: str = "present") -> None:
    body = {"channel": channel, "event": event, "data": data, "to": to}
    requests.post(f"http://127.0.0.1:{port}/emit", json=body, timeout=10).raise_for_status()


def heard(wires: list[Wire], event: str) -> list[list[Any]]:
    return [wire.received(event) for wire in wires]


@pytest.mark.parametrize("channel", ["/room/1", "/count/all"])
def test_an_event_reaches_who_is_present_or_who_is_subscribed(
    serve: Callable[..., tuple[int, Flask, Presence]], dial: Connect, channel: str
) -> None:
    port, _, _ = serve()
    ada, bob, eve = dial(port, "ada"), dial(port, "bob"), dial(port, "eve")
    ada.call("enter", {"channel": channel})
    bob.call("subscribe", {"channel": channel})
    for wire in (ada, bob, eve):
        wire.call("enter", {"channel": "/room/99"})

    emit(port, channel, "ping", {"n": 1})
    emit(port, channel, "pong", {"n": 2}, to="subscribed")
    emit(port, "/room/99", "last", None)
    wires = [ada, bob, eve]
    for wire in wires:
        wire.wait_for("last")

    assert heard(wires, "ping") == [[{"n": 1}], [], []]
    assert heard(wires, "pong") == [[], [{"n": 2}], []]


@pytest.mark.parametrize("store", ["redis", "sqlite with a message queue"])
def test_an_event_reaches_the_clients_of_every_process_once(
    spawn: Callable[..., Server], dial: Connect, redis: Redis, store: str
) -> None:
    config: dict[str, Any] = {"PRESENCE_BACKEND": redis.url}
    if store != "redis":
        config = {"SOCKETIO": {"message_queue": redis.url}}
    here, there = spawn(**config), spawn(**config)
    wires = [dial(server.port, "ada") for server in (here, there)]
    for wire in wires:
        wire.call("enter", {"channel": "/room/1"})
        wire.call("subscribe", {"channel": "/room/1"})

    emit(here.port, "/room/1", "ping", {"n": 1})
    emit(here.port, "/room/1", "ping", [2], to="subscribed")
    emit(here.port, "/room/1", "last", None)
    for wire in wires:
        wire.wait_for("last")

    assert heard(wires, "ping") == [[{"n": 1}, [2]]] * 2


@pytest.mark.parametrize(
    ("event", "data", "to", "why"),
    [
        ("diff", {}, "present", "of presence itself"),
        ("", {}, "present", "no event name"),
        (7, {}, "present", "no event name"),
        ("ping", {"n": float("nan")}, "present", "no finite JSON"),
        ("ping", {"n": object()}, "present", "no finite JSON"),
        ("ping", 10**400, "present", "number that is too large"),
        ("ping", "\ud800", "present", "no valid UTF-8"),
        ("ping", [[[[[[[[[]]]]]]]]], "present", "nested deeper than 8"),
        ("ping", {}, "all", "'present' or 'subscribed'"),
    ],
)
def test_what_cannot_be_sent_is_refused(
    make_app: Callable[..., tuple[Flask, Presence]], event: Any, data: Any, to: Any, why: str
) -> None:
    app, presence = make_app()

    with app.app_context(), pytest.raises(ValueError, match=why):
        presence.channel("/room/1").emit(event, data, to=to)


def test_what_is_sent_may_be_eight_deep(
    make_app: Callable[..., tuple[Flask, Presence]],
) -> None:
    app, presence = make_app()

    with app.app_context():
        presence.channel("/room/1").emit("ping", [[[[[[[[1]]]]]]]])
