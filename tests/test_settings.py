"""Every setting has its default and takes what makes sense, and nothing else."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from named import named

from flask_presence import Presence
from flask_presence.settings import Settings

DEFAULTS: dict[str, Any] = {
    "PRESENCE_BACKEND": None,
    "PRESENCE_KEY_PREFIX": "presence",
    "PRESENCE_NAMESPACE": "/presence",
    "PRESENCE_URL_PREFIX": "/presence",
    "PRESENCE_TIMEOUT": 60,
    "PRESENCE_WORKER_TIMEOUT": 15,
    "PRESENCE_HEARTBEAT_INTERVAL": 25,
    "PRESENCE_LEAVE_GRACE": 5,
    "PRESENCE_PRUNE_INTERVAL": 2,
    "PRESENCE_BATCH_WINDOW": 0.05,
    "PRESENCE_CONFIG_CACHE_SECONDS": 120,
    "PRESENCE_CHANNEL_RETENTION": 3600,
    "PRESENCE_LAST_SEEN_RETENTION": 2_592_000,
    "PRESENCE_MAX_CHANNELS_PER_CLIENT": 50,
    "PRESENCE_MAX_META_BYTES": 1024,
    "PRESENCE_RATE_LIMIT": (120, 10),
    "PRESENCE_SOCKETIO_CLIENT_URL": None,
}

POSITIVE = ["PRESENCE_TIMEOUT", "PRESENCE_WORKER_TIMEOUT", "PRESENCE_HEARTBEAT_INTERVAL"]
NOT_NEGATIVE = [
    "PRESENCE_LEAVE_GRACE",
    "PRESENCE_PRUNE_INTERVAL",
    "PRESENCE_BATCH_WINDOW",
    "PRESENCE_CONFIG_CACHE_SECONDS",
    "PRESENCE_CHANNEL_RETENTION",
    "PRESENCE_LAST_SEEN_RETENTION",
]
WHOLE = ["PRESENCE_MAX_CHANNELS_PER_CLIENT", "PRESENCE_MAX_META_BYTES"]

NO_NUMBERS = [None, "60", True, [], float("nan"), float("inf"), 10**400]

VALID: list[tuple[str, Any]] = [
    ("PRESENCE_KEY_PREFIX", "forum"),
    ("PRESENCE_KEY_PREFIX", "forum_2"),
    ("PRESENCE_NAMESPACE", "/who"),
    ("PRESENCE_NAMESPACE", "/who/is/here"),
    ("PRESENCE_URL_PREFIX", "/-/presence"),
    ("PRESENCE_TIMEOUT", 25.5),
    ("PRESENCE_WORKER_TIMEOUT", 0.5),
    ("PRESENCE_HEARTBEAT_INTERVAL", 0.5),
    ("PRESENCE_HEARTBEAT_INTERVAL", 59),
    *[(key, 0) for key in NOT_NEGATIVE],
    *[(key, 0.25) for key in NOT_NEGATIVE],
    ("PRESENCE_MAX_CHANNELS_PER_CLIENT", 1),
    ("PRESENCE_MAX_META_BYTES", 2),
    ("PRESENCE_RATE_LIMIT", None),
    ("PRESENCE_SOCKETIO_CLIENT_URL", None),
    ("PRESENCE_SOCKETIO_CLIENT_URL", False),
    ("PRESENCE_SOCKETIO_CLIENT_URL", "https://static.example/socket.io.js"),
]

NONSENSE: list[tuple[str, Any]] = [
    *[(key, value) for key in POSITIVE for value in [0, -1, *NO_NUMBERS]],
    *[(key, value) for key in NOT_NEGATIVE for value in [-1, -0.001, *NO_NUMBERS]],
    *[(key, value) for key in WHOLE for value in [0, -1, 1.5, None, "50", True]],
    ("PRESENCE_MAX_META_BYTES", 1),
    *[("PRESENCE_KEY_PREFIX", value) for value in ["", "a b", "a\n", "x" * 41, None, 7]],
    *[("PRESENCE_NAMESPACE", value) for value in ["", "/", "presence", "/a b", "/a,b", None, 7]],
    *[("PRESENCE_URL_PREFIX", value) for value in ["", "/", "presence", "/a/", "/a?b", "/<a>", 7]],
    *[
        ("PRESENCE_RATE_LIMIT", value)
        for value in ["", "120", "120/", "/10", "0/10", "120/0", "-1/10", "1.5/10", 120, (120, 10)]
    ],
    *[("PRESENCE_SOCKETIO_CLIENT_URL", value) for value in ["", True, 7]],
    *[("PRESENCE_BACKEND", value) for value in ["", 7, True, object(), "gopher://x"]],
]


@pytest.mark.parametrize(("key", "default"), DEFAULTS.items(), ids=named)
def test_a_setting_that_is_not_set_has_its_default(key: str, default: Any) -> None:
    settings = Settings.read({})

    assert getattr(settings, key.removeprefix("PRESENCE_").lower()) == default


def test_there_is_no_setting_without_a_default() -> None:
    fields = {f"PRESENCE_{name.upper()}" for name in Settings.__dataclass_fields__}

    assert fields == set(DEFAULTS)


@pytest.mark.parametrize(("key", "value"), VALID, ids=named)
def test_a_value_that_makes_sense_is_kept(key: str, value: Any) -> None:
    settings = Settings.read({key: value})

    assert getattr(settings, key.removeprefix("PRESENCE_").lower()) == value


def test_a_rate_limit_is_operations_per_seconds() -> None:
    limit = Settings.read({"PRESENCE_RATE_LIMIT": "30/2.5"}).rate_limit

    assert limit is not None
    assert (limit.operations, limit.seconds) == (30, 2.5)


@pytest.mark.parametrize(("key", "value"), NONSENSE, ids=named)
def test_a_value_that_makes_no_sense_is_an_error_that_names_its_key(
    make_app: Callable[..., tuple[Flask, Presence]], key: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=key):
        make_app(**{key: value})


@pytest.mark.parametrize(("interval", "timeout"), [(60, 60), (61, 60), (1, 1), (25, 20)])
def test_a_heartbeat_interval_that_is_not_below_the_timeout_is_an_error(
    interval: float, timeout: float
) -> None:
    config = {"PRESENCE_HEARTBEAT_INTERVAL": interval, "PRESENCE_TIMEOUT": timeout}

    with pytest.raises(ValueError, match="PRESENCE_HEARTBEAT_INTERVAL"):
        Settings.read(config)


def test_a_timeout_below_the_default_heartbeat_interval_is_an_error_that_names_both() -> None:
    with pytest.raises(ValueError, match=r"PRESENCE_HEARTBEAT_INTERVAL.*PRESENCE_TIMEOUT"):
        Settings.read({"PRESENCE_TIMEOUT": 20})


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("PRESENCE_TIMEOUTS", "PRESENCE_TIMEOUT"),
        ("PRESENCE_HEARTBEAT", "PRESENCE_HEARTBEAT_INTERVAL"),
        ("PRESENCE_BACKED", "PRESENCE_BACKEND"),
        ("PRESENCE_MAX_META", "PRESENCE_MAX_META_BYTES"),
    ],
)
def test_an_unknown_key_is_a_warning_with_the_nearest_known_one(
    make_app: Callable[..., tuple[Flask, Presence]], key: str, nearest: str
) -> None:
    with pytest.warns(UserWarning, match=rf"{key}\b.*\b{nearest}\b"):
        make_app(**{key: 1})


def test_an_unknown_key_that_is_like_no_other_is_a_warning_too() -> None:
    with pytest.warns(UserWarning, match="PRESENCE_Q"):
        Settings.read({"PRESENCE_Q": 1})


def test_the_keys_of_others_are_none_of_our_business() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        settings = Settings.read({"SECRET_KEY": "x", "PRESENT": 1, "presence_timeout": 1, 7: 7})

    assert settings == Settings()


def test_settings_are_read_once(make_app: Callable[..., tuple[Flask, Presence]]) -> None:
    app, _ = make_app(PRESENCE_TIMEOUT=40)

    app.config["PRESENCE_TIMEOUT"] = 50

    assert app.extensions["presence"].settings.timeout == 40


def test_an_error_says_what_the_value_may_be() -> None:
    with pytest.raises(ValueError, match=re.escape("'120/10'")):
        Settings.read({"PRESENCE_RATE_LIMIT": "fast"})
