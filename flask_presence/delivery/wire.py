"""The forms in which states and changes travel to clients, with identities and without."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

from ..model import Change, State

Form = dict[str, Any]


class Forms(NamedTuple):
    """One message for those who may see identities, and for those who may not."""

    full: Form
    counted: Form


def state_forms(state: State) -> Forms:
    """Both forms of a state."""
    return Forms(state_form(state, count_only=False), state_form(state, count_only=True))


def state_form(state: State, *, count_only: bool) -> Form:
    """The wire form of a state."""
    form: Form = {
        "channel": state.channel,
        "epoch": state.epoch,
        "revision": state.revision,
        "count": state.count,
        "anonymous": state.anonymous,
    }
    if count_only:
        return form | {"count_only": True}
    users = [{"id": user.id, "info": user.info, "meta": user.meta} for user in state.users]
    return form | {"users": users}


class Diff(NamedTuple):
    """The changes of one channel that travel together."""

    channel: str
    epoch: str
    revisions: list[tuple[int, int]]
    forms: Forms


def diffs_of(changes: Sequence[Change]) -> list[Diff]:
    """Gather changes into diffs of one channel and epoch each, as few as will do."""
    gathered: dict[tuple[str, str], list[Change]] = {}
    for change in changes:
        gathered.setdefault((change.channel, change.epoch), []).append(change)
    return [_diff_of(part) for group in gathered.values() for part in _parts_of(group)]


def _parts_of(changes: list[Change]) -> list[list[Change]]:
    """Part changes in the order of revisions where who entered is updated after another process
    had its turn: the one entry that a diff has of them would hide who of both was first."""
    changes.sort(key=lambda change: change.revision)
    parts: list[list[Change]] = [[]]
    before_gap: set[str | None] = set()
    since_gap: set[str | None] = set()
    for change in changes:
        if parts[-1] and change.revision > parts[-1][-1].revision + 1:
            before_gap |= since_gap
            since_gap = set()
        if change.kind == "updated" and change.user_id in before_gap:
            parts.append([])
            before_gap, since_gap = set(), set()
        parts[-1].append(change)
        if change.kind == "entered":
            since_gap.add(change.user_id)
    return parts


def _diff_of(changes: list[Change]) -> Diff:
    latest = changes[-1]
    revisions = _ranges([change.revision for change in changes])
    counted: Form = {
        "channel": latest.channel,
        "epoch": latest.epoch,
        "revisions": [list(pair) for pair in revisions],
        "count": latest.count,
        "anonymous": latest.anonymous,
    }
    full = counted | _lists_of(changes)
    return Diff(latest.channel, latest.epoch, revisions, Forms(full, counted))


def _lists_of(changes: list[Change]) -> Form:
    last: dict[str, Change] = {}
    entered: dict[str, int] = {}
    """At which revision each user who came within these changes did."""
    for change in changes:
        if change.user_id is None:
            continue
        last[change.user_id] = change
        if change.kind == "entered":
            entered[change.user_id] = change.revision
        elif change.kind == "left":
            entered.pop(change.user_id, None)
    lists: dict[str, list[Form]] = {}
    # In the order of entering: an entry's own revision may be that of a later update.
    for user_id in sorted(last, key=lambda user_id: entered.get(user_id, 0)):
        change = last[user_id]
        kind = "entered" if user_id in entered else change.kind
        entry: Form = {"id": user_id, "revision": change.revision}
        if kind != "left":
            entry |= {"info": change.info, "meta": change.meta}
        lists.setdefault(kind, []).append(entry)
    return dict(lists)


def _ranges(revisions: Sequence[int]) -> list[tuple[int, int]]:
    """Inclusive ranges of rising numbers."""
    runs = groupby(enumerate(revisions), key=lambda pair: pair[1] - pair[0])
    ranges = []
    for _, run in runs:
        numbers = [number for _, number in run]
        ranges.append((numbers[0], numbers[-1]))
    return ranges
