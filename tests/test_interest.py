"""Which channels a process listens to: while somebody here is told of them, and a little longer."""

from __future__ import annotations

import threading

import pytest
from wire import PATIENCE

from flask_presence import BackendUnavailable
from flask_presence.backends.base import Listener
from flask_presence.delivery.interest import LINGER_SECONDS, Interest

ROOM = "/room/1"


class Asked(Listener):
    """Remembers what it was asked for."""

    def __init__(self) -> None:
        self.heard: set[str] = set()
        self.is_broken = False

    def add(self, channel: str) -> None:
        self.heard.add(channel)
        if self.is_broken:
            raise BackendUnavailable("no events")

    def discard(self, channel: str) -> None:
        self.heard.remove(channel)

    def run(self) -> None: ...

    def close(self) -> None: ...


class Here:
    """A process with audiences, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.audiences: set[str] = set()
        self.listener = Asked()
        self.interest = Interest(
            self.listener,
            has_audience=lambda channel: channel in self.audiences,
            clock=lambda: self.now,
        )

    def join(self, channel: str = ROOM) -> None:
        with self.interest.of(channel):
            self.audiences.add(channel)

    def sweep_after(self, seconds: float) -> set[str]:
        self.now += seconds
        self.interest.sweep()
        return self.listener.heard


@pytest.fixture
def here() -> Here:
    return Here()


def test_a_channel_is_listened_to_before_its_audience_is_joined(here: Here) -> None:
    with here.interest.of(ROOM):
        assert here.listener.heard == {ROOM}


def test_a_channel_with_an_audience_is_listened_to_for_ever(here: Here) -> None:
    here.join()

    for _ in range(5):
        assert here.sweep_after(LINGER_SECONDS + 1) == {ROOM}


def test_a_channel_is_listened_to_a_little_longer_than_it_has_an_audience(here: Here) -> None:
    here.join()
    here.sweep_after(100)
    here.audiences.clear()

    assert here.sweep_after(LINGER_SECONDS - 1) == {ROOM}
    assert here.sweep_after(2) == set()
    assert here.sweep_after(100) == set()


def test_whoever_comes_back_in_time_is_heard_without_a_break(here: Here) -> None:
    here.join()
    here.audiences.clear()
    here.sweep_after(LINGER_SECONDS - 1)

    here.join()
    here.audiences.clear()

    assert here.sweep_after(LINGER_SECONDS - 1) == {ROOM}


def test_a_channel_is_not_given_up_while_somebody_joins(here: Here) -> None:
    here.join()
    here.audiences.clear()

    with here.interest.of(ROOM):
        assert here.sweep_after(LINGER_SECONDS + 1) == {ROOM}


def test_a_channel_that_could_not_be_listened_to_is_given_up_like_any(here: Here) -> None:
    here.listener.is_broken = True
    with pytest.raises(BackendUnavailable), here.interest.of(ROOM):
        pytest.fail("the audience was joined")

    assert here.sweep_after(LINGER_SECONDS + 1) == set()
    assert here.interest._needed == {}
    assert here.interest._joining == {}


def test_whoever_joins_while_a_channel_is_given_up_asks_for_it_after_that(here: Here) -> None:
    here.join()
    here.audiences.clear()
    is_discarding, may_go_on = threading.Event(), threading.Event()
    order: list[str] = []

    def discard(channel: str) -> None:
        is_discarding.set()
        assert may_go_on.wait(PATIENCE)
        order.append("discarded")

    here.listener.discard = discard  # type: ignore[method-assign]
    here.listener.add = lambda channel: order.append("added")  # type: ignore[method-assign]
    here.now += LINGER_SECONDS + 1
    sweeping = threading.Thread(target=here.interest.sweep)
    joining = threading.Thread(target=here.join)
    sweeping.start()
    assert is_discarding.wait(PATIENCE)
    joining.start()
    joining.join(0.05)
    may_go_on.set()
    sweeping.join(PATIENCE)
    joining.join(PATIENCE)

    assert order == ["discarded", "added"]


def test_without_a_listener_nothing_is_asked_for() -> None:
    interest = Interest(None, has_audience=lambda channel: False, clock=lambda: 0.0)

    with interest.of(ROOM):
        interest.sweep()
