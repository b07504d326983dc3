"""The way to Redis: what happens when it does not do what it is asked, and what is said then."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from impostors import Fake, Forgetful, Listening
from processes import Redis, free_port
from redis_audit import audit
from wire import eventually

from flask_presence import BackendUnavailable
from flask_presence.backends.base import Command
from flask_presence.backends.redis import RedisBackend, connect, runner, server
from flask_presence.model import Member
from flask_presence.testing.contract import Clock

ROOM = "/room/1"
LEASE = 15.0
SOON = 0.1
"""A timeout for tests in which nobody answers."""


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A server that nothing happens to."""
    server = Redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def client(steady: Redis) -> Iterator[Any]:
    with steady.client() as client:
        client.flushall()
        client.config_resetstat()
        yield client


@pytest.fixture
def make() -> Iterator[Callable[..., RedisBackend]]:
    """Makes backends from URLs."""
    backends: list[RedisBackend] = []

    def make(url: str, **options: Any) -> RedisBackend:
        backends.append(RedisBackend(connect(url), **options))
        return backends[-1]

    yield make
    for backend in backends:
        backend.close()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask again at once after a failure."""
    monkeypatch.setattr(server, "PAUSE_SECONDS", 0.0)


def member(client: str = "c1", user: str | None = "ann") -> Member:
    return Member(ROOM, client, user)


def enter(backend: RedisBackend, client: str = "c1") -> Any:
    return backend.enter(member(client), epoch="e", timeout=60)


def refusal(step: Callable[[], Any]) -> str:
    """What a step that fails says."""
    with pytest.raises(BackendUnavailable) as raised:
        step()
    return str(raised.value)


# A lost answer


@pytest.fixture
def proxy(steady: Redis, client: Any) -> Iterator[Forgetful]:
    proxy = Forgetful(steady.port)
    yield proxy
    proxy.stop()


VERBS: list[Any] = [
    pytest.param(lambda b: b.enter(member("c9", "dan"), epoch="e", worker="w1"), id="enter"),
    pytest.param(lambda b: b.hold(ROOM, [member("c9", "dan")], epoch="e", worker="w1"), id="hold"),
    pytest.param(lambda b: b.update(ROOM, "c1", '{"a":1}'), id="update"),
    pytest.param(lambda b: b.leave(ROOM, ["c1"]), id="leave"),
    pytest.param(lambda b: b.evict(ROOM, user_id="ann"), id="evict"),
    pytest.param(lambda b: b.settle(ROOM), id="settle"),
    pytest.param(lambda b: b.tell(Command("evict")), id="tell"),
]


@pytest.mark.parametrize("verb", VERBS)
def test_a_step_whose_answer_was_lost_is_asked_for_again_and_done_once(
    make: Callable[..., RedisBackend],
    proxy: Forgetful,
    client: Any,
    verb: Callable[[RedisBackend], Any],
) -> None:
    answers = []
    for loses in (False, True):  # at first the server learns the script
        clock = Clock()
        backend = make(proxy.url, clock=clock)
        backend.renew("w1", LEASE, create=True)
        backend.enter(member("c1"), epoch="e", worker="w1")
        backend.enter(member("c2", "bob"), epoch="e", timeout=1)
        clock.advance(2)
        client.config_resetstat()
        proxy.lose_next = loses

        answers.append(verb(backend))

        assert client.info("commandstats")["cmdstat_publish"]["calls"] == 1
        audit(client)
        client.flushall()

    assert proxy.lost == 1
    assert answers[0] == answers[1]


def test_processes_do_not_take_each_others_answers_for_theirs(
    make: Callable[..., RedisBackend], steady: Redis, client: Any
) -> None:
    one, other = make(steady.url), make(steady.url)

    changes = [*enter(one, "c1"), *enter(other, "c2"), *one.leave(ROOM, ["c1", "c2"])]

    assert [change.kind for change in changes] == ["entered", "left"]


def test_however_many_ask_at_once_all_are_answered(
    make: Callable[..., RedisBackend], steady: Redis, client: Any
) -> None:
    backend = make(steady.url)
    number = 3 * server.AT_ONCE + 50
    together = threading.Barrier(number)

    def ask(index: int) -> Any:
        together.wait()
        return enter(backend, f"c{index}")

    with ThreadPoolExecutor(number) as threads:
        answers = list(threads.map(ask, range(number)))

    assert sum(len(changes) for changes in answers) == 1


def test_connections_that_the_server_closed_cost_no_answer(
    make: Callable[..., RedisBackend], steady: Redis, client: Any
) -> None:
    backend = make(steady.url)
    together = threading.Barrier(8)

    def ask(index: int) -> Any:
        together.wait()
        return enter(backend, f"c{index}")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(8)))

    client.client_kill_filter(_type="normal", skipme=True)
    changes = [*backend.leave(ROOM, [f"c{index}" for index in range(8)]), *enter(backend)]

    assert [change.kind for change in changes] == ["left", "entered"]


def test_a_server_that_forgot_the_scripts_is_sent_them_again(
    make: Callable[..., RedisBackend], steady: Redis, client: Any
) -> None:
    backend = make(steady.url)
    enter(backend)

    client.script_flush()

    assert [change.kind for change in backend.leave(ROOM, ["c1"])] == ["left"]


# A frozen server


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[Redis]:
    """A server of the test's own, to be stopped and continued."""
    server = Redis(tmp_path)
    yield server
    server.stop()


def test_what_waited_while_the_server_stood_still_is_not_done_afterwards(
    make: Callable[..., RedisBackend], frozen: Redis, hurried: None
) -> None:
    url = f"{frozen.url}?socket_timeout={SOON}"
    holder = make(url)
    holder.renew("w1", 3 * SOON, create=True)
    holder.enter(member("c1"), epoch="e", worker="w1")
    steps: list[Callable[[RedisBackend], Any]] = [
        lambda other: other.due(10),
        lambda other: other.settle(ROOM),
        lambda other: other.leave(ROOM, ["c1"]),
        lambda other: enter(other, "c2"),
    ]
    others = [make(url) for _ in steps]
    for step, other in zip(steps, others, strict=True):
        # Connected, and the script is known.
        step(other)
        enter(other, "c2")
        other.leave(ROOM, ["c2"])
        holder.enter(member("c1"), epoch="e", worker="w1")
    revision = position_of(holder)
    with frozen.client() as client:
        before = scripts_run(client)

    frozen.send(signal.SIGSTOP)
    for step, other in zip(steps, others, strict=True):
        refusal(lambda step=step, other=other: step(other))  # type: ignore[misc]
    frozen.send(signal.SIGCONT)

    with frozen.client() as client:
        eventually(lambda: scripts_run(client) >= before + len(steps))
        assert client.hget("presence:workers", "w1").startswith("alive")
    assert holder.renew("w1", LEASE).held
    state = holder.state(ROOM).state
    assert state is not None
    assert [user.id for user in state.users] == ["ann"]
    assert state.revision == revision


def test_what_was_sent_twice_is_not_done_once_nobody_waits_for_it(
    make: Callable[..., RedisBackend], frozen: Redis, hurried: None
) -> None:
    backend = make(f"{frozen.url}?socket_timeout={SOON}")
    enter(backend)
    # The script is known.
    backend.leave(ROOM, ["c2"])
    leave_two_connections(backend)
    revision = position_of(backend)
    with frozen.client() as client:
        before = scripts_run(client)

    frozen.send(signal.SIGSTOP)
    refusal(lambda: backend.leave(ROOM, ["c1"]))
    frozen.send(signal.SIGCONT)

    with frozen.client() as client:
        eventually(lambda: scripts_run(client) >= before + 2)
    assert eventually(lambda: answer_of(backend)) == revision


def leave_two_connections(backend: RedisBackend) -> None:
    """Have a script under way on each of two connections at the same time."""
    runner = backend.server._runner
    taken = [runner._waiting() for _ in range(2)]
    backend.channels_of(client_id="c1")
    runner._idle.extend(connection for connection in taken if connection)
    assert len(runner._idle) == 2


def answer_of(backend: RedisBackend) -> int | None:
    """The revision, or ``None`` while the server is spared."""
    try:
        return position_of(backend)
    except BackendUnavailable:
        return None


def position_of(backend: RedisBackend) -> int:
    state = backend.state(ROOM).state
    assert state is not None
    return state.revision


def scripts_run(client: Any) -> int:
    calls: int = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    return calls


class Interrupted(BaseException):
    """What ends a greenlet, or a program, wherever it is."""


def test_an_answer_that_nobody_waited_for_is_not_taken_for_the_next_one(
    make: Callable[..., RedisBackend],
    steady: Redis,
    client: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = make(steady.url)
    enter(backend)

    def ask_and_stop(connection: Any, command: bytes) -> Any:
        connection.send_packed_command([command])
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(runner, "_answer", ask_and_stop)
        with pytest.raises(Interrupted):
            backend.channels_of(client_id="c1")

    assert backend.workers() == []


def test_a_server_whose_clock_was_set_ahead_locks_nobody_out(
    make: Callable[..., RedisBackend], steady: Redis, client: Any
) -> None:
    backend = make(steady.url)
    backend.check()

    hour = 3_600_000
    backend.server.set_clock(int(time.time() * 1000) - hour)

    assert enter(backend)


def test_a_call_to_a_frozen_server_takes_two_seconds_and_the_next_ones_no_time(
    make: Callable[..., RedisBackend], frozen: Redis
) -> None:
    backend = make(frozen.url)
    enter(backend)
    frozen.send(signal.SIGSTOP)

    first, second = time_of(lambda: enter(backend)), time_of(lambda: enter(backend))

    assert first < 2.5
    assert second < 0.1
    frozen.send(signal.SIGCONT)
    eventually(lambda: is_in(backend))


def time_of(step: Callable[[], Any]) -> float:
    """How long a step takes to fail."""
    began = time.monotonic()
    refusal(step)
    return time.monotonic() - began


def is_in(backend: RedisBackend) -> bool:
    try:
        enter(backend)
    except BackendUnavailable:
        return False
    return True


class Silent(Listening):
    """Takes connections and says nothing."""

    def _serve(self, connection: socket.socket) -> None:
        while connection.recv(4096):
            pass


@pytest.fixture
def blackhole() -> Iterator[int]:
    """A port whose connections are not even refused."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for connection in waiting:
            connection.setblocking(False)
            connection.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]
        for connection in waiting:
            connection.close()


def test_nobody_waits_long_for_a_server_that_is_not_there(
    make: Callable[..., RedisBackend], blackhole: int
) -> None:
    silent = Silent()
    for port, most in ((free_port(), 0.3), (blackhole, 2.5), (silent.port, 2.5)):
        backend = make(f"redis://127.0.0.1:{port}/0")

        first, second = time_of(lambda b=backend: enter(b)), time_of(lambda b=backend: enter(b))  # type: ignore[misc]

        assert first < most
        assert second < 0.1
        assert backend.spares_leases
    silent.stop()


def test_a_server_that_comes_back_is_found(
    make: Callable[..., RedisBackend], tmp_path: Path, hurried: None
) -> None:
    first = Redis(tmp_path)
    backend = make(first.url)
    enter(backend)

    first.stop()
    said = refusal(lambda: enter(backend))
    second = Redis(tmp_path, port=first.port)

    assert f"redis://127.0.0.1:{first.port}" in said
    assert enter(backend)
    second.stop()


def test_a_server_that_started_from_a_snapshot_is_restored_for_a_while(
    make: Callable[..., RedisBackend], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = Redis(tmp_path)
    backend = make(redis.url)
    enter(backend)
    assert not backend.is_restored

    with redis.client() as client:
        client.save()
    redis.stop()
    redis.start()
    again = make(redis.url)
    enter(again)
    is_restored = again.is_restored
    monkeypatch.setattr(server, "RESTORED_SECONDS", 0)
    later = make(redis.url)
    enter(later)
    redis.stop()

    assert is_restored
    assert not later.is_restored


# A server that will not do


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Redis]:
    """A server to spoil."""
    server = Redis(tmp_path)
    yield server
    server.stop()


def _replica(client: Any) -> Callable[[], Any]:
    client.replicaof("127.0.0.1", free_port())
    return lambda: client.replicaof("NO", "ONE")


def _protected(client: Any) -> Callable[[], Any]:
    client.config_set("requirepass", "secret")
    return lambda: client.config_set("requirepass", "")


def _evicting(client: Any) -> Callable[[], Any]:
    client.config_set("maxmemory", 100_000_000)
    client.config_set("maxmemory-policy", "volatile-lru")
    return lambda: client.config_set("maxmemory-policy", "noeviction")


def _full(client: Any) -> Callable[[], Any]:
    client.config_set("maxmemory", 1)
    return lambda: client.config_set("maxmemory", 0)


def _without_scripts(client: Any) -> Callable[[], Any]:
    client.execute_command("ACL", "SETUSER", "default", "-@scripting")
    return lambda: client.execute_command("ACL", "SETUSER", "default", "+@all")


def _without_keys(client: Any) -> Callable[[], Any]:
    client.execute_command("ACL", "SETUSER", "default", "resetkeys", "~app:*")
    return lambda: client.execute_command("ACL", "SETUSER", "default", "~presence:*")


def _without_writes(client: Any) -> Callable[[], Any]:
    client.execute_command("ACL", "SETUSER", "default", "-@write")
    return lambda: client.execute_command("ACL", "SETUSER", "default", "+@write")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_replica, "is a read-only replica: name its master, or use redis.sentinel://"),
        (_protected, "refuses the password, or wants one: write it into PRESENCE_BACKEND"),
        (_evicting, r"may evict keys \(maxmemory-policy volatile-lru\): set noeviction"),
        (_full, "is full: raise its maxmemory"),
        (_without_scripts, "extend its ACL"),
        (_without_keys, "extend its ACL"),
        (_without_writes, "extend its ACL"),
    ],
)
def test_a_server_that_will_not_do_is_named_with_what_to_do_until_it_does(
    make: Callable[..., RedisBackend],
    own: Redis,
    hurried: None,
    spoil: Callable[[Any], Callable[[], Any]],
    words: str,
) -> None:
    backend = make(own.url)
    with own.client() as client:
        client.ping()
        mend = spoil(client)

        for step in (lambda: enter(backend), backend.check, lambda: enter(backend)):
            with pytest.raises(BackendUnavailable, match=words) as raised:
                step()
            assert f"redis://127.0.0.1:{own.port}" in str(raised.value)
        mend()

    backend.check()
    assert enter(backend)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_replica, "is a read-only replica"),
        (_full, "is full: raise its maxmemory"),
        (_without_keys, "extend its ACL"),
    ],
)
def test_what_becomes_wrong_with_a_server_later_is_named_too(
    make: Callable[..., RedisBackend],
    own: Redis,
    hurried: None,
    spoil: Callable[[Any], Callable[[], Any]],
    words: str,
) -> None:
    backend = make(own.url)
    enter(backend)
    with own.client() as client:
        mend = spoil(client)

        with pytest.raises(BackendUnavailable, match=words):
            enter(backend, "c2")
        mend()

    assert enter(backend, "c2") == []


def test_a_wrong_password_is_named_without_being_told(
    make: Callable[..., RedisBackend], own: Redis, hurried: None
) -> None:
    with own.client() as client:
        client.config_set("requirepass", "right")
    backend = make(f"redis://:wrong-one@127.0.0.1:{own.port}/0")

    said = refusal(backend.check)

    assert "refuses the password" in said
    assert "wrong-one" not in said


def test_a_user_with_no_more_than_the_keys_and_events_of_presence_will_do(
    make: Callable[..., RedisBackend], own: Redis
) -> None:
    with own.client() as client:
        client.execute_command(
            *("ACL", "SETUSER", "web", "on", ">pw", "~presence:*", "&presence:*"),
            *("+@all", "-@dangerous", "-@admin"),
        )
    backend = make(f"redis://web:pw@127.0.0.1:{own.port}/0")

    backend.check()
    backend.renew("w1", LEASE, create=True)

    assert enter(backend)
    assert backend.prune()


def test_a_cluster_is_named_as_what_cannot_be_used(
    make: Callable[..., RedisBackend], tmp_path: Path
) -> None:
    # Its bus would take the port 10,000 above, which may be somebody's outgoing one.
    cluster = Redis(tmp_path, "--cluster-enabled", "yes", "--cluster-port", free_port())
    backend = make(cluster.url)

    said = refusal(backend.check)

    assert "is a Redis Cluster" in said
    cluster.stop()


def _old(command: str) -> bytes:
    if command == "TIME":
        return b"*2\r\n$10\r\n1900000000\r\n$1\r\n0\r\n"
    if command == "INFO":
        return b"$22\r\nredis_version:5.0.14\r\n\r\n"
    return b"-ERR unknown command\r\n"


def _loading(command: str) -> bytes:
    return b"-LOADING Redis is loading the dataset in memory\r\n"


def _web(command: str) -> bytes:
    return b"HTTP/1.1 400 Bad Request\r\n\r\n"


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (_old, "is Redis 5.0.14: presence needs 6.2 or later"),
        (_loading, "is still loading its data"),
        (_web, "failed: "),
    ],
)
def test_who_is_no_redis_of_use_is_named(
    make: Callable[..., RedisBackend], answers: Callable[[str], bytes], words: str
) -> None:
    fake = Fake(answers)

    assert words in refusal(make(f"{fake.url}?protocol=2").check)
    assert words in refusal(lambda: enter(make(f"{fake.url}?protocol=2")))

    fake.stop()
