"""Channels exist just in time: rules and prefixes, what callbacks say, and who may be in."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from flask import Flask, current_app, g, has_request_context, request, session
from named import named
from wire import PATIENCE, eventually

from flask_presence import (
    ChannelConfig,
    ChannelNotFound,
    ChannelUnavailable,
    InvalidChannelConfig,
    Presence,
)
from flask_presence.channels import Registry, Rules, can_enter, can_view
from flask_presence.model import ANONYMOUS, Identity

MakeApp = Callable[..., tuple[Flask, Presence]]

PUBLIC = ChannelConfig(public=True)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Answer:
    """A callback that says what it is told to, and remembers what it was asked."""

    def __init__(self, answer: Any = PUBLIC) -> None:
        self.answer = answer
        self.asked: list[Any] = []

    def __call__(self, *args: Any, **values: Any) -> Any:
        self.asked.append(values or args[0])
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def registry_of(
    *rules: str, answer: Any = PUBLIC, cache_seconds: float = 120
) -> tuple[Registry, Answer, Clock]:
    known, callback, clock = Rules(), Answer(answer), Clock()
    for rule in rules:
        known.add(rule, callback)
    registry = Registry(
        known,
        call=lambda callback: callback(),
        cache_seconds=cache_seconds,
        heartbeat_interval=25,
        clock=clock,
    )
    return registry, callback, clock


# Rules and prefixes


@pytest.mark.parametrize(
    ("rule", "name", "values"),
    [
        ("/topic/<int:topic_id>", "/topic/42", {"topic_id": 42}),
        ("/topic/<topic>", "/topic/42", {"topic": "42"}),
        ("/topic/<topic>", "/topic/a b|?&=%25+", {"topic": "a b|?&=%25+"}),
        ("/topic/<topic>", "/topic/Zoë ١", {"topic": "Zoë ١"}),
        ("/wiki/<path:page>", "/wiki/a/b/c", {"page": "a/b/c"}),
        ("/wiki/<path:page>/edit", "/wiki/a/b/edit", {"page": "a/b"}),
        ("/doc/<uuid:key>", f"/doc/{UUID(int=7)}", {"key": UUID(int=7)}),
        ("/x-y_Z/<any(a, b):letter>/<int:n>", "/x-y_Z/b/0", {"letter": "b", "n": 0}),
        ("/t/<int(fixed_digits=4):n>", "/t/0042", {"n": 42}),
        ("/t/<int(signed=True):n>", "/t/-42", {"n": -42}),
        ("/t/<int:n>/", "/t/42/", {"n": 42}),
    ],
)
def test_a_rule_s_callback_gets_its_values(rule: str, name: str, values: dict[str, Any]) -> None:
    registry, callback, _ = registry_of(rule)

    config = registry.resolve(name)

    assert config is PUBLIC
    assert callback.asked == [values]


def test_a_rule_may_be_one_literal_name() -> None:
    known = Rules()
    known.add("/site/online", lambda: PUBLIC)

    found = known.find("/site/online")

    assert found is not None
    assert found() is PUBLIC
    assert known.find("/site/offline") is None


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ("/topic/<int:n>", "/topic/0042"),
        ("/topic/<int:n>", "/topic/٤٢"),
        ("/topic/<int:n>", "//topic/42"),
        ("/topic/<int:n>", "topic/42"),
        ("/topic/<int:n>", "/topic//42"),
        ("/topic/<int:n>", "/topic/42/"),
        ("/topic/<int:n>/", "/topic/42"),
        ("/topic/<int:n>", "/topic/+42"),
        ("/topic/<int:n>", "/topic/-42"),
        ("/topic/<int:n>", "/topic/4_2"),
        ("/topic/<int:n>", "/Topic/42"),
        ("/topic/<int:n>", "/topic/42\n"),
        ("/topic/<int:n>", "/topic/42?a=b"),
        ("/topic/<int:n>", "/topic/%34%32"),
        ("/topic/<int:n>", "/topic/"),
        ("/topic/<name>", "/topic/a/b"),
        ("/price/<float:x>", "/price/1.50"),
        ("/doc/<uuid:key>", f"/doc/{str(UUID(int=0xABC << 64)).upper()}"),
        ("/wiki/<path:page>", "/wiki//a"),
    ],
)
def test_a_rule_matches_only_the_very_name_that_it_builds(rule: str, name: str) -> None:
    registry, callback, _ = registry_of(rule)

    with pytest.raises(ChannelNotFound):
        registry.resolve(name)

    assert callback.asked == []


def test_a_bare_prefix_s_callback_gets_the_whole_name() -> None:
    registry, callback, _ = registry_of("site")

    registry.resolve("/site/online/now//x")

    assert callback.asked == ["/site/online/now//x"]


def test_a_bare_prefix_is_all_of_a_name_s_first_part() -> None:
    registry, callback, _ = registry_of("site")

    for name in ("/sites/online", "/sit/online", "/Site/online", "/other/site/x", "/site"):
        with pytest.raises(ChannelNotFound):
            registry.resolve(name)

    assert callback.asked == []


def test_rules_go_before_the_bare_prefix() -> None:
    known, by_prefix, by_rule = Rules(), Answer(), Answer()
    known.add("topic", by_prefix)
    known.add("/topic/<int:n>", by_rule)

    for name in ("/topic/42", "/topic/0042", "/topic/new"):
        found = known.find(name)
        assert found is not None
        found()

    assert by_rule.asked == [{"n": 42}]
    assert by_prefix.asked == ["/topic/0042", "/topic/new"]


def test_a_rule_s_no_is_not_asked_again_of_the_prefix() -> None:
    registry, callback, _ = registry_of("topic", "/topic/<int:n>", answer=None)

    with pytest.raises(ChannelNotFound):
        registry.resolve("/topic/42")

    assert callback.asked == [{"n": 42}]


@pytest.mark.parametrize(
    "rule",
    [
        "",
        "/",
        "//",
        "/topic",
        "/topic/",
        "//topic/<int:n>",
        "topic/<int:n>",
        "to pic",
        "töpic",
        "topic\n",
        "/to pic/<int:n>",
        "/<prefix>/online",
        "/topic<int:n>/online",
        "/topic/<int:n",
        "/topic/<int:>",
        "/topic/<no_such_converter:n>",
        "/topic/<int:n>/<int:n>",
        "/topic/<int(no_such_option=1):n>",
        "/topic/<string(length='a'):n>",
        None,
        7,
        b"topic",
    ],
    ids=named,
)
def test_a_malformed_prefix_or_rule_is_an_error_at_registration(rule: Any) -> None:
    presence = Presence()

    with pytest.raises(ValueError, match="channel_config"):
        presence.channel_config(rule)(Answer())


def test_a_decorator_without_its_rule_is_an_error_that_shows_how_it_is_written() -> None:
    presence = Presence()

    with pytest.raises(ValueError, match=r'@presence\.channel_config\("/topic/'):
        presence.channel_config(Answer())  # type: ignore[arg-type]  # the mistake


@pytest.mark.parametrize("rule", ["site", "/topic/<int:n>"])
def test_a_prefix_or_rule_registered_twice_is_an_error_that_names_it(rule: str) -> None:
    presence = Presence()
    presence.channel_config(rule)(Answer())

    with pytest.raises(ValueError, match=rule):
        presence.channel_config(rule)(Answer())


def test_a_refused_rule_spoils_no_other() -> None:
    known = Rules()
    with pytest.raises(ValueError, match="routing rule"):
        known.add("/topic/<no_such_converter:n>", Answer())
    known.add("/topic/<int:n>", Answer())

    found = known.find("/topic/42")

    assert found is not None


def test_registering_gives_the_callback_back() -> None:
    def callback(name: str) -> None:
        return None

    assert Presence().channel_config("site")(callback) is callback


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "site/x",
        "/site",
        "/site/",
        "//x",
        "/si te/x",
        "/sité/x",
        "/site/x ",
        "/site/x\u00a0",
        "/site/a\x00b",
        "/site/a\x7fb",
        "/site/a\x85b",
        "/site/\ud800",
        "/site/" + "x" * 250,
        "/site/" + "é" * 125,
        None,
        7,
    ],
    ids=named,
)
def test_a_malformed_name_is_no_channel(name: Any) -> None:
    registry, callback, _ = registry_of("site")

    with pytest.raises(ChannelNotFound):
        registry.resolve(name)

    assert callback.asked == []


@pytest.mark.parametrize(
    "name",
    ["/site/" + "x" * 249, "/site/" + "é" * 124 + "x", "/site/x y", "/a/b", "/-_9/\U0001f600"],
    ids=named,
)
def test_a_name_has_up_to_255_bytes_of_any_text(name: str) -> None:
    registry, callback, _ = registry_of("site", "a", "-_9")

    registry.resolve(name)

    assert callback.asked == [name]


# What callbacks say


def test_what_a_callback_said_is_remembered_for_the_cache_seconds() -> None:
    registry, callback, clock = registry_of("site", cache_seconds=120)
    registry.resolve("/site/a")

    clock.now += 119.9
    registry.resolve("/site/a")

    assert len(callback.asked) == 1

    clock.now += 0.2
    registry.resolve("/site/a")

    assert len(callback.asked) == 2


def test_that_there_is_no_channel_is_remembered_for_ten_seconds_at_most() -> None:
    registry, callback, clock = registry_of("site", answer=None)
    with pytest.raises(ChannelNotFound):
        registry.resolve("/site/a")

    clock.now += 9.9
    with pytest.raises(ChannelNotFound):
        registry.resolve("/site/a")

    assert len(callback.asked) == 1

    clock.now += 0.2
    callback.answer = PUBLIC

    assert registry.resolve("/site/a") is PUBLIC


def test_that_there_is_no_channel_is_remembered_no_longer_than_a_config() -> None:
    registry, callback, clock = registry_of("site", answer=None, cache_seconds=3)
    with pytest.raises(ChannelNotFound):
        registry.resolve("/site/a")

    clock.now += 3.1
    with pytest.raises(ChannelNotFound):
        registry.resolve("/site/a")

    assert len(callback.asked) == 2


def test_with_no_cache_seconds_a_callback_is_asked_each_time() -> None:
    registry, callback, _ = registry_of("site", cache_seconds=0)

    registry.resolve("/site/a")
    registry.resolve("/site/a")

    assert len(callback.asked) == 2


def test_ten_thousand_names_are_remembered_and_the_least_recently_used_goes_first() -> None:
    registry, callback, _ = registry_of("site")
    for number in range(10_000):
        registry.resolve(f"/site/{number}")
    registry.resolve("/site/0")
    assert len(callback.asked) == 10_000

    registry.resolve("/site/10000")
    callback.asked.clear()
    registry.resolve("/site/0")
    registry.resolve("/site/2")
    registry.resolve("/site/1")

    assert callback.asked == ["/site/1"]


def test_a_callback_that_raises_makes_its_channel_unavailable_and_is_asked_again() -> None:
    registry, callback, _ = registry_of("site", answer=RuntimeError("the database is away"))

    for _ in range(2):
        with pytest.raises(ChannelUnavailable):
            registry.resolve("/site/a")
    callback.answer = PUBLIC

    assert registry.resolve("/site/a") is PUBLIC


@pytest.mark.parametrize("answer", [True, {}, {"public": True}, "public", ChannelConfig, 0, ""])
def test_a_callback_that_gives_something_else_is_an_error_and_is_asked_again(answer: Any) -> None:
    registry, callback, _ = registry_of("site", answer=answer)

    for _ in range(2):
        with pytest.raises(InvalidChannelConfig, match="/site/a"):
            registry.resolve("/site/a")
    callback.answer = PUBLIC

    assert registry.resolve("/site/a") is PUBLIC


@pytest.mark.parametrize("timeout", [25, 24.9, 1])
def test_a_timeout_that_is_not_above_the_heartbeat_interval_is_an_error(timeout: float) -> None:
    registry, _, _ = registry_of("site", answer=ChannelConfig(timeout=timeout))

    with pytest.raises(InvalidChannelConfig, match="PRESENCE_HEARTBEAT_INTERVAL"):
        registry.resolve("/site/a")


def test_a_timeout_just_above_the_heartbeat_interval_will_do() -> None:
    registry, _, _ = registry_of("site", answer=ChannelConfig(timeout=25.1))

    assert registry.resolve("/site/a").timeout == 25.1


def test_a_forgotten_config_is_asked_for_again_and_others_are_not() -> None:
    registry, callback, _ = registry_of("site")
    registry.resolve("/site/a")
    registry.resolve("/site/b")

    registry.forget("/site/a")
    registry.resolve("/site/a")
    registry.resolve("/site/b")

    assert callback.asked == ["/site/a", "/site/b", "/site/a"]


def test_all_configs_can_be_forgotten_at_once() -> None:
    registry, callback, _ = registry_of("site")
    registry.resolve("/site/a")
    registry.resolve("/site/b")

    registry.forget()
    registry.resolve("/site/a")
    registry.resolve("/site/b")

    assert len(callback.asked) == 4


def test_a_config_that_was_read_before_it_was_forgotten_is_not_kept() -> None:
    known = Rules()
    asked: list[str] = []

    def forgotten_meanwhile(name: str) -> ChannelConfig:
        asked.append(name)
        if len(asked) == 1:
            registry.forget(name)
        return PUBLIC

    known.add("site", forgotten_meanwhile)
    registry = Registry(
        known, call=lambda callback: callback(), cache_seconds=120, heartbeat_interval=25
    )

    for _ in range(3):
        registry.resolve("/site/a")

    assert len(asked) == 2


# Callbacks in an app


def test_a_callback_runs_in_an_app_context_and_sees_no_request(make_app: MakeApp) -> None:
    app, presence = make_app()
    seen: list[Any] = []

    @presence.channel_config("site")
    def site(name: str) -> ChannelConfig:
        seen.append((current_app._get_current_object(), has_request_context(), "user" in g))
        with pytest.raises(RuntimeError):
            request.args.get("x")
        with pytest.raises(RuntimeError):
            session.get("x")
        return PUBLIC

    with app.test_request_context("/?x=1"):
        g.user = "ada"
        presence.channel("/site/a")
        assert has_request_context()
        assert g.user == "ada"

    assert seen == [(app, False, False)]


def test_a_callback_s_context_is_torn_down_after_it(make_app: MakeApp) -> None:
    app, presence = make_app()
    happened: list[str] = []
    app.teardown_appcontext(lambda error: happened.append("teardown"))

    @presence.channel_config("site")
    def site(name: str) -> ChannelConfig:
        happened.append("callback")
        return PUBLIC

    with app.app_context():
        presence.channel("/site/a")
        happened.append("answer")

    assert happened == ["callback", "teardown", "answer", "teardown"]


def test_a_callback_that_raises_is_logged_with_its_channel(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    app, presence = make_app()

    with app.app_context(), pytest.raises(ChannelUnavailable):
        presence.channel("/broken/x")

    (record,) = caplog.records
    assert record.levelno >= logging.ERROR
    assert "/broken/x" in record.getMessage()
    assert record.exc_info is not None


def test_a_callback_that_gives_something_else_raises(make_app: MakeApp) -> None:
    app, presence = make_app()

    with app.app_context(), pytest.raises(InvalidChannelConfig, match="/invalid/x"):
        presence.channel("/invalid/x")


def test_forget_config_has_the_callback_asked_again(make_app: MakeApp) -> None:
    app, presence = make_app()
    callback = Answer(None)
    presence.channel_config("site")(callback)
    with app.app_context():
        with pytest.raises(ChannelNotFound):
            presence.channel("/site/a")
        callback.answer = PUBLIC

        presence.forget_config("/site/a")

        presence.channel("/site/a")
        presence.forget_config()
        presence.channel("/site/a")

    assert len(callback.asked) == 3


def test_forget_config_reaches_other_processes_with_their_next_renewal(make_app: MakeApp) -> None:
    store = {"PRESENCE_BACKEND": "sqlite:///both.sqlite3", "PRESENCE_WORKER_TIMEOUT": 0.3}
    (here, presence), (there, other) = make_app(**store), make_app(**store)
    callback, renewed = Answer(), threading.Event()
    other.channel_config("site")(callback)
    tracker = there.extensions["presence"].tracker
    tracker.on_tick(renewed.set)
    tracker.start()
    assert renewed.wait(PATIENCE)
    with there.app_context():
        other.channel("/site/a")

    with here.app_context():
        presence.forget_config("/site/a")

    def asks_again() -> bool:
        with there.app_context():
            other.channel("/site/a")
        return len(callback.asked) == 2

    assert eventually(asks_again)


def test_forget_config_reaches_a_process_that_only_answers_requests(make_app: MakeApp) -> None:
    store = {"PRESENCE_BACKEND": "sqlite:///both.sqlite3", "PRESENCE_WORKER_TIMEOUT": 0.3}
    (here, presence), (there, other) = make_app(**store), make_app(**store)
    callback = Answer()
    other.channel_config("site")(callback)
    browser = there.test_client()
    browser.get("/presence/state?channel=/site/a")
    callback.answer = None

    with here.app_context():
        presence.forget_config("/site/a")

    def is_gone() -> bool:
        answer = browser.get("/presence/state?channel=/site/a").get_json()
        return bool(answer["states"] == {"/site/a": None})

    assert eventually(is_gone)


def test_what_is_remembered_before_the_first_renewal_is_asked_again_one_renewal_later(
    make_app: MakeApp,
) -> None:
    app, presence = make_app(PRESENCE_BACKEND="sqlite:///own.sqlite3")
    registry, clock = app.extensions["presence"].tracker.registry, Clock()
    callback, registry._clock = Answer(), clock
    presence.channel_config("site")(callback)

    def asks_again_after(seconds: float, name: str) -> bool:
        registry.resolve(name)
        number = len(callback.asked)
        clock.now += seconds
        registry.resolve(name)
        return len(callback.asked) > number

    assert not asks_again_after(4.9, "/site/a")
    assert asks_again_after(5, "/site/b")

    app.extensions["presence"].tracker.loops.renew()

    assert not asks_again_after(119, "/site/c")
    assert asks_again_after(120, "/site/d")


# ChannelConfig


def test_a_config_by_itself_lets_nobody_in() -> None:
    assert dataclasses.asdict(ChannelConfig()) == {
        "public": False,
        "allowed_user_ids": None,
        "allowed_group_ids": None,
        "count_only": False,
        "anonymous": False,
        "max_users": None,
        "timeout": None,
    }


def test_a_config_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ChannelConfig().public = True  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[(name, flag) for name in ("public", "count_only", "anonymous") for flag in (True, False)],
        ("max_users", 1),
        ("max_users", 10**6),
        ("timeout", 30),
        ("timeout", 0.1),
        ("timeout", None),
        ("max_users", None),
    ],
)
def test_a_config_takes_what_makes_sense(field: str, value: Any) -> None:
    assert getattr(ChannelConfig(**{field: value}), field) == value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[
            (name, value)
            for name in ("public", "count_only", "anonymous")
            for value in (None, 0, 1, "yes")
        ],
        *[
            (name, value)
            for name in ("allowed_user_ids", "allowed_group_ids")
            for value in ("7", b"7", 7, True)
        ],
        *[("max_users", value) for value in (0, -1, 1.5, "2", True, float("inf"))],
        *[("timeout", value) for value in (0, -1, "30", True, float("nan"), float("inf"))],
    ],
)
def test_a_config_refuses_what_makes_no_sense(field: str, value: Any) -> None:
    with pytest.raises(InvalidChannelConfig, match=field):
        ChannelConfig(**{field: value})


@pytest.mark.parametrize("field", ["allowed_user_ids", "allowed_group_ids"])
@pytest.mark.parametrize("kind", [list, tuple, set, iter])
def test_allowed_ids_may_be_any_iterable_and_are_kept_as_strings(field: str, kind: Any) -> None:
    config = ChannelConfig(**{field: kind([7, "x", UUID(int=1)])})

    assert getattr(config, field) == {"7", "x", str(UUID(int=1))}


def test_a_config_does_not_follow_the_list_that_it_was_made_from() -> None:
    ids = ["7"]
    config = ChannelConfig(allowed_user_ids=ids)

    ids.append("8")

    assert config.allowed_user_ids == {"7"}


# Permission

STRANGER, NAMED, MEMBER = (
    Identity("9"),
    Identity("7"),
    Identity("8", group_ids=frozenset({"staff", "x"})),
)
CONFIGS = {
    "nobody": {},
    "public": {"public": True},
    "user 7": {"allowed_user_ids": [7]},
    "staff": {"allowed_group_ids": ["staff", "crew"]},
    "user 7 and staff": {"allowed_user_ids": ["7"], "allowed_group_ids": ["staff"]},
    "public, user 7": {"public": True, "allowed_user_ids": ["7"]},
    "no users, no groups": {"allowed_user_ids": [], "allowed_group_ids": []},
}
MAY_VIEW = {
    #                      anonymous, stranger, named, member
    "nobody": (False, False, False, False),
    "public": (True, True, True, True),
    "user 7": (False, False, True, False),
    "staff": (False, False, False, True),
    "user 7 and staff": (False, False, True, True),
    "public, user 7": (True, True, True, True),
    "no users, no groups": (False, False, False, False),
}


@pytest.mark.parametrize("count_only", [False, True])
@pytest.mark.parametrize("anonymous", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_who_may_view_and_enter(name: str, anonymous: bool, count_only: bool) -> None:
    config = ChannelConfig(**CONFIGS[name], anonymous=anonymous, count_only=count_only)
    people = (ANONYMOUS, STRANGER, NAMED, MEMBER)

    may_view = tuple(can_view(config, who) for who in people)
    may_enter = tuple(can_enter(config, who) for who in people)

    assert may_view == MAY_VIEW[name]
    assert may_enter == (MAY_VIEW[name][0] and anonymous, *MAY_VIEW[name][1:])


def test_an_id_is_no_group() -> None:
    config = ChannelConfig(allowed_user_ids=["staff"], allowed_group_ids=["8"])

    assert not can_view(config, MEMBER)
