"""The verbs of a backend, each of them one step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from ...errors import ChannelFull, ClientIdTaken, NotPresent, WorkerGone
from ...model import Change, Member, Reason
from ..base import SLICE, Backend, Evicted, Pruned
from ..moments import milliseconds
from .leases import DRAINED, LOST, held_until
from .rows import Counters, Row
from .scene import Scene
from .step import Step

T = TypeVar("T")


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
