"""`Presence` sets itself up on an app, or on several, and keeps what belongs to each apart."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from flask import Flask, current_app
from flask_socketio import SocketIO
from flask_sqlalchemy import SQLAlchemy

import flask_presence
from flask_presence import ChannelConfig, Presence, signals
from flask_presence.backends.memory import MemoryBackend


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Callable[..., Flask]]:
    """Makes apps without presence."""
    apps: list[Flask] = []

    def make(name: str = "app", **config: Any) -> Flask:
        app = Flask(name, instance_path=str(tmp_path / name))
        app.config.update({"PRESENCE_BACKEND": "memory://"} | config)
        apps.append(app)
        return app

    yield make
    for app in apps:
        if "presence" in app.extensions:
            app.extensions["presence"].stop()


@pytest.fixture
def make(bare: Callable[..., Flask]) -> Callable[..., Flask]:
    """Makes apps with Flask-SocketIO."""

    def make(name: str = "app", **config: Any) -> Flask:
        app = bare(name, **config)
        SocketIO(app, async_mode="threading")
        return app

    return make


Make = Callable[..., Flask]


def public(name: str) -> ChannelConfig:
    return ChannelConfig(public=True)


def enter(app: Flask, presence: Presence, user: str = "7") -> Any:
    with app.app_context():
        return presence.channel("/room/1").enter(user, client_id=user)


def user_ids(app: Flask, presence: Presence) -> list[str]:
    with app.app_context():
        return list(presence.channel("/room/1").user_ids)


# Setting up


@pytest.mark.parametrize(
    "name",
    [
        "Presence",
        "ChannelConfig",
        "State",
        "User",
        "Change",
        "PresenceError",
        "ChannelNotFound",
        "ChannelUnavailable",
        "AccessDenied",
        "ChannelFull",
        "InvalidChannelConfig",
        "BackendUnavailable",
    ],
)
def test_the_package_has_the_name(name: str) -> None:
    assert hasattr(flask_presence, name)
    assert name in flask_presence.__all__


def test_an_app_may_be_given_at_once_or_later(make: Make) -> None:
    one, two = make("one"), make("two")

    presence = Presence(one)
    later = Presence()
    later.init_app(two)

    for app, each in ((one, presence), (two, later)):
        each.channel_config("room")(public)
        assert enter(app, each) is not None


def test_without_flask_socketio_the_error_says_which_line_is_missing(bare: Make) -> None:
    with pytest.raises(RuntimeError, match=r"socketio\.init_app\(app\)"):
        Presence(bare())


def test_a_socketio_that_was_not_initialised_is_no_socketio(bare: Make) -> None:
    with pytest.raises(RuntimeError, match=r"socketio\.init_app\(app\)"):
        Presence(bare(), socketio=SocketIO())


def test_the_missing_line_may_be_added(bare: Make) -> None:
    app, presence = bare(), Presence()
    presence.channel_config("room")(public)
    with pytest.raises(RuntimeError):
        presence.init_app(app)

    SocketIO(app, async_mode="threading")
    presence.init_app(app)

    assert enter(app, presence) is not None


def test_a_wrong_setting_may_be_put_right(make: Make) -> None:
    app, presence = make(PRESENCE_TIMEOUT=-1), Presence()
    presence.channel_config("room")(public)
    with pytest.raises(ValueError, match="PRESENCE_TIMEOUT"):
        presence.init_app(app)

    app.config["PRESENCE_TIMEOUT"] = 60
    presence.init_app(app)

    assert enter(app, presence) is not None


@pytest.mark.parametrize("second", ["the same", "another"])
def test_a_second_init_app_on_one_app_is_an_error(make: Make, second: str) -> None:
    app = make()
    presence = Presence(app)
    own_part = app.extensions["presence"]

    with pytest.raises(RuntimeError, match="init_app"):
        (presence if second == "the same" else Presence()).init_app(app)

    assert app.extensions["presence"] is own_part


def test_an_app_s_own_part_is_in_its_extensions(make: Make) -> None:
    one, two = make("one"), make("two")

    presence = Presence(one)
    presence.init_app(two)

    assert one.extensions["presence"] is not two.extensions["presence"]
    assert one.extensions["presence"] is not presence


def test_without_init_app_the_error_says_which_line_is_missing(bare: Make) -> None:
    presence = Presence()

    with bare().app_context(), pytest.raises(RuntimeError, match=r"presence\.init_app\(app\)"):
        presence.channel("/room/1")


# Keywords


def test_the_socketio_may_be_given(bare: Make) -> None:
    app = bare()
    given = SocketIO(app, async_mode="threading")
    # As though another one had been set up on the app since.
    app.extensions["socketio"] = object()

    Presence(app, socketio=given)

    assert "/presence" in given.server.handlers


def test_the_socketio_given_to_init_app_goes_before_the_one_given_before(bare: Make) -> None:
    app = bare()
    first, second = (SocketIO(app, async_mode="threading") for _ in range(2))

    Presence(socketio=first).init_app(app, socketio=second)

    assert "/presence" in second.server.handlers
    assert "/presence" not in first.server.handlers


@pytest.mark.parametrize("where", ["Presence", "init_app"])
def test_a_backend_may_be_given_and_goes_before_the_setting(make: Make, where: str) -> None:
    app, backend = make(PRESENCE_BACKEND="gopher://no.such.store"), MemoryBackend()

    if where == "Presence":
        Presence(app, backend=backend)
    else:
        Presence(backend="gopher://neither").init_app(app, backend=backend)

    assert app.extensions["presence"].backend is backend


def test_a_backend_may_be_given_as_a_url(make: Make, tmp_path: Path) -> None:
    app = make()

    Presence(app, backend="sqlite:///who.sqlite3")

    assert app.extensions["presence"].backend.engine.url.database.endswith("who.sqlite3")


def test_a_backend_that_is_given_is_for_that_app_alone(make: Make) -> None:
    one, two, backend = make("one"), make("two"), MemoryBackend()
    presence = Presence()

    presence.init_app(one, backend=backend)
    presence.init_app(two)

    assert one.extensions["presence"].backend is backend
    assert two.extensions["presence"].backend is not backend


def test_a_backend_that_makes_no_sense_is_an_error(make: Make) -> None:
    for value in ("", 7, object()):
        with pytest.raises(ValueError, match="PRESENCE_BACKEND"):
            Presence(make(), backend=value)  # type: ignore[arg-type]


def test_the_scheduler_given_to_init_app_goes_before_the_one_given_before(make: Make) -> None:
    first, second = BackgroundScheduler(), BackgroundScheduler()

    Presence(scheduler=first).init_app(make(), scheduler=second)

    assert first.get_jobs() == []
    assert second.get_job("flask_presence.prune") is not None


@pytest.mark.parametrize("where", ["on the app", "Presence", "init_app"])
def test_the_db_is_the_app_s_or_given(make: Make, where: str) -> None:
    app = make(SQLALCHEMY_DATABASE_URI="sqlite:///app.sqlite3", PRESENCE_BACKEND="sqlalchemy://")
    db = SQLAlchemy()
    db.init_app(app)

    if where == "on the app":
        Presence(app)
    elif where == "Presence":
        Presence(app, db=db)
    else:
        Presence().init_app(app, db=db)

    assert "presence_members" in db.metadata.tables
    with app.app_context():
        db.engine.dispose()


def test_keywords_are_keywords_alone(make: Make) -> None:
    app = make()

    with pytest.raises(TypeError):
        Presence(app, app.extensions["socketio"])  # type: ignore[misc]


# Several apps


def test_settings_do_not_leak_from_one_app_into_another(make: Make) -> None:
    one = make("one", PRESENCE_TIMEOUT=100, PRESENCE_NAMESPACE="/one", PRESENCE_URL_PREFIX="/one")
    two = make("two")
    presence = Presence(one)

    presence.init_app(two)

    assert one.extensions["presence"].settings.timeout == 100
    assert two.extensions["presence"].settings.timeout == 60
    for app, prefix, other in ((one, "/one", "/presence"), (two, "/presence", "/one")):
        handlers = app.extensions["socketio"].server.handlers
        assert prefix in handlers
        assert other not in handlers
        client = app.test_client()
        with client.get(f"{prefix}/static/presence.js") as response:
            assert response.status_code == 200
        assert client.get(f"{other}/static/presence.js").status_code == 404


def test_members_do_not_leak_from_one_app_into_another(make: Make) -> None:
    one, two = make("one"), make("two")
    presence = Presence(one)
    presence.init_app(two)
    presence.channel_config("room")(public)

    enter(one, presence)

    assert user_ids(one, presence) == ["7"]
    assert user_ids(two, presence) == []


def test_what_a_callback_said_for_one_app_is_not_said_for_another(make: Make) -> None:
    one, two = make("one"), make("two")
    presence = Presence(one)
    presence.init_app(two)
    asked: list[Any] = []

    @presence.channel_config("room")
    def room(name: str) -> ChannelConfig | None:
        asked.append(current_app._get_current_object())
        return ChannelConfig(public=True) if current_app.name == "one" else None

    for _ in range(2):
        with one.test_request_context():
            assert presence.state_of("/room/1") is not None
        with two.test_request_context():
            assert presence.state_of("/room/1") is None

    assert asked == [one, two]


def test_forgetting_a_config_of_one_app_forgets_none_of_another(make: Make) -> None:
    one, two = make("one"), make("two")
    presence = Presence(one)
    presence.init_app(two)
    asked: list[str] = []

    @presence.channel_config("room")
    def room(name: str) -> ChannelConfig:
        asked.append(current_app.name)
        return ChannelConfig(public=True)

    for app in (one, two):
        with app.app_context():
            presence.channel("/room/1")
    with one.app_context():
        presence.forget_config()
    for app in (one, two):
        with app.app_context():
            presence.channel("/room/1")

    assert asked == ["one", "two", "one"]


def test_each_app_s_own_heartbeat_interval_bounds_its_timeouts(make: Make) -> None:
    one = make("one", PRESENCE_HEARTBEAT_INTERVAL=5)
    two = make("two")
    presence = Presence(one)
    presence.init_app(two)
    presence.channel_config("room")(lambda name: ChannelConfig(public=True, timeout=10))

    assert enter(one, presence) is not None
    with pytest.raises(ValueError, match="PRESENCE_HEARTBEAT_INTERVAL"):
        enter(two, presence)


def test_who_the_user_is_is_asked_for_each_app(make: Make) -> None:
    one, two = make("one"), make("two")
    presence = Presence(one)
    presence.init_app(two)
    presence.user_loader(lambda auth: f"user of {current_app.name}")
    presence.channel_config("room")(lambda name: ChannelConfig(allowed_user_ids=["user of one"]))

    with one.test_request_context():
        assert presence.state_of("/room/1") is not None
    with two.test_request_context():
        assert presence.state_of("/room/1") is None


def test_a_signal_s_sender_is_the_app(make: Make) -> None:
    one, two = make("one"), make("two")
    presence = Presence(one)
    presence.init_app(two)
    presence.channel_config("room")(public)
    senders: list[Flask] = []

    def receiver(sender: Flask, **about: Any) -> None:
        senders.append(sender)

    with signals.presence_changed.connected_to(receiver):
        enter(two, presence)
        enter(one, presence)

    assert senders == [two, one]


def test_two_presences_share_nothing(make: Make) -> None:
    one, two = Presence(make("one")), Presence(make("two"))
    one.channel_config("room")(public)
    two.channel_config("room")(public)

    one.user_loader(lambda auth: "7")

    assert two._hooks.load_user is not one._hooks.load_user


# Manners


def test_cookies_from_any_origin_are_warned_about_when_the_work_starts(
    bare: Make, caplog: pytest.LogCaptureFixture
) -> None:
    app = bare()
    SocketIO(app, async_mode="threading", cors_allowed_origins="*")
    presence = Presence(app)
    presence.channel_config("room")(public)
    assert "cors_allowed_origins" not in caplog.text

    with app.test_request_context():
        enter(app, presence)

    (record,) = [record for record in caplog.records if "cors_allowed" in record.getMessage()]
    assert record.levelno >= logging.WARNING


def test_a_feature_that_is_off_is_not_imported(tmp_path: Path) -> None:
    program = (
        "import json, sys\n"
        "from server import create_app\n"
        f"app, presence = create_app({{'instance_path': {str(tmp_path)!r}, "
        "'PRESENCE_BACKEND': 'memory://'})\n"
        "with app.test_request_context():\n"
        "    presence.state_of('/room/1')\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    modules = set(json.loads(done.stdout))
    assert modules & {"sqlalchemy", "flask_sqlalchemy", "flask_login", "gevent"} == set()


def test_the_app_s_own_namespaces_are_left_alone(make: Make) -> None:
    app = make()
    socketio = app.extensions["socketio"]
    socketio.on_event("connect", lambda *args: None)
    before = {name: dict(handlers) for name, handlers in socketio.server.handlers.items()}

    Presence(app)

    after = dict(socketio.server.handlers)
    after.pop("/presence")
    assert after == before
