"""Fixtures: the test app in this process, on a real port, and in processes of its own."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster import QUICK
from databases import Database, MariaDB, PostgreSQL
from flask import Flask
from playwright.sync_api import Browser, sync_playwright
from processes import Command, Gunicorn, Redis, Sentinel, Server, Valkey, require
from server import create_app
from stores import MemoryStore, RedisStore, ServerStore, SQLiteStore
from wire import Wire

from flask_presence import Presence

BY_STORE = (
    "test_backends.py",
    "test_mutations.py",
    "test_short_round.py",
    "test_state_machine.py",
    "test_wire.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where processes share the tests, each file stays in one of them; where a file is run on every
    store, each store does. One of them alone has a browser, which takes the work of many."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("browser"))
            continue
        parameters = getattr(item, "callspec", None)
        stores = [
            str(getattr(value, "store", value))
            for name, value in (parameters.params if parameters else {}).items()
            if name in ("ground", "make", "name") and item.path.name in BY_STORE
        ]
        item.add_marker(pytest.mark.xdist_group("-".join([item.path.stem, *stores])))


@pytest.fixture
def make_app(tmp_path: Path) -> Iterator[Callable[..., tuple[Flask, Presence]]]:
    """Makes apps like `create_app`, with settings as keywords; in memory unless told otherwise."""
    apps: list[Flask] = []

    def make(**config: Any) -> tuple[Flask, Presence]:
        defaults = {"instance_path": str(tmp_path / "instance"), "PRESENCE_BACKEND": "memory://"}
        app, presence = create_app(defaults | config)
        apps.append(app)
        return app, presence

    yield make
    for app in apps:
        app.extensions["presence"].stop()


@pytest.fixture
def serve(make_app: Any) -> Iterator[Callable[..., tuple[int, Flask, Presence]]]:
    """Makes an app and serves it from a thread of this process; gives its port too."""
    from werkzeug.serving import make_server

    servers: list[Any] = []

    def start(**config: Any) -> tuple[int, Flask, Presence]:
        app, presence = make_app(**config)
        server = make_server("127.0.0.1", 0, app, threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server.server_port, app, presence

    yield start
    for server in servers:
        server.shutdown()


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts server processes of the test app on one SQLite file; settings as keywords."""
    servers: list[Server] = []

    def start(*, port: int = 0, **config: Any) -> Server:
        server = Server({"instance_path": str(tmp_path / "instance")} | config, port)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def flask_presence(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Starts ``flask presence …`` on the store of `spawn`; settings in ``config``."""
    commands: list[Command] = []

    def start(*words: str, config: dict[str, Any] | None = None, **options: Any) -> Command:
        defaults = {"instance_path": str(tmp_path / "instance")}
        command = Command(tmp_path, *words, config=defaults | (config or {}), **options)
        commands.append(command)
        return command

    yield start
    for command in commands:
        command.stop()


@pytest.fixture
def dial() -> Iterator[Callable[..., Wire]]:
    """Opens raw WebSocket connections, and drops them in the end."""
    wires: list[Wire] = []

    def connect(port: int, user: str | None = None, **options: Any) -> Wire:
        auth = {"user": user} | options.pop("auth", {}) if user else options.pop("auth", None)
        wire = Wire(port, auth=auth, **options)
        wires.append(wire)
        return wire

    yield connect
    for wire in wires:
        if not wire.closed.is_set():
            wire.drop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real Chromium."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=require("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield chromium
        chromium.close()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    server = Redis(tmp_path)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Database]:
    server = PostgreSQL()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[Database]:
    server = MariaDB()
    yield server
    server.remove()


# Stores, by their names in `stores.STORES`


@pytest.fixture(scope="session")
def memory_store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture(scope="session")
def sqlite_store(tmp_path_factory: pytest.TempPathFactory) -> SQLiteStore:
    return SQLiteStore(tmp_path_factory.mktemp("sqlite"))


@pytest.fixture(scope="session")
def postgresql_store(postgresql: Database) -> ServerStore:
    return ServerStore(postgresql)


@pytest.fixture(scope="session")
def mariadb_store(mariadb: Database) -> ServerStore:
    return ServerStore(mariadb)


@pytest.fixture(scope="session")
def redis_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisStore]:
    server = Redis(tmp_path_factory.mktemp("redis"), *RedisStore.DATABASES)
    yield RedisStore(server)
    server.stop()


@pytest.fixture(scope="session")
def sentinel_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisStore]:
    """A Redis that is found by asking a Sentinel."""
    server = Sentinel(tmp_path_factory.mktemp("sentinel"), *RedisStore.DATABASES)
    yield RedisStore(server)
    server.stop()


@pytest.fixture(scope="session")
def valkey_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisStore]:
    server = Valkey(tmp_path_factory.mktemp("valkey"), *RedisStore.DATABASES)
    yield RedisStore(server)
    server.stop()


@pytest.fixture
def shared_store(request: pytest.FixtureRequest, tmp_path: Path, redis: Redis) -> dict[str, Any]:
    """The settings that make several processes share one store: Redis, unless told otherwise."""
    stores = {
        "redis": {"PRESENCE_BACKEND": redis.url},
        "sqlite": {"SOCKETIO": {"message_queue": redis.url}},
    }
    name = getattr(request, "param", "redis")
    return {"instance_path": str(tmp_path / "instance")} | stores[name]


@pytest.fixture
def start_gunicorn(shared_store: dict[str, Any]) -> Iterator[Callable[..., Gunicorn]]:
    """Starts gunicorn with one worker, on the shared store; settings as keywords."""
    started: list[Gunicorn] = []

    def start(worker_class: str, *, options: Sequence[str] = (), **settings: Any) -> Gunicorn:
        config = QUICK | shared_store | settings
        started.append(Gunicorn(config, worker_class=worker_class, options=options))
        return started[-1]

    yield start
    for server in started:
        server.stop()
