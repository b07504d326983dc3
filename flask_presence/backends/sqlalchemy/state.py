"""A channel with all its members, read in one statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    String,
    bindparam,
    literal_column,
    null,
    select,
    union_all,
)

from ..steps import LOST, Columns, Counters, Lease, check_columns, columns_of
from ..stored import is_whole
from .statements import ROW_COLUMNS, Statement
from .tables import Tables
from .transaction import Rows

CHANNEL, WORKER = 1, 2
"""What a row tells of that is no member's."""

NO_LEASE = Lease(LOST, 0, 0)


class Stored(NamedTuple):
    """A channel as it was found, at the moment ``now`` of the database's clock."""

    counters: Counters
    members: Columns
    leases: Mapping[str, Lease | None]
    """Those of the workers that hold a member; ``None`` where the store has lost one."""
    now: int


def everything(tables: Tables, clock: ColumnElement[int]) -> Statement:
    """Reads the channel ``here``, its members, and the leases of all workers, who are few.

    That takes one statement: two could pair one revision with another one's members. All rows have
    the columns of a member; the last one, which is of no use to a reader, tells what else a row is.
    """
    channels, members, workers = tables.channels.c, tables.members.c, tables.workers.c
    here, none = bindparam("here", type_=String), null()

    return Statement(
        union_all(
            select(*[members[name] for name in ROW_COLUMNS[:-1]], none).where(
                members.channel == here
            ),
            select(
                channels.epoch,
                *(none, none, none),
                *(channels.revision, channels.count, channels.anonymous),
                *(none, clock, literal_column(str(CHANNEL))),
            ).where(channels.name == here),
            select(
                *(workers.id, workers.status, none, none),
                *(workers.lease, workers.timeout, none, none, none),
                literal_column(str(WORKER)),
            ),
        )
    )


def stored_of(found: Rows, channel: str) -> Stored | None:
    """What `everything` found; ``None`` where there is no such channel.

    :raises Damaged: it is not as presence wrote it.
    """
    counted = next((row for row in found if row[-1] == CHANNEL), None)
    if counted is None:
        return None
    epoch, _, _, _, revision, count, anonymous, _, now, _ = counted
    counters = Counters(epoch, revision, 0, count, anonymous)
    counters.check(channel)
    rows: Sequence[Any] = [row for row in found if row[-1] is None]
    members = columns_of(rows)
    check_columns(members, channel)
    known = {row[0]: lease_of(row[1], row[4], row[5]) for row in found if row[-1] == WORKER}
    leases = {worker: known.get(worker) for worker in {*members["worker"]} - {None}}
    return Stored(counters, members, leases, now)


def lease_of(status: Any, until: Any, timeout: Any) -> Lease:
    """The lease in these columns; one that somebody else wrote is over."""
    return Lease(status, until, timeout) if is_whole(until) and is_whole(timeout) else NO_LEASE
