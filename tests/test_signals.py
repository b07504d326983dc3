"""Signals: what the app's own code is told, once, after the commit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Flask, current_app, g, has_app_context

from flask_presence import Presence, signals
from flask_presence.backends.memory import MemoryBackend

MakeApp = Callable[..., tuple[Flask, Presence]]

ALL = {
    "user_entered": signals.user_entered,
    "user_left": signals.user_left,
    "presence_changed": signals.presence_changed,
    "channel_occupied": signals.channel_occupied,
    "channel_vacated": signals.channel_vacated,
}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


Heard = list[tuple[str, dict[str, Any]]]


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
    with app.app_context():
        yield app.extensions["test"]


@pytest.fixture
def heard(app: Flask) -> Iterator[Heard]:
    """Every signal of the app, with its arguments, in order."""
    told: Heard = []

    def listen(name: str) -> Callable[..., None]:
        def receiver(sender: Any, **about: Any) -> None:
            assert sender is app
            told.append((name, about))

        return receiver

    with ExitStack() as stack:
        for name, signal in ALL.items():
            stack.enter_context(signal.connected_to(listen(name), sender=app))
        yield told


def names(heard: Heard) -> list[str]:
    """The names of the signals heard so far, which are then forgotten."""
    told = [name for name, _ in heard]
    heard.clear()
    return sorted(told)


def test_each_signal_tells_its_arguments(presence: Presence, heard: Heard) -> None:
    channel = presence.channel("/room/1")

    entered = channel.enter("7", client_id="a")

    assert dict(heard) == {
        "user_entered": {"channel": "/room/1", "user_id": "7", "change": entered},
        "presence_changed": {"channel": "/room/1", "change": entered},
        "channel_occupied": {"channel": "/room/1"},
    }

    heard.clear()
    left = channel.leave(client_id="a")

    assert dict(heard) == {
        "user_left": {"channel": "/room/1", "user_id": "7", "change": left},
        "presence_changed": {"channel": "/room/1", "change": left},
        "channel_vacated": {"channel": "/room/1"},
    }


def test_each_signal_is_sent_exactly_once(presence: Presence, heard: Heard) -> None:
    presence.channel("/room/1").enter("7", client_id="a")

    assert names(heard) == ["channel_occupied", "presence_changed", "user_entered"]


def test_what_is_not_visible_sends_no_signal(presence: Presence, heard: Heard) -> None:
    channel = presence.channel("/room/1")
    channel.enter("7", client_id="a")
    heard.clear()

    channel.enter("7", client_id="b")
    channel.enter("7", client_id="b")
    channel.touch(client_id="a")
    channel.leave(client_id="a")
    channel.leave(client_id="a")
    channel.state()

    assert heard == []


def test_an_update_is_a_change_alone(presence: Presence, heard: Heard) -> None:
    channel = presence.channel("/room/1")
    channel.enter("7", client_id="a")
    heard.clear()

    channel.update(client_id="a", meta={"n": 1})

    assert names(heard) == ["presence_changed"]


def test_only_users_enter_and_leave_by_name(presence: Presence, heard: Heard) -> None:
    channel = presence.channel("/mixed/x")

    channel.enter(None, client_id="a")
    assert names(heard) == ["channel_occupied", "presence_changed"]

    channel.enter(None, client_id="b")
    assert names(heard) == ["presence_changed"]

    channel.leave(client_id="a")
    assert names(heard) == ["presence_changed"]

    channel.leave(client_id="b")
    assert names(heard) == ["channel_vacated", "presence_changed"]


def test_occupied_and_vacated_count_users_and_anonymous_clients_together(
    presence: Presence, heard: Heard
) -> None:
    channel = presence.channel("/mixed/x")

    channel.enter("7", client_id="a")
    channel.enter(None, client_id="b")
    channel.leave(client_id="a")
    channel.enter("8", client_id="c")
    channel.leave(client_id="b")
    told = names(heard)

    assert told.count("channel_occupied") == 1
    assert "channel_vacated" not in told

    channel.leave(client_id="c")

    assert names(heard).count("channel_vacated") == 1


def test_clearing_vacates_once(presence: Presence, heard: Heard) -> None:
    channel = presence.channel("/room/1")
    for user in ("7", "8", "9"):
        channel.enter(user, client_id=user)
    heard.clear()

    channel.clear()

    assert [about["user_id"] for name, about in heard if name == "user_left"] == ["7", "8", "9"]
    assert names(heard).count("channel_vacated") == 1


def test_changes_are_told_in_the_order_of_their_revisions(presence: Presence, heard: Heard) -> None:
    channel = presence.channel("/room/1")
    for user in ("7", "8"):
        channel.enter(user, client_id=user)
    channel.clear()

    told = [about["change"].revision for name, about in heard if name == "presence_changed"]

    assert told == [1, 2, 3, 4]


@pytest.mark.parametrize("meet", ["read", "count", "prune", "enter"])
def test_whoever_meets_what_has_run_out_tells_of_it(
    presence: Presence, clock: Clock, heard: Heard, meet: str
) -> None:
    channel = presence.channel("/small/x")
    for user in ("7", "8"):
        channel.enter(user, client_id=user)
    clock.now += 61
    heard.clear()

    act: dict[str, Callable[[], object]] = {
        "read": channel.state,
        "count": lambda: channel.count,
        "prune": presence.prune,
        "enter": lambda: channel.enter("9", client_id="9"),
    }
    act[meet]()

    left = [about for name, about in heard if name == "user_left"]
    assert [about["user_id"] for about in left] == ["7", "8"]
    assert {about["change"].reason for about in left} == {"timeout"}
    assert names(heard).count("channel_vacated") == 1


@pytest.mark.parametrize("name", ALL)
def test_a_receiver_that_raises_is_logged_and_keeps_no_other_from_running(
    app: Flask, presence: Presence, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    reached: list[str] = []

    def before(sender: Any, **about: Any) -> None:
        reached.append("before")

    def raises(sender: Any, **about: Any) -> None:
        raise RuntimeError("a receiver was told to raise")

    def after(sender: Any, **about: Any) -> None:
        reached.append("after")

    signal, channel = ALL[name], presence.channel("/room/1")
    with ExitStack() as stack:
        for receiver in (before, raises, after):
            stack.enter_context(signal.connected_to(receiver, sender=app))
        entered = channel.enter("7", client_id="a")
        left = channel.leave(client_id="a")

    assert entered is not None
    assert left is not None
    assert sorted(set(reached)) == ["after", "before"]
    assert "a receiver was told to raise" in caplog.text
    assert "/room/1" in caplog.text
    assert channel.state().revision == 2


def test_a_receiver_runs_in_an_app_context(app: Flask, clock: Clock) -> None:
    seen: list[Any] = []

    def receiver(sender: Any, **about: Any) -> None:
        seen.append((current_app._get_current_object(), "mine" in g))

    tracker = app.extensions["presence"].tracker
    with signals.presence_changed.connected_to(receiver, sender=app):
        with app.app_context():
            g.mine = True
            app.extensions["test"].channel("/room/1").enter("7", client_id="a")
        clock.now += 61
        assert not has_app_context()
        tracker.prune()

    assert seen == [(app, False), (app, False)]


def test_a_receiver_s_context_is_torn_down(app: Flask, presence: Presence) -> None:
    happened: list[str] = []
    app.teardown_appcontext(lambda error: happened.append("teardown"))

    def receiver(sender: Any, **about: Any) -> None:
        happened.append("receiver")

    channel = presence.channel("/room/1")
    happened.clear()
    with signals.presence_changed.connected_to(receiver, sender=app):
        channel.enter("7", client_id="a")

    assert happened == ["receiver", "teardown"]


def test_a_receiver_finds_the_change_made_and_may_make_others(
    app: Flask, presence: Presence
) -> None:
    counts: list[int] = []

    def receiver(sender: Any, channel: str, change: Any) -> None:
        here = presence.channel(channel)
        counts.append(here.count)
        if change.user_id == "7":
            here.enter("8", client_id="b")

    with signals.presence_changed.connected_to(receiver, sender=app):
        presence.channel("/room/1").enter("7", client_id="a")

    assert counts == [1, 2]


def test_a_receiver_runs_outside_any_lock(app: Flask, presence: Presence) -> None:
    channel = presence.channel("/room/1")
    finished: list[bool] = []

    def enter_elsewhere() -> None:
        with app.app_context():
            presence.channel("/room/1").enter("8", client_id="b")

    def receiver(sender: Any, channel: str, user_id: str, change: Any) -> None:
        if user_id == "7":
            thread = threading.Thread(target=enter_elsewhere, daemon=True)
            thread.start()
            thread.join(5)
            finished.append(not thread.is_alive())

    with signals.user_entered.connected_to(receiver, sender=app):
        channel.enter("7", client_id="a")

    assert finished == [True]


def test_a_receiver_of_one_app_hears_nothing_of_another(make_app: MakeApp, heard: Heard) -> None:
    other, presence = make_app()

    with other.app_context():
        presence.channel("/room/1").enter("7", client_id="a")

    assert heard == []


def test_a_connected_client_s_changes_are_told_by_its_process_alone(serve: Any, dial: Any) -> None:
    store = {"PRESENCE_BACKEND": "sqlite:///both.sqlite3"}
    (port, here, _), _ = serve(**store), serve(**store)
    told: list[tuple[Any, str]] = []

    def receiver(sender: Any, channel: str, change: Any) -> None:
        told.append((sender, change.kind))

    wire = dial(port, "7")
    with signals.presence_changed.connected_to(receiver):
        wire.call("enter", {"channel": "/room/1"})
        wire.call("enter", {"channel": "/room/1"})
        wire.call("leave", {"channel": "/room/1"})

    assert told == [(here, "entered"), (here, "left")]


def test_of_many_threads_that_enter_at_once_one_occupies_the_channel(
    app: Flask, heard: Heard
) -> None:
    presence, barrier = app.extensions["test"], threading.Barrier(8)

    def enter(number: int) -> None:
        barrier.wait(10)
        with app.app_context():
            channel = presence.channel("/room/1")
            channel.enter("7", client_id=str(number))
            channel.enter(str(number), client_id=f"own {number}")

    threads = [threading.Thread(target=enter, args=(100 + number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    entered = [about["user_id"] for name, about in heard if name == "user_entered"]
    assert sorted(entered) == [*(str(100 + number) for number in range(8)), "7"]
    assert names(heard).count("channel_occupied") == 1
