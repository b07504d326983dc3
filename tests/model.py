"""A plain model of who is where, written from the docs alone, to compare the stores with.

It keeps every member in one dict, and after each step asks what others saw before and see now. It
knows nothing of slices, locks or indexes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flask_presence.errors import ClientIdTaken, NotPresent, WorkerGone
from flask_presence.model import Change, Member, State, User


class Who(NamedTuple):
    """Who is counted: a user, or an anonymous client by itself."""

    user_id: str | None
    client_id: str | None


@dataclass
class Held:
    """A client in a channel. It is held by a worker, or else by a deadline."""

    who: Who
    info: str
    info_turn: int
    meta: str | None
    meta_turn: int
    worker: str | None = None
    deadline: float = 0.0
    span: float = 0.0


@dataclass
class Room:
    epoch: str
    revision: int = 0
    clients: dict[str, Held] = field(default_factory=dict)
    places: dict[Who, int] = field(default_factory=dict)
    vacated: float = 0.0


@dataclass
class Lease:
    """``drained``: it is over, but its members stay until ``until``; ``ended``: they are due."""

    until: float
    span: float
    drained: bool = False
    ended: bool = False


class World:
    """All channels of one store, and its clock."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.rooms: dict[str, Room] = {}
        self.leases: dict[str, Lease] = {}
        self.kept: dict[str, float] = {}
        self.turn = 0

    # What others see

    def seen(self, room: Room, who: Who) -> tuple[str, str] | None:
        clients = [held for held in room.clients.values() if held.who == who]
        if not clients:
            return None
        if who.user_id is None:
            return ("{}", "{}")
        named = max(clients, key=lambda held: held.info_turn)
        writers = [held for held in clients if held.meta is not None]
        if not writers:
            return (named.info, "{}")
        writer = max(writers, key=lambda held: held.meta_turn)
        assert writer.meta is not None
        return (named.info, writer.meta)

    def counts(self, room: Room) -> tuple[int, int]:
        present = {held.who for held in room.clients.values()}
        users = [who for who in present if who.user_id is not None]
        return len(users), len(present) - len(users)

    def _changing(
        self, name: str, who: Who, act: Callable[[Room], None], reason: str | None = None
    ) -> list[Change]:
        """Do something that concerns one user or anonymous client; tell what others see of it."""
        room = self.rooms[name]
        before = self.seen(room, who)
        act(room)
        after = self.seen(room, who)
        if not room.clients:
            room.vacated = self.now
        if before == after:
            return []
        room.revision += 1
        if before is None:
            kind, shown = "entered", after
            room.places[who] = room.revision
        elif after is None:
            kind, shown = "left", before
            del room.places[who]
        else:
            kind, shown = "updated", after
        if kind != "left" and reason != "healed":
            reason = None
        assert shown is not None
        count, anonymous = self.counts(room)
        info, meta = (json.loads(text) for text in shown)
        change: Any = (kind, name, room.epoch, room.revision, who.user_id, info, meta)
        return [Change(*change, count, anonymous, reason)]  # type: ignore[arg-type]

    # Members

    def enter(
        self,
        member: Member,
        *,
        epoch: str,
        worker: str | None = None,
        timeout: float | None = None,
        reason: str | None = None,
    ) -> list[Change]:
        if worker is not None:
            self._check_lease(worker)
        who = Who(member.user_id, None if member.user_id is not None else member.client_id)
        known = self.rooms[member.channel].clients if member.channel in self.rooms else {}
        if member.client_id in known and known[member.client_id].who != who:
            raise ClientIdTaken

        def act(room: Room) -> None:
            self.turn += 1
            held = room.clients.get(member.client_id)
            if held is None:
                held = Held(who, member.info, self.turn, member.meta, self.turn)
                room.clients[member.client_id] = held
            elif reason != "healed":
                if member.info != held.info:
                    held.info, held.info_turn = member.info, self.turn
                if member.meta is not None and member.meta != held.meta:
                    held.meta, held.meta_turn = member.meta, self.turn
            held.worker = worker
            if timeout is not None:
                held.deadline, held.span = self.now + timeout, timeout

        self.rooms.setdefault(member.channel, Room(epoch))
        return self._changing(member.channel, who, act, reason)

    def hold(self, members: Iterable[Member], *, epoch: str, worker: str) -> list[Change]:
        changes: list[Change] = []
        for member in members:
            changes += self.enter(member, epoch=epoch, worker=worker, reason="healed")
        return changes

    def _check_lease(self, worker: str) -> None:
        lease = self.leases.get(worker)
        if lease is None or lease.drained or lease.ended:
            raise WorkerGone

    def update(self, name: str, client_id: str, meta: str) -> list[Change]:
        if name not in self.rooms or client_id not in self.rooms[name].clients:
            raise NotPresent

        def act(room: Room) -> None:
            self.turn += 1
            room.clients[client_id].meta = meta
            room.clients[client_id].meta_turn = self.turn

        return self._changing(name, self.rooms[name].clients[client_id].who, act)

    def leave(
        self,
        name: str,
        client_ids: Iterable[str],
        *,
        reason: str = "left",
        user_id: str | None = None,
        worker: str | None = None,
    ) -> list[Change]:
        room = self.rooms.get(name)
        if room is None:
            return []
        gone = [
            client_id
            for client_id in client_ids
            if client_id in room.clients
            and (worker is None or room.clients[client_id].worker == worker)
        ]
        for client_id, held in room.clients.items():
            if user_id is not None and held.who.user_id == user_id and self.has_deadline(held):
                gone.append(client_id)
        return self._take_out(name, gone, lambda clients: reason)

    def has_deadline(self, held: Held) -> bool:
        lease = self.leases.get(held.worker) if held.worker is not None else None
        return held.worker is None or (lease is not None and lease.drained)

    def _take_out(
        self,
        name: str,
        client_ids: Iterable[str],
        reason: Callable[[list[Held]], str],
        until: Callable[[Held], float] | None = None,
    ) -> list[Change]:
        """Take clients out, all those of a user at once, in the order of their users' places.

        Who left was seen until now, or until the last of these clients was.
        """
        room = self.rooms[name]
        leaving: dict[Who, set[str]] = {}
        for client_id in client_ids:
            leaving.setdefault(room.clients[client_id].who, set()).add(client_id)
        changes: list[Change] = []
        for who in sorted(leaving, key=lambda who: room.places[who]):
            clients = [room.clients[client_id] for client_id in leaving[who]]

            def act(room: Room, who: Who = who) -> None:
                for client_id in leaving[who]:
                    del room.clients[client_id]

            ended = self._changing(name, who, act, reason(clients))
            if who.user_id is not None and [change.kind for change in ended] == ["left"]:
                moments = [until(held) if until is not None else self.now for held in clients]
                self.kept[who.user_id] = max(self.kept.get(who.user_id, 0.0), *moments)
            changes += ended
        return changes

    def touch(self, name: str, client_id: str, timeout: float) -> bool:
        room = self.rooms.get(name)
        if room is None or client_id not in room.clients:
            return False
        held = room.clients[client_id]
        if held.worker is None:
            held.deadline, held.span = self.now + timeout, timeout
        return True

    def release(self, worker: str, keys: Iterable[tuple[str, str]], *, after: float) -> None:
        for name, client_id in keys:
            room = self.rooms.get(name)
            held = room.clients.get(client_id) if room else None
            if held is not None and held.worker == worker:
                held.worker, held.deadline, held.span = None, self.now + after, after

    def evict(
        self,
        name: str,
        *,
        user_id: str | None = None,
        client_id: str | None = None,
        reason: str | None = None,
    ) -> list[Change]:
        room = self.rooms.get(name)
        if room is None:
            return []
        everyone = user_id is None and client_id is None
        gone = [
            key
            for key, held in room.clients.items()
            if everyone or key == client_id or (user_id and held.who.user_id == user_id)
        ]

        def why(clients: list[Held]) -> str:
            connected = any(held.worker is not None for held in clients)
            return reason or ("evicted" if connected else "left")

        return self._take_out(name, gone, why)

    # Workers

    def renew(self, worker: str, timeout: float, *, create: bool = False) -> bool:
        lease = self.leases.get(worker)
        if lease is None and not create:
            return False
        if lease is not None and (lease.drained or lease.ended):
            return False
        self.leases[worker] = Lease(self.now + timeout, timeout)
        return True

    def end_worker(self, worker: str, *, after: float) -> None:
        lease = self.leases.get(worker)
        if lease is not None and not lease.ended:
            self.leases[worker] = Lease(self.now + after, after, drained=True)

    def members_of_worker(self, worker: str) -> list[tuple[str, str]]:
        return sorted(
            (name, client_id)
            for name, room in self.rooms.items()
            for client_id, held in room.clients.items()
            if held.worker == worker
        )

    # Ending

    def cut(self) -> None:
        """After the clock stepped back: nothing lies further ahead than its timeout."""
        for lease in self.leases.values():
            lease.until = min(lease.until, self.now + lease.span)
        for room in self.rooms.values():
            for held in room.clients.values():
                held.deadline = min(held.deadline, self.now + held.span)

    def end_leases(self) -> None:
        for lease in self.leases.values():
            if not lease.drained and lease.until <= self.now:
                lease.ended = True

    def is_due(self, held: Held) -> bool:
        if held.worker is None:
            return held.deadline <= self.now
        lease = self.leases.get(held.worker)
        return lease is None or lease.ended or lease.until <= self.now

    def is_lost(self, held: Held) -> bool:
        lease = self.leases.get(held.worker) if held.worker is not None else None
        return held.worker is not None and (lease is None or not lease.drained)

    def settle(self, name: str) -> list[Change]:
        self.end_leases()
        room = self.rooms.get(name)
        if room is None:
            return []
        due = [client_id for client_id, held in room.clients.items() if self.is_due(held)]

        def why(clients: list[Held]) -> str:
            return "worker_lost" if all(self.is_lost(held) for held in clients) else "timeout"

        return self._take_out(name, due, why, self.held_until)

    def held_until(self, held: Held) -> float:
        if held.worker is None:
            return min(held.deadline, self.now)
        lease = self.leases.get(held.worker)
        return self.now if lease is None else min(lease.until, self.now)

    def prune(self) -> list[Change]:
        self.end_leases()
        return [change for name in sorted(self.rooms) for change in self.settle(name)]

    # Reading

    def state(self, name: str) -> State:
        """Read a settled channel."""
        room = self.rooms.get(name)
        if room is None:
            return State(name)
        users: list[User] = []
        for who in sorted(room.places, key=lambda who: room.places[who]):
            shown = self.seen(room, who)
            if who.user_id is not None and shown is not None:
                users.append(User(who.user_id, json.loads(shown[0]), json.loads(shown[1])))
        return State(name, room.epoch, room.revision, *self.counts(room), tuple(users))

    def position(self, name: str) -> tuple[str | None, int]:
        room = self.rooms.get(name)
        return (None, 0) if room is None else (room.epoch, room.revision)

    def channels(self) -> dict[str, int]:
        return {name: self.counts(room)[0] for name, room in self.rooms.items() if room.clients}

    def channels_of(self, user_id: str) -> list[str]:
        return sorted(
            name
            for name, room in self.rooms.items()
            if any(held.who.user_id == user_id for held in room.clients.values())
        )

    def last_seen(self, user_id: str) -> float | None:
        moments = [
            self.held_until(held)
            for room in self.rooms.values()
            for held in room.clients.values()
            if held.who.user_id == user_id
        ]
        if user_id in self.kept:
            moments.append(min(self.kept[user_id], self.now))
        return max(moments, default=None)

    def is_present(self, user_id: str) -> bool:
        return any(
            held.who.user_id == user_id and not self.is_due(held)
            for room in self.rooms.values()
            for held in room.clients.values()
        )

    # Upkeep

    def reset_epoch(self, name: str, old: str, new: str) -> bool:
        room = self.rooms.get(name)
        if room is None or room.epoch != old:
            return False
        room.epoch = new
        return True

    def drop_empty_channels(self, retention: float, seen_retention: float) -> int:
        self.kept = {
            user_id: moment
            for user_id, moment in self.kept.items()
            if moment + seen_retention > self.now
        }
        empty = [
            name
            for name, room in self.rooms.items()
            if not room.clients and room.vacated + retention <= self.now
        ]
        for name in empty:
            del self.rooms[name]
        return len(empty)
