"""The contract tests: what every backend has to keep, one sentence a test."""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from typing import Any

import pytest

from ..backends.base import (
    SLICE,
    Backend,
    Command,
    Evicted,
    Key,
    Pruned,
    Reading,
    Renewal,
    Told,
)
from ..errors import BackendUnavailable, ChannelFull, ClientIdTaken, NotPresent, WorkerGone
from ..model import NOWHERE, Change, Member, Position, Reason, State, User
from .fold import fold_changes

ROOM = "/room/1"
OTHER = "/room/2"
LEASE = 15.0
THREADS = 8

ALIKE = [
    pytest.param("A", "a", id="case"),
    pytest.param("é", "e", id="accent"),
    pytest.param("é", "e\u0301", id="normal-form"),
    pytest.param("ß", "ss", id="ligature"),
    pytest.param("a.", "a", id="trailing-dot"),
    pytest.param("a/", "a", id="trailing-slash"),
    pytest.param("1", "01", id="leading-zero"),
    pytest.param("1", "1.0", id="number"),
    pytest.param("😀", "😁", id="emoji"),
    pytest.param("ı", "i", id="dotless-i"),
    pytest.param("a\u200db", "ab", id="zero-width"),
]
"""Pairs that some store, collation or conversion takes for the same."""

HOSTILE = [
    "'",
    '"',
    "'; DROP TABLE presence_member; --",
    "100%",
    "a_b",
    "\\",
    "\\'",
    "`",
    "😀👩‍👩‍👧",
    "__proto__",
    "constructor",
    "None",
    "null",
    "0",
    "-1",
    "1e3",
    ":",
    "a:b:c",
    "{a}",
    "{}",
    "[]*?",
    "$1 :x %s %(x)s {0}",
    "<script>",
    "\u2028",
    "\ufeffx",
    "a b",
    "x" * 240,
    "é" * 120,
]
"""Text that some store takes for something else than text."""


class Clock:
    """Stands for the store's clock; a test moves it."""

    def __init__(self) -> None:
        self.now = 1_900_000_000.0
        self.tick = 0.0
        """By how much each look at the clock moves it."""

    def __call__(self) -> float:
        self.now += self.tick
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Store:
    """A backend with short words for a test's steps, which remembers every change it made."""

    def __init__(self, backend: Backend, clock: Clock) -> None:
        self.backend = backend
        self.clock = clock
        self.changes: defaultdict[str, list[Change]] = defaultdict(list)
        self._lock = threading.Lock()

    def _note(self, changes: list[Change]) -> list[Change]:
        with self._lock:
            for change in changes:
                self.changes[change.channel].append(change)
        return changes

    # Members

    def enter(
        self,
        client: str,
        user: str | None = "ann",
        *,
        channel: str = ROOM,
        info: Any = None,
        meta: Any = None,
        worker: str | None = "w1",
        timeout: float | None = None,
        epoch: str = "e1",
        max_users: int | None = None,
    ) -> list[Change]:
        """Enter a client, held by ``w1`` where neither a worker nor a timeout is given."""
        return self._note(
            self.backend.enter(
                member(client, user, channel=channel, info=info, meta=meta),
                epoch=epoch,
                worker=worker if timeout is None else None,
                timeout=timeout,
                max_users=max_users,
            )
        )

    def hold(
        self,
        members: Sequence[Member],
        *,
        channel: str = ROOM,
        worker: str = "w1",
        epoch: str = "e1",
    ) -> list[Change]:
        return self._note(self.backend.hold(channel, members, epoch=epoch, worker=worker))

    def update(self, client: str, meta: Any, *, channel: str = ROOM) -> list[Change]:
        return self._note(self.backend.update(channel, client, text(meta)))

    def leave(
        self,
        *clients: str,
        channel: str = ROOM,
        reason: Reason = "left",
        user_id: str | None = None,
        worker: str | None = None,
    ) -> list[Change]:
        return self._note(
            self.backend.leave(channel, clients, reason=reason, user_id=user_id, worker=worker)
        )

    def touch(self, client: str, timeout: float, *, channel: str = ROOM) -> bool:
        return self.backend.touch(channel, client, timeout)

    def release(self, *clients: str, after: float, channel: str = ROOM, worker: str = "w1") -> None:
        self.backend.release(worker, [Key(channel, client) for client in clients], after=after)

    def evict(
        self,
        *,
        channel: str = ROOM,
        user_id: str | None = None,
        client_id: str | None = None,
        reason: Reason | None = None,
    ) -> Evicted:
        """Evict one slice."""
        evicted = self.backend.evict(channel, user_id=user_id, client_id=client_id, reason=reason)
        self._note(evicted.changes)
        return evicted

    # Workers

    def begin(self, worker: str, timeout: float = LEASE) -> Renewal:
        return self.backend.renew(worker, timeout, create=True)

    def renew(
        self,
        worker: str = "w1",
        timeout: float = LEASE,
        *,
        channels: Collection[str] = (),
        cursor: int | None = None,
    ) -> Renewal:
        return self.backend.renew(worker, timeout, channels=channels, cursor=cursor)

    def lose_workers(self) -> None:
        """Let more time pass than any lease lasts."""
        self.clock.advance(LEASE + 1)

    # Ending and reading

    def settle_slice(self, *, channel: str = ROOM) -> Pruned:
        pruned = self.backend.settle(channel)
        self._note(pruned.changes)
        return pruned

    def settle(self, *, channel: str = ROOM) -> list[Change]:
        """End all that is due in a channel."""
        return _all_slices(lambda: self.settle_slice(channel=channel))

    def prune_slice(self, limit: int = SLICE) -> Pruned:
        pruned = self.backend.prune(limit)
        self._note(pruned.changes)
        return pruned

    def prune(self, limit: int = SLICE) -> list[Change]:
        """End all that is due anywhere."""
        return _all_slices(lambda: self.prune_slice(limit))

    def reading(self, *, channel: str = ROOM) -> Reading:
        reading = self.backend.state(channel)
        self._note(reading.changes)
        return reading

    def counting(self, *, channel: str = ROOM) -> Reading:
        reading = self.backend.count(channel)
        self._note(reading.changes)
        return reading

    def state(self, channel: str = ROOM) -> State:
        """Read a channel, again where the reading ended somebody first."""
        return _repeat(lambda: self.reading(channel=channel).state)

    def count(self, channel: str = ROOM) -> State:
        return _repeat(lambda: self.counting(channel=channel).state)

    def users(self, channel: str = ROOM) -> list[str]:
        return [user.id for user in self.state(channel).users]

    def seen(self, user: str = "ann") -> float | None:
        """How many seconds ago a user was last seen."""
        moment = self.backend.last_seen([user])[user]
        if moment is None:
            return None
        assert moment.tzinfo is timezone.utc
        now = datetime.fromtimestamp(self.clock.now, timezone.utc)
        return round((now - moment).total_seconds(), 3)

    def obey_the_law(self) -> None:
        """Assert that the state of every channel is the fold of all its changes.

        Their epochs may differ: a new epoch is nobody's change.
        """
        for channel, changes in self.changes.items():
            state = self.state(channel)
            folded = fold_changes(channel, changes)
            if state.position == NOWHERE:
                assert (folded.count, folded.anonymous) == (0, 0), "forgotten with somebody in it"
            else:
                assert replace(state, epoch=None) == replace(folded, epoch=None)


class BackendContract:
    """The tests of a backend: subclass this, and say how to make one on an empty store.

    ::

        from flask_presence.testing import BackendContract

        class TestMyBackend(BackendContract):
            def make_backend(self, clock):
                return MyBackend("…", clock=clock)

    ``clock`` is a callable that returns seconds and stands for the store's own clock, so that no
    test has to sleep. Every call has to lead to an empty store of its own; a test calls it once
    and closes what it got. What has to be started and removed around that belongs in a fixture of
    the subclass with ``autouse=True``.
    """

    def make_backend(self, clock: Callable[[], float]) -> Backend:
        """Return a backend on an empty store that takes the time from ``clock``."""
        raise NotImplementedError("Define make_backend(self, clock) in your subclass.")

    def lose_lease(self, backend: Backend, worker: str) -> None:
        """Make the store forget a worker's lease and nothing else, as a crash might.

        Override it for a store of which a part can be lost; else those tests are skipped.
        """
        pytest.skip("This store loses all or nothing.")

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def store(self, clock: Clock) -> Iterator[Store]:
        """A store with a worker ``w1``; whatever a test does, the law holds at its end."""
        backend = self.make_backend(clock)
        backend.prepare()
        store = Store(backend, clock)
        store.begin("w1")
        yield store
        store.obey_the_law()
        backend.close()

    # Preparing

    def test_preparing_and_checking_may_be_repeated(self, store: Store) -> None:
        store.enter("c1")

        store.backend.prepare()
        store.backend.check()
        store.backend.check()

        assert store.users() == ["ann"]

    def test_closing_may_be_repeated(self, clock: Clock) -> None:
        backend = self.make_backend(clock)
        backend.prepare()

        backend.close()
        backend.close()

    # enter

    def test_the_first_client_of_a_user_enters(self, store: Store) -> None:
        changes = store.enter("c1", "ann", info={"name": "Ann"}, meta={"n": 1})

        assert changes == [
            Change(
                kind="entered",
                channel=ROOM,
                epoch="e1",
                revision=1,
                user_id="ann",
                info={"name": "Ann"},
                meta={"n": 1},
                count=1,
                anonymous=0,
                reason=None,
            )
        ]
        assert store.state() == State(
            ROOM, "e1", 1, 1, 0, (User("ann", {"name": "Ann"}, {"n": 1}),)
        )

    def test_another_client_of_a_user_changes_nothing(self, store: Store) -> None:
        store.enter("c1", "ann")

        changes = store.enter("c2", "ann")

        assert changes == []
        assert store.state().position == Position("e1", 1)
        assert store.state().count == 1

    def test_entering_again_changes_nothing(self, store: Store) -> None:
        store.enter("c1", "ann", info={"name": "Ann"}, meta={"n": 1})

        changes = store.enter("c1", "ann", info={"name": "Ann"}, meta={"n": 1})

        assert changes == []
        assert store.state().position == Position("e1", 1)

    def test_a_second_user_raises_count_and_revision_by_one(self, store: Store) -> None:
        store.enter("c1", "ann")

        changes = store.enter("c2", "bob")

        assert shapes(changes) == [("entered", "bob", None)]
        assert (changes[0].revision, changes[0].count) == (2, 2)

    def test_an_anonymous_client_is_counted_apart(self, store: Store) -> None:
        store.enter("c1", "ann")

        changes = store.enter("c2", None, info={"name": "x"}, meta={"n": 1})

        assert changes == [
            Change("entered", ROOM, "e1", 2, None, {}, {}, count=1, anonymous=1, reason=None)
        ]
        assert store.state() == State(ROOM, "e1", 2, 1, 1, (User("ann"),))

    def test_each_anonymous_client_counts(self, store: Store) -> None:
        store.enter("c1", None)
        changes = store.enter("c2", None)

        assert [(change.revision, change.anonymous) for change in changes] == [(2, 2)]

    def test_an_anonymous_client_is_never_updated(self, store: Store) -> None:
        store.enter("c1", None)

        again = store.enter("c1", None, info={"name": "x"}, meta={"n": 1})
        updated = store.update("c1", {"n": 2})

        assert again == updated == []
        assert store.state() == State(ROOM, "e1", 1, 0, 1)

    def test_a_channel_keeps_the_epoch_that_it_was_given_first(self, store: Store) -> None:
        store.enter("c1", "ann", epoch="e1")

        changes = store.enter("c2", "bob", epoch="e2")

        assert [(change.epoch, change.revision) for change in changes] == [("e1", 2)]

    def test_each_channel_has_its_own_revision(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.enter("c2", "bob")

        changes = store.enter("c1", "ann", channel=OTHER, epoch="e2")

        assert [(change.epoch, change.revision) for change in changes] == [("e2", 1)]
        assert store.state().position == Position("e1", 2)

    def test_a_client_id_is_free_in_another_channel(self, store: Store) -> None:
        store.enter("c1", "ann")

        changes = store.enter("c1", "bob", channel=OTHER)

        assert shapes(changes) == [("entered", "bob", None)]

    def test_a_client_id_of_another_user_is_refused(self, store: Store) -> None:
        store.enter("c1", "ann", meta={"n": 1})

        with pytest.raises(ClientIdTaken):
            store.enter("c1", "bob", meta={"n": 2})

        assert store.state() == State(ROOM, "e1", 1, 1, 0, (User("ann", {}, {"n": 1}),))

    @pytest.mark.parametrize(("first", "second"), [("ann", None), (None, "ann")])
    def test_a_client_is_not_anonymous_and_a_user(
        self, store: Store, first: str | None, second: str | None
    ) -> None:
        store.enter("c1", first)

        with pytest.raises(ClientIdTaken):
            store.enter("c1", second)

        assert store.state().position == Position("e1", 1)

    # Info

    def test_an_info_that_differs_is_seen(self, store: Store) -> None:
        store.enter("c1", "ann", info={"name": "Ann"})

        by_another = store.enter("c2", "ann", info={"name": "Anna"})
        by_the_same = store.enter("c1", "ann", info={"name": "Anne"})

        assert shapes(by_another + by_the_same) == [("updated", "ann", None)] * 2
        assert [change.info["name"] for change in by_another + by_the_same] == ["Anna", "Anne"]

    def test_an_info_that_a_client_gave_before_is_no_news(self, store: Store) -> None:
        store.enter("c1", "ann", info={"name": "Ann"})
        store.enter("c2", "ann", info={"name": "Anna"})

        changes = store.enter("c1", "ann", info={"name": "Ann"})

        assert changes == []
        assert store.state().users == (User("ann", {"name": "Anna"}),)

    def test_where_the_client_with_the_info_leaves_the_one_before_shows(self, store: Store) -> None:
        store.enter("c1", "ann", info={"name": "Ann"})
        store.enter("c2", "ann", info={"name": "Anna"})

        changes = store.leave("c2")

        assert shapes(changes) == [("updated", "ann", None)]
        assert changes[0].info == {"name": "Ann"}

    def test_the_info_given_last_shows_also_where_nothing_changed_then(self, store: Store) -> None:
        store.enter("c1", "ann", info={"name": "Ann"})
        store.enter("c2", "ann", info={"name": "Anna"})
        store.enter("c3", "ann", info={"name": "Anna"})

        changes = store.leave("c2")

        assert changes == []
        assert store.state().users == (User("ann", {"name": "Anna"}),)

    # Meta

    def test_a_meta_that_differs_is_seen(self, store: Store) -> None:
        store.enter("c1", "ann", meta={"n": 1})

        by_another = store.enter("c2", "ann", meta={"n": 2})
        by_the_same = store.enter("c1", "ann", meta={"n": 3})

        assert shapes(by_another + by_the_same) == [("updated", "ann", None)] * 2
        assert [change.meta for change in by_another + by_the_same] == [{"n": 2}, {"n": 3}]

    def test_info_and_meta_that_differ_are_one_change(self, store: Store) -> None:
        store.enter("c1", "ann", info={"name": "Ann"}, meta={"n": 1})

        changes = store.enter("c2", "ann", info={"name": "Anna"}, meta={"n": 2})

        assert [(change.info, change.meta) for change in changes] == [({"name": "Anna"}, {"n": 2})]

    def test_no_meta_is_seen_as_an_empty_one(self, store: Store) -> None:
        changes = store.enter("c1", "ann", meta=None)

        assert changes[0].meta == {}
        assert store.state().users == (User("ann", {}, {}),)

    def test_a_client_without_meta_is_no_writer(self, store: Store) -> None:
        store.enter("c1", "ann", meta={"n": 1})

        changes = store.enter("c2", "ann", meta=None)

        assert changes == []
        assert store.state().users[0].meta == {"n": 1}

    def test_a_client_with_an_empty_meta_is_a_writer(self, store: Store) -> None:
        store.enter("c1", "ann", meta={"n": 1})

        changes = store.enter("c2", "ann", meta={})

        assert shapes(changes) == [("updated", "ann", None)]
        assert changes[0].meta == {}

    def test_an_empty_meta_after_none_is_not_seen_but_written(self, store: Store) -> None:
        store.enter("c1", "ann", meta=None)
        store.enter("c2", "ann", meta={"n": 2})
        store.leave("c2")

        unseen = store.enter("c1", "ann", meta={})
        store.enter("c3", "ann", meta={"n": 3})
        seen = store.leave("c3")

        assert unseen == []
        assert [change.meta for change in seen] == [{}]

    def test_entering_again_without_meta_keeps_it(self, store: Store) -> None:
        store.enter("c1", "ann", meta={"n": 1})

        changes = store.enter("c1", "ann", meta=None)

        assert changes == []
        assert store.state().users[0].meta == {"n": 1}

    def test_a_meta_that_a_client_gave_before_is_no_news(self, store: Store) -> None:
        store.enter("c1", "ann", meta={"n": 1})
        store.enter("c2", "ann", meta={"n": 2})

        changes = store.enter("c1", "ann", meta={"n": 1})

        assert changes == []
        assert store.state().users[0].meta == {"n": 2}

    def test_entering_again_with_the_same_meta_makes_nobody_the_last_writer(
        self, store: Store
    ) -> None:
        store.enter("c1", "ann", meta={"n": 1})
        store.enter("c2", "ann", meta={"n": 2})
        store.enter("c3", "ann", meta={"n": 1})

        store.enter("c1", "ann", meta={"n": 1})
        changes = store.leave("c3")

        assert [change.meta for change in changes] == [{"n": 2}]

    def test_where_the_writer_leaves_the_previous_writers_meta_shows(self, store: Store) -> None:
        store.enter("c1", "ann", meta={"n": 1})
        store.enter("c2", "ann", meta={"n": 2})
        store.enter("c3", "ann", meta={"n": 3})
        store.leave("c2")

        changes = store.leave("c3")

        assert shapes(changes) == [("updated", "ann", None)]
        assert changes[0].meta == {"n": 1}

    def test_where_the_only_writer_leaves_nothing_shows(self, store: Store) -> None:
        store.enter("c1", "ann", meta=None)
        store.enter("c2", "ann", meta={"n": 2})

        changes = store.leave("c2")

        assert shapes(changes) == [("updated", "ann", None)]
        assert changes[0].meta == {}

    def test_where_another_than_the_writer_leaves_nothing_changes(self, store: Store) -> None:
        store.enter("c1", "ann", meta={"n": 1})
        store.enter("c2", "ann", meta={"n": 2})

        changes = store.leave("c1")

        assert changes == []
        assert store.state().users[0].meta == {"n": 2}

    def test_where_metas_are_the_same_a_leaving_writer_is_not_seen(self, store: Store) -> None:
        store.enter("c1", "ann", meta={"n": 1})
        store.enter("c2", "ann", meta={"n": 1})

        assert store.leave("c2") == []

    # Limits

    def test_one_user_more_than_may_be_in_is_refused(self, store: Store) -> None:
        store.enter("c1", "ann", max_users=1)

        with pytest.raises(ChannelFull):
            store.enter("c2", "bob", max_users=1)

        assert store.users() == ["ann"]
        assert store.state().position == Position("e1", 1)
        assert store.backend.channels_of(client_id="c2") == []

    def test_a_full_channel_takes_another_client_of_a_user_who_is_in(self, store: Store) -> None:
        store.enter("c1", "ann", max_users=1)

        store.enter("c2", "ann", max_users=1)
        store.leave("c1")

        assert store.users() == ["ann"]

    def test_anonymous_clients_take_no_users_place(self, store: Store) -> None:
        store.enter("c1", None, max_users=1)
        store.enter("c2", "ann", max_users=1)

        changes = store.enter("c3", None, max_users=1)

        assert (changes[0].count, changes[0].anonymous) == (1, 2)

    def test_a_user_who_left_makes_room(self, store: Store) -> None:
        store.enter("c1", "ann", max_users=1)
        store.leave("c1")

        changes = store.enter("c2", "bob", max_users=1)

        assert shapes(changes) == [("entered", "bob", None)]

    def test_a_user_who_is_due_still_counts(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=10)
        store.clock.advance(11)

        with pytest.raises(ChannelFull):
            store.enter("c2", "bob", timeout=10, max_users=1)
        store.settle()
        changes = store.enter("c2", "bob", timeout=10, max_users=1)

        assert shapes(changes) == [("entered", "bob", None)]

    def test_a_refused_user_leaves_no_channel_behind(self, store: Store) -> None:
        with pytest.raises(ChannelFull):
            store.enter("c1", "ann", max_users=0)

        assert store.state() == State(ROOM)

    # Order and place

    def test_users_are_in_the_order_of_entering(self, store: Store) -> None:
        for name in ["zoe", "ann", "bob", "10", "9"]:
            store.enter(f"c-{name}", name)

        assert store.users() == ["zoe", "ann", "bob", "10", "9"]

    def test_a_user_keeps_the_place_while_any_client_stays(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.enter("c2", "bob")
        store.enter("c3", "ann", meta={"n": 1})

        store.leave("c1")
        store.enter("c1", "ann")
        store.leave("c3")

        assert store.users() == ["ann", "bob"]

    def test_a_user_who_comes_back_goes_to_the_end(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.enter("c2", "bob")

        store.leave("c1")
        store.enter("c1", "ann")

        assert store.users() == ["bob", "ann"]

    # Holders

    @pytest.mark.parametrize("timeout", [None, 5.0])
    def test_an_unknown_worker_may_hold_nothing(self, store: Store, timeout: float | None) -> None:
        with pytest.raises(WorkerGone):
            store.backend.enter(member("c1", "ann"), epoch="e1", worker="nobody", timeout=timeout)

        assert store.state() == State(ROOM)
        assert store.backend.channels_of(client_id="c1") == []

    def test_an_ended_worker_may_hold_nothing(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.lose_workers()
        store.prune()

        with pytest.raises(WorkerGone):
            store.enter("c2", "bob", worker="w1")
        with pytest.raises(WorkerGone):
            store.hold([member("c2", "bob")], worker="w1")

        assert store.users() == []

    def test_a_drained_worker_may_hold_nothing(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.backend.end_worker("w1", after=10)

        with pytest.raises(WorkerGone):
            store.enter("c2", "bob", worker="w1")
        with pytest.raises(WorkerGone):
            store.hold([member("c2", "bob")], worker="w1")

        assert store.users() == ["ann"]

    def test_a_client_that_enters_elsewhere_is_held_there(self, store: Store) -> None:
        store.enter("c1", "ann", worker="w1")
        store.begin("w2")

        store.enter("c1", "ann", worker="w2")
        store.clock.advance(10)
        store.renew("w2")
        store.clock.advance(10)

        assert store.prune() == []
        assert store.users() == ["ann"]

    def test_a_client_that_enters_with_a_timeout_stays_with_its_worker(self, store: Store) -> None:
        store.enter("c1", "ann", worker="w1")

        changes = store.enter("c1", "ann", meta={"n": 1}, timeout=1)
        store.clock.advance(2)
        kept = store.users()
        store.lose_workers()

        assert shapes(changes) == [("updated", "ann", None)]
        assert kept == ["ann"]
        assert shapes(store.settle()) == [("left", "ann", "worker_lost")]

    def test_a_client_that_enters_with_a_timeout_leaves_a_worker_that_is_dead_or_drained(
        self, store: Store
    ) -> None:
        store.begin("w2", timeout=10)
        store.enter("c1", "ann", worker="w2")
        store.enter("c2", "bob", worker="w1")
        store.backend.end_worker("w1", after=10)
        store.clock.advance(11)

        store.enter("c1", "ann", timeout=40)
        store.enter("c2", "bob", timeout=40)

        assert store.settle() == []
        assert store.users() == ["ann", "bob"]

    def test_a_client_that_a_worker_takes_over_has_no_deadline(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=10)

        store.enter("c1", "ann", worker="w1")
        store.clock.advance(11)
        store.renew("w1")

        assert store.users() == ["ann"]

    def test_entering_again_moves_the_deadline(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=10)
        store.clock.advance(6)

        store.enter("c1", "ann", timeout=10)
        store.clock.advance(6)

        assert store.users() == ["ann"]

    def test_a_member_that_is_due_may_be_entered_over_until_someone_met_it(
        self, store: Store
    ) -> None:
        store.enter("c1", "ann", timeout=10)
        store.clock.advance(11)

        changes = store.enter("c1", "ann", timeout=10)

        assert changes == []
        assert store.state().position == Position("e1", 1)

    def test_another_client_of_a_user_who_is_due_keeps_them_in(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=10)
        store.clock.advance(11)

        changes = store.enter("c2", "ann", timeout=10)

        assert changes == []
        assert store.settle() == []
        assert store.state().position == Position("e1", 1)

    # hold

    def test_a_worker_puts_back_its_clients_in_order(self, store: Store) -> None:
        members = [
            member("c1", "zoe", info={"name": "Zoe"}),
            member("c2", "ann", meta={"n": 1}),
            member("c3", None),
        ]

        changes = store.hold(members, epoch="e7")

        assert shapes(changes) == [
            ("entered", "zoe", "healed"),
            ("entered", "ann", "healed"),
            ("entered", None, "healed"),
        ]
        assert [change.revision for change in changes] == [1, 2, 3]
        assert store.state() == State(
            ROOM, "e7", 3, 2, 1, (User("zoe", {"name": "Zoe"}), User("ann", {}, {"n": 1}))
        )

    def test_what_a_second_client_puts_back_is_an_update(self, store: Store) -> None:
        changes = store.hold([member("c1", "ann"), member("c2", "ann", meta={"n": 2})])

        assert shapes(changes) == [("entered", "ann", "healed"), ("updated", "ann", "healed")]

    def test_a_client_that_is_in_keeps_its_info_and_meta_when_held(self, store: Store) -> None:
        store.enter("c1", "ann", info={"name": "Ann"}, meta={"n": 1})

        changes = store.hold([member("c1", "ann", info={"name": "Old"}, meta={"n": 0})])

        assert changes == []
        assert store.state().users == (User("ann", {"name": "Ann"}, {"n": 1}),)

    def test_a_client_that_is_in_is_held_anew(self, store: Store) -> None:
        store.enter("c1", "ann", worker="w1")
        store.enter("c2", "bob", timeout=10)
        store.begin("w2", timeout=40)

        changes = store.hold([member("c1", "ann"), member("c2", "bob")], worker="w2")
        store.lose_workers()

        assert changes == []
        assert store.users() == ["ann", "bob"]

    def test_an_unknown_worker_puts_nothing_back(self, store: Store) -> None:
        with pytest.raises(WorkerGone):
            store.hold([member("c1", "ann")], worker="nobody")

        assert store.state() == State(ROOM)

    def test_holding_nobody_changes_nothing(self, store: Store) -> None:
        assert store.hold([]) == []
        assert store.state() == State(ROOM)

    # update

    def test_an_update_is_seen(self, store: Store) -> None:
        store.enter("c1", "ann", info={"name": "Ann"}, meta={"n": 1})

        changes = store.update("c1", {"n": 2})

        assert changes == [
            Change("updated", ROOM, "e1", 2, "ann", {"name": "Ann"}, {"n": 2}, 1, 0, None)
        ]
        assert store.state().users == (User("ann", {"name": "Ann"}, {"n": 2}),)

    def test_an_update_replaces_the_meta(self, store: Store) -> None:
        store.enter("c1", "ann", meta={"a": 1, "b": 1})

        changes = store.update("c1", {"b": 2})

        assert changes[0].meta == {"b": 2}

    def test_an_update_with_the_same_meta_changes_nothing(self, store: Store) -> None:
        store.enter("c1", "ann", meta={"n": 1})

        changes = store.update("c1", {"n": 1})

        assert changes == []
        assert store.state().position == Position("e1", 1)

    def test_an_update_makes_the_client_the_last_writer(self, store: Store) -> None:
        store.enter("c1", "ann", meta={"n": 1})
        store.enter("c2", "ann", meta={"n": 2})
        store.enter("c3", "ann", meta={"n": 1})

        unseen = store.update("c1", {"n": 1})
        changes = store.leave("c3")

        assert unseen == changes == []
        assert store.state().users[0].meta == {"n": 1}

    def test_an_update_of_a_client_that_wrote_earlier_is_seen(self, store: Store) -> None:
        store.enter("c1", "ann", meta={"n": 1})
        store.enter("c2", "ann", meta={"n": 2})

        changes = store.update("c1", {"n": 1})

        assert [change.meta for change in changes] == [{"n": 1}]

    def test_a_client_that_is_not_in_cannot_update(self, store: Store) -> None:
        store.enter("c1", "ann")

        with pytest.raises(NotPresent):
            store.update("c2", {"n": 2})
        with pytest.raises(NotPresent):
            store.update("c1", {"n": 2}, channel=OTHER)

        assert store.state().position == Position("e1", 1)
        assert store.state(OTHER) == State(OTHER)

    def test_an_update_does_not_prolong(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=10)
        store.clock.advance(6)

        store.update("c1", {"n": 1})
        store.clock.advance(6)

        assert store.users() == []

    # leave

    def test_a_users_last_client_leaves(self, store: Store) -> None:
        store.enter("c1", "ann", info={"name": "Ann"}, meta={"n": 1})

        changes = store.leave("c1")

        assert changes == [
            Change("left", ROOM, "e1", 2, "ann", {"name": "Ann"}, {"n": 1}, 0, 0, "left")
        ]
        assert store.state() == State(ROOM, "e1", 2, 0, 0)

    def test_while_a_user_has_a_client_left_nobody_leaves(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.enter("c2", "ann")

        changes = store.leave("c1")

        assert changes == []
        assert store.users() == ["ann"]

    def test_an_anonymous_client_leaves(self, store: Store) -> None:
        store.enter("c1", None)
        store.enter("c2", None)

        changes = store.leave("c1")

        assert changes == [Change("left", ROOM, "e1", 3, None, {}, {}, 0, 1, "left")]

    def test_leaving_again_changes_nothing(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.leave("c1")

        changes = store.leave("c1", "c2")

        assert changes == []
        assert store.state().position == Position("e1", 2)

    def test_leaving_a_channel_that_nobody_entered_creates_nothing(self, store: Store) -> None:
        assert store.leave("c1", user_id="ann") == []
        assert store.state() == State(ROOM)

    def test_leaving_no_client_changes_nothing(self, store: Store) -> None:
        store.enter("c1", "ann")

        assert store.leave() == []

    def test_a_departure_has_the_reason_that_was_given(self, store: Store) -> None:
        store.enter("c1", "ann")

        changes = store.leave("c1", reason="timeout")

        assert shapes(changes) == [("left", "ann", "timeout")]

    def test_clients_of_one_user_leave_in_one_change(self, store: Store) -> None:
        store.enter("c1", "ann", meta={"n": 1})
        store.enter("c2", "ann", meta={"n": 2})

        changes = store.leave("c2", "c1")

        assert shapes(changes) == [("left", "ann", "left")]
        assert changes[0].meta == {"n": 2}

    def test_clients_of_many_users_leave_in_one_change_each(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.enter("c2", "bob")
        store.enter("c3", None)
        store.enter("c4", "zoe")

        changes = store.leave("c1", "c2", "c3")

        assert sorted(shapes(changes), key=str) == [
            ("left", "ann", "left"),
            ("left", "bob", "left"),
            ("left", None, "left"),
        ]
        assert [change.revision for change in changes] == [5, 6, 7]
        assert store.users() == ["zoe"]

    def test_a_slice_of_clients_may_leave_at_once(self, store: Store) -> None:
        clients = [f"c{number}" for number in range(SLICE)]
        store.hold([member(client, f"u-{client}") for client in clients])

        changes = store.leave(*clients)

        assert len(changes) == SLICE
        assert store.users() == []

    def test_with_a_user_leaves_what_only_a_deadline_holds(self, store: Store) -> None:
        store.enter("c1", "ann", worker="w1")
        store.enter("c2", "ann", timeout=10)
        store.enter("c3", "bob", timeout=10)

        changes = store.leave("c1", user_id="ann")

        assert shapes(changes) == [("left", "ann", "left")]
        assert store.users() == ["bob"]

    def test_with_a_user_leaves_nothing_that_a_worker_holds(self, store: Store) -> None:
        store.enter("c1", "ann", worker="w1")
        store.enter("c2", "ann", worker="w1")

        changes = store.leave("c1", user_id="ann")

        assert changes == []
        assert store.users() == ["ann"]

    def test_with_a_user_leaves_what_was_released(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.enter("c2", "ann")
        store.release("c1", after=5)

        changes = store.leave("c2", user_id="ann")

        assert shapes(changes) == [("left", "ann", "left")]

    def test_with_a_user_leaves_what_a_drained_worker_held(self, store: Store) -> None:
        store.begin("w2")
        store.enter("c1", "ann", worker="w1")
        store.backend.end_worker("w1", after=30)
        store.enter("c2", "ann", worker="w2")

        changes = store.leave("c2", user_id="ann")

        assert shapes(changes) == [("left", "ann", "left")]

    def test_with_a_user_nobody_leaves_another_channel(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=10)
        store.enter("c2", "ann", timeout=10, channel=OTHER)

        store.leave("c1", user_id="ann")

        assert store.users(OTHER) == ["ann"]

    def test_a_worker_takes_out_only_what_names_it(self, store: Store) -> None:
        store.begin("w2")
        store.enter("c1", "ann", worker="w1")
        store.enter("c2", "bob", worker="w2")
        store.enter("c3", "zoe", timeout=10)

        changes = store.leave("c1", "c2", "c3", worker="w2")

        assert shapes(changes) == [("left", "bob", "left")]
        assert store.users() == ["ann", "zoe"]

    # touch

    def test_a_touch_moves_the_deadline(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=10)
        store.clock.advance(6)

        touched = store.touch("c1", 10)
        store.clock.advance(6)

        assert touched is True
        assert store.state().position == Position("e1", 1)

    def test_a_touch_keeps_who_is_due_until_someone_met_them(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=10)
        store.clock.advance(11)

        touched = store.touch("c1", 10)

        assert touched is True
        assert store.users() == ["ann"]

    def test_a_touch_tells_who_is_not_in(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=10)
        store.clock.advance(11)
        store.settle()

        assert store.touch("c1", 10) is False
        assert store.touch("c2", 10) is False
        assert store.touch("c1", 10, channel=OTHER) is False
        assert store.state(OTHER) == State(OTHER)

    def test_a_touch_leaves_what_a_worker_holds_as_it_is(self, store: Store) -> None:
        store.enter("c1", "ann", worker="w1")

        touched = store.touch("c1", 1)
        store.clock.advance(2)
        kept = store.users()
        store.touch("c1", 100)
        store.lose_workers()

        assert touched is True
        assert kept == ["ann"]
        assert shapes(store.settle()) == [("left", "ann", "worker_lost")]

    # release

    def test_a_released_member_stays_for_a_while(self, store: Store) -> None:
        store.enter("c1", "ann")

        store.release("c1", after=5)
        store.clock.advance(4)
        kept = store.users()
        store.clock.advance(2)

        assert kept == ["ann"]
        assert shapes(store.settle()) == [("left", "ann", "timeout")]

    def test_a_released_member_no_longer_depends_on_its_worker(self, store: Store) -> None:
        store.enter("c1", "ann")

        store.release("c1", after=40)
        store.lose_workers()

        assert store.users() == ["ann"]
        assert store.backend.members_of_worker("w1", after=None, limit=10) == []

    def test_a_user_who_reconnects_in_time_was_never_seen_leaving(self, store: Store) -> None:
        store.begin("w2", timeout=100)
        store.enter("c1", "ann", worker="w1", meta={"n": 1})
        store.release("c1", after=5)
        store.clock.advance(4)

        changes = store.enter("c2", "ann", worker="w2", meta={"n": 1})
        store.clock.advance(2)

        assert changes == []
        assert store.prune() == []
        assert store.state().position == Position("e1", 1)

    def test_a_member_that_names_another_worker_is_not_released(self, store: Store) -> None:
        store.begin("w2", timeout=100)
        store.enter("c1", "ann", worker="w1")
        store.enter("c1", "ann", worker="w2")
        store.enter("c2", "bob", timeout=100)

        store.release("c1", "c2", "c3", after=5, worker="w1")
        store.clock.advance(6)

        assert store.users() == ["ann", "bob"]

    def test_many_members_are_released_in_one_step(self, store: Store) -> None:
        channels = [f"/room/{number}" for number in range(5)]
        for channel in channels:
            store.enter("c1", "ann", channel=channel)
            store.enter("c2", "bob", channel=channel)

        keys = [Key(channel, "c1") for channel in channels]
        store.backend.release("w1", [*keys, Key("/room/none", "c1")], after=5)
        store.clock.advance(6)
        store.renew("w1")
        changes = store.prune()

        assert sorted(change.channel for change in changes) == channels
        assert {change.user_id for change in changes} == {"ann"}
        assert store.users(channels[0]) == ["bob"]

    def test_more_than_a_slice_may_be_released(self, store: Store) -> None:
        clients = fill(store, SLICE + 20)

        store.release(*clients, after=5)

        assert store.backend.members_of_worker("w1", after=None, limit=10) == []

    def test_releasing_nothing_is_fine(self, store: Store) -> None:
        store.release(after=5)
        store.backend.release("nobody", [Key(ROOM, "c1")], after=5)

        assert store.state() == State(ROOM)

    # evict

    def test_a_user_is_evicted_with_all_clients(self, store: Store) -> None:
        store.enter("c1", "ann", meta={"n": 1})
        store.enter("c2", "ann", meta={"n": 2})
        store.enter("c3", "bob")

        evicted = store.evict(user_id="ann")

        assert shapes(evicted.changes) == [("left", "ann", "evicted")]
        assert evicted.more is False
        assert store.users() == ["bob"]

    def test_a_client_is_evicted_alone(self, store: Store) -> None:
        store.enter("c1", "ann", meta={"n": 1})
        store.enter("c2", "ann", meta={"n": 2})

        first = store.evict(client_id="c2").changes
        second = store.evict(client_id="c1").changes

        assert shapes(first) == [("updated", "ann", None)]
        assert shapes(second) == [("left", "ann", "evicted")]

    def test_everyone_is_evicted(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.enter("c2", "ann", meta={"n": 1})
        store.enter("c3", "bob")
        store.enter("c4", None)

        evicted = store.evict(reason="cleared")

        assert sorted(shapes(evicted.changes), key=str) == [
            ("left", "ann", "cleared"),
            ("left", "bob", "cleared"),
            ("left", None, "cleared"),
        ]
        assert evicted.more is False
        assert store.state() == State(ROOM, "e1", 7, 0, 0)

    def test_everyone_is_evicted_from_one_channel_only(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.enter("c1", "ann", channel=OTHER)

        store.evict(reason="cleared")

        assert store.users(OTHER) == ["ann"]

    def test_without_a_reason_a_member_with_a_deadline_left(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=10)
        store.enter("c2", "bob")

        changes = store.evict(client_id="c1").changes + store.evict(client_id="c2").changes

        assert shapes(changes) == [("left", "ann", "left"), ("left", "bob", "evicted")]

    def test_an_eviction_tells_whether_a_worker_held_any_of_it(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=10)
        store.enter("c2", "bob", worker="w1")
        store.enter("c3", "bob", timeout=10)

        assert store.evict(user_id="ann").held is False
        assert store.evict(user_id="bob").held is True

    def test_evicting_who_is_not_in_changes_nothing(self, store: Store) -> None:
        store.enter("c1", "ann")

        assert store.evict(user_id="bob") == Evicted([], False, False)
        assert store.evict(client_id="c2") == Evicted([], False, False)
        assert store.evict(channel=OTHER) == Evicted([], False, False)
        assert store.state().position == Position("e1", 1)
        assert store.state(OTHER) == State(OTHER)

    def test_a_user_whose_id_is_a_clients_id_is_somebody_else(self, store: Store) -> None:
        store.enter("x", "ann")
        store.enter("c2", "x")

        store.evict(client_id="x")

        assert store.users() == ["x"]

    def test_who_was_evicted_may_enter_again(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.evict(user_id="ann")

        changes = store.enter("c1", "ann")

        assert [(change.kind, change.revision) for change in changes] == [("entered", 3)]

    def test_everyone_is_evicted_in_slices(self, store: Store) -> None:
        fill(store, SLICE + 20)

        first = store.evict(reason="cleared")
        changes = first.changes + _all_slices(lambda: store.evict(reason="cleared"))

        assert len(first.changes) <= SLICE
        assert first.more is True
        assert len(left_users(changes)) == len(set(left_users(changes))) == SLICE + 20
        assert store.state().count == 0

    # renew

    def test_a_new_workers_lease_begins(self, store: Store) -> None:
        renewal = store.begin("w2")

        assert renewal.held is True
        assert store.renew("w2").held is True

    def test_beginning_a_lease_may_be_repeated(self, store: Store) -> None:
        store.begin("w2")

        assert store.begin("w2").held is True

    def test_a_lease_that_is_over_does_not_begin_again(self, store: Store) -> None:
        store.begin("w2")
        store.enter("c1", "ann", worker="w2")
        store.backend.end_worker("w1", after=30)
        store.lose_workers()
        store.backend.due(SLICE)

        assert store.begin("w1").held is False
        assert store.begin("w2").held is False

    def test_an_unknown_worker_holds_no_lease(self, store: Store) -> None:
        assert store.renew("nobody").held is False
        assert store.renew("nobody").held is False

    def test_a_renewed_lease_keeps_all_clients_in(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.enter("c2", "bob", channel=OTHER)

        for _ in range(4):
            store.clock.advance(LEASE - 1)
            assert store.renew("w1").held is True

        assert store.prune() == []
        assert store.users() == ["ann"]
        assert store.users(OTHER) == ["bob"]

    def test_a_renewal_keeps_no_other_workers_clients_in(self, store: Store) -> None:
        store.begin("w2")
        store.enter("c1", "ann", worker="w1")
        store.enter("c2", "bob", worker="w2")

        store.clock.advance(LEASE - 1)
        store.renew("w2")
        store.clock.advance(2)

        assert shapes(store.settle()) == [("left", "ann", "worker_lost")]
        assert store.users() == ["bob"]

    def test_a_lease_that_ran_out_is_renewed_while_nobody_met_it(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.lose_workers()

        renewal = store.renew("w1")

        assert renewal.held is True
        assert store.state().position == Position("e1", 1)

    @pytest.mark.parametrize(
        "meet",
        [
            pytest.param(lambda store: store.settle(), id="settle"),
            pytest.param(lambda store: store.backend.due(SLICE), id="due"),
            pytest.param(lambda store: store.prune(), id="prune"),
            pytest.param(lambda store: store.state(), id="state"),
            pytest.param(lambda store: store.count(), id="count"),
        ],
    )
    def test_a_lease_that_was_met_after_it_ran_out_is_gone(
        self, store: Store, meet: Callable[[Store], object]
    ) -> None:
        store.enter("c1", "ann")
        store.lose_workers()

        meet(store)

        assert store.renew("w1").held is False
        assert store.renew("w1").held is False
        assert store.users() == []

    def test_a_drained_lease_is_not_renewed(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.backend.end_worker("w1", after=10)

        assert store.renew("w1").held is False
        store.clock.advance(11)
        assert shapes(store.settle()) == [("left", "ann", "timeout")]

    def test_a_lease_is_as_long_as_the_last_renewal_said(self, store: Store) -> None:
        store.enter("c1", "ann")

        store.renew("w1", timeout=100)
        store.clock.advance(99)

        assert store.users() == ["ann"]

    def test_a_renewal_brings_positions(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.enter("c2", "bob")

        renewal = store.renew("w1", channels=[ROOM, OTHER])

        assert renewal.positions == {ROOM: Position("e1", 2), OTHER: NOWHERE}

    def test_a_renewal_of_nobodys_lease_brings_positions_all_the_same(self, store: Store) -> None:
        store.enter("c1", "ann")

        renewal = store.renew("nobody", channels=[ROOM, OTHER])

        assert renewal.held is False
        assert renewal.positions == {ROOM: Position("e1", 1), OTHER: NOWHERE}
        assert store.backend.workers() == ["w1"]
        assert store.state(OTHER) == State(OTHER)

    def test_a_renewal_brings_many_positions(self, store: Store) -> None:
        store.enter("c1", "ann")
        names = [f"/feed/{number}" for number in range(1200)]

        positions = store.renew("w1", channels=[*names, ROOM]).positions

        assert len(positions) == 1201
        assert positions[ROOM] == Position("e1", 1)

    # Commands

    def test_a_command_reaches_a_worker_once(self, store: Store) -> None:
        cursor = store.renew("w1").cursor
        command = Command("evict", channel=ROOM, user_id="ann", client_id="c1", reason="evicted")
        number = store.backend.tell(command)
        store.clock.advance(3)

        first = store.renew("w1", cursor=cursor)
        second = store.renew("w1", cursor=first.cursor)

        assert [(told.number, told.command) for told in first.commands] == [(number, command)]
        assert first.commands[0].age == pytest.approx(3, abs=0.1)
        assert second.commands == []
        assert second.cursor == first.cursor

    def test_a_field_of_a_command_may_be_any(self, store: Store) -> None:
        cursor = store.renew("w1").cursor
        commands = [Command("reload", user_id="ann"), Command("forget"), Command("evict", "/a/b")]

        for command in commands:
            store.backend.tell(command)

        assert told(store.renew("w1", cursor=cursor).commands) == commands

    def test_commands_come_in_the_order_of_their_numbers(self, store: Store) -> None:
        cursor = store.renew("w1").cursor

        numbers = [store.backend.tell(Command("forget", name)) for name in "abc"]
        commands = store.renew("w1", cursor=cursor).commands

        assert numbers == sorted(set(numbers))
        assert [told.number for told in commands] == numbers
        assert [told.command.channel for told in commands] == ["a", "b", "c"]

    def test_every_worker_reads_every_command(self, store: Store) -> None:
        store.begin("w2")
        cursors = {name: store.renew(name).cursor for name in ("w1", "w2")}

        store.backend.tell(Command("forget"))

        for name, cursor in cursors.items():
            assert told(store.renew(name, cursor=cursor).commands) == [Command("forget")]

    def test_a_worker_without_a_cursor_begins_with_what_comes_next(self, store: Store) -> None:
        store.backend.tell(Command("forget", "/a/old"))

        begun = store.begin("w2")
        store.backend.tell(Command("forget", "/a/new"))

        assert begun.commands == []
        commands = store.renew("w2", cursor=begun.cursor).commands
        assert told(commands) == [Command("forget", "/a/new")]

    def test_commands_are_kept_for_ten_minutes(self, store: Store) -> None:
        cursor = store.renew("w1", timeout=9999).cursor
        store.backend.tell(Command("forget", "/a/old"))
        store.clock.advance(590)
        store.backend.tell(Command("forget", "/a/new"))
        store.backend.drop_empty_channels(3600)

        kept = store.renew("w1", timeout=9999, cursor=cursor).commands
        store.clock.advance(20)
        store.backend.drop_empty_channels(3600)
        later = store.renew("w1", timeout=9999, cursor=cursor).commands

        assert [round(each.age) for each in kept] == [590, 0]
        assert told(later) == [Command("forget", "/a/new")]

    def test_numbers_go_on_after_old_commands_were_forgotten(self, store: Store) -> None:
        old = store.backend.tell(Command("forget", "/a/old"))
        cursor = store.renew("w1", timeout=9999).cursor
        store.clock.advance(700)
        store.backend.drop_empty_channels(3600)

        new = store.backend.tell(Command("forget", "/a/new"))

        assert new > old
        assert told(store.renew("w1", cursor=cursor).commands) == [Command("forget", "/a/new")]

    # workers

    def test_workers_that_are_alive_are_named_in_order(self, store: Store) -> None:
        store.begin("w3")
        store.begin("w2")

        assert store.backend.workers() == ["w1", "w2", "w3"]

    def test_a_drained_worker_is_not_alive(self, store: Store) -> None:
        store.begin("w2")

        store.backend.end_worker("w1", after=30)

        assert store.backend.workers() == ["w2"]

    def test_a_worker_whose_lease_ran_out_is_not_alive_and_may_be_again(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.lose_workers()

        assert store.backend.workers() == []

        assert store.renew("w1").held is True
        assert store.backend.workers() == ["w1"]
        assert store.state().position == Position("e1", 1)

    def test_an_ended_worker_is_not_alive(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.lose_workers()
        store.settle()

        assert store.backend.workers() == []

    # end_worker

    def test_a_drained_workers_members_stay_for_a_while(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.enter("c2", None, channel=OTHER)

        store.backend.end_worker("w1", after=30)
        store.clock.advance(29)
        kept = store.prune()
        store.clock.advance(2)

        assert kept == []
        assert shapes(store.settle()) == [("left", "ann", "timeout")]
        assert shapes(store.settle(channel=OTHER)) == [("left", None, "timeout")]

    def test_a_drained_workers_users_may_reconnect_unseen(self, store: Store) -> None:
        store.begin("w2", timeout=100)
        store.enter("c1", "ann")
        store.enter("c2", "bob")
        store.backend.end_worker("w1", after=10)

        changes = store.enter("c1", "ann", worker="w2") + store.enter("c3", "bob", worker="w2")
        store.clock.advance(11)

        assert changes == []
        assert store.prune() == []
        assert store.state().position == Position("e1", 2)

    def test_draining_ends_nothing_of_other_workers(self, store: Store) -> None:
        store.begin("w2", timeout=100)
        store.enter("c1", "ann", worker="w2")
        store.enter("c2", "bob", timeout=100)

        store.backend.end_worker("w1", after=10)
        store.clock.advance(11)

        assert store.users() == ["ann", "bob"]

    def test_a_released_member_keeps_its_own_deadline_when_its_worker_drains(
        self, store: Store
    ) -> None:
        store.enter("c1", "ann")
        store.release("c1", after=5)

        store.backend.end_worker("w1", after=30)
        store.clock.advance(6)

        assert store.users() == []

    # members_of_worker

    def test_a_workers_members_come_in_pages(self, store: Store) -> None:
        names = ["/room/a", "/room/A", "/room/é", "/Room/a", "/room/a.", "/room/10", "/room/9"]
        keys = [Key(name, client) for name in names for client in ("c1", "C1", "c10", "c2")]
        for key in keys:
            store.enter(key.client_id, f"u-{key.client_id}", channel=key.channel)
        store.begin("w2")
        store.enter("other", "zoe", worker="w2")
        store.enter("none", "zoe", timeout=10)

        pages = list(_pages(store.backend, "w1", limit=5))

        assert [key for page in pages for key in page] == sorted(keys)
        assert [len(page) for page in pages] == [5, 5, 5, 5, 5, 3]

    def test_a_worker_without_members_has_no_page(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.leave("c1")

        assert store.backend.members_of_worker("w1", after=None, limit=5) == []
        assert store.backend.members_of_worker("nobody", after=None, limit=5) == []

    def test_a_client_that_moved_is_in_its_new_workers_page(self, store: Store) -> None:
        store.begin("w2")
        store.enter("c1", "ann", worker="w1")

        store.enter("c1", "ann", worker="w2")

        assert store.backend.members_of_worker("w1", after=None, limit=5) == []
        assert store.backend.members_of_worker("w2", after=None, limit=5) == [Key(ROOM, "c1")]

    # settle

    def test_a_deadline_that_ran_out_ends_with_timeout(self, store: Store) -> None:
        store.enter("c1", "ann", info={"name": "Ann"}, meta={"n": 1}, timeout=10)
        store.clock.advance(11)

        pruned = store.settle_slice()

        assert pruned == Pruned(
            [Change("left", ROOM, "e1", 2, "ann", {"name": "Ann"}, {"n": 1}, 0, 0, "timeout")],
            False,
        )

    def test_a_lost_workers_members_end_with_worker_lost(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.enter("c2", None)
        store.lose_workers()

        changes = store.settle()

        assert shapes(changes) == [("left", "ann", "worker_lost"), ("left", None, "worker_lost")]

    def test_all_due_clients_of_a_user_end_in_one_change(self, store: Store) -> None:
        store.begin("w2")
        for number in range(3):
            store.enter(f"a{number}", "ann", worker="w1", meta={"n": number})
            store.enter(f"b{number}", "ann", worker="w2", meta={"n": number})
        store.lose_workers()

        changes = store.settle()

        assert shapes(changes) == [("left", "ann", "worker_lost")]
        assert changes[0].meta == {"n": 2}

    def test_of_a_deadline_and_a_lost_worker_the_reason_is_timeout(self, store: Store) -> None:
        store.enter("c1", "ann", worker="w1")
        store.enter("c2", "ann", timeout=5)
        store.lose_workers()

        assert shapes(store.settle()) == [("left", "ann", "timeout")]

    def test_a_user_with_a_client_that_is_not_due_stays(self, store: Store) -> None:
        store.enter("c1", "ann", worker="w1")
        store.enter("c2", "ann", timeout=100)
        store.lose_workers()

        changes = store.settle()

        assert changes == []
        assert store.users() == ["ann"]
        assert store.backend.members_of_worker("w1", after=None, limit=5) == []

    def test_where_the_writer_ends_the_previous_writers_meta_shows(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=100, meta={"n": 1})
        store.enter("c2", "ann", timeout=10, meta={"n": 2})
        store.clock.advance(11)

        changes = store.settle()

        assert shapes(changes) == [("updated", "ann", None)]
        assert changes[0].meta == {"n": 1}

    def test_who_is_due_ends_in_the_order_of_their_places(self, store: Store) -> None:
        names = ["zoe", "ann", None, "bob", None, "10", "9"]
        for number, name in enumerate(names):
            store.enter(f"c{9 - number}", name, timeout=20 - number)
        store.enter("late", "zoe", timeout=1)
        store.clock.advance(30)

        changes = store.settle()

        assert [change.user_id for change in changes] == names
        assert [change.revision for change in changes] == list(range(8, 15))

    def test_settling_ends_nothing_in_other_channels(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=10)
        store.enter("c1", "ann", timeout=10, channel=OTHER)
        store.clock.advance(11)

        store.settle()

        assert store.renew("w1", channels=[OTHER]).positions == {OTHER: Position("e1", 1)}
        assert shapes(store.settle(channel=OTHER)) == [("left", "ann", "timeout")]

    def test_where_nothing_is_due_nothing_ends(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.enter("c2", "bob", timeout=10)

        assert store.settle_slice() == Pruned([], False)
        assert store.settle_slice(channel=OTHER) == Pruned([], False)
        assert store.state().position == Position("e1", 2)
        assert store.state(OTHER) == State(OTHER)

    def test_who_was_ended_enters_anew(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=10)
        store.clock.advance(11)
        store.settle()

        changes = store.enter("c1", "ann", timeout=10)

        assert [(change.kind, change.revision) for change in changes] == [("entered", 3)]

    def test_a_member_of_an_ended_worker_may_be_entered_over(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.enter("c1", "ann", channel=OTHER)
        store.lose_workers()
        store.settle(channel=OTHER)
        store.begin("w2")

        changes = store.enter("c1", "ann", worker="w2")

        assert changes == []
        assert store.settle() == []
        assert store.state().position == Position("e1", 1)

    def test_a_client_is_not_due_where_its_old_worker_is_lost(self, store: Store) -> None:
        store.begin("w2", timeout=100)
        store.enter("c1", "ann", worker="w1")
        store.enter("c1", "ann", worker="w2")
        store.lose_workers()

        assert store.prune() == []
        assert store.users() == ["ann"]

    def test_what_is_due_ends_in_slices_that_part_no_user(self, store: Store) -> None:
        users = [f"u{number}" for number in range(SLICE // 3 + 20)]
        members = [member(f"{user}-{n}", user, meta={"n": n}) for user in users for n in range(3)]
        for start in range(0, len(members), SLICE):
            store.hold(members[start : start + SLICE])
        store.lose_workers()

        first = store.settle_slice()
        changes = first.changes + store.settle()

        assert first.more is True
        assert 0 < len(first.changes) <= SLICE // 3 + 1
        assert sorted(shapes(changes)) == sorted(("left", user, "worker_lost") for user in users)

    def test_a_lease_that_runs_out_meanwhile_ends_before_its_members(self, store: Store) -> None:
        for turn in range(20):
            worker = f"worker-{turn}"
            store.begin(worker)
            store.enter("c1", "ann", worker=worker)
            store.clock.advance(LEASE - turn * 0.05 - 0.01)

            store.clock.tick = 0.1
            changes = store.settle()
            held = store.renew(worker).held
            store.clock.tick = 0.0

            assert shapes(changes) == ([] if held else [("left", "ann", "worker_lost")])

    def test_members_of_a_lease_that_the_store_lost_are_due(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.enter("c2", "bob", timeout=100)
        self.lose_lease(store.backend, "w1")

        state = store.state()

        assert [user.id for user in state.users] == ["bob"]
        assert shapes(store.changes[ROOM][2:]) == [("left", "ann", "worker_lost")]

    def test_a_lease_that_the_store_lost_holds_nothing(self, store: Store) -> None:
        self.lose_lease(store.backend, "w1")

        with pytest.raises(WorkerGone):
            store.enter("c1", "ann")
        assert store.renew("w1").held is False

    def test_members_of_a_lease_that_the_store_lost_are_found(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.enter("c2", "bob", channel=OTHER)
        self.lose_lease(store.backend, "w1")

        store.backend.drop_empty_channels(3600)
        changes = store.prune()

        assert sorted(shapes(changes)) == [
            ("left", "ann", "worker_lost"),
            ("left", "bob", "worker_lost"),
        ]

    # due and prune

    def test_channels_with_due_members_are_found(self, store: Store) -> None:
        store.begin("w2", timeout=100)
        store.enter("c1", "ann", channel="/due/deadline", timeout=10)
        store.enter("c2", "ann", channel="/due/worker", worker="w1")
        store.enter("c3", "ann", channel="/live/deadline", timeout=100)
        store.enter("c4", "ann", channel="/live/worker", worker="w2")
        nothing = store.backend.due(SLICE)
        store.lose_workers()

        assert nothing == []
        assert sorted(store.backend.due(SLICE)) == ["/due/deadline", "/due/worker"]
        assert sorted(store.backend.due(SLICE)) == ["/due/deadline", "/due/worker"]

    def test_finding_what_is_due_ends_no_member(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=10)
        store.clock.advance(11)

        store.backend.due(SLICE)

        assert store.enter("c1", "ann", timeout=10) == []
        assert store.state().position == Position("e1", 1)

    def test_pruning_ends_what_is_due_anywhere(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=10)
        store.enter("c2", "bob", worker="w1", channel=OTHER)
        store.enter("c3", "zoe", timeout=100)
        store.lose_workers()

        changes = store.prune()

        assert sorted(shapes(changes)) == [
            ("left", "ann", "timeout"),
            ("left", "bob", "worker_lost"),
        ]
        assert store.prune_slice() == Pruned([], False)
        assert store.users() == ["zoe"]

    def test_pruning_in_small_slices_ends_everything_once(self, store: Store) -> None:
        for number in range(7):
            store.enter("c1", "ann", timeout=10, channel=f"/room/{number}")
            store.enter("c2", "bob", worker="w1", channel=f"/room/{number}")
        store.lose_workers()

        found = store.backend.due(1)
        first = store.prune_slice(limit=1)
        changes = first.changes + store.prune(limit=1)

        assert 1 <= len(found) <= 2
        assert first.more is True
        assert Counter(shapes(changes)) == {
            ("left", "ann", "timeout"): 7,
            ("left", "bob", "worker_lost"): 7,
        }

    def test_where_the_store_fails_midway_pruning_tells_what_it_ended(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for channel in (ROOM, OTHER):
            store.enter("c1", "ann", timeout=10, channel=channel)
        store.clock.advance(11)
        end_due = store.backend.end_due
        answers = iter([end_due, _fail])
        monkeypatch.setattr(store.backend, "end_due", lambda name: next(answers)(name))

        pruned = store.prune_slice()
        monkeypatch.undo()

        assert shapes(pruned.changes) == [("left", "ann", "timeout")]
        assert pruned.more is True
        assert shapes(store.prune()) == [("left", "ann", "timeout")]

    def test_where_the_store_fails_at_once_pruning_does_too(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.enter("c1", "ann", timeout=10)
        store.clock.advance(11)
        monkeypatch.setattr(store.backend, "end_due", _fail)

        with pytest.raises(BackendUnavailable):
            store.prune_slice()
        monkeypatch.undo()

    def test_a_member_that_is_due_but_was_renewed_in_time_is_spared(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=10)
        store.enter("c2", "bob")
        store.lose_workers()
        store.touch("c1", 10)
        store.renew("w1")

        assert store.prune() == []
        assert store.users() == ["ann", "bob"]

    def test_after_a_failure_no_lease_is_ended_but_deadlines_are(self, store: Store) -> None:
        store.enter("c1", "ann", worker="w1")
        store.enter("c2", "bob", timeout=10)
        store.lose_workers()

        store.backend.note_failure()
        changes = store.prune()

        assert shapes(changes) == [("left", "bob", "timeout")]
        assert store.users() == ["ann"]
        assert store.renew("w1").held is True

    def test_a_lease_is_ended_once_all_could_have_renewed(self, store: Store) -> None:
        store.enter("c1", "ann", worker="w1")
        store.lose_workers()
        store.backend.note_failure()

        spared = store.settle()
        store.backend._merciful_until = float("-inf")
        changes = store.settle()

        assert spared == []
        assert shapes(changes) == [("left", "ann", "worker_lost")]

    @pytest.mark.parametrize(
        "hold",
        [
            pytest.param(lambda store: store.enter("c1", timeout=20), id="enter"),
            pytest.param(
                lambda store: (store.enter("c1", timeout=5), store.touch("c1", 20)), id="touch"
            ),
            pytest.param(
                lambda store: (store.enter("c1"), store.release("c1", after=20)), id="release"
            ),
            pytest.param(
                lambda store: (store.enter("c1"), store.backend.end_worker("w1", after=20)),
                id="end_worker",
            ),
            pytest.param(
                lambda store: (store.enter("c1"), store.renew("w1", timeout=20)), id="lease"
            ),
        ],
    )
    def test_what_lies_too_far_ahead_is_cut(
        self, store: Store, hold: Callable[[Store], object]
    ) -> None:
        hold(store)
        store.clock.advance(-100_000)

        found = store.backend.due(SLICE)
        store.clock.advance(19)
        kept = store.prune()
        store.clock.advance(2)

        assert found == []
        assert kept == []
        assert [change.kind for change in store.prune()] == ["left"]

    def test_what_lies_no_farther_ahead_than_its_timeout_is_left(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=20)
        store.enter("c2", "bob")
        store.renew("w1", timeout=20)

        for _ in range(3):
            store.clock.advance(5)
            store.backend.due(SLICE)
        store.clock.advance(6)

        assert len(store.prune()) == 2

    # state and count

    def test_a_channel_that_nobody_entered_is_nowhere(self, store: Store) -> None:
        assert store.reading() == Reading(State(ROOM), [])
        assert store.counting() == Reading(State(ROOM), [])
        assert store.state().position == NOWHERE
        assert store.backend.channels() == {}

    def test_a_reading_shows_nobody_who_is_due(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=10)
        store.enter("c2", "bob", timeout=100)
        store.clock.advance(11)

        first = store.reading()
        second = store.reading()

        assert first.state is None
        assert shapes(first.changes) == [("left", "ann", "timeout")]
        assert second == Reading(State(ROOM, "e1", 3, 1, 0, (User("bob"),)), [])

    def test_a_count_shows_nobody_who_is_due(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.enter("c2", None)
        store.enter("c3", "bob", timeout=100)
        store.lose_workers()

        first = store.counting()
        second = store.counting()

        assert first.state is None
        assert left_users(first.changes) == ["ann", None]
        assert second == Reading(State(ROOM, "e1", 5, 1, 0), [])

    def test_a_count_shows_nobody_who_is_due_behind_a_slice_without_a_change(
        self, store: Store
    ) -> None:
        store.enter("stays", "ann", timeout=100)
        store.hold([member(f"c{number:04}", "ann") for number in range(SLICE)])
        store.enter("last", "bob")
        store.lose_workers()

        assert store.count() == State(ROOM, "e1", 3, 1, 0)

    def test_a_count_is_a_state_without_users(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.enter("c2", "bob")
        store.enter("c3", None)

        assert store.counting() == Reading(State(ROOM, "e1", 3, 2, 1), [])

    def test_a_reading_is_asked_again_slice_after_slice(self, store: Store) -> None:
        fill(store, SLICE + 20)
        store.enter("last", "zoe", timeout=100)
        store.lose_workers()

        first = store.reading()

        assert first.state is None
        assert 0 < len(first.changes) <= SLICE
        assert store.users() == ["zoe"]

    def test_a_due_client_of_a_user_who_stays_is_not_seen(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=10)
        store.enter("c2", "ann", timeout=100)
        store.clock.advance(11)

        assert store.state() == State(ROOM, "e1", 1, 1, 0, (User("ann"),))

    # channels and channels_of

    def test_occupied_channels_are_listed_with_their_counts(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.enter("c2", "bob")
        store.enter("c3", "ann", channel=OTHER)
        store.enter("c4", None, channel=OTHER)
        store.enter("c5", "ann", channel="/room/3")
        store.leave("c5", channel="/room/3")
        store.enter("c6", None, channel="/room/4")

        assert store.backend.channels() == {ROOM: 2, OTHER: 1, "/room/4": 0}

    def test_channels_are_listed_below_a_bare_prefix(self, store: Store) -> None:
        names = ["/a_b/1", "/a_b/2/x", "/axb/1", "/A_B/1", "/a_bc/1", "/a/a_b/1", "/x/a_b/1"]
        for name in names:
            store.enter("c1", "ann", channel=name)

        assert store.backend.channels("a_b") == {"/a_b/1": 1, "/a_b/2/x": 1}
        assert store.backend.channels("a") == {"/a/a_b/1": 1}
        assert store.backend.channels("none") == {}
        assert len(store.backend.channels()) == len(names)

    def test_channels_of_a_user_or_client_come_in_order(self, store: Store) -> None:
        for name in ["/room/b", "/room/a", "/room/B", "/Room/a", "/room/é"]:
            store.enter("c1", "ann", channel=name)
        store.enter("c2", "ann", channel="/room/a")
        store.enter("c2", "ann", channel="/room/c")
        store.enter("c3", "bob", channel="/room/d")
        names = ["/Room/a", "/room/B", "/room/a", "/room/b", "/room/é"]

        assert store.backend.channels_of(client_id="c1") == names
        assert store.backend.channels_of(user_id="ann") == sorted([*names, "/room/c"])
        assert store.backend.channels_of(user_id="c1") == []
        assert store.backend.channels_of(client_id="ann") == []

    def test_channels_of_a_user_count_what_is_due(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=10)
        store.clock.advance(11)

        due = store.backend.channels_of(user_id="ann"), store.backend.channels_of(client_id="c1")
        store.prune()
        ended = store.backend.channels_of(user_id="ann"), store.backend.channels_of(client_id="c1")

        assert due == ([ROOM], [ROOM])
        assert ended == ([], [])

    # last_seen

    def test_who_is_present_is_seen_now(self, store: Store) -> None:
        store.enter("c1", "ann")
        store.enter("c2", "bob", timeout=60)
        store.clock.advance(10)

        assert [store.seen("ann"), store.seen("bob")] == [0, 0]

    def test_who_never_came_was_never_seen(self, store: Store) -> None:
        store.enter("c1", "ann")

        found = store.backend.last_seen(["bob", "ann", "c1"])

        assert [user for user, moment in found.items() if moment is None] == ["bob", "c1"]
        assert store.backend.last_seen([]) == {}

    @pytest.mark.parametrize("by", ["leave", "evict", "clear"])
    def test_who_left_was_last_seen_then(self, store: Store, by: str) -> None:
        store.enter("c1", "ann", timeout=60)
        store.enter("c2", "bob", timeout=60)
        store.clock.advance(5)
        if by == "leave":
            store.leave("c1")
        elif by == "evict":
            store.evict(user_id="ann")
        else:
            store.evict(reason="cleared")
        store.clock.advance(100)

        assert store.seen("ann") == 100

    def test_who_leaves_one_of_two_channels_is_seen_in_the_other(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=60)
        store.enter("c2", "ann", timeout=60, channel=OTHER)
        store.leave("c1")
        store.clock.advance(10)

        assert store.seen() == 0

    def test_of_two_departures_the_later_one_counts(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=10)
        store.enter("c2", "ann", timeout=60, channel=OTHER)
        store.clock.advance(30)
        store.leave("c2", channel=OTHER)
        store.clock.advance(5)
        left_before = store.settle()

        assert shapes(left_before) == [("left", "ann", "timeout")]
        assert store.seen() == 5

    @pytest.mark.parametrize("ended", [False, True])
    def test_who_ran_out_was_last_seen_then(self, store: Store, ended: bool) -> None:
        store.enter("c1", "ann")
        store.enter("c2", "bob", timeout=60)
        store.enter("c3", "cid", timeout=20)
        store.enter("c4", "cid", timeout=30)
        store.clock.advance(100)

        if ended:
            store.prune()

        assert [store.seen(user) for user in ("ann", "bob", "cid")] == [100 - LEASE, 40, 70]
        assert len(store.changes[ROOM]) == (6 if ended else 3)

    @pytest.mark.parametrize("ended", [False, True])
    def test_who_was_drained_was_last_seen_when_that_ran_out(
        self, store: Store, ended: bool
    ) -> None:
        store.enter("c1", "ann")
        store.backend.end_worker("w1", after=20)
        store.clock.advance(5)
        before = store.seen()
        store.clock.advance(25)
        if ended:
            store.prune()

        assert (before, store.seen()) == (0, 10)

    def test_who_was_lost_with_a_lease_was_last_seen_when_that_is_met(self, store: Store) -> None:
        store.enter("c1", "ann")
        self.lose_lease(store.backend, "w1")
        store.clock.advance(100)
        before = store.seen()
        store.backend.drop_empty_channels(3600)
        found = store.seen()
        store.state()
        store.clock.advance(10)

        assert (before, found, store.seen()) == (0, 0, 10)

    def test_a_client_that_goes_while_its_user_stays_is_not_kept(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=10)
        store.enter("c2", "ann", timeout=20)
        store.clock.advance(15)
        store.settle()
        store.clock.advance(10)

        assert store.seen() == 5

    def test_an_anonymous_client_is_no_user_who_was_seen(self, store: Store) -> None:
        store.enter("c1", None)
        store.leave("c1")

        assert store.seen("c1") is None
        assert store.backend.last_seen(["c1", "None"]) == {"c1": None, "None": None}

    def test_who_was_seen_is_forgotten_in_time(self, store: Store) -> None:
        store.backend.last_seen_retention = 1000
        store.enter("c1", "ann", timeout=60)
        store.leave("c1")
        store.clock.advance(1)
        store.enter("c2", "bob", timeout=60)
        store.leave("c2")
        store.clock.advance(999)
        store.enter("c3", "cid", timeout=60)

        store.backend.drop_empty_channels(3600)

        assert [store.seen(user) for user in ("ann", "bob", "cid")] == [None, 999, 0]

    def test_more_than_a_slice_of_users_is_kept_and_forgotten(self, store: Store) -> None:
        users = [f"u-{client}" for client in fill(store, SLICE + 5)]
        while store.evict(reason="cleared").more:
            pass
        store.clock.advance(10)
        found = store.backend.last_seen([*users, "nobody"])
        store.backend.last_seen_retention = 5

        store.backend.drop_empty_channels(3600)

        assert [user for user, moment in found.items() if moment is None] == ["nobody"]
        assert set(store.backend.last_seen(users).values()) == {None}

    @pytest.mark.parametrize("by", ["leave", "evict", "settle"])
    def test_where_nothing_is_kept_only_who_is_present_was_seen(
        self, store: Store, by: str
    ) -> None:
        store.backend.last_seen_retention = 0
        store.enter("c1", "ann", timeout=10)
        before = store.seen()
        if by == "leave":
            store.leave("c1")
        elif by == "evict":
            store.evict()
        else:
            store.clock.advance(20)
            store.settle()

        store.backend.last_seen_retention = 1000

        assert (before, store.seen()) == (0, None)

    @pytest.mark.parametrize("ended", [False, True])
    def test_of_many_channels_the_one_that_ran_out_last_counts(
        self, store: Store, ended: bool
    ) -> None:
        timeouts = [10, 20, 60, 50, 40, 30]
        users = [f"u{first}" for first in range(len(timeouts))]
        for first, user in enumerate(users):
            for number, timeout in enumerate(timeouts[first:] + timeouts[:first]):
                channel = f"/room/{number}"
                store.enter(f"{user} {number}", user, channel=channel, timeout=timeout)
        store.clock.advance(100)
        if ended:
            store.prune()

        assert [store.seen(user) for user in users] == [40] * len(users)

    def test_users_who_ran_out_in_many_channels_were_seen(self, store: Store) -> None:
        users = [f"u{number:02}" for number in range(11)]
        for number in range(30):
            channel = f"/room/{number}"
            some = [member(f"{user} {number}", user, channel=channel) for user in users]
            store.hold(some, channel=channel)
        store.lose_workers()

        found = store.backend.last_seen([*users, "nobody"])

        assert list(found) == [*users, "nobody"]
        assert {store.seen(user) for user in users} == {1}
        assert [user for user, moment in found.items() if moment is None] == ["nobody"]

    def test_nobody_was_seen_later_than_now(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=10)
        store.leave("c1")

        store.clock.advance(-500)

        assert store.seen() == 0

    def test_users_who_leave_many_channels_at_once_are_kept(self, store: Store) -> None:
        users = [f"u{number}" for number in range(THREADS)]
        for channel in range(THREADS):
            for user in users:
                store.enter(f"{user}-{channel}", user, channel=f"/room/{channel}", timeout=60)

        together(
            *[
                lambda c=c: store.leave(
                    *[f"{user}-{c}" for user in (users if c % 2 else users[::-1])],
                    channel=f"/room/{c}",
                )
                for c in range(THREADS)
            ]
        )
        store.clock.advance(7)

        assert [store.seen(user) for user in users] == [7] * THREADS

    @pytest.mark.parametrize(("one", "another"), [*ALIKE, pytest.param("a ", "a", id="space")])
    def test_ids_that_look_alike_were_seen_apart(
        self, store: Store, one: str, another: str
    ) -> None:
        store.enter("c1", one, timeout=60)
        store.leave("c1")
        store.clock.advance(3)
        store.enter("c2", another, timeout=60)

        assert [store.seen(one), store.seen(another)] == [3, 0]

    # reset_epoch

    def test_a_channel_is_given_a_new_epoch(self, store: Store) -> None:
        store.enter("c1", "ann", meta={"n": 1})
        store.enter("c2", "bob")

        done = store.backend.reset_epoch(ROOM, "e1", "e2")
        changes = store.enter("c3", "zoe", epoch="e3")

        assert done is True
        assert [(change.epoch, change.revision) for change in changes] == [("e2", 3)]
        assert store.users() == ["ann", "bob", "zoe"]

    def test_of_two_who_give_a_new_epoch_one_does(self, store: Store) -> None:
        store.enter("c1", "ann")

        done = [store.backend.reset_epoch(ROOM, "e1", new) for new in ("e2", "e3")]

        assert done == [True, False]
        assert store.state().position == Position("e2", 1)

    def test_a_channel_that_nobody_entered_gets_no_epoch(self, store: Store) -> None:
        assert store.backend.reset_epoch(ROOM, "e1", "e2") is False
        assert store.state() == State(ROOM)

    # drop_empty_channels

    def test_an_empty_channels_revision_goes_on_for_a_while(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=10)
        store.leave("c1")
        store.clock.advance(3599)

        dropped = store.backend.drop_empty_channels(3600)
        changes = store.enter("c1", "ann", timeout=10, epoch="e2")

        assert dropped == 0
        assert [(change.epoch, change.revision) for change in changes] == [("e1", 3)]

    def test_a_channel_that_was_empty_for_long_is_forgotten(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=10)
        store.leave("c1")
        store.clock.advance(3601)

        dropped = store.backend.drop_empty_channels(3600)
        forgotten = store.state()
        changes = store.enter("c1", "bob", timeout=10, epoch="e2")

        assert dropped == 1
        assert forgotten == State(ROOM)
        assert [(change.epoch, change.revision) for change in changes] == [("e2", 1)]
        assert store.state() == State(ROOM, "e2", 1, 1, 0, (User("bob"),))

    def test_an_occupied_channel_is_not_forgotten(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=9999)
        store.enter("c2", None, timeout=9999, channel=OTHER)
        store.enter("c3", "ann", timeout=1, channel="/room/due")
        store.clock.advance(4000)

        dropped = store.backend.drop_empty_channels(3600)

        assert dropped == 0
        assert store.users() == ["ann"]
        assert store.state(OTHER).anonymous == 1
        assert store.state("/room/due").position == Position("e1", 2)

    def test_a_channel_counts_as_empty_since_it_was_left_last(self, store: Store) -> None:
        store.enter("c1", "ann", timeout=10)
        store.leave("c1")
        store.clock.advance(3000)
        store.enter("c1", "ann", timeout=10)
        store.leave("c1")
        store.clock.advance(3000)

        assert store.backend.drop_empty_channels(3600) == 0
        assert store.state().position == Position("e1", 4)

    @pytest.mark.parametrize("by", ["evict", "settle"])
    def test_a_channel_that_was_emptied_otherwise_is_forgotten_too(
        self, store: Store, by: str
    ) -> None:
        store.enter("c1", "ann", timeout=10)
        if by == "evict":
            store.evict()
        store.clock.advance(11)
        store.prune()
        store.clock.advance(3600)

        assert store.backend.drop_empty_channels(3600) == 1
        assert store.state() == State(ROOM)

    # Names and text

    @pytest.mark.parametrize(("one", "another"), ALIKE)
    def test_names_that_look_alike_are_different_channels(
        self, store: Store, one: str, another: str
    ) -> None:
        store.enter("c1", "ann", channel=f"/room/{one}")
        store.enter("c2", "bob", channel=f"/room/{another}", epoch="e2")
        store.enter("c3", "zoe", channel=f"/room/{another}")
        names = sorted([f"/room/{one}", f"/room/{another}"])

        assert store.users(f"/room/{one}") == ["ann"]
        assert store.users(f"/room/{another}") == ["bob", "zoe"]
        assert sorted(store.backend.channels()) == names
        positions = store.renew("w1", channels=names).positions
        assert positions[f"/room/{one}"] == Position("e1", 1)
        assert positions[f"/room/{another}"] == Position("e2", 2)

    @pytest.mark.parametrize(("one", "another"), [*ALIKE, pytest.param("a ", "a", id="space")])
    def test_ids_that_look_alike_are_different_users(
        self, store: Store, one: str, another: str
    ) -> None:
        entered = store.enter("c1", one) + store.enter("c2", another)
        left = store.evict(user_id=one).changes

        assert [change.user_id for change in entered] == [one, another]
        assert [change.user_id for change in left] == [one]
        assert store.users() == [another]
        assert store.backend.channels_of(user_id=one) == []
        assert store.backend.channels_of(user_id=another) == [ROOM]

    @pytest.mark.parametrize(("one", "another"), [*ALIKE, pytest.param("a ", "a", id="space")])
    def test_ids_that_look_alike_are_different_clients(
        self, store: Store, one: str, another: str
    ) -> None:
        store.enter(one, "ann")
        store.enter(another, "bob")
        store.leave(one)

        assert store.users() == ["bob"]
        assert store.backend.channels_of(client_id=one) == []
        assert store.backend.members_of_worker("w1", after=None, limit=5) == [Key(ROOM, another)]

    @pytest.mark.parametrize("nasty", HOSTILE)
    def test_text_is_only_text(self, store: Store, nasty: str) -> None:
        channel = f"/room/{nasty}" if nasty == nasty.strip() else f"/room/{nasty}x"
        bag = {"name": nasty, nasty: [nasty, None, 1.5, True], "nul": "\0\n\t"}

        entered = store.enter(
            nasty, nasty, channel=channel, info=bag, meta=bag, timeout=10, epoch=nasty[:40]
        )
        updated = store.update(nasty, {nasty: nasty}, channel=channel)

        user = User(nasty, bag, {nasty: nasty})
        assert (entered[0].user_id, entered[0].info, entered[0].meta) == (nasty, bag, bag)
        assert updated[0].meta == {nasty: nasty}
        assert store.state(channel) == State(channel, nasty[:40], 2, 1, 0, (user,))
        assert store.backend.channels() == {channel: 1}
        assert store.backend.channels_of(user_id=nasty) == [channel]
        assert store.backend.channels_of(client_id=nasty) == [channel]
        assert store.touch(nasty, 10, channel=channel) is True
        store.clock.advance(11)
        assert store.backend.due(SLICE) == [channel]
        assert [change.user_id for change in store.settle(channel=channel)] == [nasty]

    @pytest.mark.parametrize("nasty", HOSTILE)
    def test_a_commands_text_is_only_text(self, store: Store, nasty: str) -> None:
        cursor = store.renew("w1").cursor
        command = Command("evict", f"/room/{nasty}", nasty, nasty, "evicted")

        store.backend.tell(command)

        assert told(store.renew("w1", cursor=cursor).commands) == [command]

    # Many at once

    def test_users_who_enter_at_once_enter_one_after_another(self, store: Store) -> None:
        results = together(
            *[lambda n=n: store.enter(f"c{n}", f"u{n}", epoch=f"e{n}") for n in range(THREADS)]
        )

        changes = [change for result in results for change in result]
        assert sorted(change.revision for change in changes) == list(range(1, THREADS + 1))
        assert len({change.epoch for change in changes}) == 1
        assert sorted(change.count for change in changes) == list(range(1, THREADS + 1))
        store.obey_the_law()

    def test_a_user_who_enters_at_once_with_many_clients_enters_once(self, store: Store) -> None:
        results = together(*[lambda n=n: store.enter(f"c{n}", "ann") for n in range(THREADS)])

        assert shapes([change for result in results for change in result]) == [
            ("entered", "ann", None)
        ]

    def test_a_client_that_enters_many_times_at_once_enters_once(self, store: Store) -> None:
        results = together(*[lambda: store.enter("c1", None)] * THREADS)

        assert len([change for result in results for change in result]) == 1
        assert store.state().anonymous == 1

    def test_a_user_who_leaves_at_once_with_many_clients_leaves_once(self, store: Store) -> None:
        for number in range(THREADS):
            store.enter(f"c{number}", "ann")

        results = together(*[lambda n=n: store.leave(f"c{n}") for n in range(THREADS)])

        assert shapes([change for result in results for change in result]) == [
            ("left", "ann", "left")
        ]
        assert store.state() == State(ROOM, "e1", 2, 0, 0)

    def test_coming_and_going_at_once_misses_no_revision(self, store: Store) -> None:
        def come_and_go(number: int) -> None:
            for turn in range(6):
                store.enter(f"c{number}", f"u{number % 3}", meta={"n": number})
                store.update(f"c{number}", {"n": turn})
                store.leave(f"c{number}")

        together(*[lambda n=n: come_and_go(n) for n in range(THREADS)])

        assert store.state().count == 0
        assert store.state().revision == len(store.changes[ROOM])
        store.obey_the_law()

    def test_channels_change_at_once_without_touching_one_another(self, store: Store) -> None:
        def come_and_go(number: int) -> None:
            for turn in range(6):
                for channel in [ROOM, OTHER] if number % 2 else [OTHER, ROOM]:
                    store.enter(f"c{number}", f"u{number}", channel=channel, meta={"n": turn})
            store.leave(f"c{number}", channel=OTHER)

        together(*[lambda n=n: come_and_go(n) for n in range(THREADS)])

        assert store.state().count == THREADS
        assert store.state(OTHER).count == 0
        store.obey_the_law()

    def test_of_many_who_enter_at_once_only_so_many_get_in(self, store: Store) -> None:
        def enter(number: int) -> bool:
            try:
                store.enter(f"c{number}", f"u{number}", max_users=3)
            except ChannelFull:
                return False
            return True

        results = together(*[lambda n=n: enter(n) for n in range(THREADS)])

        assert results.count(True) == 3
        assert store.state().count == 3

    def test_of_many_who_prune_at_once_one_sees_each_departure(self, store: Store) -> None:
        for number in range(20):
            store.enter(f"c{number}", f"u{number}", timeout=10)
            store.enter(f"w{number}", f"u{number}", worker="w1", channel=OTHER)
        store.lose_workers()

        together(*[lambda: store.prune(limit=7)] * THREADS)

        for channel in (ROOM, OTHER):
            departures = Counter(left_users(store.changes[channel]))
            assert departures == {f"u{number}": 1 for number in range(20)}
        store.obey_the_law()

    def test_of_many_who_read_at_once_one_sees_each_departure(self, store: Store) -> None:
        for number in range(10):
            store.enter(f"c{number}", f"u{number}", timeout=10)
        store.clock.advance(11)

        states = together(*[lambda: store.state()] * THREADS)

        assert states == [State(ROOM, "e1", 20, 0, 0)] * THREADS
        assert Counter(left_users(store.changes[ROOM])) == {f"u{n}": 1 for n in range(10)}

    def test_a_lease_is_either_renewed_or_ended(self, store: Store) -> None:
        for turn in range(5):
            name = f"worker-{turn}"
            store.begin(name)
            store.enter("c1", "ann", worker=name)
            store.lose_workers()

            renewal, _ = together(partial(store.renew, name), store.prune)

            assert store.users() == (["ann"] if renewal.held else [])

    def test_a_member_is_either_touched_or_ended(self, store: Store) -> None:
        for _ in range(5):
            store.enter("c1", "ann", timeout=10)
            store.clock.advance(11)

            touched, _ = together(lambda: store.touch("c1", 10), store.prune)

            assert store.users() == (["ann"] if touched else [])

    def test_an_update_at_once_with_a_release_does_not_hold_the_member_again(
        self, store: Store
    ) -> None:
        for number in range(20):
            store.enter("c1", "ann")

            together(
                partial(store.update, "c1", {"n": number}),
                lambda: store.release("c1", after=10),
            )

            assert store.backend.members_of_worker("w1", after=None, limit=10) == []

    def test_readers_see_only_what_was_at_some_revision(self, store: Store) -> None:
        states: list[State] = []

        def write() -> None:
            for number in range(20):
                store.enter(f"c{number}", f"u{number}")

        together(write, *[lambda: states.extend(store.state() for _ in range(10))] * 3)

        for state in states:
            past = [change for change in store.changes[ROOM] if change.revision <= state.revision]
            assert replace(state, epoch=None) == replace(fold_changes(ROOM, past), epoch=None)

    def test_commands_that_are_told_at_once_all_arrive(self, store: Store) -> None:
        cursor = store.renew("w1").cursor
        read: list[Told] = []

        def listen() -> None:
            position = cursor
            for _ in range(10):
                renewal = store.renew("w1", cursor=position)
                read.extend(renewal.commands)
                position = renewal.cursor
            rest.append(position)

        rest: list[int] = []
        numbers = together(
            *[lambda n=n: store.backend.tell(Command("forget", f"/a/{n}")) for n in range(THREADS)],
            listen,
        )[:-1]
        read.extend(store.renew("w1", cursor=rest[0]).commands)

        assert len(set(numbers)) == THREADS
        assert [told.number for told in read] == sorted(numbers)


def member(
    client: str,
    user: str | None = "ann",
    *,
    channel: str = ROOM,
    info: Any = None,
    meta: Any = None,
) -> Member:
    """Make a member; info and meta are given as plain values."""
    info_text = "{}" if info is None else text(info)
    return Member(channel, client, user, info_text, None if meta is None else text(meta))


def text(value: Any) -> str:
    """Return canonical JSON, as stores are handed it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def shapes(changes: Sequence[Change]) -> list[tuple[str, str | None, str | None]]:
    """Return what most tests want to know of changes."""
    return [(change.kind, change.user_id, change.reason) for change in changes]


def left_users(changes: Sequence[Change]) -> list[str | None]:
    return [change.user_id for change in changes if change.kind == "left"]


def told(commands: Sequence[Told]) -> list[Command]:
    return [each.command for each in commands]


def fill(store: Store, number: int) -> list[str]:
    """Let many users in, a client each."""
    clients = [f"c{index:04}" for index in range(number)]
    for start in range(0, number, SLICE):
        some = clients[start : start + SLICE]
        store.hold([member(client, f"u-{client}") for client in some])
    return clients


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Run calls in threads that all start at once; return their results in order.

    They take turns as often as can be, so that what is not atomic shows.
    """
    barrier = threading.Barrier(len(calls))
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException] = []

    def run(index: int, call: Callable[[], Any]) -> None:
        try:
            barrier.wait(30)
            results[index] = call()
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=run, args=(index, call), daemon=True)
        for index, call in enumerate(calls)
    ]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "a thread hangs"
    finally:
        sys.setswitchinterval(interval)
    if errors:
        raise errors[0]
    return results


def _fail(channel: str) -> Pruned:
    raise BackendUnavailable("The store is away.")


def _all_slices(step: Callable[[], Pruned | Evicted]) -> list[Change]:
    changes: list[Change] = []
    for _ in range(1000):
        pruned = step()
        changes += pruned.changes
        if not pruned.more:
            return changes
    raise AssertionError("there is always more that is due")


def _repeat(read: Callable[[], State | None]) -> State:
    for _ in range(1000):
        state = read()
        if state is not None:
            return state
    raise AssertionError("a reading never came to its end")


def _pages(backend: Backend, worker: str, limit: int) -> Iterator[list[Key]]:
    after: Key | None = None
    for _ in range(1000):
        page = backend.members_of_worker(worker, after=after, limit=limit)
        if not page:
            return
        yield page
        after = page[-1]
    raise AssertionError("there is always another page")
