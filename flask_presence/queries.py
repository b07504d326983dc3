"""The door for the app's own SQL queries: what they need of the store, or why it has none."""

from __future__ import annotations

from typing import Any

from flask import Flask

from .backends.base import Backend

_FAMILY = {"mariadb": "mysql"}


def need_sql(backend: Backend, part: Any, name: str) -> Any:
    """Return what an SQL database offers.

    :raises RuntimeError: presence is not kept in one.
    """
    if part is None:
        raise RuntimeError(
            f"presence.{name} needs an SQL database, and presence is kept by a "
            f"{type(backend).__name__}: set PRESENCE_BACKEND to sqlalchemy://."
        )
    return part


def expressions_for(app: Flask, backend: Backend, column: Any, name: str) -> Any:
    """Presence in SQL expressions, for queries that select from the column's table.

    :raises RuntimeError: no query can read both.
    """
    expressions = need_sql(backend, backend.expressions, name)
    for engine in _engines_of(app, column):
        if _database(engine) != _database(expressions.engine):
            ours, theirs = (
                one.url.render_as_string(hide_password=True) for one in (expressions.engine, engine)
            )
            raise RuntimeError(
                f"presence.{name} cannot join {column}, which is in {theirs}, with presence, which "
                f"is kept in {ours}: set PRESENCE_BACKEND to sqlalchemy:// or "
                "sqlalchemy://BIND_KEY, so that both are in one database."
            )
    return expressions


def _engines_of(app: Flask, column: Any) -> list[Any]:
    """The engines of those tables of which Flask-SQLAlchemy knows them."""
    db = app.extensions.get("sqlalchemy")
    if db is None or not hasattr(column, "type"):
        return []
    from sqlalchemy import Table, select
    from sqlalchemy.sql.visitors import iterate

    froms = select(column).get_final_froms()
    tables = [part for one in froms for part in iterate(one) if isinstance(part, Table)]
    metadatas = {table.metadata for table in tables}
    return [db.engines[key] for key, metadata in db.metadatas.items() if metadata in metadatas]


def _database(engine: Any) -> tuple[str, str | None]:
    """What two engines on one database have in common; a host may go by several names."""
    kind = engine.url.get_backend_name()
    return _FAMILY.get(kind, kind), engine.url.database
