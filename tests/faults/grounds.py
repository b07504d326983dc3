"""The stores under the servers: what can be done to each, and who is in it as it is stored."""

from __future__ import annotations

import contextlib
import itertools
import signal
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import redis
import sqlalchemy as sa
from databases import Database
from processes import Redis, Sentinel
from stores import TABLES, prepared

FROZEN_SECONDS = 60.0
"""After so long a database thaws by itself, lest a run hang."""

REPLACE_ATTEMPTS = 10

Keys = set[tuple[str, str]]
"""Members: channel and client id."""


class Ground(ABC):
    """One store, begun empty and ended with `stop`."""

    name: str
    carries_events = False
    """Does the store itself bring changes to all servers?"""
    port: int
    """Where it listens, for a proxy; 0 where nothing can be put in between."""

    @abstractmethod
    def url(self, port: int) -> str:
        """For ``PRESENCE_BACKEND``: the store, asked through this port."""

    @abstractmethod
    def members(self, channels: Iterable[str]) -> Keys:
        """Who is in these channels, as it is stored."""

    @abstractmethod
    def size(self) -> int:
        """How much is stored: keys, or rows."""

    @abstractmethod
    def stop(self) -> None: ...


class ServerGround(Ground):
    """A store that is a server, to which anything can happen."""

    @abstractmethod
    def empty(self) -> None:
        """Lose everything."""

    @abstractmethod
    def tear(self, channel: str) -> None:
        """Lose a part of a channel."""

    @abstractmethod
    def restart(self) -> None:
        """Stop and start, with what it has on disk."""

    @abstractmethod
    def freeze(self) -> None: ...

    @abstractmethod
    def thaw(self) -> None: ...

    @abstractmethod
    def save(self) -> None:
        """Make the snapshot to go back to."""

    @abstractmethod
    def go_back(self) -> None:
        """Start again from the snapshot, and lose what came after it."""


class RedisGround(ServerGround):
    """A Redis that keeps its data over a restart."""

    name = "redis"
    carries_events = True

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._server = self._start(Path(self._folder.name))
        self.port = self._server.port
        self._client = self._server.client()
        self._kinds = itertools.cycle(["users", "clients", "channel"])

    @staticmethod
    def _start(folder: Path) -> Redis:
        return Redis(folder)

    def url(self, port: int) -> str:
        return f"redis://127.0.0.1:{port}/0"

    def members(self, channels: Iterable[str]) -> Keys:
        return {
            (channel, client)
            for channel in channels
            for client in self._client.hkeys(f"presence:clients:{channel}")
        }

    def size(self) -> int:
        return int(self._client.dbsize())

    def empty(self) -> None:
        self._client.flushall()

    def tear(self, channel: str) -> None:
        self._client.delete(f"presence:{next(self._kinds)}:{channel}")

    def forget_scripts(self) -> None:
        self._client.script_flush()

    def restart(self) -> None:
        self._client.shutdown(save=True)
        self.go_back()

    def freeze(self) -> None:
        self._server.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._server.send(signal.SIGCONT)

    def save(self) -> None:
        self._client.save()

    def go_back(self) -> None:
        self._server.stop()
        self._server.start()

    def stop(self) -> None:
        self._client.close()
        self._server.stop()
        self._folder.cleanup()


class SentinelGround(RedisGround):
    """A Redis with a replica, and a Sentinel that says which of the two is the master."""

    name = "sentinel"

    def __init__(self) -> None:
        super().__init__()
        self.port = 0

    @staticmethod
    def _start(folder: Path) -> Redis:
        return Sentinel(folder)

    def url(self, port: int) -> str:
        return self._server.url

    def members(self, channels: Iterable[str]) -> Keys:
        with self._master() as self._client:
            return super().members(channels)

    def _master(self) -> Any:
        with self._server.client() as client:
            _, port = client.execute_command(
                "SENTINEL", "GET-MASTER-ADDR-BY-NAME", Sentinel.SERVICE
            )
        return redis.Redis(port=int(port), decode_responses=True)

    def fail_over(self) -> None:
        assert isinstance(self._server, Sentinel)
        self._server.fail_over()


class SQLGround(Ground):
    """Tables in a database of any kind."""

    _engine: sa.Engine

    def members(self, channels: Iterable[str]) -> Keys:
        wanted = set(channels)
        with self._engine.connect() as connection:
            rows = connection.exec_driver_sql("SELECT channel, client_id FROM presence_members")
            return {(channel, client) for channel, client in rows if channel in wanted}

    def size(self) -> int:
        with self._engine.connect() as connection:
            counts = (connection.exec_driver_sql(f"SELECT count(*) FROM {t}") for t in TABLES)
            return sum(int(count.scalar_one()) for count in counts)

    def stop(self) -> None:
        self._engine.dispose()


class SQLiteGround(SQLGround):
    """A file."""

    name = "sqlite"
    port = 0

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._url = prepared(f"sqlite:///{self._folder.name}/presence.sqlite3")
        self._engine = sa.create_engine(self._url)

    def url(self, port: int) -> str:
        return self._url

    def stop(self) -> None:
        super().stop()
        self._folder.cleanup()


class DatabaseGround(SQLGround, ServerGround):
    """A new database on a server that others may use before and after."""

    def __init__(self, server: Database) -> None:
        self.name = type(server).__name__.lower()
        self._server = server
        self.port = server.port
        self._url = sa.make_url(prepared(server.new_database()))
        self._engine = sa.create_engine(
            self._url, poolclass=sa.NullPool, isolation_level="READ COMMITTED"
        )
        self._saved: dict[str, list[dict[str, Any]]] = {}

    def url(self, port: int) -> str:
        return self._url.set(port=port).render_as_string(hide_password=False)

    def empty(self) -> None:
        self._replace({})

    def _replace(self, content: dict[str, list[dict[str, Any]]]) -> None:
        """Put this in the place of everything, once no step is under way."""
        for _ in range(REPLACE_ATTEMPTS):
            # Steps take the tables in another order, and one of both may have to give up.
            with contextlib.suppress(sa.exc.OperationalError):
                self._replace_once(content)
                return
        self._replace_once(content)

    def _replace_once(self, content: dict[str, list[dict[str, Any]]]) -> None:
        with self._engine.begin() as connection:
            connection.exec_driver_sql(self._server.lock_statement(TABLES))
            for name in TABLES:
                connection.exec_driver_sql(f"DELETE FROM {name}")
                for row in content.get(name, ()):
                    table = sa.table(name, *map(sa.column, row))
                    connection.execute(sa.insert(table).values(**row))

    def tear(self, channel: str) -> None:
        lost = sa.text("DELETE FROM presence_channels WHERE name = :name")
        with self._engine.begin() as connection:
            connection.execute(lost, {"name": channel})

    def restart(self) -> None:
        self._server.stop()
        self._server.start()

    def freeze(self) -> None:
        self._server.freeze(FROZEN_SECONDS)

    def thaw(self) -> None:
        self._server.thaw()

    def save(self) -> None:
        with self._engine.connect() as connection:
            steady = connection.execution_options(isolation_level="REPEATABLE READ")
            self._saved = {
                name: [
                    dict(row) for row in steady.exec_driver_sql(f"SELECT * FROM {name}").mappings()
                ]
                for name in TABLES
            }

    def go_back(self) -> None:
        self._replace(self._saved)
        self.restart()
