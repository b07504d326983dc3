"""The test kit: what an app's own tests can rely on, and what they are told where they fail."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask_socketio import SocketIO, SocketIOTestClient, emit
from server import TestUser as Person
from wire import Wire

from flask_presence import ChannelConfig, ChannelNotFound, Presence, User, touch_presence
from flask_presence.signals import presence_changed
from flask_presence.testing import PresenceKit, Refused
from flask_presence.testing.fixtures import presence_kit as presence_kit

MakeApp = Callable[..., tuple[Flask, Presence]]

ROOM, MIXED, COUNT, STAFF = "/room/1", "/mixed/a", "/count/a", "/staff/a"


@pytest.fixture
def made(make_app: MakeApp) -> tuple[Flask, Presence]:
    return make_app()


@pytest.fixture
def app(made: tuple[Flask, Presence]) -> Flask:
    return made[0]


@pytest.fixture
def presence(made: tuple[Flask, Presence]) -> Presence:
    return made[1]


@pytest.fixture
def kit(app: Flask) -> Iterator[PresenceKit]:
    with PresenceKit(app) as kit:
        yield kit


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was started or slept through, none of which the kit may do."""
    done: list[str] = []
    monkeypatch.setattr(threading.Thread, "start", lambda self: done.append(self.name))
    monkeypatch.setattr(time, "sleep", lambda seconds: done.append(f"sleep {seconds}"))
    return done


# Who connects


def test_a_client_connects_as_a_user_object(kit: PresenceKit) -> None:
    user = Person({"user": "ada", "info": {"name": "Ada"}, "groups": ["staff"]})

    client = kit.connect(user)
    client.enter(STAFF)

    assert client.user_id == "ada"
    assert kit.state(STAFF).users == (User("ada", {"name": "Ada"}, {}),)


def test_a_client_connects_by_what_the_user_loader_gets(kit: PresenceKit) -> None:
    client = kit.connect(auth={"user": "ada", "info": {"name": "Ada"}})

    client.enter(ROOM)

    assert kit.state(ROOM).users == (User("ada", {"name": "Ada"}, {}),)


def test_a_client_connects_as_the_flask_test_client_that_is_signed_in(
    app: Flask, kit: PresenceKit
) -> None:
    browser = app.test_client()
    browser.environ_base["HTTP_X_AUTH"] = json.dumps({"user": "ada"})

    client = kit.connect(flask_test_client=browser)

    assert client.user_id == "ada"


def test_a_client_without_a_user_is_anonymous(kit: PresenceKit) -> None:
    client = kit.connect()

    client.enter(MIXED)

    assert client.user_id is None
    kit.assert_exactly(MIXED, anonymous=1)


def test_the_user_of_one_connection_is_not_that_of_the_next(kit: PresenceKit) -> None:
    kit.connect("ada")

    assert kit.connect().user_id is None


def test_a_plain_test_client_beside_the_kit_goes_by_the_user_loader(
    app: Flask, kit: PresenceKit
) -> None:
    kit.connect("ada")
    socket = app.extensions["socketio"].test_client(app, namespace="/presence")

    answer = socket.emit("enter", {"channel": ROOM}, namespace="/presence", callback=True)

    assert answer["error"] == "login_required"


def test_a_user_and_what_the_loader_gets_are_not_given_together(kit: PresenceKit) -> None:
    with pytest.raises(TypeError, match="a user, or what tells the user_loader"):
        kit.connect("ada", auth={"user": "bob"})


def test_a_loader_that_raises_is_the_cause_of_the_refusal(kit: PresenceKit) -> None:
    with pytest.raises(Refused, match="the loader was told to raise") as refusal:
        kit.connect(auth={"user": "ada", "raises": True})

    assert refusal.value.code == "connection_refused"
    assert isinstance(refusal.value.__cause__, RuntimeError)


def test_an_object_that_is_no_user_is_refused_with_what_it_lacks(kit: PresenceKit) -> None:
    with pytest.raises(Refused, match="needs get_id"):
        kit.connect(object())


# What a client does and sees


def test_a_subscription_shows_who_enters_updates_and_leaves(kit: PresenceKit) -> None:
    ada, bob, eve = kit.connect("ada"), kit.connect("bob"), kit.connect("eve")
    seen = bob.subscribe(ROOM)

    ada.enter(ROOM, {"typing": True})
    eve.enter(ROOM)
    before = seen.users
    ada.update(ROOM, {"typing": False})
    eve.leave(ROOM)

    assert before == [User("ada", {"name": "ada"}, {"typing": True}), User("eve", {"name": "eve"})]
    assert seen.users == [User("ada", {"name": "ada"}, {"typing": False})]
    assert (seen.user_ids, seen.count, seen.anonymous, seen.count_only) == (["ada"], 1, 0, False)


def test_a_subscription_begins_with_who_is_there_already(kit: PresenceKit) -> None:
    kit.connect("ada").enter(ROOM)

    assert kit.connect("bob").subscribe(ROOM).user_ids == ["ada"]


def test_a_user_is_looked_up_in_a_subscription_by_object_or_id(kit: PresenceKit) -> None:
    ada = Person({"user": "ada"})
    kit.connect(ada).enter(ROOM, {"a": 1})

    seen = kit.connect("bob").subscribe(ROOM)

    assert ada in seen
    assert "bob" not in seen
    assert seen[ada].meta == seen["ada"].meta == {"a": 1}
    with pytest.raises(KeyError, match=r"'bob' is not seen in /room/1, only \['ada'\] are"):
        seen["bob"]


def test_a_count_only_channel_shows_a_client_no_identities(kit: PresenceKit) -> None:
    seen = kit.connect().subscribe(COUNT)

    kit.connect("ada").enter(COUNT)
    kit.connect().enter(COUNT)

    assert (seen.users, seen.count, seen.anonymous, seen.count_only) == ([], 1, 1, True)
    kit.assert_exactly(COUNT, "ada", anonymous=1)


def test_who_unsubscribed_sees_no_more(kit: PresenceKit) -> None:
    bob = kit.connect("bob")
    seen = bob.subscribe(ROOM)

    bob.unsubscribe(ROOM)
    kit.connect("ada").enter(ROOM)

    assert seen.user_ids == []
    assert bob.subscriptions == {}


def test_the_apps_own_events_are_kept(app: Flask, kit: PresenceKit, presence: Presence) -> None:
    ada, bob = kit.connect("ada"), kit.connect("bob")
    ada.enter(ROOM)
    bob.subscribe(ROOM)

    with app.app_context():
        channel = presence.channel(ROOM)
        channel.emit("ping", {"n": 1})
        channel.emit("pong", to="subscribed")

    assert ada.received("ping") == [{"n": 1}]
    assert ada.received() == [("ping", {"n": 1})]
    assert bob.received() == [("pong", None)]


def test_what_the_server_does_is_seen_too(app: Flask, kit: PresenceKit, presence: Presence) -> None:
    seen = kit.connect("bob").subscribe(ROOM)

    with app.app_context():
        presence.channel(ROOM).enter("job", client_id="import-7")

    assert seen.user_ids == ["job"]


def test_views_see_the_same_presence(app: Flask, kit: PresenceKit) -> None:
    kit.connect("ada").enter(ROOM)

    states = app.test_client().get(f"/presence/state?channel={ROOM}").json["states"]

    assert [user["id"] for user in states[ROOM]["users"]] == ["ada"]


def test_another_namespace_of_the_same_connection_is_within_reach(make_app: MakeApp) -> None:
    app, _ = make_app()

    @app.extensions["socketio"].on("message")
    @touch_presence
    def message(data: Any) -> None: ...

    @app.extensions["socketio"].on("echo")
    def echo(data: Any) -> None:
        emit("echo", data)

    with PresenceKit(app) as kit:
        ada = kit.connect("ada")
        ada.enter(ROOM)
        kit.clock.advance(59)
        ada.socket.connect(namespace="/")
        ada.socket.send("heartbeat", namespace="/")
        ada.socket.emit("echo", 1, namespace="/")

        kit.clock.advance(59)
        kit.assert_present(ROOM, "ada")
        kit.clock.advance(2)
        kit.assert_absent(ROOM, "ada")
        assert ada.received() == []
        assert [packet["args"] for packet in ada.socket.get_received("/")] == [[1]]


# Refusals


def test_when_somebody_was_last_seen_goes_by_the_clock_of_the_kit(make_app: MakeApp) -> None:
    app, presence = make_app(PRESENCE_LAST_SEEN_RETENTION=600)
    with PresenceKit(app) as kit, app.app_context():
        ada = kit.connect(auth={"user": "ada"})
        ada.enter(ROOM)

        ada.disconnect()
        at_once = presence.last_seen(["ada"])["ada"]
        kit.clock.advance(90)
        later = presence.last_seen(["ada"])["ada"]
        kit.clock.advance(600)
        in_the_end = presence.last_seen(["ada"])["ada"]

    assert at_once is not None
    assert later == at_once
    assert in_the_end is None


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        (lambda kit: kit.connect().enter(ROOM), "login_required"),
        (lambda kit: kit.connect("ada").enter(STAFF), "not_found"),
        (lambda kit: kit.connect("ada").subscribe(STAFF), "not_found"),
        (lambda kit: kit.connect("ada").enter("room"), "bad_request"),
        (lambda kit: kit.connect("ada").update(ROOM, {}), "not_present"),
        (lambda kit: kit.connect("ada").enter("/broken/1"), "unavailable"),
        (lambda kit: kit.connect("ada").call("nonsense"), "bad_request"),
        (lambda kit: [kit.connect(name).enter("/small/1") for name in "abc"], "channel_full"),
    ],
)
def test_a_refusal_carries_the_code_of_the_wire(
    kit: PresenceKit, ask: Callable[[PresenceKit], object], code: str
) -> None:
    with pytest.raises(Refused, match=code) as refusal:
        ask(kit)

    assert refusal.value.code == code


def test_a_refusal_says_what_was_refused_and_why(kit: PresenceKit) -> None:
    with pytest.raises(Refused) as refusal:
        kit.connect().enter(ROOM)

    assert str(refusal.value) == "enter /room/1: login_required (Only users may enter /room/1.)"
    assert refusal.value.message == "Only users may enter /room/1."
    assert refusal.value.retry_after is None


def test_who_was_refused_a_subscription_has_none(kit: PresenceKit) -> None:
    ada = kit.connect("ada")

    with pytest.raises(Refused):
        ada.subscribe(STAFF)

    assert ada.subscriptions == {}


def test_the_rate_limit_goes_by_the_clock(make_app: MakeApp) -> None:
    with PresenceKit(make_app(PRESENCE_RATE_LIMIT="2/10")[0]) as kit:
        ada = kit.connect("ada")
        ada.enter(ROOM)
        ada.leave(ROOM)

        with pytest.raises(Refused, match="rate_limited") as refusal:
            ada.enter(ROOM)
        kit.clock.advance(10)
        ada.enter(ROOM)

    assert refusal.value.retry_after == 10


# Coming and going in time


def test_who_disconnects_leaves_at_once(kit: PresenceKit) -> None:
    ada = kit.connect("ada")
    seen = kit.connect("bob").subscribe(ROOM)
    ada.enter(ROOM)

    ada.disconnect()

    assert seen.user_ids == []
    assert not ada.is_connected
    assert kit.changes[-1].reason == "left"


def test_who_drops_is_there_until_the_grace_is_over(kit: PresenceKit) -> None:
    ada = kit.connect("ada")
    seen = kit.connect("bob").subscribe(ROOM)
    ada.enter(ROOM)

    ada.drop()
    kit.clock.advance(4.9)
    before = seen.user_ids
    kit.clock.advance(0.1)

    assert (before, seen.user_ids) == (["ada"], [])


def test_who_is_back_within_the_grace_was_never_seen_leaving(kit: PresenceKit) -> None:
    ada = kit.connect("ada")
    ada.enter(ROOM, {"a": 1})
    first = ada.client_id

    ada.drop()
    kit.clock.advance(4)
    ada.reconnect()
    kit.clock.advance(10)

    assert ada.client_id != first
    assert [change.kind for change in kit.changes] == ["entered"]
    assert kit.state(ROOM).users[0].meta == {"a": 1}


def test_a_client_that_comes_back_learns_what_it_missed(kit: PresenceKit) -> None:
    bob = kit.connect("bob")
    seen = bob.subscribe(ROOM)
    bob.drop()
    kit.connect("ada").enter(ROOM)
    missed = seen.user_ids

    bob.reconnect()

    assert (missed, seen.user_ids) == ([], ["ada"])
    assert bob.subscriptions == {ROOM: seen}


def test_a_client_that_is_connected_reconnects_by_dropping_first(kit: PresenceKit) -> None:
    ada = kit.connect("ada")
    ada.enter(ROOM)

    ada.reconnect()

    assert [change.kind for change in kit.changes] == ["entered"]


def test_a_second_tab_keeps_a_user_there(kit: PresenceKit) -> None:
    one, other = kit.connect("ada"), kit.connect("ada")
    one.enter(ROOM)
    other.enter(ROOM)

    one.disconnect()
    kit.assert_exactly(ROOM, "ada")
    other.disconnect()
    kit.assert_exactly(ROOM)


def test_who_is_silent_for_too_long_is_out_and_lost(kit: PresenceKit) -> None:
    ada = kit.connect("ada")
    ada.enter(ROOM)

    kit.clock.advance(60)
    kit.assert_present(ROOM, "ada")
    kit.clock.advance(1)

    kit.assert_absent(ROOM, "ada")
    assert kit.changes[-1].reason == "timeout"
    assert ada.heartbeat() == ([], [ROOM])
    ada.enter(ROOM)
    kit.clock.advance(2)
    assert ada.heartbeat().lost == []


def test_a_heartbeat_keeps_a_client_there(kit: PresenceKit) -> None:
    ada = kit.connect("ada")
    ada.enter(ROOM)

    for _ in range(3):
        kit.clock.advance(59)
        ada.heartbeat()

    kit.assert_present(ROOM, "ada")


def test_a_client_that_beats_is_there_until_it_falls_silent(kit: PresenceKit) -> None:
    ada = kit.connect("ada", beats=True)
    ada.enter(ROOM)

    kit.clock.advance(600)
    kit.assert_present(ROOM, "ada")
    ada.beats = False
    kit.clock.advance(61)
    kit.assert_absent(ROOM, "ada")


def test_a_client_that_is_gone_beats_no_more(kit: PresenceKit) -> None:
    ada = kit.connect("ada", beats=True)
    ada.enter(ROOM)

    ada.drop()
    kit.clock.advance(100)

    kit.assert_absent(ROOM, "ada")


def test_what_the_server_entered_is_out_when_its_timeout_is_over(
    app: Flask, kit: PresenceKit, presence: Presence
) -> None:
    seen = kit.connect("bob", beats=True).subscribe(ROOM)
    with app.app_context():
        presence.channel(ROOM).enter("job", client_id="import-7")

    kit.clock.advance(59)
    before = seen.user_ids
    kit.clock.advance(1)

    assert (before, seen.user_ids) == (["job"], [])


def test_while_a_process_drains_nobody_is_seen_leaving(
    app: Flask, kit: PresenceKit, presence: Presence
) -> None:
    ada = kit.connect("ada")
    ada.enter(ROOM)

    with app.app_context():
        presence.drain()
    ada.drop()
    kit.clock.advance(14)
    kit.assert_present(ROOM, "ada")
    kit.clock.advance(2)

    kit.assert_absent(ROOM, "ada")
    assert kit.changes[-1].reason == "timeout"


def test_what_is_due_while_the_clock_moves_happens_in_the_order_of_time(
    app: Flask, kit: PresenceKit, presence: Presence
) -> None:
    ada = kit.connect("ada")
    with app.app_context():
        presence.channel(ROOM).enter("job", client_id="import-7")
    kit.clock.advance(2)
    ada.enter(ROOM)

    for seconds in (10, 90):
        kit.clock.advance(seconds)

    assert [change.user_id for change in kit.changes if change.kind == "left"] == ["job", "ada"]


def test_steps_of_the_clock_add_up_exactly(make_app: MakeApp) -> None:
    with PresenceKit(make_app(PRESENCE_LEAVE_GRACE=0.3)[0]) as kit:
        for number in range(100):
            name = f"/room/{number}"
            ada = kit.connect("ada")
            ada.enter(name)
            ada.drop()

            kit.clock.advance(0.2)
            kit.assert_present(name, "ada")
            kit.clock.advance(0.1)
            kit.assert_absent(name, "ada")


def test_the_clock_begins_today_and_is_read_by_calling_it(kit: PresenceKit) -> None:
    begin = kit.clock()

    kit.clock.advance(3600)

    assert 0 <= time.time() - begin < 600
    assert kit.clock() - begin == 3600


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_the_clock_goes_forward_alone(kit: PresenceKit, seconds: float) -> None:
    with pytest.raises(ValueError, match="goes forward"):
        kit.clock.advance(seconds)


def test_quick_leases_hold_while_the_clock_moves(make_app: MakeApp) -> None:
    with PresenceKit(make_app(PRESENCE_WORKER_TIMEOUT=0.3)[0]) as kit:
        ada = kit.connect("ada", beats=True)
        ada.enter(ROOM)

        kit.clock.advance(100)

        assert [change.kind for change in kit.changes] == ["entered"]


# What the server does to clients


def test_an_evicted_client_is_told_and_sees_nobody(
    app: Flask, kit: PresenceKit, presence: Presence
) -> None:
    ada = kit.connect("ada")
    kit.connect("bob").enter(ROOM)
    ada.enter(ROOM)
    seen = ada.subscribe(ROOM)

    with app.app_context():
        presence.evict("ada")

    assert (seen.users, seen.count) == ([], 0)
    assert seen.evicted == "evicted"
    assert ada.evicted == {ROOM: "evicted"}
    assert ada.subscriptions == {}


def test_who_comes_back_after_an_eviction_is_no_longer_evicted(
    app: Flask, kit: PresenceKit, presence: Presence
) -> None:
    ada = kit.connect("ada")
    ada.subscribe(ROOM)
    with app.app_context():
        presence.evict("ada")

    ada.enter(ROOM)
    seen = ada.subscribe(ROOM)

    assert (seen.user_ids, seen.evicted, ada.evicted) == (["ada"], None, {})


def test_who_was_evicted_does_not_enter_again_by_coming_back(
    app: Flask, kit: PresenceKit, presence: Presence
) -> None:
    ada = kit.connect("ada")
    ada.enter(ROOM)
    with app.app_context():
        presence.evict("ada")

    ada.reconnect()

    kit.assert_exactly(ROOM)


def test_a_reloaded_user_is_asked_for_anew(make_app: MakeApp) -> None:
    app, presence = make_app()
    user = Person({"user": "ada"})
    with PresenceKit(app) as kit:
        ada = kit.connect(user)
        ada.enter(ROOM)

        user.groups = ["staff"]
        with app.app_context():
            presence.reload(user)
        was_connected = ada.is_connected
        ada.reconnect()
        ada.enter(STAFF)

        assert not was_connected
        kit.assert_present(STAFF, user)
        assert [change.kind for change in kit.changes] == ["entered", "entered"]


def test_who_may_no_longer_enter_is_told_so_on_coming_back(make_app: MakeApp) -> None:
    app, _ = make_app()
    user = Person({"user": "ada", "groups": ["staff"]})
    with PresenceKit(app) as kit:
        ada = kit.connect(user)
        ada.enter(STAFF)
        ada.subscribe(STAFF)

        user.groups = []
        with pytest.raises(Refused, match="enter /staff/a: not_found"):
            ada.reconnect()

        assert ada.is_connected


def test_a_config_is_remembered_for_as_long_as_in_production(make_app: MakeApp) -> None:
    app, presence = make_app()
    open_to_all = {"public": True}

    @presence.channel_config("/door/<name>")
    def door(name: str) -> ChannelConfig:
        return ChannelConfig(**open_to_all)

    with PresenceKit(app) as kit:
        ada = kit.connect("ada", beats=True)
        ada.enter("/door/1")
        open_to_all.clear()

        kit.clock.advance(119)
        kit.assert_present("/door/1", "ada")
        kit.clock.advance(30)

        kit.assert_absent("/door/1", "ada")
        assert ada.evicted == {"/door/1": "forbidden"}


def test_a_channel_that_turns_count_only_is_seen_turning(make_app: MakeApp) -> None:
    app, presence = make_app()
    config = {"public": True, "count_only": False}

    @presence.channel_config("/door/<name>")
    def door(name: str) -> ChannelConfig:
        return ChannelConfig(**config)

    with PresenceKit(app) as kit:
        kit.connect("ada").enter("/door/1")
        seen = kit.connect("bob").subscribe("/door/1")
        before = seen.user_ids

        config["count_only"] = True
        with app.app_context():
            presence.forget_config("/door/1")

        assert before == ["ada"]
        assert (seen.users, seen.count, seen.count_only) == ([], 1, True)


def test_a_channel_that_was_forgotten_is_followed_into_its_next_life(kit: PresenceKit) -> None:
    ada = kit.connect("ada", beats=True)
    seen = kit.connect("bob", beats=True).subscribe(ROOM)
    ada.enter(ROOM)
    ada.leave(ROOM)
    first = kit.changes[-1].epoch

    kit.clock.advance(3700)
    ada.enter(ROOM)

    assert kit.changes[-1].epoch != first
    assert seen.user_ids == ["ada"]


# What a test looks at


def test_changes_are_recorded_as_the_signals_tell_them(app: Flask, kit: PresenceKit) -> None:
    told = []

    @presence_changed.connect_via(app)
    def tell(app: Flask, channel: str, change: Any) -> None:
        told.append(change)

    ada = kit.connect("ada")
    ada.enter(ROOM)
    ada.enter(ROOM)
    ada.leave(ROOM)

    assert [(change.kind, change.user_id) for change in kit.changes] == [
        ("entered", "ada"),
        ("left", "ada"),
    ]
    assert kit.changes == told


@pytest.mark.parametrize(
    "look",
    [
        lambda kit: [change.kind for change in kit.changes] == ["entered", "left"],
        lambda kit: kit.state(ROOM).count == 0,
    ],
    ids=["changes", "state"],
)
def test_what_is_pending_happens_before_anybody_looks(
    app: Flask, kit: PresenceKit, look: Callable[[PresenceKit], bool]
) -> None:
    socket = app.extensions["socketio"].test_client(
        app, namespace="/presence", auth={"user": "ada"}
    )
    socket.emit("enter", {"channel": ROOM}, namespace="/presence")

    socket.disconnect("/presence")

    assert look(kit)


def test_right_assertions_pass(kit: PresenceKit) -> None:
    ada, bob = Person({"user": "ada"}), Person({"user": "bob"})
    kit.connect(ada).enter(MIXED)
    kit.connect(bob).enter(MIXED)
    kit.connect().enter(MIXED)

    kit.assert_present(MIXED, ada)
    kit.assert_present(MIXED, "bob", ada)
    kit.assert_absent(MIXED, "eve")
    kit.assert_exactly(MIXED, "bob", "ada", anonymous=1)
    kit.assert_exactly(ROOM)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (
            lambda kit: kit.assert_present(MIXED, "ada", "eve"),
            "eve not in /mixed/a. There: ada (Ada) {'typing': True}, bob, 1 anonymous. "
            "eve never entered it.",
        ),
        (
            lambda kit: kit.assert_present(MIXED, "tim"),
            "tim not in /mixed/a. There: ada (Ada) {'typing': True}, bob, 1 anonymous. "
            "tim left 2.0 s ago (left).",
        ),
        (
            lambda kit: kit.assert_absent(MIXED, "eve", "bob"),
            "bob in /mixed/a. There: ada (Ada) {'typing': True}, bob, 1 anonymous.",
        ),
        (
            lambda kit: kit.assert_exactly(MIXED, "ada", anonymous=1),
            "bob also in /mixed/a. There: ada (Ada) {'typing': True}, bob, 1 anonymous.",
        ),
        (
            lambda kit: kit.assert_exactly(MIXED, "ada", "bob", "tim", anonymous=1),
            "tim not in /mixed/a. There: ada (Ada) {'typing': True}, bob, 1 anonymous. "
            "tim left 2.0 s ago (left).",
        ),
        (
            lambda kit: kit.assert_exactly(MIXED, "ada", "bob"),
            "1 anonymous in /mixed/a, not 0. There: ada (Ada) {'typing': True}, bob, 1 anonymous.",
        ),
        (
            lambda kit: kit.assert_present(ROOM, "ada"),
            "ada not in /room/1. Nobody is there. ada never entered it.",
        ),
    ],
)
def test_a_wrong_assertion_says_who_was_there_instead(
    kit: PresenceKit, check: Callable[[PresenceKit], None], message: str
) -> None:
    ada = Person({"user": "ada", "info": {"name": "Ada"}})
    kit.connect(ada).enter(MIXED, {"typing": True})
    kit.connect(Person({"user": "bob"})).enter(MIXED)
    kit.connect().enter(MIXED)
    tim = kit.connect("tim")
    tim.enter(MIXED)
    tim.leave(MIXED)
    kit.clock.advance(2)

    with pytest.raises(AssertionError) as failure:
        check(kit)

    assert str(failure.value) == message


def test_an_assertion_names_at_least_one_user(kit: PresenceKit) -> None:
    with pytest.raises(TypeError, match="user"):
        kit.assert_present(ROOM)
    with pytest.raises(TypeError, match="user"):
        kit.assert_absent(ROOM)


def test_a_channel_that_is_none_cannot_be_looked_at(kit: PresenceKit) -> None:
    with pytest.raises(ChannelNotFound, match="/nowhere/1"):
        kit.assert_absent("/nowhere/1", "ada")


def test_a_closed_client_says_how_to_open_it(kit: PresenceKit) -> None:
    ada = kit.connect("ada")

    ada.drop()

    for use in (lambda: ada.enter(ROOM), ada.drop, ada.disconnect, ada.heartbeat):
        with pytest.raises(RuntimeError, match=r"of ada, closed> has no connection; reconnect\(\)"):
            use()


# Around a test


def test_nothing_is_started_and_nobody_sleeps(
    app: Flask, kit: PresenceKit, started: list[str], presence: Presence
) -> None:
    ada = kit.connect("ada")
    ada.subscribe(ROOM)
    ada.enter(ROOM)
    with app.test_request_context():
        presence.channel(ROOM).enter("job", client_id="import-7")
    ada.drop()
    kit.clock.advance(100)
    kit.close()

    assert started == []


def test_each_kit_begins_with_nobody_and_its_own_configs(make_app: MakeApp) -> None:
    app, presence = make_app()
    exists = {"1"}

    @presence.channel_config("/door/<name>")
    def door(name: str) -> ChannelConfig | None:
        return ChannelConfig(public=True) if name in exists else None

    with PresenceKit(app) as kit:
        kit.connect("ada").enter("/door/1")
    exists.clear()

    with PresenceKit(app) as kit:
        with app.app_context():
            assert presence.channels() == {}
        with pytest.raises(Refused, match="not_found"):
            kit.connect("ada").enter("/door/1")


def test_afterwards_the_app_has_its_own_presence_again(make_app: MakeApp) -> None:
    app, presence = make_app()
    own = app.extensions["presence"]
    with app.app_context():
        presence.channel(ROOM).enter("job", client_id="import-7")

    with PresenceKit(app) as kit, app.app_context():
        within = presence.channel(ROOM).user_ids
        kit.connect("ada").enter(ROOM)
        changes = kit.changes

    with app.app_context():
        assert (within, presence.channel(ROOM).user_ids) == ([], ["job"])
        presence.channel(ROOM).leave(client_id="import-7")
    assert app.extensions["presence"] is own
    assert kit.changes == changes


def test_afterwards_real_browsers_are_served_as_before(serve: Any, dial: Any) -> None:
    port, app, _ = serve(PRESENCE_BATCH_WINDOW=0)
    bob = dial(port, "bob")
    bob.call("subscribe", {"channel": ROOM})

    with PresenceKit(app) as kit:
        kit.connect("eve").enter(ROOM)
    ada: Wire = dial(port, "ada")

    assert ada.call("enter", {"channel": ROOM}) == {"ok": True}
    assert [user["id"] for user in bob.wait_for("diff")["entered"]] == ["ada"]


def test_no_connection_is_left_behind(app: Flask, presence: Presence) -> None:
    server = app.extensions["socketio"].server
    before = dict(SocketIOTestClient.clients)
    with PresenceKit(app) as kit:
        clients = [kit.connect("ada") for _ in range(4)]
        clients[0].disconnect()
        clients[1].drop()
        clients[2].reconnect()
        with app.app_context():
            presence.reload("ada")
        clients[3].reconnect()
        with pytest.raises(Refused):
            kit.connect(auth={"user": "ada", "raises": True})

    assert server.environ == {}
    assert list(server.manager.get_participants("/presence", None)) == []
    assert SocketIOTestClient.clients == before


def test_the_apps_store_is_not_touched(make_app: MakeApp, tmp_path: Path) -> None:
    file = tmp_path / "presence.sqlite3"
    with PresenceKit(make_app(PRESENCE_BACKEND=f"sqlite:///{file}")[0]) as kit:
        kit.connect("ada").enter(ROOM)
        kit.assert_present(ROOM, "ada")

    assert not file.exists()


def test_an_app_in_the_way_of_gevent_is_tried_out_without_it(make_app: MakeApp) -> None:
    with PresenceKit(make_app(SOCKETIO={"async_mode": "gevent"})[0]) as kit:
        seen = kit.connect("bob").subscribe(ROOM)
        kit.connect("ada").enter(ROOM)

        assert seen.user_ids == ["ada"]


def test_an_app_without_presence_says_which_line_is_missing() -> None:
    with pytest.raises(RuntimeError, match=r"presence\.init_app\(app\)"):
        PresenceKit(Flask(__name__))


def test_a_message_queue_is_refused_with_what_to_do(make_app: MakeApp) -> None:
    app, _ = make_app(SOCKETIO={"message_queue": "redis://127.0.0.1:1"})

    with pytest.raises(RuntimeError, match="leave message_queue out"):
        PresenceKit(app)


def test_an_app_whose_socketio_went_on_to_another_app_is_refused() -> None:
    socketio, presence, apps = SocketIO(), Presence(), [Flask("one"), Flask("two")]
    for app in apps:
        app.config["PRESENCE_BACKEND"] = "memory://"
        socketio.init_app(app, async_mode="threading")
        presence.init_app(app)

    with pytest.raises(RuntimeError, match="test the newest app"):
        PresenceKit(apps[0])
    with PresenceKit(apps[1]) as kit:
        assert kit.connect("ada").user_id == "ada"


def test_the_fixture_is_a_kit_of_the_app(
    app: Flask, presence_kit: PresenceKit, presence: Presence
) -> None:
    presence_kit.connect("ada").enter(ROOM)

    with app.app_context():
        assert presence.channels() == {ROOM: 1}


def test_the_kit_works_with_unittest_and_without_pytest(tmp_path: Path) -> None:
    (tmp_path / "cases.py").write_text(
        textwrap.dedent(
            """
            import sys
            import unittest
            from flask import Flask
            from flask_socketio import SocketIO
            from flask_presence import ChannelConfig, Presence

            sys.modules["pytest"] = None  # importing it raises
            from flask_presence.testing import PresenceKit

            app = Flask("cases")
            app.config["PRESENCE_BACKEND"] = "memory://"
            SocketIO(app, async_mode="threading")
            presence = Presence(app)

            @presence.channel_config("/room/<name>")
            def room(name):
                return ChannelConfig(public=True)

            class Case(unittest.TestCase):
                def setUp(self):
                    self.kit = PresenceKit(app)
                    self.addCleanup(self.kit.close)

                def test_entering(self):
                    self.kit.connect("ada").enter("/room/1")
                    self.kit.assert_exactly("/room/1", "ada")

                def test_nobody_is_left_of_another_test(self):
                    self.kit.assert_exactly("/room/1")
            """
        )
    )

    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "unittest", "cases"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert run.returncode == 0, run.stderr
    assert "Ran 2 tests" in run.stderr


def test_what_the_apps_hooks_raise_is_in_the_log(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    app, presence = make_app()

    @presence.user_info
    def info(user: Any) -> Any:
        raise LookupError("no name")

    with PresenceKit(app) as kit, caplog.at_level(logging.ERROR):
        kit.connect("ada")

    assert "user_info raised for user ada" in caplog.text
