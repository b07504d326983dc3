"""Holds what the servers announced against the store, and against what the clients believe."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from flask_presence.delivery.wire import state_form
from flask_presence.model import Change, State
from flask_presence.testing.fold import fold_changes

from .actors import Held

Signal = Mapping[str, Any]


def missing(signals: Iterable[Signal], states: Mapping[str, Any]) -> list[str]:
    """Revisions of the store that no process announced."""
    told = {_place(signal) for signal in signals}
    return [
        f"{channel}: nobody announced revision {revision} of {state['epoch']}"
        for channel, state in states.items()
        for revision in range(1, state["revision"] + 1)
        if (channel, state["epoch"], revision) not in told
    ]


def twice(signals: Iterable[Signal]) -> list[str]:
    """Revisions that were announced more than once."""
    times = Counter(map(_place, signals))
    return [f"{place} was announced {count} times" for place, count in times.items() if count > 1]


def folded(
    signals: Iterable[Signal], channels: Iterable[str]
) -> tuple[dict[str, State], list[str]]:
    """The states that the changes add up to, and where they do not fit one another."""
    changes: dict[str, list[Change]] = {channel: [] for channel in channels}
    for signal in signals:
        changes.setdefault(signal["channel"], []).append(Change(**signal))
    states, found = {}, []
    for channel, some in changes.items():
        try:
            states[channel] = fold_changes(channel, some)
        except AssertionError as error:
            found.append(f"{channel}: the changes do not fit one another: {error}")
    return states, found


def contradicting(folds: Mapping[str, State], states: Mapping[str, Any]) -> list[str]:
    """Channels whose changes add up to something else than what the store has."""
    return [
        f"{channel}: the changes add up to {form}, the store has {states[channel]}"
        for channel, state in folds.items()
        if (form := state_form(state, count_only="count_only" in states[channel]))
        != states[channel]
    ]


def miscounted(held: Iterable[Held], states: Mapping[str, Any]) -> list[str]:
    """Channels whose counts are not those of the clients that believe to be in."""
    users: dict[str, set[str]] = defaultdict(set)
    anonymous: Counter[str] = Counter()
    for client in held:
        if client.user is None:
            anonymous[client.channel] += 1
        else:
            users[client.channel].add(client.user)
    return [
        f"{channel}: the store counts {stored}, the clients {seen}"
        for channel, state in states.items()
        if (stored := (state["count"], state["anonymous"]))
        != (seen := (len(users[channel]), anonymous[channel]))
    ]


def misplaced(held: Iterable[Held], folds: Mapping[str, State]) -> list[str]:
    """Users who are in without a client, not in with one, or with a meta that none gave."""
    clients: dict[str, dict[str, list[Held]]] = defaultdict(lambda: defaultdict(list))
    for client in held:
        if client.user is not None:
            clients[client.channel][client.user].append(client)
    return [
        f"{channel}: {trouble}"
        for channel, state in folds.items()
        for trouble in _misplaced_in(state, clients[channel])
    ]


def _misplaced_in(state: State, clients: dict[str, list[Held]]) -> Iterable[str]:
    metas = {user.id: user.meta for user in state.users}
    for user in metas.keys() - clients.keys():
        yield f"{user} is in, though no client is"
    for user in clients.keys() - metas.keys():
        yield f"{user} is not in, though these are: {clients[user]}"
    for user in metas.keys() & clients.keys():
        given = [client.meta for client in clients[user] if client.meta is not None] or [{}]
        if metas[user] not in given:
            yield f"{user} shows {metas[user]}, given were: {clients[user]}"


def _place(signal: Signal) -> tuple[str, str, int]:
    return signal["channel"], signal["epoch"], signal["revision"]
