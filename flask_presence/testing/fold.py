"""Folds: what is known of a channel after a series of changes, or of a client's states and diffs.

`fold_changes` is the law that every store keeps: the state at a revision is the fold of all changes
up to it. `Fold` is the reference for what a browser does with what the wire brings it, in
whatever order that arrives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..model import Change, Position, State, User


def fold_changes(channel: str, changes: Iterable[Change]) -> State:
    """Return the state that all changes of one channel add up to; they may come in any order.

    Where the store forgot the channel in between, only the changes since then count: they begin
    again with revision 1.

    :raises AssertionError: a revision is missing or doubled, a change changes nothing or does not
        fit what was there, or its counts are wrong.
    """
    life = _last_life(changes)
    users: dict[str, User] = {}
    anonymous = 0
    for revision, change in enumerate(life, 1):
        assert change.channel == channel, change
        assert change.revision == revision, f"{change} is no revision {revision}"
        if change.user_id is None:
            anonymous += _step_of_anonymous(change)
        else:
            _step_of_user(users, change)
        assert (change.count, change.anonymous) == (len(users), anonymous), change
    epoch = life[-1].epoch if life else None
    return State(channel, epoch, len(life), len(users), anonymous, tuple(users.values()))


def _last_life(changes: Iterable[Change]) -> list[Change]:
    life: list[Change] = []
    for change in changes:
        if change.revision == 1 and any(known.epoch != change.epoch for known in life):
            life = [late for late in life if late.epoch == change.epoch]
        life.append(change)
    return sorted(life, key=lambda change: change.revision)


def _step_of_anonymous(change: Change) -> int:
    assert change.kind in ("entered", "left"), f"{change}: of an anonymous client nothing is seen"
    assert (change.info, change.meta) == ({}, {}), change
    return 1 if change.kind == "entered" else -1


def _step_of_user(users: dict[str, User], change: Change) -> None:
    assert change.user_id is not None
    user = User(change.user_id, change.info, change.meta)
    known = users.get(user.id)
    if change.kind == "entered":
        assert known is None, f"{change} of somebody who is in"
        users[user.id] = user
    elif change.kind == "updated":
        assert known is not None, f"{change} of somebody who is not in"
        assert known != user, f"{change} changes nothing"
        users[user.id] = user
    else:
        assert known is not None, f"{change} of somebody who is not in"
        assert known == user, f"{change} tells of another info or meta than was seen"
        del users[user.id]


class Fold:
    """What a client knows of one channel.

    ``users``, ``count``, ``anonymous``, ``count_only`` and ``position`` are what it shows; ``gap``
    and ``needs_state`` are why it would ask for the state.
    """

    def __init__(self) -> None:
        self.epoch: str | None = None
        self.count = 0
        self.anonymous = 0
        self.count_only = False
        self.needs_state = False
        """Did a diff of another epoch arrive since the last state?"""
        self._has_state = False
        self._state_revision = 0
        self._highest = 0
        self._covered: set[int] = set()
        self._entries: dict[str, _Entry] = {}
        self._kept: list[Mapping[str, Any]] = []

    @property
    def users(self) -> list[dict[str, Any]]:
        """Who is here, in the order of entering."""
        if self.count_only:
            return []
        here = sorted(self._entries.values(), key=lambda entry: entry.place)
        return [entry.user for entry in here if entry.user is not None]

    @property
    def position(self) -> Position | None:
        """The highest revision with none missing below it; ``None`` before the first state."""
        return Position(self.epoch, self._reached) if self._has_state else None

    @property
    def gap(self) -> bool:
        """Is a revision missing below one that was seen?"""
        return self._reached < self._highest

    @property
    def _reached(self) -> int:
        revision = self._state_revision
        while revision + 1 in self._covered:
            revision += 1
        return revision

    def apply_state(self, state: Mapping[str, Any]) -> None:
        """Replace all at or below the state's revision; what is above it stays."""
        if not self._has_state or state["epoch"] != self.epoch:
            self._begin(state["epoch"])
        if state["revision"] < self._state_revision:
            return
        self.needs_state = False
        self.count_only = state.get("count_only") is True
        self._replace(state["revision"], state.get("users", ()))
        if state["revision"] >= self._highest:
            self._follow(state["revision"], state)
        kept, self._kept = self._kept, []
        for diff in kept:
            self.apply_diff(diff)
        self._kept = []

    def apply_diff(self, diff: Mapping[str, Any]) -> None:
        """Apply the entries that are news; a diff that needs a state first is kept for that one."""
        if not self._has_state:
            self._kept.append(diff)
            return
        begins_this = self.epoch is None and _first(diff) == 1
        if diff["epoch"] != self.epoch and not begins_this:
            self._kept.append(diff)
            self.needs_state = True
            return
        self.epoch = diff["epoch"]
        for start, end in diff["revisions"]:
            self._covered.update(range(max(start, self._state_revision + 1), end + 1))
        if _last(diff) > self._highest:
            self._follow(_last(diff), diff)
        for kind in ("entered", "updated", "left"):
            items = diff.get(kind, ())
            for item, place in zip(items, _places(items), strict=True):
                self._apply_entry(kind, item, place)

    def _begin(self, epoch: str | None) -> None:
        self.epoch = epoch
        self._has_state = True
        self._state_revision = self._highest = 0
        self._covered.clear()
        self._entries.clear()

    def _replace(self, revision: int, users: Iterable[Mapping[str, Any]]) -> None:
        """Take a state's users. An entry above it stays: in the place that the state gives, unless
        the user entered after it."""
        known, self._entries = self._entries, {}
        for index, user in enumerate(users):
            self._entries[user["id"]] = _Entry(revision, _plain(user), (revision, index))
        for user_id, entry in known.items():
            if entry.revision <= revision:
                continue
            if entry.since <= revision:
                listed = self._entries.get(user_id)
                place = (entry.revision, 0) if listed is None else listed.place
                entry = _Entry(entry.revision, entry.user, place)
            self._entries[user_id] = entry
        self._state_revision = revision
        self._covered = {seen for seen in self._covered if seen > revision}

    def _follow(self, revision: int, source: Mapping[str, Any]) -> None:
        self._highest = revision
        self.count = source["count"]
        self.anonymous = source["anonymous"]

    def _apply_entry(self, kind: str, item: Mapping[str, Any], place: tuple[int, int]) -> None:
        revision = item["revision"]
        known = self._entries.get(item["id"])
        if revision <= (known.revision if known else self._state_revision):
            return
        is_here = known is not None and known.user is not None
        is_in_state = is_here and place[0] <= self._state_revision
        if kind == "left":
            entry = _Entry(revision, None, (revision, 0))
        elif kind == "entered" and not is_in_state:
            entry = _Entry(revision, _plain(item), place, since=place[0])
        elif known is not None and is_here:
            entry = _Entry(revision, _plain(item), known.place, since=known.since)
        else:
            entry = _Entry(revision, _plain(item), (revision, 0))
        self._entries[item["id"]] = entry


class _Entry(NamedTuple):
    """The last that is known of one user; ``user`` is ``None`` where they left."""

    revision: int
    user: dict[str, Any] | None
    place: tuple[int, int]
    since: int = 0
    """The revision at which they were seen entering; 0 where they never were."""


def _plain(user: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": user["id"], "info": user["info"], "meta": user["meta"]}


def _places(items: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """Places in a list that is in the order of entering, though an entry's own revision may be that
    of a later update."""
    revisions = [item["revision"] for item in items]
    return [(min(revisions[turn:]), turn) for turn in range(len(revisions))]


def _first(diff: Mapping[str, Any]) -> int:
    return min(int(start) for start, _ in diff["revisions"])


def _last(diff: Mapping[str, Any]) -> int:
    return max(int(end) for _, end in diff["revisions"])
