"""What a process holds, while threads, processes and the store get in each other's way.

Every interleaving is forced: a call to the store stops, fails or lets others go first where a
test says so. Numbers in docstrings are those of the invariants.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine, delete, insert, select

from flask_presence import BackendUnavailable, ChannelConfig, signals
from flask_presence.backends.base import SLICE, Command, Key
from flask_presence.backends.memory import MemoryBackend
from flask_presence.backends.sqlalchemy import SQLAlchemyBackend
from flask_presence.backends.sqlalchemy import database as sql_module
from flask_presence.backends.sqlalchemy import due as due_module
from flask_presence.channels import Registry, Rules
from flask_presence.delivery import Announcer, Feed, Rooms
from flask_presence.errors import ClientIdTaken, WorkerGone
from flask_presence.model import Change, Identity, Member
from flask_presence.settings import Settings
from flask_presence.tracker import Tracker

ROOM, OTHER = "/room/1", "/room/2"
PATIENCE = 5.0
PARTS = ("backend", "registry", "announcer", "rooms", "feed", "settings", "clock")
LEASE, SILENCE, GRACE = 1_000.0, 10_000.0, 5.0

Call = partial[Any]
Hook = Callable[[Call], Any]
VERBS = [
    *("enter", "hold", "update", "leave", "release", "evict", "renew", "end_worker"),
    *("members_of_worker", "reset_epoch", "settle", "state", "tell"),
]


class Clock:
    """Moves on by itself, so that no two moments are the same."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


class Hooked:
    """A store whose verbs can be got in the way of. A hook gets the call, to make or not."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.hooks: dict[str, tuple[Hook, bool]] = {}
        self.calls: Counter[str] = Counter()
        super().__init__(*args, **options)

    def next(self, verb: str, hook: Hook) -> None:
        """For the next call alone."""
        self.hooks[verb] = (hook, True)

    def every(self, verb: str, hook: Hook) -> None:
        self.hooks[verb] = (hook, False)


def _hooked(verb: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **options: Any) -> Any:
        self.calls[verb] += 1

        call = partial(getattr(super(Hooked, self), verb), *args, **options)
        hook, is_single = self.hooks.get(verb, (None, False))
        if is_single:
            del self.hooks[verb]
        return call() if hook is None else hook(call)

    return method


for name in VERBS:
    setattr(Hooked, name, _hooked(name))


class MemoryStore(Hooked, MemoryBackend):
    def lose_data(self) -> None:
        MemoryBackend.__init__(self, clock=self._clock)


class SQLStore(Hooked, SQLAlchemyBackend):
    def lose(self, *tables: Any) -> None:
        with self.engine.begin() as connection:
            for table in tables:
                connection.execute(delete(table))

    def save(self) -> dict[Any, list[Any]]:
        with self.engine.begin() as connection:
            return {
                table: [dict(row) for row in connection.execute(select(table)).mappings()]
                for table in self.tables.all
            }

    def go_back(self, saved: dict[Any, list[Any]]) -> None:
        self.lose(*saved)
        with self.engine.begin() as connection:
            for table, rows in saved.items():
                if rows:
                    connection.execute(insert(table), rows)

    def lose_data(self) -> None:
        self.lose(*self.tables.all)


def fail(call: Call) -> Any:
    raise BackendUnavailable("The store is away.")


def lose_answer(call: Call) -> Any:
    call()
    raise BackendUnavailable("The answer was lost.")


def refuse_new_leases(call: Call) -> Any:
    return fail(call) if call.keywords.get("create") else call()


class Transport:
    """Sockets that write down what reaches each client."""

    def __init__(self) -> None:
        self.crosses_processes = False
        self.rooms: dict[str, set[str]] = {}
        self.inboxes: dict[str, list[tuple[str, Any]]] = {}
        self.closed: set[str] = set()

    def emit(self, event: str, data: Any, room: str, *, local: bool) -> None:
        for client_id in list(self.rooms.get(room, ())):
            self.emit_to(event, data, client_id)

    def emit_to(self, event: str, data: Any, client_id: str) -> None:
        self.inboxes.setdefault(client_id, []).append((event, data))

    def is_connected(self, client_id: str) -> bool:
        return client_id not in self.closed

    def disconnect(self, client_id: str) -> None:
        self.closed.add(client_id)

    def join(self, client_id: str, room: str) -> None:
        self.rooms.setdefault(room, set()).add(client_id)

    def leave(self, client_id: str, room: str) -> None:
        self.rooms.get(room, set()).discard(client_id)


class Runtime:
    """Background work that is begun when a test says so."""

    def __init__(self) -> None:
        self.targets: list[Callable[[], None]] = []

    def spawn(self, target: Callable[[], None]) -> None:
        self.targets.append(target)

    def sleep(self, seconds: float) -> None:
        threading.Event().wait(seconds)

    def event(self) -> Any:
        return threading.Event()


class Process:
    """One process of an app: a tracker on stubs, whose loops are turned by hand."""

    def __init__(
        self,
        store: Any,
        clock: Clock,
        *,
        configure: Callable[[str], ChannelConfig] = lambda name: ChannelConfig(public=True),
        **settings: Any,
    ) -> None:
        self.store, self.clock = store, clock
        defaults = {"timeout": SILENCE, "worker_timeout": LEASE, "leave_grace": GRACE}
        self.settings = Settings(**(defaults | {"batch_window": 0} | settings))
        rules = Rules()
        rules.add("room", configure)
        self.transport, self.feed = Transport(), Feed()
        rooms = Rooms(self.transport, self.feed)
        self.tracker = Tracker(
            backend=store,
            registry=Registry(
                rules, call=lambda callback: callback(), cache_seconds=0, heartbeat_interval=25
            ),
            announcer=Announcer(
                rooms, sender=self, app_context=nullcontext, window=self.settings.batch_window
            ),
            rooms=rooms,
            feed=self.feed,
            settings=self.settings,
            runtime=(runtime := Runtime()),
            clock=clock,
        )
        self.tracker.start()
        self.background = runtime.targets
        self.connections, self.commands = self.tracker.connections, self.tracker.commands
        self.holdings, self.loops = self.tracker.holdings, self.tracker.loops
        self.changes: list[Change] = []
        self._keep = self._note
        signals.presence_changed.connect(self._keep, sender=self)

    def _note(self, sender: Any, channel: str, change: Change) -> None:
        self.changes.append(change)

    def connect(self, client_id: str) -> None:
        """A client of the user that is named like it."""
        self.connections.connect(client_id, Identity(client_id))

    def enter(self, client_id: str, channel: str = ROOM) -> None:
        if self.client(client_id) is None:
            self.connect(client_id)
        self.connections.enter(client_id, channel, None)

    def watch(self, client_id: str, channel: str = ROOM) -> Any:
        if self.client(client_id) is None:
            self.connect(client_id)
        return self.connections.subscribe(client_id, channel)

    def client(self, client_id: str) -> Any:
        return self.tracker._parts.clients.find(client_id)

    def lost(self) -> dict[str, set[str]]:
        return {client.id: set(client.lost) for client in self.tracker._parts.clients.all()}

    def inbox(self, client_id: str, *events: str) -> list[Any]:
        inbox = self.transport.inboxes.get(client_id, [])
        return [data for event, data in inbox if event in events]

    def is_told_out(self, client_id: str) -> bool:
        return bool(self.inbox(client_id, "evicted"))

    def renew(self) -> None:
        self.loops.renew()
        self.loops.heal()

    def settle_down(self) -> None:
        """Let every loop come round, short of a reconcile."""
        for _ in range(2):
            self.holdings.write_releases()
            self.renew()

    def reconcile(self) -> None:
        self.clock.now += 61
        self.renew()
        self.renew()
        self.holdings.write_releases()

    def believed(self) -> set[Key]:
        """Who is in, as this process thinks."""
        clients = self.tracker._parts.clients.all()
        return {Key(channel, client.id) for client in clients for channel in client.entered}

    def held(self) -> set[Key]:
        """Whom this process holds, as the store says."""
        worker = self.holdings.lease.id
        return set(self.store.members_of_worker(worker, after=None, limit=SLICE))


def users(store: Any, channel: str = ROOM) -> list[str]:
    """Who is in a channel, for whoever reads it."""
    while True:
        state, _ = store.state(channel)
        if state is not None:
            return [user.id for user in state.users]


class WatchedLock:
    """A lock that says when somebody waits for it."""

    def __init__(self, on_wait: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._on_wait = on_wait

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._on_wait()
            assert self._lock.acquire(timeout=PATIENCE)

    def __exit__(self, *error: object) -> None:
        self._lock.release()


class Meanwhile:
    """Work of another thread: `go` begins it, and returns once it is done or waits for the lock
    of a client."""

    def __init__(self, work: Callable[[], object], *clients: Any) -> None:
        self._got_on = threading.Event()
        self._error: BaseException | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, daemon=True)
        for client in clients:
            client.lock = WatchedLock(self._got_on.set)

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = error
        finally:
            self._got_on.set()

    def go(self) -> None:
        self._thread.start()
        assert self._got_on.wait(PATIENCE)

    def end(self) -> None:
        self._thread.join(PATIENCE / 2)
        assert not self._thread.is_alive(), "it hangs"
        if self._error is not None:
            raise self._error


@pytest.fixture(autouse=True)
def _reconcile_only_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_presence.tracker.holdings.random.uniform", lambda low, high: low)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock)


@pytest.fixture
def sql_store(clock: Clock, tmp_path: Path) -> Iterator[SQLStore]:
    engine = create_engine(f"sqlite:///{tmp_path / 'presence.sqlite3'}")
    store = SQLStore(engine, makes_tables=True, clock=clock)
    store.prepare()
    yield store
    store.close()


@pytest.fixture
def process(store: MemoryStore, clock: Clock) -> Process:
    return Process(store, clock)


@contextmanager
def running(process: Process) -> Iterator[None]:
    threads = [threading.Thread(target=work, daemon=True) for work in process.background]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        process.loops.stop()
        for thread in threads:
            thread.join(PATIENCE)


@contextmanager
def receiving(signal: Any, process: Process, receiver: Callable[..., None]) -> Iterator[None]:
    signal.connect(receiver, sender=process)
    try:
        yield
    finally:
        signal.disconnect(receiver, sender=process)


# The app's code


def test_a_receiver_may_read_its_own_channel_while_a_read_ends_the_dead(
    process: Process, clock: Clock
) -> None:
    """Invariants 4 and 9."""
    process.tracker.enter(ROOM, Identity("ada"), client_id="import", meta=None, force=True)
    clock.now += SILENCE + 1
    seen: list[int] = []

    def read(sender: Any, **about: Any) -> None:
        seen.append(process.tracker.states.state(ROOM).count)

    with receiving(signals.user_left, process, read):
        reading = Meanwhile(lambda: process.tracker.states.state(ROOM))
        reading.go()
        reading.end()

    assert seen == [0]


def renewals(store: Any) -> threading.Semaphore:
    """Counts them as they are made."""
    made = threading.Semaphore(0)

    def count(call: Call) -> Any:
        made.release()
        return call()

    store.every("renew", count)
    return made


def assert_goes_on(made: threading.Semaphore) -> None:
    while made.acquire(blocking=False):
        pass
    for _ in range(3):
        assert made.acquire(timeout=1), "the lease is not renewed any more"


def test_a_slow_receiver_does_not_keep_the_lease_from_being_renewed(
    store: MemoryStore, clock: Clock
) -> None:
    """Invariant 9."""
    process = Process(store, clock, worker_timeout=0.06)
    process.enter("ada")
    process.renew()
    store.lose_data()
    at_work, done = threading.Event(), threading.Event()

    def dawdle(sender: Any, **about: Any) -> None:
        at_work.set()
        done.wait(PATIENCE)

    made = renewals(store)
    with receiving(signals.user_entered, process, dawdle), running(process):
        assert at_work.wait(PATIENCE)
        try:
            assert_goes_on(made)
        finally:
            done.set()


def test_a_callback_that_raises_does_not_end_the_renewals(store: MemoryStore, clock: Clock) -> None:
    """Invariant 9."""
    process = Process(store, clock, worker_timeout=0.06)
    raised = threading.Event()

    def explode() -> None:
        raised.set()
        raise RuntimeError("the callback was told to raise")

    process.tracker.on_tick(explode)
    made = renewals(store)
    with running(process):
        assert raised.wait(PATIENCE)
        assert_goes_on(made)


def test_a_callback_that_waits_does_not_keep_the_lease_from_being_renewed(
    store: MemoryStore, clock: Clock
) -> None:
    """Invariant 9: a scheduler of the app's may wait for a job store of the app's."""
    process = Process(store, clock, worker_timeout=0.06)
    at_work, done = threading.Event(), threading.Event()

    def dawdle() -> None:
        at_work.set()
        done.wait(PATIENCE)

    process.tracker.on_tick(dawdle)
    made = renewals(store)
    with running(process):
        assert at_work.wait(PATIENCE)
        try:
            assert_goes_on(made)
        finally:
            done.set()


def test_a_transport_that_raises_loses_no_signal(process: Process) -> None:
    """Invariants 3 and 9."""
    process.watch("watcher")

    def explode(*args: Any, **options: Any) -> None:
        raise OSError("the message queue is down")

    process.transport.emit = explode  # type: ignore[method-assign]
    process.enter("ada")
    process.connections.leave("ada", ROOM)

    assert [(change.kind, change.user_id) for change in process.changes] == [
        ("entered", "ada"),
        ("left", "ada"),
    ]


# A channel that turns count-only


class Turning:
    """A channel whose config turns count-only, at a moment of its own if told so."""

    def __init__(self) -> None:
        self.count_only = False
        self.asked = 0
        self.on_ask: Callable[[], None] | None = None

    def __call__(self, name: str) -> ChannelConfig:
        self.asked += 1
        config = ChannelConfig(public=True, count_only=self.count_only)
        on_ask, self.on_ask = self.on_ask, None
        if on_ask is not None:
            on_ask()
        return config


@pytest.fixture
def turning() -> Turning:
    return Turning()


@pytest.fixture
def turning_process(store: MemoryStore, clock: Clock, turning: Turning) -> Process:
    return Process(store, clock, configure=turning)


def assert_learns_nobody(process: Process, client_id: str) -> None:
    """From now on the client gets no message that names somebody."""
    process.transport.inboxes.clear()
    process.enter("newcomer")
    process.settle_down()
    named = [data for data in process.inbox(client_id, "diff", "state") if "newcomer" in str(data)]
    assert named == []


def test_a_state_answer_that_counts_is_never_followed_by_identities(
    turning_process: Process, turning: Turning
) -> None:
    """Invariant 8."""
    turning_process.watch("watcher")
    turning.count_only = True

    form = turning_process.connections.states("watcher", (ROOM,))[ROOM]

    assert form is not None
    assert form.get("count_only")
    assert_learns_nobody(turning_process, "watcher")


@pytest.mark.parametrize("asked_before", range(5))
@pytest.mark.parametrize("door", ["state", "subscribe"])
def test_whenever_the_config_turns_an_answer_that_counts_is_never_followed_by_identities(
    turning_process: Process, turning: Turning, door: str, asked_before: int
) -> None:
    """Invariant 8: the turn falls between two questions for the config."""
    turning_process.watch("watcher")
    turns_at = turning.asked + asked_before

    def configure(name: str) -> ChannelConfig:
        turning.asked += 1
        return ChannelConfig(public=True, count_only=turning.asked > turns_at)

    turning_process.tracker.registry._rules._prefixes["room"] = configure
    if door == "state":
        form = turning_process.connections.states("watcher", (ROOM,))[ROOM]
    else:
        form = turning_process.watch("watcher")

    assert form is not None
    if form.get("count_only"):
        turning_process.transport.inboxes.clear()
        turning_process.enter("newcomer")
        assert "newcomer" not in str(turning_process.inbox("watcher", "diff", "state"))


def test_a_subscribe_with_a_config_from_before_the_turn_moves_nobody_back(
    turning_process: Process, turning: Turning
) -> None:
    """Invariant 8."""
    turning_process.watch("watcher")

    def turn() -> None:
        turning.count_only = True
        turning_process.connections.heartbeat("watcher", {})

    turning_process.connect("new")
    turning.on_ask = turn
    form = turning_process.watch("new")

    assert form["count_only"]
    assert_learns_nobody(turning_process, "watcher")
    assert "newcomer" not in str(turning_process.inbox("new", "diff", "state"))


def test_the_first_subscribe_with_a_config_from_before_the_turn_counts(
    turning_process: Process, turning: Turning
) -> None:
    """Invariant 8."""
    turning.on_ask = lambda: setattr(turning, "count_only", True)

    form = turning_process.watch("watcher")

    assert form["count_only"]
    assert_learns_nobody(turning_process, "watcher")


def test_a_turn_whose_state_could_not_be_read_is_made_good_with_the_next_heal(
    turning_process: Process, turning: Turning, store: MemoryStore
) -> None:
    """Invariant 6."""
    turning_process.enter("ada")
    turning_process.watch("watcher")
    turning.count_only = True
    turning_process.connections.heartbeat("watcher", {})

    store.next("state", fail)
    with suppress(BackendUnavailable):
        turning_process.loops.heal()
    assert turning_process.inbox("watcher", "state") == []
    turning_process.loops.heal()

    (state,) = turning_process.inbox("watcher", "state")
    assert state["count_only"]


def test_a_config_that_differs_each_time_keeps_nobody_waiting(
    store: MemoryStore, clock: Clock
) -> None:
    """Invariant 9: a timeout may be what is left until some moment."""
    asked = 0

    def configure(name: str) -> ChannelConfig:
        nonlocal asked
        asked += 1
        if asked > 100:
            raise RuntimeError("asked for ever")
        return ChannelConfig(public=True, timeout=9_000 - asked)

    process = Process(store, clock, configure=configure)
    process.connect("watcher")
    form = process.connections.subscribe("watcher", ROOM)

    assert form is not None
    assert asked < 10


def test_a_channel_whose_state_cannot_be_read_keeps_no_other_from_its_own(
    turning_process: Process, turning: Turning, store: MemoryStore
) -> None:
    """Invariants 6 and 9."""
    for channel in (ROOM, OTHER):
        turning_process.watch("watcher", channel)
    turning.count_only = True
    turning_process.connections.heartbeat("watcher", {})

    store.every("state", lambda call: fail(call) if call.args == (ROOM,) else call())
    for _ in range(2):
        with suppress(BackendUnavailable):
            turning_process.renew()

    assert [state["channel"] for state in turning_process.inbox("watcher", "state")] == [OTHER]


# Entering again


def test_who_enters_again_while_its_silence_is_being_ended_is_in(
    process: Process, store: MemoryStore, clock: Clock
) -> None:
    """Invariant 1."""
    process.enter("ada")
    clock.now += SILENCE / 2
    process.renew()
    clock.now += SILENCE / 2 + 1
    again = Meanwhile(lambda: process.enter("ada"), process.client("ada"))

    def end(call: Call) -> Any:
        again.go()
        return call()

    store.next("leave", end)
    process.holdings.end_silence()
    again.end()
    process.connections.hear("ada")
    process.settle_down()

    assert process.believed() == process.held() == {Key(ROOM, "ada")}
    assert process.lost() == {"ada": set()}


def silence(process: Process, client_id: str) -> None:
    """Take a client out for its silence, while the store is away."""
    process.client(client_id).heard -= SILENCE + 1
    process.store.next("leave", fail)
    process.holdings.end_silence()
    assert process.believed() == set()
    process.connections.hear(client_id)


def test_who_enters_again_before_its_queued_leave_is_written_is_in(process: Process) -> None:
    """Invariant 1."""
    process.enter("ada")
    silence(process, "ada")

    process.enter("ada")
    process.settle_down()

    assert process.believed() == process.held() == {Key(ROOM, "ada")}


def test_who_enters_again_while_its_queued_leave_is_written_is_in(
    process: Process, store: MemoryStore
) -> None:
    """Invariant 1: the leave falls between the store's taking it in and this process's noting."""
    process.enter("ada")
    silence(process, "ada")
    writing = Meanwhile(process.holdings.write_releases, process.client("ada"))

    def enter(call: Call) -> Any:
        changes = call()
        writing.go()
        return changes

    store.next("enter", enter)
    process.enter("ada")
    writing.end()
    process.settle_down()

    assert process.believed() == process.held() == {Key(ROOM, "ada")}


def test_who_enters_again_while_its_eviction_is_being_written_is_in(
    process: Process, store: MemoryStore
) -> None:
    """Invariant 1."""
    process.enter("ada")
    again = Meanwhile(lambda: process.enter("ada"), process.client("ada"))

    def leave(call: Call) -> Any:
        again.go()
        return call()

    store.next("leave", leave)
    process.commands.evict(ROOM, user_id="ada")
    again.end()
    process.settle_down()

    assert process.believed() == process.held() == {Key(ROOM, "ada")}


def test_who_enters_between_the_telling_and_the_eviction_is_out_and_told(
    process: Process, store: MemoryStore
) -> None:
    """Invariant 1."""
    process.connect("ada")

    def evict(call: Call) -> Any:
        process.enter("ada")
        return call()

    store.next("evict", evict)
    process.commands.evict(ROOM, user_id="ada")
    process.settle_down()

    assert process.believed() == process.held() == set()
    assert process.is_told_out("ada")


@pytest.mark.parametrize("watches", [False, True])
def test_who_is_entering_again_while_its_eviction_arrives_is_told_only_if_it_is_out(
    process: Process, store: MemoryStore, clock: Clock, watches: bool
) -> None:
    """Invariant 1: a client that is told that it was evicted leaves it at that."""
    process.enter("ada")
    if watches:
        process.watch("ada")
    process.renew()
    Process(store, clock).commands.evict(ROOM, user_id="ada")
    clock.now += 1
    process.loops.renew()
    healing = Meanwhile(process.loops.heal, process.client("ada"))

    def enter(call: Call) -> Any:
        changes = call()
        healing.go()
        return changes

    store.next("enter", enter)
    process.enter("ada")
    healing.end()
    process.settle_down()

    assert process.believed() == process.held()
    assert process.is_told_out("ada") == (not process.held())


# Closing


@pytest.mark.parametrize("dropped", [False, True])
def test_a_leave_that_failed_and_a_close_leave_no_ghost(
    process: Process, store: MemoryStore, clock: Clock, dropped: bool
) -> None:
    """Invariant 1."""
    process.enter("ada")

    def leave(call: Call) -> Any:
        process.connections.disconnect("ada", dropped=dropped)
        process.holdings.write_releases()
        raise BackendUnavailable("The store is away.")

    store.next("leave", leave)
    with pytest.raises(BackendUnavailable):
        process.connections.leave("ada", ROOM)
    process.settle_down()
    clock.now += GRACE + 1

    assert users(store) == []


@pytest.mark.parametrize("dropped", [False, True])
def test_an_enter_whose_answer_was_lost_and_a_close_leave_no_ghost(
    process: Process, store: MemoryStore, clock: Clock, dropped: bool
) -> None:
    """Invariant 1."""
    process.connect("ada")

    def enter(call: Call) -> Any:
        process.connections.disconnect("ada", dropped=dropped)
        process.holdings.write_releases()
        return lose_answer(call)

    store.next("enter", enter)
    with pytest.raises(BackendUnavailable):
        process.connections.enter("ada", ROOM, None)
    assert users(store) == ["ada"]
    process.settle_down()
    clock.now += GRACE + 1

    assert users(store) == []


@pytest.mark.parametrize("answer", ["arrives", "is lost"])
@pytest.mark.parametrize("way", ["left", "closed", "dropped"])
def test_who_goes_while_it_is_being_put_back_leaves_no_ghost(
    process: Process, store: MemoryStore, clock: Clock, way: str, answer: str
) -> None:
    """Invariants 1 and 7."""
    process.enter("ada")
    store.lose_data()
    process.loops.renew()

    def hold(call: Call) -> Any:
        if way == "left":
            process.connections.leave("ada", ROOM)
        else:
            process.connections.disconnect("ada", dropped=way == "dropped")
        process.holdings.write_releases()
        return call() if answer == "arrives" else lose_answer(call)

    store.next("hold", hold)
    try:
        process.loops.heal()
    except BackendUnavailable:
        assert answer == "is lost"
    assert users(store) == ["ada"]
    process.settle_down()
    clock.now += GRACE + 1

    assert users(store) == []


def test_what_is_queued_while_the_same_is_being_written_is_written_again(
    process: Process, store: MemoryStore, clock: Clock
) -> None:
    """Invariant 1: a client that dropped is put back just after its members were released."""
    process.enter("ada")
    store.lose_data()
    process.loops.renew()

    def release(call: Call) -> Any:
        call()
        at_the_store.set()
        assert put_back.wait(PATIENCE)

    at_the_store, put_back = threading.Event(), threading.Event()
    writing = threading.Thread(target=process.holdings.write_releases, daemon=True)

    def hold(call: Call) -> Any:
        process.connections.disconnect("ada", dropped=True)
        writing.start()
        assert at_the_store.wait(PATIENCE)
        return call()

    store.next("release", release)
    store.next("hold", hold)
    process.loops.heal()
    put_back.set()
    writing.join(PATIENCE)
    process.settle_down()
    clock.now += GRACE + 1

    assert users(store) == []


def test_a_refused_enter_leaves_nothing_to_give_up(process: Process, store: MemoryStore) -> None:
    """Invariant 1: the client id is in as another user, whom the close does not concern."""
    process.connect("ada")
    store.enter(Member(ROOM, "ada", "bob"), epoch="e", timeout=SILENCE)

    with pytest.raises(ClientIdTaken):
        process.enter("ada")
    process.connections.disconnect("ada", dropped=False)
    process.holdings.write_releases()

    assert users(store) == ["bob"]


def test_a_subscribe_that_fails_after_the_close_leaves_no_audience(
    process: Process, store: MemoryStore
) -> None:
    """Invariant 10: nothing is watched for nobody."""
    process.watch("watcher")

    def configure(name: str) -> ChannelConfig:
        process.connections.disconnect("watcher", dropped=False)
        process.holdings.write_releases()
        return ChannelConfig(public=True)

    process.tracker.registry._rules._prefixes["room"] = configure
    store.next("state", fail)
    with pytest.raises(BackendUnavailable):
        process.watch("watcher")
    process.settle_down()

    assert process.feed.known() == {}


# The lease


def test_everybody_is_put_back_though_the_store_failed_to_give_a_new_lease(
    process: Process, store: MemoryStore
) -> None:
    """Invariant 7."""
    for client_id in ("ada", "bob"):
        process.enter(client_id)
    process.renew()
    store.lose_data()
    store.every("renew", refuse_new_leases)
    for _ in range(2):
        with pytest.raises(BackendUnavailable):
            process.renew()
    store.hooks.clear()
    process.renew()

    assert users(store) == ["ada", "bob"]
    assert process.believed() == process.held()
    assert process.lost() == {"ada": set(), "bob": set()}


def test_of_a_process_that_was_frozen_only_those_heard_since_are_put_back(
    process: Process, store: MemoryStore, clock: Clock
) -> None:
    """Invariant 4: others saw them leave."""
    for client_id in ("ada", "bob"):
        process.enter(client_id)
    process.renew()
    clock.now += LEASE + 1
    ended = Process(store, clock).tracker.prune()

    process.connections.hear("ada")
    process.renew()

    assert {(change.user_id, change.reason) for change in ended} == {
        ("ada", "worker_lost"),
        ("bob", "worker_lost"),
    }
    assert users(store) == ["ada"]
    assert process.believed() == process.held()
    assert process.lost() == {"ada": set(), "bob": {ROOM}}


def test_a_process_that_was_frozen_stays_so_until_the_store_gave_it_a_new_lease(
    process: Process, store: MemoryStore, clock: Clock
) -> None:
    """Invariant 4."""
    process.enter("ada")
    process.renew()
    clock.now += LEASE + 1
    Process(store, clock).tracker.prune()

    store.next("renew", fail)
    with pytest.raises(BackendUnavailable):
        process.renew()
    process.renew()

    assert users(store) == []
    assert process.lost() == {"ada": {ROOM}}


def test_everybody_is_put_back_after_the_store_was_away_for_longer_than_the_lease(
    process: Process, store: MemoryStore, clock: Clock
) -> None:
    """Invariant 7."""
    for client_id in ("ada", "bob"):
        process.enter(client_id)
    process.renew()
    store.every("renew", fail)
    for _ in range(5):
        clock.now += LEASE / 3
        with pytest.raises(BackendUnavailable):
            process.renew()
    store.hooks.clear()
    store.lose_data()
    process.renew()

    assert users(store) == ["ada", "bob"]
    assert process.believed() == process.held()
    assert process.lost() == {"ada": set(), "bob": set()}


def test_who_enters_while_its_lease_goes_is_in_under_the_next_one(
    process: Process, store: MemoryStore
) -> None:
    """Invariant 7."""
    process.connect("ada")

    def enter(call: Call) -> Any:
        changes = call()
        store.lose_data()
        process.renew()
        return changes

    store.next("enter", enter)
    process.enter("ada")
    process.settle_down()

    assert process.believed() == process.held() == {Key(ROOM, "ada")}


def test_a_process_that_waited_long_for_the_database_ends_no_lease(
    sql_store: SQLStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 4: whoever holds the lease waited as well."""
    sql_store.renew("away", 15, create=True)
    sql_store.enter(Member(ROOM, "c", "ada"), epoch="e", worker="away")
    clock.now += 16
    waited = 0.0
    begin = sql_store.dialect.writing

    def wait_long(engine: Any) -> Any:
        nonlocal waited
        waited += 2 * due_module.SLOW_SECONDS
        return begin(engine)

    monkeypatch.setattr(due_module, "time", SimpleNamespace(monotonic=lambda: waited))
    sql_store.dialect.writing = wait_long

    assert users(sql_store) == ["ada"]
    assert sql_store.renew("away", 15).held


def test_a_read_that_waited_long_for_the_database_ends_no_lease(
    sql_store: SQLStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 4: whoever holds the lease waited as well."""
    sql_store.renew("away", 15, create=True)
    sql_store.enter(Member(ROOM, "c", "ada"), epoch="e", worker="away")
    clock.now += 16
    waited = 0.0
    begin = sql_store.dialect.reading

    def wait_once(engine: Any) -> Any:
        nonlocal waited
        waited = 2 * sql_module.RETRY_SECONDS
        return begin(engine)

    monkeypatch.setattr(
        sql_module, "time", SimpleNamespace(monotonic=lambda: waited, sleep=lambda seconds: None)
    )
    sql_store.dialect.reading = wait_once

    assert users(sql_store) == ["ada"]
    assert sql_store.renew("away", 15).held


# Draining


def assert_drained(process: Process) -> None:
    worker = process.holdings.lease.id
    assert not process.store.renew(worker, LEASE).held
    with pytest.raises(WorkerGone):
        process.store.enter(Member(ROOM, "x", "x"), epoch="e", worker=worker)
    with pytest.raises(BackendUnavailable):
        process.enter("late")


def test_a_drain_while_releases_are_being_written_drains(
    process: Process, store: MemoryStore
) -> None:
    """Invariant 1."""
    for client_id in ("ada", "bob"):
        process.enter(client_id)
    process.connections.disconnect("ada", dropped=True)
    at_the_store, drained = threading.Event(), threading.Event()

    def release(call: Call) -> Any:
        at_the_store.set()
        assert drained.wait(PATIENCE)
        return call()

    store.next("release", release)
    writing = Meanwhile(process.holdings.write_releases)
    writing._thread.start()
    assert at_the_store.wait(PATIENCE)
    process.tracker.drain()
    drained.set()
    writing.end()

    assert_drained(process)
    assert users(store) == ["ada", "bob"]


def test_a_drain_whose_releases_fail_still_drains(
    process: Process, store: MemoryStore, clock: Clock
) -> None:
    """Invariant 1."""
    process.enter("ada")
    process.connections.disconnect("ada", dropped=True)
    store.every("release", fail)
    process.tracker.drain()
    store.hooks.clear()

    assert_drained(process)
    clock.now += LEASE + 1
    assert users(store) == []


def test_after_a_drain_disconnects_change_nothing(process: Process, store: MemoryStore) -> None:
    """Invariant 1: whoever reconnects elsewhere was never seen leaving."""
    for client_id in ("ada", "bob"):
        process.enter(client_id)
    process.tracker.drain()
    before = store.state(ROOM).state

    process.connections.disconnect("ada", dropped=True)
    process.connections.disconnect("bob", dropped=False)
    process.holdings.write_releases()

    assert store.state(ROOM).state == before
    assert before.count == 2


# Commands


@pytest.mark.parametrize("told_before", [5, 1])
def test_after_the_store_lost_its_data_a_command_with_a_low_number_is_obeyed(
    sql_store: SQLStore, clock: Clock, told_before: int
) -> None:
    """Invariant 7."""
    here, there = Process(sql_store, clock), Process(sql_store, clock)
    here.renew()
    here.watch("ada")
    for _ in range(told_before):
        there.commands.forget_config(OTHER)
    here.renew()
    sql_store.lose_data()
    there.commands.evict(None, user_id="ada")

    here.settle_down()

    assert here.is_told_out("ada")


def test_a_command_that_raises_does_not_keep_the_next_from_being_obeyed(
    store: MemoryStore, clock: Clock
) -> None:
    """Invariant 9."""
    here, there = Process(store, clock), Process(store, clock)
    here.renew()
    for client_id in ("ada", "bob"):
        here.watch(client_id)

    def explode(client_id: str) -> None:
        raise RuntimeError("the socket closed meanwhile")

    here.transport.disconnect = explode  # type: ignore[method-assign]
    there.commands.reload("ada")
    there.commands.evict(None, user_id="bob")
    here.renew()

    assert here.is_told_out("bob")


def test_a_command_that_came_while_no_new_lease_was_to_be_had_is_obeyed(
    store: MemoryStore, clock: Clock
) -> None:
    """Invariant 9."""
    here, there = Process(store, clock), Process(store, clock)
    here.renew()
    here.watch("ada")
    clock.now += LEASE + 1
    there.tracker.prune()
    there.commands.evict(None, user_id="ada")
    store.every("renew", refuse_new_leases)
    with pytest.raises(BackendUnavailable):
        here.renew()
    store.hooks.clear()
    here.settle_down()

    assert here.is_told_out("ada")


def test_a_command_that_came_before_the_first_renewal_is_obeyed(
    store: MemoryStore, clock: Clock
) -> None:
    """Invariant 9."""
    here, there = Process(store, clock), Process(store, clock)
    there.commands.reload("bob")
    here.connect("ada")
    here.connect("bob")

    there.commands.reload("ada")
    here.renew()

    assert here.transport.closed == {"ada"}


def test_who_entered_after_an_eviction_was_told_is_not_evicted_by_it(
    store: MemoryStore, clock: Clock
) -> None:
    """Invariant 1."""
    here, there = Process(store, clock), Process(store, clock)
    here.renew()
    here.enter("early")
    there.store.tell(Command("evict", ROOM, reason="evicted"))
    clock.now += 1
    here.enter("late")
    here.settle_down()

    assert here.is_told_out("early")
    assert not here.is_told_out("late")
    assert here.believed() == here.held() == {Key(ROOM, "late")}


def test_other_processes_are_woken_once_the_evicted_are_out(
    process: Process, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else they would take them out themselves, and who asked would have nothing to tell of."""
    tell, told = store.tell, []

    def listen(command: Command, *, wake: bool = True) -> int:
        told.append((wake, [key for key in process.held() if key.channel == ROOM]))
        return tell(command, wake=wake)

    process.enter("ada")
    monkeypatch.setattr(store, "tell", listen)

    changes = process.commands.evict(ROOM, user_id="ada")

    assert [change.user_id for change in changes] == ["ada"]
    assert told == [(False, [Key(ROOM, "ada")]), (True, [])]


def test_an_eviction_that_the_store_did_not_finish_is_told_here_all_the_same(
    process: Process, store: MemoryStore
) -> None:
    """Else who is out already would believe for a minute to be in."""
    process.enter("ada")
    store.next("evict", lose_answer)
    with pytest.raises(BackendUnavailable):
        process.commands.evict(ROOM, user_id="ada")
    process.settle_down()

    assert process.believed() == process.held() == set()
    assert process.is_told_out("ada")


def test_who_enters_elsewhere_between_the_telling_and_the_eviction_is_out_and_told(
    store: MemoryStore, clock: Clock
) -> None:
    """Invariant 1: else it would believe for a minute to be in."""
    here, there = Process(store, clock), Process(store, clock)
    here.renew()
    here.connect("ada")

    def evict(call: Call) -> Any:
        here.enter("ada")
        return call()

    store.next("evict", evict)
    there.commands.evict(ROOM, user_id="ada")
    here.settle_down()

    assert here.believed() == here.held() == set()
    assert here.is_told_out("ada")


def test_who_enters_again_before_it_is_told_of_its_eviction_is_out_and_told(
    store: MemoryStore, clock: Clock
) -> None:
    """It would be in without the meta that it gave, which entering again does not repeat."""
    here, there = Process(store, clock), Process(store, clock)
    here.renew()
    here.enter("ada")
    there.commands.evict(ROOM, user_id="ada")

    here.enter("ada")
    here.settle_down()

    assert here.believed() == here.held() == set()
    assert here.is_told_out("ada")


# Costs and what the reconcile heals


def test_the_feed_does_not_grow_with_what_other_processes_sent(
    store: MemoryStore, clock: Clock
) -> None:
    """Invariant 10."""
    here, there = Process(store, clock), Process(store, clock)
    here.transport.crosses_processes = there.transport.crosses_processes = True
    here.watch("watcher")
    for number in range(50):
        there.enter(f"there{number}")
        here.enter(f"here{number}")
    assert len(here.feed._watched[ROOM].later) > 40
    here.renew()

    assert here.feed._watched[ROOM].later == []
    assert here.inbox("watcher", "state") == []


def test_a_channel_that_the_store_lost_is_back_within_one_reconcile(
    sql_store: SQLStore, clock: Clock
) -> None:
    """Invariant 7."""
    process = Process(sql_store, clock)
    for client_id in ("ada", "bob"):
        process.enter(client_id)
    sql_store.lose(sql_store.tables.channels)
    process.reconcile()

    assert users(sql_store) == ["ada", "bob"]
    assert sql_store.state(ROOM).state.count == 2
    assert process.believed() == process.held()


def test_members_that_the_store_lost_are_back_within_one_reconcile(
    sql_store: SQLStore, clock: Clock
) -> None:
    """Invariant 7."""
    process = Process(sql_store, clock)
    for client_id in ("ada", "bob"):
        process.enter(client_id)
    sql_store.leave(ROOM, ["bob"])
    process.reconcile()

    assert users(sql_store) == ["ada", "bob"]


def test_what_clients_gave_is_written_again_where_the_store_turned_back(
    sql_store: SQLStore, clock: Clock
) -> None:
    """Invariant 7."""
    processes = {name: Process(sql_store, clock) for name in ("ada", "bob")}
    for name, process in processes.items():
        process.enter(name)
        process.watch(name)
    saved = sql_store.save()
    for name, process in processes.items():
        process.connections.update(name, ROOM, '{"n":1}')
        process.renew()

    sql_store.go_back(saved)
    for process in [*processes.values()] * 3:
        process.renew()

    state = sql_store.state(ROOM).state
    assert [(user.id, user.meta) for user in state.users] == [("ada", {"n": 1}), ("bob", {"n": 1})]
    assert {change.kind for change in processes["bob"].changes} == {"entered", "updated"}


def test_a_store_that_turned_back_and_caught_up_is_found_by_whoever_read_in_between(
    sql_store: SQLStore, clock: Clock
) -> None:
    """Invariant 7."""
    here, there = Process(sql_store, clock), Process(sql_store, clock)
    here.watch("watcher")
    here.enter("ada")
    saved = sql_store.save()
    for name in ("bob", "cyd"):
        here.enter(name)
    here.renew()
    before = sql_store.state(ROOM).state

    sql_store.go_back(saved)
    here.watch("late")
    for name in ("dan", "eve"):
        there.enter(name)
    assert sql_store.state(ROOM).state.position == before.position
    here.loops.heal()

    after = sql_store.state(ROOM).state
    assert after.epoch != before.epoch
    assert [state["epoch"] for state in here.inbox("watcher", "state")] == [after.epoch]


@pytest.mark.parametrize("has_begun_anew", [True, False])
def test_a_store_that_turned_back_and_caught_up_is_found_by_its_server_having_begun_anew(
    sql_store: SQLStore, clock: Clock, monkeypatch: pytest.MonkeyPatch, has_begun_anew: bool
) -> None:
    """Invariant 7."""
    here, there = Process(sql_store, clock), Process(sql_store, clock)
    there.enter("zoe")
    here.watch("watcher")
    saved = sql_store.save()
    there.enter("ada")
    here.renew()
    told = len(here.inbox("watcher", "state"))
    before = sql_store.state(ROOM).state

    sql_store.go_back(saved)
    there.enter("bob")
    assert sql_store.state(ROOM).state.position.revision == before.revision
    monkeypatch.setattr(sql_store, "has_begun_anew", lambda: has_begun_anew)
    here.renew()

    after = sql_store.state(ROOM).state
    assert (after.epoch != before.epoch) is has_begun_anew
    anew = [state["epoch"] for state in here.inbox("watcher", "state")[told:]]
    assert anew == ([after.epoch] if has_begun_anew else [])


def test_what_clients_gave_is_written_again_where_another_server_took_the_place_of_the_store(
    sql_store: SQLStore, clock: Clock
) -> None:
    """Invariant 7."""
    process = Process(sql_store, clock)
    process.enter("ada")
    saved = sql_store.save()
    process.connections.update("ada", ROOM, '{"n":1}')
    process.reconcile()
    assert sql_store.calls["enter"] == 1

    sql_store.go_back(saved)
    sql_store.has_begun_anew = lambda: True
    process.reconcile()

    assert sql_store.state(ROOM).state.users[0].meta == {"n": 1}


def test_a_position_of_before_the_store_was_restored_is_not_taken_for_current(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 6."""
    process.enter("ada")
    at = process.store.state(ROOM).state.position
    process.connect("bob")
    before = process.connections.subscribe("bob", ROOM, at)

    monkeypatch.setattr(type(process.store), "is_restored", True)
    after = process.connections.subscribe("bob", ROOM, at)

    assert before is None
    assert after["revision"] == at.revision


def test_an_epoch_is_ended_once_the_store_answers(sql_store: SQLStore, clock: Clock) -> None:
    process = Process(sql_store, clock)
    process.watch("watcher")
    process.enter("ada")
    before = sql_store.state(ROOM).state.epoch

    process.feed.give_up(ROOM, before)
    sql_store.next("reset_epoch", fail)
    process.loops.heal()
    assert sql_store.state(ROOM).state.epoch == before
    process.loops.heal()

    assert sql_store.state(ROOM).state.epoch != before


def test_a_meta_is_written_again_once_the_store_answers(sql_store: SQLStore, clock: Clock) -> None:
    process = Process(sql_store, clock)
    process.enter("ada")
    process.watch("ada")
    saved = sql_store.save()
    process.connections.update("ada", ROOM, '{"n":1}')
    process.renew()

    sql_store.go_back(saved)
    sql_store.next("enter", fail)
    for _ in range(4):
        process.renew()

    assert sql_store.state(ROOM).state.users[0].meta == {"n": 1}


def test_clearing_a_channel_costs_a_handful_of_writes(process: Process, store: MemoryStore) -> None:
    """Invariant 10."""
    for number in range(3 * SLICE):
        process.enter(f"c{number}")
    store.calls.clear()
    process.commands.evict(ROOM, reason="cleared")

    assert users(store) == []
    assert process.believed() == process.held() == set()
    assert process.is_told_out("c299")
    assert sum(count for verb, count in store.calls.items() if verb != "state") <= 10


def test_silence_of_many_costs_a_handful_of_writes(process: Process, store: MemoryStore) -> None:
    """Invariant 10."""
    for number in range(3 * SLICE):
        process.enter(f"c{number}")
        process.client(f"c{number}").heard -= SILENCE + 1
    store.calls.clear()
    process.holdings.end_silence()

    assert users(store) == []
    assert store.calls["leave"] <= 3


def test_who_updates_after_the_store_lost_them_is_put_back(
    process: Process, store: MemoryStore
) -> None:
    """Invariant 7."""
    process.enter("ada")
    store.leave(ROOM, ["ada"])

    with pytest.raises(BackendUnavailable):
        process.connections.update("ada", ROOM, "{}")
    process.settle_down()

    assert process.believed() == process.held() == {Key(ROOM, "ada")}
    assert process.lost() == {"ada": set()}


def test_who_updates_after_an_eviction_that_was_not_read_yet_stays_out(
    store: MemoryStore, clock: Clock
) -> None:
    """Told that it was lost, it would enter again by itself."""
    here, there = Process(store, clock), Process(store, clock)
    here.renew()
    here.enter("ada")
    there.commands.evict(ROOM, user_id="ada")

    with pytest.raises(BackendUnavailable):
        here.connections.update("ada", ROOM, "{}")
    assert here.lost() == {"ada": set()}
    here.settle_down()

    assert here.believed() == here.held() == set()
    assert here.is_told_out("ada")


def test_giving_up_many_costs_a_handful_of_writes(process: Process, store: MemoryStore) -> None:
    """Invariant 10: none of them is known here."""
    process.enter("ada")
    many = [Member(ROOM, f"c{number}", f"c{number}") for number in range(3 * SLICE)]
    store.hold(ROOM, many, epoch="e", worker=process.holdings.lease.id)
    store.calls.clear()
    process.reconcile()

    assert users(store) == ["ada"]
    assert store.calls["leave"] <= 3


def test_many_who_dropped_together_are_gone_together_when_the_grace_is_over(
    process: Process, store: MemoryStore, clock: Clock
) -> None:
    """Invariant 10: more than one step ends."""
    process.enter("ada")
    many = [f"c{number}" for number in range(SLICE + 1)]
    for client_id in many:
        process.enter(client_id)
    for client_id in many:
        process.connections.disconnect(client_id, dropped=True)
    process.holdings.write_releases()
    clock.now += GRACE + 1
    process.holdings.end_lapsed()

    assert store.channels() == {ROOM: 1}


def test_one_turn_by_hand_is_what_the_loops_do(
    process: Process, store: MemoryStore, clock: Clock
) -> None:
    for client_id in ("gone", "dropped", "silent"):
        process.enter(client_id)
    process.connections.disconnect("gone", dropped=False)
    process.connections.disconnect("dropped", dropped=True)

    left = []
    for seconds in (0, GRACE + 1, SILENCE):
        clock.now += seconds
        process.loops.turn()
        left.append([change.user_id for change in process.changes if change.kind == "left"])

    assert left == [["gone"], ["gone", "dropped"], ["gone", "dropped", "silent"]]
    assert store.workers()


def test_a_process_by_hand_starts_nothing(process: Process) -> None:
    by_hand = Tracker(
        **{name: getattr(process.tracker._parts, name) for name in PARTS},
        runtime=(runtime := Runtime()),
        by_hand=True,
    )
    started: list[str] = []
    by_hand.on_start(lambda: started.append("the scheduler"))

    by_hand.start()

    assert (runtime.targets, started) == ([], [])


def test_what_an_enter_left_behind_is_given_up_by_the_reconcile(
    process: Process, store: MemoryStore
) -> None:
    """Invariant 1: its answer was lost, and the client never asked again."""
    process.connect("ada")
    store.next("enter", lose_answer)
    with pytest.raises(BackendUnavailable):
        process.enter("ada")
    process.renew()
    assert users(store) == ["ada"]
    process.reconcile()

    assert users(store) == []


def test_what_was_given_up_is_not_remembered(process: Process, store: MemoryStore) -> None:
    """Invariant 10: a connection may see many outages."""
    process.connect("ada")
    store.every("enter", fail)
    for number in range(100):
        with pytest.raises(BackendUnavailable):
            process.enter("ada", f"/room/{number}")
    store.hooks.clear()
    process.reconcile()
    process.reconcile()

    assert process.client("ada").uncertain == {}


def test_a_client_that_is_surely_in_keeps_no_memory_for_doubts(process: Process) -> None:
    process.enter("ada")
    process.enter("ada", "/room/2")

    doubts = process.client("ada").uncertain

    assert sys.getsizeof(doubts) == sys.getsizeof({})


def test_who_enters_while_the_reconcile_gives_it_up_is_in(
    process: Process, store: MemoryStore, clock: Clock
) -> None:
    """Invariant 1."""
    process.connect("ada")
    store.next("enter", lose_answer)
    with pytest.raises(BackendUnavailable):
        process.enter("ada")
    again = Meanwhile(lambda: process.enter("ada"), process.client("ada"))

    def leave(call: Call) -> Any:
        again.go()
        return call()

    store.next("leave", leave)
    process.reconcile()
    again.end()
    process.settle_down()

    assert process.believed() == process.held() == {Key(ROOM, "ada")}


def test_a_receiver_may_act_on_whom_the_reconcile_gives_up(
    process: Process, store: MemoryStore
) -> None:
    """Invariant 9."""
    process.connect("ada")
    store.next("enter", lose_answer)
    with pytest.raises(BackendUnavailable):
        process.enter("ada")

    def enter_again(sender: Any, **about: Any) -> None:
        process.enter("ada")

    with receiving(signals.user_left, process, enter_again):
        reconciling = Meanwhile(process.reconcile)
        reconciling._thread.start()
        reconciling.end()

    assert process.believed() == process.held() == {Key(ROOM, "ada")}


def test_who_closed_unnoticed_is_released_by_the_reconcile(
    process: Process, store: MemoryStore, clock: Clock
) -> None:
    """Invariant 1."""
    for client_id in ("ada", "bob"):
        process.enter(client_id)
    process.transport.closed.add("ada")
    process.reconcile()
    clock.now += GRACE + 1

    assert users(store) == ["bob"]


def test_a_reconcile_neither_puts_back_the_evicted_nor_gives_up_the_dropped(
    store: MemoryStore, clock: Clock
) -> None:
    """Invariant 1."""
    here, there = Process(store, clock), Process(store, clock)
    for client_id in ("ada", "bob"):
        here.enter(client_id)
    here.renew()

    def read(call: Call) -> Any:
        there.commands.evict(ROOM, user_id="ada")
        return call()

    store.next("members_of_worker", read)
    here.connections.disconnect("bob", dropped=True)
    clock.now += 61
    here.renew()
    here.renew()

    assert [(change.kind, change.reason) for change in here.changes] == [("entered", None)] * 2
    assert here.is_told_out("ada")
    assert users(store) == ["bob"]
