"""Ending who is due, and finding that nobody is, against ``prune_presences``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

from flask_presence.backends.base import Backend

from . import django_peer
from .figures import Line
from .filling import fill
from .redis_steps import redis_backend
from .rounds import seconds_of
from .sql_steps import database, database_beside, sql_backend

MEMBERS = 10_000


def measure(rounds: int, seconds: float) -> list[Line]:
    """Seconds for each prune of a whole store."""
    with ExitStack() as stack:
        url = stack.enter_context(database("postgresql"))
        models = django_peer.configure(stack.enter_context(database_beside(url)))
        backends: dict[str, Backend] = {
            "PostgreSQL": stack.enter_context(sql_backend(url)),
            "SQLite": stack.enter_context(sql_backend(stack.enter_context(database("sqlite")))),
            "Redis": stack.enter_context(redis_backend()),
        }
        due = [_due(models, backends) for _ in range(rounds)]
        _prepare(models, backends)
        quiet = [_quiet(models, backends) for _ in range(rounds)]
    return [
        Line(
            f"prune, {what}, {name}",
            "`prune_presences`, PostgreSQL",
            "ms",
            "times as fast",
            goal,
            [(one[name], one["django"]) for one in found],
        )
        for what, found, goal in (
            ("nothing due, 10,000 members in 1,000 channels", quiet, 300.0),
            ("10,000 due in 100 channels", due, 5.0),
        )
        for name in backends
    ]


def prune(backend: Backend) -> int:
    """Prune as a process does, until nothing is due: how many left."""
    ended, more = 0, True
    while more:
        changes, more = backend.prune()
        ended += len(changes)
    return ended


def _due(models: Any, backends: Mapping[str, Backend]) -> dict[str, float]:
    """Milliseconds for 10,000 who are due in 100 channels."""
    _fill_django(models, 100, timedelta(hours=1))
    for backend in backends.values():
        fill(backend, MEMBERS, channels=100, timeout=0.001)
    took: dict[str, float] = {}
    for name, backend in backends.items():
        ended: list[int] = []
        took[name] = 1000 * seconds_of(lambda b=backend, e=ended: e.append(prune(b)))  # type: ignore[misc]
        assert ended == [MEMBERS], (name, ended)
    took["django"] = 1000 * seconds_of(models.Room.objects.prune_presences)
    assert not models.Presence.objects.exists()
    return took


def _prepare(models: Any, backends: Mapping[str, Backend]) -> None:
    _fill_django(models, 1000, timedelta())
    for backend in backends.values():
        fill(backend, MEMBERS, channels=1000, timeout=3600)


def _quiet(models: Any, backends: Mapping[str, Backend]) -> dict[str, float]:
    """Milliseconds where nobody is due."""
    took = {}
    for name, backend in backends.items():
        took[name] = 1000 * min(seconds_of(lambda b=backend: prune(b)) for _ in range(3))  # type: ignore[misc]
    took["django"] = 1000 * seconds_of(models.Room.objects.prune_presences)
    return took


def _fill_django(models: Any, rooms: int, age: timedelta) -> None:
    from django.utils.timezone import now

    models.Room.objects.all().delete()
    made = models.Room.objects.bulk_create(
        models.Room(channel_name=f"room{number}") for number in range(rooms)
    )
    models.Presence.objects.bulk_create(
        models.Presence(room=made[number % rooms], channel_name=f"c{number}", last_seen=now() - age)
        for number in range(MEMBERS)
    )
