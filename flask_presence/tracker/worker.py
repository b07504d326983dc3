"""This process as the store knows it: a worker with a lease, whose holdings must agree with it."""

from __future__ import annotations

import logging
import random
import secrets
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..backends.base import SLICE, Key, Renewal
from ..errors import BackendUnavailable, PresenceError, WorkerGone
from ..model import Position, Reason
from .clients import Client, Entry
from .parts import Parts
from .releases import Releases

log = logging.getLogger(__name__)

RECONCILE_SECONDS = 60.0


def new_epoch() -> str:
    """A random tag for the life of a channel's change counter."""
    return secrets.token_urlsafe(9)


class Renewed(NamedTuple):
    """A renewal, what was known when it was asked for, and when it was answered."""

    renewal: Renewal
    known: dict[str, Position]
    answered: float


class Held(NamedTuple):
    """A client in a channel, as this process thinks."""

    channel: str
    client: Client
    entry: Entry


class Worker:
    """Keeps the lease, and puts right what the lease, the store and the connections disagree on."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._backend = parts.backend
        self._clients = parts.clients
        self._clock = parts.clock
        self._lock = threading.RLock()
        self._timeout = parts.settings.worker_timeout
        self._renewed_at = self._clock()
        self._cursor: int | None = None
        self._unheld: set[Client] = set()
        self._reconciled_at = self._clock() - random.uniform(0, RECONCILE_SECONDS)
        self._releases = Releases(self._backend, grace=parts.settings.leave_grace)
        self._gone: list[Client] = []
        self.id: str | None = None
        self.drained = False
        self.wake: Callable[[], object] = lambda: None
        """Called when there are releases to work off."""

    # The lease

    def lease(self) -> str:
        """The id under which this process may hold members now."""
        with self._lock:
            if self.drained:
                raise BackendUnavailable("This server process is stopping.")
            return self.id if self.id is not None else self._begin()

    def _begin(self) -> str:
        worker, asked = secrets.token_urlsafe(12), self._clock()
        renewal = self._backend.renew(worker, self._timeout, create=True, cursor=self._cursor)
        self.id, self._renewed_at = worker, asked
        if self._cursor is None:
            self._cursor = renewal.cursor
        return worker

    def replace(self, gone: str) -> None:
        """Take a new id, because the store holds no lease for the one that is ``gone``.

        If the last renewal was recent, nobody can have ended the lease, so the store lost data
        and every client is put back. If it was late, this process was frozen and others saw its
        clients leave: only those that were heard from since are put back, the others are lost
        and say so themselves, or fall silent.
        """
        with self._lock:
            if self.id != gone or self.drained:
                return
            self.id = None
            expired = self._renewed_at + self._timeout
            was_late = self._clock() > expired
            self._begin()
            for client in self._clients.all():
                if was_late and client.heard <= expired:
                    self._lose(client)
                else:
                    self._unheld.add(client)
        log.warning("The presence lease of this worker was gone; it goes on under a new one")

    def _lose(self, client: Client) -> None:
        for channel in list(client.entered):
            self._lose_one(client, channel)

    def _lose_one(self, client: Client, channel: str) -> None:
        if client.entered.pop(channel, None) is not None:
            client.lost.add(channel)
            self._parts.rooms.leave(client.id, channel)

    def renew(self) -> Renewed:
        """Renew once, and take a new id where the lease did not hold."""
        worker = self.lease()
        known, asked = self._parts.feed.known(), self._clock()
        renewal = self._backend.renew(
            worker, self._timeout, channels=list(known), cursor=self._cursor
        )
        answered = self._clock()
        self._cursor = renewal.cursor
        if renewal.held:
            self._renewed_at = asked
        else:
            self.replace(worker)
        return Renewed(renewal, known, answered)

    def drain(self) -> None:
        """Hold nothing new; what is held gets a deadline, and later disconnects change nothing."""
        self.work_off_releases()
        with self._lock:
            self.drained = True
            if self.id is not None:
                self._backend.end_worker(self.id, after=self._timeout)

    # Holdings

    def put_back(self) -> None:
        """Enter again the clients whose members were under a lease that is gone."""
        if not self._unheld:
            return
        unheld = set(self._unheld)
        self._hold([held for held in self._holdings() if held.client in unheld])
        self._unheld -= unheld

    def _holdings(self) -> list[Held]:
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
            for start in range(0, len(group), SLICE):
                self._hold_slice(channel, group[start : start + SLICE])

    def _hold_slice(self, channel: str, group: Sequence[Held]) -> None:
        worker = self.lease()
        members = [held.client.member(channel, held.entry.meta) for held in group]
        try:
            changes = self._backend.hold(channel, members, epoch=new_epoch(), worker=worker)
        except WorkerGone:
            self.replace(worker)
            raise
        self._parts.announcer.announce(changes)
        # Whoever left or closed while this was written may have been put back: look again.
        for _, client, _ in group:
            if channel not in client.entered:
                self._releases.add(client.id, [channel])
                self.wake()
            elif client.closed:
                self.release(client)

    def give_up(self, client: Client, channel: str, reason: Reason) -> None:
        """Take a client out of the store that is in the channel no longer."""
        try:
            changes = self._backend.leave(channel, [client.id], reason=reason)
        except PresenceError as error:
            log.warning("%s could not be left at once: %s", channel, error)
            self._releases.add(client.id, [channel])
            self.wake()
        else:
            self._parts.announcer.announce(changes)

    def end_silence(self) -> None:
        """Take out clients that were silent for longer than a channel allows."""
        now = self._clock()
        for client in self._clients.all():
            silent = now - client.heard
            if silent <= self._parts.settings.heartbeat_interval:
                continue
            for channel, entry in list(client.entered.items()):
                if silent > entry.timeout:
                    self._lose_one(client, channel)
                    self.give_up(client, channel, "timeout")

    # What closed connections held

    def release(self, client: Client) -> None:
        """Queue what a closed client holds: after a drop it has a deadline, else it leaves."""
        if self.drained:
            return
        waits = client.dropped and client.identity.user_id is not None
        worker = self.id if waits and self._parts.settings.leave_grace else None
        self._releases.add(client.id, {*client.entered, *client.uncertain}, dropped_by=worker)
        self._gone.append(client)
        self.wake()

    def work_off_releases(self) -> None:
        """Write what is queued; what the store did not take stays."""
        gone, self._gone = self._gone, []
        for client in gone:
            for channel in list(client.subscribed):
                self._parts.rooms.forget(client.id, channel)
        self._releases.work_off(self._parts.announcer.announce)

    # Reconciling

    def is_reconcile_due(self) -> bool:
        return self._clock() - self._reconciled_at >= RECONCILE_SECONDS

    def read_holdings(self) -> tuple[list[Held], set[Key]]:
        """What this process thinks it holds, then what the store thinks."""
        self._reconciled_at = self._clock()
        mine, theirs = self._holdings(), set[Key]()
        worker, after = self.lease(), None
        while True:
            page = self._backend.members_of_worker(worker, after=after, limit=SLICE)
            theirs.update(page)
            if len(page) < SLICE:
                return mine, theirs
            after = page[-1]

    def reconcile(self, mine: list[Held], theirs: set[Key]) -> None:
        """Put back what the store lost, and give up what nobody here holds.

        Called with what was read *before* a renewal, whose evictions were obeyed since: so an
        evicted client is not put back.
        """
        known = {Key(channel, client.id) for channel, client, _ in mine}
        self._hold(
            [
                held
                for held in mine
                if Key(held.channel, held.client.id) not in theirs
                and held.client.entered.get(held.channel) is held.entry
                and not held.client.closed
            ]
        )
        for key in theirs - known:
            if not self._is_wanted(key):
                self._parts.announcer.announce(
                    self._backend.leave(key.channel, [key.client_id], worker=self.lease())
                )

    def _is_wanted(self, key: Key) -> bool:
        client = self._clients.find(key.client_id)
        if client is None:
            return key in self._releases
        return key.channel in client.entered or key.channel in client.uncertain

    def gone_clients(self) -> list[Client]:
        """Clients whose sockets are closed, though nobody said so."""
        return [
            client
            for client in self._clients.all()
            if client.is_real and not self._parts.rooms.is_connected(client.id)
        ]
