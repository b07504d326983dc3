"""What breaks under running servers: Redis gone, frozen or empty, a network that stalls, a process
that dies. Real processes, real connections.

``PRESENCE_FAULTS=full`` runs it all with the default settings and at full length; ``-s`` shows the
figures.
"""

from __future__ import annotations

import os
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

FULL = os.environ.get("PRESENCE_FAULTS") == "full"
SETTINGS: dict[str, Any] = {"PRESENCE_RATE_LIMIT": None}
if not FULL:
    SETTINGS |= {
        "PRESENCE_WORKER_TIMEOUT": 3,
        "PRESENCE_PRUNE_INTERVAL": 0.5,
        "PRESENCE_LEAVE_GRACE": 1,
        "PRESENCE_HEARTBEAT_INTERVAL": 2,
        "RECONCILE_SECONDS": 3,
    }
WORKER_TIMEOUT = SETTINGS.get("PRESENCE_WORKER_TIMEOUT", 15)
PRUNE = SETTINGS.get("PRESENCE_PRUNE_INTERVAL", 2)
HEARTBEAT = SETTINGS.get("PRESENCE_HEARTBEAT_INTERVAL", 25)
RENEWAL = WORKER_TIMEOUT / 3
RECONCILE = SETTINGS.get("RECONCILE_SECONDS", 60)
OUTAGE = 30 if FULL else 5
SILENCE = 30 if FULL else 2
FREEZE = 40 if FULL else 4
SLACK = 2.0
"""Seconds that a busy machine may take to do what is due."""
SLOWEST = 2.5
"""Seconds that any answer may take, whatever is broken."""

ROOMS = ["/room/1", "/room/2"]
MODES = ["threading", "gevent"]


def say(text: str) -> None:
    if FULL:
        print(f"\n  {text}", end="")


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
        say(f"slowest answers: {slowest}; {len(asker.answers)} in all, {len(refusals)} refusals")
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
    back = scene.await_all(within=RENEWAL + SLACK)
    agreed = scene.await_agreement(within=RENEWAL + SLACK)

    say(f"back after {back:.2f} s, the watchers agree {agreed:.2f} s later")
    assert not epochs & {state["epoch"] for state in scene.states().values()}
    assert all(watcher.pushed for watcher in scene.watchers)
    scene.assert_that_nobody_was_seen_leaving()
    healed = [s for server in scene.servers for s in server.signals if s["reason"] == "healed"]
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
    began = time.monotonic()
    with ExitStack() as beating:
        for crowd in crowds:
            beating.enter_context(Background(crowd.beat, HEARTBEAT))
        for channel in lost:
            eventually(lambda channel=channel: are_in(channel), RECONCILE + 2 * RENEWAL + SLACK)
        healed = time.monotonic() - began
        eventually(lambda: watcher.agrees_with(states()), HEARTBEAT + RENEWAL + SLACK)

    say(f"healed after {healed:.1f} s")
    assert watcher.left == []
    assert all(crowd.is_connected() for crowd in crowds)
    backend.close()


def test_a_redis_that_restarts_empty_has_everyone_back(spawn: Any, dial: Any, redis: Redis) -> None:
    scene = Scene(dial, spawn_pair(spawn, redis))

    with scene.beating():
        redis.stop()
        redis.start()
        back = scene.await_all(within=2 * RENEWAL + SLACK)
    agreed = scene.await_agreement(within=HEARTBEAT + RENEWAL)

    say(f"back after {back:.2f} s, the watchers agree {agreed:.2f} s later")
    scene.assert_that_nobody_was_seen_leaving()


def test_a_redis_that_restarts_with_its_data_goes_on_in_the_same_epoch(
    spawn: Any, dial: Any, tmp_path: Any
) -> None:
    options = ("--appendonly", "yes", "--appendfsync", "always")
    directory = tmp_path / "appended"
    directory.mkdir()
    redis = Redis(directory, *options)
    try:
        scene = Scene(dial, spawn_pair(spawn, redis))
        before = scene.states()

        with scene.beating():
            redis.stop()
            redis.start()
            back = scene.await_all(within=2 * RENEWAL + SLACK)
            time.sleep(WORKER_TIMEOUT + PRUNE)  # Whoever is ended, is ended by then.
        agreed = scene.await_agreement(within=HEARTBEAT + RENEWAL)

        say(f"back after {back:.2f} s, the watchers agree {agreed:.2f} s later")
        assert scene.states() == before
        scene.assert_that_nobody_was_seen_leaving()
    finally:
        redis.stop()


def test_a_redis_that_restarts_from_an_older_snapshot_gets_right_what_changed_since(
    spawn: Any, dial: Any, redis: Redis
) -> None:
    scene = Scene(dial, spawn_pair(spawn, redis))
    leaver = dial(scene.servers[0].port, "leaver")
    assert leaver.call("enter", {"channel": ROOMS[0]})["ok"]

    redis_py.Redis.from_url(redis.url).save()
    late = Crowd(dial, scene.servers[1].port, "late", 10, ROOMS)
    assert leaver.call("leave", {"channel": ROOMS[0]})["ok"]
    scene.crowds.append(late)
    with scene.beating():
        redis.stop()
        redis.start()
        back = scene.await_all(within=RECONCILE + 3 * RENEWAL + SLACK)
        eventually(
            lambda: (
                {user["id"] for user in scene.states()[ROOMS[0]]["users"]}
                == scene.members_of(ROOMS[0])
            ),
            patience=RECONCILE + 3 * RENEWAL + SLACK,
        )
    agreed = scene.await_agreement(within=HEARTBEAT + RENEWAL)

    say(f"back after {back:.2f} s, the watchers agree {agreed:.2f} s later")
    scene.assert_that_nobody_was_seen_leaving()


# A store that is away


@pytest.mark.parametrize("mode", MODES)
def test_a_frozen_redis_delays_no_answer_for_long_and_ends_nobody(
    spawn: Any, dial: Any, redis: Redis, proxy: Proxy, mode: str
) -> None:
    config = SETTINGS | {"SOCKETIO": {"async_mode": mode}}
    if not FULL:
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
        agreed = scene.await_agreement(within=HEARTBEAT + RENEWAL)
        # Whoever is ended, is ended by then.
        time.sleep(config.get("PRESENCE_WORKER_TIMEOUT", WORKER_TIMEOUT) + PRUNE)

    say(f"the watchers agree {agreed:.2f} s later")
    assert_that_it_answered_in_time(asker)
    assert asker.refusals()
    assert scene.are_all_in()
    scene.assert_that_nobody_was_seen_leaving()


@pytest.mark.parametrize(
    ("fault", "mode"),
    [(fault, mode) for fault in ("stall", "cut") for mode in MODES]
    if FULL
    else [("stall", "gevent"), ("cut", "threading")],
)
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
        during = scene.await_agreement(within=HEARTBEAT + RENEWAL)
        say(f"during it the watchers agree after {during:.2f} s")
        time.sleep(max(0, SILENCE - (time.monotonic() - began)))
        late.append(Crowd(dial, hearing.port, "later", 10, ROOMS))
        proxy.flow()

    with scene.beating():
        asker.during(go_deaf)
        scene.crowds += late
        agreed = scene.await_agreement(within=HEARTBEAT + RENEWAL)
        for watcher in scene.watchers:
            watcher.pushed.clear()
        assert dial(hearing.port, "last").call("enter", {"channel": ROOMS[0]})["ok"]
        eventually(lambda: "last" in scene.watchers[0].sees(ROOMS[0]))

    say(f"afterwards the watchers agree after {agreed:.2f} s")
    assert scene.watchers[0].pushed == []
    assert_that_it_answered_in_time(asker)
    refused = asker.refusals()
    assert refused
    assert {refusal["error"] for refusal in refused} == {"unavailable"}
    assert {kind for kind, _, answer in asker.answers if not answer["ok"]} == {"subscribe"}
    scene.assert_that_nobody_was_seen_leaving()


@pytest.mark.parametrize("mode", MODES if FULL else ["threading"])
def test_a_message_queue_that_is_away_is_made_up_for_by_heartbeats(
    spawn: Any, dial: Any, redis: Redis, mode: str
) -> None:
    options = {"async_mode": mode, "message_queue": redis.url}
    scene = Scene(dial, [spawn(**SETTINGS, SOCKETIO=options) for _ in range(2)])
    asker = Asker(dial, scene.servers[0].port, "/room/9")

    def lose_the_queue() -> None:
        redis.send(signal.SIGSTOP)
        scene.crowds.append(Crowd(dial, scene.servers[1].port, "late", 10, ROOMS))
        time.sleep(SILENCE)
        redis.send(signal.SIGCONT)
        redis.stop()
        scene.crowds.append(Crowd(dial, scene.servers[1].port, "later", 10, ROOMS))

    with scene.beating():
        asker.during(lose_the_queue)
        redis.start()
        agreed = scene.await_agreement(within=HEARTBEAT + RENEWAL + SLACK)

    say(f"the watchers agree {agreed:.2f} s later")
    assert_that_it_answered_in_time(asker)
    assert asker.refusals() == []
    scene.assert_that_nobody_was_seen_leaving()


# A process that dies


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_who_comes_back_elsewhere_was_never_seen_leaving_and_others_leave_no_ghost(
    spawn: Any, dial: Any, redis: Redis, number: signal.Signals
) -> None:
    living, dying = spawn_pair(spawn, redis)
    scene = Scene(dial, [living, dying], size=100 if FULL else 40)
    watcher, moving = scene.watchers[0], scene.crowds.pop()
    scene.watchers.pop()
    back = {user for position, user in enumerate(moving.users) if position % 10}
    gone = set(moving.users) - back

    with scene.beating():
        dying.send(number)
        died = time.monotonic()
        for user in back:
            moving.wires[user].hang_up()
            moving.wires[user] = dial(living.port, user)
            assert moving.wires[user].call("enter", {"channel": moving.users[user]})["ok"]
        came_back = time.monotonic() - died
        eventually(lambda: set(watcher.left) >= gone, patience=WORKER_TIMEOUT + PRUNE + SLACK)
        ended = time.monotonic() - died
        if number == signal.SIGSTOP:
            time.sleep(max(0, FREEZE - ended))
            dying.send(signal.SIGCONT)
            time.sleep(WORKER_TIMEOUT + PRUNE)
        agreed = scene.await_agreement(within=HEARTBEAT + RENEWAL)

    say(f"{len(back)} were back after {came_back:.2f} s, {len(gone)} ended after {ended:.2f} s")
    say(f"the watchers agree {agreed:.2f} s later")
    told = {s["user_id"] for server in scene.servers for s in server.signals if s["kind"] == "left"}
    assert set(watcher.left) == gone
    assert told == gone
    assert watcher.sees(ROOMS[0]) | watcher.sees(ROOMS[1]) == {*scene.crowds[0].users, *back}


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

    say(f"out after {took * 1000:.0f} ms")
    assert took < (RENEWAL + SLACK if is_deaf else 1)
    assert watcher.sees("/room/1") == {"bob"}
    for wire in wires:
        wire.await_quiet("/room/1")
        assert wire.take("diff", "state") == []
