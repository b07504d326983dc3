"""What one connection believes: where it is in, and what it watches, as its frames told it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from flask_presence.testing.fold import Fold

NAMESPACE = "/presence,"

State = Mapping[str, Any]
Payload = dict[str, Any]
UNKNOWN: Any = object()
"""A meta that was given or not: what was asked for was answered with a doubt."""


def may_show(meta: Any, given: Collection[Any]) -> bool:
    """May a user show this meta, whose clients gave these; ``None`` where one gave none?"""
    if UNKNOWN in given:
        return True
    return meta in ([one for one in given if one is not None] or [{}])


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
            if position and position[0] == state["epoch"] and position[1] > state["revision"]:
                # The store went back to an older snapshot.
                self.fold = Fold()
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


def _users(state: State) -> list[dict[str, Any]]:
    users: list[dict[str, Any]] = state.get("users", [])
    return users


class Mirror:
    """Follows one connection, frame by frame, in the order in which they were sent and arrived.

    :param before: the connection that this one goes on from, where it subscribes with a position.
    """

    def __init__(self, user: str | None, before: Mirror | None = None) -> None:
        self.user = user
        self.client_id: str | None = None
        self.entered: dict[str, Any] = {}
        """The meta last given, of each channel that it is in."""
        self.watched: dict[str, Watch] = {}
        self.uncertain: set[str] = set()
        """Channels of which an answer left open whether it is in."""
        self.stale: set[str] = set()
        self.lost: dict[str, Any] = {}
        """Where the server lost it, and the meta last given there."""
        self.errors: Counter[str] = Counter()
        self.states: list[tuple[float | None, State]] = []
        """States that arrived since somebody looked, and when each was asked for, if it was."""
        self._before = before.watched if before else {}
        self._asked: dict[int, tuple[float, str, Payload]] = {}

    def positions(self) -> dict[str, Any]:
        return {
            channel: list(watch.fold.position)
            for channel, watch in self.watched.items()
            if watch.fold.position is not None
        }

    def changing(self) -> set[str]:
        """Channels that it has asked to enter or to leave, without an answer yet."""
        return {
            op["channel"]
            for _, event, payload in self._asked.values()
            for name, op in _ops(event, payload)
            if name in ("enter", "leave")
        }

    def certain(self) -> set[str]:
        """Channels that it is in, as far as it can know."""
        return set(self.entered) - self.changing()

    def possible(self) -> set[str]:
        """Channels that it may be in."""
        return {*self.entered, *self.uncertain, *self.lost, *self.changing()}

    def oldest_question(self) -> float | None:
        """When the question was asked that has waited longest for its answer."""
        return min((at for at, _, _ in self._asked.values()), default=None)

    # Frames

    def sent(self, text: str, at: float) -> None:
        if text.startswith("42" + NAMESPACE):
            number, (event, payload, *_) = _numbered(text)
            body = payload or {}
            self._asked[number] = (at, event, body)
            for name, op in _ops(event, body):
                if name == "subscribe" and op["channel"] not in self.watched:
                    # Diffs may overtake the acknowledgement.
                    known = self._before.get(op["channel"]) if "position" in op else None
                    self.watched[op["channel"]] = Watch(known.fold if known else None)

    def received(self, text: str) -> float | None:
        """Take a frame; for an answer, when it was asked for."""
        if text.startswith("43" + NAMESPACE):
            number, (answer, *_) = _numbered(text)
            at, event, payload = self._asked.pop(number)
            self._learn(at, event, payload, answer)
            return at
        if text.startswith("42" + NAMESPACE):
            self._take_event(*json.loads(text[2 + len(NAMESPACE) :]))
        elif text.startswith("40" + NAMESPACE):
            self.client_id = json.loads(text[2 + len(NAMESPACE) :])["sid"]
        return None

    def _take_event(self, name: str, data: Any, *_: Any) -> None:
        channel = data.get("channel", "") if isinstance(data, dict) else ""
        if name == "evicted":
            for known in (self.entered, self.lost, self.watched):
                known.pop(channel, None)
        elif name == "diff" and channel in self.watched:
            self.watched[channel].take_diff(data)
        elif name == "state" and channel in self.watched:
            self.watched[channel].fold.apply_state(data)
        if name == "state":
            self.states.append((None, data))

    # Answers

    def _learn(self, at: float, event: str, payload: Payload, answer: Any) -> None:
        if event == "batch" and answer["ok"]:
            for (name, op), result in zip(payload["ops"], answer["results"], strict=True):
                self._learn(at, name, op, result)
        elif answer["ok"]:
            getattr(self, f"_learn_{event}")(at, payload, answer)
        else:
            self._learn_refusal(event, payload, answer["error"])

    def _learn_refusal(self, event: str, payload: Payload, error: str) -> None:
        self.errors[error] += 1
        channel = payload.get("channel", "")
        # An eviction may have overtaken the refusal.
        watch = self.watched.get(channel)
        if event == "subscribe" and watch is not None and not watch.has_begun:
            del self.watched[channel]
        if error == "not_present":
            self.entered.pop(channel, None)
        if error == "unavailable":
            self._doubt(event, channel)

    def _doubt(self, event: str, channel: str) -> None:
        """It is not known whether this was done. Nobody is out by entering again or updating."""
        if event in ("enter", "update") and channel in self.entered:
            self.entered[channel] = UNKNOWN
        elif event in ("enter", "leave"):
            self.entered.pop(channel, None)
            self.uncertain.add(channel)

    def _learn_enter(self, at: float, payload: Payload, answer: Any) -> None:
        channel = payload["channel"]
        # Without one, what it gave before stays.
        before = UNKNOWN if channel in self.uncertain else self.entered.get(channel)
        self.entered[channel] = payload.get("meta", before)
        self.uncertain.discard(channel)
        self.lost.pop(channel, None)

    def _learn_leave(self, at: float, payload: Payload, answer: Any) -> None:
        self.entered.pop(payload["channel"], None)
        self.uncertain.discard(payload["channel"])
        self.lost.pop(payload["channel"], None)

    def _learn_update(self, at: float, payload: Payload, answer: Any) -> None:
        if payload["channel"] in self.entered:
            self.entered[payload["channel"]] = payload["meta"]

    def _learn_subscribe(self, at: float, payload: Payload, answer: Any) -> None:
        watch = self.watched.setdefault(payload["channel"], Watch())
        watch.begin(answer["state"], payload.get("position"))
        if answer["state"] is not None:
            self.states.append((at, answer["state"]))

    def _learn_unsubscribe(self, at: float, payload: Payload, answer: Any) -> None:
        self.watched.pop(payload["channel"], None)

    def _learn_state(self, at: float, payload: Payload, answer: Any) -> None:
        for channel, state in answer["states"].items():
            if state is None:
                continue
            self.states.append((at, state))
            if channel in self.watched:
                self.watched[channel].fold.apply_state(state)

    def _learn_heartbeat(self, at: float, payload: Payload, answer: Any) -> None:
        self.stale |= set(answer["stale"]) & set(self.watched)
        for channel in answer["lost"]:
            self.lost[channel] = self.entered.pop(channel, self.lost.get(channel))


def _ops(event: str, payload: Payload) -> list[Any]:
    return payload["ops"] if event == "batch" else [(event, payload)]


def _numbered(text: str) -> tuple[int, list[Any]]:
    """The number and the content of a frame that asks for, or is, an acknowledgement."""
    number, _, body = text[2 + len(NAMESPACE) :].partition("[")
    return int(number), json.loads("[" + body)
