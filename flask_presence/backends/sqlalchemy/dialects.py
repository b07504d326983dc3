"""What differs between the databases: the clock, how a step begins, and what a lock is."""

from __future__ import annotations

import itertools
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sqlalchemy import Engine, Select, Table, event, exc, func
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Connection

from .limits import limit_reading
from .run import Run
from .transaction import Transaction

BUSY_SECONDS = 2.0
"""How long a step waits for another one's lock, or for an answer, before it gives up."""

SILENT_SECONDS = 1.0
"""For how long nobody asks a database that did not answer."""

CONNECT_LIMITS = {
    "psycopg": {"connect_timeout": 2},
    "psycopg2": {"connect_timeout": 2},
    "pymysql": {"connect_timeout": 2, "read_timeout": 2, "write_timeout": 2},
    "mysqldb": {"connect_timeout": 2, "read_timeout": 2, "write_timeout": 2},
}
"""What a driver is told about patience where the app says nothing; in whole seconds."""

_connecting: ContextVar[Dialect | None] = ContextVar("_connecting", default=None)
"""Whose connection is being made here: an engine may be the app's own."""


def connect_patiently(dialect: Any, record: Any, args: Any, options: Any) -> Any:
    """Make a connection of ours as any other, but do not wait for ever.

    Listens for ``do_connect`` on the engine whose connections they are.
    """
    ours = _connecting.get()
    if ours is None:
        return None
    ours.refuse_while_silent()
    listeners = iter(dialect.dispatch.do_connect)
    for listener in itertools.dropwhile(lambda found: found is not connect_patiently, listeners):
        # The app's own that come after this one, such as what fetches a password.
        if listener is not connect_patiently:
            made = listener(dialect, record, args, options)
            if made is not None:
                return made
    return dialect.connect(*args, **CONNECT_LIMITS.get(dialect.driver, {}) | options)


class Dialect:
    """PostgreSQL's way, which is the most usual one; the others say what they do otherwise."""

    clock = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"
    statement_clock = "CAST(EXTRACT(EPOCH FROM statement_timestamp()) * 1000 AS BIGINT)"
    """One moment for all of a statement, so that indexes and joins can serve it."""

    greatest, least = "greatest", "least"
    retried: tuple[str | int, ...] = ("40001", "40P01", "26000")
    locks_by_upsert = True
    """Must the first statement on a channel be an insert, lest two steps lock each other out?"""

    upsert_returns = True
    """Can that statement tell the row as well?"""

    begin = "BEGIN ISOLATION LEVEL READ COMMITTED"

    session: tuple[str, ...] = (
        "SELECT set_config(name, value, false) FROM pg_settings JOIN (VALUES "
        "('lock_timeout', '1500'), ('statement_timeout', '2000'), "
        "('idle_in_transaction_session_timeout', '5000')) ours (name, value) USING (name) "
        "WHERE setting = '0'",
    )
    """What a connection is told when it is made: bounds for its waiting, where nobody has set one;
    a process that is frozen keeps no lock."""

    uptime: str = (
        "SELECT 'uptime', EXTRACT(EPOCH FROM clock_timestamp() - pg_postmaster_start_time())"
    )
    """A row with, last, how many seconds ago the server was started."""

    _insert: Callable[[Table], Any] = staticmethod(postgresql.insert)

    def __init__(self) -> None:
        self.server_run = Run()
        self._silent_until = float("-inf")
        self._pipeline: type[Transaction] | None = None
        """What a step is, where the driver takes many statements at once."""

    def after_fork(self) -> None:
        """Let go of locks that a thread of the parent process held."""

    def prepare(self, engine: Engine) -> None:
        """Set up the engine's connections, before the first one is made."""
        self._pipeline = _pipeline_of(engine)
        event.listen(engine, "do_connect", connect_patiently)
        event.listen(engine, "handle_error", self._note_silence)

        @event.listens_for(engine, "connect")
        def begin(connection: Any, record: Any) -> None:
            limit_reading(connection, BUSY_SECONDS)
            cursor = connection.cursor()
            for statement in self.session:
                cursor.execute(statement)
            cursor.execute(self.uptime)
            self.server_run.note(float(cursor.fetchone()[-1]))
            cursor.close()
            connection.commit()

    def beside(self, engine: Engine) -> Engine:
        """The same database by connections of its own, for what must not wait until others are
        done with theirs."""
        return Engine(engine.pool.recreate(), engine.dialect, engine.url, hide_parameters=True)

    def _note_silence(self, context: Any) -> None:
        message = str(context.original_exception)
        if "timed out" in message or "timeout expired" in message:
            self._silent_until = time.monotonic() + SILENT_SECONDS
            if context.is_pre_ping:
                # Nothing would answer a new connection either.
                context.is_disconnect = False

    def refuse_while_silent(self) -> None:
        if time.monotonic() < self._silent_until:
            raise exc.TimeoutError("The database did not answer just now.")

    @contextmanager
    def _connect(self, engine: Engine) -> Iterator[Connection]:
        self.refuse_while_silent()
        token = _connecting.set(self)
        try:
            connection = engine.connect()
        finally:
            _connecting.reset(token)
        with connection:
            yield connection

    @contextmanager
    def writing(self, engine: Engine) -> Iterator[Connection]:
        """A transaction that commits at the end."""
        committed = engine.execution_options(isolation_level="READ COMMITTED")
        with self._connect(committed) as connection, connection.begin():
            yield connection

    @contextmanager
    def reading(self, engine: Engine) -> Iterator[Connection]:
        """A connection on which each statement stands for itself."""
        with self._connect(engine.execution_options(isolation_level="AUTOCOMMIT")) as connection:
            yield connection

    @contextmanager
    def asking(self, engine: Engine) -> Iterator[Transaction]:
        """The same as `reading`, for questions that take one round trip together where they can."""
        if self._pipeline is None:
            with self.reading(engine) as connection:
                yield Transaction(connection)
        else:
            with self._connect(engine) as connection:
                yield self._pipeline(connection)

    @contextmanager
    def stepping(self, engine: Engine) -> Iterator[Transaction]:
        """A transaction like that of `writing`, for a step."""
        if self._pipeline is None:
            with self.writing(engine) as connection, Transaction(connection) as transaction:
                yield transaction
        else:
            with (
                self._connect(engine) as connection,
                self._pipeline(connection, self.begin, "COMMIT") as transaction,
            ):
                yield transaction

    def lock_row(self, select: Select[Any]) -> Select[Any]:
        """Keep all others from the rows until the step is over."""
        return select.with_for_update()

    def upsert(self, table: Table, key: str) -> Any:
        """An insert that changes nothing where there is the row, and locks it if rows can be."""
        insert = postgresql.insert(table)
        return insert.on_conflict_do_update(
            index_elements=[key], set_={key: getattr(insert.excluded, key)}
        )

    def upsert_latest(self, table: Table, key: str, value: str) -> Any:
        """An insert that raises the value, where there is the row, to the new one."""
        insert = self._insert(table)
        excluded = insert.excluded[value]
        return insert.on_conflict_do_update(
            index_elements=[key], set_={value: excluded}, where=table.c[value] < excluded
        )

    def lock_lease(self, select: Select[Any]) -> Select[Any]:
        """Keep the lease from being ended until the step is over; it may be renewed."""
        return select.with_for_update(read=True, key_share=True)

    def is_missing_table(self, error: exc.DBAPIError) -> bool:
        return getattr(error.orig, "sqlstate", None) == "42P01"

    def is_transient(self, error: exc.DBAPIError) -> bool:
        """Is this a deadlock, or the like, that running the step again cures?"""
        return getattr(error.orig, "sqlstate", None) in self.retried


def _pipeline_of(engine: Engine) -> type[Transaction] | None:
    if engine.dialect.driver != "psycopg":
        return None
    from psycopg import Pipeline as Supported

    from .pipeline import Pipeline

    return Pipeline if Supported.is_supported() else None


class MySQLDialect(Dialect):
    """Its drivers ask the server to change the isolation level, and once more to change it back,
    where an error would come when all is done: so every connection has the one level for good."""

    clock = "CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000 AS SIGNED)"
    statement_clock = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000"
    retried = (1020, 1205, 1213)
    upsert_returns = False
    # In universal time: a local clock has one hour of autumn twice.
    session = (
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "SET SESSION time_zone = '+00:00', /*M!100300 idle_transaction_timeout = 5, */ "
        "innodb_lock_wait_timeout = LEAST(@@innodb_lock_wait_timeout, 1), "
        "lock_wait_timeout = LEAST(@@lock_wait_timeout, 1)",
    )

    uptime = "SHOW GLOBAL STATUS LIKE 'Uptime'"

    @contextmanager
    def writing(self, engine: Engine) -> Iterator[Connection]:
        with self._connect(engine) as connection, connection.begin():
            yield connection

    reading = writing
    """Where reads are of what is committed, each statement stands for itself all the same."""

    def upsert(self, table: Table, key: str) -> Any:
        insert = mysql.insert(table)
        return insert.on_duplicate_key_update(**{key: getattr(insert.inserted, key)})

    def upsert_latest(self, table: Table, key: str, value: str) -> Any:
        insert = mysql.insert(table)
        latest = func.greatest(table.c[value], insert.inserted[value])
        return insert.on_duplicate_key_update({value: latest})

    def lock_lease(self, select: Select[Any]) -> Select[Any]:
        return select.with_for_update(read=True)

    def is_missing_table(self, error: exc.DBAPIError) -> bool:
        return _number(error) == 1146

    def is_transient(self, error: exc.DBAPIError) -> bool:
        return _number(error) in self.retried


def _number(error: exc.DBAPIError) -> int | None:
    number, *_ = getattr(error.orig, "args", None) or (None,)
    return number


class SQLiteDialect(Dialect):
    """One writer at a time: in this process by a lock, which does not poll, and among processes by
    ``BEGIN IMMEDIATE``."""

    clock = "CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)"
    statement_clock = clock
    greatest, least = "max", "min"
    locks_by_upsert = False
    begin = "BEGIN IMMEDIATE"
    _insert = staticmethod(sqlite.insert)

    def __init__(self) -> None:
        super().__init__()
        self._writer = threading.Lock()
        _sqlite_dialects.add(self)

    def before_fork(self) -> None:
        """Wait for the write under way: a child would inherit SQLite's lock, and never end it."""
        self._writer.acquire()

    def after_fork_in_parent(self) -> None:
        self._writer.release()

    def after_fork(self) -> None:
        self._writer = threading.Lock()

    def prepare(self, engine: Engine) -> None:
        path = engine.url.database or ""

        @event.listens_for(engine, "connect")
        def set_up(connection: Any, record: Any) -> None:
            # Python's own transactions begin too late for read-modify-write: ours begin below.
            connection.isolation_level = None
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
            _write_ahead(cursor)
            cursor.execute("PRAGMA synchronous = NORMAL")
            cursor.close()
            record.info["file"] = _file(path)

        @event.listens_for(engine, "checkout")
        def check_file(connection: Any, record: Any, proxy: Any) -> None:
            # SQLite would go on writing to a file that was deleted or replaced.
            if record.info.get("file") != _file(path):
                raise exc.DisconnectionError("The database file was replaced.")

        @event.listens_for(engine, "begin")
        def begin_writing(connection: Connection) -> None:
            if connection.get_execution_options().get("presence_writes"):
                connection.exec_driver_sql(self.begin)

    @contextmanager
    def writing(self, engine: Engine) -> Iterator[Connection]:
        with self._alone():
            connection = engine.execution_options(presence_writes=True).connect()
            with connection, connection.begin():
                yield connection

    def beside(self, engine: Engine) -> Engine:
        """There is one writer at a time, whatever it is connected by."""
        return engine

    @contextmanager
    def stepping(self, engine: Engine) -> Iterator[Transaction]:
        with (
            self._alone(),
            engine.connect() as connection,
            Transaction(connection, self.begin, "COMMIT") as transaction,
        ):
            yield transaction

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._writer.acquire(timeout=BUSY_SECONDS):
            raise exc.TimeoutError("The database is busy.")
        try:
            yield
        finally:
            self._writer.release()

    @contextmanager
    def reading(self, engine: Engine) -> Iterator[Connection]:
        with engine.connect() as connection:
            yield connection

    def upsert(self, table: Table, key: str) -> Any:
        return sqlite.insert(table).on_conflict_do_nothing(index_elements=[key])

    def lock_lease(self, select: Select[Any]) -> Select[Any]:
        return select

    def is_missing_table(self, error: exc.DBAPIError) -> bool:
        return "no such table" in str(error.orig)

    def is_transient(self, error: exc.DBAPIError) -> bool:
        return False


def _write_ahead(cursor: Any) -> None:
    """Have the file written ahead, as it stays once it is.

    Where two turn a new file to that at once, each would wait for the other: SQLite refuses one of
    them without a wait.
    """
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


_sqlite_dialects: weakref.WeakSet[SQLiteDialect] = weakref.WeakSet()


_forking: list[SQLiteDialect] = []


def _before_fork() -> None:
    _forking[:] = _sqlite_dialects
    for dialect in _forking:
        dialect.before_fork()


def _after_fork_in_parent() -> None:
    for dialect in _forking:
        dialect.after_fork_in_parent()
    _forking.clear()


def _after_fork_in_child() -> None:
    for dialect in _forking:
        dialect.after_fork()
    _forking.clear()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)


def _file(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


_dialects: weakref.WeakKeyDictionary[Engine, Dialect] = weakref.WeakKeyDictionary()


def dialect_of(engine: Engine) -> Dialect:
    """The dialect for this engine, whose connections it has set up.

    :raises ValueError: there is none; it names those there are.
    """
    if engine not in _dialects:
        dialect = _make_dialect(engine.dialect.name)
        dialect.prepare(engine)
        _dialects[engine] = dialect
    return _dialects[engine]


def _make_dialect(name: str) -> Dialect:
    if name == "sqlite":
        return SQLiteDialect()
    if name == "postgresql":
        return Dialect()
    if name in ("mysql", "mariadb"):
        return MySQLDialect()
    raise ValueError(
        f"PRESENCE_BACKEND: presence works on SQLite, PostgreSQL and MariaDB, not on {name}."
    )
