"""What breaks under running servers, and what exactly is seen of it: Redis frozen, torn or empty, a
process that hears nothing. `faults` has the rest, and checks it all at random.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import redis as redis_py
import requests
from crowd import Asker, Background, Crowd, Watcher
from processes import Redis, Server
from proxy import Link, Proxy
from wire import eventually

from flask_presence.backends.redis import RedisBackend, connect
from flask_presence.model import Member

WORKER_TIMEOUT = 3
PRUNE = 0.5
HEARTBEAT = 2
RECONCILE = 3
SETTINGS: dict[str, Any] = {
    "PRESENCE_RATE_LIMIT": None,
    "PRESENCE_WORKER_TIMEOUT": WORKER_TIMEOUT,
    "PRESENCE_PRUNE_INTERVAL": PRUNE,
    "PRESENCE_LEAVE_GRACE": 1,
    "PRESENCE_HEARTBEAT_INTERVAL": HEARTBEAT,
    "RECONCILE_SECONDS": RECONCILE,
}
RENEWAL = WORKER_TIMEOUT / 3
OUTAGE = 5
SILENCE = 2
SLACK = 2.0
"""Seconds that a busy machine may take to do what is due."""
SLOWEST = 2.5
"""Seconds that any answer may take, whatever is broken."""

ROOMS = ["/room/1", "/room/2"]
MODES = ["threading", "gevent"]


class Scene:
    """Servers, and on each a crowd that stays and a watcher."""

    def __init__(self, dial: Any, servers: list[Server], *, size: int = 20) -> None:
        self.servers = servers
        self.crowds = [
            Crowd(dial, server.port, f"of{number}-", size, ROOMS)
            for number, server in enumerate(servers)
        ]
        self.readers = [dial(server.port, "reader") for server in servers]
        self.watchers = [
            Watcher(dial(server.port, "watcher"), ROOMS, beat_every=HEARTBEAT) for server in servers
        ]
        self.await_all()

    @contextmanager
    def beating(self) -> Iterator[None]:
        """All beat and follow meanwhile, as pages do."""
        with ExitStack() as all_of_it:
            for crowd in self.crowds:
                all_of_it.enter_context(Background(crowd.beat, HEARTBEAT))
            for watcher in self.watchers:
                all_of_it.enter_context(Background(watcher.catch_up, 0.1))
            yield

    def members_of(self, room: str) -> set[str]:
        return set().union(*(crowd.members_of(room) for crowd in self.crowds))

    def states(self, number: int = 0) -> dict[str, Any]:
        """What the store says, read by one of the servers."""
        states: dict[str, Any] = self.readers[number].call("state", {"channels": ROOMS})["states"]
        return states

    def are_all_in(self) -> bool:
        answer = self.readers[0].call("state", {"channels": ROOMS})
        return answer["ok"] and all(
            self.members_of(room) <= {user["id"] for user in state["users"]}
            for room, state in answer["states"].items()
        )

    def await_all(self, within: float = 20) -> float:
        """Await that everyone is in; how long did it take?"""
        began = time.monotonic()
        eventually(self.are_all_in, patience=within)
        return time.monotonic() - began

    def do_all_agree(self) -> bool:
        answer = self.readers[0].call("state", {"channels": ROOMS})
        return answer["ok"] and all(
            watcher.agrees_with(answer["states"]) for watcher in self.watchers
        )

    def await_agreement(self, within: float) -> float:
        """Await that every watcher shows what the store says; how long did it take?"""
        began = time.monotonic()
        eventually(self.do_all_agree, patience=within)
        return time.monotonic() - began

    def assert_that_nobody_was_seen_leaving(self) -> None:
        stayed = set().union(*(crowd.users for crowd in self.crowds))
        signalled = {
            told["user_id"]
            for server in self.servers
            for told in server.signals
            if told["kind"] == "left"
        }
        assert not stayed & signalled
        for watcher in self.watchers:
            assert not stayed & set(watcher.left)
        assert all(crowd.is_connected() for crowd in self.crowds)
        for server in self.servers:
            log = "".join(server.errors)
            assert "Traceback" not in log, log[-5000:]


def assert_that_it_answered_in_time(*askers: Asker) -> None:
    for asker in askers:
        slowest, refusals = asker.slowest(), asker.refusals()
        assert max(slowest.values()) < SLOWEST, slowest
        assert {refusal["error"] for refusal in refusals} <= {"unavailable", "not_present"}
        assert all(
            refusal["retry_after"] > 0 for refusal in refusals if refusal["error"] == "unavailable"
        )


@pytest.fixture
def proxy(redis: Redis) -> Iterator[Proxy]:
    proxy = Proxy(redis.port)
    yield proxy
    proxy.close()


def is_listener(link: Link) -> bool:
    return link.subscribes


def spawn_pair(spawn: Any, redis: Redis, **config: Any) -> list[Server]:
    return [spawn(**SETTINGS, PRESENCE_BACKEND=redis.url, **config) for _ in range(2)]


# A store that lost data


def test_a_flushed_redis_has_everyone_back_within_one_renewal_in_a_new_epoch(
    spawn: Any, dial: Any, redis: Redis
) -> None:
    scene = Scene(dial, spawn_pair(spawn, redis), size=100)
    epochs = {state["epoch"] for state in scene.states().values()}

    redis_py.Redis.from_url(redis.url).flushall()
    scene.await_all(within=RENEWAL + SLACK)
    scene.await_agreement(within=RENEWAL + SLACK)

    assert not epochs & {state["epoch"] for state in scene.states().values()}
    assert all(watcher.pushed for watcher in scene.watchers)
    scene.assert_that_nobody_was_seen_leaving()
    healed = eventually(
        lambda: [
            told
            for server in scene.servers
            for told in list(server.signals)
            if told["reason"] == "healed"
        ]
    )
    assert {told["kind"] for told in healed} == {"entered"}


def test_a_channel_that_lost_any_of_its_keys_heals_within_one_reconcile(
    spawn: Any, dial: Any, redis: Redis
) -> None:
    kinds = ["channel", "users", "clients", "deadlines"]
    servers = spawn_pair(spawn, redis)
    client = redis_py.Redis.from_url(redis.url)
    lost = {f"/room/{number}": [kind] for number, kind in enumerate(kinds)} | {"/room/4": kinds}
    crowds = [
        Crowd(dial, server.port, f"of{number}-", 20, list(lost))
        for number, server in enumerate(servers)
    ]
    watcher = Watcher(dial(servers[0].port, "watcher"), list(lost), beat_every=HEARTBEAT)
    backend = RedisBackend(connect(redis.url))
    for channel in lost:
        # So that there is a deadline to lose.
        backend.enter(Member(channel, "import", "import", "{}", None), epoch="e", timeout=600)
    reader = dial(servers[1].port, "reader")

    def states() -> dict[str, Any]:
        found: dict[str, Any] = reader.call("state", {"channels": list(lost)})["states"]
        return found

    def are_in(channel: str) -> bool:
        members = set().union(*(crowd.members_of(channel) for crowd in crowds))
        return {user["id"] for user in states()[channel]["users"]} == members

    for channel, keys in lost.items():
        assert client.delete(*(f"presence:{kind}:{channel}" for kind in keys)) == len(keys)
    with ExitStack() as beating:
        for crowd in crowds:
            beating.enter_context(Background(crowd.beat, HEARTBEAT))
        for channel in lost:
            eventually(lambda channel=channel: are_in(channel), RECONCILE + 2 * RENEWAL + SLACK)
        eventually(lambda: watcher.agrees_with(states()), HEARTBEAT + RENEWAL + SLACK)

    assert watcher.left == []
    assert all(crowd.is_connected() for crowd in crowds)
    backend.close()


def test_a_redis_that_restarts_empty_has_everyone_back(spawn: Any, dial: Any, redis: Redis) -> None:
    scene = Scene(dial, spawn_pair(spawn, redis))

    with scene.beating():
        redis.stop()
        redis.start()
        scene.await_all(within=2 * RENEWAL + SLACK)
    scene.await_agreement(within=HEARTBEAT + RENEWAL)

    scene.assert_that_nobody_was_seen_leaving()


# A store that is away


@pytest.mark.parametrize("mode", MODES)
def test_a_frozen_redis_delays_no_answer_for_long_and_ends_nobody(
    spawn: Any, dial: Any, redis: Redis, proxy: Proxy, mode: str
) -> None:
    config = SETTINGS | {"SOCKETIO": {"async_mode": mode}}
    config["PRESENCE_WORKER_TIMEOUT"] = OUTAGE - 1
    first = spawn(**config, PRESENCE_BACKEND=redis.url)
    second = spawn(**config, PRESENCE_BACKEND=f"redis://127.0.0.1:{proxy.port}/0")
    scene = Scene(dial, [first, second])
    asker = Asker(dial, first.port, "/room/9")

    def freeze() -> None:
        redis.send(signal.SIGSTOP)
        time.sleep(OUTAGE)
        proxy.stall()
        redis.send(signal.SIGCONT)
        # One process has the store again, and reads whom the other could not renew yet.
        eventually(lambda: scene.readers[0].call("state", {"channels": ROOMS})["ok"])
        proxy.flow()

    with scene.beating():
        asker.during(freeze)
        scene.await_agreement(within=HEARTBEAT + RENEWAL)
        # Whoever is ended, is ended by then.
        time.sleep(config.get("PRESENCE_WORKER_TIMEOUT", WORKER_TIMEOUT) + PRUNE)

    assert_that_it_answered_in_time(asker)
    assert asker.refusals()
    assert scene.are_all_in()
    scene.assert_that_nobody_was_seen_leaving()


@pytest.mark.parametrize(("fault", "mode"), [("stall", "gevent"), ("cut", "threading")])
def test_a_process_that_hears_nothing_follows_by_its_renewals(
    spawn: Any, dial: Any, redis: Redis, proxy: Proxy, fault: str, mode: str
) -> None:
    config = SETTINGS | {"SOCKETIO": {"async_mode": mode}}
    deaf = spawn(**config, PRESENCE_BACKEND=f"redis://127.0.0.1:{proxy.port}/0")
    hearing = spawn(**config, PRESENCE_BACKEND=redis.url)
    scene = Scene(dial, [deaf, hearing])
    asker = Asker(dial, deaf.port, "/room/9")
    late: list[Crowd] = []

    def go_deaf() -> None:
        getattr(proxy, fault)(is_listener)
        began = time.monotonic()
        late.append(Crowd(dial, hearing.port, "late", 10, ROOMS))
        scene.await_agreement(within=HEARTBEAT + RENEWAL)
        time.sleep(max(0, SILENCE - (time.monotonic() - began)))
        late.append(Crowd(dial, hearing.port, "later", 10, ROOMS))
        proxy.flow()

    with scene.beating():
        asker.during(go_deaf)
        scene.crowds += late
        scene.await_agreement(within=HEARTBEAT + RENEWAL)
        for watcher in scene.watchers:
            watcher.pushed.clear()
        assert dial(hearing.port, "last").call("enter", {"channel": ROOMS[0]})["ok"]
        eventually(lambda: "last" in scene.watchers[0].sees(ROOMS[0]))

    assert scene.watchers[0].pushed == []
    assert_that_it_answered_in_time(asker)
    refused = asker.refusals()
    assert refused
    assert {refusal["error"] for refusal in refused} == {"unavailable"}
    assert {kind for kind, _, answer in asker.answers if not answer["ok"]} == {"subscribe"}
    scene.assert_that_nobody_was_seen_leaving()


# Between processes


def test_a_process_hears_nothing_of_channels_that_nobody_there_watches(
    spawn: Any, dial: Any, redis: Redis, proxy: Proxy
) -> None:
    server = spawn(**SETTINGS, PRESENCE_BACKEND=f"redis://127.0.0.1:{proxy.port}/0")
    watchers = [Watcher(dial(server.port, f"quiet{n}"), [f"/room/{n}"]) for n in range(50)]
    backend = RedisBackend(connect(redis.url))
    backend.renew("busy", 600, create=True)
    (listener,) = filter(is_listener, proxy.links)

    def change(channel: str, client: str) -> int:
        before = listener.received
        backend.enter(Member(channel, client, client, "{}", None), epoch="e", worker="busy")
        return before

    before = listener.received
    for number in range(1000):
        change(f"/room/{100 + number % 10}", f"user{number}")
    unheard = listener.received - before
    change("/room/1", "user1")
    watchers[1].wire.wait_for("diff")
    heard = listener.received - before - unheard

    assert unheard < 200, "at most the answers to a few pings"
    assert heard > 50
    backend.close()


@pytest.mark.parametrize("is_deaf", [False, True])
def test_an_evicted_user_is_out_in_every_process_and_receives_nothing_more(
    spawn: Any, dial: Any, redis: Redis, proxy: Proxy, is_deaf: bool
) -> None:
    # Where it hears, it would not do to wait for a renewal.
    settings = SETTINGS if is_deaf else SETTINGS | {"PRESENCE_WORKER_TIMEOUT": 30}
    there = spawn(**settings, PRESENCE_BACKEND=f"redis://127.0.0.1:{proxy.port}/0")
    here = spawn(**settings, PRESENCE_BACKEND=redis.url)
    wires = [dial(server.port, "ada") for server in (here, there)]
    for wire in wires:
        ops = [[event, {"channel": "/room/1"}] for event in ("enter", "subscribe")]
        assert all(answer["ok"] for answer in wire.call("batch", {"ops": ops})["results"])
    if is_deaf:
        proxy.stall(is_listener)

    began = time.monotonic()
    assert requests.post(f"http://127.0.0.1:{here.port}/evict/ada", timeout=10).ok
    for wire in wires:
        assert wire.wait_for("evicted") == {"channel": "/room/1", "reason": "evicted"}
    took = time.monotonic() - began
    proxy.flow()
    for wire in wires:
        wire.take("diff", "state")
    assert dial(here.port, "bob").call("enter", {"channel": "/room/1"})["ok"]
    watcher = Watcher(dial(there.port, "watcher"), ["/room/1"])
    assert dial(here.port, "bob2").call("enter", {"channel": "/room/1"})["ok"]
    watcher.wire.wait_for("diff", lambda diff: "bob2" in str(diff.get("entered")))

    assert took < (RENEWAL + SLACK if is_deaf else 1)
    assert watcher.sees("/room/1") == {"bob"}
    for wire in wires:
        wire.await_quiet("/room/1")
        assert wire.take("diff", "state") == []
