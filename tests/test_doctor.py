"""``flask presence doctor`` finds what would go wrong, and says what to do about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from flask import Flask
from flask_socketio import SocketIO
from flask_sqlalchemy import SQLAlchemy
from processes import Command, free_port
from wire import eventually

from flask_presence import Presence
from flask_presence.cli import presence_commands
from flask_presence.doctor import CHECKS

Diagnose = Callable[..., dict[str, tuple[str, str]]]

SQLITE = "sqlite:///presence.sqlite3"
QUEUE = "redis://127.0.0.1:1"
"""A message queue that nobody connects to, as nothing is sent."""


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)


@pytest.fixture
def diagnose(make_app: Any) -> Diagnose:
    """What doctor says of an app with these settings, by check; ``socketio`` for Flask-SocketIO."""

    def diagnose(
        *, socketio: dict[str, Any] | None = None, **config: Any
    ) -> dict[str, tuple[str, str]]:
        defaults = {"PRESENCE_BACKEND": SQLITE, "SOCKETIO": socketio or {}}
        return examine(make_app(**defaults | config)[0])

    return diagnose


def examine(app: Flask) -> dict[str, tuple[str, str]]:
    result = app.test_cli_runner().invoke(presence_commands, ["doctor", "--json"])
    findings = by_check(result.stdout)
    assert result.exit_code == int(any(status == "problem" for status, _ in findings.values()))
    assert list(findings) == list(CHECKS)
    return findings


def by_check(output: str) -> dict[str, tuple[str, str]]:
    return {found["check"]: (found["status"], found["text"]) for found in json.loads(output)}


def is_found(finding: tuple[str, str], status: str, *words: str) -> None:
    assert finding[0] == status, finding
    for word in words:
        assert word in finding[1]


# The whole


def test_an_app_in_good_health_is_told_so_and_exits_with_0(make_app: Any) -> None:
    app, _ = make_app(PRESENCE_BACKEND=SQLITE)

    findings = examine(app)
    people = app.test_cli_runner().invoke(presence_commands, ["doctor"])

    assert {status for status, _ in findings.values()} == {"ok"}
    assert people.exit_code == 0
    assert [line.split()[0] for line in people.stdout.splitlines()] == ["ok"] * len(CHECKS)
    assert all(line.endswith(".") for line in people.stdout.splitlines())


def test_warnings_alone_exit_with_0_and_a_problem_with_1(make_app: Any) -> None:
    careless, _ = make_app(PRESENCE_BACKEND=SQLITE, PRESENCE_WORKER_TIMEOUT=1)
    ill, _ = make_app(PRESENCE_BACKEND=SQLITE, SOCKETIO={"ping_interval": 90})

    warned, failed = (
        app.test_cli_runner().invoke(presence_commands, ["doctor"]) for app in (careless, ill)
    )

    assert warned.exit_code == 0
    assert "\nwarning  lease       One slow answer" in warned.stdout
    assert failed.exit_code == 1
    assert "\nproblem  heartbeats  A hidden page" in failed.stdout


# The store


def test_a_store_that_answers_is_fine(diagnose: Diagnose, redis: Any) -> None:
    is_found(diagnose(PRESENCE_BACKEND=redis.url)["store"], "ok", "RedisBackend")
    is_found(diagnose()["store"], "ok", "SQLAlchemyBackend")


def test_a_store_that_is_not_there_is_found(diagnose: Diagnose) -> None:
    url = f"redis://127.0.0.1:{free_port()}"

    is_found(diagnose(PRESENCE_BACKEND=url)["store"], "problem", url, "PRESENCE_BACKEND")


def test_a_database_that_is_not_there_is_found(diagnose: Diagnose) -> None:
    url = f"postgresql+psycopg://ann:secret@127.0.0.1:{free_port()}/forum"

    findings = diagnose(PRESENCE_BACKEND=url)

    is_found(findings["store"], "problem", "postgresql+psycopg://ann:***@127.0.0.1")
    is_found(findings["events"], "warning", "message_queue")
    assert "secret" not in str(findings)


def test_tables_that_are_missing_are_found_until_they_are_made(tmp_path: Path) -> None:
    app = Flask(__name__, instance_path=str(tmp_path))
    app.config.update(
        SQLALCHEMY_DATABASE_URI="sqlite:///app.sqlite3", PRESENCE_BACKEND="sqlalchemy://"
    )
    SocketIO(app, async_mode="threading")
    SQLAlchemy(app)
    Presence(app)

    before = examine(app)
    app.test_cli_runner().invoke(presence_commands, ["init-db"])
    after = examine(app)

    is_found(before["store"], "problem", "tables are missing", "flask presence init-db")
    is_found(after["store"], "ok")
    app.extensions["presence"].stop()


def test_a_redis_that_may_evict_keys_is_found(diagnose: Diagnose, redis: Any) -> None:
    with redis_py.Redis.from_url(redis.url) as client:
        client.config_set("maxmemory", "100mb")
        is_found(diagnose(PRESENCE_BACKEND=redis.url)["store"], "ok")

        client.config_set("maxmemory-policy", "allkeys-lru")
        evicting = diagnose(PRESENCE_BACKEND=redis.url)["store"]

    is_found(evicting, "problem", "may evict keys", "allkeys-lru", "noeviction")


# Several processes


def test_members_in_memory_beside_several_processes_are_found(
    diagnose: Diagnose, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = diagnose(PRESENCE_BACKEND="memory://")
    monkeypatch.setenv("WEB_CONCURRENCY", "1")
    still_alone = diagnose(PRESENCE_BACKEND="memory://")
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    several = diagnose(PRESENCE_BACKEND="memory://")
    shared = diagnose(PRESENCE_BACKEND=SQLITE)

    is_found(alone["sharing"], "ok", "one process")
    is_found(still_alone["sharing"], "ok")
    is_found(several["sharing"], "problem", "4 processes", "PRESENCE_BACKEND")
    is_found(shared["sharing"], "ok")


def test_several_live_workers_without_a_message_queue_are_found(
    spawn: Any, dial: Any, make_app: Any
) -> None:
    app, _ = make_app(PRESENCE_BACKEND=SQLITE)
    servers = [spawn(), spawn()]

    # A worker has a lease before it answers an enter.
    assert dial(servers[0].port, "ada").call("enter", {"channel": "/room/1"})["ok"]
    one = examine(app)["events"]
    assert dial(servers[1].port, "bob").call("enter", {"channel": "/room/1"})["ok"]
    two = examine(app)["events"]

    is_found(one, "ok", "No second process")
    is_found(two, "problem", "2 processes", "message_queue", "PRESENCE_BACKEND", "5 s")


def test_a_worker_that_is_gone_is_none_of_several(make_app: Any) -> None:
    app, _ = make_app(PRESENCE_BACKEND=SQLITE)
    backend = app.extensions["presence"].backend
    backend.renew("drained", 60, create=True)
    backend.renew("alive", 60, create=True)
    backend.renew("late", 0.001, create=True)
    is_found(eventually(lambda: len(backend.workers()) == 2 and examine(app)["events"]), "problem")

    backend.end_worker("drained", after=60)

    is_found(examine(app)["events"], "ok")


def test_several_processes_that_are_only_configured_are_found_too(
    diagnose: Diagnose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "3")

    is_found(diagnose()["events"], "problem", "3 processes", "message_queue")


def test_a_message_queue_or_redis_carries_events_between_processes(
    diagnose: Diagnose, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "3")

    by_queue = diagnose(socketio={"message_queue": QUEUE})
    by_store = diagnose(PRESENCE_BACKEND=redis.url)

    is_found(by_queue["events"], "ok", "message queue")
    is_found(by_store["events"], "ok", "store")


# Intervals


@pytest.mark.parametrize(
    ("ping_interval", "ping_timeout", "status", "words"),
    [
        (60, 20, "problem", ["60 s", "ping_interval of 25 or less"]),
        (59, 20, "warning", ["59 s", "ping_interval of 25 or less"]),
        (26, 20, "warning", ["26 s", "ping_interval of 25 or less"]),
        (25, 36, "warning", ["61 s", "raise PRESENCE_TIMEOUT"]),
        (25, 35, "ok", ["25 s"]),
        ((25, 10), 20, "ok", ["25 s"]),
        (5, 5, "ok", ["5 s"]),
    ],
)
def test_pings_that_are_too_rare_for_the_timeout_are_found(
    diagnose: Diagnose, ping_interval: Any, ping_timeout: float, status: str, words: list[str]
) -> None:
    options = {"ping_interval": ping_interval, "ping_timeout": ping_timeout}

    is_found(diagnose(socketio=options)["heartbeats"], status, *words)


def test_a_timeout_that_is_too_short_for_the_pings_is_found(diagnose: Diagnose) -> None:
    short = {"PRESENCE_TIMEOUT": 20, "PRESENCE_HEARTBEAT_INTERVAL": 10}

    is_found(diagnose(**short)["heartbeats"], "problem", "20 s", "ping_interval of 10 or less")
    matching = {"ping_interval": 10, "ping_timeout": 5}
    is_found(diagnose(socketio=matching, **short)["heartbeats"], "ok")


@pytest.mark.parametrize(("seconds", "status"), [(3, "warning"), (3.1, "ok"), (15, "ok")])
def test_a_lease_that_one_slow_answer_ends_is_found(
    diagnose: Diagnose, seconds: float, status: str
) -> None:
    is_found(diagnose(PRESENCE_WORKER_TIMEOUT=seconds)["lease"], status, f"after {seconds:g} s")


@pytest.mark.parametrize(
    ("seconds", "status", "words"),
    [
        (0, "ok", []),
        (0.5, "warning", ["raise PRESENCE_LEAVE_GRACE"]),
        (1.5, "warning", ["raise PRESENCE_LEAVE_GRACE"]),
        (2, "ok", []),
        (60, "ok", []),
        (61, "warning", ["lower PRESENCE_LEAVE_GRACE"]),
    ],
)
def test_a_grace_that_is_too_short_or_too_long_is_found(
    diagnose: Diagnose, seconds: float, status: str, words: list[str]
) -> None:
    is_found(diagnose(PRESENCE_LEAVE_GRACE=seconds)["grace"], status, *words)


@pytest.mark.parametrize(
    ("seconds", "status", "words"),
    [(0, "ok", []), (0.9, "ok", []), (1, "warning", ["1 s", "lower PRESENCE_BATCH_WINDOW"])],
)
def test_changes_that_gather_for_too_long_are_found(
    diagnose: Diagnose, seconds: float, status: str, words: list[str]
) -> None:
    is_found(diagnose(PRESENCE_BATCH_WINDOW=seconds)["batches"], status, *words)


# Origins


@pytest.mark.parametrize("origins", ["*", ["*"], ["https://a.example", "*"], []])
def test_a_door_that_is_open_to_all_pages_is_found(diagnose: Diagnose, origins: Any) -> None:
    with_cookies = diagnose(socketio={"cors_allowed_origins": origins})
    without = diagnose(socketio={"cors_allowed_origins": origins, "cors_credentials": False})

    is_found(with_cookies["origins"], "problem", repr(origins), "name the origins")
    is_found(without["origins"], "warning", repr(origins), "auth")


@pytest.mark.parametrize(
    "origins", [None, "https://a.example", ["https://a.example"], lambda origin: False]
)
def test_origins_that_are_named_are_fine(diagnose: Diagnose, origins: Any) -> None:
    is_found(diagnose(socketio={"cors_allowed_origins": origins})["origins"], "ok")


# The async mode and WebSocket


def stand_in(folder: Path, modules: dict[str, str]) -> Path:
    """Modules that are found as if they were installed."""
    for name, text in modules.items():
        path = folder / "stand_in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "stand_in"


@pytest.fixture
def diagnose_apart(flask_presence: Any) -> Diagnose:
    """What doctor says in a process of its own."""

    def diagnose(
        *, socketio: dict[str, Any] | None = None, **options: Any
    ) -> dict[str, tuple[str, str]]:
        command: Command = flask_presence(
            "doctor", "--json", config={"SOCKETIO": socketio or {}}, **options
        )
        command.finish()
        assert command.output, command.errors
        return by_check("".join(command.output))

    return diagnose


EVENTLET = {
    "eventlet/__init__.py": "import queue\nsleep = spawn = None\n",
    "eventlet/green/__init__.py": "",
    "eventlet/green/threading.py": "from threading import Event\n",
    "eventlet/websocket.py": "class WebSocketWSGI: pass\n",
}


def test_eventlet_is_found_where_a_server_would_take_it(
    diagnose_apart: Diagnose, tmp_path: Path
) -> None:
    path = stand_in(tmp_path, EVENTLET)

    # Not told which, Flask-SocketIO takes threading in the flask command, and eventlet elsewhere.
    found = diagnose_apart(socketio={"async_mode": None}, path=path)
    told = diagnose_apart(socketio={"async_mode": "threading"}, path=path)

    is_found(found["async mode"], "problem", "eventlet", "uninstall it")
    is_found(told["async mode"], "ok", "threading")


def test_gevent_without_monkey_patching_is_found(diagnose_apart: Diagnose) -> None:
    bare = diagnose_apart(socketio={"async_mode": "gevent"})
    patched = diagnose_apart(
        socketio={"async_mode": "gevent"}, begin="from gevent import monkey; monkey.patch_all()"
    )

    is_found(bare["async mode"], "warning", "gevent.monkey.patch_all()")
    is_found(patched["async mode"], "ok", "gevent")
    is_found(patched["websocket"], "ok")


def test_an_async_mode_without_websocket_is_found(diagnose_apart: Diagnose, tmp_path: Path) -> None:
    path = stand_in(tmp_path, {"uwsgi.py": ""})

    found = diagnose_apart(socketio={"async_mode": "gevent_uwsgi"}, path=path)

    is_found(found["websocket"], "warning", "gevent_uwsgi", "poll")


def test_gevent_websocket_is_found_where_it_gets_in_the_way(
    diagnose_apart: Diagnose, tmp_path: Path
) -> None:
    path = stand_in(tmp_path, {"geventwebsocket.py": ""})

    gevent = diagnose_apart(socketio={"async_mode": "gevent"}, path=path)
    threading = diagnose_apart(socketio={"async_mode": "threading"}, path=path)

    is_found(gevent["websocket"], "warning", "gevent-websocket", "uninstall it")
    is_found(threading["websocket"], "ok")


def test_transports_without_websocket_are_found(diagnose: Diagnose) -> None:
    is_found(diagnose(socketio={"transports": ["polling"]})["websocket"], "warning", "transports")
    is_found(diagnose(socketio={"transports": ["websocket"]})["websocket"], "ok")
    is_found(diagnose()["websocket"], "ok")
