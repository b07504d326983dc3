"""The checker, on logs that are written here: one in which all is well, and what breaks it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .checker import check
from .journal import Journal, Record, read
from .plan import Planner

ROOM = "/room/1"
EPOCH = "e1"


class Log:
    """Writes down a story, a tenth of a second for each event."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.now = 0.0
        self._numbers: dict[str, int] = {}

    def add(self, who: str, kind: str, data: Any = None) -> None:
        self.now = round(self.now + 0.1, 1)
        self.records.append(Record(self.now, who, kind, data))

    def open(self, who: str, user: str | None, port: int = 1) -> None:
        self.add(who, "opened", {"user": user, "port": port, "after": None})
        self.add(who, "in", f'40/presence,{{"sid":"{who}"}}')

    def ask(self, who: str, event: str, payload: Any) -> int:
        number = self._numbers[who] = self._numbers.get(who, 0) + 1
        self.add(who, "out", f"42/presence,{number}{json.dumps([event, payload])}")
        return number

    def answer(self, who: str, number: int, **answer: Any) -> None:
        self.add(who, "in", f"43/presence,{number}{json.dumps([{'ok': True} | answer])}")

    def call(self, who: str, event: str, payload: Any, **answer: Any) -> None:
        self.answer(who, self.ask(who, event, payload), **answer)

    def push(self, who: str, event: str, data: Any) -> None:
        self.add(who, "in", f"42/presence,{json.dumps([event, data])}")

    def signal(self, kind: str, user: str, revision: int, count: int, **more: Any) -> None:
        change = {
            "kind": kind,
            "channel": ROOM,
            "epoch": EPOCH,
            "revision": revision,
            "user_id": user,
            "info": {},
            "meta": {},
            "count": count,
            "anonymous": 0,
            "reason": None,
        }
        self.add("node0", "signal", change | more)

    def fault(self, name: str = "killed", **about: bool) -> None:
        flags = dict.fromkeys(("costs_signals", "turns_back", "is_slow"), False)
        self.add("stage", "fault", {"name": name} | flags | about)

    def final(self, *users: str, revision: int, channel: str = ROOM) -> None:
        self.add("stage", "final", {"states": {channel: state(*users, revision=revision)}})

    def rules(self) -> set[str]:
        return {violation.rule for violation in check(self.records, grace=1)}


def state(*users: str, revision: int, channel: str = ROOM) -> dict[str, Any]:
    shown = [{"id": user, "info": {}, "meta": {}} for user in users]
    return {
        "channel": channel,
        "epoch": EPOCH,
        "revision": revision,
        "count": len(users),
        "anonymous": 0,
        "users": shown,
    }


def diff(revision: int, count: int, **lists: Any) -> dict[str, Any]:
    about = {"channel": ROOM, "epoch": EPOCH, "revisions": [[revision, revision]]}
    return about | {"count": count, "anonymous": 0} | lists


@pytest.fixture
def log() -> Log:
    """Ada is in, and Bob watches."""
    log = Log()
    log.open("bob", "bob")
    empty = state(revision=0) | {"epoch": None}
    log.call("bob", "subscribe", {"channel": ROOM}, state=empty)
    log.open("ada", "ada")
    number = log.ask("ada", "enter", {"channel": ROOM})
    log.signal("entered", "ada", 1, 1)
    log.push("bob", "diff", diff(1, 1, entered=[entry("ada", 1)]))
    log.answer("ada", number)
    log.now += 2
    return log


def entry(user: str, revision: int) -> dict[str, Any]:
    return {"id": user, "info": {}, "meta": {}, "revision": revision}


def read_state(log: Log, *users: str, revision: int) -> None:
    log.call("bob", "state", {"channels": [ROOM]}, states={ROOM: state(*users, revision=revision)})


def test_a_story_in_which_all_is_well_violates_nothing(log: Log) -> None:
    read_state(log, "ada", revision=1)
    log.final("ada", revision=1)
    number = log.ask("ada", "leave", {"channel": ROOM})
    log.signal("left", "ada", 2, 0, reason="left")
    log.answer("ada", number)
    log.push("bob", "diff", diff(2, 0, left=[{"id": "ada", "revision": 2}]))
    log.final(revision=2)

    assert log.rules() == set()


def test_who_is_in_and_is_not_shown_is_missing(log: Log) -> None:
    read_state(log, revision=1)

    assert "1 missing" in log.rules()


def test_who_is_in_while_a_fault_goes_on_may_be_missing(log: Log) -> None:
    log.fault(turns_back=True)
    read_state(log, revision=1)

    assert log.rules() == set()


def test_who_is_shown_and_has_no_client_is_a_ghost(log: Log) -> None:
    log.add("ada", "closed", "dropped")
    log.now += 10
    read_state(log, "ada", revision=1)

    assert log.rules() == {"4 ghost"}


def test_who_was_dropped_just_now_is_no_ghost(log: Log) -> None:
    log.add("ada", "closed", "dropped")
    read_state(log, "ada", revision=1)

    assert log.rules() == set()


@pytest.mark.parametrize(("after", "expected"), [(0.1, {"1 seen leaving"}), (2, set())])
def test_who_leaves_within_the_grace_is_seen_leaving(
    log: Log, after: float, expected: set[str]
) -> None:
    log.add("ada", "closed", "dropped")
    log.now += after
    log.signal("left", "ada", 2, 0, reason="timeout")

    assert log.rules() == expected


@pytest.mark.parametrize(
    ("is_told_first", "expected"), [(True, set()), (False, {"1 seen leaving"})]
)
def test_who_had_left_before_they_entered_again_is_not_seen_leaving(
    log: Log, is_told_first: bool, expected: set[str]
) -> None:
    """However late a busy server signals it: revisions tell the order."""
    log.add("ada", "closed", "dropped")
    log.now += 2
    log.open("ada2", "ada")
    number = log.ask("ada2", "enter", {"channel": ROOM})
    if is_told_first:
        log.signal("entered", "ada", 3, 1)
    log.answer("ada2", number)
    log.now += 2
    log.signal("left", "ada", 2, 0, reason="timeout")
    if not is_told_first:
        log.signal("entered", "ada", 3, 1)

    assert log.rules() == expected


def test_who_leaves_by_another_tab_is_not_seen_leaving(log: Log) -> None:
    log.open("ada2", "ada")
    log.add("ada", "closed", "dropped")
    number = log.ask("ada2", "leave", {"channel": ROOM})
    log.signal("left", "ada", 2, 0, reason="left")
    log.answer("ada2", number)

    assert log.rules() == set()


def test_who_says_that_they_leave_is_out_from_then_on(log: Log) -> None:
    log.add("ada", "closed", "left")
    log.add("ada", "out", "41/presence,")
    log.signal("left", "ada", 2, 0, reason="left")
    log.push("bob", "diff", diff(2, 0, left=[{"id": "ada", "revision": 2}]))
    read_state(log, revision=2)
    log.final(revision=2)

    assert log.rules() == set()


@pytest.mark.parametrize(("is_faulty", "expected"), [(True, set()), (False, {"1 seen leaving"})])
@pytest.mark.parametrize("says_goodbye", [False, True])
def test_who_leaves_while_the_store_has_lost_their_other_tab_is_not_seen_leaving(
    log: Log, says_goodbye: bool, is_faulty: bool, expected: set[str]
) -> None:
    log.open("ada2", "ada")
    log.call("ada2", "enter", {"channel": ROOM})
    if is_faulty:
        log.fault("store emptied")
    if says_goodbye:
        log.add("ada2", "closed", "left")
        log.signal("left", "ada", 2, 0, reason="left")
    else:
        number = log.ask("ada2", "leave", {"channel": ROOM})
        log.signal("left", "ada", 2, 0, reason="left")
        log.answer("ada2", number)

    assert log.rules() == expected


def test_who_is_in_and_times_out_is_seen_leaving_unless_evicted_or_the_server_is_down(
    log: Log,
) -> None:
    log.signal("left", "ada", 2, 0, reason="timeout")
    evicting = Log()
    evicting.records = log.records[:-1]
    evicting.now = log.now
    evicting.add("bob", "evicts", "ada")
    evicting.signal("left", "ada", 2, 0, reason="evicted")
    evicting.add("bob", "evicted", "ada")
    down = Log()
    down.records = [*log.records[:-1], Record(log.now, "stage", "down", 1)]
    down.now = log.now
    down.signal("left", "ada", 2, 0, reason="worker_lost")
    down.final(revision=2)

    assert log.rules() == {"1 seen leaving"}
    assert evicting.rules() == set()
    assert "1 seen leaving" not in down.rules()


def test_in_the_end_those_are_in_whose_clients_are(log: Log) -> None:
    log.final(revision=1)

    assert {"1 misplaced", "6 diverged"} <= log.rules()


def test_a_meta_that_nobody_gave_is_misplaced(log: Log) -> None:
    log.call("ada", "update", {"channel": ROOM, "meta": {"n": 1}})
    log.signal("updated", "ada", 2, 1, meta={"n": 1})
    log.push("bob", "diff", diff(2, 1, updated=[entry("ada", 2)]))
    log.final("ada", revision=2)

    assert "1 misplaced" in log.rules()


@pytest.mark.parametrize(("error", "expected"), [("unavailable", set()), (None, {"1 misplaced"})])
def test_a_meta_that_may_have_been_given_is_not_misplaced(
    log: Log, error: str | None, expected: set[str]
) -> None:
    shown = {"meta": {"n": 1}}
    number = log.ask("ada", "update", {"channel": ROOM} | (shown if error else {"meta": {"n": 2}}))
    log.signal("updated", "ada", 2, 1, **shown)
    log.push("bob", "diff", diff(2, 1, updated=[entry("ada", 2) | shown]))
    log.answer("ada", number, **({"ok": False, "error": error} if error else {}))
    log.call("ada", "enter", {"channel": ROOM})
    last = state("ada", revision=2)
    last["users"][0] |= shown
    log.add("stage", "final", {"states": {ROOM: last}})

    assert log.rules() == expected


def test_a_revision_that_was_told_twice_is_found(log: Log) -> None:
    log.signal("entered", "ada", 1, 1)

    assert log.rules() == {"3 twice"}


def test_a_revision_that_nobody_told_is_found_unless_a_fault_may_cost_it(log: Log) -> None:
    log.signal("updated", "ada", 3, 1, meta={"n": 1})
    forgiven = Log()
    forgiven.records = log.records[:-1]
    forgiven.now = log.now
    forgiven.fault(costs_signals=True)
    forgiven.signal("updated", "ada", 3, 1, meta={"n": 1})

    assert log.rules() == {"3 never told"}
    assert forgiven.rules() == set()


def test_a_last_revision_that_nobody_told_is_found(log: Log) -> None:
    log.final("ada", revision=2)

    assert "3 never told" in log.rules()


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "entered", "user": "ada", "count": 1},
        {"kind": "updated", "user": "ada", "count": 1},
        {"kind": "entered", "user": "cyd", "count": 1},
        {"kind": "updated", "user": "cyd", "count": 1, "meta": {"n": 1}},
    ],
)
def test_a_change_that_does_not_fit_is_found(log: Log, change: Any) -> None:
    log.signal(revision=2, **change)

    assert log.rules() == {"4 fold"}


def test_two_states_of_one_revision_contradict_each_other(log: Log) -> None:
    log.call("ada", "enter", {"channel": ROOM, "meta": {"n": 1}})
    other = state("ada", revision=1)
    other["users"][0]["meta"] = {"n": 1}
    log.call("bob", "state", {"channels": [ROOM]}, states={ROOM: other})

    assert log.rules() == {"4 fold"}


def test_a_subscriber_who_is_not_told_has_diverged_and_was_not_delivered_to(log: Log) -> None:
    number = log.ask("ada", "leave", {"channel": ROOM})
    log.signal("left", "ada", 2, 0, reason="left")
    log.answer("ada", number)
    log.final(revision=2)

    assert log.rules() == {"6 diverged", "6 undelivered"}


def test_what_did_not_heal_in_time_is_found(log: Log) -> None:
    log.add("stage", "unhealed", ["node1 has no states"])

    assert log.rules() == {"6 unhealed"}


def test_an_identity_in_a_count_only_channel_is_found_wherever_it_is(log: Log) -> None:
    counted = {"channel": "/count/a", "epoch": EPOCH, "revision": 1, "count": 1, "anonymous": 0}
    results = [{"ok": True}, {"ok": True, "state": counted | {"users": [entry("u1~id", 1)]}}]
    ops = [["leave", {"channel": ROOM}], ["subscribe", {"channel": "/count/a"}]]
    well = Log()
    well.open("bob", "u1~id")
    well.push("bob", "hello", {"user_id": "u1~id"})
    well.push("bob", "diff", counted | {"revisions": [[1, 1]]})
    log.call("bob", "batch", {"ops": ops}, results=results)

    assert "8 identity" in log.rules()
    assert well.rules() == set()


def test_an_answer_that_takes_long_and_an_error_in_a_log_are_found(log: Log) -> None:
    number = log.ask("bob", "heartbeat", {})
    log.now += 11
    log.answer("bob", number, stale=[], lost=[])
    for logger, level in (("flask_presence", "WARNING"), ("socketio.server", "ERROR")):
        log.add("node0", "log", {"logger": logger, "level": level, "text": "It did not work"})
    slow = log.rules()
    log.add("node0", "log", {"logger": "flask_presence", "level": "ERROR", "text": "Traceback"})

    assert slow == {"0 slow"}
    assert log.rules() == {"0 slow", "0 error"}


# Plans and logs


def test_the_same_seed_plans_the_same_operations() -> None:
    def plan(seed: int) -> list[Any]:
        planners = [Planner(seed, number, servers=2) for number in range(8)]
        return [(one.user, one.server, one.turn(5, 30), one.turn(3, 10)) for one in planners]

    assert plan(1) == plan(1)
    assert plan(1) != plan(2)


def test_a_log_is_read_in_the_order_of_time_without_a_line_that_was_not_finished(
    tmp_path: Any,
) -> None:
    first, second = Journal(tmp_path / "a"), Journal(tmp_path / "b")
    first.write("a", "one")
    second.write("b", "two", {"n": 1})
    first.write("a", "three")
    with (tmp_path / "b").open("a") as file:
        file.write('[1, "b", "fo')

    records = read(tmp_path.glob("*"))

    assert [record.kind for record in records] == ["one", "two", "three"]
