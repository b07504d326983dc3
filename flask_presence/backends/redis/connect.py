"""From a URL to a Redis client that fails in time."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
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
        client = _by_sentinel(url, options)
    else:
        client = _by_address(url, options)
    # Nothing is sent yet, but an option that a connection does not know is found.
    client.connection_pool.connection_class(**client.connection_pool.connection_kwargs)
    return client


def _by_address(url: str, options: dict[str, Any]) -> Any:
    db = urlsplit(url).path.strip("/")
    if db and not db.isdecimal() and not url.startswith("unix://"):
        raise ValueError(f"{db!r} is no number of a database")
    return redis.Redis.from_url(url, **options)


def _by_sentinel(url: str, options: dict[str, Any]) -> Any:
    parts = urlsplit(url)
    account, _, hosts = parts.netloc.rpartition("@")
    service, _, db = parts.path.strip("/").partition("/")
    if not hosts or not service or not (db or "0").isdecimal():
        raise ValueError("it must be redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB")
    user, _, password = account.partition(":")
    found = parse_qsl(parts.query)
    for_sentinels = [pair for pair in found if pair[0].startswith("sentinel_")]
    for_master = [pair for pair in found if pair not in for_sentinels]
    addresses = [_address(host) for host in hosts.split(",")]
    # They are asked one after another, all within the time of one.
    patience = SECONDS / len(addresses)
    hurried = options | {"socket_timeout": patience, "socket_connect_timeout": patience}
    sentinel: Any = Sentinel
    return sentinel(
        addresses,
        sentinel_kwargs=hurried | _typed(for_sentinels, "sentinel_"),
    ).master_for(
        service,
        db=int(db or 0),
        username=unquote(user) or None,
        password=unquote(password) or None,
        **options | _typed(for_master),
    )


def _typed(query: list[tuple[str, str]], prefix: str = "") -> dict[str, Any]:
    """The options of a query, as the client reads them from the URL of a single Redis."""
    plain = [(name.removeprefix(prefix), value) for name, value in query]
    is_secure = dict(plain).get("ssl", "").lower() in ("1", "true", "yes")
    rest = [pair for pair in plain if pair[0] != "ssl"]
    parse: Any = parse_url
    typed: dict[str, Any] = dict(parse(f"redis://host?{urlencode(rest)}"))
    del typed["host"]
    return typed | ({"ssl": True} if is_secure else {})


def _address(host: str) -> tuple[str, int]:
    name, _, port = host.rpartition(":")
    if not name:
        return host, SENTINEL_PORT
    if not port.isdecimal():
        raise ValueError(f"{host!r} is no HOST:PORT")
    return name.strip("[]"), int(port)
