"""From a URL to a Redis client that fails in time."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

SECONDS = 1.0
"""How long a connection, and an answer, may take."""

SENTINEL_PORT = 26379


def connect(url: str) -> Any:
    """A client for ``redis://``, ``rediss://``, ``unix://`` or ``redis+sentinel://``.

    What the URL says in its query goes before our own timeouts. Nothing is sent yet.

    :raises ValueError: the URL makes no sense.
    """
    options: dict[str, Any] = {
        "socket_timeout": SECONDS,
        "socket_connect_timeout": SECONDS,
        # The backend itself asks once more: it knows what it asked.
        "retry": Retry(NoBackoff(), 0),
    }
    if url.startswith("redis+sentinel://"):
        return _by_sentinel(url, options)
    return redis.Redis.from_url(url, **options)


def _by_sentinel(url: str, options: dict[str, Any]) -> Any:
    parts = urlsplit(url)
    account, _, hosts = parts.netloc.rpartition("@")
    service, _, db = parts.path.strip("/").partition("/")
    if not hosts or not service or not (db or "0").isdecimal():
        raise ValueError("it must be redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB")
    user, _, password = account.partition(":")
    query = dict(parse_qsl(parts.query))
    sentinel_options = options | {
        name.removeprefix("sentinel_"): value
        for name, value in query.items()
        if name.startswith("sentinel_")
    }
    own = {name: value for name, value in query.items() if not name.startswith("sentinel_")}
    unknown = own.keys() - {"ssl"}
    if unknown:
        raise ValueError(f"it does not know the option {sorted(unknown)[0]!r}; it knows ssl")
    sentinel: Any = Sentinel
    return sentinel(
        [_address(host) for host in hosts.split(",")], sentinel_kwargs=sentinel_options
    ).master_for(
        service,
        db=int(db or 0),
        username=unquote(user) or None,
        password=unquote(password) or None,
        ssl=own.get("ssl", "").lower() in ("1", "true", "yes"),
        **options,
    )


def _address(host: str) -> tuple[str, int]:
    name, _, port = host.rpartition(":")
    if not name:
        return host, SENTINEL_PORT
    if not port.isdecimal():
        raise ValueError(f"{host!r} is no HOST:PORT")
    return name.strip("[]"), int(port)
