"""What a store must do: the contract that every backend keeps, told in the docstrings of `Backend`.

Times are durations in seconds; only the store's own clock turns them into moments. ``info`` and
``meta`` are opaque text to a store. Channel names, client and user ids compare as bytes.

A member is **held** by a worker (while that worker's lease is renewed) or by a deadline. A member
is **due** when its deadline has run out, or its worker's lease has run out or is unknown. Nothing
is visible of that until a step *meets* it and ends it; up to then it may be renewed or entered
over. Every step that changes a channel is atomic, and each visible change in it raises the
channel's revision by one, starting from 1 in a new epoch.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from ..model import Change, Member, Position, Reason, State

SLICE = 100
"""How many members one step ends at the most, so that no step holds the store for long."""


class Key(NamedTuple):
    """Names a member."""

    channel: str
    client_id: str


class Reading(NamedTuple):
    """What a read found: the state, or ``None`` where it ended a slice of due members first, in
    ``changes``, and has to be asked again."""

    state: State | None
    changes: list[Change]


class Pruned(NamedTuple):
    """What a slice of pruning ended, and whether there is more that is due."""

    changes: list[Change]
    more: bool


class Evicted(NamedTuple):
    """What a slice of evicting ended, whether there is more, and whether a worker held any."""

    changes: list[Change]
    more: bool
    held: bool


@dataclass(frozen=True, slots=True)
class Command:
    """Something that concerns every process: told through the store, in a numbered log.

    ``kind`` is ``evict``, ``reload`` or ``forget``; a field that is ``None`` means any.
    """

    kind: str
    channel: str | None = None
    user_id: str | None = None
    client_id: str | None = None
    reason: str | None = None


class Told(NamedTuple):
    """A command as a worker reads it: its number, and how many seconds ago it was given."""

    number: int
    age: float
    command: Command


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a renewal brings: whether the lease held, where the channels asked for stand, the
    commands after the cursor, and the cursor to ask with next."""

    held: bool
    cursor: int
    positions: dict[str, Position] = field(default_factory=dict)
    commands: list[Told] = field(default_factory=list)


class Ears(Protocol):
    """Who is told of the events that a store carries itself."""

    def changed(self, changes: list[Change]) -> None:
        """These changes were made to a channel that is listened to."""

    def told(self) -> None:
        """Some process gave a command; the next renewal brings it."""

    def heard(self, message: str) -> None:
        """Some process published this."""

    def missed(self, channel: str) -> None:
        """Changes of this channel may have been lost; from now on they come again."""


class Listener(ABC):
    """Brings events of the store to this process, for just the channels that it asked for."""

    @abstractmethod
    def add(self, channel: str) -> None:
        """Bring the changes of a channel: all those from the return of this call on.

        :raises BackendUnavailable: the store did not confirm it in time.
        """

    @abstractmethod
    def discard(self, channel: str) -> None:
        """Bring the changes of a channel no longer."""

    @abstractmethod
    def run(self) -> None:
        """Receive until `close`, over as many connections as it takes."""

    @abstractmethod
    def close(self) -> None:
        """Let `run` end."""


class Backend(ABC):
    """Keeps who is in which channel, for all processes of an app.

    Synchronous, and safe to call from many threads. Whatever fails on the way to the store is
    raised as `BackendUnavailable`: the step then happened wholly or not at all, and repeating it
    is harmless.

    A step in which a user's last client leaves a channel also keeps until when that user was seen:
    until now, or where `settle` ended it, until the last of the clients that it ended ran out. A
    later moment that is kept already stays.

    :param worker_timeout: seconds for which this process ends no lease after a call failed, so
        that all workers can renew first once the store is back.
    """

    shared = True
    """Do several processes see the same members?"""

    carries_events = False
    """Does a step that makes changes also bring them to every process that listens?"""

    models: Any = None
    """Mapped classes to query, where the store is an SQL database."""

    expressions: Any = None
    """Presence in SQL expressions, where the store is an SQL database."""

    last_seen_retention: float = 30 * 86_400
    """Seconds for which it is kept when a user was last seen, as the app's setting says; 0: nothing
    is written."""

    def __init__(self, *, worker_timeout: float = 15) -> None:
        self._mercy = worker_timeout
        self._merciful_until = float("-inf")

    def note_failure(self) -> None:
        """Remember that the store did not answer."""
        self._merciful_until = time.monotonic() + self._mercy

    @property
    def spares_leases(self) -> bool:
        """Is it too early to end a lease, because the store was away just now?"""
        return time.monotonic() < self._merciful_until

    # Members

    @abstractmethod
    def enter(
        self,
        member: Member,
        *,
        epoch: str,
        worker: str | None = None,
        timeout: float | None = None,
        max_users: int | None = None,
    ) -> list[Change]:
        """Put a client into a channel, held by ``worker`` or by a deadline ``timeout`` ahead.

        The first client of a user, or an anonymous client: ``entered``. Another client of the
        user: no change, unless its info or meta changes what others see: ``updated``. A client
        that is in already: it is held anew, but by no deadline while its worker is alive; a meta
        that differs from the one it gave is written, ``None`` keeps what it gave; likewise an info
        that differs.

        What others see of a user is the info given last and the meta written last among the
        user's clients; a client with meta ``None`` is no writer. Of an anonymous client they see
        nothing, so it is never ``updated``.

        :param epoch: the new channel's epoch, where there is none yet.
        :param max_users: how many users may be in; members that are due still count.
        :raises WorkerGone: the worker has no lease, or a drained or ended one. Nothing was done.
        :raises ChannelFull: this would be one user more. Nothing was done.
        :raises ClientIdTaken: the client is in as another user. Nothing was done.
        """

    @abstractmethod
    def hold(
        self, channel: str, members: Sequence[Member], *, epoch: str, worker: str
    ) -> list[Change]:
        """Put back a worker's own clients of one channel after the store had lost them.

        Like `enter` for each, in order and in a few steps at the most, without a limit; changes
        have the reason ``healed``. A client that is in keeps its info and meta.

        :raises WorkerGone: as for `enter`.
        """

    @abstractmethod
    def update(self, channel: str, client_id: str, meta: str) -> list[Change]:
        """Write a client's meta: it becomes the user's last writer.

        :raises NotPresent: the client is not in. Nothing was done.
        """

    @abstractmethod
    def leave(
        self,
        channel: str,
        client_ids: Collection[str],
        *,
        reason: Reason = "left",
        user_id: str | None = None,
        worker: str | None = None,
    ) -> list[Change]:
        """Take clients out of a channel, at most `SLICE` of them; those not in are passed over.

        :param user_id: also takes out this user's members there that only a deadline holds.
        :param worker: takes out only members that name this worker.
        """

    @abstractmethod
    def touch(self, channel: str, client_id: str, timeout: float) -> bool:
        """Move a member's deadline to ``timeout`` ahead; whether the client is in.

        A member that a worker holds is left as it is.
        """

    @abstractmethod
    def release(self, worker: str, keys: Collection[Key], *, after: float) -> None:
        """Turn members that still name this worker into members with a deadline ``after`` ahead.

        Many in one step; a slice of `SLICE` at a time.
        """

    @abstractmethod
    def evict(
        self,
        channel: str,
        *,
        user_id: str | None = None,
        client_id: str | None = None,
        reason: Reason | None = None,
    ) -> Evicted:
        """Take out of a channel: a user, a client, or everyone where neither is named.

        One slice at a time. ``reason`` ``None`` is ``evicted`` for a member that a worker held
        and ``left`` for one with a deadline. The workers are told by `tell`, not by this.
        """

    # Workers

    @abstractmethod
    def renew(
        self,
        worker: str,
        timeout: float,
        *,
        create: bool = False,
        channels: Collection[str] = (),
        cursor: int | None = None,
    ) -> Renewal:
        """Move a worker's lease to ``timeout`` ahead and bring what is new, in one go.

        A lease that ran out and was not met is renewed like any; one that was ended, drained or
        lost is not: ``held`` is false.

        :param create: begin a lease for this new worker.
        :param channels: whose positions to bring; unknown ones come as ``(None, 0)``.
        :param cursor: the number of the last command seen; ``None`` brings no commands, only
            the cursor to begin with.
        """

    @abstractmethod
    def end_worker(self, worker: str, *, after: float) -> None:
        """Drain a worker: it can hold nothing new, and all its members get a deadline ``after``
        ahead, in one step whose cost does not depend on their number. They end with the reason
        ``timeout``."""

    @abstractmethod
    def workers(self) -> list[str]:
        """Ids of the workers that are alive, in order: neither drained nor ended, and their lease
        has not run out. Ends nothing."""

    @abstractmethod
    def members_of_worker(self, worker: str, *, after: Key | None, limit: int) -> list[Key]:
        """Page through what the store thinks this worker holds, in the order of `Key`."""

    # Ending what is due

    @abstractmethod
    def settle(self, channel: str) -> Pruned:
        """End a slice of what is due in one channel.

        The unit is a user in a channel: all their due clients in one step, one change at the
        most. The reason is ``worker_lost`` where all of them were lost with their worker, else
        ``timeout``. Leases are ended before their members are.
        """

    @abstractmethod
    def due(self, limit: int) -> list[str]:
        """Names of channels with due members, found by looking at ``limit`` due members at most.

        Ends leases that ran out, cuts leases and deadlines that lie further ahead than their
        timeout (the clock stepped back), and writes nothing where nothing is due.
        """

    # Reading

    @abstractmethod
    def state(self, channel: str) -> Reading:
        """Read a channel: one consistent snapshot that shows nobody who is due.

        A channel that nobody ever entered has the position ``(None, 0)``; reading creates nothing.
        """

    @abstractmethod
    def count(self, channel: str) -> Reading:
        """Like `state`, without the users, at a cost that does not grow with them."""

    @abstractmethod
    def channels(self, prefix: str | None = None) -> dict[str, int]:
        """Occupied channels (below a bare prefix) with their user counts, from counters."""

    @abstractmethod
    def channels_of(self, *, user_id: str | None = None, client_id: str | None = None) -> list[str]:
        """Names of the channels where a user or a client is, in order; due members count too."""

    @abstractmethod
    def last_seen(self, user_ids: Collection[str]) -> dict[str, datetime | None]:
        """Until when each user was seen in any channel, in UTC by the store's clock.

        That is the latest of what was kept when they left, and of the moments up to which their
        members are held; but never later than now, which it is for whoever is present. ``None``:
        never seen, or that was forgotten. Ends nobody who is due, and shows nobody who is due as
        present. A member of a worker that the store has lost counts as seen now.
        """

    # Upkeep

    @abstractmethod
    def reset_epoch(self, channel: str, old: str, new: str) -> bool:
        """Give a channel a new epoch where it still has the old one; the revision goes on."""

    @abstractmethod
    def drop_empty_channels(self, retention: float) -> int:
        """Forget channels that have been empty for ``retention`` seconds, and how many those were.

        Also forgets old commands and who was last seen `last_seen_retention` seconds ago, and
        finds members of workers that the store has lost.
        """

    @abstractmethod
    def tell(self, command: Command, *, wake: bool = True) -> int:
        """Number a command for every worker to read with its renewal; kept for ten minutes.

        :param wake: have workers renew at once, where the store carries events.
        """

    @abstractmethod
    def check(self) -> None:
        """Raise `BackendUnavailable` with what to do, unless the store is reachable and ready."""

    def prepare(self) -> None:  # noqa: B027 - most stores need nothing
        """Make what the store needs, such as tables; any number of times."""

    def has_begun_anew(self) -> bool:
        """Did the store start again, or another server take its place, since this was asked last?
        Then its last writes may be lost."""
        return False

    @property
    def is_restored(self) -> bool:
        """Did the store start lately from what it had saved? Then a position may be one that it
        forgot and reached once more, with other changes."""
        return False

    def publish(self, message: str) -> None:
        """Bring a text to every process that listens, where the store carries events."""
        raise NotImplementedError

    def listen(self, ears: Ears) -> Listener:
        """Begin to listen for events, where the store carries them."""
        raise NotImplementedError

    def after_fork(self) -> None:  # noqa: B027 - likewise
        """Let go of connections that belong to the parent process."""

    def close(self) -> None:  # noqa: B027 - likewise
        """Let go of all connections."""

    # Composed

    def end_due(self, channel: str) -> Pruned:
        """`settle` a channel that `due` has named just now: leases are ended already."""
        return self.settle(channel)

    def prune(self, limit: int = SLICE) -> Pruned:
        """End a slice of what is due anywhere. Where the store fails midway, what was made comes
        back with ``more``."""
        changes: list[Change] = []
        names = self.due(limit)
        for name in names:
            try:
                changes += self.end_due(name).changes
            except Exception:
                if not changes:
                    raise
                break
        return Pruned(changes, bool(names))


def chunks(items: Iterable[Any], size: int = SLICE) -> Iterable[list[Any]]:
    """Cut into lists of at most ``size``."""
    chunk: list[Any] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
