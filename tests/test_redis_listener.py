"""The connection on which Redis brings events: what it hears, and what it says it missed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import Redis
from wire import PATIENCE, eventually

from flask_presence import BackendUnavailable
from flask_presence.backends.base import Command
from flask_presence.backends.redis import RedisBackend, connect, listener
from flask_presence.backends.redis.listener import RedisListener
from flask_presence.model import Change, Member

ROOM = "/room/1"
OTHER = "/room/2"


class Heard:
    """Ears that remember, and let a test wait."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.missing: list[str] = []
        self.messages: list[str] = []
        self.commands = 0
        self._more = threading.Condition()

    def changed(self, changes: list[Change]) -> None:
        with self._more:
            self.changes += changes
            self._more.notify_all()

    def told(self) -> None:
        with self._more:
            self.commands += 1
            self._more.notify_all()

    def heard(self, message: str) -> None:
        with self._more:
            self.messages.append(message)
            self._more.notify_all()

    def missed(self, channel: str) -> None:
        with self._more:
            self.missing.append(channel)
            self._more.notify_all()

    def wait(self, fact: Any) -> None:
        with self._more:
            assert self._more.wait_for(fact, PATIENCE)

    def users(self) -> list[tuple[str, str | None]]:
        return [(change.channel, change.user_id) for change in self.changes]


@pytest.fixture
def backend(redis: Redis) -> Iterator[RedisBackend]:
    backend = RedisBackend(connect(redis.url))
    yield backend
    backend.close()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def listening(
    backend: RedisBackend, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RedisListener]:
    """A listener that runs, and connects again at once."""
    monkeypatch.setattr(listener, "RECONNECT_SECONDS", 0.01)
    found = backend.listen(heard)
    assert isinstance(found, RedisListener)
    running = threading.Thread(target=found.run, daemon=True)
    running.start()
    heard.wait(lambda: heard.commands == 1)
    yield found
    found.close()
    running.join(PATIENCE)
    assert not running.is_alive()


@pytest.fixture
def client(redis: Redis) -> Iterator[Any]:
    with redis.client() as client:
        yield client


def enter(backend: RedisBackend, user: str, channel: str = ROOM) -> None:
    backend.enter(Member(channel, user, user), epoch="e", timeout=60)


def cut(client: Any) -> None:
    """Cut the listener's connection."""
    assert client.client_kill_filter(_type="pubsub") == 1


def events_of(channel: str) -> str:
    return f"presence:0:diff:{channel}"


def test_all_changes_after_the_return_of_add_are_heard(
    backend: RedisBackend, listening: RedisListener, heard: Heard
) -> None:
    for number in range(50):
        channel = f"/room/{number}"
        listening.add(channel)
        enter(backend, "ann", channel)

    heard.wait(lambda: len(heard.changes) == 50)
    assert heard.users() == [(f"/room/{number}", "ann") for number in range(50)]
    assert heard.missing == []


def test_changes_of_one_channel_are_heard_in_the_order_of_revisions(
    backend: RedisBackend, listening: RedisListener, heard: Heard
) -> None:
    listening.add(ROOM)

    threads = [
        threading.Thread(target=lambda n=n: [enter(backend, f"{n}-{i}") for i in range(25)])  # type: ignore[misc]
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    heard.wait(lambda: len(heard.changes) == 100)
    assert [change.revision for change in heard.changes] == list(range(1, 101))


def test_what_others_are_asked_for_is_not_heard(
    redis: Redis, backend: RedisBackend, listening: RedisListener, heard: Heard
) -> None:
    listening.add(ROOM)
    of_another_number = RedisBackend(connect(redis.url.replace("/0", "/1")))
    of_another_app = RedisBackend(connect(redis.url), prefix="presence2")

    for other in (of_another_number, of_another_app):
        enter(other, "eve")
        other.tell(Command("reload"))
        other.close()
    enter(backend, "bob", OTHER)
    enter(backend, "ann")

    heard.wait(lambda: heard.changes)
    assert heard.users() == [(ROOM, "ann")]
    assert heard.commands == 1


def test_a_command_is_heard(backend: RedisBackend, listening: RedisListener, heard: Heard) -> None:
    backend.tell(Command("reload"))

    heard.wait(lambda: heard.commands == 2)


def test_a_command_that_is_to_wake_nobody_is_not_heard(
    backend: RedisBackend, listening: RedisListener, heard: Heard
) -> None:
    listening.add(ROOM)

    backend.tell(Command("reload"), wake=False)
    enter(backend, "ann")

    heard.wait(lambda: heard.changes)
    assert heard.commands == 1
    assert len(backend.renew("w1", 60, cursor=0).commands) == 1


def test_whoever_discards_a_channel_and_adds_it_at_once_goes_on_hearing(
    backend: RedisBackend, listening: RedisListener, heard: Heard
) -> None:
    for number in range(100):
        listening.add(ROOM)
        enter(backend, str(number))
        listening.discard(ROOM)

    heard.wait(lambda: len(heard.changes) == 100)
    assert heard.missing == []


def test_a_message_is_heard(backend: RedisBackend, listening: RedisListener, heard: Heard) -> None:
    backend.publish("hello")

    heard.wait(lambda: heard.messages == ["hello"])


def test_a_discarded_channel_is_no_longer_subscribed(listening: RedisListener, client: Any) -> None:
    listening.add(ROOM)
    assert client.pubsub_numsub(events_of(ROOM)) == [(events_of(ROOM), 1)]

    listening.discard(ROOM)

    eventually(lambda: client.pubsub_numsub(events_of(ROOM)) == [(events_of(ROOM), 0)])


def test_after_a_cut_just_the_channels_of_before_are_missed_and_heard_again(
    backend: RedisBackend, listening: RedisListener, heard: Heard, client: Any
) -> None:
    listening.add(ROOM)
    listening.add("/room/3")
    listening.add(OTHER)
    listening.discard("/room/3")

    cut(client)
    heard.wait(lambda: len(heard.missing) == 2)
    listening.add("/room/4")
    enter(backend, "ann")
    enter(backend, "bob", OTHER)

    heard.wait(lambda: len(heard.changes) == 2)
    assert sorted(heard.missing) == [ROOM, OTHER]
    assert heard.commands == 2


def test_a_cut_that_only_whoever_adds_notices_is_no_less_a_cut(
    backend: RedisBackend,
    listening: RedisListener,
    heard: Heard,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener, "PING_SECONDS", 0.05)
    listening.add(ROOM)

    connection = listening._pubsub.connection

    def fail(*command: str) -> None:
        del connection.pack_command
        raise BrokenPipeError

    connection.pack_command = fail
    listening.add(OTHER)

    heard.wait(lambda: ROOM in heard.missing)
    enter(backend, "ann")
    heard.wait(lambda: (ROOM, "ann") in heard.users())


def test_a_thousand_channels_are_all_heard_again_after_a_cut(
    backend: RedisBackend, listening: RedisListener, heard: Heard, client: Any
) -> None:
    channels = [f"/room/{number}" for number in range(1000)]
    for channel in channels:
        listening.add(channel)

    cut(client)

    heard.wait(lambda: len(heard.missing) == 1000)
    assert sorted(heard.missing) == sorted(channels)
    assert len(client.pubsub_channels("presence:0:diff:*")) == 1000


def test_nothing_grows_with_channels_that_came_and_went(
    listening: RedisListener, heard: Heard, client: Any
) -> None:
    for number in range(200):
        listening.add(f"/room/{number}")
        listening.discard(f"/room/{number}")
    cut(client)
    heard.wait(lambda: heard.commands == 2)
    listening.add(ROOM)
    listening.discard(ROOM)

    eventually(lambda: client.pubsub_channels("presence:0:diff:*") == [])
    assert listening._pubsub.channels.keys() == {b"presence:0:commands", b"presence:0:messages"}
    assert not listening._confirmed
    assert not listening._unconfirmed
    assert not listening._cut
    assert heard.missing == []


def test_a_frozen_server_is_noticed_and_its_channels_are_missed(
    redis: Redis,
    listening: RedisListener,
    heard: Heard,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener, "PING_SECONDS", 0.1)
    monkeypatch.setattr(listener, "CONFIRM_SECONDS", 0.1)
    listening.add(ROOM)

    redis.send(signal.SIGSTOP)
    with pytest.raises(BackendUnavailable, match="sends no events just now"):
        listening.add(OTHER)
    eventually(lambda: listening._pubsub is None)
    redis.send(signal.SIGCONT)

    heard.wait(lambda: ROOM in heard.missing)


def test_a_server_that_started_again_has_begun_anew_and_one_that_cut_a_connection_has_not(
    backend: RedisBackend, listening: RedisListener, heard: Heard, redis: Redis, client: Any
) -> None:
    """Invariant 7."""
    enter(backend, "ada")
    cut(client)
    heard.wait(lambda: heard.commands == 2)
    enter(backend, "bob")
    assert not backend.has_begun_anew()

    redis.stop()
    redis.start()
    heard.wait(lambda: heard.commands == 3)
    enter(backend, "cyd")

    assert backend.has_begun_anew()
    assert not backend.has_begun_anew()


def test_a_listener_waits_for_a_server_that_is_not_there_yet(
    tmp_path: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "RECONNECT_SECONDS", 0.01)
    first = Redis(tmp_path)
    first.stop()
    backend = RedisBackend(connect(first.url))
    listening = backend.listen(heard)
    running = threading.Thread(target=listening.run, daemon=True)
    running.start()

    second = Redis(tmp_path, port=first.port)

    heard.wait(lambda: heard.commands)
    listening.add(ROOM)
    listening.close()
    running.join(PATIENCE)
    backend.close()
    second.stop()
