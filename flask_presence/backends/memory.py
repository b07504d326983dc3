"""Members in this process alone: for development and tests."""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import TypeVar

from ..model import NOWHERE, Position, State
from .base import Command, Key, Reading, Renewal, Told
from .moments import milliseconds, moment
from .steps import (
    ALIVE,
    DRAINED,
    LOST,
    Counters,
    Lease,
    Opening,
    Row,
    Step,
    StepBackend,
    held_until,
    users_of,
)
from .stored import COMMANDS_KEPT

T = TypeVar("T")


@dataclass(slots=True)
class _Channel:
    counters: Counters
    rows: dict[str, Row] = field(default_factory=dict)
    users: dict[str, set[str]] = field(default_factory=dict)
    """The clients of each user."""


class MemoryBackend(StepBackend):
    """Dicts behind a lock.

    :param clock: gives seconds instead of the process's own clock; for tests only.
    """

    shared = False

    def __init__(
        self, *, worker_timeout: float = 15, clock: Callable[[], float] | None = None
    ) -> None:
        super().__init__(worker_timeout=worker_timeout)
        self._clock = clock or time.monotonic
        self._calendar = clock or time.time
        """What people are told. Somebody may set it, so that nothing else goes by it."""
        self._lock = threading.RLock()
        self._channels: dict[str, _Channel] = {}
        self._leases: dict[str, Lease] = {}
        self._held: dict[str, set[Key]] = {}
        self._clients: dict[str, set[str]] = {}
        self._user_channels: dict[str, set[str]] = {}
        self._latest = self.now
        self._deadlines: list[tuple[int, Key]] = []
        self._commands: deque[tuple[int, int, Command]] = deque()
        self._told = 0
        self._seen: dict[str, int] = {}
        """Until when users were seen, in milliseconds of the calendar."""

    @property
    def now(self) -> int:
        return int(self._clock() * 1000)

    @property
    def today(self) -> int:
        """The calendar, in milliseconds."""
        return int(self._calendar() * 1000)

    def run(self, step: Callable[[Step], T]) -> T:
        with self._lock:
            return step(_MemoryStep(self))

    # Members

    def touch(self, channel: str, client_id: str, timeout: float) -> bool:
        with self._lock:
            row = self._row(Key(channel, client_id))
            if row is None:
                return False
            if row.worker is None:
                self._set_deadline(Key(channel, client_id), timeout)
            return True

    def release(self, worker: str, keys: Collection[Key], *, after: float) -> None:
        with self._lock:
            for key in keys:
                row = self._row(key)
                if row is not None and row.worker == worker:
                    self._set_deadline(key, after)

    def _set_deadline(self, key: Key, after: float) -> None:
        row = self._channels[key.channel].rows[key.client_id]
        now = self.now
        self._store(
            key.channel,
            row._replace(worker=None, deadline=now + milliseconds(after), held_at=now),
        )

    # Workers

    def renew(
        self,
        worker: str,
        timeout: float,
        *,
        create: bool = False,
        channels: Collection[str] = (),
        cursor: int | None = None,
    ) -> Renewal:
        with self._lock:
            lease = self._leases.get(worker)
            held = create if lease is None else lease.status == ALIVE
            if held:
                self._set_lease(worker, ALIVE, timeout)
            return Renewal(
                held=held,
                cursor=self._told,
                positions={name: self._position(name) for name in channels},
                commands=[] if cursor is None else list(self._commands_after(cursor)),
            )

    def _commands_after(self, cursor: int) -> Iterator[Told]:
        now = self.now
        for number, at, command in self._commands:
            if number > cursor:
                yield Told(number, (now - at) / 1000, command)

    def _position(self, name: str) -> Position:
        channel = self._channels.get(name)
        if channel is None:
            return NOWHERE
        return Position(channel.counters.epoch, channel.counters.revision)

    def end_worker(self, worker: str, *, after: float) -> None:
        with self._lock:
            lease = self._leases.get(worker)
            if lease is not None and lease.status == ALIVE:
                self._set_lease(worker, DRAINED, after)

    def _set_lease(self, worker: str, status: str, timeout: float) -> None:
        span = milliseconds(timeout)
        self._leases[worker] = Lease(status, self.now + span, span)

    def workers(self) -> list[str]:
        with self._lock:
            now, leases = self.now, self._leases
            return sorted(worker for worker, lease in leases.items() if lease.is_alive(now))

    def members_of_worker(self, worker: str, *, after: Key | None, limit: int) -> list[Key]:
        with self._lock:
            keys = self._held.get(worker, set())
            return heapq.nsmallest(limit, (key for key in keys if after is None or key > after))

    # Ending what is due

    def end_leases(self) -> None:
        if self.spares_leases:
            return
        with self._lock:
            now = self.now
            for worker, lease in self._leases.items():
                if lease.status == ALIVE and lease.until <= now:
                    self._leases[worker] = lease._replace(status=LOST)

    def due(self, limit: int) -> list[str]:
        self.end_leases()
        with self._lock:
            self._cut_what_is_too_far_ahead()
            for worker in self._workers_over(spared=self.spares_leases):
                if worker not in self._held:
                    self._leases.pop(worker)
            keys = islice(self._due_keys(spared=self.spares_leases), limit)
            return sorted({key.channel for key in keys})

    def _due_keys(self, *, spared: bool) -> Iterator[Key]:
        yield from self._past_deadline()
        for worker in self._workers_over(spared=spared):
            yield from self._held.get(worker, ())

    def _past_deadline(self) -> list[Key]:
        now, found = self.now, {}
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, key = heapq.heappop(self._deadlines)
            row = self._row(key)
            if row is not None and row.deadline == deadline:
                found[key] = deadline
        for key, deadline in found.items():
            heapq.heappush(self._deadlines, (deadline, key))
        return list(found)

    def _workers_over(self, *, spared: bool) -> list[str]:
        now, leases = self.now, self._leases
        over = [worker for worker, lease in leases.items() if lease.is_over(now, spared=spared)]
        return over + [worker for worker in self._held if worker not in leases]

    def _cut_what_is_too_far_ahead(self) -> None:
        now = self.now
        for worker, lease in self._leases.items():
            if lease.until > now + lease.timeout:
                self._leases[worker] = lease._replace(until=now + lease.timeout)
        stepped_back, self._latest = now < self._latest, now
        for _, key in list(self._deadlines) if stepped_back else ():
            row = self._row(key)
            if row is None or row.deadline is None or row.held_at is None or row.held_at <= now:
                continue
            self._set_deadline(key, (row.deadline - row.held_at) / 1000)

    # Reading

    def state(self, channel: str) -> Reading:
        with self._lock:
            found = self._channels.get(channel)
            if found is None:
                return Reading(State(channel), [])
            if self._has_due(channel):
                return Reading(None, self.settle(channel).changes)
            return Reading(
                replace(self._counted(channel), users=users_of(list(found.rows.values()))), []
            )

    def count(self, channel: str) -> Reading:
        with self._lock:
            if self._has_due(channel):
                return Reading(None, self.settle(channel).changes)
            return Reading(self._counted(channel), [])

    def _has_due(self, channel: str) -> bool:
        keys = self._due_keys(spared=self.spares_leases)
        return any(key.channel == channel for key in keys)

    def _counted(self, channel: str) -> State:
        found = self._channels.get(channel)
        if found is None:
            return State(channel)
        counters = found.counters
        return State(channel, counters.epoch, counters.revision, counters.count, counters.anonymous)

    def channels(self, prefix: str | None = None) -> dict[str, int]:
        with self._lock:
            return {
                name: channel.counters.count
                for name, channel in sorted(self._channels.items())
                if channel.rows and (prefix is None or name.startswith(f"/{prefix}/"))
            }

    def channels_of(self, *, user_id: str | None = None, client_id: str | None = None) -> list[str]:
        with self._lock:
            if user_id is not None:
                return sorted(self._user_channels.get(user_id, ()))
            return sorted(self._clients.get(client_id or "", ()))

    def last_seen(self, user_ids: Collection[str]) -> dict[str, datetime | None]:
        with self._lock:
            found = {user_id: self._seen_until(user_id) for user_id in user_ids}
        return {user: None if until is None else moment(until) for user, until in found.items()}

    def _seen_until(self, user_id: str) -> int | None:
        now, today = self.now, self.today
        known = [min(self._seen[user_id], today)] if user_id in self._seen else []
        for row in self._rows_of(user_id):
            known.append(today - now + held_until(row, self._leases.get(row.worker or ""), now))
        return max(known, default=None)

    def _rows_of(self, user_id: str) -> Iterator[Row]:
        for name in self._user_channels.get(user_id, ()):
            channel = self._channels[name]
            for client_id in channel.users[user_id]:
                yield channel.rows[client_id]

    # Upkeep

    def reset_epoch(self, channel: str, old: str, new: str) -> bool:
        with self._lock:
            found = self._channels.get(channel)
            if found is None or found.counters.epoch != old:
                return False
            found.counters.epoch = new
            return True

    def drop_empty_channels(self, retention: float) -> int:
        with self._lock:
            now = self.now
            while self._commands and self._commands[0][1] <= now - COMMANDS_KEPT:
                self._commands.popleft()
            self._forget_seen()
            latest = now - milliseconds(retention)
            empty = [
                name
                for name, channel in self._channels.items()
                if channel.counters.vacated is not None and channel.counters.vacated <= latest
            ]
            for name in empty:
                del self._channels[name]
            return len(empty)

    def _forget_seen(self) -> None:
        latest = self.today - milliseconds(self.last_seen_retention)
        self._seen = {user: until for user, until in self._seen.items() if until > latest}

    def tell(self, command: Command, *, wake: bool = True) -> int:
        with self._lock:
            self._told = max(self._told + 1, self.now)
            self._commands.append((self._told, self.now, command))
            return self._told

    def check(self) -> None:
        return None

    def after_fork(self) -> None:
        self._lock = threading.RLock()

    # Rows and their indexes

    def _row(self, key: Key) -> Row | None:
        channel = self._channels.get(key.channel)
        return None if channel is None else channel.rows.get(key.client_id)

    def _store(self, name: str, row: Row) -> None:
        self._discard(name, row.client_id)
        key = Key(name, row.client_id)
        channel = self._channels[name]
        channel.rows[row.client_id] = row
        self._clients.setdefault(row.client_id, set()).add(name)
        if row.user_id is not None:
            channel.users.setdefault(row.user_id, set()).add(row.client_id)
            self._user_channels.setdefault(row.user_id, set()).add(name)
        if row.worker is not None:
            self._held.setdefault(row.worker, set()).add(key)
        if row.deadline is not None:
            heapq.heappush(self._deadlines, (row.deadline, key))

    def _discard(self, name: str, client_id: str) -> None:
        channel = self._channels[name]
        row = channel.rows.pop(client_id, None)
        if row is None:
            return
        _drop(self._clients, client_id, name)
        if row.worker is not None:
            _drop(self._held, row.worker, Key(name, client_id))
        if row.user_id is not None:
            _drop(channel.users, row.user_id, client_id)
            if row.user_id not in channel.users:
                _drop(self._user_channels, row.user_id, name)


def _drop(index: dict[str, set[T]], key: str, value: T) -> None:
    values = index[key]
    values.discard(value)
    if not values:
        del index[key]


class _MemoryStep:
    """A step on the dicts; the backend's lock makes it atomic, as it writes only what it must."""

    def __init__(self, backend: MemoryBackend) -> None:
        self._backend = backend

    @property
    def now(self) -> int:
        return self._backend.now

    def open(
        self,
        name: str,
        *,
        epoch: str | None = None,
        users: Collection[str] = (),
        clients: Collection[str] = (),
        worker: str | None = None,
    ) -> Opening:
        channel = self._backend._channels.get(name)
        if channel is not None:
            counters: Counters | None = replace(channel.counters)
        else:
            counters = None if epoch is None else Counters(epoch)
        lease = None if worker is None else self.lease(worker)
        may_hold = worker is None or (lease is not None and lease.status == ALIVE)
        return Opening(counters, self.rows(name, users, clients), may_hold)

    def save_channel(self, name: str, counters: Counters) -> None:
        counters.vacated = self.now if counters.is_empty else None
        self._backend._channels[name].counters = counters

    def rows(self, name: str, users: Collection[str], clients: Collection[str] = ()) -> list[Row]:
        channel = self._backend._channels.get(name)
        if channel is None:
            return []
        ids = {client_id for user_id in users for client_id in channel.users.get(user_id, ())}
        ids.update(clients)
        return [channel.rows[client_id] for client_id in ids if client_id in channel.rows]

    def some_rows(self, name: str, limit: int) -> list[Row]:
        channel = self._backend._channels.get(name)
        rows = [] if channel is None else channel.rows.values()
        return heapq.nsmallest(limit, rows, key=lambda row: (row.place, row.client_id))

    def due_rows(self, name: str, limit: int) -> list[Row]:
        rows = self._backend._channels[name].rows
        keys = self._backend._due_keys(spared=True)
        due = (rows[key.client_id] for key in keys if key.channel == name)
        return heapq.nsmallest(limit, due, key=lambda row: (row.place, row.client_id))

    def insert_rows(self, name: str, rows: Sequence[Row]) -> None:
        if name not in self._backend._channels:
            self._backend._channels[name] = _Channel(Counters(""))
        for row in rows:
            self._backend._store(name, row)

    def replace_row(self, name: str, row: Row) -> None:
        self._backend._store(name, row)

    def delete_rows(self, name: str, client_ids: Sequence[str]) -> None:
        for client_id in client_ids:
            self._backend._discard(name, client_id)

    def keep_seen(self, until: Mapping[str, int | None]) -> None:
        if not self._backend.last_seen_retention:
            return
        now, today, seen = self.now, self._backend.today, self._backend._seen
        for user_id, at in until.items():
            seen[user_id] = max(seen.get(user_id, 0), today if at is None else today - now + at)

    def lease(self, worker: str) -> Lease | None:
        return self._backend._leases.get(worker)
