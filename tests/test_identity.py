"""Who somebody is: ids, the hooks of the app, and Flask-Login where it is set up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from flask import Flask, request
from flask_login import LoginManager, UserMixin, current_user, login_user
from flask_socketio import SocketIO
from named import named
from wire import eventually

from flask_presence import ChannelConfig, Presence
from flask_presence.identity import Hooks, user_id_of
from flask_presence.model import ANONYMOUS

MakeApp = Callable[..., tuple[Flask, Presence]]

UUID_7 = UUID(int=7)


class WithGetId:
    id = "not this one"

    def __init__(self, value: Any) -> None:
        self.value = value

    def get_id(self) -> Any:
        return self.value


def with_id(value: Any) -> Any:
    return SimpleNamespace(id=value)


def hooks(**replaced: Any) -> Hooks:
    """Hooks whose loader gives what it gets."""
    made = Hooks(lambda auth: auth)
    for name, hook in replaced.items():
        setattr(made, name, hook)
    return made


def identify(made: Hooks, user: Any, max_info_bytes: int = 1024) -> Any:
    return made.identify(user, max_info_bytes=max_info_bytes)


# Ids


@pytest.mark.parametrize(
    ("user", "user_id"),
    [
        ("7", "7"),
        (7, "7"),
        (0, "0"),
        (-7, "-7"),
        (UUID_7, str(UUID_7)),
        (with_id("7"), "7"),
        (with_id(7), "7"),
        (with_id(UUID_7), str(UUID_7)),
        (WithGetId("7"), "7"),
        (WithGetId(7), "7"),
        (WithGetId(UUID_7), str(UUID_7)),
        ("x" * 255, "x" * 255),
        ("é" * 127, "é" * 127),
        ("Zoë Ω \U0001f600", "Zoë Ω \U0001f600"),
        ("__proto__", "__proto__"),
    ],
    ids=named,
)
def test_a_user_s_id_is_a_string(user: Any, user_id: str) -> None:
    assert user_id_of(user) == user_id


NO_IDS = [
    "",
    "x" * 256,
    "é" * 128,
    "a\x00b",
    "a\nb",
    "a\x7fb",
    "a\x85b",
    "a\ud800b",
    True,
    False,
    None,
    1.5,
    b"7",
    [],
    {},
]


@pytest.mark.parametrize("wrap", [lambda value: value, with_id, WithGetId], ids=["", "id", "get"])
@pytest.mark.parametrize("value", NO_IDS, ids=named)
def test_what_is_no_id_is_an_error(value: Any, wrap: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match="user"):
        user_id_of(wrap(value))


def test_a_user_without_an_id_is_an_error() -> None:
    with pytest.raises(ValueError, match="get_id"):
        user_id_of(object())


# Hooks


def test_nobody_is_anonymous() -> None:
    assert identify(hooks(), None) is ANONYMOUS


def test_a_user_who_is_not_authenticated_is_anonymous() -> None:
    assert identify(hooks(), SimpleNamespace(is_authenticated=False, id="7")) is ANONYMOUS


def test_a_user_who_is_authenticated_is_a_user() -> None:
    assert identify(hooks(), SimpleNamespace(is_authenticated=True, id="7")).user_id == "7"


def test_by_default_a_user_has_no_info_and_no_groups() -> None:
    identity = identify(hooks(), "7")

    assert (identity.user_id, identity.info, identity.group_ids) == ("7", "{}", frozenset())


def test_a_user_s_info_is_kept_as_canonical_json() -> None:
    made = hooks(info=lambda user: {"b": [1, None], "a": "Zoë"})

    assert identify(made, "7").info == '{"a":"Zoë","b":[1,null]}'


def test_the_info_and_groups_are_those_of_the_user_object_that_was_loaded() -> None:
    user = with_id("7")
    seen: list[Any] = []
    made = hooks(
        info=lambda user: seen.append(user) or {}, groups=lambda user: seen.append(user) or ()
    )

    made.load(user, max_info_bytes=1024)

    assert seen == [user, user]


def test_all_who_are_in_no_group_share_what_says_so() -> None:
    """An empty set of one's own would be a tenth of what a connection costs."""
    first, second = (identify(hooks(groups=lambda user: []), user) for user in "78")

    assert first.group_ids is second.group_ids


def test_nobody_s_info_and_groups_are_asked_for() -> None:
    def unexpected(user: Any) -> Any:
        raise AssertionError("there is no user")

    assert identify(hooks(info=unexpected, groups=unexpected), None) is ANONYMOUS


NO_INFO = [
    None,
    "name",
    ["name"],
    {"name": object()},
    {"name": b"bytes"},
    {"name": {1, 2}},
    {"name": float("nan")},
    {"name": float("inf")},
    {"name": "\ud800"},
    {"\ud800": 1},
    {7: "name"},
    {"n": 10**400},
    {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {}}}}}}}}},
    {"a": [[[[[[[[]]]]]]]]},
    {"a": ((((((((),),),),),),),)},
    {"name": "x" * 1014},
    {"name": "é" * 507},
]


@pytest.mark.parametrize("info", NO_INFO, ids=named)
def test_an_info_that_is_too_large_or_no_json_is_left_out_and_logged(
    info: Any, caplog: pytest.LogCaptureFixture
) -> None:
    identity = identify(hooks(info=lambda user: info, groups=lambda user: ["g"]), "7")

    assert (identity.user_id, identity.info, identity.group_ids) == ("7", "{}", {"g"})
    (record,) = caplog.records
    assert record.levelno >= logging.ERROR
    assert "7" in record.getMessage()


@pytest.mark.parametrize(
    "info",
    [
        {"name": "x" * 1013},
        {"a": {"b": {"c": {"d": {"e": {"f": {"g": {}}}}}}}},
        {"n": 2**64, "f": 1e300, "none": None, "yes": True},
    ],
    ids=named,
)
def test_an_info_that_is_just_small_enough_is_kept(
    info: Any, caplog: pytest.LogCaptureFixture
) -> None:
    identity = identify(hooks(info=lambda user: info), "7")

    assert identity.info != "{}"
    assert caplog.records == []


def test_the_largest_info_is_the_settings_affair() -> None:
    made = hooks(info=lambda user: {"name": "ada"})

    assert identify(made, "7", max_info_bytes=14).info == '{"name":"ada"}'
    assert identify(made, "7", max_info_bytes=13).info == "{}"


def test_an_info_hook_that_raises_is_logged_and_spoils_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def raises(user: Any) -> Any:
        raise RuntimeError("no avatar")

    identity = identify(hooks(info=raises, groups=lambda user: ["g"]), "7")

    assert (identity.user_id, identity.info, identity.group_ids) == ("7", "{}", {"g"})
    (record,) = caplog.records
    assert record.levelno >= logging.ERROR
    assert record.exc_info is not None


@pytest.mark.parametrize("kind", [list, tuple, set, iter])
def test_groups_may_be_any_iterable_and_are_kept_as_strings(kind: Any) -> None:
    made = hooks(groups=lambda user: kind([7, "staff", UUID_7]))

    assert identify(made, "7").group_ids == {"7", "staff", str(UUID_7)}


def raises(user: Any) -> Any:
    raise RuntimeError("no groups")


def raises_midway(user: Any) -> Iterator[str]:
    yield "staff"
    raise RuntimeError("no more groups")


@pytest.mark.parametrize("hook", [raises, raises_midway, lambda user: None, lambda user: 7])
def test_a_groups_hook_that_fails_is_logged_and_gives_no_groups(
    hook: Any, caplog: pytest.LogCaptureFixture
) -> None:
    identity = identify(hooks(info=lambda user: {"a": 1}, groups=hook), "7")

    assert (identity.user_id, identity.info, identity.group_ids) == ("7", '{"a":1}', frozenset())
    (record,) = caplog.records
    assert record.levelno >= logging.ERROR


def test_a_text_is_no_iterable_of_groups(caplog: pytest.LogCaptureFixture) -> None:
    identity = identify(hooks(groups=lambda user: "staff"), "7")

    assert "s" not in identity.group_ids


def test_what_the_loader_raises_is_not_swallowed() -> None:
    def load(auth: Any) -> Any:
        raise RuntimeError("who knows")

    with pytest.raises(RuntimeError, match="who knows"):
        Hooks(load).load(None, max_info_bytes=1024)


def test_hooks_may_be_registered_after_the_app_was_set_up(make_app: MakeApp) -> None:
    app, presence = make_app()

    @presence.user_loader
    def load_user(auth: Any) -> Any:
        return "late"

    @presence.user_groups
    def groups(user: Any) -> Any:
        return ["staff"]

    with app.test_request_context():
        assert presence.state_of("/staff/x") is not None


def test_registering_gives_the_hook_back() -> None:
    presence = Presence()

    for register in (presence.user_loader, presence.user_info, presence.user_groups):

        def hook(value: Any) -> Any:
            return value

        assert register(hook) is hook


def test_for_http_and_templates_the_loader_gets_none(make_app: MakeApp) -> None:
    app, presence = make_app()
    seen: list[Any] = []
    presence.user_loader(seen.append)

    with app.test_request_context():
        presence.state_of("/room/1")

    assert seen == [None]


# On a connection


def test_the_hooks_run_together_and_once_per_connection_in_its_request_context(
    serve: Any, dial: Any
) -> None:
    port, _, presence = serve()
    seen: list[tuple[str, Any]] = []

    @presence.user_loader
    def load_user(auth: Any) -> Any:
        seen.append(("user", (auth, request.headers["X-Test"])))
        return "7"

    presence.user_info(lambda user: seen.append(("info", user)) or {})
    presence.user_groups(lambda user: seen.append(("groups", user)) or [])
    wire = dial(port, auth={"token": "t"}, headers={"X-Test": "x"})

    for name in ("/room/1", "/room/2"):
        assert wire.call("enter", {"channel": name})["ok"]
        assert wire.call("subscribe", {"channel": name})["ok"]

    assert sorted(seen) == [("groups", "7"), ("info", "7"), ("user", ({"token": "t"}, "x"))]


@pytest.mark.parametrize("user", [True, "a\nb", "x" * 256, object()], ids=named)
def test_a_user_without_a_proper_id_is_refused_and_that_is_logged(
    serve: Any, dial: Any, caplog: pytest.LogCaptureFixture, user: Any
) -> None:
    port, _, presence = serve()
    presence.user_loader(lambda auth: user)

    wire = dial(port)

    assert wire.refused is not None
    assert any(record.name.startswith("flask_presence") for record in caplog.records)


def test_a_loader_that_raises_refuses_the_connection_and_is_logged(
    serve: Any, dial: Any, caplog: pytest.LogCaptureFixture
) -> None:
    port, _, _ = serve()

    wire = dial(port, auth={"raises": True})

    assert wire.refused is not None
    assert "told to raise" in caplog.text


# Flask-Login


class Account(UserMixin):
    def __init__(self, user_id: str) -> None:
        self.id = user_id


@pytest.fixture
def login(tmp_path: Any) -> Iterator[tuple[Flask, Presence]]:
    app = Flask(__name__, instance_path=str(tmp_path))
    app.config.update(SECRET_KEY="test", PRESENCE_BACKEND="memory://")
    SocketIO(app, async_mode="threading")
    manager = LoginManager(app)
    manager.user_loader(Account)
    presence = Presence(app)
    presence.channel_config("only")(lambda name: ChannelConfig(allowed_user_ids=["7"]))
    yield app, presence
    app.extensions["presence"].stop()


def test_who_is_logged_in_with_flask_login_is_the_user(login: tuple[Flask, Presence]) -> None:
    app, presence = login

    with app.test_request_context():
        login_user(Account("7"))
        state = presence.state_of("/only/x")

    assert state is not None


def test_who_is_logged_in_as_another_is_another(login: tuple[Flask, Presence]) -> None:
    app, presence = login

    with app.test_request_context():
        login_user(Account("8"))

        assert presence.state_of("/only/x") is None


def test_who_is_not_logged_in_with_flask_login_is_anonymous(login: tuple[Flask, Presence]) -> None:
    app, presence = login

    with app.test_request_context():
        assert presence.state_of("/only/x") is None


def test_flask_login_s_user_of_the_session_is_the_user_of_the_connection(
    login: tuple[Flask, Presence],
) -> None:
    app, _ = login
    app.add_url_rule("/login", view_func=lambda: str(login_user(Account("7"))))
    browser = app.test_client()
    browser.get("/login")
    socketio = app.extensions["socketio"]

    client = socketio.test_client(app, namespace="/presence", flask_test_client=browser)

    (hello,) = eventually(lambda: client.get_received("/presence"))
    assert hello["name"] == "hello"
    assert hello["args"][0]["user_id"] == "7"


def test_current_user_itself_can_be_asked_about(login: tuple[Flask, Presence]) -> None:
    app, presence = login

    with app.test_request_context():
        channel = presence.channel("/only/x")
        assert not channel.can_enter(current_user)

        login_user(Account("7"))

        assert channel.can_enter(current_user)
        assert current_user not in channel


def test_without_flask_login_everyone_is_anonymous(tmp_path: Any) -> None:
    app = Flask(__name__, instance_path=str(tmp_path))
    app.config.update(PRESENCE_BACKEND="memory://")
    SocketIO(app, async_mode="threading")
    presence = Presence(app)
    presence.channel_config("all")(lambda name: ChannelConfig(public=True))
    presence.channel_config("none")(lambda name: ChannelConfig())

    with app.test_request_context():
        states = presence.state_of(["/all/x", "/none/x"])

    assert states["/all/x"] is not None
    assert states["/none/x"] is None
