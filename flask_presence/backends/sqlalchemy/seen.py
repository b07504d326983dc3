"""Until when users were seen: how it is written with a leave, read, and forgotten."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    FromClause,
    Select,
    bindparam,
    delete,
    func,
    select,
    union_all,
)
from sqlalchemy.engine import Connection

from ..base import SLICE
from .statements import Many, Question, Statement

if TYPE_CHECKING:
    from .backend import SQLAlchemyBackend


class Seen:
    """What the backend does with its table ``seen``, inside a transaction that it was given.

    Rows of it are locked in the order of their ids, after all others of a step.
    """

    def __init__(self, backend: SQLAlchemyBackend) -> None:
        self._backend = backend
        self._seen = backend.tables.seen
        self._upsert = backend.dialect.upsert_latest(self._seen, "user_id", "at")
        self.keep_now = Statement(
            self._upsert.values(user_id=bindparam("whose"), at=backend.clock())
        )
        """Keeps that a user was seen until now, by the database's clock."""

        self._keep_many = Many(
            lambda size: self._upsert.values(
                [
                    {name: bindparam(f"{name}_{place}") for name in ("user_id", "at")}
                    for place in range(size)
                ]
            )
        )

    def keep(self, until: Mapping[str, int]) -> list[Question]:
        """What keeps until when users were seen, where it is later than before."""
        # In the order of their ids, lest two steps lock each other out.
        return self._keep_many.of(["user_id", "at"], sorted(until.items()))

    def read(self, connection: Connection, user_ids: Collection[str]) -> dict[str, int]:
        """Until when those were seen who ever were, in one statement: who leaves between two
        would be in neither."""
        backend, seen, members = self._backend, self._seen, self._backend.tables.members
        now = backend.clock()
        until, held = held_until(members, backend.tables.workers)
        query = union_all(
            select(seen.c.user_id, seen.c.at, now).where(seen.c.user_id.in_(user_ids)),
            held.add_columns(members.c.user_id, until, now).where(members.c.user_id.in_(user_ids)),
        )
        found: dict[str, int] = {}
        for user_id, at, moment in connection.execute(query):
            found[user_id] = max(found.get(user_id, 0), min(moment if at is None else at, moment))
        return found

    def forget(self, connection: Connection, retention: int) -> int:
        """Forget a slice of those who were last seen so many milliseconds ago, and tell how many
        those were."""
        seen = self._seen
        latest = self._backend.now(connection) - retention
        is_old = seen.c.at <= latest
        found = list(connection.scalars(select(seen.c.user_id).where(is_old).limit(SLICE)))
        if found:
            # By their ids alone: on the way of the moments, rows are locked in another order.
            some = select(seen.c.user_id, seen.c.at).where(seen.c.user_id.in_(found))
            locked = connection.execute(some.order_by(seen.c.user_id).with_for_update())
            old = [user_id for user_id, at in locked if at <= latest]
            connection.execute(delete(seen).where(seen.c.user_id.in_(old)))
        return len(found)


def held_until(members: FromClause, workers: FromClause) -> tuple[Any, Select[Any]]:
    """The moment up to which a member is held, and what to select it from.

    It is ``NULL`` where the store has lost the worker, and may lie ahead.
    """
    lease = func.nullif(workers.c.lease, 0)
    held = select().select_from(members.outerjoin(workers, workers.c.id == members.c.worker))
    return func.coalesce(members.c.deadline, lease), held
