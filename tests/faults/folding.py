"""The law of states: one at a revision is the fold of all changes up to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .history import Seen, Signal

User = tuple[Any, Any]
"""Info and meta."""


@dataclass
class Picture:
    """Who is in, in the order of entering."""

    users: dict[str, User]
    anonymous: int

    def forms(self) -> list[Any]:
        return [[user, *shown] for user, shown in self.users.items()]


def fold(
    signals: Iterable[Signal], seen: Iterable[Seen], *, from_start: bool
) -> Iterator[tuple[float, str]]:
    """Where changes and states of one epoch contradict one another: when, and how.

    A change that nobody signalled is passed over: the next state says what it was.

    :param from_start: is everything known since revision 1?
    """
    changes = {signal.change["revision"]: signal for signal in signals}
    states: dict[int, list[Seen]] = {}
    for one in seen:
        states.setdefault(one.state["revision"], []).append(one)
    picture = Picture({}, 0) if from_start else None
    for revision in range(1, max([0, *changes, *states]) + 1):
        if revision in changes:
            yield from _apply(picture, changes[revision])
        else:
            picture = None
        for one in states.get(revision, ()):
            found = _picture_of(one.state)
            if picture is not None:
                yield from _compare(picture, one, found)
            elif found is not None:
                picture = found


def _picture_of(state: Any) -> Picture | None:
    if "users" not in state:
        return None
    users = {user["id"]: (user["info"], user["meta"]) for user in state["users"]}
    return Picture(users, state["anonymous"])


def _compare(picture: Picture, one: Seen, found: Picture | None) -> Iterator[tuple[float, str]]:
    counts = (one.state["count"], one.state["anonymous"])
    if counts != (len(picture.users), picture.anonymous):
        yield one.at, f"at {one.state['revision']} {one.who} is shown {counts} of {picture}"
    elif found is not None and found.forms() != picture.forms():
        yield one.at, f"at {one.state['revision']} {one.who} is shown {found} instead of {picture}"


def _apply(picture: Picture | None, signal: Signal) -> Iterator[tuple[float, str]]:
    """Have a picture changed, where there is one, and say what does not fit."""
    if picture is None:
        return
    change = signal.change
    user, shown = change["user_id"], (change["info"], change["meta"])
    known = picture.users.get(user)
    fits: Sequence[bool]
    if user is None:
        picture.anonymous += 1 if change["kind"] == "entered" else -1
        fits = [change["kind"] != "updated", picture.anonymous >= 0]
    elif change["kind"] == "left":
        picture.users.pop(user, None)
        fits = [known == shown]
    else:
        picture.users[user] = shown
        fits = [(known is None) == (change["kind"] == "entered"), known != shown]
    counts = (change["count"], change["anonymous"])
    if not all(fits) or counts != (len(picture.users), picture.anonymous):
        yield signal.at, f"{change} does not fit {picture}"
