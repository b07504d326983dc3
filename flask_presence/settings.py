"""The settings: every key with its default and its check, read once into a frozen value."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

PREFIX = "PRESENCE_"
MAX_SECONDS = 10 * 365 * 86_400


class RateLimit(NamedTuple):
    """At most ``operations`` in ``seconds``."""

    operations: int
    seconds: float


DEFAULT_RATE_LIMIT = RateLimit(120, 10)


@dataclass(frozen=True, slots=True)
class Settings:
    """The app's presence settings; durations are in seconds, sizes in bytes.

    Each field is the setting ``PRESENCE_`` plus its name in capitals.
    """

    backend: Any = None
    key_prefix: str = "presence"
    namespace: str = "/presence"
    url_prefix: str = "/presence"
    timeout: float = 60
    worker_timeout: float = 15
    heartbeat_interval: float = 25
    leave_grace: float = 5
    prune_interval: float = 2
    batch_window: float = 0.05
    config_cache_seconds: float = 120
    channel_retention: float = 3600
    last_seen_retention: float = 2_592_000
    max_channels_per_client: int = 50
    max_meta_bytes: int = 1024
    rate_limit: RateLimit | None = DEFAULT_RATE_LIMIT
    socketio_client_url: str | bool | None = None

    @property
    def renewal_interval(self) -> float:
        """Seconds between two renewals of a worker's lease."""
        return self.worker_timeout / 3

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Settings:
        """Read the app's config.

        :raises ValueError: names the key whose value makes no sense, and what it may be.
        """
        known = {PREFIX + item.name.upper(): item.name for item in fields(cls)}
        _warn_of_unknown_keys(config, known)
        values: dict[str, Any] = {
            name: _CHECKS[name](key, config[key])
            for key, name in known.items()
            if key in config and name in _CHECKS
        }
        settings = cls(**values, backend=config.get(PREFIX + "BACKEND"))
        if settings.heartbeat_interval >= settings.timeout:
            raise ValueError(
                f"PRESENCE_HEARTBEAT_INTERVAL ({settings.heartbeat_interval:g} s) must be below "
                f"PRESENCE_TIMEOUT ({settings.timeout:g} s): a client that beats in time would "
                "be taken for silent."
            )
        return settings


def _warn_of_unknown_keys(config: Mapping[str, Any], known: Mapping[str, str]) -> None:
    for key in config:
        if isinstance(key, str) and key.startswith(PREFIX) and key not in known:
            (nearest,) = difflib.get_close_matches(key, known, n=1, cutoff=0)
            warnings.warn(
                f"Unknown setting {key}; the nearest known one is {nearest}.", stacklevel=5
            )


def _number(key: str, value: Any, *, least: float, above: bool) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{key} must be a number, not {value!r}.")
    if not abs(value) <= MAX_SECONDS:
        raise ValueError(f"{key} must be at most {MAX_SECONDS} seconds, not {value!r}.")
    if value < least or (above and value == least):
        word = "above" if above else "at least"
        raise ValueError(f"{key} must be {word} {least:g}, not {value!r}.")
    return value


def _positive(key: str, value: Any) -> float:
    return _number(key, value, least=0, above=True)


def _not_negative(key: str, value: Any) -> float:
    return _number(key, value, least=0, above=False)


def _whole(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{key} must be a whole number of at least 1, not {value!r}.")
    return value


def _meta_bytes(key: str, value: Any) -> int:
    if _whole(key, value) < 2:
        raise ValueError(f"{key} must be at least 2, the size of an empty object.")
    return int(value)


def _key_prefix(key: str, value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.:-]{1,40}", value):
        raise ValueError(
            f"{key} must be 1 to 40 letters, digits, '_', '.', ':' or '-', not {value!r}."
        )
    return value


def _namespace(key: str, value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"/[^\s,?]+", value):
        raise ValueError(
            f"{key} must be a Socket.IO namespace of its own such as '/presence', not {value!r}."
        )
    return value


def _url_prefix(key: str, value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"(/[^/\s?#<>]+)+", value):
        raise ValueError(f"{key} must be a path such as '/presence', not {value!r}.")
    return value


def _rate_limit(key: str, value: Any) -> RateLimit | None:
    if value is None:
        return None
    match = re.fullmatch(r"([1-9]\d*)/(\d+(?:\.\d+)?)", value) if isinstance(value, str) else None
    if match is None or float(match[2]) <= 0:
        raise ValueError(
            f"{key} must be 'operations/seconds' such as '120/10', or None, not {value!r}."
        )
    return RateLimit(int(match[1]), float(match[2]))


def _client_url(key: str, value: Any) -> str | bool | None:
    if value is None or value is False or (isinstance(value, str) and value):
        return value
    raise ValueError(f"{key} must be a URL, False (the page has it) or None, not {value!r}.")


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "key_prefix": _key_prefix,
    "namespace": _namespace,
    "url_prefix": _url_prefix,
    "timeout": _positive,
    "worker_timeout": _positive,
    "heartbeat_interval": _positive,
    "leave_grace": _not_negative,
    "prune_interval": _not_negative,
    "batch_window": _not_negative,
    "config_cache_seconds": _not_negative,
    "channel_retention": _not_negative,
    "last_seen_retention": _not_negative,
    "max_channels_per_client": _whole,
    "max_meta_bytes": _meta_bytes,
    "rate_limit": _rate_limit,
    "socketio_client_url": _client_url,
}
