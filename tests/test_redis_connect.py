"""From URLs to Redis: over TLS, sockets and sentinels, with passwords, numbers and options."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import Redis, Sentinel, free_port, require
from redis_audit import audit
from wire import eventually

from flask_presence import BackendUnavailable
from flask_presence.backends.base import Command, Key
from flask_presence.backends.redis import RedisBackend, connect, listener, server
from flask_presence.model import Change, Member

ROOM = "/room/1"
LEASE = 15.0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Redis]]:
    servers: list[Redis] = []

    def start(*options: object) -> Redis:
        servers.append(Redis(tmp_path, *options))
        return servers[-1]

    yield start
    for found in servers:
        found.stop()


@pytest.fixture
def make() -> Iterator[Callable[[str], RedisBackend]]:
    backends: list[RedisBackend] = []

    def make(url: str) -> RedisBackend:
        backends.append(RedisBackend(connect(url)))
        return backends[-1]

    yield make
    for backend in backends:
        backend.close()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask again at once after a failure."""
    monkeypatch.setattr(server, "PAUSE_SECONDS", 0.0)


def story(backend: RedisBackend, clients: str = "c") -> list[str]:
    """A little of everything: what kinds of changes it made."""
    one, other = f"{clients}1", f"{clients}2"
    backend.check()
    assert backend.renew("w1", LEASE, create=True).held
    changes = backend.enter(Member(ROOM, one, one), epoch="e", worker="w1")
    changes += backend.enter(Member(ROOM, other, other), epoch="e", timeout=60)
    changes += backend.update(ROOM, one, '{"é":1}')
    assert backend.touch(ROOM, other, 60)
    backend.release("w1", [Key(ROOM, one)], after=60)
    state = backend.state(ROOM).state
    assert state is not None
    assert {one, other} <= {user.id for user in state.users}
    changes += backend.leave(ROOM, [one])
    changes += backend.evict(ROOM, user_id=other).changes
    backend.tell(Command("reload"))
    backend.prune()
    return [change.kind for change in changes]


STORY = ["entered", "entered", "updated", "left", "left"]


# URLs


def test_a_number_in_the_url_chooses_the_database(
    start: Callable[..., Redis], make: Callable[[str], RedisBackend]
) -> None:
    redis = start()
    backend = make(redis.url.replace("/0", "/7"))

    assert story(backend) == STORY

    with redis.client() as client:
        assert set(client.info("keyspace")) == {"db7"}


def test_a_password_may_have_any_characters(
    start: Callable[..., Redis], make: Callable[[str], RedisBackend]
) -> None:
    redis = start("--requirepass", "p@ss:/w%rd")

    backend = make(f"redis://:p%40ss%3A%2Fw%25rd@127.0.0.1:{redis.port}/0")

    assert story(backend) == STORY


def test_a_unix_socket_will_do(
    start: Callable[..., Redis], make: Callable[[str], RedisBackend], tmp_path: Path
) -> None:
    start("--unixsocket", tmp_path / "redis.sock")
    backend = make(f"unix://{tmp_path}/redis.sock?db=3")

    assert story(backend) == STORY
    assert backend.server.where == f"unix://{tmp_path}/redis.sock"
    assert backend.server.events == "presence:3"


@pytest.mark.parametrize("query", ["decode_responses=true", "protocol=2", "protocol=3"])
def test_answers_are_understood_in_every_protocol(
    start: Callable[..., Redis], make: Callable[[str], RedisBackend], query: str
) -> None:
    assert story(make(f"{start().url}?{query}")) == STORY


def test_what_the_url_says_goes_before_our_timeouts() -> None:
    options = connect("redis://h?socket_timeout=3.5").connection_pool.connection_kwargs

    assert options["socket_timeout"] == 3.5
    assert options["socket_connect_timeout"] == 1.0
    assert options["retry"].get_retries() == 0


@pytest.mark.parametrize(
    "url",
    [
        "redis://h?no_such_option=1",
        "redis://h?socket_timeout=soon",
        "redis://h:port/0",
        "redis://h/presence",
        "rediss://h?no_such_option=1",
        "redis+sentinel://",
        "redis+sentinel://h",
        "redis+sentinel:///service",
        "redis+sentinel://h/service/db",
        "redis+sentinel://h:x/service",
        "redis+sentinel://h/service?no_such_option=1",
        "redis+sentinel://h/service?sentinel_no_such_option=1",
        "redis+sentinel://h/service?socket_timeout=soon",
    ],
)
def test_a_url_that_makes_no_sense_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        connect(url)


# TLS


def certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate of our own for 127.0.0.1, and its key."""
    certificate, key = directory / "redis.crt", directory / "redis.key"
    subprocess.run(
        [
            *(require("openssl"), "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


@pytest.fixture
def tls(start: Callable[..., Redis], tmp_path: Path) -> tuple[int, Path]:
    """The port of a server that speaks TLS, and whom to trust."""
    trusted, key = certificate(tmp_path)
    port = free_port()
    start(
        *("--tls-port", port, "--tls-cert-file", trusted, "--tls-key-file", key),
        *("--tls-ca-cert-file", trusted, "--tls-auth-clients", "no"),
    )
    return port, trusted


def test_over_tls_a_server_with_the_right_certificate_will_do(
    tls: tuple[int, Path], make: Callable[[str], RedisBackend]
) -> None:
    port, trusted = tls

    assert story(make(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={trusted}")) == STORY


def test_over_tls_a_server_that_nobody_vouches_for_is_refused(
    tls: tuple[int, Path], make: Callable[[str], RedisBackend]
) -> None:
    port, _ = tls

    with pytest.raises(BackendUnavailable, match=r"(?i)certificate"):
        make(f"rediss://127.0.0.1:{port}/0").check()


# Sentinels


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[Sentinel]:
    found = Sentinel(tmp_path)
    yield found
    found.stop()


class Heard:
    """Ears that remember."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.missing: list[str] = []

    def changed(self, changes: list[Change]) -> None:
        self.changes += changes

    def told(self) -> None:
        pass

    def missed(self, channel: str) -> None:
        self.missing.append(channel)


def enter(backend: RedisBackend, client: str) -> list[Change] | None:
    """Enter, or nothing where the store does not answer."""
    try:
        return backend.enter(Member(ROOM, client, client), epoch="e", worker="w1")
    except BackendUnavailable:
        return None


def test_a_dead_sentinel_among_several_is_passed_over(
    sentinel: Sentinel, make: Callable[[str], RedisBackend]
) -> None:
    hosts = f"127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}"

    backend = make(f"redis+sentinel://{hosts}/{sentinel.SERVICE}/2")

    assert story(backend) == STORY
    assert backend.server.where == f"redis+sentinel://…/{sentinel.SERVICE}"
    with sentinel.master.client() as client:
        assert set(client.info("keyspace")) == {"db2"}


def test_sentinels_and_masters_may_have_passwords_of_their_own(
    sentinel: Sentinel, make: Callable[[str], RedisBackend]
) -> None:
    with sentinel.client() as client, sentinel.master.client() as master:
        client.execute_command("SENTINEL", "SET", sentinel.SERVICE, "auth-pass", "for@master")
        master.config_set("masterauth", "for@master")
        master.config_set("requirepass", "for@master")
        client.execute_command("SENTINEL", "CONFIG", "SET", "sentinel-pass", "x")
        client.execute_command("ACL", "SETUSER", "default", "resetpass", ">for-sentinel")
    url = f"127.0.0.1:{sentinel.port}/{sentinel.SERVICE}/0"

    backend = make(
        f"redis+sentinel://:for%40master@{url}"
        "?sentinel_password=for-sentinel&sentinel_socket_timeout=0.5&socket_timeout=2"
    )

    assert story(backend) == STORY
    with pytest.raises(BackendUnavailable):
        make(f"redis+sentinel://:for%40master@{url}").check()


@pytest.mark.parametrize("how", ["asked for", "by the death of the master"])
def test_after_a_failover_everything_goes_on_without_a_restart(
    sentinel: Sentinel,
    make: Callable[[str], RedisBackend],
    monkeypatch: pytest.MonkeyPatch,
    hurried: None,
    how: str,
) -> None:
    monkeypatch.setattr(listener, "RECONNECT_SECONDS", 0.02)
    backend, heard = make(sentinel.url), Heard()
    backend.renew("w1", 60, create=True)
    enter(backend, "c1")
    assert backend.server.client.wait(1, 10_000) == 1
    listening = backend.listen(heard)
    running = in_background(listening.run)
    eventually(lambda: can_add(listening))

    if how == "asked for":
        sentinel.fail_over()
    else:
        sentinel.master.stop()
    eventually(lambda: leads_to(backend, sentinel.replica), patience=30)
    eventually(lambda: ROOM in heard.missing)

    assert eventually(lambda: enter(backend, "c2"))
    eventually(lambda: "c2" in [change.user_id for change in heard.changes])
    assert backend.renew("w1", 60).held
    state = backend.state(ROOM).state
    assert state is not None
    assert [user.id for user in state.users] == ["c1", "c2"]
    with sentinel.replica.client() as client:
        audit(client)
    listening.close()
    running.join(5)


def in_background(run: Callable[[], None]) -> Any:
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def can_add(listening: Any) -> bool:
    try:
        listening.add(ROOM)
    except BackendUnavailable:
        return False
    return True


def leads_to(backend: RedisBackend, redis: Redis) -> bool:
    try:
        backend.renew("w1", 60)
    except BackendUnavailable:
        return False
    port: int = backend.server.client.connection_pool.master_address[1]
    return port == redis.port
