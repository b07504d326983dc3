"""From a change to signals and rooms: wire forms, the feed, rooms, batching and shared reads."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from wire import PATIENCE, eventually

from flask_presence import BackendUnavailable, Change, State, User
from flask_presence.delivery import Announcer, Feed, Rooms
from flask_presence.delivery.rooms import counted_room, full_room, present_room
from flask_presence.delivery.wire import diffs_of, state_form, state_forms
from flask_presence.model import NOWHERE, Position
from flask_presence.testing.fold import Fold
from flask_presence.tracker.reads import SharedReads

ROOM = "/room/1"


def change(
    kind: Any, revision: int, user_id: str | None = "7", *, epoch: str = "e", **values: Any
) -> Change:
    fixed: dict[str, Any] = {
        "channel": ROOM,
        "info": {"name": user_id} if user_id is not None else {},
        "meta": {},
        "count": revision,
        "anonymous": 0,
    }
    return Change(kind=kind, revision=revision, user_id=user_id, epoch=epoch, **(fixed | values))


class Transport:
    """Sockets that write down what they are told."""

    def __init__(self, *, crosses_processes: bool = False) -> None:
        self.crosses_processes = crosses_processes
        self.sent: list[tuple[str, Any, str, bool]] = []
        self.rooms: dict[str, set[str]] = {}
        self.went = threading.Semaphore(0)

    def emit(self, event: str, data: Any, room: str, *, local: bool) -> None:
        self.sent.append((event, data, room, local))
        self.went.release()

    def emit_to(self, event: str, data: Any, client_id: str) -> None:
        self.sent.append((event, data, client_id, True))

    def is_connected(self, client_id: str) -> bool:
        return True

    def disconnect(self, client_id: str) -> None:
        raise AssertionError("nobody is to be disconnected")

    def join(self, client_id: str, room: str) -> None:
        self.rooms.setdefault(room, set()).add(client_id)

    def leave(self, client_id: str, room: str) -> None:
        self.rooms.get(room, set()).discard(client_id)

    def sent_to(self, room: str) -> list[Any]:
        return [data for _, data, to, _ in self.sent if to == room]


# Wire forms


def test_a_state_has_a_form_with_users_and_one_with_their_count() -> None:
    state = State(ROOM, "e", 3, 2, 1, (User("7", {"name": "ada"}, {"n": 1}), User("8")))

    forms = state_forms(state)

    shared = {"channel": ROOM, "epoch": "e", "revision": 3, "count": 2, "anonymous": 1}
    assert forms.full == shared | {
        "users": [
            {"id": "7", "info": {"name": "ada"}, "meta": {"n": 1}},
            {"id": "8", "info": {}, "meta": {}},
        ]
    }
    assert forms.counted == shared | {"count_only": True}


def test_the_state_of_a_channel_that_nobody_entered_has_no_epoch() -> None:
    assert state_form(State(ROOM), count_only=False) == {
        "channel": ROOM,
        "epoch": None,
        "revision": 0,
        "count": 0,
        "anonymous": 0,
        "users": [],
    }


def test_a_diff_tells_who_entered_who_was_updated_and_who_left() -> None:
    (diff,) = diffs_of(
        [
            change("entered", 4, "7", meta={"n": 1}),
            change("updated", 5, "8", meta={"n": 2}),
            change("left", 6, "9", count=2, anonymous=1),
        ]
    )

    assert diff.forms.full == {
        "channel": ROOM,
        "epoch": "e",
        "revisions": [[4, 6]],
        "count": 2,
        "anonymous": 1,
        "entered": [{"id": "7", "info": {"name": "7"}, "meta": {"n": 1}, "revision": 4}],
        "updated": [{"id": "8", "info": {"name": "8"}, "meta": {"n": 2}, "revision": 5}],
        "left": [{"id": "9", "revision": 6}],
    }
    assert diff.forms.counted == {
        "channel": ROOM,
        "epoch": "e",
        "revisions": [[4, 6]],
        "count": 2,
        "anonymous": 1,
    }


def test_a_counted_diff_names_nobody() -> None:
    (diff,) = diffs_of([change("entered", 1, "secret"), change("left", 2, "secret")])

    assert "secret" not in json.dumps(diff.forms.counted)


@pytest.mark.parametrize(
    ("kinds", "list_name"),
    [
        (["entered", "updated"], "entered"),
        (["updated", "updated"], "updated"),
        (["entered", "left"], "left"),
        (["left", "entered"], "entered"),
        (["left", "entered", "updated"], "entered"),
        (["entered", "left", "entered", "left"], "left"),
    ],
)
def test_a_diff_carries_the_last_entry_of_each_user_only(kinds: list[str], list_name: str) -> None:
    (diff,) = diffs_of([change(kind, number) for number, kind in enumerate(kinds, 1)])

    lists = {
        name: diff.forms.full[name]
        for name in ("entered", "updated", "left")
        if diff.forms.full.get(name)
    }
    assert list(lists) == [list_name]
    (entry,) = lists[list_name]
    assert (entry["id"], entry["revision"]) == ("7", len(kinds))


def test_an_anonymous_client_is_in_the_count_and_in_no_list() -> None:
    (diff,) = diffs_of([change("entered", 1, None, count=0, anonymous=1)])

    assert diff.forms.full == diff.forms.counted
    assert diff.forms.full["anonymous"] == 1


def test_changes_that_arrive_in_another_order_make_the_same_diff() -> None:
    changes = [change("entered", 1), change("updated", 2), change("left", 3, count=0)]

    (diff,) = diffs_of([changes[2], changes[0], changes[1]])

    assert diff.forms == diffs_of(changes)[0].forms
    assert diff.forms.full["count"] == 0


def test_revisions_are_inclusive_ranges() -> None:
    (diff,) = diffs_of([change("entered", number, str(number)) for number in (9, 1, 2, 3, 7, 8, 5)])

    assert diff.revisions == [(1, 3), (5, 5), (7, 9)]
    assert diff.forms.full["revisions"] == [[1, 3], [5, 5], [7, 9]]


def test_who_entered_before_somebody_of_another_process_stays_before_them() -> None:
    here = [change("entered", 1, "ada"), change("updated", 3, "ada", meta={"n": 1}, count=2)]
    there = [change("entered", 2, "bob", count=2)]
    fold = Fold()
    fold.apply_state(state_form(State(ROOM), count_only=False))

    for diff in diffs_of(here) + diffs_of(there):
        fold.apply_diff(diff.forms.full)

    assert [user["id"] for user in fold.users] == ["ada", "bob"]


def test_who_enters_and_is_updated_in_a_row_is_in_one_diff() -> None:
    changes = [
        change("entered", 1, "ada"),
        change("entered", 2, "bob", count=2),
        change("updated", 3, "ada", meta={"n": 1}, count=2),
        change("entered", 7, "cyd", count=3),
    ]

    assert len(diffs_of(changes)) == 1


def test_channels_and_epochs_have_diffs_of_their_own() -> None:
    changes = [
        change("entered", 1),
        change("entered", 1, channel="/room/2"),
        change("left", 2),
        change("entered", 1, epoch="f"),
    ]

    diffs = diffs_of(changes)

    assert [(diff.channel, diff.epoch, diff.revisions) for diff in diffs] == [
        (ROOM, "e", [(1, 2)]),
        ("/room/2", "e", [(1, 1)]),
        (ROOM, "f", [(1, 1)]),
    ]


def test_no_changes_make_no_diff() -> None:
    assert diffs_of([]) == []


# The feed


def feed_at(position: Position) -> Feed:
    """A feed whose subscribers were given the state at this position."""
    feed = Feed()
    feed.watch(ROOM)
    feed.note_read(ROOM, position)
    return feed


def compare(feed: Feed, now: Position, *, diffs_arrive: bool = False) -> tuple[list[str], Any]:
    verdict = feed.compare(feed.known(), {ROOM: now}, diffs_arrive=diffs_arrive)
    return verdict.behind, verdict.rolled_back


def test_who_was_sent_everything_is_not_behind() -> None:
    feed = feed_at(Position("e", 3))
    feed.note_diff(ROOM, "e", [(4, 5)])

    assert compare(feed, Position("e", 5)) == ([], {})


def test_who_was_sent_less_than_there_is_is_behind() -> None:
    assert compare(feed_at(Position("e", 3)), Position("e", 4)) == ([ROOM], {})


@pytest.mark.parametrize("start", [Position("e", 3), NOWHERE])
def test_what_is_about_to_be_sent_is_missing_only_after_another_renewal(start: Position) -> None:
    feed, now = feed_at(start), Position("e", start.revision + 2)
    for revision in (start.revision + 1, now.revision):
        feed.note_coming(ROOM, "e", revision)

    assert compare(feed, now) == ([], {})
    assert compare(feed, now) == ([ROOM], {})


@pytest.mark.parametrize("start", [Position("e", 3), NOWHERE])
def test_what_others_changed_is_missing_though_something_is_about_to_be_sent(
    start: Position,
) -> None:
    feed = feed_at(start)
    feed.note_coming(ROOM, "e", start.revision + 2)
    feed.note_coming(ROOM, "f", start.revision + 1)

    assert compare(feed, Position("e", start.revision + 2)) == ([ROOM], {})


def test_what_was_sent_is_not_about_to_be_sent_any_more() -> None:
    feed = feed_at(Position("e", 3))
    feed.note_coming(ROOM, "e", 4)
    feed.note_diff(ROOM, "e", [(4, 4)])
    feed.note_pushed(ROOM, Position("f", 3))

    assert compare(feed, Position("f", 4)) == ([ROOM], {})


def test_a_revision_that_is_heard_once_more_ends_its_epoch() -> None:
    feed = feed_at(Position("e", 3))
    assert not feed.note_heard(ROOM, "e", 4, 6)
    assert not feed.note_heard(ROOM, "e", 7, 7)
    assert feed.take_given_up() == {}

    assert feed.note_heard(ROOM, "e", 7, 7)

    assert feed.take_given_up() == {ROOM: "e"}
    assert feed.take_given_up() == {}


def test_a_first_revision_of_another_epoch_ends_none() -> None:
    feed = feed_at(Position("e", 3))
    feed.note_heard(ROOM, "e", 4, 6)

    assert not feed.note_heard(ROOM, "f", 1, 1)
    assert not feed.note_heard("/room/unwatched", "f", 1, 1)


def test_who_misses_one_in_between_is_behind() -> None:
    feed = feed_at(Position("e", 3))
    feed.note_diff(ROOM, "e", [(5, 6)])

    assert compare(feed, Position("e", 6)) == ([ROOM], {})


def test_what_was_missing_may_come_later() -> None:
    feed = feed_at(Position("e", 3))
    feed.note_diff(ROOM, "e", [(5, 6), (8, 8)])
    feed.note_diff(ROOM, "e", [(4, 4), (7, 7)])

    assert compare(feed, Position("e", 8)) == ([], {})


def test_a_pushed_state_brings_everyone_up_to_it() -> None:
    feed = feed_at(Position("e", 3))
    feed.note_diff(ROOM, "e", [(7, 7)])

    feed.note_pushed(ROOM, Position("e", 6))

    assert compare(feed, Position("e", 7)) == ([], {})


def test_a_state_that_is_older_than_what_was_sent_takes_nothing_back() -> None:
    feed = feed_at(Position("e", 3))
    feed.note_diff(ROOM, "e", [(4, 5)])

    feed.note_pushed(ROOM, Position("e", 4))

    assert compare(feed, Position("e", 5)) == ([], {})


def test_one_reader_s_state_says_nothing_of_the_others() -> None:
    feed = feed_at(Position("e", 3))

    feed.note_read(ROOM, Position("e", 9))

    assert compare(feed, Position("e", 9)) == ([ROOM], {})


def test_diffs_that_came_before_the_first_state_count() -> None:
    feed = Feed()
    feed.watch(ROOM)
    feed.note_diff(ROOM, "e", [(4, 5)])
    feed.note_read(ROOM, Position("e", 3))

    assert compare(feed, Position("e", 5)) == ([], {})


def test_the_first_diff_of_a_channel_that_nobody_had_entered_begins_its_epoch() -> None:
    feed = feed_at(NOWHERE)
    feed.note_diff(ROOM, "e", [(1, 2)])

    assert compare(feed, Position("e", 2)) == ([], {})


def test_another_epoch_means_behind_whatever_the_revision() -> None:
    for revision in (1, 3, 9):
        assert compare(feed_at(Position("e", 3)), Position("f", revision))[0] == [ROOM]


def test_where_diffs_arrive_by_themselves_only_another_epoch_means_behind() -> None:
    feed = feed_at(Position("e", 3))

    assert compare(feed, Position("e", 4), diffs_arrive=True) == ([], {})
    assert compare(feed, Position("f", 4), diffs_arrive=True) == ([ROOM], {})


def test_a_store_below_what_was_known_before_it_was_asked_lost_its_last_writes() -> None:
    feed = feed_at(Position("e", 3))
    feed.note_diff(ROOM, "e", [(4, 5)])

    for diffs_arrive in (False, True):
        assert compare(feed, Position("e", 4), diffs_arrive=diffs_arrive) == ([], {ROOM: "e"})


def test_a_store_below_what_was_learned_only_after_it_was_asked_lost_nothing() -> None:
    feed = feed_at(Position("e", 3))
    before = feed.known()
    feed.note_diff(ROOM, "e", [(4, 5)])

    verdict = feed.compare(before, {ROOM: Position("e", 4)}, diffs_arrive=False)

    assert (verdict.behind, verdict.rolled_back) == ([], {})


def test_a_channel_of_which_no_state_was_read_yet_is_left_alone() -> None:
    feed = Feed()
    feed.watch(ROOM)

    assert compare(feed, Position("e", 4)) == ([], {})


def test_a_channel_that_nobody_watches_is_left_alone() -> None:
    feed = feed_at(Position("e", 3))
    feed.unwatch(ROOM)

    assert feed.known() == {}
    assert compare(feed, Position("e", 9)) == ([], {})
    assert feed.stale({ROOM: Position("e", 1)}) == []


def test_a_position_of_another_epoch_is_stale_at_once() -> None:
    feed = feed_at(Position("e", 3))

    assert feed.stale({ROOM: Position("f", 3)}) == [ROOM]
    assert feed.stale({ROOM: NOWHERE}) == [ROOM]
    assert feed.stale({ROOM: Position("e", 3)}) == []


def test_a_position_is_stale_where_the_channel_was_ahead_of_it_one_renewal_ago() -> None:
    feed = feed_at(Position("e", 3))
    feed.note_diff(ROOM, "e", [(4, 4)])
    assert feed.stale({ROOM: Position("e", 3)}) == []

    compare(feed, Position("e", 4))
    assert feed.stale({ROOM: Position("e", 3)}) == []

    compare(feed, Position("e", 4))
    assert feed.stale({ROOM: Position("e", 3)}) == [ROOM]
    assert feed.stale({ROOM: Position("e", 4)}) == []


def test_watching_again_forgets_nothing_of_those_who_watch() -> None:
    feed = feed_at(Position("e", 3))

    feed.watch(ROOM)

    assert feed.known() == {ROOM: Position("e", 3)}


# Rooms


def test_a_subscriber_is_in_the_room_of_its_form() -> None:
    transport = Transport()
    rooms = Rooms(transport, Feed())

    rooms.subscribe("a", ROOM, count_only=False)
    rooms.subscribe("b", "/count/x", count_only=True)

    assert transport.rooms == {full_room(ROOM): {"a"}, counted_room("/count/x"): {"b"}}


def test_no_room_is_named_like_a_client() -> None:
    for room in (full_room, counted_room, present_room):
        assert room("abc").startswith("presence:")
    assert len({full_room(ROOM), counted_room(ROOM), present_room(ROOM)}) == 3


@pytest.mark.parametrize("count_only", [True, False])
def test_when_a_channel_turns_all_who_watch_are_moved_together(count_only: bool) -> None:
    transport = Transport()
    rooms = Rooms(transport, Feed())
    for client in ("a", "b"):
        rooms.subscribe(client, ROOM, count_only=not count_only)

    moved = rooms.move_audience(ROOM, count_only=count_only)

    room, other = (
        (counted_room(ROOM), full_room(ROOM))
        if count_only
        else (full_room(ROOM), counted_room(ROOM))
    )
    assert moved is True
    assert rooms.is_counted(ROOM) is count_only
    assert transport.rooms[room] == {"a", "b"}
    assert transport.rooms[other] == set()
    assert rooms.move_audience(ROOM, count_only=count_only) is False


def test_who_subscribes_is_where_those_who_watch_already_are() -> None:
    transport = Transport()
    rooms = Rooms(transport, Feed())
    rooms.subscribe("a", ROOM, count_only=True)

    rooms.subscribe("b", ROOM, count_only=False)

    assert rooms.is_counted(ROOM) is True
    assert transport.rooms == {counted_room(ROOM): {"a", "b"}}


def test_those_who_were_moved_are_owed_a_state_until_it_is_pushed() -> None:
    feed = Feed()
    rooms = Rooms(Transport(), feed)
    rooms.subscribe("a", ROOM, count_only=False)
    assert feed.owed() == []

    rooms.move_audience(ROOM, count_only=True)
    assert feed.owed() == [ROOM]
    rooms.push_state(State(ROOM, "e", 4))

    assert feed.owed() == []


def test_nobody_is_owed_a_state_where_nobody_watches() -> None:
    feed = Feed()
    feed.owe(ROOM)
    feed.watch(ROOM)
    feed.owe(ROOM)
    feed.unwatch(ROOM)

    assert feed.owed() == []


def test_turning_a_channel_that_nobody_watches_does_nothing() -> None:
    assert Rooms(Transport(), Feed()).move_audience(ROOM, count_only=True) is False


def test_who_unsubscribed_is_out_of_the_room_that_the_channel_turned_to() -> None:
    transport = Transport()
    rooms = Rooms(transport, Feed())
    rooms.subscribe("a", ROOM, count_only=False)
    rooms.move_audience(ROOM, count_only=True)

    rooms.unsubscribe("a", ROOM)

    assert not any(transport.rooms.values())
    assert not rooms.has_audience(ROOM)


def test_the_last_one_to_go_ends_the_watching() -> None:
    feed = Feed()
    rooms = Rooms(Transport(), feed)
    rooms.subscribe("a", ROOM, count_only=False)
    rooms.subscribe("b", ROOM, count_only=False)

    rooms.unsubscribe("a", ROOM)
    assert list(feed.known()) == [ROOM]
    rooms.forget("b", ROOM)

    assert feed.known() == {}


def test_going_where_it_was_not_changes_nothing() -> None:
    rooms = Rooms(Transport(), Feed())
    rooms.subscribe("a", ROOM, count_only=False)

    rooms.unsubscribe("b", ROOM)
    rooms.unsubscribe("a", "/room/2")
    rooms.forget("b", ROOM)

    assert rooms.has_audience(ROOM)


@pytest.mark.parametrize("crosses_processes", [True, False])
def test_a_diff_goes_out_in_both_forms_each_to_its_room(crosses_processes: bool) -> None:
    transport, feed = Transport(crosses_processes=crosses_processes), Feed()
    rooms = Rooms(transport, feed)
    rooms.subscribe("a", ROOM, count_only=False)
    feed.note_read(ROOM, NOWHERE)
    (diff,) = diffs_of([change("entered", 1)])

    rooms.send_diff(diff)

    local = not crosses_processes
    assert transport.sent == [
        ("diff", diff.forms.full, full_room(ROOM), local),
        ("diff", diff.forms.counted, counted_room(ROOM), local),
    ]
    assert compare(feed, Position("e", 1)) == ([], {})


def test_a_diff_is_counted_by_those_of_this_process_who_are_told() -> None:
    rooms = Rooms(Transport(crosses_processes=True), Feed())
    (diff,) = diffs_of([change("entered", 1)])

    nobody = rooms.send_diff(diff)
    for client_id in ("a", "b"):
        rooms.subscribe(client_id, ROOM, count_only=False)

    assert nobody == 0
    assert rooms.send_diff(diff) == 2


def test_without_subscribers_a_diff_is_sent_only_where_other_processes_may_have_some() -> None:
    (diff,) = diffs_of([change("entered", 1)])
    alone, among_others = Transport(), Transport(crosses_processes=True)

    Rooms(alone, Feed()).send_diff(diff)
    Rooms(among_others, Feed()).send_diff(diff)

    assert alone.sent == []
    assert len(among_others.sent) == 2


def test_a_state_is_pushed_to_this_process_alone() -> None:
    transport, feed = Transport(crosses_processes=True), Feed()
    rooms = Rooms(transport, feed)
    rooms.subscribe("a", ROOM, count_only=False)
    state = State(ROOM, "e", 4, 1, 0, (User("7"),))

    rooms.push_state(state)

    forms = state_forms(state)
    assert transport.sent == [
        ("state", forms.full, full_room(ROOM), True),
        ("state", forms.counted, counted_room(ROOM), True),
    ]
    assert compare(feed, Position("e", 4)) == ([], {})


# The announcer


class Wake:
    """An event that a test can see being awaited."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.sets = 0

    def set(self) -> None:
        self.sets += 1
        self.event.set()

    def clear(self) -> None:
        self.event.clear()

    def wait(self, timeout: float | None = None) -> bool:
        return self.event.wait(timeout)


@contextmanager
def no_context() -> Iterator[None]:
    yield


class Naps:
    """The sleep of the background work: each is noted, and ends when a test says so."""

    def __init__(self) -> None:
        self.lengths: list[float] = []
        self._began = threading.Semaphore(0)
        self._may_end = threading.Semaphore(0)

    def __call__(self, seconds: float) -> None:
        self.lengths.append(seconds)
        self._began.release()
        assert self._may_end.acquire(timeout=PATIENCE)

    def await_next(self) -> float:
        assert self._began.acquire(timeout=PATIENCE)
        return self.lengths[-1]

    def end(self) -> None:
        self._may_end.release()


@contextmanager
def running(announcer: Announcer, naps: Naps) -> Iterator[None]:
    announcer.begin(Wake())
    runner = threading.Thread(target=announcer.run, args=(naps,), daemon=True)
    runner.start()
    yield
    announcer.end()
    for _ in range(3):
        naps.end()
    runner.join(PATIENCE)
    assert not runner.is_alive()


def announcer_with(transport: Transport, *, window: float, audience: int = 1) -> Announcer:
    rooms = Rooms(transport, Feed())
    for number in range(audience):
        rooms.subscribe(f"client{number}", ROOM, count_only=False)
    return Announcer(rooms, sender=object(), app_context=no_context, window=window)


def burst(count: int) -> list[Change]:
    return [change("entered", number, str(number)) for number in range(1, count + 1)]


def test_without_background_work_a_change_is_sent_before_the_call_returns() -> None:
    transport = Transport()
    announcer = announcer_with(transport, window=60)

    for each in burst(3):
        announcer.announce([each])

    assert [data["revisions"] for data in transport.sent_to(full_room(ROOM))] == [
        [[1, 1]],
        [[2, 2]],
        [[3, 3]],
    ]


def test_with_a_window_of_zero_a_change_is_sent_before_the_call_returns() -> None:
    transport = Transport()
    announcer = announcer_with(transport, window=0)
    announcer.begin(Wake())

    announcer.announce(burst(1))

    assert len(transport.sent_to(full_room(ROOM))) == 1


def test_no_changes_send_nothing_and_wake_nobody() -> None:
    transport, wake = Transport(), Wake()
    announcer = announcer_with(transport, window=60)
    announcer.announce([])
    announcer.begin(wake)
    announcer.announce([])

    assert transport.sent == []
    assert wake.sets == 0


def test_a_burst_of_changes_within_one_window_is_one_diff() -> None:
    transport, gathered = Transport(), threading.Event()
    announcer = announcer_with(transport, window=60)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        assert gathered.wait(PATIENCE)

    announcer.begin(Wake())
    runner = threading.Thread(target=announcer.run, args=(sleep,), daemon=True)
    runner.start()
    for each in burst(100):
        announcer.announce([each])
    gathered.set()

    assert transport.went.acquire(timeout=PATIENCE)
    assert transport.went.acquire(timeout=PATIENCE)
    (diff,) = transport.sent_to(full_room(ROOM))
    assert diff["revisions"] == [[1, 100]]
    assert len(diff["entered"]) == 100
    assert slept[0] == 60
    announcer.end()
    runner.join(PATIENCE)
    assert not runner.is_alive()


@pytest.mark.parametrize(
    ("audience", "seconds"), [(1, 0), (250, 0), (1000, 0.15), (2500, 0.45), (5000, 0.45)]
)
def test_after_a_diff_that_many_were_told_there_is_a_pause_in_proportion(
    audience: int, seconds: float
) -> None:
    """Invariant 10: a channel that never rests leaves time for everything else."""
    announcer, naps = announcer_with(Transport(), window=0.05, audience=audience), Naps()
    with running(announcer, naps):
        announcer.announce(burst(1))
        window = naps.await_next()

        naps.end()
        pause = naps.await_next()

        assert window == 0.05
        assert pause == pytest.approx(seconds)


def test_what_comes_within_the_pause_is_one_diff() -> None:
    transport, naps = Transport(), Naps()
    announcer = announcer_with(transport, window=0.05, audience=1000)
    with running(announcer, naps):
        first, *others = burst(5)
        announcer.announce([first])
        naps.await_next()
        naps.end()
        naps.await_next()

        for each in others:
            announcer.announce([each])
        naps.end()
        naps.await_next()
        naps.end()
        naps.await_next()

    diffs = transport.sent_to(full_room(ROOM))
    assert [diff["revisions"] for diff in diffs] == [[[1, 1]], [[2, 5]]]


def test_what_comes_within_the_pause_is_not_lost_when_the_background_work_ends() -> None:
    transport, naps = Transport(), Naps()
    announcer = announcer_with(transport, window=0.05, audience=1000)
    with running(announcer, naps):
        first, second = burst(2)
        announcer.announce([first])
        naps.await_next()
        naps.end()
        naps.await_next()

        announcer.announce([second])

    diffs = transport.sent_to(full_room(ROOM))
    assert [diff["revisions"] for diff in diffs] == [[[1, 1]], [[2, 2]]]


def test_what_is_announced_while_a_diff_is_sent_is_not_lost_when_the_work_ends() -> None:
    transport, naps = Transport(), Naps()
    announcer = announcer_with(transport, window=0.05)
    emit = transport.emit
    first, second = burst(2)

    def end_meanwhile(*args: Any, **options: Any) -> None:
        transport.emit = emit  # type: ignore[method-assign]
        announcer.announce([second])
        announcer.end()
        emit(*args, **options)

    transport.emit = end_meanwhile  # type: ignore[method-assign]
    with running(announcer, naps):
        announcer.announce([first])
        for _ in range(3):
            naps.await_next()
            naps.end()

    diffs = transport.sent_to(full_room(ROOM))
    assert [diff["revisions"] for diff in diffs] == [[[1, 1]], [[2, 2]]]


def test_what_gathered_is_not_lost_when_the_background_work_ends() -> None:
    transport, began = Transport(), threading.Event()
    announcer = announcer_with(transport, window=60)
    end = threading.Event()

    def sleep(seconds: float) -> None:
        began.set()
        assert end.wait(PATIENCE)

    announcer.begin(Wake())
    runner = threading.Thread(target=announcer.run, args=(sleep,), daemon=True)
    runner.start()
    announcer.announce(burst(2))
    assert began.wait(PATIENCE)

    announcer.end()
    end.set()
    runner.join(PATIENCE)

    assert not runner.is_alive()
    assert [data["revisions"] for data in transport.sent_to(full_room(ROOM))] == [[[1, 2]]]


def test_a_transport_that_fails_once_does_not_end_the_sending(
    caplog: pytest.LogCaptureFixture,
) -> None:
    transport = Transport()
    announcer = announcer_with(transport, window=0.001)
    emit, failed = transport.emit, threading.Event()

    def fail_once(*args: Any, **options: Any) -> None:
        transport.emit = emit  # type: ignore[method-assign]
        failed.set()
        raise RuntimeError("the transport was told to raise")

    transport.emit = fail_once  # type: ignore[method-assign]
    announcer.begin(Wake())
    runner = threading.Thread(target=announcer.run, args=(lambda _: None,), daemon=True)
    runner.start()
    announcer.announce(burst(1))
    assert failed.wait(PATIENCE)
    announcer.announce([change("entered", 2, "2")])

    assert transport.went.acquire(timeout=PATIENCE)
    eventually(lambda: "told to raise" in caplog.text)
    announcer.end()
    runner.join(PATIENCE)


def test_a_burst_of_joins_sends_each_subscriber_a_handful_of_diffs(serve: Any, dial: Any) -> None:
    port, app, presence = serve(PRESENCE_BATCH_WINDOW=0.3)
    wire = dial(port)
    wire.call("subscribe", {"channel": ROOM})

    with app.app_context():
        channel = presence.channel(ROOM)
        for number in range(200):
            channel.enter(str(number), client_id=str(number))

    last = wire.wait_for("diff", lambda diff: diff["count"] == 200)
    assert len(wire.received("diff")) < 10
    assert last["revisions"][-1][1] == 200


def test_no_window_sends_each_change_at_once(serve: Any, dial: Any) -> None:
    port, app, presence = serve(PRESENCE_BATCH_WINDOW=0)
    wire = dial(port)
    wire.call("subscribe", {"channel": ROOM})

    with app.app_context():
        for number in range(3):
            presence.channel(ROOM).enter(str(number), client_id=str(number))

    diffs = [wire.wait_for("diff") for _ in range(3)]
    assert [diff["revisions"] for diff in diffs] == [[[1, 1]], [[2, 2]], [[3, 3]]]


# Shared reads


class Store:
    """Reads that begin and end when a test says so; each answers with its number."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.reads: list[str] = []
        self.error: Exception | None = None

    def read(self, name: str) -> int:
        self.reads.append(name)
        number = len(self.reads)
        self.began.release()
        assert self.may_end.acquire(timeout=PATIENCE)
        if self.error is not None:
            raise self.error
        return number


class Asker:
    """Asks in a thread of its own."""

    def __init__(self, reads: SharedReads[int], name: str = ROOM) -> None:
        self.answer: Any = None
        self.read_it: bool | None = None
        self._thread = threading.Thread(target=self._ask, args=(reads, name), daemon=True)
        self._thread.start()

    def _ask(self, reads: SharedReads[int], name: str) -> None:
        try:
            self.answer, self.read_it = reads.get(name)
        except Exception as error:
            self.answer = error

    def wait(self) -> Any:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self.answer


def waiting(reads: SharedReads[int], name: str = ROOM) -> int:
    line = reads._lines.get(name)
    return 0 if line is None else line.waiting


def test_a_read_that_began_before_a_request_arrived_never_answers_it() -> None:
    store = Store()
    reads = SharedReads(store.read)
    first = Asker(reads)
    assert store.began.acquire(timeout=PATIENCE)
    late = Asker(reads)
    eventually(lambda: waiting(reads) == 2)

    store.may_end.release(2)

    assert first.wait() == 1
    assert late.wait() == 2


def test_all_who_wait_share_one_read() -> None:
    store = Store()
    reads = SharedReads(store.read)
    first = Asker(reads)
    assert store.began.acquire(timeout=PATIENCE)
    late = [Asker(reads) for _ in range(20)]
    eventually(lambda: waiting(reads) == 21)

    store.may_end.release(30)

    assert first.wait() == 1
    assert {asker.wait() for asker in late} == {2}
    assert store.reads == [ROOM, ROOM]
    assert first.read_it is True
    assert sum(bool(asker.read_it) for asker in late) == 1


def test_an_error_reaches_all_who_share_the_read_and_nobody_after_them() -> None:
    store = Store()
    store.error = BackendUnavailable("the store is away")
    reads = SharedReads(store.read)
    first = Asker(reads)
    assert store.began.acquire(timeout=PATIENCE)
    late = [Asker(reads) for _ in range(5)]
    eventually(lambda: waiting(reads) == 6)

    store.may_end.release(30)

    assert first.wait() is store.error
    assert [asker.wait() for asker in late] == [store.error] * 5

    store.error = None
    assert reads.get(ROOM) == (3, True)


def test_reads_of_different_things_do_not_wait_for_one_another() -> None:
    store = Store()
    reads = SharedReads(store.read)
    askers = [Asker(reads, name) for name in ("/room/1", "/room/2")]

    for _ in askers:
        assert store.began.acquire(timeout=PATIENCE)
    store.may_end.release(2)

    assert {asker.wait() for asker in askers} == {1, 2}


def test_nothing_is_kept_of_what_was_read() -> None:
    reads = SharedReads(lambda name: 1)

    for number in range(100):
        reads.get(f"/room/{number}")

    assert reads._lines == {}
