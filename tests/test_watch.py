"""Comings and goings are found by comparing states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from flask import Flask

from flask_presence import Presence
from flask_presence.backends.base import Backend
from flask_presence.model import State
from flask_presence.tracker.watch import Sight, Watch


class Scene(NamedTuple):
    presence: Presence
    begin: Callable[..., Watch]
    backend: Backend


@pytest.fixture(params=["memory://", "sqlite:///who.sqlite3", "redis"])
def scene(request: pytest.FixtureRequest, make_app: Any) -> Any:
    url = request.param
    if url == "redis":
        url = request.getfixturevalue("redis").url
    app: Flask
    app, presence = make_app(PRESENCE_BACKEND=url)
    tracker = app.extensions["presence"].tracker

    def begin(channel: str | None = None) -> Watch:
        watch: Watch = tracker.watch(channel)
        watch.begin()
        return watch

    with app.app_context():
        yield Scene(presence, begin, tracker.backend)


def told(watch: Watch) -> list[tuple[str, str, str | None, int]]:
    return [shape(sight) for sight in watch.look()]


def shape(sight: Sight) -> tuple[str, str, str | None, int]:
    user_id = None if sight.user is None else sight.user.id
    return sight.kind, sight.state.channel, user_id, sight.number


WATCHED = pytest.mark.parametrize("channel", ["/mixed/a", None])


@WATCHED
def test_who_enters_is_updated_and_leaves_is_seen_once(scene: Scene, channel: str | None) -> None:
    watch = scene.begin(channel)
    a = scene.presence.channel("/mixed/a")

    a.enter("7", client_id="x", meta={"n": 1})
    entered = list(watch.look())
    quiet = told(watch)
    a.update(client_id="x", meta={"n": 2})
    updated = list(watch.look())
    a.leave(client_id="x")
    left = told(watch)

    assert [shape(sight) for sight in entered] == [("entered", "/mixed/a", "7", 1)]
    assert entered[0].user is not None
    assert entered[0].user.meta == {"n": 1}
    assert entered[0].state.count == 1
    assert quiet == []
    assert [shape(sight) for sight in updated] == [("updated", "/mixed/a", "7", 1)]
    assert updated[0].user is not None
    assert updated[0].user.meta == {"n": 2}
    assert left == [("left", "/mixed/a", "7", 1)]
    assert told(watch) == []


@WATCHED
def test_anonymous_clients_are_told_as_a_number(scene: Scene, channel: str | None) -> None:
    watch = scene.begin(channel)
    a = scene.presence.channel("/mixed/a")

    for client in ("x", "y", "z"):
        a.enter(None, client_id=client)
    entered = told(watch)
    a.leave(client_id="x")

    assert entered == [("entered", "/mixed/a", None, 3)]
    assert told(watch) == [("left", "/mixed/a", None, 1)]


@WATCHED
def test_who_was_there_before_is_only_told_when_they_leave(
    scene: Scene, channel: str | None
) -> None:
    a = scene.presence.channel("/mixed/a")
    a.enter("7", client_id="x")
    watch = scene.begin(channel)

    at_first = told(watch)
    a.leave(client_id="x")

    assert at_first == []
    assert told(watch) == [("left", "/mixed/a", "7", 1)]


@WATCHED
def test_one_who_comes_as_another_goes_is_told(scene: Scene, channel: str | None) -> None:
    a = scene.presence.channel("/mixed/a")
    a.enter("7", client_id="x")
    watch = scene.begin(channel)

    a.leave(client_id="x")
    a.enter("8", client_id="y")

    assert told(watch) == [("left", "/mixed/a", "7", 1), ("entered", "/mixed/a", "8", 1)]


def test_other_channels_are_not_looked_at(scene: Scene) -> None:
    watch = scene.begin("/room/1")

    scene.presence.channel("/room/2").enter("7", client_id="x")

    assert told(watch) == []


def test_of_all_channels_new_ones_are_seen_too(scene: Scene) -> None:
    watch = scene.begin()

    scene.presence.channel("/room/1").enter("7", client_id="x")
    scene.presence.channel("/room/2").enter("7", client_id="x")

    assert told(watch) == [("entered", "/room/1", "7", 1), ("entered", "/room/2", "7", 1)]


def test_a_channel_that_empties_and_fills_again_is_seen_both_times(scene: Scene) -> None:
    watch = scene.begin()
    room = scene.presence.channel("/room/1")
    kinds = []

    for _ in range(2):
        room.enter("7", client_id="x")
        kinds += [kind for kind, *_ in told(watch)]
        room.leave(client_id="x")
        kinds += [kind for kind, *_ in told(watch)]

    assert kinds == ["entered", "left", "entered", "left"]


def test_a_channel_forgotten_meanwhile_shows_everyone_leaving(scene: Scene) -> None:
    scene.presence.channel("/room/1").enter("7", client_id="x")
    watch = scene.begin()

    scene.presence.clear()
    scene.backend.drop_empty_channels(0)

    assert told(watch) == [("left", "/room/1", "7", 1)]


def test_while_nobody_moves_no_state_is_read(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.presence.channel("/room/1").enter("7", client_id="x")
    watches = [scene.begin(), scene.begin("/room/1")]
    reads: list[str] = []
    state = watches[0]._states.state

    def count(channel: str) -> State:
        reads.append(channel)
        return state(channel)

    monkeypatch.setattr(watches[0]._states, "state", count)

    quiet = [told(watch) for watch in watches]
    assert quiet == [[], []]
    assert reads == []

    scene.presence.channel("/room/1").enter("8", client_id="y")
    assert [told(watch) for watch in watches] == [[("entered", "/room/1", "8", 1)]] * 2
    assert reads == ["/room/1", "/room/1"]


def test_a_watch_of_one_channel_meets_the_dead(make_app: Any) -> None:
    app, presence = make_app(PRESENCE_TIMEOUT=0.2, PRESENCE_HEARTBEAT_INTERVAL=0.1)
    tracker = app.extensions["presence"].tracker
    now = [1000.0]
    tracker.backend._clock = lambda: now[0]
    with app.app_context():
        presence.channel("/room/1").enter("7", client_id="x")
        watch = tracker.watch("/room/1")
        watch.begin()

        now[0] += 1

        assert told(watch) == [("left", "/room/1", "7", 1)]
