"""Somebody who wants to be somebody else, or to act for them."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest
from watched import Connect, Watched
from wire import Wire, eventually

_numbers = count(1)

ENVIRON = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_COOKIE": "session=ada"}


@pytest.fixture
def channel() -> str:
    return f"/room/{next(_numbers)}"


@pytest.fixture
def ada(connect: Connect, channel: str) -> Wire:
    wire = connect("ada")
    assert wire.call("enter", {"channel": channel, "meta": {"mine": 1}})["ok"]
    return wire


@pytest.fixture
def eve(connect: Connect) -> Wire:
    return connect("eve")


def users_in(wire: Wire, channel: str) -> dict[str, Any]:
    state = wire.call("state", {"channels": [channel]})["states"][channel]
    return {user["id"]: user["meta"] for user in state["users"]}


@pytest.mark.parametrize("event", ["connect", "disconnect"])
def test_a_connect_or_disconnect_of_a_client_s_making_is_nobody_s(
    server: Watched, eve: Wire, ada: Wire, channel: str, event: str
) -> None:
    server.done()

    for args in (
        [],
        [ENVIRON, {"user": "ada"}],
        [{"user": "ada"}],
        ["client disconnect"],
        [ada.sid],
    ):
        eve.send_raw(f"42/presence,9{json.dumps([event, *args])}")
    eve.await_quiet(channel)
    assert eve.call("enter", {"channel": channel})["ok"]

    assert users_in(eve, channel) == {"ada": {"mine": 1}, "eve": {}}
    assert "callback: user_loader" not in server.done()
    assert [hello["user_id"] for hello in eve.received("hello")] == ["eve"]


def test_other_people_s_client_and_user_ids_are_no_keys(eve: Wire, ada: Wire, channel: str) -> None:
    for name in ("client_id", "sid", "id", "user_id", "user", "user_ids", "to", "room"):
        for value in (ada.sid, "ada", ["ada", ada.sid]):
            for event in ("leave", "unsubscribe", "update", "enter"):
                eve.call(event, {"channel": channel, "meta": {"stolen": 1}, name: value})
    eve.call("leave", {"channel": channel})

    assert users_in(eve, channel) == {"ada": {"mine": 1}}
    assert ada.call("update", {"channel": channel, "meta": {"mine": 2}})["ok"]
    assert not ada.received("evicted")


def test_a_sid_or_a_room_of_the_server_s_is_no_channel(eve: Wire, ada: Wire, channel: str) -> None:
    rooms = [ada.sid, f"/{ada.sid}", f"presence:full:{channel}", f"presence:present:{channel}"]

    for name in rooms:
        for event in ("subscribe", "enter"):
            assert eve.call(event, {"channel": name})["error"] in ("bad_request", "not_found")


def test_a_channel_named_like_a_room_or_a_sid_is_a_channel_like_any(
    connect: Connect, eve: Wire, ada: Wire, channel: str
) -> None:
    name, watcher = f"/mixed/presence:full:{channel[1:]}".replace("/room", ":room"), connect()
    for lure in (f"/mixed/{ada.sid}", name.replace("room/", "room:")):
        assert eve.call("subscribe", {"channel": lure})["ok"]
        assert eve.call("enter", {"channel": lure})["ok"]
    assert watcher.call("subscribe", {"channel": channel})["ok"]

    assert ada.call("update", {"channel": channel, "meta": {"mine": 2}})["ok"]
    watcher.wait_for("diff", lambda diff: diff["channel"] == channel)
    eve.await_quiet(channel)

    assert channel not in [diff["channel"] for diff in eve.received("diff")]


def test_events_of_the_server_s_own_are_not_passed_on(eve: Wire, ada: Wire, channel: str) -> None:
    for event in ("diff", "state", "evicted", "hello", "message", "*", "ping"):
        eve.call(event, {"channel": channel, "reason": "evicted", "users": []})
    ada.await_quiet(channel)

    assert not ada.received("evicted")
    assert not ada.received("ping")
    assert users_in(ada, channel) == {"ada": {"mine": 1}}


def test_acknowledgements_that_nobody_asked_for_do_nothing(
    server: Watched, eve: Wire, ada: Wire, channel: str
) -> None:
    for number in ("0", "1", "7", "9" * 99, ""):
        eve.send_raw(f'43/presence,{number}[{{"ok":true}}]')
        eve.send_raw(f"43/presence,{number}[]")
    eve.send_raw('461-/presence,0[{"_placeholder":true,"num":0}]')
    eve._socket.send_binary(b"\x00")

    assert eve.call("enter", {"channel": channel})["ok"]
    assert users_in(ada, channel) == {"ada": {"mine": 1}, "eve": {}}
    assert not server.has_logged("The presence event")


def test_a_namespace_with_a_query_string_is_the_same_one(
    eve: Wire, ada: Wire, channel: str
) -> None:
    eve.send_raw('40/presence?user=ada,{"user":"ada"}')
    eve.send_raw(f'42/presence?user=ada,["enter",{{"channel":"{channel}"}}]')

    eventually(lambda: set(users_in(ada, channel)) == {"ada", "eve"})
    assert [hello["user_id"] for hello in eve.received("hello")] == ["eve"]


@pytest.mark.parametrize("namespace", ["/", "/presence/", "/Presence", "/presence2", "//presence"])
def test_nothing_is_to_be_had_in_another_namespace(
    connect: Connect, ada: Wire, channel: str, namespace: str
) -> None:
    wire = connect(connect=False)

    wire.send_raw(f'40{namespace},{{"user":"ada"}}')
    wire.send_raw(f'42{namespace},1["leave",{{"channel":"{channel}"}}]')
    wire.connect({"user": "eve"})

    assert users_in(wire, channel) == {"ada": {"mine": 1}}


def test_whoever_joins_twice_stays_who_they_are(eve: Wire, ada: Wire, channel: str) -> None:
    eve.send_raw('40/presence,{"user":"ada"}')
    assert eve.call("enter", {"channel": channel, "meta": {"eve": 1}})["ok"]

    assert users_in(ada, channel) == {"ada": {"mine": 1}, "eve": {"eve": 1}}


@pytest.mark.parametrize(
    "auth", ["5", "[]", '"ada"', "[1]", '{"user":["ada"]}', '{"user":null}', "true"]
)
def test_an_auth_that_is_none_makes_nobody_of_anybody(
    connect: Connect, ada: Wire, channel: str, auth: str
) -> None:
    wire = connect(connect=False)

    wire.send_raw(f"40/presence,{auth}")

    assert wire.wait_for("hello")["user_id"] is None
    assert wire.call("enter", {"channel": channel})["error"] == "login_required"
