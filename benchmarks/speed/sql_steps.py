"""Entering and leaving on PostgreSQL and SQLite, against django-channels-presence on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import sqlalchemy as sa

from flask_presence.backends.sqlalchemy import SQLAlchemyBackend

from ..stores import STORES
from . import django_peer
from .figures import Line
from .host import server_core
from .redis_steps import CLIENT, EPOCH, ROOM, USER, WORKER, member
from .rounds import Step, one_round, pairs


@contextmanager
def database(name: str) -> Iterator[str]:
    """A store on the servers' core, by its URL."""
    with server_core(), STORES[name]() as url:
        yield url


@contextmanager
def sql_backend(url: str) -> Iterator[SQLAlchemyBackend]:
    """A backend with tables and a lease of its worker."""
    backend = SQLAlchemyBackend(sa.create_engine(url))
    backend.prepare()
    backend.renew(WORKER, 3600, create=True)
    yield backend
    backend.close()


def measure(rounds: int, seconds: float) -> list[Line]:
    """Steps per second from one client, one after another."""
    with ExitStack() as stack:
        server = stack.enter_context(database("postgresql"))
        models = django_peer.configure(stack.enter_context(database_beside(server)))
        backends = {
            "PostgreSQL": stack.enter_context(sql_backend(server)),
            "SQLite": stack.enter_context(sql_backend(stack.enter_context(database("sqlite")))),
        }
        contenders = {name: _steps(backend) for name, backend in backends.items()}
        contenders["django"] = _django_steps(models)
        found = [one_round(contenders, seconds) for _ in range(rounds)]
    peers = ["`add`", "`remove`"]
    return [
        Line(
            f"`{verb}`, {name}",
            f"django-channels-presence {peers[index]}, PostgreSQL",
            "/s",
            "times as many",
            goal,
            pairs(found, name, "django", index),
        )
        for name, goal in (("PostgreSQL", 2.2), ("SQLite", 5.0))
        for index, verb in enumerate(("enter", "leave"))
    ]


@contextmanager
def database_beside(url: str) -> Iterator[str]:
    """Another database on the same server."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE peer")
    yield sa.make_url(url).set(database="peer").render_as_string()


def _steps(backend: SQLAlchemyBackend) -> Sequence[Step]:
    def leave(number: int) -> None:
        backend.leave(ROOM, [f"{CLIENT}{number}"], user_id=f"{USER}{number}")

    return [lambda n: backend.enter(member(n), epoch=EPOCH, worker=WORKER), leave]


def _django_steps(models: Any) -> Sequence[Step]:
    users = django_peer.add_users(100)
    rooms = models.Room.objects
    return [
        lambda n: rooms.add("room", f"{CLIENT}{n}", users[n]),
        lambda n: rooms.remove("room", f"{CLIENT}{n}"),
    ]
