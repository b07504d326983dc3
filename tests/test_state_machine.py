"""Every backend does what the plain model in `model.py` does, whatever happens in whatever order.

Hypothesis draws the story: clients of a few users come and go at three workers, connections drop,
workers freeze, wake, drain and lose the store, the clock runs and steps back. Each step is taken on
the backend and on the model; the changes and what can be read have to be the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from model import World
from stores import STORES, Store

from flask_presence.backends.base import Backend, Key, Pruned, Reading
from flask_presence.backends.sqlalchemy import SQLAlchemyBackend
from flask_presence.errors import ClientIdTaken, NotPresent, WorkerGone
from flask_presence.model import Change, Member, State
from flask_presence.testing.fold import fold_changes

LEASE, DRAIN, GRACE, TIMEOUT, RETENTION = 15.0, 15.0, 5.0, 60.0, 100.0
SEEN_RETENTION = 200.0
ROOMS = ["/room/1", "/room/2"]
USERS = ["ann", "bob"]
STEPS = [0.7001, 3.3013, 6.1007, 20.3003, 61.7009, 150.0011]
"""Seconds that may pass: no sum of them is a round number, so no test sits on an edge."""

rooms = st.sampled_from(ROOMS)
metas = st.sampled_from([None, "{}", '{"n":1}', '{"n":2}'])
infos = st.sampled_from(["{}", '{"name":"A"}', '{"name":"B"}'])
picks = st.integers(0, 7)
slots = st.integers(0, 2)


@dataclass
class Slot:
    """A server process: its worker id, and the clients that are connected to it."""

    worker: str | None = None
    is_frozen: bool = False
    clients: dict[str, dict[str, Member]] = field(default_factory=dict)
    """Client id to what it entered, by channel."""


class Machine(RuleBasedStateMachine):
    store: Store

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_900_000_000.0
        self.minted = 0
        self.begin()

    def begin(self) -> None:
        """Start with an empty store."""
        self.model = World(self.now)
        self.backend = self.store.make(lambda: self.now)
        self.backend.last_seen_retention = SEEN_RETENTION
        self.backend.prepare()
        self.slots = [Slot(), Slot(), Slot()]
        self.callers: dict[str, str | None] = {}
        self.changes: defaultdict[str, list[Change]] = defaultdict(list)

    def mint(self, what: str) -> str:
        self.minted += 1
        return f"{what}{self.minted}"

    def teardown(self) -> None:
        for room in ROOMS:
            self.read(room)
        self.backend.close()

    # Doing the same on both

    def same(self, expected: Any, act: Callable[[Backend], Any]) -> None:
        assert act(self.backend) == expected

    def changing(
        self,
        expect: Callable[[], list[Change]],
        act: Callable[[Backend], list[Change]],
    ) -> None:
        """Take a step whose changes have to be the same, or the same refusal."""
        refusal: type[Exception] | None = None
        expected: list[Change] = []
        try:
            expected = expect()
        except (NotPresent, WorkerGone, ClientIdTaken) as error:
            refusal = type(error)
        if refusal is not None:
            with pytest.raises(refusal):
                act(self.backend)
        else:
            assert by_channel(act(self.backend)) == by_channel(expected)
        for change in expected:
            self.changes[change.channel].append(change)

    # Workers and their clients

    @initialize(
        arrivals=st.lists(
            st.tuples(st.sampled_from([*USERS, None]), slots, rooms, infos, metas),
            min_size=4,
            max_size=8,
        )
    )
    def start_with_some_clients(self, arrivals: list[Any]) -> None:
        for user, number, room, info, meta in arrivals:
            slot = self.slots[number]
            self.enter_connected(slot, self.connect(user, slot), room, info, meta)

    def worker_of(self, slot: Slot) -> str:
        """The slot's worker, begun where there is none."""
        if slot.worker is None:
            slot.worker = worker = self.mint("w")
            assert self.model.renew(worker, LEASE, create=True)
            self.same(True, lambda backend: backend.renew(worker, LEASE, create=True).held)
        return slot.worker

    def connections(self) -> list[tuple[Slot, str]]:
        """The clients at workers that are awake."""
        return [
            (slot, client) for slot in self.slots if not slot.is_frozen for client in slot.clients
        ]

    def pick_connection(self, pick: int) -> tuple[Slot, str] | None:
        found = self.connections()
        return found[pick % len(found)] if found else None

    def user_of(self, client: str) -> str | None:
        return client.partition("-")[0] or None

    def connect(self, user: str | None, slot: Slot) -> str:
        client = f"{user or ''}-{self.mint('c')}"
        slot.clients[client] = {}
        return client

    def enter_connected(
        self, slot: Slot, client: str, room: str, info: str, meta: str | None
    ) -> None:
        worker, epoch = self.worker_of(slot), self.mint("e")
        member = Member(room, client, self.user_of(client), info, meta)
        self.changing(
            lambda: self.model.enter(member, epoch=epoch, worker=worker),
            lambda backend: backend.enter(member, epoch=epoch, worker=worker),
        )
        known = slot.clients[client].get(room)
        kept = known.meta if known is not None and meta is None else meta
        slot.clients[client][room] = Member(room, client, member.user_id, info, kept)

    def awake(self, number: int) -> Slot | None:
        found = [slot for slot in self.slots if not slot.is_frozen]
        return found[number % len(found)] if found else None

    @rule(
        user=st.sampled_from([*USERS, None]),
        number=slots,
        in_rooms=st.sampled_from([ROOMS, ROOMS[:1], ROOMS[1:]]),
        info=infos,
        meta=metas,
    )
    def arrive(
        self, user: str | None, number: int, in_rooms: list[str], info: str, meta: str | None
    ) -> None:
        slot = self.awake(number)
        if slot is not None:
            client = self.connect(user, slot)
            for room in in_rooms:
                self.enter_connected(slot, client, room, info, meta)

    @rule(
        entries=st.lists(st.tuples(picks, rooms, infos, metas), min_size=1, max_size=4),
        again=st.booleans(),
    )
    def enter(self, entries: list[Any], again: bool) -> None:
        for pick, room, info, meta in entries:
            if found := self.pick_connection(pick):
                slot, client = found
                known = slot.clients[client].get(room) if again else None
                self.enter_connected(
                    slot, client, room, known.info if known else info, known.meta if known else meta
                )

    @rule(pick=picks, room=rooms, with_user=st.booleans())
    def leave(self, pick: int, room: str, with_user: bool) -> None:
        if found := self.pick_connection(pick):
            slot, client = found
            user = self.user_of(client) if with_user else None
            slot.clients[client].pop(room, None)
            self.changing(
                lambda: self.model.leave(room, [client], user_id=user),
                lambda backend: backend.leave(room, [client], user_id=user),
            )

    @rule(pick=picks, room=rooms, meta=metas.filter(bool))
    def update(self, pick: int, room: str, meta: str) -> None:
        if found := self.pick_connection(pick):
            slot, client = found
            self.changing(
                lambda: self.model.update(room, client, meta),
                lambda backend: backend.update(room, client, meta),
            )
            if known := slot.clients[client].get(room):
                slot.clients[client][room] = Member(room, client, known.user_id, known.info, meta)

    @rule(number=slots, room=rooms)
    def fall_silent(self, number: int, room: str) -> None:
        """All clients of a worker are silent in one channel for too long."""
        slot = self.awake(number)
        if slot is not None and slot.worker is not None:
            silent = [client for client in slot.clients if room in slot.clients[client]]
            for client in silent:
                del slot.clients[client][room]
            worker = slot.worker
            self.changing(
                lambda: self.model.leave(room, silent, reason="timeout", worker=worker),
                lambda backend: backend.leave(room, silent, reason="timeout", worker=worker),
            )

    def release(self, slot: Slot, clients: Iterable[str]) -> None:
        keys = [Key(room, client) for client in clients for room in slot.clients.pop(client)]
        worker = slot.worker
        if worker is not None:
            self.model.release(worker, keys, after=GRACE)
            self.same(None, lambda backend: backend.release(worker, keys, after=GRACE))

    @rule(some=st.lists(picks, min_size=1, max_size=3))
    def drop(self, some: list[int]) -> None:
        for pick in some:
            if found := self.pick_connection(pick):
                self.release(found[0], [found[1]])

    @rule(pick=picks, number=slots, passed=st.sampled_from([0.0, *STEPS[:3]]))
    def reconnect(self, pick: int, number: int, passed: float) -> None:
        """A connection drops, and some time later a new one enters what the old one had."""
        found, slot = self.pick_connection(pick), self.awake(number)
        if found is not None and slot is not None:
            entered = dict(found[0].clients[found[1]])
            self.release(found[0], [found[1]])
            self.pass_time(passed)
            client = self.connect(self.user_of(found[1]), slot)
            for room, member in entered.items():
                self.enter_connected(slot, client, room, member.info, member.meta)

    @rule(pick=picks, number=slots)
    def move(self, pick: int, number: int) -> None:
        """The very client enters from another worker; the old one hears too late that it went."""
        found, slot = self.pick_connection(pick), self.awake(number)
        if found is not None and slot is not None and slot is not found[0]:
            old, client = found
            slot.clients[client] = {}
            for room, member in old.clients[client].items():
                self.enter_connected(slot, client, room, member.info, member.meta)
            self.release(old, [client])

    # Callers without a connection

    @rule(user=st.sampled_from([*USERS, None]), room=rooms, pick=picks, info=infos, meta=metas)
    def enter_from_the_server(
        self, user: str | None, room: str, pick: int, info: str, meta: str | None
    ) -> None:
        client, epoch = f"job{pick % 3}", self.mint("e")
        member = Member(room, client, user, info, meta)
        self.changing(
            lambda: self.model.enter(member, epoch=epoch, timeout=TIMEOUT),
            lambda backend: backend.enter(member, epoch=epoch, timeout=TIMEOUT),
        )

    @rule(room=rooms, pick=picks)
    def touch(self, room: str, pick: int) -> None:
        client = f"job{pick % 3}"
        expected = self.model.touch(room, client, TIMEOUT)
        self.same(expected, lambda backend: backend.touch(room, client, TIMEOUT))

    @rule(room=rooms, pick=picks)
    def leave_from_the_server(self, room: str, pick: int) -> None:
        clients = [f"job{pick % 3}", f"job{(pick + 1) % 3}", "nobody"]
        self.changing(
            lambda: self.model.leave(room, clients),
            lambda backend: backend.leave(room, clients),
        )

    @rule(room=rooms, pick=picks, meta=metas.filter(bool))
    def update_from_the_server(self, room: str, pick: int, meta: str) -> None:
        client = f"job{pick % 3}"
        self.changing(
            lambda: self.model.update(room, client, meta),
            lambda backend: backend.update(room, client, meta),
        )

    # Time

    def renew(self, slot: Slot) -> None:
        """Renew the slot's lease; where it is gone, begin another one and put the clients back."""
        worker = slot.worker
        if worker is None:
            return
        held = self.model.renew(worker, LEASE)
        positions = {room: self.model.position(room) for room in ROOMS}
        renewal = self.backend.renew(worker, LEASE, channels=ROOMS)
        assert renewal.held == held
        assert renewal.positions == positions
        if not held:
            slot.worker = None
            self.put_back(slot)

    def put_back(self, slot: Slot) -> None:
        worker = self.worker_of(slot)
        for room in ROOMS:
            members = [entered[room] for entered in slot.clients.values() if room in entered]
            epoch = self.mint("e")
            self.changing(
                lambda members=members, epoch=epoch: self.model.hold(  # type: ignore[misc]
                    members, epoch=epoch, worker=worker
                ),
                lambda backend, room=room, members=members, epoch=epoch: backend.hold(  # type: ignore[misc]
                    room, members, epoch=epoch, worker=worker
                ),
            )

    def pass_time(self, seconds: float) -> None:
        """Let time pass; the workers that are awake renew often enough meanwhile."""
        while seconds > 0:
            step = min(seconds, LEASE / 3)
            self.now = self.model.now = self.now + step
            seconds -= step
            for slot in self.slots:
                if not slot.is_frozen:
                    self.renew(slot)

    @rule(seconds=st.sampled_from(STEPS))
    def wait(self, seconds: float) -> None:
        self.pass_time(seconds)

    @rule()
    def step_the_clock_back(self) -> None:
        """The store's clock steps back, and a prune meets what now lies too far ahead."""
        self.now = self.model.now = self.now - 1_000
        for slot in self.slots:
            if not slot.is_frozen:
                self.renew(slot)
        self.model.cut()
        self.prune(500)

    @rule(number=slots, passed=st.sampled_from([0.0, *STEPS[:4]]))
    def freeze(self, number: int, passed: float) -> None:
        self.slots[number].is_frozen = self.slots[number].worker is not None
        self.pass_time(passed)

    @precondition(lambda self: any(slot.is_frozen for slot in self.slots))
    @rule(pick=picks)
    def wake(self, pick: int) -> None:
        frozen = [slot for slot in self.slots if slot.is_frozen]
        slot = frozen[pick % len(frozen)]
        slot.is_frozen = False
        self.renew(slot)

    @rule(number=slots, passed=st.sampled_from([0.0, *STEPS[:4]]), first=st.booleans())
    def kill(self, number: int, passed: float, first: bool) -> None:
        """The process dies, maybe after a connection dropped: nobody renews its lease any more."""
        slot = self.slots[number]
        if first and slot.clients and not slot.is_frozen:
            self.release(slot, list(slot.clients)[:1])
        self.slots[number] = Slot()
        self.pass_time(passed)

    @rule(number=slots)
    def drain(self, number: int) -> None:
        """The process stops in order; another one takes its place."""
        slot = self.slots[number]
        if slot.worker is not None:
            worker = slot.worker
            self.model.end_worker(worker, after=DRAIN)
            self.same(None, lambda backend: backend.end_worker(worker, after=DRAIN))
            member = Member(ROOMS[0], "late", "ann")
            self.changing(
                lambda: self.model.enter(member, epoch="late", worker=worker),
                lambda backend: backend.enter(member, epoch="late", worker=worker),
            )
            self.slots[number] = Slot()

    # Ending, reading, upkeep

    @rule(limit=st.sampled_from([1, 2, 500]))
    def prune(self, limit: int) -> None:
        self.changing(
            self.model.prune,
            lambda backend: all_slices(lambda: backend.prune(limit)),
        )

    @rule(room=rooms)
    def settle(self, room: str) -> None:
        self.changing(
            lambda: self.model.settle(room),
            lambda backend: all_slices(lambda: backend.settle(room)),
        )

    @rule(room=rooms)
    def read(self, room: str) -> None:
        states: list[State] = []
        self.changing(
            lambda: self.model.settle(room),
            lambda backend: read_all(lambda: backend.state(room), states),
        )
        expected = self.model.state(room)
        assert states == [expected]
        if expected.epoch is not None:
            folded = fold_changes(room, self.changes[room])
            assert (folded.revision, folded.users) == (expected.revision, expected.users)

    @rule(room=rooms)
    def count(self, room: str) -> None:
        states: list[State] = []
        self.changing(
            lambda: self.model.settle(room),
            lambda backend: read_all(lambda: backend.count(room), states),
        )
        full = self.model.state(room)
        expected = State(room, full.epoch, full.revision, full.count, full.anonymous)
        assert states == [expected]

    @rule(room=rooms, user=st.sampled_from(USERS), reason=st.sampled_from([None, "evicted"]))
    def evict_a_user(self, room: str, user: str, reason: Any) -> None:
        self.settle(room)
        self.forget(room, lambda client: self.user_of(client) == user)
        self.changing(
            lambda: self.model.evict(room, user_id=user, reason=reason),
            lambda backend: all_slices(lambda: backend.evict(room, user_id=user, reason=reason)),
        )

    @rule(room=rooms, pick=picks)
    def evict_a_client(self, room: str, pick: int) -> None:
        if found := self.pick_connection(pick):
            self.settle(room)
            self.forget(room, lambda client: client == found[1])
            self.changing(
                lambda: self.model.evict(room, client_id=found[1]),
                lambda backend: all_slices(lambda: backend.evict(room, client_id=found[1])),
            )

    @rule(room=rooms)
    def clear(self, room: str) -> None:
        self.forget(room, lambda client: True)
        self.changing(
            lambda: self.model.evict(room, reason="cleared"),
            lambda backend: all_slices(lambda: backend.evict(room, reason="cleared")),
        )

    def forget(self, room: str, matches: Callable[[str], bool]) -> None:
        """The workers that are awake hear of an eviction."""
        for slot, client in self.connections():
            if matches(client):
                slot.clients[client].pop(room, None)

    @rule(room=rooms, is_current=st.booleans())
    def reset_epoch(self, room: str, is_current: bool) -> None:
        old = (self.model.position(room)[0] if is_current else "other") or "none"
        new = self.mint("e")
        expected = self.model.reset_epoch(room, old, new)
        self.same(expected, lambda backend: backend.reset_epoch(room, old, new))

    @rule()
    def drop_empty_channels(self) -> None:
        expected = self.model.drop_empty_channels(RETENTION, SEEN_RETENTION)
        self.same(expected, lambda backend: backend.drop_empty_channels(RETENTION))

    @rule()
    def lose_the_store(self) -> None:
        """All data is gone: each worker finds its lease gone, and puts its clients back."""
        self.backend.close()
        before = self.slots
        self.begin()
        self.slots = before
        for slot in self.slots:
            if not slot.is_frozen:
                self.renew(slot)

    @invariant()
    def users_were_last_seen_at_the_same_moment(self) -> None:
        found = self.backend.last_seen([*USERS, "nobody"])
        assert found.keys() == {*USERS, "nobody"}
        assert found["nobody"] is None
        for user in USERS:
            assert_same_moment(found[user], self.model.last_seen(user))

    @invariant()
    def queries_see_the_same(self) -> None:
        """Where the store is an SQL database."""
        if isinstance(self.backend, SQLAlchemyBackend):
            sql = self.backend.expressions
            with self.backend.engine.connect() as connection:
                for user in USERS:
                    person = sa.literal(user)
                    query = sa.select(sql.is_present(person), sql.last_seen_at(person))
                    is_present, last_seen = connection.execute(query).one()
                    assert bool(is_present) == self.model.is_present(user)
                    assert_same_moment(last_seen, self.model.last_seen(user))

    @invariant()
    def readers_without_a_clock_agree(self) -> None:
        """Counters and indexes hold what was not met yet."""
        self.same(self.model.channels(), lambda backend: backend.channels())
        for user in USERS:
            expected = self.model.channels_of(user)
            self.same(expected, lambda backend, user=user: backend.channels_of(user_id=user))
        for slot in self.slots:
            if slot.worker is not None:
                members = self.model.members_of_worker(slot.worker)
                self.same(
                    members,
                    lambda backend, slot=slot: backend.members_of_worker(
                        slot.worker, after=None, limit=100
                    ),
                )


def assert_same_moment(found: datetime | None, expected: float | None) -> None:
    if found is None or expected is None:
        assert found is expected
    else:
        # A store counts in whole milliseconds.
        assert abs(found.timestamp() - expected) < 0.003


def by_channel(changes: Iterable[Change]) -> dict[str, list[Change]]:
    """Changes of different channels have no order among them."""
    found: defaultdict[str, list[Change]] = defaultdict(list)
    for change in changes:
        found[change.channel].append(change)
    return dict(found)


def all_slices(step: Callable[[], Pruned]) -> list[Change]:
    changes: list[Change] = []
    for _ in range(1000):
        pruned = step()
        changes += pruned.changes
        if not pruned.more:
            return changes
    raise AssertionError("there is always more that is due")


def read_all(read: Callable[[], Reading], states: list[State]) -> list[Change]:
    changes: list[Change] = []
    for _ in range(1000):
        reading = read()
        changes += reading.changes
        if reading.state is not None:
            states.append(reading.state)
            return changes
    raise AssertionError("a reading never came to its end")


EXAMPLES = {"memory": 100, "sqlite": 20}
"""How many stories a store is told; 8 where each step goes to a server."""


@pytest.mark.parametrize("name", STORES)
def test_every_backend_does_what_the_model_does(name: str, request: pytest.FixtureRequest) -> None:
    class Story(Machine):
        store: Store = request.getfixturevalue(f"{name}_store")

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Story,
        settings=settings(
            deadline=None,
            derandomize=True,
            max_examples=EXAMPLES.get(name, 8),
            stateful_step_count=50,
        ),
    )
