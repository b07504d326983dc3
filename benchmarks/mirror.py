"""What one connection believes: where it is in, and what it watches, as the wire told it."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

from wire import Wire

from flask_presence.testing.fold import Fold

State = Mapping[str, Any]
Payload = dict[str, Any]


class Watch:
    """One subscription: the folded state, and which revisions a diff brought."""

    def __init__(self, fold: Fold | None = None) -> None:
        self.fold = fold or Fold()
        self._since: int | None = None
        self._brought: set[int] = set()
        self._gap_at: Any = None

    @property
    def has_begun(self) -> bool:
        """Did the server acknowledge it?"""
        return self._since is not None

    def begin(self, state: State | None, position: Any) -> None:
        """The server acknowledged it, with a state or because ``position`` is current."""
        if state is not None:
            self.fold.apply_state(state)
        if self._since is None:
            self._since = position[1] if state is None else state["revision"]

    def take_diff(self, diff: Mapping[str, Any]) -> None:
        self.fold.apply_diff(diff)
        for start, end in diff["revisions"]:
            self._brought.update(range(start, end + 1))

    def should_ask(self) -> bool:
        """Is a state needed? Asked once a second: a gap must be there for two of them."""
        fold = self.fold
        before, self._gap_at = self._gap_at, fold.position if fold.gap else None
        return fold.position is None or fold.needs_state or (fold.gap and before == fold.position)

    def undelivered(self, state: State) -> list[int]:
        """Revisions since the first state that no diff brought."""
        since = state["revision"] if self._since is None else self._since
        owed = range(since + 1, state["revision"] + 1)
        return [revision for revision in owed if revision not in self._brought]

    def agrees_with(self, state: State) -> bool:
        return not self.differences(state)

    def differences(self, state: State) -> list[str]:
        """What it would show, where that is not what the store has."""
        fold = self.fold
        seen = {"position": fold.position, "count": fold.count, "anonymous": fold.anonymous}
        stored = {"position": (state["epoch"], state["revision"])}
        stored |= {name: state[name] for name in ("count", "anonymous")}
        found = [
            f"{name} {seen[name]} instead of {stored[name]}"
            for name in seen
            if seen[name] != stored[name]
        ]
        mine, theirs = ({user["id"]: user for user in some} for some in (fold.users, _users(state)))
        if mine.keys() != theirs.keys():
            found.append(f"{sorted(mine)} instead of {sorted(theirs)}")
        found += [
            f"{mine[user]} instead of {theirs[user]}"
            for user in sorted(mine.keys() & theirs.keys())
            if mine[user] != theirs[user]
        ]
        return found

    def is_misordered(self, state: State) -> bool:
        """Are the same users there, in another order?"""
        mine, theirs = ([user["id"] for user in some] for some in (self.fold.users, _users(state)))
        return mine != theirs and set(mine) == set(theirs)


def _users(state: State) -> list[dict[str, Any]]:
    users: list[dict[str, Any]] = state.get("users", [])
    return users


class Mirror(Wire):
    """A connection that keeps up with what the server says, in the order in which it is said.

    Its requests must come from one thread.
    """

    def __init__(self, port: int, user: str | None) -> None:
        self.changed = threading.Condition()
        self.entered: dict[str, Any] = {}
        """The meta last given, of each channel that it is in."""
        self.watched: dict[str, Watch] = {}
        self.uncertain: set[str] = set()
        """Channels of which an answer left open whether it is in."""
        self.stale: set[str] = set()
        self.lost: dict[str, Any] = {}
        """Where the server lost it, and the meta last given there."""
        self.errors: Counter[str] = Counter()
        self._asked: dict[int, tuple[str, Payload]] = {}
        auth = None if user is None else {"user": user, "info": {"name": user.title()}}
        super().__init__(port, auth=auth)

    def positions(self) -> dict[str, Any]:
        with self.changed:
            return {
                channel: list(watch.fold.position)
                for channel, watch in self.watched.items()
                if watch.fold.position is not None
            }

    def emit(self, event: str, *payload: Any) -> queue.Queue[Any]:
        (body,) = payload
        with self.changed:
            self._asked[self._next + 1] = (event, body)
            for name, op in body["ops"] if event == "batch" else [(event, body)]:
                if name == "subscribe":
                    # Diffs may overtake the acknowledgement.
                    self.watched.setdefault(op["channel"], Watch())
        return super().emit(event, body)

    def take_answer(self, number: int, answer: Any) -> None:
        with self.changed:
            self._learn(*self._asked.pop(number), answer)
            self.changed.notify_all()
        super().take_answer(number, answer)

    def take_event(self, name: str, data: Any) -> None:
        self.frames.clear()
        with self.changed:
            if name == "evicted":
                self.entered.pop(data["channel"], None)
                self.lost.pop(data["channel"], None)
                self.watched.pop(data["channel"], None)
            elif name in ("diff", "state") and data["channel"] in self.watched:
                watch = self.watched[data["channel"]]
                watch.take_diff(data) if name == "diff" else watch.fold.apply_state(data)
            self.changed.notify_all()

    def _learn(self, event: str, payload: Payload, answer: Any) -> None:
        if event == "batch" and answer["ok"]:
            for (name, op), result in zip(payload["ops"], answer["results"], strict=True):
                self._learn(name, op, result)
        elif answer["ok"]:
            getattr(self, f"_learn_{event}")(payload, answer)
        else:
            self._learn_refusal(event, payload, answer)

    def _learn_refusal(self, event: str, payload: Payload, answer: Any) -> None:
        error = answer["error"]
        self.errors[error] += 1
        channel = payload.get("channel", "")
        # An eviction may have overtaken the refusal.
        watch = self.watched.get(channel)
        if event == "subscribe" and watch is not None and not watch.has_begun:
            del self.watched[channel]
        if error == "not_present":
            self.entered.pop(channel, None)
        if event in ("enter", "leave", "update") and error == "unavailable":
            self.entered.pop(channel, None)
            self.uncertain.add(channel)

    def _learn_enter(self, payload: Payload, answer: Any) -> None:
        channel = payload["channel"]
        # Without one, what it gave before stays.
        self.entered[channel] = payload.get("meta", self.entered.get(channel))
        self.uncertain.discard(channel)
        self.lost.pop(channel, None)

    def _learn_leave(self, payload: Payload, answer: Any) -> None:
        self.entered.pop(payload["channel"], None)
        self.uncertain.discard(payload["channel"])
        self.lost.pop(payload["channel"], None)

    def _learn_update(self, payload: Payload, answer: Any) -> None:
        if payload["channel"] in self.entered:
            self.entered[payload["channel"]] = payload["meta"]

    def _learn_subscribe(self, payload: Payload, answer: Any) -> None:
        watch = self.watched.setdefault(payload["channel"], Watch())
        watch.begin(answer["state"], payload.get("position"))

    def _learn_unsubscribe(self, payload: Payload, answer: Any) -> None:
        self.watched.pop(payload["channel"], None)

    def _learn_state(self, payload: Payload, answer: Any) -> None:
        for channel, state in answer["states"].items():
            if channel in self.watched and state is not None:
                self.watched[channel].fold.apply_state(state)

    def _learn_heartbeat(self, payload: Payload, answer: Any) -> None:
        self.stale |= set(answer["stale"]) & set(self.watched)
        for channel in answer["lost"]:
            self.lost[channel] = self.entered.pop(channel, self.lost.get(channel))
