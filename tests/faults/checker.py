"""Reads what everybody logged, and reports where an invariant of presence did not hold.

The numbers are those of the invariants: one truth (1), one revision for each visible change (2),
never twice (3), no read shows the dead, and a state is the fold of all changes (4), only the clock
of the store decides (5), subscribers converge (6), a store that lost data heals (7), identity stays
in (8); 0 is what no server may do at all.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from .folding import fold
from .history import Final, History, Seen, Signal, Stay
from .journal import Record
from .mirror import may_show

GRACE_SECONDS = 1.0
ANSWER_SECONDS = 10.0
"""By then everything is answered, whatever is broken, on a busy machine too. Where nothing else
runs it is two and a half."""
LEAVE_SECONDS = 3.0
SIGNAL_SECONDS = 1.0
"""How long after the step a signal may come from a busy server: others may have entered since."""


class Violation(NamedTuple):
    """``rule`` is what did not hold, ``at`` about when."""

    rule: str
    at: float
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


def check(records: Iterable[Record], *, grace: float = GRACE_SECONDS) -> list[Violation]:
    """Everything that is wrong, in the order in which it happened."""
    history = History(records, grace=grace)
    found = [violation for rule in RULES for violation in rule(history)]
    return sorted(found, key=lambda violation: violation.at)


# 1: one truth


def missing_in_states(history: History) -> Iterator[Violation]:
    """A user with a client that is in is in every state that is asked for."""
    for seen in _calm(history):
        channel, shown = seen.state["channel"], _ids(seen.state)
        for stay in history.certain.get(channel, ()):
            if stay.user is None or not stay.covers(*_asked(seen)):
                continue
            is_shown = seen.state["count"] > 0 if shown is None else stay.user in shown
            if not is_shown and not _is_excused(history, stay, *_asked(seen)):
                yield Violation(
                    "1 missing", seen.at, f"{seen.who} is not shown {stay.who} in {channel}"
                )


def ghosts_in_states(history: History) -> Iterator[Violation]:
    """A user who is shown has a client that may be in. (1 and 4)"""
    for seen in _calm(history):
        channel, asked = seen.state["channel"], _asked(seen)
        here = {
            stay.user
            for stay in history.possible.get(channel, ())
            if stay.start <= asked[1] and asked[0] <= stay.end
        }
        ghosts = sorted((_ids(seen.state) or set()) - here)
        if ghosts:
            yield Violation("4 ghost", seen.at, f"{seen.who} is shown {ghosts} in {channel}")
        if seen.state["count"] > len(here - {None}):
            yield Violation("4 ghost", seen.at, f"{seen.who} is shown too many in {channel}")


def _calm(history: History) -> Iterator[Seen]:
    """States that were asked for while nothing was wrong."""
    for seen in history.seen:
        if seen.asked is not None and history.window_at(*_asked(seen)) is None:
            yield seen


def _asked(seen: Seen) -> tuple[float, float]:
    return (seen.at if seen.asked is None else seen.asked, seen.at)


def _ids(state: Any) -> set[str] | None:
    return None if "users" not in state else {user["id"] for user in state["users"]}


def _is_excused(history: History, stay: Stay, start: float, end: float) -> bool:
    """Is this one being evicted, or does its server not know what it thinks?"""
    return history.is_evicting(stay.user, start, end) or any(
        port == stay.port and since <= end and start <= until
        for since, until, port in history.downs
    )


def misplaced_in_the_end(history: History) -> Iterator[Violation]:
    """When all is quiet, just those are in whose clients are, with a meta that one of them gave."""
    for final in history.finals:
        turned = any(window.turns_back and window.start < final.at for window in history.windows)
        for channel, state in final.states.items():
            for trouble in _misplaced(final, channel, state, turned=turned):
                yield Violation("1 misplaced", final.at, f"{channel}: {trouble}")


def _misplaced(final: Final, channel: str, state: Any, *, turned: bool) -> Iterator[str]:
    """``turned``: a client that gave no meta may be in with one that it gave before it left, as a
    store that turned back does not know that it left."""
    held = {user: metas for (name, user), metas in final.held.items() if name == channel}
    counted = (len(held), final.anonymous[channel])
    if counted != (state["count"], state["anonymous"]):
        yield f"it counts {(state['count'], state['anonymous'])}, and {counted} are in"
    for user in state.get("users", ()):
        given = held.get(user["id"])
        if given is None:
            yield f"{user['id']} is shown, and no client is in"
        elif not may_show(user["meta"], given) and not (turned and None in given):
            yield f"{user['id']} shows {user['meta']}, given were {given}"


def seen_leaving(history: History) -> Iterator[Violation]:
    """Nobody is seen leaving while a client of theirs is in, or is given a while to come back.

    Whatever the clocks of the servers say. (1 and 5)
    """
    for signal in history.signals:
        change = signal.change
        if change["kind"] != "left" or _turned_back(history, signal.at):
            continue
        if _was_last_in_store(history, signal) or not _who_was_in(history, change, signal.at):
            continue
        for who in _who_was_in(history, change, _latest_moment(history, signal)):
            yield Violation(
                "1 seen leaving",
                signal.at,
                f"{change['user_id']} left {change['channel']} ({change['reason']}) while {who} "
                f"was in",
            )


def _who_was_in(history: History, change: dict[str, Any], latest: float) -> list[str]:
    """The clients of whoever left that were in nevertheless, when that was done by ``latest``."""
    moment = latest - SIGNAL_SECONDS, latest
    return [
        stay.who
        for stay in history.certain.get(change["channel"], ())
        if stay.user is not None
        and stay.user == change["user_id"]
        and stay.covers(*moment)
        and not _is_excused(history, stay, *moment)
    ]


def _latest_moment(history: History, signal: Signal) -> float:
    """By when the step was done that was signalled: before those with higher revisions."""
    counter, revision = _counter_of(signal), signal.change["revision"]
    return min(
        other.at
        for other in history.signals
        if _counter_of(other) == counter and other.change["revision"] >= revision
    )


def _counter_of(signal: Signal) -> tuple[str, str]:
    return signal.change["channel"], signal.change["epoch"]


def _was_last_in_store(history: History, signal: Signal) -> bool:
    """Did one client of the user leave, or say goodbye, while a fault kept the store from knowing
    the others?"""
    key = signal.change["channel"], signal.change["user_id"] or ""
    asked = [*history.leaves.get(key, ()), *history.closings.get(key, ())]
    is_own = any(signal.at - LEAVE_SECONDS < at < signal.at for at in asked)
    return is_own and history.window_at(signal.at, signal.at) is not None


def _turned_back(history: History, at: float) -> bool:
    window = history.window_at(at, at)
    return window is not None and window.turns_back


# 2, 3 and 4: revisions


class Life(NamedTuple):
    """A counter's life: one epoch of a channel, between two times when the store turned back."""

    channel: str
    epoch: str
    era: int


def _lives(history: History) -> dict[Life, list[Signal]]:
    lives: dict[Life, list[Signal]] = defaultdict(list)
    for signal in history.signals:
        if life := _life_at(history, signal.change, signal.at):
            lives[life].append(signal)
    return lives


def _life_at(history: History, about: Any, at: float) -> Life | None:
    """The life that a change or a state belongs to; none while the store turns back."""
    if about["epoch"] is None or _turned_back(history, at):
        return None
    era = sum(1 for window in history.windows if window.turns_back and window.end < at)
    return Life(about["channel"], about["epoch"], era)


def told_twice(history: History) -> Iterator[Violation]:
    """No revision is signalled twice."""
    for life, signals in _lives(history).items():
        counts = Counter(signal.change["revision"] for signal in signals)
        for revision, count in counts.items():
            if count > 1:
                at = next(s.at for s in signals if s.change["revision"] == revision)
                yield Violation(
                    "3 twice", at, f"{life.channel}: revision {revision} was told {count} times"
                )


def told_never(history: History) -> Iterator[Violation]:
    """Every revision is signalled, unless a process died over it or lost the store's answer."""
    for life, signals in _lives(history).items():
        told = {signal.change["revision"]: signal.at for signal in signals}
        known = dict(told)
        if life.era == 0:
            known[0] = min(told.values())
        for final in history.finals:
            state = final.states.get(life.channel)
            if state and _life_at(history, state, final.at) == life:
                known.setdefault(state["revision"], final.at)
        order = sorted(known)
        for before, after in pairwise(order):
            missing = [one for one in range(before + 1, after + 1) if one not in told]
            moments = sorted([known[before], known[after]])
            if missing and not _is_forgivable(history, *moments):
                text = f"{life.channel}: nobody told of {missing}"
                yield Violation("3 never told", moments[1], text)


def _is_forgivable(history: History, start: float, end: float) -> bool:
    return any(
        window.costs_signals and window.meets(start - 1, end + 1) for window in history.windows
    )


def folds_and_states(history: History) -> Iterator[Violation]:
    """What changed adds up to what is read, by whomever; a change changes something. (2 and 4)"""
    states: dict[Life, list[Seen]] = defaultdict(list)
    for seen in history.seen:
        if life := _life_at(history, seen.state, seen.at):
            states[life].append(seen)
    for life, signals in _lives(history).items():
        for at, trouble in fold(signals, states[life], from_start=life.era == 0):
            yield Violation("4 fold", at, f"{life.channel}: {trouble}")


# 6 and 7: healing


def unhealed(history: History) -> Iterator[Violation]:
    """All agree within the time that this fault may take."""
    for at, differences in history.unhealed:
        yield Violation("6 unhealed", at, "; ".join(differences[:3]))


def diverged(history: History) -> Iterator[Violation]:
    """What a subscriber was sent adds up to what is in the store."""
    for final in history.finals:
        for difference in final.differences:
            yield Violation("6 diverged", final.at, difference)


def undelivered(history: History) -> Iterator[Violation]:
    """While nothing is wrong, every change reaches every subscriber as a diff."""
    for final in history.finals:
        if all(window.fault == "nothing" for window in history.windows if window.start < final.at):
            for missed in final.undelivered:
                yield Violation("6 undelivered", final.at, missed)


# 8: identity


def identities(history: History) -> Iterator[Violation]:
    """What a client is sent about a count-only channel has nobody's id or name in it."""
    for at, who, text in history.frames:
        if "/count/" not in text or "~" not in text:
            continue
        for form in _forms(json.loads(text[text.index("[") :])):
            if "~" in json.dumps(form):
                yield Violation("8 identity", at, f"{who} was sent {form}")


def _forms(value: Any) -> Iterator[Any]:
    """Objects about count-only channels, wherever they are."""
    if isinstance(value, dict):
        if str(value.get("channel")).startswith("/count/"):
            yield value
            return
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _forms(item)


# Whatever happens


def slow_answers(history: History) -> Iterator[Violation]:
    """A server that is there answers in time."""
    for asked, at, who in history.answers:
        window = history.window_at(asked, at)
        if at - asked > ANSWER_SECONDS and not (window and window.is_slow):
            yield Violation("0 slow", at, f"{who} waited {at - asked:.1f} s for an answer")


def errors(history: History) -> Iterator[Violation]:
    """No server logs an error; that a queue is away is Socket.IO's to say."""
    for at, who, logged in history.logged:
        is_ours = not logged["logger"].startswith(("socketio", "engineio"))
        if is_ours and logged["level"] in ("ERROR", "CRITICAL"):
            yield Violation("0 error", at, f"{who}: {logged['text'][-2000:]}")


def complaints(history: History) -> Iterator[Violation]:
    """What the stage itself saw."""
    for at, complaint in history.complaints:
        yield Violation("0 complaint", at, complaint)


RULES = (
    missing_in_states,
    ghosts_in_states,
    misplaced_in_the_end,
    seen_leaving,
    told_twice,
    told_never,
    folds_and_states,
    unhealed,
    diverged,
    undelivered,
    identities,
    slow_answers,
    errors,
    complaints,
)
