"""What is particular to the backend on Redis: its indexes, its keys' lives, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import Redis
from redis_audit import LASTING, audit

from flask_presence import BackendUnavailable, ChannelFull
from flask_presence.backends.base import SLICE, Command, Key
from flask_presence.backends.redis import RedisBackend, connect
from flask_presence.errors import ClientIdTaken, NotPresent, WorkerGone
from flask_presence.model import Member
from flask_presence.testing.contract import Clock

KEPT = 86_400.0
LEASE = 15.0
ROOM = "/room/1"
CHANNELS = [ROOM, "/room/[(-+", "/raum/é 😀{x}*"]
WORKERS = ["w1", "w:2"]
USERS = ["ann", "é", None, None]
CLIENTS = ["c1", "c2", "epoch", "w:w1", "\\u0041", "['"]
TEXTS = ["{}", '{"a":"\\u2028\\"\\\\"}', '{"n":12345678901234567,"e":[],"o":{}}']

REFUSALS = (WorkerGone, ClientIdTaken, ChannelFull, NotPresent)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    server = Redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def client(server: Redis) -> Iterator[Any]:
    """A client of an empty server."""
    with server.client() as client:
        client.flushall()
        client.config_set("maxmemory", 0)
        yield client


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def backend(server: Redis, client: Any, clock: Clock) -> Iterator[RedisBackend]:
    backend = RedisBackend(connect(server.url), kept=KEPT, clock=clock)
    backend.check()
    yield backend
    backend.close()


def member(
    client: str,
    user: str | None = "ann",
    *,
    channel: str = ROOM,
    info: str = "{}",
    meta: str | None = None,
) -> Member:
    return Member(channel, client, user, info, meta)


def begin(backend: RedisBackend, worker: str = "w1") -> None:
    assert backend.renew(worker, LEASE, create=True).held


def end_all(backend: RedisBackend) -> int:
    """Prune until nothing is due, and how many slices it took."""
    slices = 1
    while backend.prune().more:
        slices += 1
        assert slices < 100, "pruning finds no end"
    return slices


# The indexes


def holders() -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        st.builds(lambda worker: {"worker": worker}, st.sampled_from(WORKERS)),
        st.builds(lambda timeout: {"timeout": timeout}, st.sampled_from([1.0, 20.0, 5e6])),
    )


CHANNEL = st.sampled_from(CHANNELS)
CLIENT = st.sampled_from(CLIENTS)
WORKER = st.sampled_from(WORKERS)
USER = st.sampled_from(USERS)
TEXT = st.sampled_from(TEXTS)

MEMBERS = st.builds(Member, CHANNEL, CLIENT, USER, TEXT, st.none() | TEXT)

STEPS: st.SearchStrategy[Callable[[RedisBackend, Clock], Any]] = st.one_of(
    st.builds(
        lambda who, how, most: lambda b, _: b.enter(who, epoch="1e3", max_users=most, **how),
        MEMBERS,
        holders(),
        st.sampled_from([None, None, 1]),
    ),
    st.builds(
        lambda name, some, worker: (
            lambda b, _: b.hold(
                name, [Member(name, *rest) for _, *rest in some], epoch="007", worker=worker
            )
        ),
        CHANNEL,
        st.lists(st.tuples(CHANNEL, CLIENT, USER, TEXT, st.none() | TEXT), max_size=3),
        WORKER,
    ),
    st.builds(
        lambda name, who, meta: lambda b, _: b.update(name, who, meta), CHANNEL, CLIENT, TEXT
    ),
    st.builds(
        lambda name, some, user, worker: (
            lambda b, _: b.leave(name, some, user_id=user, worker=worker)
        ),
        CHANNEL,
        st.lists(CLIENT, max_size=3),
        USER,
        st.none() | WORKER,
    ),
    st.builds(lambda name, who: lambda b, _: b.touch(name, who, 9.0), CHANNEL, CLIENT),
    st.builds(
        lambda worker, some, after: (
            lambda b, _: b.release(worker, [Key(*key) for key in some], after=after)
        ),
        WORKER,
        st.lists(st.tuples(CHANNEL, CLIENT), max_size=4),
        st.sampled_from([0.0, 5.0]),
    ),
    st.builds(
        lambda name, user, who: lambda b, _: b.evict(name, user_id=user, client_id=who),
        CHANNEL,
        USER,
        st.none() | CLIENT,
    ),
    st.builds(lambda worker: lambda b, _: b.renew(worker, LEASE, create=True), WORKER),
    st.builds(lambda worker: lambda b, _: b.end_worker(worker, after=4.0), WORKER),
    st.builds(lambda name: lambda b, _: b.settle(name), CHANNEL),
    st.builds(lambda: lambda b, _: b.prune()),
    st.builds(lambda: lambda b, _: b.drop_empty_channels(3.0)),
    st.builds(lambda name: lambda b, _: b.reset_epoch(name, "1e3", "NaN"), CHANNEL),
    st.builds(
        lambda seconds: lambda _, clock: clock.advance(seconds),
        st.sampled_from([1.0, 10.0, 16.0, -30.0, -5000.0]),
    ),
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=st.lists(STEPS, min_size=5, max_size=30))
def test_after_every_step_each_index_says_what_the_rows_say(
    steps: list[Callable[[RedisBackend, Clock], Any]],
    backend: RedisBackend,
    client: Any,
    clock: Clock,
) -> None:
    client.flushall()
    for worker in WORKERS:
        begin(backend, worker)

    for step in steps:
        try:
            step(backend, clock)
        except REFUSALS:
            continue
        audit(client)


def test_once_nobody_is_left_a_handful_of_keys_is(
    backend: RedisBackend, client: Any, clock: Clock
) -> None:
    for worker in WORKERS:
        begin(backend, worker)
    for number in range(60):
        channel = CHANNELS[number % 3]
        user = None if number % 5 == 0 else f"user {number % 7}"
        how: dict[str, Any] = {"worker": WORKERS[number % 2]} if number % 4 else {"timeout": 30.0}
        backend.enter(member(f"c{number}", user, channel=channel), epoch="e", **how)
    backend.tell(Command("evict", channel=ROOM, user_id="ann"))

    clock.advance(700)
    end_all(backend)
    end_all(backend)
    dropped = backend.drop_empty_channels(0)

    left = {key for key in audit(client).keys if not key.startswith("presence:reply:")}
    assert dropped == 3
    assert left <= LASTING
    assert client.hgetall("presence:workers") == {}
    assert client.zcard("presence:commands") == 1


# Odd input


def test_a_user_may_have_more_clients_than_lua_can_unpack(
    backend: RedisBackend, client: Any, clock: Clock
) -> None:
    begin(backend)
    backend.enter(member("c0"), epoch="e", worker="w1")
    copy_client(client, 9000)
    assert backend.count(ROOM).state is not None
    clock.advance(LEASE + 1)

    changes = backend.prune().changes

    assert [(change.kind, change.reason) for change in changes] == [("left", "worker_lost")]
    audit(client)


def copy_client(client: Any, times: int) -> None:
    """Give ann, who is in with one client of w1, many more: one by one would take long."""
    _, _, rest = client.hget(f"presence:users:{ROOM}", "ann").partition("\0")
    names = [f"c{number}" for number in range(times)]
    client.hset(f"presence:users:{ROOM}", "ann", "".join(f"{name}\0{rest}" for name in names))
    client.hset(f"presence:clients:{ROOM}", mapping=dict.fromkeys(names, "uann"))
    client.zadd("presence:held:w1", {f"{ROOM}\0{name}": 0 for name in names})
    client.hset(f"presence:channel:{ROOM}", mapping={"clients": times, "w:w1": times})


def test_many_clients_in_one_call_are_no_trouble(backend: RedisBackend, client: Any) -> None:
    begin(backend)
    members = [member(f"c{number}", f"user {number}") for number in range(3000)]

    backend.hold(ROOM, members, epoch="e", worker="w1")
    backend.leave(ROOM, [one.client_id for one in members[1:]])

    assert backend.count(ROOM).state.count == 1  # type: ignore[union-attr]
    audit(client)


def test_only_a_user_who_left_is_written_down_as_seen(backend: RedisBackend, client: Any) -> None:
    begin(backend)
    for name in ("c1", "c2"):
        backend.enter(member(name, "ann"), epoch="e", worker="w1")
    backend.enter(member("c3", None), epoch="e", worker="w1")

    backend.leave(ROOM, ["c1", "c3"])
    before = client.exists("presence:seen")
    backend.leave(ROOM, ["c2"])

    assert before == 0
    assert client.zrange("presence:seen", 0, -1) == ["ann"]
    assert client.pttl("presence:seen") >= backend.last_seen_retention * 1000


def test_a_client_that_leaves_by_its_name_and_by_its_user_s_leaves_once(
    backend: RedisBackend, client: Any
) -> None:
    backend.enter(member("c1"), epoch="e", timeout=60)

    changes = backend.leave(ROOM, ["c1"], user_id="ann")

    assert [change.kind for change in changes] == ["left"]
    audit(client)


def test_a_client_that_is_named_twice_in_one_call_is_in_once(
    backend: RedisBackend, client: Any
) -> None:
    begin(backend)

    twice = [
        member("c1", None),
        member("c1", None),
        member("c1", "ann"),
        member("c2"),
        member("c2"),
    ]
    changes = backend.hold(ROOM, twice, epoch="e", worker="w1")

    assert [change.user_id for change in changes] == [None, "ann"]
    audit(client)


@pytest.mark.parametrize("epoch", ["1e3", "0x10", "007", "NaN", "null", "1", "w:x"])
def test_an_epoch_that_looks_like_a_number_stays_text(backend: RedisBackend, epoch: str) -> None:
    begin(backend)

    (change,) = backend.enter(member("c1"), epoch=epoch, worker="w1")
    state = backend.state(ROOM).state

    assert change.epoch == epoch
    assert state is not None
    assert state.epoch == epoch
    assert backend.renew("w1", LEASE, channels=[ROOM]).positions[ROOM].epoch == epoch


# Lost keys


def populate(backend: RedisBackend) -> None:
    begin(backend)
    backend.enter(member("c1"), epoch="e1", worker="w1")
    backend.enter(member("c2", "bob"), epoch="e1", timeout=60)
    backend.enter(member("c3", None), epoch="e1", worker="w1")
    backend.enter(member("c4", channel="/room/2"), epoch="e1", timeout=60)
    backend.leave("/room/2", ["c4"])
    backend.tell(Command("reload", user_id="ann"))


KEYS = [
    "channel:/room/1",
    "users:/room/1",
    "clients:/room/1",
    "deadlines:/room/1",
    "channel:/room/2",
    "held:w1",
    "user:ann",
    "user:bob",
    "client:c1",
    "client:c2",
    "occupied",
    "vacated",
    "due",
    "ahead",
    "workers",
    "holders",
    "commands",
]


@pytest.mark.parametrize("key", KEYS)
def test_whichever_key_is_lost_a_reconcile_and_a_touch_bring_everyone_back(
    backend: RedisBackend, client: Any, clock: Clock, key: str
) -> None:
    populate(backend)
    assert client.delete(f"presence:{key}") == 1

    if not backend.renew("w1", LEASE).held:
        begin(backend)
    held = backend.members_of_worker("w1", after=None, limit=SLICE)
    missing = {Key(ROOM, "c1"), Key(ROOM, "c3")} - set(held)
    members = [member(one, {"c1": "ann", "c3": None}[one]) for _, one in sorted(missing)]
    backend.hold(ROOM, members, epoch="e2", worker="w1")
    if not backend.touch(ROOM, "c2", 60):
        backend.enter(member("c2", "bob"), epoch="e2", timeout=60)

    state = backend.state(ROOM).state
    assert state is not None
    assert {user.id for user in state.users} == {"ann", "bob"}
    assert state.anonymous == 1
    assert backend.channels() == {ROOM: 2}
    assert backend.channels_of(user_id="ann") == [ROOM]
    assert backend.channels_of(client_id="c1") == [ROOM]
    clock.advance(61)
    end_all(backend)
    assert backend.channels() == {}


@pytest.mark.parametrize("kind", ["users", "clients", "deadlines"])
def test_a_channel_that_lost_one_of_its_keys_is_lost(
    backend: RedisBackend, client: Any, kind: str
) -> None:
    populate(backend)

    client.delete(f"presence:{kind}:{ROOM}")

    state = backend.count(ROOM).state
    assert state is not None
    assert state.epoch is None


@pytest.mark.parametrize("key", KEYS)
def test_whichever_key_is_lost_every_verb_still_answers(
    backend: RedisBackend, client: Any, clock: Clock, key: str
) -> None:
    populate(backend)
    client.delete(f"presence:{key}")

    backend.touch(ROOM, "c2", 60)
    backend.release("w1", [Key(ROOM, "c3")], after=1)
    backend.leave(ROOM, ["c1"], user_id="ann")
    backend.evict(ROOM)
    backend.drop_empty_channels(0)
    clock.advance(100)
    end_all(backend)

    assert backend.channels() == {}
    assert backend.channels_of(user_id="bob") == []


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda c: c.zadd("presence:due", {"/no/such": 1}), id="due-of-none"),
        pytest.param(lambda c: c.zadd("presence:due", {ROOM: 1}), id="due-too-early"),
        pytest.param(lambda c: c.zadd("presence:ahead", {"/no/such": 9e15}), id="ahead-of-none"),
        pytest.param(lambda c: c.zadd("presence:ahead", {ROOM: 9e15}), id="ahead-for-nothing"),
        pytest.param(lambda c: c.sadd("presence:holders", "w9"), id="holder-of-none"),
        pytest.param(
            lambda c: (
                c.sadd("presence:holders", "w9"),
                c.zadd("presence:held:w9", {f"/no/such{n}\0c": 0 for n in range(350)}),
            ),
            id="held-in-no-channel",
        ),
        pytest.param(
            lambda c: (
                c.hset("presence:channel:/room/1", "w:w9", 350),
                c.sadd("presence:holders", "w9"),
                c.zadd("presence:held:w9", {f"{ROOM}\0x{n}": 0 for n in range(350)}),
            ),
            id="held-without-rows",
        ),
        pytest.param(
            lambda c: (
                c.hincrby("presence:channel:/room/1", "waiting", 1),
                c.zadd("presence:deadlines:/room/1", {"x": 1}),
                c.zadd("presence:due", {ROOM: 1}),
            ),
            id="a-deadline-without-a-row",
        ),
    ],
)
def test_pruning_ends_whatever_the_indexes_say(
    backend: RedisBackend, client: Any, clock: Clock, spoil: Callable[[Any], Any]
) -> None:
    populate(backend)

    spoil(client)
    end_all(backend)
    slices = end_all(backend)

    assert slices == 1
    clock.advance(100)
    end_all(backend)
    assert backend.channels() == {}
    assert client.zcard("presence:due") == client.zcard("presence:ahead") == 0


# How long keys live


def test_every_key_expires_by_itself_unless_it_is_written_or_reconciled(
    backend: RedisBackend, client: Any
) -> None:
    populate(backend)
    lives = {key: client.pttl(key) for key in client.scan_iter() if "reply" not in key}
    seen = lives.pop("presence:seen")
    assert all(KEPT * 1000 - 5000 < ms <= 2 * KEPT * 1000 for ms in lives.values())
    assert seen > backend.last_seen_retention * 1000

    for key in lives:
        client.expire(key, 60)
    backend.renew("w1", LEASE)
    backend.members_of_worker("w1", after=None, limit=SLICE)

    kept = {key for key in lives if client.pttl(key) > KEPT * 1000}
    assert lives.keys() - kept == {
        # Of the one that is held by a deadline: whoever entered it renews it.
        "presence:client:c2",
        "presence:user:bob",
        # Of whom nobody is.
        "presence:channel:/room/2",
        "presence:vacated",
        "presence:commands",
    }


def test_the_only_deadline_of_a_channel_that_is_moved_still_expires_by_itself(
    backend: RedisBackend, client: Any
) -> None:
    backend.enter(member("c1"), epoch="e", timeout=30)

    backend.touch(ROOM, "c1", 60)

    audit(client)


def test_a_deadline_longer_than_keys_are_kept_keeps_them_as_long(
    backend: RedisBackend, client: Any
) -> None:
    week = 7 * KEPT

    backend.enter(member("c1"), epoch="e", timeout=week)
    backend.enter(member("c2"), epoch="e", timeout=1)

    for key in client.scan_iter():
        if "reply" not in key and not key.endswith("c2"):
            assert client.pttl(key) >= week * 1000 - 5000, key


def test_answers_are_kept_for_seconds_only(backend: RedisBackend, client: Any) -> None:
    backend.enter(member("c1"), epoch="e", timeout=60)

    (reply,) = client.keys("presence:reply:*")

    assert 0 < client.pttl(reply) <= 10_000


# A full store


def fill(client: Any) -> None:
    """Leave no room at all."""
    client.config_set("maxmemory", 1)


def test_a_full_store_lets_nobody_in_and_does_nothing_half(
    backend: RedisBackend, client: Any
) -> None:
    populate(backend)
    before = client.hgetall("presence:channel:/room/1")
    fill(client)

    for channel in (ROOM, "/room/new"):
        for how in ({"worker": "w1"}, {"timeout": 9.0}):
            with pytest.raises(BackendUnavailable, match="is full: raise its maxmemory"):
                backend.enter(member("new", "eve", channel=channel), epoch="e", **how)
    with pytest.raises(BackendUnavailable, match="is full"):
        backend.hold("/room/new", [member("new", channel="/room/new")], epoch="e", worker="w1")
    with pytest.raises(BackendUnavailable, match="is full"):
        backend.update(ROOM, "c1", '{"new":true}')

    assert client.hgetall("presence:channel:/room/1") == before
    assert not client.exists("presence:channel:/room/new")
    audit(client)


def test_a_full_store_loses_no_lease_and_lets_everybody_out(
    backend: RedisBackend, client: Any, clock: Clock
) -> None:
    populate(backend)
    begin(backend, "w2")
    backend.enter(member("c5", "dan"), epoch="e", worker="w2")
    backend.enter(member("c6", "eve"), epoch="e", worker="w2")
    fill(client)

    assert backend.touch(ROOM, "c2", 60)
    assert backend.tell(Command("evict", user_id="ann"))
    assert backend.reset_epoch(ROOM, "e1", "e2")
    assert len(backend.members_of_worker("w1", after=None, limit=SLICE)) == 2
    backend.release("w1", [Key(ROOM, "c3")], after=1)
    clock.advance(LEASE - 1)
    assert backend.renew("w1", LEASE).held
    clock.advance(2)
    ended = backend.prune().changes
    assert [change.user_id for change in ended] == [None, "dan", "eve"]
    assert [change.kind for change in backend.leave(ROOM, ["c1"])] == ["left"]
    assert [change.kind for change in backend.evict(ROOM).changes] == ["left"]
    backend.end_worker("w1", after=1)
    assert backend.drop_empty_channels(0) == 2

    assert not backend.spares_leases
    client.config_set("maxmemory", 0)
    audit(client)


def test_a_store_that_has_room_again_lets_in(backend: RedisBackend, client: Any) -> None:
    populate(backend)
    fill(client)
    with pytest.raises(BackendUnavailable):
        backend.enter(member("c9", "eve"), epoch="e", timeout=9)

    client.config_set("maxmemory", 0)

    assert backend.enter(member("c9", "eve"), epoch="e", timeout=9)


# What it costs


class Seen:
    """The commands that a server was sent, and those that its scripts ran."""

    def __init__(self, server: Redis) -> None:
        self._server = server
        self.sent: list[str] = []
        self.run: list[list[str]] = []

    def of(self, step: Callable[[], Any]) -> Seen:
        with self._server.client() as marker, self._server.client().monitor() as monitor:
            marker.ping()
            step()
            marker.echo("that was all")
            for found in monitor.listen():
                if found["command"].startswith("ECHO"):
                    return self
                words = found["command"].split(" ")
                if found["client_type"] == "lua":
                    self.run.append(words)
                elif words[0] not in ("HELLO", "CLIENT", "PING"):
                    self.sent.append(words[0])
        raise AssertionError


def crowd(backend: RedisBackend, size: int, *, worker: str = "w1", channel: str = ROOM) -> None:
    for some in range(0, size, SLICE):
        members = [
            member(f"c{number}", f"user {number}", channel=channel)
            for number in range(some, min(size, some + SLICE))
        ]
        backend.hold(channel, members, epoch="e", worker=worker)


def test_entering_leaving_and_renewing_are_one_command_each(
    backend: RedisBackend, server: Redis
) -> None:
    begin(backend)
    backend.enter(member("warm"), epoch="e", worker="w1")
    backend.leave(ROOM, ["warm"])
    cursor = backend.renew("w1", LEASE, cursor=None).cursor
    backend.tell(Command("reload", user_id="ann"))
    channels = [ROOM, *(f"/room/x{number}" for number in range(SLICE - 1))]

    steps: list[Callable[[], Any]] = [
        lambda: backend.enter(member("c1"), epoch="e", worker="w1"),
        lambda: backend.leave(ROOM, ["c1"]),
        lambda: backend.renew("w1", LEASE, channels=channels, cursor=cursor),
    ]

    for step in steps:
        assert Seen(server).of(step).sent == ["EVALSHA"]


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(lambda b: b.enter(member("x", "x"), epoch="e", worker="w1"), id="enter"),
        pytest.param(lambda b: b.enter(member("c1", "user 1"), epoch="e", worker="w1"), id="again"),
        pytest.param(lambda b: b.leave(ROOM, ["c1"]), id="leave"),
        pytest.param(lambda b: b.update(ROOM, "c1", '{"a":1}'), id="update"),
        pytest.param(lambda b: b.release("w1", [Key(ROOM, "c1")], after=5), id="release"),
        pytest.param(lambda b: b.renew("w1", LEASE, channels=[ROOM]), id="renew"),
        pytest.param(lambda b: b.end_worker("w1", after=5), id="end_worker"),
        pytest.param(lambda b: b.count(ROOM), id="count"),
        pytest.param(lambda b: b.due(SLICE), id="due"),
        pytest.param(lambda b: b.settle(ROOM), id="settle"),
        pytest.param(lambda b: b.channels_of(user_id="user 1"), id="channels_of"),
        pytest.param(
            lambda b: b.members_of_worker("w1", after=None, limit=10), id="members_of_worker"
        ),
        pytest.param(lambda b: b.evict(ROOM, user_id="user 1"), id="evict"),
        pytest.param(lambda b: b.evict(ROOM), id="evict-all"),
    ],
)
def test_a_step_runs_the_same_commands_in_a_small_channel_and_in_a_large_one(
    backend: RedisBackend, client: Any, server: Redis, step: Callable[[RedisBackend], Any]
) -> None:
    ran = []
    for size in (2 * SLICE, 10 * SLICE):
        client.flushall()
        begin(backend)
        crowd(backend, size)
        seen = Seen(server).of(lambda: step(backend))
        ran.append(sorted(command[0].upper() for command in seen.run))
        assert _unbounded(seen.run) == []

    assert ran[0] == ran[1]


def _unbounded(run: list[list[str]]) -> list[list[str]]:
    """Commands whose cost grows with the members of a channel."""
    names = {"HVALS", "HKEYS", "HGETALL", "KEYS", "SCAN"}
    allowed = {"presence:channel:/room/1", "presence:workers"}
    return [
        command
        for command in run
        if (command[0] in names and command[1] not in allowed) or command[2:4] == ["0", "-1"]
    ]


@pytest.mark.parametrize("is_lost", [True, False], ids=["workers-lost", "deadlines"])
def test_a_slice_of_pruning_runs_no_more_commands_the_more_there_is_to_prune(
    backend: RedisBackend, client: Any, server: Redis, clock: Clock, is_lost: bool
) -> None:
    most = []
    for size in (2 * SLICE, 10 * SLICE):
        client.flushall()
        for number in range(10):
            begin(backend, f"w{number}")
            crowd(backend, size // 10, worker=f"w{number}", channel=f"/room/{number}")
            if not is_lost:
                backend.end_worker(f"w{number}", after=1)
        clock.advance(LEASE + 1)

        seen = Seen(server).of(lambda: backend.prune())
        most.append(len(seen.run))

    assert most[1] < 1.2 * most[0]
    assert most[1] < 30 * SLICE


def test_the_reply_and_the_event_are_the_same_text(backend: RedisBackend, client: Any) -> None:
    with client.pubsub() as events:
        events.subscribe(f"presence:0:diff:{ROOM}")
        assert events.get_message(timeout=5)
        backend.enter(member("c1", meta='{"a":1}'), epoch="e", timeout=5)
        message = events.get_message(timeout=5)

    assert message is not None
    assert json.loads(message["data"])[1][0][:5] == ["entered", 1, "ann", "{}", '{"a":1}']
