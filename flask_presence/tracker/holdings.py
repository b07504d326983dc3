"""Whom this process holds: what is taken out, put back and given up, until the store agrees."""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from ..backends.base import SLICE, Key, chunks
from ..errors import PresenceError, WorkerGone
from ..model import Change, Reason
from .clients import Client, Entry
from .lease import Lease
from .parts import Parts, new_epoch
from .releases import Releases

log = logging.getLogger(__name__)

RECONCILE_SECONDS = 60.0
LAPSE_SECONDS = 0.01
"""A little later than the deadline, which is of another clock."""


class Held(NamedTuple):
    """A client in a channel, as this process thinks."""

    channel: str
    client: Client
    entry: Entry


class Reading(NamedTuple):
    """What this process thought it held, then what the store thought, and when that was read."""

    mine: list[Held]
    theirs: set[Key]
    at: float


class Holdings:
    """The members of this process's own clients.

    Whoever writes to the store for a client looks again afterwards: the client may have left,
    entered or closed meanwhile.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._backend = parts.backend
        self._clients = parts.clients
        self._clock = parts.clock
        self._unheld: set[Client] = set()
        self._unwritten: set[str] = set()
        self._is_doubtful = False
        """May the store have lost what any client gave last?"""
        self._gone: list[Client] = []
        self._doubted: list[tuple[float, Client]] = []
        self._lapsing: deque[tuple[float, set[str]]] = deque()
        self._reconciled_at = self._clock() - random.uniform(0, RECONCILE_SECONDS)
        self.releases = Releases(self._backend, grace=parts.settings.leave_grace)
        self.lease = Lease(parts, self._lease_is_gone)
        self.wake: Callable[[], object] = lambda: None
        """Called when there are releases to write."""
        self.on_doubt: Callable[[], object] = lambda: None
        """Called when a renewal is needed to know who is in."""

    @contextmanager
    def writing(self, client: Client) -> Iterator[None]:
        """Write for a client, one operation after another; if it closed meanwhile, release it."""
        try:
            with client.lock:
                yield
        finally:
            if client.closed:
                self.release(client)

    def look_again(self, client: Client, worker: str) -> None:
        """A client was entered under this worker's lease, which may have gone meanwhile."""
        if worker != self.lease.id:
            self._unheld.add(client)

    # Taking out

    def take_out(
        self,
        channel: str,
        clients: Iterable[Client],
        reason: Reason,
        *,
        is_meant: Callable[[Entry], bool] = lambda entry: True,
        are_lost: bool = False,
    ) -> list[Client]:
        """Take clients out of a channel, many in one step, and return those who were: who are in
        and still meant.

        :param are_lost: they neither left nor were evicted, so that they may enter again.
        """
        out: list[Client] = []
        for some in chunks(sorted(clients, key=lambda client: client.id)):
            with ExitStack() as locks:
                # In one order; everybody else holds only the lock of one client.
                for client in some:
                    locks.enter_context(client.lock)
                gone = [
                    client
                    for client in some
                    if channel in client.entered and is_meant(client.entered[channel])
                ]
                for client in gone:
                    self._forget(client, channel, is_lost=are_lost)
                ids = [client.id for client in gone]
                changes = []
                try:
                    changes = self._backend.leave(channel, ids, reason=reason) if ids else []
                except PresenceError as error:
                    log.warning("%s could not be left at once: %s", channel, error)
                    self._leave_later(channel, ids)
            self._parts.announcer.announce(changes)
            out += gone
        return out

    def lose(self, client: Client, channel: str) -> None:
        """A client is found not to be in, without having left: it may enter again."""
        self._forget(client, channel, is_lost=True)

    def _forget(self, client: Client, channel: str, *, is_lost: bool) -> None:
        client.entered.pop(channel, None)
        self._parts.rooms.leave(client.id, channel)
        if is_lost:
            client.lost[channel] = None

    def _leave_later(self, channel: str, client_ids: Iterable[str]) -> None:
        for client_id in client_ids:
            self.releases.add(client_id, [channel])
        self.wake()

    def end_silence(self) -> None:
        """Take out clients that were silent for longer than a channel allows."""
        now = self._clock()
        silent: dict[str, list[Client]] = {}
        for client in self._clients.all():
            if now - client.heard <= self._parts.settings.heartbeat_interval:
                continue
            for channel, entry in list(client.entered.items()):
                if now - client.heard > entry.timeout:
                    silent.setdefault(channel, []).append(client)
        for channel, clients in silent.items():
            still_silent = [client for client in clients if client.heard < now]
            self.take_out(
                channel,
                still_silent,
                "timeout",
                is_meant=lambda entry: entry.since < now,
                are_lost=True,
            )

    # What closed connections held

    def release(self, client: Client) -> None:
        """Queue what a closed client holds: after a drop it has a deadline, else it leaves."""
        if self.lease.drained:
            return
        waits = client.dropped and client.identity.user_id is not None
        worker = self.lease.id if waits and self._parts.settings.leave_grace else None
        self.releases.add(client.id, {*client.entered, *client.uncertain}, dropped_by=worker)
        self._gone.append(client)
        self.wake()

    def write_releases(self) -> None:
        """Write what is queued; what the store did not take stays queued."""
        gone, self._gone = self._gone, []
        for client in gone:
            for channel in list(client.subscribed):
                self._parts.rooms.forget(client.id, channel)
        dropped = self.releases.write_dropped()
        if dropped:
            lapse = self._clock() + self._parts.settings.leave_grace + LAPSE_SECONDS
            self._lapsing.append((lapse, dropped))
        for changes, channel, client_ids in self.releases.write_leaving():
            self._parts.announcer.announce(changes)
            self._put_back_who_is_in(channel, client_ids)

    def next_lapse(self) -> float | None:
        """In how many seconds the next grace is over."""
        return max(0.0, self._lapsing[0][0] - self._clock()) if self._lapsing else None

    def end_lapsed(self) -> None:
        """End who did not come back in time. Pruning would too, but has no reason to hurry."""
        channels: set[str] = set()
        while self._lapsing and self._lapsing[0][0] <= self._clock():
            channels |= self._lapsing.popleft()[1]
        for channel in sorted(channels):
            more = True
            while more:
                changes, more = self._backend.settle(channel)
                self._parts.announcer.announce(changes)

    def _put_back_who_is_in(self, channel: str, client_ids: Iterable[str]) -> None:
        """A client that entered again while its leaving was queued has just been taken out."""
        for client_id in client_ids:
            client = self._clients.find(client_id)
            if client is None:
                continue
            with client.lock:
                if channel in client.entered:
                    self._unheld.add(client)

    # Putting back

    def _lease_is_gone(self, heard_since: float | None) -> None:
        for client in self._clients.all():
            if heard_since is None or client.heard > heard_since:
                self._unheld.add(client)
                continue
            for channel in list(client.entered):
                self.lose(client, channel)

    def doubt(self, client: Client) -> None:
        """The store does not have a client that is in: it was evicted by a command that was not
        read yet, or the store lost it."""
        self._doubted.append((self._clock(), client))
        self.on_doubt()

    def end_doubts(self, asked: float) -> None:
        """Have those put back whom no command took out.

        Called after the commands of a renewal were obeyed that was asked for at this moment.
        """
        doubted, self._doubted = self._doubted, []
        for since, client in doubted:
            if since <= asked:
                self._unheld.add(client)
            else:
                self._doubted.append((since, client))

    def put_back(self) -> None:
        """Enter again the clients that the store took out, or lost, though they are here."""
        unheld, self._unheld = self._unheld, set()
        try:
            self._hold([held for held in self._mine() if held.client in unheld])
        except PresenceError:
            self._unheld |= unheld
            raise

    def write_again(self, channels: Iterable[str]) -> None:
        """Write what the clients gave in channels whose last writes the store lost: who is still in
        may be in with an older meta."""
        self._unwritten.update(channels)
        for channel in sorted(self._unwritten):
            for client in self._clients.all():
                self._parts.announcer.announce(self._write_again(client, channel))
            self._unwritten.discard(channel)

    def _write_again(self, client: Client, channel: str) -> list[Change]:
        if channel not in client.entered:
            return []
        # Under the lock, so that no update of the client's own is undone.
        with self.writing(client):
            entry = client.entered.get(channel)
            if entry is None or entry.meta is None or client.closed:
                return []
            return self._backend.enter(
                client.member(channel, entry.meta), epoch=new_epoch(), worker=self.lease.hold()
            )

    def _mine(self) -> list[Held]:
        return [
            Held(channel, client, entry)
            for client in self._clients.all()
            for channel, entry in list(client.entered.items())
        ]

    def _hold(self, holdings: Sequence[Held]) -> None:
        by_channel: dict[str, list[Held]] = {}
        for held in holdings:
            by_channel.setdefault(held.channel, []).append(held)
        for channel, group in sorted(by_channel.items()):
            for some in chunks(group):
                self._hold_slice(channel, some)

    def _hold_slice(self, channel: str, some: Sequence[Held]) -> None:
        worker = self.lease.hold()
        members = [held.client.member(channel, held.entry.meta) for held in some]
        try:
            changes = self._backend.hold(channel, members, epoch=new_epoch(), worker=worker)
        except WorkerGone:
            self.lease.replace(worker)
            raise
        finally:
            for _, client, _ in some:
                if client.closed:
                    self.release(client)
                elif channel not in client.entered:
                    self._leave_later(channel, [client.id])
        self._parts.announcer.announce(changes)

    # Reconciling

    def is_reconcile_due(self) -> bool:
        return self._clock() - self._reconciled_at >= RECONCILE_SECONDS

    def read(self) -> Reading:
        """Read what the store thinks that this process holds."""
        mine, theirs = self._mine(), set[Key]()
        worker, after = self.lease.hold(), None
        while True:
            page = self._backend.members_of_worker(worker, after=after, limit=SLICE)
            theirs.update(page)
            if len(page) < SLICE:
                return Reading(mine, theirs, self._clock())
            after = page[-1]

    def reconcile(self, reading: Reading) -> None:
        """Put back what the store lost, and give up what nobody here holds.

        Called after the commands of a renewal were obeyed that was asked for after the reading: so
        an evicted client is not put back.
        """
        mine, theirs, _ = reading
        self._hold(
            [
                held
                for held in mine
                if Key(held.channel, held.client.id) not in theirs
                and held.client.entered.get(held.channel) is held.entry
                and not held.client.closed
            ]
        )
        self._give_up(theirs - {Key(channel, client.id) for channel, client, _ in mine})
        if self._is_doubtful:
            self._is_doubtful = False
            self._unwritten.update(held.channel for held in mine)
        self.write_again(())
        self._reconciled_at = self._clock()

    def doubt_all(self) -> None:
        """The store began anew: write what every client gave once more, with the next reconcile."""
        self._is_doubtful = True

    def _give_up(self, keys: Iterable[Key]) -> None:
        """Take out of the store whom nobody here wants in."""
        unknown: dict[str, list[str]] = {}
        for key in sorted(keys):
            client = self._clients.find(key.client_id)
            if client is not None:
                with client.lock:
                    changes = self._give_up_one(client, key.channel)
                self._parts.announcer.announce(changes)
            elif key not in self.releases:
                unknown.setdefault(key.channel, []).append(key.client_id)
        for channel, client_ids in unknown.items():
            for some in chunks(client_ids):
                self._parts.announcer.announce(self._leave(channel, some))
        for client in self._clients.all():
            with client.lock:
                for channel, since in list(client.uncertain.items()):
                    if not self._is_recent(since):
                        client.settle(channel)

    def _give_up_one(self, client: Client, channel: str) -> list[Change]:
        tried = client.uncertain.get(channel)
        if channel in client.entered or (tried is not None and self._is_recent(tried)):
            return []
        return self._leave(channel, [client.id])

    def _is_recent(self, moment: float) -> bool:
        return self._clock() - moment < RECONCILE_SECONDS

    def _leave(self, channel: str, client_ids: list[str]) -> list[Change]:
        return self._backend.leave(channel, client_ids, worker=self.lease.hold())

    def closed_unnoticed(self) -> list[Client]:
        """Clients whose sockets are closed, though nobody said so."""
        return [
            client
            for client in self._clients.all()
            if client.is_real and not self._parts.rooms.is_connected(client.id)
        ]

    def drain(self) -> None:
        """Hold nothing new; what is held gets a deadline, and later disconnects change nothing."""
        try:
            self.write_releases()
        except PresenceError as error:
            log.warning("Not all closed connections could be given up: %s", error)
        self.lease.drain()
