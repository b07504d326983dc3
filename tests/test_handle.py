"""The server's side: what the app's own code may ask and change."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from named import named
from wire import eventually

from flask_presence import (
    AccessDenied,
    BackendUnavailable,
    Change,
    ChannelConfig,
    ChannelFull,
    ChannelNotFound,
    ChannelUnavailable,
    InvalidChannelConfig,
    Presence,
    PresenceError,
    State,
    User,
    signals,
)
from flask_presence.backends.memory import MemoryBackend

MakeApp = Callable[..., tuple[Flask, Presence]]


class Clock:
    """The store's clock."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def app(make_app: MakeApp, clock: Clock) -> Flask:
    app, presence = make_app(PRESENCE_BACKEND=MemoryBackend(clock=clock))
    app.extensions["test"] = presence
    return app


@pytest.fixture
def presence(app: Flask) -> Iterator[Presence]:
    """Presence in an app context."""
    with app.app_context():
        yield app.extensions["test"]


@pytest.fixture
def heard(app: Flask) -> Iterator[list[Change]]:
    """The changes that signals told of."""
    changes: list[Change] = []

    def changed(sender: Flask, channel: str, change: Change) -> None:
        changes.append(change)

    with signals.presence_changed.connected_to(changed, sender=app):
        yield changes


def person(user_id: str, **info: Any) -> Any:
    return SimpleNamespace(id=user_id, info=info)


# Channels


@pytest.mark.parametrize(
    "name", ["/room/x", "/room/007", "/unknown/1", "/room", "room/1", "//room/1", "", "/room/1 "]
)
def test_a_channel_that_does_not_exist_is_not_found(presence: Presence, name: str) -> None:
    with pytest.raises(ChannelNotFound):
        presence.channel(name)


def test_a_channel_whose_callback_says_none_is_not_found(presence: Presence) -> None:
    presence.channel_config("gone")(lambda name: None)

    with pytest.raises(ChannelNotFound, match="/gone/1"):
        presence.channel("/gone/1")


def test_a_channel_whose_callback_fails_is_unavailable(presence: Presence) -> None:
    with pytest.raises(ChannelUnavailable):
        presence.channel("/broken/1")


def test_all_our_errors_are_presence_errors() -> None:
    for error in (
        AccessDenied,
        BackendUnavailable,
        ChannelFull,
        ChannelNotFound,
        ChannelUnavailable,
        InvalidChannelConfig,
    ):
        assert issubclass(error, PresenceError)


def test_the_server_s_side_needs_an_app_context(app: Flask) -> None:
    presence = app.extensions["test"]

    for call in (lambda: presence.channel("/room/1"), presence.prune, presence.drain):
        with pytest.raises(RuntimeError, match="application context"):
            call()


def test_a_channel_that_nobody_entered_is_empty_and_reading_creates_nothing(
    presence: Presence, heard: list[Change]
) -> None:
    channel = presence.channel("/room/1")

    for _ in range(2):
        assert channel.state() == State(
            channel="/room/1", epoch=None, revision=0, count=0, anonymous=0, users=()
        )
    assert (channel.count, channel.anonymous_count) == (0, 0)
    assert tuple(channel.users) == ()
    assert list(channel.user_ids) == []
    assert "7" not in channel
    assert heard == []


# Entering


def test_entering_gives_the_change(presence: Presence) -> None:
    change = presence.channel("/room/1").enter("7", client_id="import-7", meta={"task": "import"})

    assert change is not None
    assert change.epoch
    assert change == Change(
        kind="entered",
        channel="/room/1",
        epoch=change.epoch,
        revision=1,
        user_id="7",
        info={"name": "7"},
        meta={"task": "import"},
        count=1,
        anonymous=0,
        reason=None,
    )


def test_a_user_s_second_client_changes_nothing_visible(
    presence: Presence, heard: list[Change]
) -> None:
    channel = presence.channel("/room/1")
    channel.enter("7", client_id="a")

    change = channel.enter("7", client_id="b")

    assert change is None
    assert (channel.count, channel.state().revision, len(heard)) == (1, 1, 1)


def test_entering_again_changes_nothing_visible_and_keeps_the_meta(presence: Presence) -> None:
    channel = presence.channel("/room/1")
    channel.enter("7", client_id="a", meta={"n": 1})

    assert channel.enter("7", client_id="a") is None
    assert channel.enter("7", client_id="a", meta={"n": 1}) is None
    assert channel.users == (User("7", {"name": "7"}, {"n": 1}),)


def test_entering_again_with_another_meta_is_an_update(presence: Presence) -> None:
    channel = presence.channel("/room/1")
    channel.enter("7", client_id="a", meta={"n": 1})

    change = channel.enter("7", client_id="a", meta={"n": 2})

    assert change is not None
    assert (change.kind, change.meta) == ("updated", {"n": 2})
    assert (change.revision, change.reason) == (2, None)


def test_entering_again_with_another_info_is_an_update(presence: Presence) -> None:
    presence.user_info(lambda user: user.info)
    channel = presence.channel("/room/1")
    channel.enter(person("7", name="ada"), client_id="a")

    change = channel.enter(person("7", name="Ada"), client_id="a")

    assert change is not None
    assert (change.kind, change.info) == ("updated", {"name": "Ada"})


def test_users_are_in_the_order_of_entering_and_keep_their_place(presence: Presence) -> None:
    channel = presence.channel("/room/1")
    for user, client in (("c", "1"), ("a", "2"), ("b", "3"), ("c", "4")):
        channel.enter(user, client_id=client)

    channel.leave(client_id="1")
    channel.update(client_id="4", meta={"n": 1})

    assert list(channel.user_ids) == ["c", "a", "b"]

    channel.leave(client_id="4")
    channel.enter("c", client_id="5")

    assert list(channel.user_ids) == ["a", "b", "c"]


def test_a_state_tells_all(presence: Presence) -> None:
    channel = presence.channel("/mixed/x")
    change = channel.enter("7", client_id="a", meta={"n": 1})
    channel.enter(None, client_id="b")
    assert change is not None

    assert channel.state() == State(
        channel="/mixed/x",
        epoch=change.epoch,
        revision=2,
        count=1,
        anonymous=1,
        users=(User(id="7", info={"name": "7"}, meta={"n": 1}),),
    )
    assert (channel.count, channel.anonymous_count) == (1, 1)


def test_a_user_is_looked_up_by_id_or_object(presence: Presence) -> None:
    channel = presence.channel("/room/1")
    channel.enter(7, client_id="a")

    assert "7" in channel
    assert 7 in channel
    assert person("7") in channel
    assert "8" not in channel
    assert person("8") not in channel


def test_an_anonymous_client_is_counted_apart(presence: Presence) -> None:
    channel = presence.channel("/mixed/x")

    change = channel.enter(None, client_id="a", meta={"n": 1})
    again = channel.enter(None, client_id="b")

    assert change is not None
    assert again is not None
    assert (change.kind, change.user_id, change.info, change.meta) == ("entered", None, {}, {})
    assert (again.count, again.anonymous, again.revision) == (0, 2, 2)
    assert channel.users == ()


def test_a_user_who_is_not_authenticated_enters_as_anonymous(presence: Presence) -> None:
    visitor = SimpleNamespace(is_authenticated=False, get_id=lambda: None)

    change = presence.channel("/mixed/x").enter(visitor, client_id="a")

    assert change is not None
    assert change.user_id is None


def test_the_server_sees_identities_in_a_count_only_channel(presence: Presence) -> None:
    channel = presence.channel("/count/x")

    change = channel.enter("7", client_id="a", meta={"n": 1})

    assert change is not None
    assert (change.user_id, change.info, change.meta) == ("7", {"name": "7"}, {"n": 1})
    assert channel.users == (User("7", {"name": "7"}, {"n": 1}),)


@pytest.mark.parametrize("user", [None, "7"])
def test_who_may_not_enter_is_denied_and_nothing_happens(
    presence: Presence, heard: list[Change], user: Any
) -> None:
    channel = presence.channel("/server/x")

    with pytest.raises(AccessDenied):
        channel.enter(user, client_id="a")

    assert channel.state().position == (None, 0)
    assert heard == []


def test_an_anonymous_client_is_denied_where_only_users_may_enter(presence: Presence) -> None:
    with pytest.raises(AccessDenied):
        presence.channel("/room/1").enter(None, client_id="a")


@pytest.mark.parametrize("user", [None, "7"])
def test_force_enters_all_the_same(presence: Presence, user: Any) -> None:
    change = presence.channel("/server/x").enter(user, client_id="a", force=True)

    assert change is not None
    assert change.user_id == user


def test_groups_are_those_at_the_time_of_the_call(presence: Presence) -> None:
    groups: list[str] = []
    presence.user_groups(lambda user: groups)
    channel = presence.channel("/staff/x")
    assert not channel.can_enter("7")

    groups.append("staff")

    assert channel.can_enter("7")
    assert channel.enter("7", client_id="a") is not None


def test_one_user_more_than_max_users_finds_the_channel_full(presence: Presence) -> None:
    channel = presence.channel("/small/x")
    channel.enter("1", client_id="a")
    channel.enter("2", client_id="b")

    with pytest.raises(ChannelFull):
        channel.enter("3", client_id="c")

    assert channel.enter("2", client_id="d") is None
    assert list(channel.user_ids) == ["1", "2"]


def test_a_place_that_has_run_out_is_free(
    presence: Presence, clock: Clock, heard: list[Change]
) -> None:
    channel = presence.channel("/small/x")
    channel.enter("1", client_id="a")
    channel.enter("2", client_id="b")
    clock.now += 61
    heard.clear()

    channel.enter("3", client_id="c")

    assert [(change.kind, change.user_id, change.reason) for change in heard] == [
        ("left", "1", "timeout"),
        ("left", "2", "timeout"),
        ("entered", "3", None),
    ]


def test_another_user_on_a_client_id_that_is_in_is_an_error(
    presence: Presence, heard: list[Change]
) -> None:
    channel = presence.channel("/mixed/x")
    channel.enter("7", client_id="a")
    heard.clear()

    for other in ("8", None):
        with pytest.raises(ValueError, match="a"):
            channel.enter(other, client_id="a")

    assert list(channel.user_ids) == ["7"]
    assert heard == []


def test_a_client_id_may_be_another_user_s_in_another_channel_or_later(presence: Presence) -> None:
    one, two = presence.channel("/room/1"), presence.channel("/room/2")
    one.enter("7", client_id="a")

    assert two.enter("8", client_id="a") is not None

    one.leave(client_id="a")
    assert one.enter("8", client_id="a") is not None


@pytest.mark.parametrize("client_id", ["", "a\nb", "x" * 256, 7, None])
def test_a_malformed_client_id_is_an_error(presence: Presence, client_id: Any) -> None:
    channel = presence.channel("/room/1")
    calls: list[Callable[[], object]] = [
        lambda: channel.enter("7", client_id=client_id),
        lambda: channel.leave(client_id),
        lambda: channel.touch(client_id),
        lambda: channel.update(client_id, {}),
        lambda: presence.touch(client_id),
        lambda: presence.leave_all(client_id),
    ]

    for call in calls:
        with pytest.raises(ValueError, match="is no client id"):
            call()


@pytest.mark.parametrize("name", ["room", "", 7, SimpleNamespace(name="/room/1")], ids=named)
def test_evicting_from_or_forgetting_what_is_no_channel_name_is_an_error(
    presence: Presence, name: Any
) -> None:
    with pytest.raises(ValueError, match="is no channel name"):
        presence.evict("7", name)
    with pytest.raises(ValueError, match="is no channel name"):
        presence.forget_config(name)


@pytest.mark.parametrize(
    "meta", [[], "x", {"n": float("nan")}, {"n": object()}, {"n": "x" * 1024}, {1: 2}], ids=named
)
def test_a_meta_that_is_no_small_json_object_is_an_error(presence: Presence, meta: Any) -> None:
    channel = presence.channel("/room/1")

    with pytest.raises(ValueError, match="meta"):
        channel.enter("7", client_id="a", meta=meta)
    channel.enter("7", client_id="a")
    with pytest.raises(ValueError, match="meta"):
        channel.update(client_id="a", meta=meta)

    assert channel.users == (User("7", {"name": "7"}, {}),)


# Leaving, touching, updating


def test_leaving_gives_the_change(presence: Presence) -> None:
    channel = presence.channel("/room/1")
    entered = channel.enter("7", client_id="a", meta={"n": 1})
    assert entered is not None

    change = channel.leave(client_id="a")

    assert change == Change(
        kind="left",
        channel="/room/1",
        epoch=entered.epoch,
        revision=2,
        user_id="7",
        info={"name": "7"},
        meta={"n": 1},
        count=0,
        anonymous=0,
        reason="left",
    )


def test_leaving_where_it_was_not_in_changes_nothing(presence: Presence) -> None:
    channel = presence.channel("/room/1")

    assert channel.leave(client_id="a") is None
    channel.enter("7", client_id="a")
    channel.enter("7", client_id="b")

    assert channel.leave(client_id="a") is None
    assert channel.leave(client_id="a") is None
    assert channel.state().revision == 1
    assert channel.leave(client_id="b") is not None


def test_an_update_replaces_the_meta(presence: Presence) -> None:
    channel = presence.channel("/room/1")
    channel.enter("7", client_id="a", meta={"n": 1, "m": 1})

    change = channel.update(client_id="a", meta={"n": 2})

    assert change is not None
    assert (change.kind, change.meta, change.revision) == ("updated", {"n": 2}, 2)
    assert channel.update(client_id="a", meta={"n": 2}) is None
    assert channel.users[0].meta == {"n": 2}


def test_an_update_of_an_anonymous_client_changes_nothing_visible(presence: Presence) -> None:
    channel = presence.channel("/mixed/x")
    channel.enter(None, client_id="a")

    assert channel.update(client_id="a", meta={"n": 2}) is None
    assert channel.state().revision == 1


def test_an_update_of_a_client_that_is_not_in_is_an_error(presence: Presence) -> None:
    channel = presence.channel("/room/1")

    with pytest.raises(PresenceError, match="/room/1"):
        channel.update(client_id="a", meta={})


def test_the_writer_before_shows_when_the_last_one_leaves(presence: Presence) -> None:
    channel = presence.channel("/room/1")
    channel.enter("7", client_id="a", meta={"n": 1})
    channel.enter("7", client_id="b", meta={"n": 2})
    channel.enter("7", client_id="c")

    change = channel.leave(client_id="b")

    assert change is not None
    assert (change.kind, change.meta, change.reason) == ("updated", {"n": 1}, None)

    change = channel.leave(client_id="a")

    assert change is not None
    assert (change.kind, change.meta) == ("updated", {})


def test_a_client_leaves_one_timeout_after_it_entered(
    presence: Presence, clock: Clock, heard: list[Change]
) -> None:
    channel = presence.channel("/room/1")
    channel.enter("7", client_id="a")

    clock.now += 59.9
    assert channel.count == 1
    clock.now += 0.2

    assert channel.count == 0
    assert [(change.kind, change.reason) for change in heard] == [
        ("entered", None),
        ("left", "timeout"),
    ]


@pytest.mark.parametrize(
    "read",
    [
        lambda channel: channel.state().users,
        lambda channel: channel.users,
        lambda channel: channel.user_ids,
        lambda channel: channel.count,
        lambda channel: "7" in channel,
    ],
)
def test_no_read_shows_who_has_run_out_and_the_change_is_told_once(
    presence: Presence, clock: Clock, heard: list[Change], read: Any
) -> None:
    channel = presence.channel("/room/1")
    channel.enter("7", client_id="a")
    clock.now += 61

    assert not read(channel)
    assert not read(channel)

    assert [change.kind for change in heard] == ["entered", "left"]
    assert presence.prune() == []


def test_a_touch_puts_the_deadline_one_timeout_ahead(presence: Presence, clock: Clock) -> None:
    channel = presence.channel("/room/1")
    channel.enter("7", client_id="a")

    clock.now += 50
    assert channel.touch(client_id="a") is True
    clock.now += 50
    assert channel.count == 1
    clock.now += 11

    assert channel.count == 0
    assert channel.touch(client_id="a") is False


def test_a_touch_of_a_client_that_is_not_in_says_so(presence: Presence) -> None:
    assert presence.channel("/room/1").touch(client_id="a") is False


def test_entering_again_puts_the_deadline_one_timeout_ahead(
    presence: Presence, clock: Clock
) -> None:
    channel = presence.channel("/room/1")
    channel.enter("7", client_id="a")
    clock.now += 50
    channel.enter("7", client_id="a")
    clock.now += 50

    assert channel.count == 1


def test_a_channel_s_own_timeout_goes_before_the_setting(presence: Presence, clock: Clock) -> None:
    presence.channel_config("slow")(lambda name: ChannelConfig(public=True, timeout=300))
    channel = presence.channel("/slow/x")
    channel.enter("7", client_id="a")

    clock.now += 299
    assert channel.count == 1
    assert channel.touch(client_id="a")
    clock.now += 299
    assert channel.count == 1
    clock.now += 2

    assert channel.count == 0


# Permission


@pytest.mark.parametrize(
    ("name", "user", "may_view", "may_enter"),
    [
        ("/room/1", None, True, False),
        ("/room/1", "7", True, True),
        ("/mixed/x", None, True, True),
        ("/staff/x", None, False, False),
        ("/staff/x", "7", False, False),
        ("/server/x", "7", False, False),
    ],
)
def test_who_may_view_and_enter(
    presence: Presence, name: str, user: Any, may_view: bool, may_enter: bool
) -> None:
    channel = presence.channel(name)

    assert channel.can_view(user) is may_view
    assert channel.can_enter(user) is may_enter


# Clearing, evicting, pruning


def test_clearing_takes_everyone_out_and_the_revision_goes_on(
    presence: Presence, heard: list[Change]
) -> None:
    channel = presence.channel("/mixed/x")
    channel.enter("7", client_id="a")
    channel.enter("8", client_id="b")
    before = channel.enter(None, client_id="c")
    assert before is not None
    heard.clear()

    changes = channel.clear()

    assert [(change.kind, change.user_id, change.reason) for change in changes] == [
        ("left", "7", "cleared"),
        ("left", "8", "cleared"),
        ("left", None, "cleared"),
    ]
    assert [change.revision for change in changes] == [4, 5, 6]
    assert heard == changes
    assert channel.state().position == (before.epoch, 6)
    assert channel.clear() == []


def test_a_user_is_evicted_from_one_channel_or_from_all(presence: Presence) -> None:
    names = ["/room/1", "/room/2", "/room/3"]
    channels = [presence.channel(name) for name in names]
    for channel in channels:
        channel.enter("7", client_id="a")
        channel.enter("8", client_id="b")

    changes = presence.evict("7", "/room/2")

    assert [(change.channel, change.user_id, change.reason) for change in changes] == [
        ("/room/2", "7", "evicted")
    ]

    changes = presence.evict(person("7"))

    assert [(change.channel, change.reason) for change in changes] == [
        ("/room/1", "evicted"),
        ("/room/3", "evicted"),
    ]
    assert [list(channel.user_ids) for channel in channels] == [["8"], ["8"], ["8"]]


def test_an_evicted_user_is_not_banned(presence: Presence) -> None:
    channel = presence.channel("/room/1")
    channel.enter("7", client_id="a")
    presence.evict("7")

    assert channel.enter("7", client_id="a") is not None


def test_evicting_nobody_in_particular_is_an_error(presence: Presence) -> None:
    with pytest.raises(ValueError, match="user"):
        presence.evict(None)


def test_pruning_ends_what_is_due_and_gives_the_changes(
    presence: Presence, clock: Clock, heard: list[Change]
) -> None:
    for user, name in (("7", "/room/1"), ("8", "/room/1"), ("7", "/room/2")):
        presence.channel(name).enter(user, client_id=user)
    clock.now += 30
    presence.channel("/room/1").touch(client_id="8")
    clock.now += 31
    heard.clear()

    changes = presence.prune()

    assert [(change.channel, change.user_id, change.reason) for change in changes] == [
        ("/room/1", "7", "timeout"),
        ("/room/2", "7", "timeout"),
    ]
    assert heard == changes
    assert presence.prune() == []


def test_pruning_ends_more_than_one_slice(presence: Presence, clock: Clock) -> None:
    channel = presence.channel("/room/1")
    for number in range(1200):
        channel.enter(str(number), client_id=str(number))
    clock.now += 61

    changes = presence.prune()

    assert [change.user_id for change in changes] == [str(number) for number in range(1200)]
    assert [change.revision for change in changes] == list(range(1201, 2401))


def test_channels_that_have_long_been_empty_are_forgotten(presence: Presence, clock: Clock) -> None:
    for name in ("/room/1", "/room/2"):
        presence.channel(name).enter("7", client_id="a")
    presence.channel("/room/1").leave(client_id="a")

    clock.now += 3599
    assert presence.prune_channels() == 0
    clock.now += 2

    assert presence.prune_channels() == 1
    assert presence.channel("/room/1").state().position == (None, 0)


# states for templates


def test_state_of_gives_the_wire_form_for_the_request_s_user(app: Flask) -> None:
    presence = app.extensions["test"]
    with app.test_request_context():
        change = presence.channel("/room/1").enter("7", client_id="a", meta={"n": 1})

        state = presence.state_of("/room/1")

    assert state == {
        "channel": "/room/1",
        "epoch": change.epoch,
        "revision": 1,
        "count": 1,
        "anonymous": 0,
        "users": [{"id": "7", "info": {"name": "7"}, "meta": {"n": 1}}],
    }


def test_state_of_strips_the_users_of_a_count_only_channel(app: Flask) -> None:
    presence = app.extensions["test"]
    with app.test_request_context():
        presence.channel("/count/x").enter("7", client_id="a")

        state = presence.state_of("/count/x")

    assert state["count"] == 1
    assert state["count_only"] is True
    assert "users" not in state
    assert "7" not in json.dumps({**state, "epoch": None})


def test_state_of_is_none_where_the_user_may_not_view_or_nothing_is(app: Flask) -> None:
    presence = app.extensions["test"]
    names = ["/staff/x", "/server/x", "/unknown/x", "no name", "/room/x"]

    with app.test_request_context(headers={"X-Auth": json.dumps({"user": "7"})}):
        states = presence.state_of(names)
        alone = presence.state_of("/staff/x")

    assert states == dict.fromkeys(names)
    assert alone is None


def test_state_of_asks_for_the_request_s_user(app: Flask) -> None:
    presence = app.extensions["test"]
    auth = json.dumps({"user": "7", "groups": ["staff"]})

    with app.test_request_context(headers={"X-Auth": auth}):
        states = presence.state_of(["/staff/x", "/server/x"])

    assert states["/staff/x"]["count"] == 0
    assert states["/server/x"] is None


# With connections


def test_leave_evicts_a_connected_client(serve: Any, dial: Any) -> None:
    port, app, presence = serve()
    wire = dial(port, "7")
    wire.call("enter", {"channel": "/room/1"})

    with app.app_context():
        change = presence.channel("/room/1").leave(client_id=wire.sid)

    assert (change.kind, change.reason) == ("left", "evicted")
    assert wire.wait_for("evicted") == {"channel": "/room/1", "reason": "evicted"}


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
def test_leave_all_evicts_a_connected_client_wherever_it_is_connected(
    serve: Any, make_app: MakeApp, dial: Any, elsewhere: bool
) -> None:
    store = {"PRESENCE_BACKEND": "sqlite:///both.sqlite3", "PRESENCE_WORKER_TIMEOUT": 0.3}
    port, app, presence = serve(**store)
    if elsewhere:
        app, presence = make_app(**store)
    wire = dial(port, "7")
    for name in ("/room/1", "/room/2"):
        wire.call("enter", {"channel": name})

    with app.app_context():
        changes = presence.leave_all(wire.sid)

    assert [(change.channel, change.kind, change.reason) for change in changes] == [
        ("/room/1", "left", "evicted"),
        ("/room/2", "left", "evicted"),
    ]
    assert [wire.wait_for("evicted")["channel"] for _ in range(2)] == ["/room/1", "/room/2"]
    assert wire.call("enter", {"channel": "/room/1"})["ok"]
    assert wire.call("heartbeat")["lost"] == []


def test_leave_all_takes_out_a_connected_client_that_the_store_lost(serve: Any, dial: Any) -> None:
    port, app, presence = serve()
    wire = dial(port, "7")
    wire.call("enter", {"channel": "/room/1"})
    own = app.extensions["presence"]
    own.backend.leave("/room/1", [wire.sid])

    with app.app_context():
        changes = presence.leave_all(wire.sid)

    assert changes == []
    assert wire.wait_for("evicted") == {"channel": "/room/1", "reason": "evicted"}
    own.tracker.loops.turn()
    assert own.backend.channels_of(client_id=wire.sid) == []


def test_evict_ends_subscriptions_too(serve: Any, dial: Any) -> None:
    port, app, presence = serve()
    wire, other = dial(port, "7"), dial(port, "8")
    for one in (wire, other):
        one.call("subscribe", {"channel": "/room/1"})
    wire.call("enter", {"channel": "/room/2"})

    with app.app_context():
        changes = presence.evict("7")
        presence.channel("/room/1").enter("9", client_id="x")

    assert [change.channel for change in changes] == ["/room/2"]
    evicted = [wire.wait_for("evicted") for _ in range(2)]
    assert {tuple(event.values()) for event in evicted} == {
        ("/room/1", "evicted"),
        ("/room/2", "evicted"),
    }
    other.wait_for("diff")
    wire.call("state", {"channels": ["/room/1"]})
    assert wire.received("diff") == []


def test_reload_renews_a_user_s_connections_with_identity_loaded_anew(
    serve: Any, dial: Any
) -> None:
    port, app, presence = serve()
    wire, other = dial(port, "7"), dial(port, "8")
    wire.call("enter", {"channel": "/room/1"})

    with app.app_context():
        presence.reload("7")

    assert wire.closed.wait(10)
    assert other.call("enter", {"channel": "/room/1"})["ok"]
    with app.app_context():
        assert list(presence.channel("/room/1").user_ids) == ["7", "8"]


def test_touching_and_updating_a_connected_client(serve: Any, dial: Any) -> None:
    port, app, presence = serve()
    wire = dial(port, "7")
    wire.call("enter", {"channel": "/room/1"})

    with app.app_context():
        channel = presence.channel("/room/1")
        assert channel.touch(client_id=wire.sid) is True
        change = channel.update(client_id=wire.sid, meta={"n": 1})

    assert (change.kind, change.meta) == ("updated", {"n": 1})


def test_a_connected_client_that_another_process_enters_is_still_held_by_its_own(
    serve: Any, make_app: MakeApp, dial: Any
) -> None:
    store = {"PRESENCE_BACKEND": "sqlite:///both.sqlite3"}
    (port, here, _), (there, other) = serve(**store), make_app(**store)
    wire = dial(port, "7")
    wire.call("enter", {"channel": "/room/1"})

    with there.app_context():
        change = other.channel("/room/1").enter("7", client_id=wire.sid, meta={"n": 1})

    assert (change.kind, change.meta) == ("updated", {"n": 1})
    own = here.extensions["presence"]
    worker = own.tracker.holdings.lease.id
    held = own.backend.members_of_worker(worker, after=None, limit=10)
    assert held == [("/room/1", wire.sid)]


# Draining


def test_draining_gives_members_a_deadline_and_later_disconnects_change_nothing(
    serve: Any, dial: Any, clock: Clock
) -> None:
    port, app, presence = serve(PRESENCE_BACKEND=MemoryBackend(clock=clock))
    wire, anonymous = dial(port, "7"), dial(port)
    wire.call("enter", {"channel": "/mixed/x"})
    anonymous.call("enter", {"channel": "/mixed/x"})
    manager = app.extensions["socketio"].server.manager

    with app.app_context():
        presence.drain()
        wire.leave_orderly()
        anonymous.drop()
        eventually(lambda: not list(manager.get_participants("/presence", None)))
        channel = presence.channel("/mixed/x")

        clock.now += 14.9
        assert (channel.count, channel.anonymous_count) == (1, 1)
        clock.now += 0.2
        changes = presence.prune()

    assert [(change.user_id, change.reason) for change in changes] == [
        ("7", "timeout"),
        (None, "timeout"),
    ]


def test_a_drained_worker_takes_no_new_clients(serve: Any, dial: Any) -> None:
    port, app, presence = serve()
    wire = dial(port, "7")
    wire.call("enter", {"channel": "/room/1"})

    with app.app_context():
        presence.drain()
    answer = wire.call("enter", {"channel": "/room/2"})

    assert (answer["ok"], answer["error"]) == (False, "unavailable")
    assert answer["retry_after"] > 0


def test_whoever_reconnects_elsewhere_after_a_drain_was_never_seen_leaving(
    make_app: MakeApp, serve: Any, dial: Any
) -> None:
    store = {"PRESENCE_BACKEND": "sqlite:///both.sqlite3"}
    port, app, presence = serve(**store)
    other_port, _, _ = serve(**store)
    wire = dial(port, "7")
    wire.call("enter", {"channel": "/room/1"})

    with app.app_context():
        presence.drain()
    wire.drop()
    dial(other_port, "7").call("enter", {"channel": "/room/1"})

    with app.app_context():
        assert presence.channel("/room/1").state().revision == 1


def test_draining_a_process_without_connections_does_nothing(presence: Presence) -> None:
    presence.channel("/room/1").enter("7", client_id="a")

    presence.drain()
    presence.drain()

    assert presence.channel("/room/1").count == 1


# Processes without connections

PROGRAM = """
import json, sys, threading
from server import create_app
from flask_presence import signals
from socketio import PubSubManager

class Queue(PubSubManager):
    sent = []
    def _publish(self, data):
        self.sent.append([data["event"], data["room"]])

app, presence = create_app({
    "instance_path": sys.argv[1],
    "SOCKETIO": {"client_manager": Queue(write_only=True)},
})
told = []
def changed(sender, channel, change):
    told.append(change.kind)
signals.presence_changed.connect(changed)
with app.app_context():
    channel = presence.channel("/room/1")
    report = []
    for act in (
        lambda: channel.enter("7", client_id="a"),
        lambda: channel.update(client_id="a", meta={"n": 1}),
        lambda: channel.leave(client_id="a"),
    ):
        act()
        report.append([list(told), list(Queue.sent)])
        told.clear()
        Queue.sent.clear()
    print(json.dumps([report, [thread.name for thread in threading.enumerate()]]))
app.extensions["presence"].stop()
"""


def test_a_process_without_connections_sends_its_changes_before_the_call_returns(
    tmp_path: Path,
) -> None:
    program = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    report, threads = json.loads(program.stdout)

    sent = [["diff", "presence:full:/room/1"], ["diff", "presence:counted:/room/1"]]
    assert report == [[["entered"], sent], [["updated"], sent], [["left"], sent]]
    assert threads == ["MainThread"]


# All channels


def test_occupied_channels_are_listed_with_their_users(presence: Presence) -> None:
    for name, user, client_id in (
        ("/room/1", "ada", "a"),
        ("/room/1", "ada", "b"),
        ("/room/1", "bob", "c"),
        ("/room/2", "ada", "a"),
        ("/mixed/x", None, "d"),
    ):
        presence.channel(name).enter(user and SimpleNamespace(id=user), client_id=client_id)
    presence.channel("/room/2").leave(client_id="a")

    assert presence.channels() == {"/mixed/x": 0, "/room/1": 2}
    assert presence.channels("room") == {"/room/1": 2}
    assert presence.channels("roo") == {}
    assert presence.channels_of(SimpleNamespace(id="ada")) == ["/room/1"]


@pytest.mark.parametrize("prefix", ["", "/room", "room/", "a b", 7])
def test_what_is_no_prefix_is_refused(presence: Presence, prefix: object) -> None:
    with pytest.raises(ValueError, match="bare prefix"):
        presence.channels(prefix)


def test_clearing_takes_everyone_out_and_the_revisions_go_on(presence: Presence) -> None:
    for name in ("/room/1", "/room/2"):
        presence.channel(name).enter(SimpleNamespace(id="ada"), client_id="a")

    changes = presence.clear()

    assert [(change.channel, change.kind, change.reason) for change in changes] == [
        ("/room/1", "left", "cleared"),
        ("/room/2", "left", "cleared"),
    ]
    assert presence.channels() == {}
    assert presence.channel("/room/1").state().revision == 2
