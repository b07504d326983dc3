"""From the setting ``PRESENCE_BACKEND`` to a store, and how it lives beside the app's own data."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from flask import Flask
from flask_socketio import SocketIO
from flask_sqlalchemy import SQLAlchemy

from flask_presence import BackendUnavailable, ChannelConfig, Presence
from flask_presence.backends.memory import MemoryBackend
from flask_presence.backends.sqlalchemy import SQLAlchemyBackend, dialects
from flask_presence.cli import presence_commands

TABLES = {f"presence_{name}" for name in ("channels", "members", "workers", "seen", "commands")}

Make = Callable[..., tuple[Flask, Presence]]


class OurBackend(MemoryBackend):
    """A third party's."""


class NoBackend:
    pass


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes apps, on a database where one is given."""
    apps: list[Flask] = []

    def make(db: SQLAlchemy | None = None, **config: Any) -> tuple[Flask, Presence]:
        app = Flask(__name__, instance_path=str(tmp_path / "instance"))
        app.config.update(config)
        SocketIO(app, async_mode="threading")
        if db is not None:
            db.init_app(app)
        apps.append(app)
        presence = Presence(app)
        presence.channel_config("room")(lambda name: ChannelConfig(public=True))
        return app, presence

    yield make
    for app in apps:
        if "presence" in app.extensions:
            app.extensions["presence"].stop()
        if "sqlalchemy" in app.extensions:
            with app.app_context():
                for engine in app.extensions["sqlalchemy"].engines.values():
                    engine.dispose()


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    return tmp_path / "instance"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a step wait a moment for another one's lock, and no longer."""
    monkeypatch.setattr(dialects, "BUSY_SECONDS", 0.05)


def backend_of(app: Flask) -> Any:
    return app.extensions["presence"].backend


def file_of(app: Flask) -> Path:
    """The SQLite file that presence is kept in."""
    backend = backend_of(app)
    assert isinstance(backend, SQLAlchemyBackend)
    assert backend.engine.url.get_backend_name() == "sqlite"
    return Path(backend.engine.url.database or "")


def tables_in(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    try:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {name for (name,) in found}
    finally:
        connection.close()


def enter(app: Flask, presence: Presence, user: str = "7") -> Any:
    with app.app_context():
        return presence.channel("/room/1").enter(user, client_id=user)


def user_ids(app: Flask, presence: Presence) -> list[str]:
    with app.app_context():
        return list(presence.channel("/room/1").user_ids)


def init_db(app: Flask) -> Any:
    return app.test_cli_runner().invoke(presence_commands, ["init-db"])


# Unset


def test_without_a_database_presence_has_a_file_in_the_instance_folder(
    make: Make, instance: Path
) -> None:
    app, presence = make()

    enter(app, presence)

    assert file_of(app) == instance / "presence.sqlite3"
    assert tables_in(instance / "presence.sqlite3") >= TABLES


def test_beside_an_app_on_an_sqlite_file_presence_has_a_file_of_its_own(
    make: Make, instance: Path
) -> None:
    db = SQLAlchemy()
    app, presence = make(db, SQLALCHEMY_DATABASE_URI="sqlite:///app.sqlite3")
    with app.app_context():
        db.create_all()

    enter(app, presence)

    assert file_of(app) == instance / "presence.sqlite3"
    assert not TABLES & set(db.metadata.tables)
    assert not TABLES & tables_in(instance / "app.sqlite3")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_beside_an_app_on_a_database_in_memory_presence_is_in_memory(
    make: Make, instance: Path, url: str
) -> None:
    app, presence = make(SQLAlchemy(), SQLALCHEMY_DATABASE_URI=url)

    enter(app, presence)

    assert isinstance(backend_of(app), MemoryBackend)
    assert not (instance / "presence.sqlite3").exists()


def test_on_an_app_s_database_server_presence_is_in_its_database(make: Make) -> None:
    db = SQLAlchemy()

    app, _ = make(db, SQLALCHEMY_DATABASE_URI="postgresql+psycopg://ada:secret@localhost:1/forum")

    backend = backend_of(app)
    assert backend.engine.url.get_backend_name() == "postgresql"
    assert backend.engine.url.password == "secret"
    assert set(db.metadata.tables) >= TABLES


def test_beside_an_app_with_nothing_but_binds_presence_has_a_file_of_its_own(
    make: Make, instance: Path
) -> None:
    app, _ = make(SQLAlchemy(), SQLALCHEMY_BINDS={"logs": "sqlite:///logs.sqlite3"})

    assert file_of(app) == instance / "presence.sqlite3"


def test_members_outlive_the_process_in_a_file(make: Make) -> None:
    enter(*make())

    assert user_ids(*make()) == ["7"]


# The app's own database


def test_on_the_app_s_database_the_tables_are_in_its_metadata_and_create_all_makes_them(
    make: Make, instance: Path
) -> None:
    db = SQLAlchemy()
    app, presence = make(
        db, SQLALCHEMY_DATABASE_URI="sqlite:///app.sqlite3", PRESENCE_BACKEND="sqlalchemy://"
    )
    assert set(db.metadata.tables) >= TABLES
    with app.app_context():
        db.create_all()

    enter(app, presence)

    assert user_ids(app, presence) == ["7"]
    assert tables_in(instance / "app.sqlite3") >= TABLES
    assert not (instance / "presence.sqlite3").exists()


def test_on_a_bind_the_tables_are_in_that_bind_s_metadata(make: Make, instance: Path) -> None:
    db = SQLAlchemy()
    app, presence = make(
        db,
        SQLALCHEMY_DATABASE_URI="sqlite:///app.sqlite3",
        SQLALCHEMY_BINDS={"who": "sqlite:///who.sqlite3"},
        PRESENCE_BACKEND="sqlalchemy://who",
    )
    with app.app_context():
        db.create_all()

    enter(app, presence)

    assert set(db.metadatas["who"].tables) >= TABLES
    assert not TABLES & set(db.metadata.tables)
    assert tables_in(instance / "who.sqlite3") >= TABLES
    assert not TABLES & tables_in(instance / "app.sqlite3")


def test_one_database_object_may_serve_several_apps(make: Make, tmp_path: Path) -> None:
    db = SQLAlchemy()
    apps = [
        make(
            db,
            SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/{name}.sqlite3",
            PRESENCE_BACKEND="sqlalchemy://",
        )
        for name in ("one", "two")
    ]
    for app, _ in apps:
        with app.app_context():
            db.create_all()

    enter(*apps[0], user="7")
    enter(*apps[1], user="8")

    assert [user_ids(*pair) for pair in apps] == [["7"], ["8"]]


def test_the_key_prefix_begins_the_names_of_the_tables(make: Make) -> None:
    db = SQLAlchemy()

    make(
        db,
        SQLALCHEMY_DATABASE_URI="sqlite:///app.sqlite3",
        PRESENCE_BACKEND="sqlalchemy://",
        PRESENCE_KEY_PREFIX="forum",
    )

    assert db.metadata.tables
    assert all(name.startswith("forum_") for name in db.metadata.tables)


def test_a_key_prefix_that_cannot_begin_a_table_s_name_is_an_error(make: Make) -> None:
    with pytest.raises(ValueError, match="PRESENCE_KEY_PREFIX"):
        make(PRESENCE_KEY_PREFIX="for:um")


def test_a_missing_table_is_an_error_that_names_the_command(make: Make) -> None:
    app, presence = make(
        SQLAlchemy(),
        SQLALCHEMY_DATABASE_URI="sqlite:///app.sqlite3",
        PRESENCE_BACKEND="sqlalchemy://",
    )

    with pytest.raises(BackendUnavailable, match="flask presence init-db"):
        enter(app, presence)
    with pytest.raises(BackendUnavailable, match="flask presence init-db"):
        user_ids(app, presence)


def test_init_db_makes_the_tables_and_may_be_run_any_number_of_times(make: Make) -> None:
    app, presence = make(
        SQLAlchemy(),
        SQLALCHEMY_DATABASE_URI="sqlite:///app.sqlite3",
        PRESENCE_BACKEND="sqlalchemy://",
    )

    first = init_db(app)
    enter(app, presence)
    second = init_db(app)

    assert (first.exit_code, second.exit_code) == (0, 0), first.output + second.output
    assert user_ids(app, presence) == ["7"]


def test_init_db_makes_no_table_of_the_app_s(make: Make, instance: Path) -> None:
    db = SQLAlchemy()
    sa.Table("topic", db.metadata, sa.Column("id", sa.Integer, primary_key=True))
    app, _ = make(
        db, SQLALCHEMY_DATABASE_URI="sqlite:///app.sqlite3", PRESENCE_BACKEND="sqlalchemy://"
    )

    init_db(app)

    assert tables_in(instance / "app.sqlite3") == TABLES


@pytest.mark.parametrize("url", [None, "memory://", "sqlite:///own.sqlite3"])
def test_init_db_goes_well_where_it_is_not_needed(make: Make, url: str | None) -> None:
    app, presence = make(PRESENCE_BACKEND=url)

    assert [init_db(app).exit_code for _ in range(2)] == [0, 0]
    assert enter(app, presence) is not None


def test_init_db_says_what_is_wrong_where_the_store_cannot_be_reached(
    make: Make, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    app, _ = make(PRESENCE_BACKEND=f"sqlite:///{tmp_path}/folder")

    result = init_db(app)

    assert result.exit_code == 1
    assert "Error" in result.output
    assert "Traceback" not in result.output


def test_flask_presence_init_db_is_a_command_of_flask(tmp_path: Path) -> None:
    (tmp_path / "forum.py").write_text(
        "from flask import Flask\n"
        "from flask_presence import Presence\n"
        "from flask_socketio import SocketIO\n"
        "from flask_sqlalchemy import SQLAlchemy\n"
        f"app = Flask(__name__, instance_path={str(tmp_path)!r})\n"
        "app.config.update(\n"
        "    SQLALCHEMY_DATABASE_URI='sqlite:///app.sqlite3', PRESENCE_BACKEND='sqlalchemy://'\n"
        ")\n"
        "SocketIO(app, async_mode='threading')\n"
        "SQLAlchemy(app)\n"
        "Presence(app)\n"
    )

    for _ in range(2):
        command = [sys.executable, "-m", "flask", "--app", "forum", "presence", "init-db"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    assert tables_in(tmp_path / "app.sqlite3") == TABLES


def test_what_presence_writes_stays_when_the_app_s_session_is_rolled_back(make: Make) -> None:
    db = SQLAlchemy()
    table = sa.Table("topic", db.metadata, sa.Column("id", sa.Integer, primary_key=True))
    app, presence = make(
        db, SQLALCHEMY_DATABASE_URI="sqlite:///app.sqlite3", PRESENCE_BACKEND="sqlalchemy://"
    )
    with app.app_context():
        db.create_all()
        db.session.execute(sa.select(table)).all()

        presence.channel("/room/1").enter("7", client_id="a")
        db.session.execute(sa.insert(table).values(id=1))
        db.session.rollback()

        assert db.session.execute(sa.select(table)).all() == []
    assert user_ids(app, presence) == ["7"]


def test_what_presence_writes_is_committed_at_once(make: Make, instance: Path) -> None:
    db = SQLAlchemy()
    app, presence = make(
        db, SQLALCHEMY_DATABASE_URI="sqlite:///app.sqlite3", PRESENCE_BACKEND="sqlalchemy://"
    )
    init_db(app)

    enter(app, presence)

    connection = sqlite3.connect(instance / "app.sqlite3")
    assert connection.execute("SELECT user_id FROM presence_members").fetchall() == [("7",)]
    connection.close()


@pytest.mark.usefixtures("impatient")
def test_the_app_s_own_open_write_on_the_same_file_is_a_clear_error(make: Make) -> None:
    db = SQLAlchemy()
    table = sa.Table("topic", db.metadata, sa.Column("id", sa.Integer, primary_key=True))
    app, presence = make(
        db, SQLALCHEMY_DATABASE_URI="sqlite:///app.sqlite3", PRESENCE_BACKEND="sqlalchemy://"
    )
    with app.app_context():
        db.create_all()
        db.session.execute(sa.insert(table).values(id=1))

        with pytest.raises(BackendUnavailable, match=r"app\.sqlite3.*locked"):
            presence.channel("/room/1").enter("7", client_id="a")

        db.session.commit()
        assert presence.channel("/room/1").enter("7", client_id="a") is not None


def test_the_app_s_open_read_does_not_stand_in_the_way(make: Make) -> None:
    db = SQLAlchemy()
    table = sa.Table("topic", db.metadata, sa.Column("id", sa.Integer, primary_key=True))
    app, presence = make(
        db, SQLALCHEMY_DATABASE_URI="sqlite:///app.sqlite3", PRESENCE_BACKEND="sqlalchemy://"
    )
    with app.app_context():
        db.create_all()
        db.session.execute(sa.select(table)).all()

        assert presence.channel("/room/1").enter("7", client_id="a") is not None


def test_presence_takes_no_connection_of_the_app_s(make: Make) -> None:
    db = SQLAlchemy()
    app, presence = make(
        db, SQLALCHEMY_DATABASE_URI="sqlite:///app.sqlite3", PRESENCE_BACKEND="sqlalchemy://"
    )
    init_db(app)
    taken: list[Any] = []
    with app.app_context():
        sa.event.listen(db.engine, "checkout", lambda *args: taken.append(args))

    enter(app, presence)
    user_ids(app, presence)

    assert taken == []


def test_presence_connects_to_the_app_s_database_as_the_app_does(make: Make) -> None:
    class TheAppsConnection(sqlite3.Connection):
        """As an app may need certificates, or a password from elsewhere."""

    app, presence = make(
        SQLAlchemy(),
        SQLALCHEMY_DATABASE_URI="sqlite:///app.sqlite3",
        SQLALCHEMY_ENGINE_OPTIONS={"connect_args": {"factory": TheAppsConnection}},
        PRESENCE_BACKEND="sqlalchemy://",
    )
    made: list[Any] = []
    sa.event.listen(backend_of(app).engine, "connect", lambda found, _: made.append(found))
    init_db(app)

    enter(app, presence)

    assert {type(connection) for connection in made} == {TheAppsConnection}


def test_sqlalchemy_without_flask_sqlalchemy_says_which_line_is_missing(make: Make) -> None:
    with pytest.raises((RuntimeError, ValueError), match=r"PRESENCE_BACKEND.*db\.init_app\(app\)"):
        make(PRESENCE_BACKEND="sqlalchemy://")


def test_an_unknown_bind_is_an_error(make: Make) -> None:
    with pytest.raises(ValueError, match=r"PRESENCE_BACKEND.*nowhere"):
        make(
            SQLAlchemy(),
            SQLALCHEMY_DATABASE_URI="sqlite:///app.sqlite3",
            PRESENCE_BACKEND="sqlalchemy://nowhere",
        )


# URLs


@pytest.mark.parametrize("url", ["memory://", "memory"])
def test_memory_is_this_process_alone(make: Make, instance: Path, url: str) -> None:
    app, presence = make(PRESENCE_BACKEND=url)

    enter(app, presence)

    assert isinstance(backend_of(app), MemoryBackend)
    assert not instance.exists()
    assert user_ids(*make(PRESENCE_BACKEND=url)) == []


def test_a_relative_sqlite_file_is_in_the_instance_folder(make: Make, instance: Path) -> None:
    app, presence = make(PRESENCE_BACKEND="sqlite:///who.sqlite3")

    enter(app, presence)

    assert file_of(app) == instance / "who.sqlite3"
    assert (instance / "who.sqlite3").exists()


def test_an_absolute_sqlite_file_is_where_it_says(make: Make, tmp_path: Path) -> None:
    app, presence = make(PRESENCE_BACKEND=f"sqlite:///{tmp_path}/who.sqlite3")

    enter(app, presence)

    assert file_of(app) == tmp_path / "who.sqlite3"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql+psycopg://localhost:1/forum", "postgresql"),
        ("mysql+pymysql://localhost:1/forum", "mysql"),
        ("mariadb+pymysql://localhost:1/forum", "mariadb"),
    ],
)
def test_any_url_of_sqlalchemy_s_has_an_engine_of_its_own(make: Make, url: str, name: str) -> None:
    app, _ = make(PRESENCE_BACKEND=url)

    assert backend_of(app).engine.url.get_backend_name() == name


@pytest.mark.parametrize(
    "value",
    [
        "gopher://localhost",
        "http://localhost",
        "postgresql+no_such_driver://localhost/forum",
        "://",
        "sqlite://",
        "sqlite:///:memory:",
        "mysql+pymysql://localhost:port/forum",
        "memory:/",
        "no_such_backend",
        "no.such.module:Backend",
        "test_store:NoSuchClass",
        "test_store:NoBackend",
        "test_store:TABLES",
        "test_store:",
        ":Backend",
    ],
)
def test_a_value_that_makes_no_sense_is_an_error_that_names_the_key(make: Make, value: str) -> None:
    with pytest.raises(ValueError, match="PRESENCE_BACKEND"):
        make(PRESENCE_BACKEND=value)


@pytest.mark.parametrize(
    ("value", "cure"),
    [
        ("redi://localhost", "redis://"),
        ("valkey://localhost", "redis://"),
        ("postgres://localhost/forum", "postgresql+psycopg://"),
        ("redis", "redis://localhost:6379/0"),
        ("localhost:6379", "redis://localhost:6379/0"),
        ("sqlite://presence.sqlite3", "sqlite:///presence.sqlite3"),
    ],
)
def test_a_near_miss_is_answered_with_what_was_probably_meant(
    make: Make, value: str, cure: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(cure)):
        make(PRESENCE_BACKEND=value)


@pytest.mark.parametrize(
    ("url", "cure"),
    [
        ("mysql+pymysql://localhost/forum", 'pip install "Flask-Presence[mysql]"'),
        ("mysql://localhost/forum", '"Flask-Presence[mysql]", and let the URL begin with mysql+py'),
        ("postgresql+psycopg2://localhost/forum", '"Flask-Presence[postgresql]", and let the URL'),
        ("mssql://localhost/forum", "install the package that brings pyodbc"),
    ],
)
def test_a_missing_driver_is_answered_with_one_that_can_be_installed(
    make: Make, monkeypatch: pytest.MonkeyPatch, url: str, cure: str
) -> None:
    for driver in ("pymysql", "MySQLdb", "psycopg2", "pyodbc"):
        monkeypatch.setitem(sys.modules, driver, None)

    with pytest.raises(RuntimeError, match=re.escape(cure)):
        make(PRESENCE_BACKEND=url)


def test_an_unknown_name_is_answered_with_those_there_are(make: Make) -> None:
    with pytest.raises(ValueError, match=r": memory\b"):
        make(PRESENCE_BACKEND="no_such_backend")


@pytest.mark.parametrize("name", sorted(entry_points(group="flask_presence.backends").names))
def test_each_name_that_is_offered_can_be_used(make: Make, name: str) -> None:
    app, presence = make(PRESENCE_BACKEND=name)

    assert enter(app, presence) is not None


# Yours


def test_a_backend_may_be_given_itself(make: Make) -> None:
    backend = MemoryBackend()

    app, presence = make(PRESENCE_BACKEND=backend)
    enter(app, presence)

    assert backend_of(app) is backend
    assert backend.count("/room/1").state.count == 1  # type: ignore[union-attr]


def test_a_backend_may_be_named_by_its_module_and_class(make: Make) -> None:
    app, presence = make(PRESENCE_BACKEND=f"{__name__}:OurBackend")

    assert type(backend_of(app)) is OurBackend
    assert enter(app, presence) is not None


def test_a_third_party_s_backend_may_be_named_by_its_entry_point(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "installed" / "other-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        f"[flask_presence.backends]\nother = {__name__}:OurBackend\n"
    )
    monkeypatch.syspath_prepend(package.parent)

    app, _ = make(PRESENCE_BACKEND="other")

    assert type(backend_of(app)) is OurBackend


# A store that is away


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://ada:secret@127.0.0.1:1/forum?connect_timeout=1",
        "mysql+pymysql://ada:secret@127.0.0.1:1/forum",
        "sqlite:///folder",
    ],
)
def test_a_store_that_cannot_be_reached_is_asked_only_when_needed_and_is_a_clear_error(
    make: Make, instance: Path, url: str
) -> None:
    (instance / "folder").mkdir(parents=True)
    app, presence = make(PRESENCE_BACKEND=url)

    for call in (lambda: enter(app, presence), lambda: user_ids(app, presence)):
        with pytest.raises(BackendUnavailable) as caught:
            call()
        assert "secret" not in str(caught.value)
        assert url.split("?")[0].rsplit("/", 1)[1] in str(caught.value)


def test_a_store_that_is_back_is_used_again(make: Make, instance: Path) -> None:
    (instance / "who.sqlite3").mkdir(parents=True)
    app, presence = make(PRESENCE_BACKEND="sqlite:///who.sqlite3")
    with pytest.raises(BackendUnavailable):
        enter(app, presence)

    os.rmdir(instance / "who.sqlite3")

    assert enter(app, presence) is not None
    assert user_ids(app, presence) == ["7"]


def test_no_store_is_asked_at_init_app(make: Make, instance: Path) -> None:
    make()

    assert not (instance / "presence.sqlite3").exists()


def test_a_database_that_does_not_exist_is_not_taken_for_a_missing_table(make: Make) -> None:
    app, presence = make(PRESENCE_BACKEND="postgresql+psycopg://localhost:1/forum")

    def refuse(*args: Any) -> Any:
        raise psycopg.OperationalError('FATAL:  database "forum" does not exist')

    sa.event.listen(backend_of(app).engine, "do_connect", refuse)

    with pytest.raises(BackendUnavailable, match="does not exist") as caught:
        enter(app, presence)

    assert "init-db" not in str(caught.value)


def test_many_that_open_a_new_file_at_once_all_get_it(tmp_path: Path) -> None:
    def open_and_enter(engine: sa.Engine) -> bool:
        backend = SQLAlchemyBackend(engine, makes_tables=True)
        start.wait()
        held = backend.renew("w1", 60, create=True).held
        backend.close()
        return held

    with ThreadPoolExecutor(8) as pool:
        for number in range(30):
            start = threading.Barrier(8)
            engines = [sa.create_engine(f"sqlite:///{tmp_path}/{number}.db") for _ in range(8)]
            assert all(pool.map(open_and_enter, engines))
