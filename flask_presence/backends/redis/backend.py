"""The backend on Redis: each verb is one Lua script, which also publishes what it changed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from itertools import groupby
from math import isfinite
from typing import Any

from ...errors import ChannelFull, ClientIdTaken, NotPresent, WorkerGone
from ...model import NOWHERE, Change, Member, Position, Reason, State
from ..base import (
    SLICE,
    Backend,
    Command,
    Ears,
    Evicted,
    Key,
    Listener,
    Pruned,
    Reading,
    Renewal,
    Told,
    chunks,
)
from ..moments import milliseconds, moment
from ..stored import Damaged, are_ids, are_whole, is_whole, told_of_text
from .events import changes_of
from .listener import RedisListener
from .reading import users_of
from .server import Server

log = logging.getLogger(__name__)

STEP = SLICE // 5
"""How many members one script makes or ends at the most: while it runs, everybody waits."""


class RedisBackend(Backend):
    """Members in one Redis or Valkey, 6.2 or later.

    :param client: a ``redis.Redis`` whose connections have timeouts and do not retry by
        themselves, as `connect` makes it.
    :param prefix: keys and events start with it.
    :param kept: seconds for which keys outlive the last write, at the least; more than the
        retention of empty channels.
    :param clock: gives seconds instead of the server's clock; for tests only.
    """

    carries_events = True

    def __init__(
        self,
        client: Any,
        *,
        prefix: str = "presence",
        worker_timeout: float = 15,
        kept: float = 86_400,
        clock: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(worker_timeout=worker_timeout)
        self.server = Server(
            client, prefix=prefix, kept=kept, clock=clock, on_failure=self.note_failure
        )

    @property
    def _seen_kept(self) -> int:
        """Milliseconds for which it is kept when a user was last seen."""
        return milliseconds(self.last_seen_retention)

    # One channel in one step

    def _once(self, script: str, channel: str, *args: Any) -> list[Any]:
        return self._mended(self.server.run_once, script, channel, *args)

    def _step(self, script: str, channel: str, *args: Any) -> list[Any]:
        return self._mended(self.server.run, script, channel, *args)

    def _mended(
        self, run: Callable[..., list[Any]], script: str, channel: str, *args: Any
    ) -> list[Any]:
        """Run a script; once more where the channel was damaged, and begins anew."""
        try:
            return run(script, channel, *args)
        except Damaged as damage:
            self._forget(channel, damage)
        return run(script, channel, *args)

    def _forget(self, channel: str, damage: Damaged) -> None:
        log.error("The presence channel %s is damaged and begins anew: %s", channel, damage)
        self.server.run("forget", channel)

    # Members

    def enter(
        self,
        member: Member,
        *,
        epoch: str,
        worker: str | None = None,
        timeout: float | None = None,
        max_users: int | None = None,
    ) -> list[Change]:
        status, *rest = self._once(
            "enter",
            member.channel,
            epoch,
            member.client_id,
            member.user_id or "",
            member.info,
            member.meta or "",
            worker or "",
            milliseconds(timeout or 0),
            "" if max_users is None else max_users,
        )
        if status == "worker_gone":
            raise WorkerGone(f"The store holds no lease for worker {worker}.")
        if status == "taken":
            raise ClientIdTaken(
                f"Client {member.client_id!r} is in {member.channel} as another user."
            )
        if status == "full":
            raise ChannelFull(f"{member.channel} has its {max_users} users.")
        return changes_of(member.channel, rest[0])

    def hold(
        self, channel: str, members: Sequence[Member], *, epoch: str, worker: str
    ) -> list[Change]:
        changes: list[Change] = []
        for some in chunks(members, STEP):
            rows = [
                text
                for member in some
                for text in (member.client_id, member.user_id or "", member.info, member.meta or "")
            ]
            status, *rest = self._once("hold", channel, epoch, worker, *rows)
            if status == "worker_gone":
                raise WorkerGone(f"The store holds no lease for worker {worker}.")
            changes += changes_of(channel, rest[0])
        return changes

    def update(self, channel: str, client_id: str, meta: str) -> list[Change]:
        status, *rest = self._once("update", channel, client_id, meta)
        if status == "not_present":
            raise NotPresent(f"Client {client_id!r} is not in {channel}.")
        return changes_of(channel, rest[0])

    def leave(
        self,
        channel: str,
        client_ids: Collection[str],
        *,
        reason: Reason = "left",
        user_id: str | None = None,
        worker: str | None = None,
    ) -> list[Change]:
        _, text = self._once(
            "leave", channel, reason, user_id or "", worker or "", self._seen_kept, *client_ids
        )
        return changes_of(channel, text)

    def touch(self, channel: str, client_id: str, timeout: float) -> bool:
        _, is_in = self._step("touch", channel, client_id, milliseconds(timeout))
        return bool(is_in)

    def release(self, worker: str, keys: Collection[Key], *, after: float) -> None:
        for some in chunks(sorted(keys), STEP):
            try:
                self._release(worker, some, after)
            except Damaged:
                for channel, group in groupby(some, key=lambda key: key.channel):
                    self._release_one(worker, channel, list(group), after)

    def _release(self, worker: str, keys: Sequence[Key], after: float) -> None:
        flat = [text for key in keys for text in key]
        self.server.run("release", worker, milliseconds(after), *flat)

    def _release_one(self, worker: str, channel: str, keys: list[Key], after: float) -> None:
        try:
            self._release(worker, keys, after)
        except Damaged as damage:
            self._forget(channel, damage)

    def evict(
        self,
        channel: str,
        *,
        user_id: str | None = None,
        client_id: str | None = None,
        reason: Reason | None = None,
    ) -> Evicted:
        _, text, more, held = self._once(
            "evict",
            channel,
            user_id or "",
            client_id or "",
            reason or "",
            STEP,
            self._seen_kept,
        )
        return Evicted(changes_of(channel, text), bool(int(more)), bool(int(held)))

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
        slices = list(chunks(channels)) or [[]]
        held, latest, positions, commands = self._renew(worker, timeout, create, cursor, slices[0])
        for some in slices[1:]:
            # Nobody would hold the lease against a process for watching many channels.
            positions |= self._renew(worker, timeout, False, None, some)[2]
        return Renewal(held, latest, positions, commands)

    def _renew(
        self, worker: str, timeout: float, create: bool, cursor: int | None, channels: list[str]
    ) -> tuple[bool, int, dict[str, Position], list[Told]]:
        _, now, held, latest, found, commands = self.server.run(
            "renew",
            worker,
            milliseconds(timeout),
            int(create),
            "" if cursor is None else cursor,
            *channels,
        )
        self.server.set_clock(int(now))
        told = (told_of_text(text, int(now)) for text in commands)
        pairs = zip(found[::2], found[1::2], strict=True)
        positions = {
            name: Position(epoch, int(revision)) if epoch and revision.isdecimal() else NOWHERE
            for name, (epoch, revision) in zip(channels, pairs, strict=True)
        }
        return bool(held), self._number(latest), positions, [one for one in told if one]

    def _number(self, latest: str) -> int:
        """The last command's number; one that nobody could count on from is taken out."""
        if is_whole(int(float(latest)) if isfinite(float(latest)) else None):
            return int(float(latest))
        log.error("The store holds a command with the number %s: it is taken out", latest)
        self.server.run("forget_commands")
        return 0

    def end_worker(self, worker: str, *, after: float) -> None:
        self.server.run("end_worker", worker, milliseconds(after))

    def workers(self) -> list[str]:
        _, workers = self.server.run("workers")
        return sorted(workers)

    def members_of_worker(self, worker: str, *, after: Key | None, limit: int) -> list[Key]:
        members: list[Key] = []
        while True:
            _, flat, are_in = self.server.run(
                "members_of_worker", worker, *(after or ("", "")), limit
            )
            page = [Key(*pair) for pair in zip(flat[::2], flat[1::2], strict=True)]
            members += [key for key, is_in in zip(page, are_in, strict=True) if is_in]
            if len(page) < limit or len(members) >= limit:
                return members[:limit]
            after = page[-1]

    # Ending what is due

    def settle(self, channel: str) -> Pruned:
        _, text, more = self._once(
            "settle", channel, int(self.spares_leases), STEP, self._seen_kept
        )
        return Pruned(changes_of(channel, text), bool(int(more)))

    def due(self, limit: int) -> list[str]:
        while True:
            _, names, ahead, more = self.server.run("due", int(self.spares_leases), limit)
            for name in ahead:
                self._rewind(name)
            if names or not more:
                return sorted(set(names))

    def _rewind(self, channel: str) -> None:
        cursor = "0"
        while True:
            _, cursor = self._step("rewind", channel, cursor, SLICE)
            if cursor == "0":
                return

    # Reading

    def state(self, channel: str) -> Reading:
        return self._read(channel, with_users=True)

    def count(self, channel: str) -> Reading:
        return self._read(channel, with_users=False)

    def _read(self, channel: str, *, with_users: bool) -> Reading:
        try:
            return self._read_once(channel, with_users=with_users)
        except Damaged as damage:
            self._forget(channel, damage)
        return self._read_once(channel, with_users=with_users)

    def _read_once(self, channel: str, *, with_users: bool) -> Reading:
        status, *rest = self.server.run("state", channel, int(self.spares_leases), int(with_users))
        if status == "due":
            return Reading(None, self.settle(channel).changes)
        if status == "none":
            return Reading(State(channel), [])
        epoch, revision, count, anonymous, rows = rest
        are_ids([epoch], channel)
        are_whole([revision, count, anonymous], channel)
        users = users_of(channel, rows, count) if with_users else ()
        return Reading(State(channel, epoch, revision, count, anonymous, users), [])

    def channels(self, prefix: str | None = None) -> dict[str, int]:
        found: dict[str, int] = {}
        after = ""
        while True:
            _, flat, after = self.server.run("channels", prefix or "", after, SLICE)
            found.update(zip(flat[::2], flat[1::2], strict=True))
            if not after:
                return found

    def channels_of(self, *, user_id: str | None = None, client_id: str | None = None) -> list[str]:
        whose = ("client", client_id) if user_id is None else ("user", user_id)
        _, names = self.server.run("channels_of", *whose)
        return sorted(names)

    def last_seen(self, user_ids: Collection[str]) -> dict[str, datetime | None]:
        found: dict[str, datetime | None] = {}
        waiting = list(user_ids)
        while waiting:
            # Who is present takes one look, who is due one for each channel.
            _, moments = self.server.run("last_seen", 3 * SLICE, *waiting[:SLICE])
            told, waiting = waiting[: len(moments)], waiting[len(moments) :]
            found.update(
                (user_id, moment(int(until)) if until else None)
                for user_id, until in zip(told, moments, strict=True)
            )
        return found

    # Upkeep

    def reset_epoch(self, channel: str, old: str, new: str) -> bool:
        _, was_old = self.server.run("reset_epoch", channel, old, new)
        return bool(was_old)

    def drop_empty_channels(self, retention: float) -> int:
        dropped = 0
        while True:
            _, some, more = self.server.run(
                "drop_empty_channels", milliseconds(retention), SLICE, self._seen_kept
            )
            dropped += int(some)
            if not more:
                return dropped

    def tell(self, command: Command, *, wake: bool = True) -> int:
        fields = [
            command.kind,
            command.channel,
            command.user_id,
            command.client_id,
            command.reason,
        ]
        _, number = self.server.run_once("tell", json.dumps(fields), int(wake))
        return int(number)

    def check(self) -> None:
        self.server.check()

    def has_begun_anew(self) -> bool:
        begun, self.server.has_begun_anew = self.server.has_begun_anew, False
        return begun

    @property
    def is_restored(self) -> bool:
        return self.server.is_restored

    def publish(self, message: str) -> None:
        self.server.run_once("publish", message)

    def listen(self, ears: Ears) -> Listener:
        return RedisListener(self.server, ears)

    def after_fork(self) -> None:
        self.server.after_fork()

    def close(self) -> None:
        self.server.close()
