"""Every kind of store that is tested: how to get an empty one, and how to do it harm."""

from __future__ import annotations

import signal
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from itertools import count
from pathlib import Path

import sqlalchemy as sa
from databases import Database
from processes import Redis
from redis.client import Redis as Client

from flask_presence.backends.base import Backend
from flask_presence.backends.memory import MemoryBackend
from flask_presence.backends.redis import RedisBackend, connect
from flask_presence.backends.sqlalchemy import SQLAlchemyBackend, Tables

Clock = Callable[[], float]

STORES = ["memory", "sqlite", "postgresql", "mariadb", "redis", "sentinel", "valkey"]
"""Each names a fixture ``…_store`` in `conftest`."""


class Store(ABC):
    """One kind of store."""

    @abstractmethod
    def make(self, clock: Clock) -> Backend:
        """A backend on an empty store; the one that was made before is used no more."""

    @abstractmethod
    def new_url(self) -> str:
        """For `PRESENCE_BACKEND`: the URL of an empty store that no other test uses."""

    @abstractmethod
    def lose_lease(self, backend: Backend, worker: str) -> None:
        """Delete a worker's lease behind the backend's back."""


class SharedStore(Store):
    """One that other processes see, and can harm."""

    @abstractmethod
    @contextmanager
    def locked(self, url: str) -> Iterator[None]:
        """Somebody else keeps presence from reading and writing."""

    @abstractmethod
    def lose_everything(self, url: str) -> None:
        """All data is gone."""


class MemoryStore(Store):
    def make(self, clock: Clock) -> Backend:
        return MemoryBackend(clock=clock)

    def new_url(self) -> str:
        return "memory://"

    def lose_lease(self, backend: Backend, worker: str) -> None:
        assert isinstance(backend, MemoryBackend)
        del backend._leases[worker]


class SQLStore(SharedStore):
    def lose_lease(self, backend: Backend, worker: str) -> None:
        assert isinstance(backend, SQLAlchemyBackend)
        workers = backend.tables.workers
        with backend.engine.begin() as connection:
            connection.execute(sa.delete(workers).where(workers.c.id == worker))


def prepared(url: str) -> str:
    """The same URL, of a database that has the tables."""
    backend = SQLAlchemyBackend(sa.create_engine(url))
    backend.prepare()
    backend.close()
    return url


class SQLiteStore(SQLStore):
    """A new file each time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count(1)

    def new_url(self) -> str:
        return f"sqlite:///{self._folder}/{next(self._numbers)}.sqlite3"

    def make(self, clock: Clock) -> Backend:
        return SQLAlchemyBackend(sa.create_engine(self.new_url()), clock=clock)

    @contextmanager
    def locked(self, url: str) -> Iterator[None]:
        with closing(sqlite3.connect(_file(url), isolation_level=None)) as intruder:
            intruder.execute("BEGIN EXCLUSIVE")
            yield
            intruder.execute("ROLLBACK")

    def lose_everything(self, url: str) -> None:
        """Delete the file."""
        path = _file(url)
        for found in path.parent.glob(f"{path.name}*"):
            found.unlink()


def _file(url: str) -> Path:
    return Path(sa.make_url(url).database or "")


class ServerStore(SQLStore):
    """A database server. `make` empties one database and uses its engine again, for which
    SQLAlchemy has compiled each statement already."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._metadata = sa.MetaData()

    def new_url(self) -> str:
        return prepared(self.database.new_database())

    @cached_property
    def _engine(self) -> sa.Engine:
        return sa.create_engine(self.new_url())

    def make(self, clock: Clock) -> Backend:
        backend = SQLAlchemyBackend(self._engine, metadata=self._metadata, clock=clock)
        with self._engine.begin() as connection:
            _empty(connection)
        return backend

    @contextmanager
    def locked(self, url: str) -> Iterator[None]:
        with self._visiting(url) as connection:
            connection.exec_driver_sql(self.database.lock_statement(TABLES))
            yield

    def lose_everything(self, url: str) -> None:
        with self._visiting(url) as connection:
            _empty(connection)

    @contextmanager
    def _visiting(self, url: str) -> Iterator[sa.Connection]:
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            yield connection


TABLES = [table.name for table in Tables(sa.MetaData()).all]


def _empty(connection: sa.Connection) -> None:
    for table in TABLES:
        connection.exec_driver_sql(f"DELETE FROM {table}")


class RedisStore(SharedStore):
    """A Redis. Each store is a database of its own; `make` takes the first."""

    DATABASES = ("--databases", 1000)

    def __init__(self, server: Redis) -> None:
        self._server = server
        self._numbers = count(1)

    def _url(self, number: int) -> str:
        return self._server.url.rpartition("/")[0] + f"/{number}"

    def new_url(self) -> str:
        return self._url(next(self._numbers))

    def make(self, clock: Clock) -> Backend:
        client = connect(self._url(0))
        client.flushdb()
        return RedisBackend(client, clock=clock)

    def lose_lease(self, backend: Backend, worker: str) -> None:
        assert isinstance(backend, RedisBackend)
        backend.server.client.hdel("presence:workers", worker)

    @contextmanager
    def locked(self, url: str) -> Iterator[None]:
        """Freeze the server."""
        self._server.send(signal.SIGSTOP)
        yield
        self._server.send(signal.SIGCONT)

    def lose_everything(self, url: str) -> None:
        client: Client = connect(url)
        with client:
            client.flushdb()
