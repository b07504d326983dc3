"""PostgreSQL and MariaDB: what many writers, a restart and a freeze do to presence."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa
import statements
from crowd import Asker, Background, Crowd, Watcher
from databases import Database
from flask import Flask
from flask_socketio import SocketIO
from flask_sqlalchemy import SQLAlchemy
from stores import ServerStore
from wire import Wire, eventually

from flask_presence import Presence
from flask_presence.backends.base import Backend
from flask_presence.backends.sqlalchemy import SQLAlchemyBackend, dialects
from flask_presence.backends.sqlalchemy import database as database_module
from flask_presence.backends.sqlalchemy.run import TOLERANCE
from flask_presence.cli import presence_commands
from flask_presence.errors import BackendUnavailable
from flask_presence.model import Change, Member

ROOM = "/room/1"
QUICK = {
    "PRESENCE_WORKER_TIMEOUT": 2,
    "PRESENCE_PRUNE_INTERVAL": 0.5,
    "PRESENCE_LEAVE_GRACE": 1,
    "PRESENCE_RATE_LIMIT": None,
}
THREADS = 8

OpenBackend = Callable[[], SQLAlchemyBackend]


@pytest.fixture(params=["postgresql", "mariadb"])
def store(request: pytest.FixtureRequest) -> ServerStore:
    store: ServerStore = request.getfixturevalue(f"{request.param}_store")
    return store


@pytest.fixture
def database(store: ServerStore) -> Iterator[Database]:
    yield store.database
    store.database.thaw()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the backend wait for whatever it takes, as with a driver that has no limits."""
    monkeypatch.setattr(dialects.Dialect, "session", ("SET deadlock_timeout = '2s'",))
    isolation, _ = dialects.MySQLDialect.session
    monkeypatch.setattr(dialects.MySQLDialect, "session", (isolation,))
    monkeypatch.setattr(dialects, "BUSY_SECONDS", 60)
    monkeypatch.setattr(dialects, "CONNECT_LIMITS", {})
    monkeypatch.setattr(database_module, "RETRY_SECONDS", 60)


@pytest.fixture
def open_backend(store: ServerStore, make_app: Any) -> Iterator[OpenBackend]:
    """Opens backends as an app does, all on one new database."""
    url = store.new_url()
    backends: list[SQLAlchemyBackend] = []

    def open_one() -> SQLAlchemyBackend:
        app, _ = make_app(PRESENCE_BACKEND=url, PRESENCE_WORKER_TIMEOUT=3)
        backends.append(app.extensions["presence"].backend)
        return backends[-1]

    yield open_one
    for backend in backends:
        backend.close()


@pytest.fixture
def backend(open_backend: OpenBackend) -> SQLAlchemyBackend:
    return open_backend()


@pytest.fixture
def beside_an_app(store: ServerStore, tmp_path: Path) -> Iterator[SQLAlchemyBackend]:
    """A backend on the database of an app that says nothing about patience."""
    app = Flask(__name__, instance_path=str(tmp_path))
    app.config.update(SQLALCHEMY_DATABASE_URI=store.new_url(), PRESENCE_WORKER_TIMEOUT=3)
    SocketIO(app, async_mode="threading")
    db = SQLAlchemy(app)
    Presence(app)
    backend = app.extensions["presence"].backend
    yield backend
    app.extensions["presence"].stop()
    backend.close()
    with app.app_context():
        db.engine.dispose()


@pytest.fixture(params=["backend", "beside_an_app"])
def either(request: pytest.FixtureRequest) -> SQLAlchemyBackend:
    """On an engine of its own, or on the app's database."""
    backend: SQLAlchemyBackend = request.getfixturevalue(request.param)
    return backend


def open_at(make_app: Any, url: sa.URL) -> Any:
    app, _ = make_app(PRESENCE_BACKEND=url.render_as_string(hide_password=False))
    return app.extensions["presence"].backend


def enter(backend: Backend, client: str = "c1", **options: Any) -> list[Change]:
    channel = options.pop("channel", ROOM)
    options = {"timeout": 60} | options if "worker" not in options else options
    return backend.enter(Member(channel, client, f"user-{client}"), epoch="e", **options)


@contextmanager
def intruding(backend: SQLAlchemyBackend) -> Iterator[sa.Connection]:
    """Somebody else's transaction."""
    engine = sa.create_engine(backend.engine.url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        yield connection


def lock_row(connection: sa.Connection, table: sa.Table) -> None:
    """Lock the only row of a table."""
    assert len(connection.execute(sa.select(table).with_for_update()).all()) == 1


def await_waiting(database: Database) -> None:
    """Await a step that waits for a lock."""
    with database.administering() as connection:
        eventually(lambda: connection.exec_driver_sql(database.waiting).scalar())


# Many writers


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("channels", [1, 3])
def test_many_writers_make_every_revision_once_and_meet_no_error(
    backend: SQLAlchemyBackend, channels: int
) -> None:
    barrier = threading.Barrier(THREADS)
    backend.renew("w1", 600, create=True)

    def come_and_go(number: int) -> list[Change]:
        barrier.wait()
        changes: list[Change] = []
        for turn in range(50):
            channel = f"/room/{(number + turn) % channels}"
            changes += enter(backend, f"c{number}", channel=channel, worker="w1")
            changes += backend.leave(channel, [f"c{number}"])
        return changes

    with ThreadPoolExecutor(THREADS) as pool:
        changes = [change for found in pool.map(come_and_go, range(THREADS)) for change in found]

    for number in range(channels):
        of_one = [change for change in changes if change.channel == f"/room/{number}"]
        assert sorted(change.revision for change in of_one) == list(range(1, len(of_one) + 1))
    assert len(changes) == THREADS * 100


@pytest.mark.usefixtures("patient")
def test_a_step_that_loses_a_deadlock_is_run_again(
    backend: SQLAlchemyBackend, database: Database
) -> None:
    backend.renew("w1", 60, create=True)
    enter(backend, "first")
    deadlocks: list[Any] = []
    sa.event.listen(backend.engine, "handle_error", deadlocks.append)

    with ThreadPoolExecutor(1) as pool, intruding(backend) as intruder:
        make_it_the_survivor(intruder, backend)
        lock_row(intruder, backend.tables.workers)
        entering = pool.submit(enter, backend, "second", worker="w1")
        await_waiting(database)
        lock_row(intruder, backend.tables.channels)
        intruder.rollback()
        changes = entering.result()

    assert [change.revision for change in changes] == [2]
    assert len(deadlocks) == 1


def make_it_the_survivor(connection: sa.Connection, backend: SQLAlchemyBackend) -> None:
    """Make it dearer than others to roll back, or blind to deadlocks."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET deadlock_timeout = '60s'")
        return
    rows = [{"number": number, "at": 0, "kind": "evict"} for number in range(100)]
    connection.execute(sa.insert(backend.tables.commands), rows)


@pytest.mark.usefixtures("patient")
def test_the_clock_is_read_after_the_lock(backend: SQLAlchemyBackend, database: Database) -> None:
    enter(backend, "first")

    with ThreadPoolExecutor(1) as pool, intruding(backend) as intruder:
        lock_row(intruder, backend.tables.channels)
        entering = pool.submit(enter, backend, "second")
        await_waiting(database)
        while_it_waits = int(time.time() * 1000)
        intruder.rollback()
        entering.result()

    members = backend.tables.members
    held_at = sa.select(members.c.held_at).where(members.c.client_id == "second")
    with backend.engine.connect() as connection:
        assert connection.execute(held_at).scalar_one() >= while_it_waits


def test_the_clock_of_mariadb_knows_no_summer_time(
    mariadb_store: ServerStore, make_app: Any
) -> None:
    """A local time is ambiguous for an hour in autumn: leases would end, or be an hour ahead."""
    app, _ = make_app(PRESENCE_BACKEND=mariadb_store.new_url())
    backend = app.extensions["presence"].backend

    def zone(connection: sa.Connection) -> Any:
        return connection.exec_driver_sql("SELECT @@session.time_zone").scalar()

    assert backend.database.transact(zone) == "+00:00"
    assert abs(backend.database.transact(backend.now) - time.time() * 1000) < 60_000


def test_steps_are_read_committed_whatever_the_default_is(backend: SQLAlchemyBackend) -> None:
    def level(connection: sa.Connection) -> tuple[str, str | None]:
        return connection.get_isolation_level(), connection.default_isolation_level

    assert backend.database.transact(level) == ("READ COMMITTED", "SERIALIZABLE")


def test_mariadb_is_asked_nothing_before_or_after_a_transaction(
    mariadb_store: ServerStore, make_app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked afterwards would fail when all is done, and each question takes its time."""
    app, _ = make_app(PRESENCE_BACKEND=mariadb_store.new_url())
    backend = app.extensions["presence"].backend
    one = sa.select(1)
    backend.database.read(lambda connection: connection.execute(one))
    asked: list[str] = []
    execute = pymysql.connections.Connection._execute_command

    def note(self: Any, command: int, sql: Any) -> Any:
        asked.append(sql.decode() if isinstance(sql, bytes) else sql)
        return execute(self, command, sql)

    monkeypatch.setattr(pymysql.connections.Connection, "_execute_command", note)

    backend.database.read(lambda connection: connection.execute(one))
    backend.database.transact(lambda connection: connection.execute(one))

    ping = ""
    assert asked == [ping, "SELECT 1", "COMMIT"] * 2


def test_a_limit_in_the_url_is_kept(store: ServerStore, make_app: Any) -> None:
    url = sa.make_url(store.new_url())
    if url.get_backend_name() == "postgresql":
        query, limits = {"options": "-c lock_timeout=7s"}, "SELECT current_setting('lock_timeout')"
        expected = ["7s", "1500ms"]
    else:
        query, limits = {"init_command": "SET lock_wait_timeout = 0"}, "SELECT @@lock_wait_timeout"
        expected = [0, 1]
    backends = [open_at(make_app, url.update_query_dict(query)), open_at(make_app, url)]

    found = [
        backend.database.read(lambda found: found.exec_driver_sql(limits).scalar())
        for backend in backends
    ]

    assert found == expected
    for backend in backends:
        backend.close()


# Away


def assert_unavailable(backend: Backend) -> None:
    began = time.monotonic()
    with pytest.raises(BackendUnavailable):
        enter(backend, "nobody")
    assert time.monotonic() - began < 2.5


def test_a_database_that_is_frozen_is_unavailable_and_nobody_waits_long(
    either: SQLAlchemyBackend, database: Database
) -> None:
    enter(either)

    database.freeze()
    # The first finds connections that were open, and those after it find none.
    for _ in range(3):
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(lambda _: assert_unavailable(either), range(20)))
    database.thaw()

    assert eventually(lambda: answers(either))
    assert [user.id for user in either.state(ROOM).state.users] == ["user-c1", "user-back"]


def answers(backend: Backend) -> bool:
    try:
        enter(backend, "back")
    except BackendUnavailable:
        return False
    return True


def test_a_database_that_was_restarted_is_used_again(
    backend: SQLAlchemyBackend, database: Database
) -> None:
    enter(backend)

    database.stop()
    try:
        for _ in range(3):
            assert_unavailable(backend)
    finally:
        database.start()

    assert answers(backend)
    assert [user.id for user in backend.state(ROOM).state.users] == ["user-c1", "user-back"]


def test_a_restart_that_nobody_noticed_is_no_error(
    either: SQLAlchemyBackend, database: Database
) -> None:
    enter(either)

    database.stop()
    database.start()

    assert answers(either)


def test_a_lease_is_renewed_while_all_connections_are_taken(
    backend: SQLAlchemyBackend, database: Database
) -> None:
    backend.renew("w1", 60, create=True)

    with ExitStack() as taken:
        pool: Any = backend.engine.pool
        for _ in range(pool.size() + pool._max_overflow):
            taken.enter_context(backend.engine.connect())
        assert_unavailable(backend)

        assert backend.renew("w1", 60).held


def test_a_server_that_started_again_has_begun_anew_and_one_that_cut_connections_has_not(
    either: SQLAlchemyBackend, database: Database
) -> None:
    # A server tells its age in seconds: that of another run must be another one.
    time.sleep(max(0, database.began + 2 * TOLERANCE - time.monotonic()))
    enter(either)
    either.engine.dispose()
    assert answers(either)
    assert not either.has_begun_anew()
    assert not either.is_restored

    database.stop()
    database.start()

    assert answers(either)
    assert either.has_begun_anew()
    assert not either.has_begun_anew()
    assert either.is_restored


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("statement", "lease"),
    [("SELECT presence_workers.id", 0.8), ("UPDATE presence_workers SET status", 0.001)],
)
def test_a_database_that_froze_while_leases_were_ended_ends_none(
    backend: SQLAlchemyBackend,
    database: Database,
    statement: str,
    lease: float,
) -> None:
    backend.renew("w1", lease, create=True)
    backend.close()
    frozen: list[threading.Timer] = []

    def freeze(text: str) -> None:
        if text.startswith(statement) and not frozen:
            database.freeze()
            frozen.append(threading.Timer(1, database.thaw))
            frozen[0].start()

    stop = statements.listen(backend, freeze)
    backend.prune()
    stop()

    frozen[0].join()
    assert backend.spares_leases
    assert backend.renew("w1", 60).held


# What is not set up


def test_a_wrong_password_is_a_clear_error_that_does_not_tell_it(
    database: Database, make_app: Any
) -> None:
    url = sa.make_url(database.new_database()).set(username="stranger", password="secret")
    backend = open_at(make_app, url)

    for call in (backend.check, backend.prepare, lambda: enter(backend)):
        with pytest.raises(BackendUnavailable, match=r"stranger.*cannot be reached") as caught:
            call()
        assert "secret" not in str(caught.value)


def test_a_database_without_the_tables_is_a_clear_error_until_they_are_made(
    database: Database, make_app: Any
) -> None:
    backend = open_at(make_app, sa.make_url(database.new_database()))

    for call in (backend.check, lambda: enter(backend), lambda: backend.state(ROOM)):
        with pytest.raises(BackendUnavailable, match="flask presence init-db"):
            call()
    backend.prepare()

    backend.check()
    assert enter(backend)


def test_init_db_says_that_it_may_not_make_tables(database: Database, make_app: Any) -> None:
    url = sa.make_url(database.new_database())
    with database.administering() as connection:
        for statement in database.guest(str(url.database)):
            connection.exec_driver_sql(statement)
    app, _ = make_app(PRESENCE_BACKEND=url.set(username="guest").render_as_string())

    result = app.test_cli_runner().invoke(presence_commands, ["init-db"])

    assert result.exit_code == 1
    assert "as a database user who may create tables" in result.output
    assert "denied" in result.output


def test_a_server_that_starts_before_its_database_waits_for_it(
    store: ServerStore, database: Database, spawn: Any, dial: Any
) -> None:
    url = store.new_url()
    database.stop()
    try:
        server = spawn(**QUICK, PRESENCE_BACKEND=url)
        wire = dial(server.port, "ada")
        refused = wire.call("enter", {"channel": ROOM})
    finally:
        database.start()

    assert refused["error"] == "unavailable"
    eventually(lambda: wire.call("enter", {"channel": ROOM})["ok"])
    assert "cannot be reached" in "".join(server.errors)
    assert "Traceback" not in "".join(server.errors)


# Under running servers

OUTAGE = 4
"""Seconds: long enough for every lease to run out."""


@pytest.mark.parametrize("fault", ["stopped", "frozen"])
def test_who_stays_through_an_outage_is_never_seen_leaving(
    store: ServerStore, database: Database, spawn: Any, dial: Any, fault: str
) -> None:
    url, modes = store.new_url(), ("threading", "gevent")
    pair = [spawn(**QUICK, PRESENCE_BACKEND=url, SOCKETIO={"async_mode": mode}) for mode in modes]
    crowds = [Crowd(dial, server.port, f"of{server.port}-", 5, [ROOM]) for server in pair]
    watchers = [Watcher(dial(server.port, "watcher"), [ROOM]) for server in pair]
    asker = Asker(dial, pair[0].port, "/room/9")

    def be_away() -> None:
        with outage(database, fault):
            time.sleep(OUTAGE)

    with ExitStack() as beating:
        for crowd in crowds:
            beating.enter_context(Background(crowd.beat, 1))
        asker.during(be_away)
        answer = eventually(lambda: state_of(dial(pair[0].port, "newcomer")))
        time.sleep(QUICK["PRESENCE_WORKER_TIMEOUT"] + 1)  # Whoever is ended, is ended by then.

    stayed = set().union(*(crowd.members_of(ROOM) for crowd in crowds))
    assert {user["id"] for user in answer["users"]} == stayed
    refusals = [found for _, _, found in asker.answers if not found["ok"]]
    assert {found["error"] for found in refusals} == {"unavailable"}
    assert max(took for _, took, _ in asker.answers) < 2.5
    told = [signal for server in pair for signal in server.signals if signal["channel"] == ROOM]
    assert {signal["kind"] for signal in told} == {"entered"}
    for server in pair:
        errors = "".join(server.errors)
        assert "Traceback" not in errors, errors
    for watcher in watchers:
        # A database that was away may have lost something: the channel began another epoch.
        eventually(lambda watcher=watcher: watcher.agrees_with({ROOM: state_of(watcher.wire)}))
        assert watcher.left == []


@contextmanager
def outage(database: Database, fault: str) -> Iterator[None]:
    end, begin = {
        "stopped": (database.stop, database.start),
        "frozen": (database.freeze, database.thaw),
    }[fault]
    end()
    try:
        yield
    finally:
        begin()


def state_of(wire: Wire) -> Any:
    answer = wire.call("state", {"channels": [ROOM]})
    return answer["ok"] and answer["states"][ROOM]
