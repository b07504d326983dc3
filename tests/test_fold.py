"""What a client makes of states and diffs, in whatever order they arrive."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_presence.model import Change
from flask_presence.testing.fold import Fold, fold_changes

CASES = json.loads((Path(__file__).parent / "fold.json").read_text("utf-8"))
ROOM = "/a/b"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_python_folds_like_javascript(case: dict[str, Any]) -> None:
    fold = Fold()

    for step in case["steps"]:
        if "state" in step:
            fold.apply_state(step["state"])
        else:
            fold.apply_diff(step["diff"])

    expected = {"count_only": False} | case["expect"]
    assert seen(fold) == expected


def test_the_names_of_the_cases_differ() -> None:
    assert len({case["name"] for case in CASES}) == len(CASES)


# Any history


def make_history(moves: list[tuple[str | None, int]]) -> list[Change]:
    """Turn random moves into what a channel may go through: who is out enters, who is in is
    updated or leaves."""
    users: dict[str, int] = {}
    anonymous = 0
    changes: list[Change] = []
    for revision, (user, number) in enumerate(moves, 1):
        meta = {} if user is None else {"n": revision}
        if user is None:
            kind = "left" if anonymous and number == 0 else "entered"
            anonymous += 1 if kind == "entered" else -1
        elif user not in users:
            kind, users[user] = "entered", revision
        elif number == 0:
            kind, meta = "left", {"n": users.pop(user)}
        else:
            kind, users[user] = "updated", revision
        count = len(users)
        reason = "left" if kind == "left" else None
        fields: Any = (kind, ROOM, "e1", revision, user, {}, meta, count, anonymous, reason)
        changes.append(Change(*fields))
    return changes


def wire_state(changes: list[Change]) -> dict[str, Any]:
    state = fold_changes(ROOM, changes)
    users = [{"id": user.id, "info": user.info, "meta": user.meta} for user in state.users]
    return {
        "channel": ROOM,
        "epoch": state.epoch,
        "revision": state.revision,
        "count": state.count,
        "anonymous": state.anonymous,
        "users": users,
    }


def wire_diff(changes: list[Change]) -> dict[str, Any]:
    """One diff for several changes: of each user the last entry only, and who entered meanwhile
    and is in still in the order of entering, though they were updated since."""
    lists: dict[str, dict[str, dict[str, Any]]] = {"entered": {}, "updated": {}, "left": {}}
    for change in changes:
        if change.user_id is None:
            continue
        entry: dict[str, Any] = {"id": change.user_id, "revision": change.revision}
        if change.kind != "left":
            entry |= {"info": change.info, "meta": change.meta}
        if change.kind == "updated" and change.user_id in lists["entered"]:
            lists["entered"][change.user_id] = entry
            continue
        for entries in lists.values():
            entries.pop(change.user_id, None)
        lists[change.kind][change.user_id] = entry
    diff: dict[str, Any] = {
        "channel": ROOM,
        "epoch": "e1",
        "revisions": [[changes[0].revision, changes[-1].revision]],
        "count": changes[-1].count,
        "anonymous": changes[-1].anonymous,
    }
    return diff | {kind: list(entries.values()) for kind, entries in lists.items()}


moves = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", "d", None]), st.integers(0, 2)),
    min_size=1,
    max_size=20,
)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(moves=moves, data=st.data())
def test_in_whatever_order_diffs_and_states_arrive_all_clients_end_alike(
    moves: list[tuple[str | None, int]], data: st.DataObject
) -> None:
    changes = make_history(moves)
    cuts = data.draw(st.sets(st.integers(1, len(changes))), label="cuts")
    edges = sorted({0, *cuts, len(changes)})
    starts = data.draw(st.integers(0, len(changes)), label="first state")
    later = data.draw(st.lists(st.integers(0, len(changes)), max_size=3), label="later states")
    diffs = [("diff", wire_diff(changes[start:end])) for start, end in pairwise(edges)]
    again = data.draw(st.lists(st.sampled_from(diffs), max_size=3), label="twice")
    states = [("state", wire_state(changes[:end])) for end in later if end >= max(starts, 1)]
    arrivals = data.draw(st.permutations(diffs + again + states), label="arrivals")
    # A state without an epoch replaces any other, so a late one would undo what came before it.
    known = [kind for kind, _ in arrivals].index("state") if states else len(arrivals)
    latest = len(arrivals) if starts else known
    first = data.draw(st.integers(0, latest), label="when the first state comes")
    arrivals = [*arrivals[:first], ("state", wire_state(changes[:starts])), *arrivals[first:]]

    fold = Fold()
    asks = False
    for kind, payload in arrivals:
        fold.apply_state(payload) if kind == "state" else fold.apply_diff(payload)
        asks |= fold.needs_state
    settled = seen(fold)
    fold.apply_state(wire_state(changes))

    whole = seen(fold)
    assert whole["users"] == wire_state(changes)["users"]
    assert whole["position"] == ["e1", len(changes)]
    assert (whole["gap"], whole["needs_state"]) == (False, False)
    if not asks:
        assert by_id(settled) == by_id(whole)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(moves=moves, data=st.data())
def test_diffs_in_order_keep_the_order_of_entering(
    moves: list[tuple[str | None, int]], data: st.DataObject
) -> None:
    changes = make_history(moves)
    start = data.draw(st.integers(1, len(changes)), label="first state")
    cuts = data.draw(st.sets(st.integers(1, len(changes))), label="cuts")
    edges = sorted({0, *cuts, len(changes)})

    fold = Fold()
    fold.apply_state(wire_state(changes[:start]))
    for begin, end in pairwise(edges):
        fold.apply_diff(wire_diff(changes[begin:end]))

    whole = wire_state(changes)
    assert fold.users == whole["users"]
    assert (fold.count, fold.anonymous) == (whole["count"], whole["anonymous"])
    assert fold.position == ("e1", len(changes))


def by_id(view: dict[str, Any]) -> dict[str, Any]:
    """Leave the order out: where an update overtakes the entry, nobody is told the place."""
    return view | {"users": {user["id"]: user for user in view["users"]}}


def seen(fold: Fold) -> dict[str, Any]:
    return {
        "users": fold.users,
        "count": fold.count,
        "anonymous": fold.anonymous,
        "epoch": fold.epoch,
        "position": None if fold.position is None else list(fold.position),
        "gap": fold.gap,
        "needs_state": fold.needs_state,
        "count_only": fold.count_only,
    }


# The law


def change(kind: Any, revision: int, user: str | None = "a", **fields: Any) -> Change:
    left = "left" if kind == "left" else None
    known: Any = {"info": {}, "meta": {}, "count": 1, "anonymous": 0, "reason": left}
    return Change(kind, ROOM, fields.pop("epoch", "e1"), revision, user, **known | fields)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param([change("entered", 2)], id="a revision is missing"),
        pytest.param([change("entered", 1), change("entered", 1, "b")], id="one is doubled"),
        pytest.param([change("entered", 1), change("entered", 2)], id="somebody enters twice"),
        pytest.param([change("left", 1, count=0)], id="somebody leaves who is not in"),
        pytest.param([change("updated", 1)], id="somebody is updated who is not in"),
        pytest.param([change("entered", 1), change("updated", 2)], id="an update changes nothing"),
        pytest.param([change("entered", 1, count=2)], id="the count is wrong"),
        pytest.param([change("entered", 1, None)], id="the anonymous count is wrong"),
        pytest.param(
            [change("entered", 1), change("left", 2, count=0, meta={"n": 1})],
            id="somebody leaves with another meta",
        ),
    ],
)
def test_the_law_finds_what_breaks_it(changes: list[Change]) -> None:
    with pytest.raises(AssertionError):
        fold_changes(ROOM, changes)


def test_the_law_begins_anew_where_a_channel_was_forgotten() -> None:
    old = [change("entered", 1), change("left", 2, count=0)]
    new = [change("entered", 1, "b", epoch="e2")]

    state = fold_changes(ROOM, old + new)

    assert (state.epoch, state.revision) == ("e2", 1)
    assert [user.id for user in state.users] == ["b"]
