"""From the setting ``PRESENCE_BACKEND`` to a backend."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from flask import Flask

from .backends.base import Backend
from .settings import Settings

KEY = "PRESENCE_BACKEND"
GROUP = "flask_presence.backends"

KEPT_SECONDS = 86_400.0
"""How long keys in Redis outlive the last write or reconcile, at the least."""


def make_backend(app: Flask, settings: Settings, db: Any) -> Backend:
    """The backend that the app asks for.

    :param db: the app's Flask-SQLAlchemy, or ``None``.
    :raises ValueError: the setting makes no sense.
    :raises RuntimeError: it needs something that is not set up, or not installed.
    """
    backend = _make_backend(app, settings, db)
    backend.last_seen_retention = settings.last_seen_retention
    return backend


def _make_backend(app: Flask, settings: Settings, db: Any) -> Backend:
    value = settings.backend
    if isinstance(value, Backend):
        return value
    if value is None:
        return _default(app, settings, db)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{KEY} must be a URL or a Backend, not {value!r}.")
    if "://" in value:
        return _from_url(value, app, settings, db)
    return _from_class(value, settings)


def _default(app: Flask, settings: Settings, db: Any) -> Backend:
    if db is None or "sqlalchemy" not in app.extensions:
        return _own_file(app, settings)
    engines = _engines(app, db)
    if None not in engines:
        return _own_file(app, settings)
    url = engines[None].url
    if url.get_backend_name() != "sqlite":
        return _on_app_database(app, settings, db, None)
    if _is_in_memory(url):
        return _memory(settings)
    return _own_file(app, settings)


def _from_url(value: str, app: Flask, settings: Settings, db: Any) -> Backend:
    scheme, rest = value.split("://", 1)
    if scheme == "memory":
        return _memory(settings)
    if scheme == "sqlalchemy":
        return _on_app_database(app, settings, db, rest or None)
    if scheme in ("redis", "rediss", "unix", "redis+sentinel"):
        return _redis(value, settings)
    return _on_own_engine(value, app, settings)


def _memory(settings: Settings) -> Backend:
    from .backends.memory import MemoryBackend

    return MemoryBackend(worker_timeout=settings.worker_timeout)


def _redis(url: str, settings: Settings) -> Backend:
    from .backends.redis import RedisBackend, connect

    try:
        client = connect(url)
    except (ValueError, TypeError) as error:
        scheme = url.split("://")[0]
        raise ValueError(f"{KEY}: {scheme}://… is no URL of a Redis: {error}.") from error
    return RedisBackend(
        client,
        prefix=settings.key_prefix,
        worker_timeout=settings.worker_timeout,
        kept=max(KEPT_SECONDS, 2 * settings.channel_retention),
    )


def _own_file(app: Flask, settings: Settings) -> Backend:
    return _on_own_engine("sqlite:///presence.sqlite3", app, settings)


def _on_own_engine(value: str, app: Flask, settings: Settings) -> Backend:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    try:
        url = make_url(value)
        url.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise ValueError(
            f"{KEY}: {value.split('://')[0]}://… is no URL of a store ({error}): use memory://, "
            "sqlalchemy:// or the URL of a database."
        ) from error
    if url.get_backend_name() != "sqlite":
        return _sql(url, settings)
    if _is_in_memory(url):
        raise ValueError(f"{KEY}: an SQLite database in memory cannot be shared; use memory://.")
    path = Path(app.instance_path, url.database or "")
    path.parent.mkdir(parents=True, exist_ok=True)
    return _sql(url.set(database=str(path)), settings, makes_tables=True)


def _on_app_database(app: Flask, settings: Settings, db: Any, bind_key: str | None) -> Backend:
    from sqlalchemy import event
    from sqlalchemy.pool.base import ResetStyle

    from .backends.sqlalchemy import connect_patiently

    if db is None or "sqlalchemy" not in app.extensions:
        raise RuntimeError(
            f"{KEY} is sqlalchemy://, but Flask-SQLAlchemy is not set up on this app: call "
            "db.init_app(app) before presence.init_app(app)."
        )
    engines = _engines(app, db)
    if bind_key not in engines:
        raise ValueError(f"{KEY}: {bind_key!r} is none of SQLALCHEMY_BINDS.")
    engine = engines[bind_key]
    if engine.url.get_backend_name() == "sqlite" and _is_in_memory(engine.url):
        raise ValueError(f"{KEY}: the app's database is in memory; use memory:// beside it.")
    if bind_key not in db.metadatas:
        db._make_metadata(bind_key)
    # Its own pool, which connects as the app's does: a step of ours never waits for the app's.
    pool = engine.pool.recreate()
    # There is no public way to recreate a pool with other options.
    pool._pre_ping = True
    pool._reset_on_return = ResetStyle.reset_none
    event.listen(engine, "do_connect", connect_patiently)
    return _sql(engine.url, settings, metadata=db.metadatas[bind_key], pool=pool)


def _sql(url: Any, settings: Settings, *, pool: Any = None, **options: Any) -> Backend:
    from sqlalchemy import create_engine

    from .backends.sqlalchemy import SQLAlchemyBackend

    if pool is not None:
        options_of_pool = {"pool": pool}
    elif url.get_backend_name() == "sqlite":
        options_of_pool = {}
    else:
        # No reset: each step ends its own transaction, and what comes after that costs time.
        options_of_pool = {"pool_pre_ping": True, "pool_timeout": 1, "pool_reset_on_return": None}
    try:
        # What people entered with has no place in a log.
        engine = create_engine(url, hide_parameters=True, **options_of_pool)
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"{KEY} needs the driver {error.name!r}: pip install {error.name}, or "
            "Flask-Presence[postgresql] or Flask-Presence[mysql]."
        ) from error
    return SQLAlchemyBackend(
        engine, prefix=settings.key_prefix, worker_timeout=settings.worker_timeout, **options
    )


def _engines(app: Flask, db: Any) -> dict[str | None, Any]:
    with app.app_context():
        return dict(db.engines)


def _is_in_memory(url: Any) -> bool:
    return url.database in (None, "", ":memory:") or "mode=memory" in str(url)


def _from_class(value: str, settings: Settings) -> Backend:
    factory = _import(value) if re.fullmatch(r"[\w.]+:\w+", value) else _entry_point(value)
    if not (isinstance(factory, type) and issubclass(factory, Backend)):
        raise ValueError(f"{KEY}: {value!r} is no subclass of flask_presence.backends.Backend.")
    return factory(worker_timeout=settings.worker_timeout)


def _import(value: str) -> Callable[..., Any] | None:
    module, name = value.split(":")
    try:
        found: Callable[..., Any] = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{KEY}: {value!r} cannot be imported: {error}") from error
    return found


def _entry_point(value: str) -> Callable[..., Any] | None:
    found = entry_points(group=GROUP, name=value)
    if not found:
        names = sorted({entry.name for entry in entry_points(group=GROUP)})
        raise ValueError(
            f"{KEY}: {value!r} is neither a URL nor 'package.module:Class' nor one of the names "
            f"in the entry point group {GROUP}: {', '.join(names)}."
        )
    loaded: Callable[..., Any] = next(iter(found)).load()
    return loaded
