"""Stores for a run: each is started on a free port, and gone afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from databases import Database, MariaDB, PostgreSQL
from processes import Redis


@contextmanager
def redis() -> Iterator[str]:
    """A Redis server, by its URL."""
    with tempfile.TemporaryDirectory() as directory:
        server = Redis(Path(directory))
        try:
            yield server.url
        finally:
            server.stop()


@contextmanager
def sqlite() -> Iterator[str]:
    """A file of SQLite, by its URL."""
    with tempfile.TemporaryDirectory() as directory:
        yield f"sqlite:///{directory}/presence.sqlite3"


@contextmanager
def database(server_class: type[Database]) -> Iterator[str]:
    """A database on a server of its own, by its URL."""
    server = server_class()
    try:
        yield server.new_database()
    finally:
        server.remove()


STORES: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "sqlite": sqlite,
    "postgresql": partial(database, PostgreSQL),
    "mariadb": partial(database, MariaDB),
    "redis": redis,
}
