"""What connected clients ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..channels import ChannelConfig, can_enter
from ..delivery import Interest
from ..delivery.wire import Form
from ..errors import (
    BackendUnavailable,
    ChannelFull,
    LoginRequired,
    NotPresent,
    PresenceError,
    TooManyChannels,
    WorkerGone,
)
from ..model import Change, Identity, Position
from .clients import Client, Entry
from .commands import Commands
from .holdings import Holdings
from .parts import Parts, new_epoch
from .states import States

T = TypeVar("T")

HEARTBEAT_SECONDS = 1.0
"""More often than that a heartbeat is answered without a look."""


class Connections:
    """The operations of this process's own clients, whose members its worker holds."""

    def __init__(
        self,
        parts: Parts,
        holdings: Holdings,
        states: States,
        commands: Commands,
        interest: Interest,
    ) -> None:
        self._parts = parts
        self._holdings = holdings
        self._states = states
        self._commands = commands
        self._interest = interest

    def connect(self, client_id: str, identity: Identity, *, is_real: bool = True) -> None:
        """A client is there; it is in no channel yet."""
        now = self._parts.clock()
        self._parts.clients.add(Client(client_id, identity, since=now, heard=now, is_real=is_real))

    def disconnect(self, client_id: str, *, dropped: bool) -> None:
        """A client is gone. Does no I/O, because many may go one after another."""
        client = self._parts.clients.pop(client_id)
        if client is None:
            return
        client.dropped = dropped or client.renewing
        client.closed = True
        self._holdings.release(client)

    def hear(self, client_id: str) -> None:
        """A packet of the client arrived."""
        client = self._parts.clients.find(client_id)
        if client is not None:
            client.heard = self._parts.clock()

    def heartbeat(
        self, client_id: str, positions: Mapping[str, Position]
    ) -> tuple[list[str], list[str]]:
        """Which of these positions are stale, and which channels the client was lost from."""
        client, now = self._parts.clients.get(client_id), self._parts.clock()
        if now - client.beat < HEARTBEAT_SECONDS:
            return [], []
        client.beat = now
        for channel in client.channels():
            self._commands.check_permission(client, channel)
        watched = {name: at for name, at in positions.items() if name in client.subscribed}
        return self._parts.feed.stale(watched), sorted(client.lost)

    # Being in

    def enter(self, client_id: str, channel: str, meta: str | None) -> None:
        """Enter a channel, held by this worker."""
        client = self._parts.clients.get(client_id)
        config = self._states.viewable(channel, client.identity)
        if not can_enter(config, client.identity):
            raise LoginRequired(f"Only users may enter {channel}.")
        self.enter_unchecked(client, channel, meta, config)

    def enter_unchecked(
        self, client: Client, channel: str, meta: str | None, config: ChannelConfig
    ) -> list[Change]:
        """Enter a client that may."""

        def attempt() -> list[Change]:
            worker = self._holdings.lease.hold()
            try:
                return self._enter(client, channel, meta, config, worker)
            except WorkerGone:
                self._holdings.lease.replace(worker)
                return self._enter(client, channel, meta, config, self._holdings.lease.hold())

        changes = self.unless_full(channel, attempt)
        self._parts.announcer.announce(changes)
        return changes

    def unless_full(self, channel: str, attempt: Callable[[], T]) -> T:
        """Try again where the channel was full only of clients that are due."""
        try:
            return attempt()
        except ChannelFull:
            changes = self._parts.backend.settle(channel).changes
            if not changes:
                raise
        self._parts.announcer.announce(changes)
        return attempt()

    def _enter(
        self, client: Client, channel: str, meta: str | None, config: ChannelConfig, worker: str
    ) -> list[Change]:
        settings = self._parts.settings
        with self._holdings.writing(client):
            entry, since = client.entered.get(channel), self._parts.clock()
            if entry is None and len(client.entered) >= settings.max_channels_per_client:
                raise TooManyChannels(f"A client may be in {len(client.entered)} channels.")
            client.uncertain[channel] = since
            try:
                changes = self._parts.backend.enter(
                    client.member(channel, meta),
                    epoch=new_epoch(),
                    worker=worker,
                    max_users=config.max_users,
                )
            except BackendUnavailable:
                raise
            except PresenceError:
                # Refused: it is known that nothing was done.
                client.settle(channel)
                raise
            kept = entry.meta if entry is not None and meta is None else meta
            # Who only entered again does not know yet of an eviction since the first time.
            entered_at = since if entry is None else entry.since
            client.entered[channel] = Entry(kept, entered_at, config.timeout or settings.timeout)
            client.settle(channel)
            client.lost.pop(channel, None)
            self._parts.rooms.enter(client.id, channel)
            self._holdings.look_again(client, worker)
        return changes

    def leave(self, client_id: str, channel: str) -> list[Change]:
        """Leave, and end the user's members there that only a deadline holds."""
        client = self._parts.clients.get(client_id)
        with self._holdings.writing(client):
            # Forgotten first: whoever puts clients back looks here after writing.
            entry = client.entered.pop(channel, None)
            try:
                changes = self._parts.backend.leave(
                    channel, [client.id], user_id=client.identity.user_id
                )
            except PresenceError:
                if entry is not None:
                    client.entered[channel] = entry
                raise
            client.settle(channel)
            client.lost.pop(channel, None)
            self._parts.rooms.leave(client.id, channel)
        self._parts.announcer.announce(changes)
        return changes

    def update(self, client_id: str, channel: str, meta: str) -> list[Change]:
        """Replace the meta that the client gave."""
        client = self._parts.clients.get(client_id)
        with client.lock:
            entry = client.entered.get(channel)
            if entry is None:
                raise NotPresent(f"This client is not in {channel}.")
            try:
                changes = self._parts.backend.update(channel, client.id, meta)
            except NotPresent as error:
                self._holdings.doubt(client)
                raise BackendUnavailable(
                    f"Whether this client is still in {channel} is being looked into."
                ) from error
            entry.meta = meta
        self._parts.announcer.announce(changes)
        return changes

    # Watching

    def subscribe(
        self, client_id: str, channel: str, position: Position | None = None
    ) -> Form | None:
        """Watch a channel: its state, or ``None`` where ``position`` is current.

        The room is joined before the state is read, so that no diff falls between the two.
        """
        client = self._parts.clients.get(client_id)
        config = self._states.viewable(channel, client.identity)
        with self._interest.of(channel):
            is_new = self._join(client, channel, config)
        try:
            self._states.move_audience(channel)
            form = self._states.form_for_audience(channel, config)
        except PresenceError:
            if is_new:
                self._unsubscribe(client, channel)
            raise
        finally:
            if client.closed:
                self._parts.rooms.forget(client.id, channel)
        is_current = position == (form["epoch"], form["revision"])
        return None if is_current and not self._parts.backend.is_restored else form

    def _join(self, client: Client, channel: str, config: ChannelConfig) -> bool:
        limit = self._parts.settings.max_channels_per_client
        with client.lock:
            is_new = channel not in client.subscribed
            if is_new and len(client.subscribed) >= limit:
                raise TooManyChannels(f"A client may watch {limit} channels.")
            client.subscribed[channel] = self._parts.clock()
            self._parts.rooms.subscribe(client.id, channel, count_only=config.count_only)
        return is_new

    def unsubscribe(self, client_id: str, channel: str) -> None:
        """Watch a channel no longer."""
        self._unsubscribe(self._parts.clients.get(client_id), channel)

    def _unsubscribe(self, client: Client, channel: str) -> None:
        with client.lock:
            if client.subscribed.pop(channel, None) is not None:
                self._parts.rooms.unsubscribe(client.id, channel)

    def states(self, client_id: str, channels: tuple[str, ...]) -> dict[str, Any]:
        """The wire form of each channel that the client may view, else ``None``."""
        client = self._parts.clients.get(client_id)
        # Whoever is told the form of their room is told what the next diffs go on with.
        watched = [channel for channel in channels if channel in client.subscribed]
        forms = self._states.forms(
            [name for name in channels if name not in watched], client.identity
        )
        forms |= {name: self._states.watched_form(name, client.identity) for name in watched}
        return {channel: forms[channel] for channel in channels}
