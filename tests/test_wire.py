"""What travels between a client and a server: every event, code and payload, as written down."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from flask import Flask
from processes import Server
from stores import SharedStore, Store
from wire import Wire, eventually

from flask_presence import ChannelConfig, Presence
from flask_presence.testing.fold import Fold

Connect = Callable[..., Wire]

GRACE = 0.7
"""Seconds for which the quick server counts a dropped user."""

_numbers = itertools.count(1)


def fresh(kind: str = "room") -> str:
    """The name of a channel that no other test uses."""
    return f"/{kind}/{next(_numbers)}"


# Servers, one of each kind on each ground


class Ground(NamedTuple):
    """What a server stands on."""

    store: str
    async_mode: str


GROUNDS = [
    Ground("memory", "gevent"),
    Ground("sqlite", "threading"),
    Ground("postgresql", "gevent"),
    Ground("mariadb", "threading"),
    Ground("redis", "threading"),
    Ground("sentinel", "gevent"),
    Ground("valkey", "threading"),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test is run on every ground, if it needs no store that others can get at."""
    names = set(metafunc.fixturenames)
    if "ground" in names:
        is_shared = bool(names & {"office", "shared_store"})
        grounds = [ground for ground in GROUNDS if ground.store != "memory" or not is_shared]
        metafunc.parametrize("ground", grounds, indirect=True, ids="-".join, scope="module")


@pytest.fixture(scope="module")
def ground(request: pytest.FixtureRequest) -> Ground:
    ground: Ground = request.param
    return ground


@pytest.fixture(scope="module")
def store(ground: Ground, request: pytest.FixtureRequest) -> Store:
    store: Store = request.getfixturevalue(f"{ground.store}_store")
    return store


@pytest.fixture(scope="module")
def shared_store(store: Store) -> SharedStore:
    assert isinstance(store, SharedStore)
    return store


@pytest.fixture(scope="module")
def start(
    ground: Ground, store: Store, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start_one(**config: Any) -> Server:
        basis = {
            "instance_path": str(tmp_path_factory.mktemp("instance")),
            "PRESENCE_BACKEND": store.new_url(),
            "SOCKETIO": {"async_mode": ground.async_mode},
        }
        server = Server(basis | config)
        servers.append(server)
        return server

    yield start_one
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def server(start: Callable[..., Server]) -> Server:
    """A server with the defaults, but that diffs are sent at once: who subscribes after an
    acknowledgement is sent no diff of what came before it."""
    return start(PRESENCE_BATCH_WINDOW=0)


@pytest.fixture(scope="module")
def stock(start: Callable[..., Server]) -> Server:
    """A server with every setting's default."""
    return start()


@pytest.fixture(scope="module")
def tight(start: Callable[..., Server]) -> Server:
    """A server that allows little."""
    return start(
        PRESENCE_RATE_LIMIT="8/2",
        PRESENCE_MAX_CHANNELS_PER_CLIENT=2,
        PRESENCE_MAX_META_BYTES=64,
    )


@pytest.fixture(scope="module")
def quick(start: Callable[..., Server]) -> Server:
    """A server that does not wait long."""
    return start(
        PRESENCE_BATCH_WINDOW=0,
        PRESENCE_LEAVE_GRACE=GRACE,
        PRESENCE_PRUNE_INTERVAL=0.1,
        PRESENCE_WORKER_TIMEOUT=2,
        PRESENCE_RATE_LIMIT=None,
    )


@pytest.fixture(scope="module")
def fading(start: Callable[..., Server]) -> Server:
    """A server that bears no silence."""
    return start(
        PRESENCE_BATCH_WINDOW=0,
        PRESENCE_TIMEOUT=1.5,
        PRESENCE_HEARTBEAT_INTERVAL=0.5,
        PRESENCE_WORKER_TIMEOUT=1.5,
    )


@pytest.fixture
def connect(server: Server, dial: Connect) -> Connect:
    """Connects to the server with the defaults."""
    return lambda user=None, **options: dial(server.port, user, **options)


@pytest.fixture
def office(quick: Server, make_app: Callable[..., tuple[Flask, Presence]]) -> Iterator[Presence]:
    """The same presence as that of the quick server, in this process, which serves nobody."""
    app, presence = make_app(
        PRESENCE_BACKEND=quick.config["PRESENCE_BACKEND"],
        PRESENCE_WORKER_TIMEOUT=2,
    )
    with app.app_context():
        yield presence


# What tests say


def news(wire: Wire, channel: str) -> list[Any]:
    """Await what another process did: diffs where the store brings them, else a state."""

    def arrived() -> list[Any]:
        told = wire.received("diff") + wire.received("state")
        return [data for data in told if data["channel"] == channel]

    return eventually(arrived)


def enter(wire: Wire, channel: str, *meta: dict[str, Any]) -> None:
    payload = {"channel": channel} | ({"meta": meta[0]} if meta else {})
    assert wire.call("enter", payload) == {"ok": True}


def leave(wire: Wire, channel: str) -> None:
    assert wire.call("leave", {"channel": channel}) == {"ok": True}


def update(wire: Wire, channel: str, meta: dict[str, Any]) -> None:
    assert wire.call("update", {"channel": channel, "meta": meta}) == {"ok": True}


def subscribe(wire: Wire, channel: str) -> dict[str, Any]:
    answer = wire.call("subscribe", {"channel": channel})
    assert answer.keys() == {"ok", "state"}
    assert answer["ok"] is True
    state: dict[str, Any] = answer["state"]
    return state


def read(wire: Wire, channel: str) -> dict[str, Any]:
    state: dict[str, Any] = wire.call("state", {"channels": [channel]})["states"][channel]
    return state


def ids(state: dict[str, Any]) -> list[str]:
    return [user["id"] for user in state["users"]]


def meta_of(state: dict[str, Any], user: str) -> Any:
    return next(entry["meta"] for entry in state["users"] if entry["id"] == user)


def position_of(state: dict[str, Any]) -> list[Any]:
    return [state["epoch"], state["revision"]]


def await_diff(wire: Wire, channel: str) -> dict[str, Any]:
    diff: dict[str, Any] = wire.wait_for("diff", lambda data: data["channel"] == channel)
    return diff


def diffs_until(wire: Wire, channel: str, revision: int) -> list[dict[str, Any]]:
    """All diffs of a channel, up to the one that brings a revision."""
    diffs: list[dict[str, Any]] = []
    while all(end < revision for diff in diffs for _, end in diff["revisions"]):
        diffs.append(await_diff(wire, channel))
    return diffs


def entries(diffs: list[dict[str, Any]]) -> list[tuple[int, str, str]]:
    """Revision, list and user of everything that diffs tell, by revision."""
    kinds = ("entered", "updated", "left")
    return sorted(
        (entry["revision"], kind, entry["id"])
        for diff in diffs
        for kind in kinds
        for entry in diff.get(kind, [])
    )


def revisions(diffs: list[dict[str, Any]]) -> list[int]:
    return sorted(
        revision
        for diff in diffs
        for start, end in diff["revisions"]
        for revision in range(start, end + 1)
    )


def assert_refused(answer: dict[str, Any], code: str) -> None:
    """It is a refusal of the form that all refusals have."""
    waits = code in ("rate_limited", "unavailable")
    assert answer["ok"] is False, answer
    assert answer["error"] == code, answer
    assert answer.keys() == {"ok", "error", "message"} | ({"retry_after"} if waits else set())
    assert isinstance(answer["message"], str)
    assert answer["message"]
    if waits:
        assert answer["retry_after"] > 0


# Connecting


def test_a_user_is_greeted_with_who_they_are(connect: Connect) -> None:
    wire = connect("ada")

    hello = wire.wait_for("hello")

    assert hello == {"client_id": wire.sid, "user_id": "ada", "heartbeat_interval": 25}


def test_an_anonymous_client_is_greeted_without_a_user(connect: Connect) -> None:
    wire = connect()

    assert wire.wait_for("hello") == {
        "client_id": wire.sid,
        "user_id": None,
        "heartbeat_interval": 25,
    }


def test_the_greeting_comes_once(connect: Connect) -> None:
    wire = connect("ada")
    wire.wait_for("hello")

    wire.await_quiet(fresh())

    assert wire.received("hello") == []


def test_an_id_that_is_a_number_is_a_string_on_the_wire(connect: Connect) -> None:
    channel = fresh()
    wire = connect(auth={"user": 7})

    enter(wire, channel)

    assert wire.wait_for("hello")["user_id"] == "7"
    assert ids(read(wire, channel)) == ["7"]


def test_a_connection_whose_user_loader_raises_is_refused(connect: Connect) -> None:
    wire = connect(auth={"user": "ada", "raises": True})

    assert wire.refused is not None
    assert wire.sid is None


@pytest.mark.parametrize("user", ["a\nb", "x" * 256, "\ud800"])
def test_a_user_with_an_id_of_the_wrong_form_is_refused(connect: Connect, user: str) -> None:
    wire = connect(user)

    assert wire.refused is not None


@pytest.mark.parametrize(
    "info",
    [{"text": "x" * 1014}, ["a list"], "text", {"n": float("nan")}, {"n": float("inf")}, None],
)
def test_info_of_the_wrong_form_is_left_out(connect: Connect, info: Any) -> None:
    channel = fresh()
    wire = connect("ada", auth={"info": info})

    enter(wire, channel)

    assert read(wire, channel)["users"] == [{"id": "ada", "info": {}, "meta": {}}]


def test_info_is_seen_by_others(connect: Connect) -> None:
    channel, info = fresh(), {"name": "Ada", "avatar": None, "text": "é" * 480}
    enter(connect("ada", auth={"info": info}), channel)

    assert read(connect("bob"), channel)["users"] == [{"id": "ada", "info": info, "meta": {}}]


# Each event and its acknowledgement


def test_enter_is_acknowledged(connect: Connect) -> None:
    wire, channel = connect("ada"), fresh()

    assert wire.call("enter", {"channel": channel}) == {"ok": True}
    assert wire.call("enter", {"channel": channel, "meta": {"a": 1}}) == {"ok": True}


def test_leave_is_acknowledged_wherever_one_was(connect: Connect) -> None:
    wire, channel = connect("ada"), fresh()
    enter(wire, channel)

    assert wire.call("leave", {"channel": channel}) == {"ok": True}
    assert wire.call("leave", {"channel": channel}) == {"ok": True}
    assert wire.call("leave", {"channel": "/nowhere/1"}) == {"ok": True}
    assert wire.call("leave", {"channel": "/broken/1"}) == {"ok": True}


def test_update_is_acknowledged(connect: Connect) -> None:
    wire, channel = connect("ada"), fresh()
    enter(wire, channel)

    assert wire.call("update", {"channel": channel, "meta": {"a": 1}}) == {"ok": True}


def test_an_update_of_a_channel_one_is_not_in_is_refused(connect: Connect) -> None:
    wire, channel = connect("ada"), fresh()
    enter(wire, channel)
    leave(wire, channel)

    for name in (channel, "/nowhere/1", "/broken/1"):
        assert_refused(wire.call("update", {"channel": name, "meta": {}}), "not_present")


def test_an_update_in_another_tab_is_refused(connect: Connect) -> None:
    first, second, channel = connect("ada"), connect("ada"), fresh()
    enter(first, channel)

    assert_refused(second.call("update", {"channel": channel, "meta": {}}), "not_present")


def test_a_channel_that_nobody_ever_entered_has_no_epoch(connect: Connect) -> None:
    wire, channel = connect("ada"), fresh()
    empty = {
        "channel": channel,
        "epoch": None,
        "revision": 0,
        "count": 0,
        "anonymous": 0,
        "users": [],
    }

    assert wire.call("subscribe", {"channel": channel}) == {"ok": True, "state": empty}
    leave(wire, channel)
    assert read(wire, channel) == empty


def test_subscribe_is_acknowledged_with_the_state(connect: Connect) -> None:
    wire, channel = connect("ada", auth={"info": {"name": "Ada"}}), fresh()
    enter(wire, channel, {"a": 1})

    state = subscribe(wire, channel)

    assert isinstance(state["epoch"], str)
    assert state == {
        "channel": channel,
        "epoch": state["epoch"],
        "revision": 1,
        "count": 1,
        "anonymous": 0,
        "users": [{"id": "ada", "info": {"name": "Ada"}, "meta": {"a": 1}}],
    }


def test_subscribing_where_the_position_is_current_brings_no_state(connect: Connect) -> None:
    wire, channel = connect("ada"), fresh()

    nowhere = wire.call("subscribe", {"channel": channel, "position": [None, 0]})
    enter(wire, channel)
    position = position_of(read(wire, channel))
    current = connect("bob").call("subscribe", {"channel": channel, "position": position})

    assert nowhere == {"ok": True, "state": None}
    assert current == {"ok": True, "state": None}


def test_subscribing_with_another_position_brings_the_state(connect: Connect) -> None:
    wire, channel = connect("ada"), fresh()
    enter(wire, channel)
    epoch, revision = position_of(read(wire, channel))

    for position in ([epoch, revision - 1], [epoch, revision + 1], ["other", revision], [None, 0]):
        answer = wire.call("subscribe", {"channel": channel, "position": position})
        assert answer["state"]["revision"] == revision


def test_one_who_subscribed_with_a_current_position_gets_diffs(connect: Connect) -> None:
    wire, channel = connect("ada"), fresh()
    wire.call("subscribe", {"channel": channel, "position": [None, 0]})

    enter(connect("bob"), channel)

    assert entries([await_diff(wire, channel)]) == [(1, "entered", "bob")]


def test_subscribing_again_brings_the_state_and_each_diff_once(connect: Connect) -> None:
    wire, bob, channel = connect("ada"), connect("bob"), fresh()
    subscribe(wire, channel)
    subscribe(wire, channel)

    enter(bob, channel)
    first = await_diff(wire, channel)
    leave(bob, channel)
    second = await_diff(wire, channel)

    assert (first["revisions"], second["revisions"]) == ([[1, 1]], [[2, 2]])


def test_unsubscribe_ends_the_diffs(connect: Connect) -> None:
    wire, witness, bob, channel = connect("ada"), connect(), connect("bob"), fresh()
    subscribe(wire, channel)
    subscribe(witness, channel)

    answer = wire.call("unsubscribe", {"channel": channel})
    enter(bob, channel)
    await_diff(witness, channel)
    wire.await_quiet(channel)

    assert answer == {"ok": True}
    assert wire.received("diff") == []


def test_unsubscribe_is_acknowledged_wherever_one_was(connect: Connect) -> None:
    wire = connect("ada")

    for name in (fresh(), "/nowhere/1", "/broken/1"):
        assert wire.call("unsubscribe", {"channel": name}) == {"ok": True}


def test_state_is_acknowledged_with_a_state_for_each_channel(connect: Connect) -> None:
    wire, channel, empty = connect("ada"), fresh(), fresh()
    enter(wire, channel)

    answer = wire.call("state", {"channels": [channel, empty, "/nowhere/1", "/staff/1"]})

    assert answer.keys() == {"ok", "states"}
    assert answer["ok"] is True
    assert answer["states"].keys() == {channel, empty, "/nowhere/1", "/staff/1"}
    assert answer["states"][channel] == subscribe(wire, channel)
    assert answer["states"][empty]["epoch"] is None
    assert answer["states"]["/nowhere/1"] is None
    assert answer["states"]["/staff/1"] is None


def test_state_takes_fifty_channels(connect: Connect) -> None:
    wire, channels = connect("ada"), [fresh() for _ in range(51)]

    answer = wire.call("state", {"channels": channels[:50]})

    assert list(answer["states"]) == channels[:50]
    assert_refused(wire.call("state", {"channels": channels}), "bad_request")


def test_state_subscribes_to_nothing(connect: Connect) -> None:
    wire, witness, channel = connect("ada"), connect(), fresh()
    subscribe(witness, channel)

    read(wire, channel)
    enter(connect("bob"), channel)
    await_diff(witness, channel)
    wire.await_quiet(channel)

    assert wire.received("diff") == []


def test_one_who_is_in_without_subscribing_gets_no_diff(connect: Connect) -> None:
    wire, witness, channel = connect("ada"), connect(), fresh()
    subscribe(witness, channel)

    enter(wire, channel)
    enter(connect("bob"), channel)
    diffs_until(witness, channel, 2)
    wire.await_quiet(channel)

    assert wire.received("diff") == []


def test_an_unknown_event_is_a_bad_request(connect: Connect) -> None:
    wire = connect("ada")

    for event in ("join", "hello", "diff", "message", "__class__", ""):
        assert_refused(wire.call(event, {"channel": fresh()}), "bad_request")


@pytest.mark.parametrize("args", [[], [None], [{}], ["SID"], ["SID", {"channel": "/room/1"}], [[]]])
def test_an_event_named_like_the_sign_for_all_is_a_bad_request(
    connect: Connect, args: list[Any]
) -> None:
    wire = connect("ada")

    answer = wire.emit("*", *[wire.sid if arg == "SID" else arg for arg in args])

    assert_refused(answer.get(timeout=2), "bad_request")


def test_further_arguments_and_unknown_keys_are_ignored(connect: Connect) -> None:
    wire, channel = connect("ada"), fresh()
    named = {"channel": channel, "user_id": "eve", "client_id": "eve", "force": True}

    assert wire.call("enter", named | {"meta": {"a": 1}}, {"meta": None}, 3) == {"ok": True}
    assert wire.call("update", named | {"meta": {"a": 2}}, None) == {"ok": True}
    assert wire.call("heartbeat", {"positions": {}, "more": 1}, 1)["ok"] is True
    assert wire.call("batch", {"ops": [["state", {"channels": [channel], "x": 1}]], "y": 2})["ok"]
    assert meta_of(read(wire, channel), "ada") == {"a": 2}


def test_an_event_that_asks_for_no_acknowledgement_is_done(connect: Connect) -> None:
    wire, watcher, channel = connect("ada"), connect(), fresh()
    subscribe(watcher, channel)

    wire.send_raw(f'42/presence,["enter",{{"channel":"{channel}"}}]')

    assert entries([await_diff(watcher, channel)]) == [(1, "entered", "ada")]
    assert not any(frame.startswith("43") for frame in wire.frames)


# Heartbeat


@pytest.mark.parametrize("payload", [(), (None,), ({},), ({"positions": {}},)])
def test_a_heartbeat_is_acknowledged_with_two_lists(connect: Connect, payload: Any) -> None:
    answer = connect("ada").call("heartbeat", *payload)

    assert answer == {"ok": True, "stale": [], "lost": []}


def test_a_position_of_another_epoch_is_stale(connect: Connect) -> None:
    wire, channel, current = connect("ada"), fresh(), fresh()
    enter(wire, channel)
    enter(wire, current)
    subscribe(wire, channel)
    state = subscribe(wire, current)

    answer = wire.call(
        "heartbeat", {"positions": {channel: ["other", 1], current: position_of(state)}}
    )

    assert answer == {"ok": True, "stale": [channel], "lost": []}


def test_positions_of_channels_not_subscribed_are_ignored(connect: Connect) -> None:
    wire, channel = connect("ada"), fresh()
    enter(wire, channel)

    positions = {name: ["other", 5] for name in (channel, "/nowhere/1", "/broken/1")}

    assert wire.call("heartbeat", {"positions": positions})["stale"] == []


def test_a_second_heartbeat_within_a_second_is_answered_with_empty_lists(
    connect: Connect,
) -> None:
    wire, channel = connect("ada"), fresh()
    enter(wire, channel)
    subscribe(wire, channel)
    beat = {"positions": {channel: ["other", 1]}}

    first, second = wire.call("heartbeat", beat), wire.call("heartbeat", beat)

    assert first["stale"] == [channel]
    assert second == {"ok": True, "stale": [], "lost": []}
    assert eventually(lambda: wire.call("heartbeat", beat)["stale"]) == [channel]


def test_a_heartbeat_takes_fifty_positions(connect: Connect) -> None:
    wire = connect("ada")
    positions = {fresh(): ["x", 1] for _ in range(51)}

    refused = wire.call("heartbeat", {"positions": positions})
    positions.popitem()

    assert_refused(refused, "bad_request")
    assert wire.call("heartbeat", {"positions": positions})["ok"] is True


def test_a_revision_that_was_passed_one_renewal_ago_is_stale(quick: Server, dial: Connect) -> None:
    wire, channel, other = dial(quick.port, "ada"), fresh(), fresh()
    enter(wire, channel)
    old = position_of(subscribe(wire, channel))
    update(wire, channel, {"a": 1})
    enter(wire, other)
    new = position_of(subscribe(wire, other))

    at_once = wire.call("heartbeat", {"positions": {channel: old}})
    positions = {"positions": {channel: old, other: new}}
    in_time = eventually(lambda: wire.call("heartbeat", positions)["stale"])

    assert at_once["stale"] == []
    assert in_time == [channel]


# Diffs


def test_a_diff_has_the_form_that_is_written_down(connect: Connect) -> None:
    watcher, channel = connect(), fresh()
    subscribe(watcher, channel)
    wire = connect("ada", auth={"info": {"name": "Ada"}})

    enter(wire, channel, {"a": 1})
    entered = await_diff(watcher, channel)
    update(wire, channel, {"a": 2})
    updated = await_diff(watcher, channel)
    leave(wire, channel)
    left = await_diff(watcher, channel)

    def common(revision: int, count: int) -> dict[str, Any]:
        return {
            "channel": channel,
            "epoch": entered["epoch"],
            "revisions": [[revision, revision]],
            "count": count,
            "anonymous": 0,
        }

    user = {"id": "ada", "info": {"name": "Ada"}}
    assert isinstance(entered["epoch"], str)
    assert filled(entered) == common(1, 1) | {"entered": [user | {"meta": {"a": 1}, "revision": 1}]}
    assert filled(updated) == common(2, 1) | {"updated": [user | {"meta": {"a": 2}, "revision": 2}]}
    assert filled(left) == common(3, 0) | {"left": [{"id": "ada", "revision": 3}]}


def filled(diff: dict[str, Any]) -> dict[str, Any]:
    """A diff without its empty lists, which may be absent."""
    return {
        key: value
        for key, value in diff.items()
        if value or key not in ("entered", "updated", "left")
    }


def test_changes_that_come_together_travel_together(stock: Server, dial: Connect) -> None:
    watcher, wire, channel = dial(stock.port), dial(stock.port, "ada"), fresh()
    fold = Fold()
    fold.apply_state(subscribe(watcher, channel))
    ops = [["enter", {"channel": channel}]]
    ops += [["update", {"channel": channel, "meta": {"n": number}}] for number in range(29)]

    answer = wire.call("batch", {"ops": ops})
    diffs = diffs_until(watcher, channel, 30)

    for diff in diffs:
        fold.apply_diff(diff)
        assert len(entries([diff])) == 1, "a user is told of once, as they were in the end"
    assert answer["results"] == [{"ok": True}] * 30
    assert revisions(diffs) == list(range(1, 31))
    assert len(diffs) < 30
    assert fold.users == read(wire, channel)["users"]


def test_users_are_listed_in_the_order_of_entering(connect: Connect) -> None:
    channel = fresh()
    tabs = {name: connect(name) for name in ("zoe", "ada", "mia", "bob")}

    for wire in tabs.values():
        enter(wire, channel)

    assert ids(read(tabs["bob"], channel)) == ["zoe", "ada", "mia", "bob"]


def test_a_user_keeps_the_place_while_any_client_stays(connect: Connect) -> None:
    first, second, bob, channel = connect("ada"), connect("ada"), connect("bob"), fresh()
    enter(first, channel)
    enter(bob, channel)
    enter(second, channel, {"a": 1})
    leave(first, channel)

    kept = ids(read(bob, channel))
    leave(second, channel)
    enter(second, channel)
    lost = ids(read(bob, channel))

    assert kept == ["ada", "bob"]
    assert lost == ["bob", "ada"]


@pytest.mark.parametrize("kind", ["diffs at once", "diffs gather"])
def test_no_gap_lies_between_a_state_and_the_diffs_after_it(
    server: Server, stock: Server, dial: Connect, kind: str
) -> None:
    server = stock if kind == "diffs gather" else server
    channel = fresh("mixed")
    movers = [dial(server.port, f"user-{number % 4}") for number in range(5)]
    movers.append(dial(server.port))
    watchers = [dial(server.port) for _ in range(6)]
    together = threading.Barrier(len(movers) + len(watchers))
    states: dict[Wire, dict[str, Any]] = {}
    # Where its first two diffs come in the other order, one who saw it empty asks for the state.
    enter(movers[0], channel)

    def move(wire: Wire) -> None:
        together.wait()
        for number in range(16):
            enter(wire, channel, {"n": number})
            if number % 3 == 2:
                leave(wire, channel)

    def watch(wire: Wire) -> None:
        together.wait()
        for _ in range(watchers.index(wire) * 3):
            wire.await_quiet(fresh())
        states[wire] = subscribe(wire, channel)

    threads = [threading.Thread(target=move, args=(wire,)) for wire in movers]
    threads += [threading.Thread(target=watch, args=(wire,)) for wire in watchers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    final = read(dial(server.port), channel)

    assert len({state["revision"] for state in states.values()}) > 1
    for wire in watchers:
        fold = Fold()
        fold.apply_state(states[wire])
        while list(fold.position or ()) != position_of(final):
            fold.apply_diff(await_diff(wire, channel))
        assert not fold.needs_state
        assert fold.users == final["users"]
        assert (fold.count, fold.anonymous) == (final["count"], final["anonymous"])
        assert wire.received("state") == []


# Being in, with one tab and with two


def test_entering_and_leaving_again_changes_nothing(connect: Connect) -> None:
    watcher, wire, channel = connect(), connect("ada"), fresh()
    subscribe(watcher, channel)

    enter(wire, channel)
    enter(wire, channel)
    enter(wire, channel, {})
    once = read(wire, channel)
    leave(wire, channel)
    leave(wire, channel)
    enter(connect("bob"), channel)
    diffs = diffs_until(watcher, channel, 3)

    assert once["revision"] == 1
    assert [entry[0] for entry in entries(diffs)][-1] == 3
    assert revisions(diffs) == [1, 2, 3]


def test_a_second_tab_changes_nothing(connect: Connect) -> None:
    watcher, first, second, channel = connect(), connect("ada"), connect("ada"), fresh()
    subscribe(watcher, channel)
    enter(first, channel)

    enter(second, channel)
    leave(first, channel)
    both = read(watcher, channel)
    leave(second, channel)
    diffs = diffs_until(watcher, channel, 2)

    assert (both["revision"], both["count"], ids(both)) == (1, 1, ["ada"])
    assert entries(diffs)[-1] == (2, "left", "ada")


def test_leaving_leaves_other_channels_alone(connect: Connect) -> None:
    wire, channel, other = connect("ada"), fresh(), fresh()
    enter(wire, channel)
    enter(wire, other)

    leave(wire, channel)

    assert ids(read(wire, channel)) == []
    assert ids(read(wire, other)) == ["ada"]


# Meta


def test_an_update_replaces_the_meta(connect: Connect) -> None:
    wire, channel = connect("ada"), fresh()
    enter(wire, channel, {"a": 1, "b": {"c": 2}})

    update(wire, channel, {"b": 3})

    assert meta_of(read(wire, channel), "ada") == {"b": 3}


def test_entering_again_with_another_meta_is_an_update(connect: Connect) -> None:
    watcher, wire, channel = connect(), connect("ada"), fresh()
    enter(wire, channel, {"a": 1})
    subscribe(watcher, channel)

    enter(wire, channel, {"a": 2})

    assert entries([await_diff(watcher, channel)]) == [(2, "updated", "ada")]


def test_entering_again_without_a_meta_keeps_it(connect: Connect) -> None:
    wire, channel = connect("ada"), fresh()
    enter(wire, channel, {"a": 1})
    before = read(wire, channel)

    enter(wire, channel)

    assert read(wire, channel) == before


def test_the_same_meta_again_changes_nothing(connect: Connect) -> None:
    wire, channel = connect("ada"), fresh()
    enter(wire, channel, {"a": 1, "b": [True, None]})
    before = read(wire, channel)

    enter(wire, channel, {"b": [True, None], "a": 1})
    update(wire, channel, {"b": [True, None], "a": 1})

    assert read(wire, channel) == before


def test_an_empty_meta_replaces_one_that_is_not(connect: Connect) -> None:
    wire, channel = connect("ada"), fresh()
    enter(wire, channel, {"a": 1})

    enter(wire, channel, {})

    assert meta_of(read(wire, channel), "ada") == {}
    assert read(wire, channel)["revision"] == 2


def test_the_meta_is_that_of_the_tab_that_wrote_last(connect: Connect) -> None:
    first, second, channel = connect("ada"), connect("ada"), fresh()

    enter(first, channel, {"first": 1})
    enter(second, channel, {"second": 1})
    entered = meta_of(read(first, channel), "ada")
    update(first, channel, {"first": 2})
    updated = meta_of(read(first, channel), "ada")

    assert entered == {"second": 1}
    assert updated == {"first": 2}


def test_a_tab_that_gave_no_meta_is_no_writer(connect: Connect) -> None:
    first, second, channel = connect("ada"), connect("ada"), fresh()
    enter(first, channel, {"first": 1})
    before = read(first, channel)

    enter(second, channel)
    entered = read(first, channel)
    leave(second, channel)

    assert entered == before
    assert read(first, channel) == before


def test_when_the_writer_leaves_the_writer_before_shows(connect: Connect) -> None:
    watcher, channel = connect(), fresh()
    tabs = [connect("ada") for _ in range(3)]
    for number, wire in enumerate(tabs):
        enter(wire, channel, {"tab": number})
    subscribe(watcher, channel)

    leave(tabs[2], channel)
    diff = await_diff(watcher, channel)

    assert entries([diff]) == [(4, "updated", "ada")]
    assert diff["updated"][0]["meta"] == {"tab": 1}


def test_when_the_only_writer_leaves_the_meta_is_empty(connect: Connect) -> None:
    first, second, channel = connect("ada"), connect("ada"), fresh()
    enter(first, channel, {"a": 1})
    enter(second, channel)

    leave(first, channel)

    assert read(second, channel)["users"] == [{"id": "ada", "info": {}, "meta": {}}]


def test_a_tab_that_is_no_writer_leaves_without_a_change(connect: Connect) -> None:
    first, second, channel = connect("ada"), connect("ada"), fresh()
    enter(first, channel, {"first": 1})
    enter(second, channel, {"second": 1})
    before = read(second, channel)

    leave(first, channel)

    assert read(second, channel) == before


def test_meta_of_every_kind_of_json_arrives_as_it_was_sent(connect: Connect) -> None:
    wire, watcher, channel = connect("ada"), connect(), fresh()
    subscribe(watcher, channel)
    meta = {
        "": [],
        "text": "</script>\u2028 \U0001f600 \"\\' \x00 é",
        "numbers": [0, -1, 0.5, 1e300, 2**53 - 1],
        "rest": [True, False, None, {}, [[]]],
        "__proto__": {"constructor": 1},
    }

    enter(wire, channel, meta)

    assert await_diff(watcher, channel)["entered"][0]["meta"] == meta
    assert meta_of(read(watcher, channel), "ada") == meta


# Anonymous clients, count-only channels, groups


def test_anonymous_clients_are_counted_and_never_listed(connect: Connect) -> None:
    watcher, first, second, channel = connect(), connect(), connect(), fresh("mixed")
    subscribe(watcher, channel)

    enter(first, channel, {"a": 1})
    enter(second, channel)
    enter(second, channel)
    enter(connect("ada"), channel)
    both = read(watcher, channel)
    leave(first, channel)
    diffs = diffs_until(watcher, channel, 4)

    assert (both["count"], both["anonymous"], ids(both)) == (1, 2, ["ada"])
    assert [(diff["count"], diff["anonymous"]) for diff in diffs][-1] == (1, 1)
    assert entries(diffs) == [(3, "entered", "ada")]
    assert revisions(diffs) == [1, 2, 3, 4]


def test_the_meta_of_an_anonymous_client_is_seen_by_nobody(connect: Connect) -> None:
    wire, channel = connect(), fresh("mixed")
    enter(wire, channel, {"a": 1})
    before = read(wire, channel)

    update(wire, channel, {"a": 2})

    assert read(wire, channel) == before
    assert "users" not in before or before["users"] == []


def test_an_anonymous_client_may_view_what_only_users_enter(connect: Connect) -> None:
    wire, channel = connect(), fresh()
    enter(connect("ada"), channel)

    assert ids(subscribe(wire, channel)) == ["ada"]
    assert_refused(wire.call("enter", {"channel": channel}), "login_required")


def test_no_identity_reaches_one_who_watches_a_count_only_channel(connect: Connect) -> None:
    channel = fresh("count")
    before, after = connect("watcher-1"), connect()
    subscribe(before, channel)
    zebra = connect("zebra-7", auth={"info": {"name": "Quagga"}})

    enter(zebra, channel, {"secret": "okapi"})
    enter(connect("zebra-8"), channel)
    enter(connect(), channel)
    update(zebra, channel, {"secret": "bongo"})
    state = subscribe(after, channel)
    leave(zebra, channel)
    last = state["revision"] + 1
    diffs = diffs_until(before, channel, last)
    diffs_until(after, channel, last)
    before.call("heartbeat", {"positions": {channel: ["x", 1]}})

    assert state == {
        "channel": channel,
        "epoch": state["epoch"],
        "revision": state["revision"],
        "count": 2,
        "anonymous": 1,
        "count_only": True,
    }
    assert read(after, channel).keys() == state.keys()
    keys = {"channel", "epoch", "revisions", "count", "anonymous"}
    assert all(diff.keys() == keys for diff in diffs)
    assert revisions(diffs) == list(range(1, last + 1))
    for wire in (before, after):
        frames = "\n".join(wire.frames).lower()
        for secret in ("zebra", "quagga", "secret", "okapi", "bongo", zebra.sid or ""):
            assert secret.lower() not in frames


def test_only_users_of_a_group_get_in(connect: Connect) -> None:
    channel = fresh("staff")
    staff = connect("ada", auth={"groups": ["sales", "staff"]})

    enter(staff, channel)

    assert ids(subscribe(staff, channel)) == ["ada"]
    for stranger in (connect("bob", auth={"groups": ["sales"]}), connect("bob"), connect()):
        assert_refused(stranger.call("enter", {"channel": channel}), "not_found")
        assert_refused(stranger.call("subscribe", {"channel": channel}), "not_found")


def test_forbidden_looks_like_not_found(connect: Connect) -> None:
    wire, secret, missing = connect("bob"), fresh("staff"), fresh("sta77")
    enter(connect("ada", auth={"groups": ["staff"]}), secret)

    def about(channel: str) -> str:
        answers = [
            wire.call("enter", {"channel": channel, "meta": {"a": 1}}),
            wire.call("subscribe", {"channel": channel, "position": ["x", 1]}),
            wire.call("state", {"channels": [channel]}),
            wire.call("update", {"channel": channel, "meta": {}}),
            wire.call("leave", {"channel": channel}),
            wire.call("unsubscribe", {"channel": channel}),
            wire.call("batch", {"ops": [["enter", {"channel": channel}]]}),
        ]
        return json.dumps(answers).replace(channel, "NAME")

    assert about(secret) == about(missing)


@pytest.mark.parametrize(
    "name", ["/room/007", "/room/٧", "/room/1/", "/room//1", "/room/x", "/room/-1", "/server/1"]
)
def test_a_name_that_no_rule_builds_is_not_found(connect: Connect, name: str) -> None:
    wire = connect("ada")

    assert_refused(wire.call("enter", {"channel": name}), "not_found")
    assert_refused(wire.call("subscribe", {"channel": name}), "not_found")


# Limits


def test_one_user_more_than_the_maximum_is_refused(connect: Connect) -> None:
    channel = fresh("small")
    ada, bob, cleo = connect("ada"), connect("bob"), connect("cleo")
    enter(ada, channel)
    enter(bob, channel)

    refused = cleo.call("enter", {"channel": channel})
    enter(connect("ada"), channel)
    enter(ada, channel, {"a": 1})
    full = ids(subscribe(cleo, channel))
    leave(bob, channel)
    enter(cleo, channel)

    assert_refused(refused, "channel_full")
    assert full == ["ada", "bob"]
    assert ids(read(cleo, channel)) == ["ada", "cleo"]


def test_a_client_is_in_no_more_channels_than_allowed(tight: Server, dial: Connect) -> None:
    wire, (first, second, third) = dial(tight.port, "ada"), [fresh() for _ in range(3)]
    enter(wire, first)
    enter(wire, second)

    refused = wire.call("enter", {"channel": third})
    enter(wire, first, {"a": 1})
    leave(wire, first)
    enter(wire, third)

    assert_refused(refused, "too_many_channels")


def test_a_client_watches_no_more_channels_than_allowed(tight: Server, dial: Connect) -> None:
    wire, (first, second, third) = dial(tight.port, "ada"), [fresh() for _ in range(3)]
    enter(wire, third)
    subscribe(wire, first)
    subscribe(wire, second)

    refused = wire.call("subscribe", {"channel": third})
    subscribe(wire, first)
    wire.call("unsubscribe", {"channel": first})
    subscribe(wire, third)

    assert_refused(refused, "too_many_channels")


def test_a_meta_may_have_just_the_size_that_is_allowed(tight: Server, dial: Connect) -> None:
    wire, channel = dial(tight.port, "ada"), fresh()
    at_limit = {"a": "é" * 25, "b": 1}  # {"a":"…","b":1} is 14 bytes and the text.
    over = {"a": "é" * 25 + "x", "b": 1}

    enter(wire, channel, at_limit)

    assert len(json.dumps(at_limit, ensure_ascii=False, separators=(",", ":")).encode()) == 64
    assert_refused(wire.call("enter", {"channel": channel, "meta": over}), "bad_request")
    assert_refused(wire.call("update", {"channel": channel, "meta": over}), "bad_request")
    assert meta_of(read(wire, channel), "ada") == at_limit


def test_the_form_of_what_was_sent_does_not_count(tight: Server, dial: Connect) -> None:
    wire, channel = dial(tight.port, "ada"), fresh()
    spaced = '{"a"' + " " * 100 + ': "\\u00e9\\u00e9"}'

    answer = wire.emit_text(f'["enter",{{"channel":"{channel}","meta":{spaced}}}]').get(timeout=5)

    assert answer == {"ok": True}
    assert meta_of(read(wire, channel), "ada") == {"a": "éé"}


def test_the_operations_of_a_connection_are_limited(tight: Server, dial: Connect) -> None:
    wire, other, channel = dial(tight.port, "ada"), dial(tight.port, "ada"), fresh()
    for _ in range(8):
        enter(wire, channel)

    refused = wire.call("enter", {"channel": channel})

    assert_refused(refused, "rate_limited")
    assert refused["retry_after"] <= 2
    enter(other, channel)
    eventually(lambda: wire.call("enter", {"channel": channel})["ok"])


def test_heartbeats_are_not_limited(tight: Server, dial: Connect) -> None:
    wire, channel = dial(tight.port, "ada"), fresh()

    for _ in range(20):
        assert wire.call("heartbeat")["ok"]
    for _ in range(8):
        enter(wire, channel)
    limited = wire.call("leave", {"channel": channel})
    beat = wire.call("heartbeat")

    assert_refused(limited, "rate_limited")
    assert beat["ok"]


def test_each_op_of_a_batch_counts(tight: Server, dial: Connect) -> None:
    wire, channel = dial(tight.port, "ada"), fresh()
    ops = [["enter", {"channel": channel, "meta": {"n": number}}] for number in range(10)]

    results = wire.call("batch", {"ops": ops})["results"]

    assert results[:8] == [{"ok": True}] * 8
    assert len(results) == 10
    for result in results[8:]:
        assert_refused(result, "rate_limited")
    assert meta_of(read(dial(tight.port), channel), "ada") == {"n": 7}


def test_nobody_uses_up_what_another_may_do(tight: Server, dial: Connect) -> None:
    victim, rogue, channel = dial(tight.port, "ada"), dial(tight.port, "eve"), fresh()

    for event in ("*", "leave", "connect", "disconnect"):
        for _ in range(3):
            rogue.emit(event, victim.sid, {"channel": channel})
    rogue.call("heartbeat")
    time.sleep(0.2)  # Of what is not acknowledged, nothing says when it is done.

    for _ in range(8):
        enter(victim, channel)


@pytest.mark.parametrize("event", ["enter", "nonsense", "batch"])
def test_what_is_malformed_counts_too(tight: Server, dial: Connect, event: str) -> None:
    wire = dial(tight.port, "ada")

    answers = [wire.call(event, {}) for _ in range(9)]

    for answer in answers[:8]:
        assert_refused(answer, "bad_request")
    assert_refused(answers[8], "rate_limited")


def test_checks_go_in_their_order(tight: Server, dial: Connect) -> None:
    wire, (first, second, third) = dial(tight.port), [fresh("mixed") for _ in range(3)]
    enter(wire, first)
    enter(wire, second)
    large = {"text": "x" * 100}

    form = wire.call("enter", {"channel": "/nowhere/1", "meta": large})
    existence = wire.call("enter", {"channel": "/nowhere/1"})
    view = wire.call("enter", {"channel": "/staff/1"})
    login = wire.call("enter", {"channel": fresh()})
    limit = wire.call("enter", {"channel": third})
    wire.call("leave", {"channel": third})
    rate = wire.call("enter", {"channel": 5})

    assert_refused(form, "bad_request")
    assert_refused(existence, "not_found")
    assert_refused(view, "not_found")
    assert_refused(login, "login_required")
    assert_refused(limit, "too_many_channels")
    assert_refused(rate, "rate_limited")


def test_login_is_asked_for_before_a_full_channel_is_told_of(connect: Connect) -> None:
    channel = fresh("small")
    enter(connect("ada"), channel)
    enter(connect("bob"), channel)

    assert_refused(connect().call("enter", {"channel": channel}), "login_required")


# Batch


def test_a_batch_is_done_in_order(connect: Connect) -> None:
    wire, channel = connect("ada"), fresh()
    name = {"channel": channel}

    answer = wire.call(
        "batch",
        {
            "ops": [
                ["subscribe", name],
                ["enter", name],
                ["update", name | {"meta": {"a": 1}}],
                ["state", {"channels": [channel]}],
                ["leave", name],
                ["update", name | {"meta": {"a": 2}}],
                ["enter", {"channel": "/nowhere/1"}],
                ["unsubscribe", name],
            ]
        },
    )

    assert answer.keys() == {"ok", "results"}
    assert answer["ok"] is True
    subscribed, entered, updated, states, left, refused, missing, unsubscribed = answer["results"]
    assert subscribed["state"]["revision"] == 0
    assert entered == updated == left == unsubscribed == {"ok": True}
    assert meta_of(states["states"][channel], "ada") == {"a": 1}
    assert states["states"][channel]["revision"] == 2
    assert_refused(refused, "not_present")
    assert_refused(missing, "not_found")


@pytest.mark.parametrize(
    "op",
    [
        ["nonsense", {}],
        ["heartbeat", None],
        ["heartbeat", {}],
        ["batch", {"ops": [["leave", {"channel": "/room/1"}]]}],
        ["connect", {}],
        ["disconnect", {}],
        ["enter", {"channel": "no name"}],
        ["enter", {"channel": "/room/1", "meta": None}],
        ["update", {"channel": "/room/1"}],
        ["subscribe", {"channel": "/room/1", "position": [1, "x"]}],
        ["state", {"channels": []}],
        ["enter", None],
        ["enter"],
        ["leave", {"channel": "/room/1"}, 1],
        [5, {}],
        [None, {}],
        [["enter"], {}],
        [{}, {}],
        "enter",
        None,
        {},
        [],
    ],
    ids=json.dumps,
)
def test_a_batch_with_one_op_that_is_none_is_refused_whole(connect: Connect, op: Any) -> None:
    wire, channel = connect("ada"), fresh()
    good = ["enter", {"channel": channel}]

    answer = wire.call("batch", {"ops": [good, op]})

    assert_refused(answer, "bad_request")
    assert read(wire, channel)["revision"] == 0


@pytest.mark.parametrize("payload", [None, [], "x", 1, {}, {"ops": None}, {"ops": {}}, {"ops": []}])
def test_a_batch_needs_a_list_of_ops(connect: Connect, payload: Any) -> None:
    assert_refused(connect("ada").call("batch", payload), "bad_request")


def test_a_batch_takes_a_hundred_ops(connect: Connect) -> None:
    wire, op = connect("ada"), ["unsubscribe", {"channel": fresh()}]

    assert_refused(wire.call("batch", {"ops": [op] * 101}), "bad_request")
    assert wire.call("batch", {"ops": [op] * 100})["results"] == [{"ok": True}] * 100


# Bad payloads

NESTED = '{"a":' * 8 + "{}" + "}" * 8
MIXED = '{"a":' + "[" * 8 + "]" * 8 + "}"

BAD_NAMES = {
    "no text": "5",
    "null": "null",
    "a list": '["/room/1"]',
    "an object": "{}",
    "a boolean": "true",
    "empty": '""',
    "a slash": '"/"',
    "no prefix": '"//1"',
    "no rest": '"/room/"',
    "no second slash": '"/room"',
    "no first slash": '"room/1"',
    "white space before": '" /room/1"',
    "white space after": '"/room/1 "',
    "a narrow space after": '"/mixed/a\u202f"',
    "an escaped no-break space after": '"/mixed/a\\u00a0"',
    "a line separator after": '"/mixed/a\\u2028"',
    "a space in the prefix": '"/ro om/1"',
    "an accent in the prefix": '"/röm/1"',
    "a dot in the prefix": '"/ro.om/1"',
    "NUL": '"/mixed/a\\u0000b"',
    "a bell": '"/mixed/a\\u0007b"',
    "a line break": '"/mixed/a\\nb"',
    "a tab": '"/mixed/a\\tb"',
    "a delete": '"/mixed/a\\u007fb"',
    "a C1 control": '"/mixed/a\\u0085b"',
    "a high surrogate": '"/mixed/a\\ud800b"',
    "a low surrogate": '"/mixed/a\\udc00b"',
    "surrogates the wrong way round": '"/mixed/\\udc00\\ud800"',
    "256 bytes": json.dumps("/mixed/" + "a" * 249),
    "256 bytes in fewer characters": json.dumps("/mixed/" + "é" * 124 + "a"),
    "a megabyte less": json.dumps("/mixed/" + "a" * 900_000),
}

BAD_METAS = {
    "null": "null",
    "a list": "[]",
    "a list of pairs": '[["a",1]]',
    "text": '"{}"',
    "a number": "1",
    "false": "false",
    "NaN": '{"a":NaN}',
    "Infinity": '{"a":[Infinity]}',
    "minus Infinity": '{"a":{"b":-Infinity}}',
    "a number that overflows": '{"a":1e999}',
    "a negative number that overflows": '{"a":-1e999}',
    "objects nine deep": NESTED,
    "lists nine deep": MIXED,
    "objects five hundred deep": '{"a":' * 500 + "1" + "}" * 500,
    "a high surrogate": '{"a":"\\ud800"}',
    "a low surrogate in a key": '{"\\udc00":1}',
    "a surrogate far down": '{"a":[[[[[["x\\udfff"]]]]]]}',
    "1025 bytes": json.dumps({"a": "x" * 1017}),
    "1025 bytes in fewer characters": json.dumps({"a": "é" * 508 + "x"}),
    "many keys": json.dumps({str(number): number for number in range(500)}),
}

BAD_POSITIONS = {
    "no list": "5",
    "text": '"a"',
    "an object": "{}",
    "false": "false",
    "empty": "[]",
    "one item": '["x"]',
    "three items": '["x",1,2]',
    "a number for an epoch": "[1,1]",
    "text for a revision": '["x","1"]',
    "null for a revision": '["x",null]',
    "a boolean for a revision": '["x",true]',
    "a fraction": '["x",1.5]',
    "a negative revision": '["x",-1]',
    "NaN": '["x",NaN]',
    "Infinity": '["x",1e999]',
}

BAD_EVENTS = (
    {
        f"{event} with {name}": f'["{event}"{rest}]'
        for event in ("enter", "leave", "update", "subscribe", "unsubscribe", "state")
        for name, rest in {
            "nothing": "",
            "null": ",null",
            "a list": ',["/room/1"]',
            "text": ',"/room/1"',
            "a number": ",5",
            "true": ",true",
            "an empty object": ",{}",
        }.items()
    }
    | {
        f"{event} of a name that is {name}": f'["{event}",{{"channel":{text},"meta":{{}}}}]'
        for event in ("enter", "subscribe")
        for name, text in BAD_NAMES.items()
    }
    | {
        f"{event} of a name that is NUL": f'["{event}",{{"channel":"/mixed/\\u0000","meta":{{}}}}]'
        for event in ("leave", "update", "unsubscribe")
    }
    | {
        f"{event} with a meta that is {name}": f'["{event}",{{"channel":"CHANNEL","meta":{text}}}]'
        for event in ("enter", "update")
        for name, text in BAD_METAS.items()
    }
    | {"update without a meta": '["update",{"channel":"CHANNEL"}]'}
    | {
        f"subscribe with a position that is {name}": (
            f'["subscribe",{{"channel":"CHANNEL","position":{text}}}]'
        )
        for name, text in BAD_POSITIONS.items()
    }
    | {
        f"heartbeat with a position that is {name}": (
            f'["heartbeat",{{"positions":{{"CHANNEL":{text}}}}}]'
        )
        for name, text in (BAD_POSITIONS | {"null": "null"}).items()
    }
    | {
        f"heartbeat with {name}": f'["heartbeat",{text}]'
        for name, text in {
            "a list": "[]",
            "text": '"x"',
            "a number": "0",
            "false": "false",
            "positions that are a list": '{"positions":[]}',
            "positions that are text": '{"positions":"x"}',
        }.items()
    }
    | {
        f"state of {name}": f'["state",{{"channels":{text}}}]'
        for name, text in {
            "null": "null",
            "text": '"/room/1"',
            "an object": '{"/room/1":1}',
            "nothing": "[]",
            "a number among names": '["/room/1",5]',
            "a malformed name among names": '["/room/1","/room/"]',
            "a list of lists": '[["/room/1"]]',
        }.items()
    }
)


@pytest.fixture
def bystander(connect: Connect) -> Iterator[Wire]:
    """Somebody else, who in the end is still there and still told what goes on."""
    wire, channel = connect(), fresh()
    subscribe(wire, channel)
    yield wire
    enter(connect("somebody"), channel)
    assert entries([await_diff(wire, channel)]) == [(1, "entered", "somebody")]
    assert not wire.closed.is_set()


@pytest.mark.parametrize("name", BAD_EVENTS)
def test_a_bad_payload_is_refused_and_disturbs_nobody(connect: Connect, name: str) -> None:
    wire, bystander, channel = connect("ada"), connect(), fresh()
    subscribe(bystander, channel)
    enter(wire, channel, {"kept": 1})
    await_diff(bystander, channel)

    answer = wire.emit_text(BAD_EVENTS[name].replace("CHANNEL", channel)).get(timeout=5)
    update(wire, channel, {"kept": 2})

    assert_refused(answer, "bad_request")
    assert entries([await_diff(bystander, channel)]) == [(2, "updated", "ada")]


@pytest.mark.parametrize(
    ("text", "blobs"),
    [
        ('["enter",{"_placeholder":true,"num":0}]', 1),
        ('["enter",{"channel":{"_placeholder":true,"num":0}}]', 1),
        ('["enter",{"channel":"CHANNEL","meta":{"_placeholder":true,"num":0}}]', 1),
        ('["enter",{"channel":"CHANNEL","meta":{"a":[{"_placeholder":true,"num":1}]}}]', 2),
        ('["update",{"channel":"CHANNEL","meta":{"a":{"_placeholder":true,"num":0}}}]', 1),
        ('["subscribe",{"channel":"CHANNEL","position":[{"_placeholder":true,"num":0},1]}]', 1),
        ('["heartbeat",{"_placeholder":true,"num":0}]', 1),
        ('["batch",{"ops":[[{"_placeholder":true,"num":0},{}]]}]', 1),
    ],
)
def test_binary_attachments_are_refused_and_disturb_nobody(
    connect: Connect, bystander: Wire, text: str, blobs: int
) -> None:
    wire, channel = connect("ada"), fresh()
    enter(wire, channel, {"kept": 1})

    answer = wire.emit_text(text.replace("CHANNEL", channel), *[b"\x00\xff"] * blobs)

    assert_refused(answer.get(timeout=5), "bad_request")
    assert meta_of(read(wire, channel), "ada") == {"kept": 1}


@pytest.mark.parametrize(
    "text",
    [
        '["enter",{"channel":"/room/1","meta":{"a":' + "9" * 5000 + "}}]",
        '["enter",{"channel":"/room/1","meta":{"a":-' + "9" * 400 + "}}]",
        '["enter",{"channel":"/room/1","meta":' + "[" * 100_000 + "]" * 100_000 + "}]",
        '["subscribe",{"channel":"/room/1","position":["x",' + "9" * 400 + "]}]",
        '["enter",{"channel":',
        "[5,{}]",
        "[null,{}]",
        "[true]",
        "[[],{}]",
        "[{},{}]",
        "[]",
        "{}",
        "null",
        "5",
        '"enter"',
    ],
    ids=lambda text: text[:60],
)
def test_what_no_event_can_be_read_from_disturbs_nobody(
    connect: Connect, bystander: Wire, text: str
) -> None:
    wire = connect("ada")

    answer = wire.emit_text(text)

    eventually(lambda: wire.closed.is_set() or not wire.call("enter", {})["ok"])
    if not answer.empty():
        assert_refused(answer.get(), "bad_request")


@pytest.mark.parametrize(
    "name",
    [
        "/mixed/" + "a" * 248,
        "/mixed/" + "é" * 124,
        "/mixed/a b",
        "/mixed/%41",
        "/mixed/?x=1#y",
        "/mixed/\U0001f600",
        "/mixed/<b>\"'&",
        "/mixed/__proto__",
    ],
)
def test_a_name_may_have_255_bytes_of_any_text(connect: Connect, name: str) -> None:
    wire = connect("ada")

    enter(wire, name)

    assert ids(subscribe(wire, name)) == ["ada"]


@pytest.mark.parametrize(
    "meta", ['{"a":' * 7 + "{}" + "}" * 7, '{"a":' + "[" * 7 + "1" + "]" * 7 + "}"]
)
def test_a_meta_may_be_eight_deep(connect: Connect, meta: str) -> None:
    wire, channel = connect("ada"), fresh()

    answer = wire.emit_text(f'["enter",{{"channel":"{channel}","meta":{meta}}}]').get(timeout=5)

    assert answer == {"ok": True}
    assert meta_of(read(wire, channel), "ada") == json.loads(meta)


def test_a_meta_may_have_1024_bytes(connect: Connect) -> None:
    wire, channel, meta = connect("ada"), fresh(), {"a": "é" * 508}

    enter(wire, channel, meta)

    assert meta_of(read(wire, channel), "ada") == meta


# What the app's callbacks do wrong


@pytest.mark.parametrize("channel", ["/broken/x", "/invalid/x"])
def test_a_channel_whose_callback_fails_is_unavailable(connect: Connect, channel: str) -> None:
    wire = connect("ada")

    assert_refused(wire.call("enter", {"channel": channel}), "unavailable")
    assert_refused(wire.call("subscribe", {"channel": channel}), "unavailable")
    assert_refused(wire.call("state", {"channels": [fresh(), channel]}), "unavailable")
    assert wire.call("leave", {"channel": channel}) == {"ok": True}


# Events with the names of the server's own


@pytest.mark.parametrize(
    "args",
    [
        [],
        [None],
        [{"user": "eve"}],
        [{"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.input": None}, {"user": "eve"}],
        ["transport close"],
        ["client disconnect", 1, 2],
    ],
)
@pytest.mark.parametrize("event", ["connect", "disconnect"])
def test_a_forged_event_is_ignored(connect: Connect, event: str, args: list[Any]) -> None:
    wire, watcher, channel = connect("ada"), connect(), fresh()
    enter(wire, channel, {"a": 1})
    subscribe(watcher, channel)

    forged = wire.emit(event, *args)
    wire.send_raw(f"42/presence,{json.dumps([event, *args])}")
    wire.await_quiet(channel)
    wire.await_quiet(channel)
    update(wire, channel, {"a": 2})
    diffs = diffs_until(watcher, channel, 2)

    assert forged.empty()
    assert entries(diffs) == [(2, "updated", "ada")]
    assert [hello["user_id"] for hello in wire.received("hello")] == ["ada"]
    assert_refused(wire.call("enter", {"channel": "/staff/1"}), "not_found")
    assert ids(read(wire, channel)) == ["ada"]


def test_a_connection_that_connects_twice_disturbs_nobody(
    connect: Connect, bystander: Wire
) -> None:
    wire, channel = connect("ada"), fresh()
    enter(wire, channel)

    wire.send_raw('40/presence,{"user":"eve"}')
    wire.drop()

    assert ids(read(bystander, channel)) in (["ada"], [])


def test_one_who_disconnected_and_connected_again_is_who_they_say_now(connect: Connect) -> None:
    wire, channel = connect("ada"), fresh()
    enter(wire, channel)
    wire.leave_orderly()

    wire.connect({"user": "bob"})
    enter(wire, channel)

    assert eventually(lambda: ids(read(wire, channel)) == ["bob"])


# Being taken out


def test_an_evicted_user_is_told_once_for_each_channel(
    quick: Server, dial: Connect, office: Presence
) -> None:
    inside, watched, both = (fresh() for _ in range(3))
    tabs, bob, witness = (
        [dial(quick.port, "ada") for _ in range(2)],
        dial(quick.port, "bob"),
        fresh(),
    )
    for wire in tabs:
        enter(wire, inside)
        enter(wire, both)
        subscribe(wire, watched)
        subscribe(wire, both)
    enter(bob, both)
    subscribe(bob, both)

    office.evict("ada")

    for wire in tabs:
        evicted = [wire.wait_for("evicted") for _ in range(3)]
        assert sorted(evicted, key=lambda data: str(data["channel"])) == [
            {"channel": name, "reason": "evicted"} for name in sorted([inside, watched, both])
        ]
    eventually(lambda: any(told["count"] == 1 for told in news(bob, both)))
    bob.take("diff", "state")
    update(bob, both, {"a": 1})
    await_diff(bob, both)
    for wire in tabs:
        wire.await_quiet(witness)
        assert wire.received("evicted") == []
        assert 4 not in revisions(wire.received("diff"))
        assert wire.call("heartbeat")["lost"] == []
        assert_refused(wire.call("update", {"channel": inside, "meta": {}}), "not_present")
    assert ids(read(bob, both)) == ["bob"]
    assert bob.received("evicted") == []


def test_an_evicted_user_may_come_back(quick: Server, dial: Connect, office: Presence) -> None:
    wire, channel, other = dial(quick.port, "ada"), fresh(), fresh()
    enter(wire, channel)
    enter(wire, other)
    office.evict("ada", channel)
    wire.wait_for("evicted")

    enter(wire, channel)

    assert ids(read(wire, channel)) == ["ada"]
    assert ids(read(wire, other)) == ["ada"]
    assert wire.received("evicted") == []


def test_clearing_a_channel_takes_out_who_is_in(
    quick: Server, dial: Connect, office: Presence
) -> None:
    wire, watcher, channel = dial(quick.port, "ada"), dial(quick.port), fresh()
    enter(wire, channel)
    state = subscribe(watcher, channel)

    office.channel(channel).clear()

    assert wire.wait_for("evicted") == {"channel": channel, "reason": "cleared"}
    enter(dial(quick.port, "bob"), channel)
    final = read(watcher, channel)
    assert (final["epoch"], final["revision"], ids(final)) == (state["epoch"], 3, ["bob"])
    assert watcher.received("evicted") == []


def test_a_client_that_the_server_takes_out_is_told(
    quick: Server, dial: Connect, office: Presence
) -> None:
    wire, other, channel = dial(quick.port, "ada"), dial(quick.port, "ada"), fresh()
    enter(wire, channel)
    enter(other, channel)

    office.channel(channel).leave(client_id=wire.sid)

    assert wire.wait_for("evicted") == {"channel": channel, "reason": "evicted"}
    assert ids(read(other, channel)) == ["ada"]
    assert_refused(wire.call("update", {"channel": channel, "meta": {}}), "not_present")
    update(other, channel, {"a": 1})


def test_subscribers_learn_what_another_process_did(
    quick: Server, dial: Connect, office: Presence
) -> None:
    watcher, channel = dial(quick.port), fresh()
    subscribe(watcher, channel)

    office.channel(channel).enter("ada", client_id="job", meta={"a": 1})
    (told,) = news(watcher, channel)

    (ada,) = told["entered"] if "entered" in told else told["users"]
    assert told["count"] == 1
    assert ada | {"revision": 1} == {
        "id": "ada",
        "info": {"name": "ada"},
        "meta": {"a": 1},
        "revision": 1,
    }


Serve = Callable[..., tuple[int, Flask, Presence]]


def test_one_who_may_view_no_longer_is_taken_out(serve: Serve, dial: Connect) -> None:
    port, app, presence = serve()
    allowed = {"ada", "bob"}
    presence.channel_config("/door/<name>")(lambda name: ChannelConfig(allowed_user_ids=allowed))
    ada, bob = dial(port, "ada"), dial(port, "bob")
    for wire in (ada, bob):
        enter(wire, "/door/1")
        subscribe(wire, "/door/1")

    allowed.discard("ada")
    with app.app_context():
        presence.forget_config("/door/1")

    assert ada.wait_for("evicted") == {"channel": "/door/1", "reason": "forbidden"}
    assert_refused(ada.call("enter", {"channel": "/door/1"}), "not_found")
    assert entries(diffs_until(bob, "/door/1", 3))[-1] == (3, "left", "ada")
    assert bob.received("evicted") == ada.received("evicted") == []


def test_a_heartbeat_looks_again_at_who_may_be_in(serve: Serve, dial: Connect) -> None:
    port, _, presence = serve(PRESENCE_CONFIG_CACHE_SECONDS=0)
    allowed = {"ada"}
    presence.channel_config("/door/<name>")(lambda name: ChannelConfig(allowed_user_ids=allowed))
    wire = dial(port, "ada")
    enter(wire, "/door/1")
    subscribe(wire, "/door/2")

    allowed.clear()
    answer = wire.call("heartbeat")

    assert answer["ok"]
    evicted = [wire.wait_for("evicted") for _ in range(2)]
    assert {data["channel"] for data in evicted} == {"/door/1", "/door/2"}
    assert {data["reason"] for data in evicted} == {"forbidden"}


def test_subscribers_are_sent_the_state_where_a_channel_turns_count_only_and_back(
    serve: Serve, dial: Connect
) -> None:
    port, app, presence = serve()
    config = {"count_only": False}
    presence.channel_config("/turn/<name>")(lambda name: ChannelConfig(public=True, **config))
    watcher, zebra = dial(port), dial(port, "zebra")
    enter(zebra, "/turn/1")
    subscribe(watcher, "/turn/1")
    marks = []

    for count_only in (True, False):
        config["count_only"] = count_only
        with app.app_context():
            presence.forget_config("/turn/1")
        state = watcher.wait_for("state")
        marks.append(len(watcher.frames))
        assert (state.get("count_only"), "users" in state) == (count_only or None, not count_only)
        update(zebra, "/turn/1", {"count_only": count_only})
        diff = await_diff(watcher, "/turn/1")
        assert ("updated" in diff) is not count_only

    hidden = watcher.frames[marks[0] : marks[1] - 1]
    assert hidden
    assert not any("zebra" in frame for frame in hidden)


# Going away


def test_an_orderly_disconnect_leaves_at_once(server: Server, connect: Connect) -> None:
    watcher, wire, channel = connect(), connect("ada"), fresh()
    enter(wire, channel)
    subscribe(watcher, channel)

    began = time.monotonic()
    wire.leave_orderly()
    diff = await_diff(watcher, channel)

    assert entries([diff]) == [(2, "left", "ada")]
    assert time.monotonic() - began < 3, "it waited for the grace, which is 5 s"
    assert reason_of(server, channel, 2) == "left"


def reason_of(server: Server, channel: str, revision: int) -> Any:
    """Why a change came about, as the server's signal says."""
    return eventually(
        lambda: [
            signal
            for signal in list(server.signals)
            if (signal["channel"], signal["revision"]) == (channel, revision)
        ]
    )[0]["reason"]


def test_a_dropped_user_stays_for_the_grace(quick: Server, dial: Connect) -> None:
    watcher, wire, channel = dial(quick.port), dial(quick.port, "ada"), fresh()
    enter(wire, channel)
    subscribe(watcher, channel)

    began = time.monotonic()
    wire.drop()
    during = read(watcher, channel)
    diff = await_diff(watcher, channel)
    took = time.monotonic() - began

    assert ids(during) == ["ada"]
    assert entries([diff]) == [(2, "left", "ada")]
    assert took >= GRACE - 0.1
    assert reason_of(quick, channel, 2) == "timeout"


@pytest.mark.parametrize("meta", [[], [{"a": 1}]], ids=["without meta", "with meta"])
def test_nobody_sees_a_user_who_reconnects_within_the_grace(
    quick: Server, dial: Connect, meta: list[Any]
) -> None:
    watcher, ada, bob, channel = (
        dial(quick.port),
        dial(quick.port, "ada"),
        dial(quick.port, "bob"),
        fresh(),
    )
    enter(ada, channel, *meta)
    enter(bob, channel)
    subscribe(watcher, channel)

    ada.drop()
    bob.drop()
    again = dial(quick.port, "ada")
    enter(again, channel, *meta)
    diff = await_diff(watcher, channel)  # Bob's grace began after Ada's, and is over.
    enter(dial(quick.port, "cleo"), channel)
    diffs = [diff, *diffs_until(watcher, channel, 4)]

    assert entries(diffs) == [(3, "left", "bob"), (4, "entered", "cleo")]
    assert ids(read(watcher, channel)) == ["ada", "cleo"]
    assert meta_of(read(watcher, channel), "ada") == (meta[0] if meta else {})


def test_closing_one_of_two_tabs_changes_nothing(quick: Server, dial: Connect) -> None:
    watcher, channel = dial(quick.port), fresh()
    first, second, third, bob = [dial(quick.port, user) for user in ("ada", "ada", "ada", "bob")]
    for wire in (first, second, third, bob):
        enter(wire, channel)
    subscribe(watcher, channel)

    first.drop()
    second.leave_orderly()
    bob.drop()
    diff = await_diff(watcher, channel)

    assert entries([diff]) == [(3, "left", "bob")]
    assert ids(read(watcher, channel)) == ["ada"]


def test_a_dropped_anonymous_client_leaves_at_once(connect: Connect) -> None:
    watcher, wire, channel = connect(), connect(), fresh("mixed")
    enter(wire, channel)
    subscribe(watcher, channel)

    began = time.monotonic()
    wire.drop()
    diff = await_diff(watcher, channel)

    assert (diff["revisions"], diff["anonymous"]) == ([[2, 2]], 0)
    assert time.monotonic() - began < 3, "it waited for the grace, which is 5 s"


def test_without_a_grace_a_dropped_user_leaves_at_once(
    start: Callable[..., Server], dial: Connect
) -> None:
    hasty = start(PRESENCE_BATCH_WINDOW=0, PRESENCE_LEAVE_GRACE=0, PRESENCE_PRUNE_INTERVAL=0)
    watcher, wire, channel = dial(hasty.port), dial(hasty.port, "ada"), fresh()
    enter(wire, channel)
    subscribe(watcher, channel)

    began = time.monotonic()
    wire.drop()
    diff = await_diff(watcher, channel)

    assert entries([diff]) == [(2, "left", "ada")]
    assert time.monotonic() - began < 3


def test_leaving_ends_what_a_dropped_connection_still_holds(connect: Connect) -> None:
    watcher, wire, channel = connect(), connect("ada"), fresh()
    enter(wire, channel)
    subscribe(watcher, channel)
    wire.drop()
    again = connect("ada")

    began = time.monotonic()

    def is_out() -> bool:
        leave(again, channel)
        return not ids(read(watcher, channel))

    eventually(is_out, 3)

    assert time.monotonic() - began < 3
    assert entries([await_diff(watcher, channel)]) == [(2, "left", "ada")]


def test_leaving_ends_nothing_that_a_connection_holds(connect: Connect) -> None:
    first, second, channel = connect("ada"), connect("ada"), fresh()
    enter(first, channel)

    leave(second, channel)

    assert ids(read(second, channel)) == ["ada"]


# Silence


def full_beat(wire: Wire, watched: str) -> Any:
    """The answer to the next heartbeat that is looked at, known by a position that is stale."""

    def beat() -> Any:
        answer = wire.call("heartbeat", {"positions": {watched: ["other", 1]}})
        return answer if answer["stale"] else None

    return eventually(beat)


def test_a_silent_client_is_out_and_learns_it_until_it_enters_or_leaves(
    fading: Server, dial: Connect
) -> None:
    watcher, channel = dial(fading.port), fresh()
    ada, bob = dial(fading.port, "ada"), dial(fading.port, "bob")
    for wire in (ada, bob):
        subscribe(wire, channel)
        enter(wire, channel)
    state = subscribe(watcher, channel)

    began = time.monotonic()
    diffs = diffs_until(watcher, channel, 4)
    took = time.monotonic() - began
    lost = [full_beat(wire, channel)["lost"] for wire in (ada, bob)]
    enter(ada, channel)
    leave(bob, channel)
    found = [full_beat(wire, channel)["lost"] for wire in (ada, bob)]

    assert ids(state) == ["ada", "bob"]
    # A diff may also tell what the state had already.
    told = [entry for entry in entries(diffs) if entry[0] > state["revision"]]
    assert sorted(entry[1:] for entry in told) == [("left", "ada"), ("left", "bob")]
    assert took > 1
    assert reason_of(fading, channel, 3) == reason_of(fading, channel, 4) == "timeout"
    assert lost == [[channel], [channel]]
    assert found == [[], []]
    assert ids(read(ada, channel)) == ["ada"]
    assert not ada.closed.is_set()


def test_a_client_that_beats_stays(fading: Server, dial: Connect) -> None:
    wire, silent, channel = dial(fading.port, "ada"), dial(fading.port, "bob"), fresh()
    subscribe(wire, channel)
    enter(wire, channel)
    enter(silent, channel)

    def has_bob_gone() -> Any:
        wire.call("heartbeat")
        return wire.received("diff")[-1].get("left") if wire.received("diff") else None

    left = eventually(has_bob_gone)

    assert [entry["id"] for entry in left] == ["bob"]
    assert ids(read(wire, channel)) == ["ada"]
    assert full_beat(wire, channel)["lost"] == []


# The store down


def test_a_locked_store_is_unavailable_and_nothing_is_half_done(
    start: Callable[..., Server], dial: Connect, shared_store: SharedStore
) -> None:
    server = start()
    wire, watcher, channel = dial(server.port, "ada"), dial(server.port), fresh()
    subscribe(watcher, channel)
    enter(wire, channel, {"a": 1})
    await_diff(watcher, channel)

    with shared_store.locked(server.config["PRESENCE_BACKEND"]):
        for client, event, rest in (
            (wire, "update", {"meta": {"a": 2}}),
            (dial(server.port, "bob"), "enter", {}),
        ):
            began = time.monotonic()
            assert_refused(client.call(event, {"channel": channel} | rest), "unavailable")
            assert time.monotonic() - began < 2.5
        assert wire.call("heartbeat")["ok"]
    # A store that failed is not asked for a moment.
    eventually(lambda: wire.call("state", {"channels": [channel]})["ok"])
    held = read(wire, channel)
    update(wire, channel, {"a": 3})

    assert (held["revision"], meta_of(held, "ada")) == (1, {"a": 1})
    assert entries(diffs_until(watcher, channel, 2)) == [(2, "updated", "ada")]


def test_a_store_that_lost_everything_begins_anew_and_heals(
    start: Callable[..., Server], dial: Connect, shared_store: SharedStore
) -> None:
    server = start(PRESENCE_WORKER_TIMEOUT=3, PRESENCE_PRUNE_INTERVAL=0.5)
    wire, watcher, channel = dial(server.port, "ada"), dial(server.port), fresh()
    enter(wire, channel, {"a": 1})
    before = subscribe(watcher, channel)

    shared_store.lose_everything(server.config["PRESENCE_BACKEND"])
    state = watcher.wait_for("state", lambda state: state["count"] == 1)
    enter(dial(server.port, "bob"), channel)
    after = read(watcher, channel)

    assert after["epoch"] not in (None, before["epoch"])
    assert state["epoch"] == after["epoch"]
    assert ids(after) == ["ada", "bob"]
    assert meta_of(after, "ada") == {"a": 1}
