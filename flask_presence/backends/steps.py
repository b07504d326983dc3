"""The atomic steps in plain Python, for stores that offer transactions but no scripts of their own.

`Scene` is the heart: one channel in one step. Rows of a user come and go, and what others see of
that user before and after decides whether there is a change.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from operator import attrgetter
from typing import Any, NamedTuple, Protocol, TypeVar

from ..errors import ChannelFull, ClientIdTaken, NotPresent, WorkerGone
from ..model import Change, Kind, Member, Reason, User, users_from
from ..protocol import load_object, load_objects
from .base import SLICE, Backend, Evicted, Pruned
from .stored import are_ids, are_whole

T = TypeVar("T")

COMMANDS_KEPT = 600_000
"""Milliseconds for which a command stays readable."""

ALIVE, DRAINED, LOST = "alive", "drained", "lost"

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Row(NamedTuple):
    """A member as it is stored. Moments are whole milliseconds of the store's clock."""

    client_id: str
    user_id: str | None
    info: str
    meta: str | None
    place: int
    """The revision at which the user entered: the user's place in the order."""
    named: int
    """When, in the channel's count of writes, this client gave its info."""
    wrote: int
    """When it wrote its meta; 0 for a client that gave none."""
    worker: str | None = None
    deadline: int | None = None
    held_at: int | None = None
    """When the deadline was set, to notice a clock that stepped back."""

    @property
    def group(self) -> str | tuple[str]:
        """Who is counted: the user, or an anonymous client by itself."""
        return (self.client_id,) if self.user_id is None else self.user_id


Columns = Mapping[str, Sequence[Any]]
"""Many rows, by the names of their fields."""


def columns_of(rows: Sequence[Row]) -> Columns:
    """The rows, field by field."""
    if not rows:
        return dict.fromkeys(Row._fields, ())
    return dict(zip(Row._fields, zip(*rows, strict=True), strict=True))


def check_rows(rows: Sequence[Row], channel: str) -> None:
    """Raise `Damaged` where a channel's rows are not as presence wrote them."""
    if rows:
        check_columns(columns_of(rows), channel)


def check_columns(columns: Columns, channel: str) -> None:
    """The same of rows that are there field by field."""
    are_ids(columns["client_id"], channel)
    are_ids(_known(columns["user_id"]), channel)
    for numbers in ("place", "named", "wrote"):
        are_whole(columns[numbers], channel)
    for moments in ("deadline", "held_at"):
        are_whole(_known(columns[moments]), channel)


def _known(values: Sequence[Any]) -> Sequence[Any]:
    return [value for value in values if value is not None] if None in values else values


@dataclass(slots=True)
class Counters:
    """A channel as it is stored. ``vacated`` is the moment when it became empty."""

    epoch: str
    revision: int = 0
    writes: int = 0
    count: int = 0
    anonymous: int = 0
    vacated: int | None = None

    def check(self, channel: str) -> None:
        """Raise `Damaged` where they are not as presence wrote them."""
        are_ids([self.epoch], channel)
        are_whole([self.revision, self.writes, self.count, self.anonymous], channel)

    @property
    def is_empty(self) -> bool:
        return self.count + self.anonymous == 0


class Seen(NamedTuple):
    """What others see of a user."""

    info: str
    meta: str


def seen(rows: Collection[Row]) -> Seen | None:
    """What others see of whom these rows belong to; ``None`` where there are no rows."""
    if not rows:
        return None
    if len(rows) == 1:
        (row,) = rows
        if row.user_id is None:
            return Seen("{}", "{}")
        return Seen(row.info, "{}" if row.meta is None else row.meta)
    writer = max(rows, key=lambda row: row.wrote)
    if writer.user_id is None:
        return Seen("{}", "{}")
    info = max(rows, key=lambda row: row.named).info
    return Seen(info, writer.meta if writer.wrote and writer.meta is not None else "{}")


def users_of(rows: Sequence[Row]) -> tuple[User, ...]:
    """The users that these rows of one channel belong to, in the order of entering."""
    return users_in(columns_of(rows))


def users_in(columns: Columns) -> tuple[User, ...]:
    """The same of rows that are there field by field."""
    users, places = columns["user_id"], columns["place"]
    if None in users or len({*users}) < len(users) or sorted(places) != list(places):
        columns = columns_of(_one_each(map(Row, *columns.values())))
    infos = load_objects(columns["info"])
    metas = load_objects(["{}" if meta is None else meta for meta in columns["meta"]])
    return users_from(columns["user_id"], infos, metas)


def _one_each(rows: Iterable[Row]) -> list[Row]:
    """A row for each user in the order of entering, with what others see of them."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.user_id is not None:
            groups.setdefault(row.user_id, []).append(row)
    return sorted(map(_as_seen, groups.values()), key=attrgetter("place", "user_id"))


def _as_seen(rows: Sequence[Row]) -> Row:
    what = seen(rows)
    assert what is not None
    return rows[0] if len(rows) == 1 else rows[0]._replace(info=what.info, meta=what.meta)


class Lease(NamedTuple):
    """A worker's lease as it is stored: until when, and how far ahead it was set."""

    status: str
    until: int
    timeout: int

    def is_alive(self, now: int) -> bool:
        """May the worker hold members, and did it renew in time?"""
        return self.status == ALIVE and self.until > now

    def is_over(self, now: int, *, spared: bool) -> bool:
        """Are this worker's members due?

        :param spared: a lease that ran out, but was not ended, is not over. So it is within a
            step: leases are ended before, and one that was renewed since goes on.
        """
        if self.status == LOST:
            return True
        return self.until <= now and (self.status == DRAINED or not spared)


class Opening(NamedTuple):
    """What a step begins with: the channel, the rows asked for, and whether the worker named may
    hold members."""

    counters: Counters | None
    rows: Sequence[Row]
    may_hold: bool = True


class Step(Protocol):
    """One atomic step of a store, as `StepBackend` needs it. Nothing is written if it raises."""

    @property
    def now(self) -> int:
        """The store's clock in milliseconds, read after the channel was locked."""

    def open(
        self,
        name: str,
        *,
        epoch: str | None = None,
        users: Collection[str] = (),
        clients: Collection[str] = (),
        worker: str | None = None,
    ) -> Opening:
        """Lock a channel, making it where ``epoch`` is given and there is none; with all rows of
        these users and of these clients.

        :param worker: its lease stays as it is found until the step ends.
        """

    def save_channel(self, name: str, counters: Counters) -> None:
        """Write the counters; a channel that is empty now is vacated now."""

    def rows(self, name: str, users: Collection[str]) -> Sequence[Row]:
        """All rows of these users."""

    def some_rows(self, name: str, limit: int) -> list[Row]:
        """Any rows of the channel."""

    def due_rows(self, name: str, limit: int) -> list[Row]:
        """Rows that are due, once `end_leases` ran."""

    def insert_rows(self, name: str, rows: Sequence[Row]) -> None: ...

    def replace_row(self, name: str, row: Row) -> None: ...

    def delete_rows(self, name: str, client_ids: Sequence[str]) -> None: ...

    def keep_seen(self, until: Mapping[str, int | None]) -> None:
        """Keep until when users were seen, ``None`` being now; where that is kept at all."""

    def lease(self, worker: str) -> Lease | None: ...


class Scene:
    """One channel in one step: collects what to write, and the changes that others see."""

    def __init__(self, step: Step, channel: str, counters: Counters, rows: Iterable[Row]) -> None:
        self.step = step
        self.channel = channel
        self.counters = counters
        self.changes: list[Change] = []
        self.groups: dict[str | tuple[str], dict[str, Row]] = {}
        self.seen_until: dict[str, int | None] = {}
        """Until when those were seen who left; ``None``: until now."""
        self._found = replace(counters)
        self._new: dict[str, Row] = {}
        """Rows to insert, many with one statement."""
        self._group_of: dict[str, str | tuple[str]] = {}
        for row in rows:
            self.groups.setdefault(row.group, {})[row.client_id] = row
            self._group_of[row.client_id] = row.group

    def row(self, client_id: str) -> Row | None:
        """The client's row, among those the scene was opened with."""
        group = self._group_of.get(client_id)
        return None if group is None else self.groups[group].get(client_id)

    def next_write(self) -> int:
        self.counters.writes += 1
        return self.counters.writes

    def put(self, row: Row, *, healed: bool = False) -> None:
        """Insert or replace one row."""
        rows = self.groups.setdefault(row.group, {})
        if rows.get(row.client_id) == row:
            return
        if row.client_id not in rows or row.client_id in self._new:
            self._new[row.client_id] = row
        else:
            self.step.replace_row(self.channel, row)
        before = seen(rows.values())
        rows[row.client_id] = row
        self._group_of[row.client_id] = row.group
        self._compare(row.group, before, "healed" if healed else None)

    def take_out(
        self,
        gone: Collection[Row],
        reason: Callable[[Sequence[Row]], Reason],
        until: Callable[[Sequence[Row]], int | None] = lambda rows: None,
    ) -> list[Change]:
        """Delete rows, a user at a time in the order of entering.

        :param reason: asked for each user's rows.
        :param until: likewise; until when that user was seen, ``None`` being now.
        """
        leaving: dict[str | tuple[str], list[Row]] = {}
        for row in sorted(gone, key=lambda row: (row.place, row.client_id)):
            leaving.setdefault(row.group, []).append(row)
        for group, rows in leaving.items():
            before = seen(self.groups[group].values())
            for row in rows:
                del self.groups[group][row.client_id]
            self._compare(group, before, reason(rows))
            if isinstance(group, str) and not self.groups[group]:
                self.seen_until[group] = until(rows)
        if gone:
            self.step.delete_rows(self.channel, [row.client_id for row in gone])
        return self.close()

    def close(self) -> list[Change]:
        """Write new rows and the channel's counters, and return the changes."""
        if self._new:
            self.step.insert_rows(self.channel, list(self._new.values()))
        if self.counters != self._found:
            self.step.save_channel(self.channel, self.counters)
        if self.seen_until:
            self.step.keep_seen(self.seen_until)
        return self.changes

    def _compare(self, group: str | tuple[str], before: Seen | None, reason: Reason | None) -> None:
        after = seen(self.groups[group].values())
        if before == after:
            return
        kind: Kind = "entered" if before is None else "left" if after is None else "updated"
        if kind == "updated" and reason != "healed":
            reason = None
        user_id = group if isinstance(group, str) else None
        arrived = {"entered": 1, "updated": 0, "left": -1}[kind]
        counters = self.counters
        counters.revision += 1
        counters.count += arrived if user_id is not None else 0
        counters.anonymous += arrived if user_id is None else 0
        shown = after or before
        assert shown is not None
        self.changes.append(
            Change(
                kind=kind,
                channel=self.channel,
                epoch=counters.epoch,
                revision=counters.revision,
                user_id=user_id,
                info=load_object(shown.info),
                meta=load_object(shown.meta),
                count=counters.count,
                anonymous=counters.anonymous,
                reason=reason,
            )
        )


class StepBackend(Backend):
    """A backend whose steps run in Python, each inside one transaction of the store."""

    @abstractmethod
    def run(self, step: Callable[[Step], T]) -> T:
        """Run a step atomically; it may be run again where the store asks for it."""

    @abstractmethod
    def end_leases(self) -> None:
        """End each lease that ran out, unless this process spares leases."""

    def is_due(self, row: Row, step: Step) -> bool:
        """Did the row's deadline run out, or was its worker's lease ended?"""
        if row.worker is None:
            return row.deadline is not None and row.deadline <= step.now
        lease = step.lease(row.worker)
        return lease is None or lease.is_over(step.now, spared=True)

    def enter(
        self,
        member: Member,
        *,
        epoch: str,
        worker: str | None = None,
        timeout: float | None = None,
        max_users: int | None = None,
    ) -> list[Change]:
        def step(step: Step) -> list[Change]:
            scene = _open_for([member], step, epoch, worker)
            own = scene.row(member.client_id)
            if own is not None and own.user_id != member.user_id:
                raise ClientIdTaken(
                    f"Client {member.client_id!r} is in {member.channel} as another user."
                )
            is_new = member.user_id is not None and not scene.groups
            if is_new and max_users is not None and scene.counters.count >= max_users:
                raise ChannelFull(f"{member.channel} has its {max_users} users.")
            scene.put(_held(_entered(scene, member, own), step, worker, timeout))
            return scene.close()

        return self.run(step)

    def hold(
        self, channel: str, members: Sequence[Member], *, epoch: str, worker: str
    ) -> list[Change]:
        def step(step: Step) -> list[Change]:
            scene = _open_for(members, step, epoch, worker)
            for member in members:
                row = scene.row(member.client_id) or _entered(scene, member, None)
                scene.put(_held(row, step, worker, None), healed=True)
            return scene.close()

        return self.run(step) if members else []

    def update(self, channel: str, client_id: str, meta: str) -> list[Change]:
        def step(step: Step) -> list[Change]:
            counters, own, _ = step.open(channel, clients=[client_id])
            if counters is None or not own:
                raise NotPresent(f"Client {client_id!r} is not in {channel}.")
            scene = _scene_of(step, channel, counters, own)
            scene.put(own[0]._replace(meta=meta, wrote=scene.next_write()))
            return scene.close()

        return self.run(step)

    def leave(
        self,
        channel: str,
        client_ids: Collection[str],
        *,
        reason: Reason = "left",
        user_id: str | None = None,
        worker: str | None = None,
    ) -> list[Change]:
        def step(step: Step) -> list[Change]:
            users = [] if user_id is None else [user_id]
            counters, found, _ = step.open(channel, users=users, clients=client_ids)
            if counters is None:
                return []
            gone = [
                row
                for row in found
                if (row.client_id in client_ids and worker in (None, row.worker))
                or (user_id is not None and row.user_id == user_id and _has_deadline(row, step))
            ]
            # Who was named has been read with all their rows.
            others = found if all(row.user_id in (None, user_id) for row in gone) else None
            scene = _scene_of(step, channel, counters, gone, others=others)
            return scene.take_out(gone, lambda _: reason)

        return self.run(step)

    def evict(
        self,
        channel: str,
        *,
        user_id: str | None = None,
        client_id: str | None = None,
        reason: Reason | None = None,
    ) -> Evicted:
        def step(step: Step) -> Evicted:
            named = (user_id, client_id)
            users, clients = ([value] if value is not None else [] for value in named)
            counters, gone, _ = step.open(channel, users=users, clients=clients)
            if counters is None:
                return Evicted([], False, False)
            if user_id is None and client_id is None:
                gone = step.some_rows(channel, SLICE)
            scene = _scene_of(step, channel, counters, gone)
            changes = scene.take_out(gone, lambda rows: reason or _eviction(rows))
            held = any(row.worker is not None for row in gone)
            return Evicted(changes, len(gone) >= SLICE, held)

        return self.run(step)

    def settle(self, channel: str) -> Pruned:
        self.end_leases()
        return self.end_due(channel)

    def end_due(self, channel: str) -> Pruned:
        def step(step: Step) -> Pruned:
            counters, _, _ = step.open(channel)
            if counters is None:
                # Members whose channel the store lost: nobody saw them, nobody sees them leave.
                stray = step.some_rows(channel, SLICE)
                step.delete_rows(channel, [row.client_id for row in stray])
                return Pruned([], len(stray) >= SLICE)
            # One too many tells whether there are more.
            found = step.due_rows(channel, SLICE + 1)
            if not found:
                return Pruned([], False)
            scene = _scene_of(step, channel, counters, found[:SLICE])
            rows = [row for group in scene.groups.values() for row in group.values()]
            due = [row for row in rows if self.is_due(row, step)]
            changes = scene.take_out(
                due,
                lambda gone: _ending(gone, step),
                lambda gone: _held_until(gone, step),
            )
            return Pruned(changes, len(found) > SLICE)

        return self.run(step)


def _open_for(members: Sequence[Member], step: Step, epoch: str, worker: str | None) -> Scene:
    channel = members[0].channel
    users = {member.user_id for member in members if member.user_id is not None}
    clients = [member.client_id for member in members]
    counters, rows, may_hold = step.open(
        channel, epoch=epoch, users=users, clients=clients, worker=worker
    )
    assert counters is not None
    if not may_hold:
        raise WorkerGone(f"The store holds no lease for worker {worker}.")
    return Scene(step, channel, counters, rows)


def _scene_of(
    step: Step,
    channel: str,
    counters: Counters,
    rows: Sequence[Row],
    *,
    others: Sequence[Row] | None = None,
) -> Scene:
    """A scene with these rows and all others of the same users, which are read unless given."""
    if others is None:
        users = {row.user_id for row in rows if row.user_id is not None}
        others = step.rows(channel, users) if users else []
    return Scene(step, channel, counters, {row.client_id: row for row in [*rows, *others]}.values())


def _entered(scene: Scene, member: Member, own: Row | None) -> Row:
    if own is None:
        group = member.user_id if member.user_id is not None else (member.client_id,)
        others = scene.groups.get(group, {}).values()
        return Row(
            client_id=member.client_id,
            user_id=member.user_id,
            info=member.info,
            meta=member.meta,
            place=min((row.place for row in others), default=scene.counters.revision + 1),
            named=scene.next_write(),
            wrote=0 if member.meta is None else scene.next_write(),
        )
    if member.info != own.info:
        own = own._replace(info=member.info, named=scene.next_write())
    if member.meta is not None and member.meta != own.meta:
        own = own._replace(meta=member.meta, wrote=scene.next_write())
    return own


def _held(row: Row, step: Step, worker: str | None, timeout: float | None) -> Row:
    if timeout is None:
        return row._replace(worker=worker, deadline=None, held_at=None)
    now = step.now
    lease = step.lease(row.worker) if row.worker is not None else None
    if lease is not None and lease.is_alive(now):
        return row
    return row._replace(worker=None, deadline=now + milliseconds(timeout), held_at=now)


def _has_deadline(row: Row, step: Step) -> bool:
    """Does no connection hold the member any more?"""
    if row.worker is None:
        return True
    lease = step.lease(row.worker)
    return lease is not None and lease.status == DRAINED


def _eviction(rows: Sequence[Row]) -> Reason:
    return "evicted" if any(row.worker is not None for row in rows) else "left"


def _ending(rows: Sequence[Row], step: Step) -> Reason:
    leases = [(row.worker, step.lease(row.worker or "")) for row in rows]
    lost = [worker and (lease is None or lease.status == LOST) for worker, lease in leases]
    return "worker_lost" if all(lost) else "timeout"


def _held_until(rows: Sequence[Row], step: Step) -> int:
    return max(held_until(row, step.lease(row.worker or ""), step.now) for row in rows)


def held_until(row: Row, lease: Lease | None, now: int) -> int:
    """The moment up to which a member is held, but not later than now; ``lease`` is its worker's.

    That of a lease which the store has lost is not known.
    """
    until = row.deadline if row.worker is None else lease and lease.until
    return min(until or now, now)


def moment(milliseconds: int) -> datetime:
    """A moment of the store's clock, as people know it."""
    return _EPOCH + timedelta(milliseconds=milliseconds)


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, rounded up so that nothing ends early."""
    return math.ceil(seconds * 1000)
