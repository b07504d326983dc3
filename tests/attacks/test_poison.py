"""Rows in the store that somebody else wrote: no browser is cut off by them, and no loop ends."""

from __future__ import annotations

import json
import sqlite3
from abc import ABC, abstractmethod
from contextlib import closing
from itertools import count
from typing import Any, ClassVar

import pytest
import redis
import sqlalchemy as sa
from watched import Connect, Ground, Start, Watched
from wire import PATIENCE, Wire, eventually

_numbers = count(1)

DEEP = '{"a":' * 3000 + "1" + "}" * 3000
TEXTS = {
    "NaN": '{"a":NaN}',
    "Infinity": '{"a":[-Infinity]}',
    "a number that overflows": '{"a":1e999}',
    "a giant integer": '{"a":' + "9" * 5000 + "}",
    "deep nesting": DEEP,
    "broken JSON": '{"a":',
    "no object": "[1,2]",
    "a surrogate": '{"a":"\\ud800"}',
    "nothing": "",
    "a huge text": json.dumps({"a": "x" * 2_000_000}),
}

NUMBERS = {
    "text": "x",
    "a negative number": -5,
    "an infinite number": 9e999,
    "a fraction": 1.5,
    "too large a number": 2**60,
}


class Poisoner(ABC):
    """Somebody who can write to the store."""

    ROWS: ClassVar[dict[str, Any]]
    COMMANDS: ClassVar[list[Any]]

    @abstractmethod
    def set_info(self, channel: str, user: str, text: str) -> None: ...

    @abstractmethod
    def set_counter(self, channel: str, name: str, value: Any) -> None: ...

    @abstractmethod
    def break_row(self, channel: str, user: str, kind: str) -> None: ...

    @abstractmethod
    def give_command(self, command: Any) -> None: ...

    @abstractmethod
    def break_leases(self) -> None: ...


class RedisPoisoner(Poisoner):
    COMMANDS: ClassVar[list[Any]] = [
        "{",
        "[]",
        '["x",1,"[]"]',
        '[1,"soon","[\\"evict\\",null,null,null,null]"]',
        '[1,1,"[null,null,null,null,null]"]',
        '[1,1,"[\\"evict\\",5,null,null,null]"]',
        '[1,1,"[\\"evict\\"]"]',
        '[1,1,"[\\"nonsense\\",null,null,null,null]"]',
        b"\xff\xfe",
    ]
    ROWS: ClassVar[dict[str, Any]] = {
        "no row": "[",
        "nothing": "",
        "too few fields": "c\0ada\0",
        "too many fields": "c\0ada\0{}\0\0001\0001\0000\0w\0000\0more\0",
        "a field without an end": "c\0ada\0{}\0\0001\0001\0000\0w\0000",
        "a place that is none": "c\0ada\0{}\0\0001.5\0001\0000\0w\0000\0",
        "a huge place": f"c\0ada\0{{}}\0\0{'9' * 5000}\0001\0000\0w\0000\0",
        "an id that is none": "c\0a\nb\0{}\0\0001\0001\0000\0w\0000\0",
        "a client without a name": "\0ada\0{}\0\0001\0001\0000\0w\0000\0",
        "no text": b"\xff\xfe",
    }

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url)

    def set_info(self, channel: str, user: str, text: str) -> None:
        fields = (self.client.hget(f"presence:users:{channel}", user) or b"").split(b"\0")
        fields[2] = text.encode()
        self.client.hset(f"presence:users:{channel}", user, b"\0".join(fields))

    def set_counter(self, channel: str, name: str, value: Any) -> None:
        self.client.hset(f"presence:channel:{channel}", name, str(value))

    def break_row(self, channel: str, user: str, kind: str) -> None:
        self.client.hset(f"presence:users:{channel}", user, self.ROWS[kind])

    def give_command(self, command: Any) -> None:
        self.client.zadd("presence:commands", {command: 10**13 + next(_numbers)})

    def break_leases(self) -> None:
        self.client.hset("presence:workers", "ghost", "alive:soon:never")


class SQLitePoisoner(Poisoner):
    COMMANDS: ClassVar[list[Any]] = [
        ("soon", "evict", None, None, None, None),
        (1, b"\xff", None, None, None, None),
        (1, "evict", b"\xff", None, None, None),
        (1, "nonsense", None, None, None, None),
    ]
    ROWS: ClassVar[dict[str, Any]] = {
        "text for a place": ("place", "x"),
        "an infinite place": ("place", 9e999),
        "bytes for an info": ("info", b"\xff\xfe"),
        "bytes for a client id": ("client_id", b"\xff\xfe"),
        "an id that is none": ("user_id", "a\x00\nb"),
        "a very long id": ("user_id", "x" * 100_000),
        "text for a deadline": ("deadline", "soon"),
    }

    def __init__(self, url: str) -> None:
        self._file = sa.make_url(url).database or ""

    def _run(self, statement: str, *values: Any) -> None:
        with closing(sqlite3.connect(self._file, timeout=10)) as connection, connection:
            connection.execute(statement, values)

    def set_info(self, channel: str, user: str, text: str) -> None:
        where = "WHERE channel = ? AND user_id = ?"
        self._run(f"UPDATE presence_members SET info = ? {where}", text, channel, user)

    def set_counter(self, channel: str, name: str, value: Any) -> None:
        self._run(f"UPDATE presence_channels SET {name} = ? WHERE name = ?", value, channel)

    def break_row(self, channel: str, user: str, kind: str) -> None:
        column, value = self.ROWS[kind]
        where = "WHERE channel = ? AND user_id = ?"
        self._run(f"UPDATE presence_members SET {column} = ? {where}", value, channel, user)

    def give_command(self, command: Any) -> None:
        values = (10**13 + next(_numbers), *command)
        self._run("INSERT INTO presence_commands VALUES (?,?,?,?,?,?,?)", *values)

    def break_leases(self) -> None:
        self._run("INSERT INTO presence_workers VALUES ('ghost', 'alive', 'soon', 'never')")


@pytest.fixture(scope="module")
def server(start: Start) -> Watched:
    """A server that is quick to look after things."""
    return start(
        PRESENCE_WORKER_TIMEOUT=1.5,
        PRESENCE_PRUNE_INTERVAL=0.2,
        PRESENCE_LEAVE_GRACE=0.2,
        PRESENCE_RATE_LIMIT=None,
        RECONCILE_SECONDS=1.0,
    )


@pytest.fixture(scope="module")
def poisoner(server: Watched) -> Poisoner:
    url = server.config["PRESENCE_BACKEND"]
    return RedisPoisoner(url) if url.startswith("redis") else SQLitePoisoner(url)


@pytest.fixture
def channel() -> str:
    return f"/room/{next(_numbers)}"


@pytest.fixture
def ada(connect: Connect, channel: str) -> Wire:
    wire = connect("ada", auth={"info": {"name": "Ada"}})
    assert wire.call("enter", {"channel": channel, "meta": {"n": 1}})["ok"]
    return wire


@pytest.fixture
def watcher(connect: Connect, channel: str, ada: Wire) -> Wire:
    wire = connect("watcher")
    assert wire.call("subscribe", {"channel": channel})["ok"]
    return wire


def is_json_of_browsers(text: str) -> bool:
    """Is this a frame whose JSON a browser can read?"""

    def refuse(word: str) -> None:
        raise ValueError(word)

    start = min((text.find(sign) for sign in "[{" if sign in text), default=len(text))
    try:
        json.loads(text[start:] or "0", parse_constant=refuse)
        text.encode()
    except (ValueError, RecursionError):
        return False
    return True


def state_of(wire: Wire, channel: str) -> dict[str, Any]:
    answer = wire.call("state", {"channels": [channel]})
    assert answer["ok"], answer
    state: dict[str, Any] = answer["states"][channel]
    return state


def ids_in(wire: Wire, channel: str) -> set[str]:
    return {user["id"] for user in state_of(wire, channel)["users"]}


def assert_everything_goes_on(server: Watched, wire: Wire, other: Wire) -> None:
    """A user of another channel comes and is pruned, and everybody got what browsers can read."""
    channel = f"/room/{next(_numbers)}"
    assert wire.call("subscribe", {"channel": channel})["ok"]
    assert other.call("enter", {"channel": channel})["ok"]
    wire.wait_for("diff", lambda diff: diff["channel"] == channel and diff.get("entered"))
    other.drop()
    wire.wait_for("diff", lambda diff: diff["channel"] == channel and diff.get("left"))
    assert all(map(is_json_of_browsers, wire.frames))
    assert not wire.closed.is_set()
    assert server.process.poll() is None


def test_infos_that_no_browser_can_read_are_shown_empty(
    server: Watched, poisoner: Poisoner, connect: Connect, channel: str, watcher: Wire
) -> None:
    users = [f"user-{number}" for number in range(len(TEXTS))]
    for user in users:
        wire = connect(user, auth={"info": {"name": user}})
        assert wire.call("enter", {"channel": channel})["ok"]

    for user, text in zip(users, TEXTS.values(), strict=True):
        poisoner.set_info(channel, user, text)
    state = state_of(watcher, channel)

    infos = {user["id"]: user["info"] for user in state["users"]}
    assert infos == {"ada": {"name": "Ada"}} | {user: {} for user in users}
    assert_everything_goes_on(server, watcher, connect("cyd"))
    eventually(lambda: server.has_logged("An info or meta in the store is none"))


@pytest.mark.parametrize("name", ["revision", "count", "anonymous", "writes"])
def test_a_channel_with_a_number_that_is_none_begins_anew(
    server: Watched, poisoner: Poisoner, connect: Connect, name: str
) -> None:
    channels = [f"/room/{next(_numbers)}" for _ in NUMBERS]
    ada, bob, watcher = connect("ada"), connect("bob"), connect()
    for channel, value in zip(channels, NUMBERS.values(), strict=True):
        assert ada.call("enter", {"channel": channel})["ok"]
        assert watcher.call("subscribe", {"channel": channel})["ok"]
        poisoner.set_counter(channel, name, value)

    for channel in channels:
        assert bob.call("enter", {"channel": channel})["ok"]

    for channel in channels:
        eventually(lambda channel=channel: ids_in(watcher, channel) == {"ada", "bob"})
    assert_everything_goes_on(server, watcher, connect("cyd"))


def test_rows_that_are_none_disturb_nobody(
    server: Watched, poisoner: Any, connect: Connect
) -> None:
    channels = [f"/room/{next(_numbers)}" for _ in poisoner.ROWS]
    ada, bob, watcher = connect("ada"), connect("bob"), connect()
    for channel, kind in zip(channels, poisoner.ROWS, strict=True):
        assert ada.call("enter", {"channel": channel})["ok"]
        assert bob.call("enter", {"channel": channel})["ok"]
        assert watcher.call("subscribe", {"channel": channel})["ok"]
        poisoner.break_row(channel, "ada", kind)

    for channel in channels:
        eventually(lambda channel=channel: ids_in(watcher, channel) == {"ada", "bob"})
    assert_everything_goes_on(server, watcher, connect("cyd"))


def test_a_row_that_is_none_keeps_no_dead_worker_s_users(
    server: Watched,
    start: Start,
    poisoner: Any,
    dial: Connect,
    channel: str,
    watcher: Wire,
) -> None:
    other = start(PRESENCE_BACKEND=server.config["PRESENCE_BACKEND"], PRESENCE_WORKER_TIMEOUT=1.5)
    gone, hidden = dial(other.port, "gone"), dial(other.port, "hidden")
    assert gone.call("enter", {"channel": channel})["ok"]
    assert hidden.call("enter", {"channel": "/room/0"})["ok"]

    poisoner.break_row("/room/0", "hidden", next(iter(poisoner.ROWS)))
    other.kill()

    watcher.wait_for("diff", lambda diff: [e["id"] for e in diff.get("left", [])] == ["gone"])


def test_a_row_that_is_none_keeps_nobody_who_dropped_in_other_channels(
    server: Watched, poisoner: Any, connect: Connect, channel: str, watcher: Wire
) -> None:
    damaged, gone = f"/room/{next(_numbers)}", connect("gone")
    for name in (damaged, channel):
        assert gone.call("enter", {"channel": name})["ok"]
    poisoner.break_row(damaged, "gone", next(iter(poisoner.ROWS)))

    gone.drop()

    watcher.wait_for("diff", lambda diff: [e["id"] for e in diff.get("left", [])] == ["gone"])
    assert not server.has_logged("Could not give up closed connections")


def test_commands_that_are_none_are_passed_over(
    server: Watched, start: Start, poisoner: Poisoner, ada: Wire, watcher: Wire
) -> None:
    other = start(PRESENCE_BACKEND=server.config["PRESENCE_BACKEND"])
    for command in poisoner.COMMANDS:
        poisoner.give_command(command)

    other.post("/people/ada?reload", {})

    assert ada.closed.wait(PATIENCE)
    eventually(lambda: server.has_logged("a command that presence did not give"))
    assert not watcher.closed.is_set()
    assert not server.has_logged("Could not renew the lease")


def test_a_lease_that_is_none_keeps_no_dead_worker_s_users(
    server: Watched, start: Start, poisoner: Poisoner, dial: Connect, watcher: Wire, channel: str
) -> None:
    other = start(PRESENCE_BACKEND=server.config["PRESENCE_BACKEND"], PRESENCE_WORKER_TIMEOUT=1.5)
    assert dial(other.port, "gone").call("enter", {"channel": channel})["ok"]
    poisoner.break_leases()

    other.kill()

    watcher.wait_for("diff", lambda diff: [e["id"] for e in diff.get("left", [])] == ["gone"])
    assert ids_in(watcher, channel) == {"ada"}


PUBLISHED = {
    "broken JSON": "{",
    "no change": '["epoch",[5]]',
    "too few fields": '["epoch",[["entered",9]]]',
    "NaN for a revision": '["epoch",[["entered",NaN,"eve","{}","{}",1,0,false]]]',
    "Infinity for a count": '["epoch",[["entered",9,"eve","{}","{}",1e999,0,false]]]',
    "an unknown kind": '["epoch",[["stolen",9,"eve","{}","{}",1,0,false]]]',
    "an id that is none": '["epoch",[["entered",9,"a\\u0000","{}","{}",1,0,false]]]',
    "no text": b"\xff\xfe",
}

MESSAGES = [
    "{",
    "[]",
    '["state",{"forged":1},"CHANNEL","subscribed"]',
    '["ping",NaN,"CHANNEL","subscribed"]',
    '["ping",1e999,"CHANNEL","subscribed"]',
    '["ping",{},"CHANNEL","nobody"]',
    '["ping",{},{},"subscribed"]',
    b"\xff\xfe",
]


@pytest.mark.parametrize("ground", [Ground("gevent", "redis")], indirect=True)
def test_events_that_presence_did_not_publish_are_passed_over(
    server: Watched, poisoner: Any, connect: Connect, watcher: Wire, channel: str
) -> None:
    database = server.config["PRESENCE_BACKEND"].rpartition("/")[2]
    watcher.take("diff")

    for text in PUBLISHED.values():
        poisoner.client.publish(f"presence:{database}:diff:{channel}", text)
    for text in MESSAGES:
        text = text if isinstance(text, bytes) else text.replace("CHANNEL", channel)
        poisoner.client.publish(f"presence:{database}:messages", text)

    assert_everything_goes_on(server, watcher, connect("cyd"))
    assert server.has_logged("that presence did not publish")
    assert not watcher.received("ping")
    assert {"forged": 1} not in watcher.received("state")
    assert not [diff for diff in watcher.received("diff") if diff["channel"] == channel]
    assert not server.has_logged("stopped hearing")


@pytest.mark.parametrize("ground", [Ground("gevent", "redis")], indirect=True)
def test_a_damaged_channel_spares_no_dead_worker(
    server: Watched, poisoner: Any, connect: Connect, channel: str, ada: Wire
) -> None:
    """Whoever meets damage does not take it for a store that was away."""
    poisoner.break_row(channel, "ada", "no row")

    # A script meets it, not the process.
    assert connect("ada").call("enter", {"channel": channel})["ok"]

    eventually(lambda: server.has_logged(f"{channel} is damaged"))
    assert server.get("/spares").json() is False
