"""Who is here, for whoever asks: every door calls this, and nothing else leads to the store."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..backends.base import Backend
from ..channels import ChannelConfig, Registry, can_enter
from ..delivery import Announcer, Feed, Rooms
from ..errors import AccessDenied, ChannelNotFound, ChannelUnavailable, InvalidChannelConfig
from ..model import Change, Identity, Member
from ..settings import Settings
from .clients import Clients
from .commands import Commands
from .connections import Connections
from .hearing import Hearing
from .holdings import Holdings
from .loops import Loops
from .parts import Parts, Runtime, new_epoch
from .states import States
from .watch import Watch


class Tracker:
    """One app's presence in this process: puts the parts together, and acts for the server's side.

    :param clock: the process's monotonic clock; only tests need another one.
    :param by_hand: start no background work, also where `start` is called: whoever made this calls
        ``loops.turn``.
    """

    def __init__(
        self,
        *,
        backend: Backend,
        registry: Registry,
        announcer: Announcer,
        rooms: Rooms,
        feed: Feed,
        settings: Settings,
        runtime: Runtime,
        clock: Callable[[], float] = time.monotonic,
        by_hand: bool = False,
    ) -> None:
        self._runtime = runtime
        self._by_hand = by_hand
        self._on_start: list[Callable[[], None]] = []
        self._on_tick: list[Callable[[], None]] = []
        self._parts = Parts(backend, registry, announcer, rooms, feed, settings, Clients(), clock)
        self._assemble()

    def _assemble(self) -> None:
        parts = self._parts
        self.holdings = Holdings(parts)
        self.states = States(parts)
        self.commands = Commands(parts, self.holdings, self.states)
        self.hearing = Hearing(parts)
        self.connections = Connections(
            parts, self.holdings, self.states, self.commands, self.hearing.interest
        )
        self.loops = Loops(
            parts,
            self._runtime,
            self.holdings,
            self.states,
            self.commands,
            self.connections,
            self.hearing,
            on_tick=self._on_tick,
        )
        if self.backend.shared:
            # Until a renewal brings what others tell, nobody says that a config is to be forgotten.
            self.registry.at_most = parts.settings.renewal_interval

    @property
    def backend(self) -> Backend:
        return self._parts.backend

    @property
    def registry(self) -> Registry:
        return self._parts.registry

    def on_start(self, callback: Callable[[], None]) -> None:
        """Have something started together with the background work."""
        self._on_start.append(callback)

    def on_tick(self, callback: Callable[[], None]) -> None:
        """Have something looked at with each renewal."""
        self._on_tick.append(callback)

    def start(self) -> None:
        """Start the background work, once in a process."""
        if not self._by_hand and self.loops.start():
            for callback in self._on_start:
                callback()

    def after_fork(self) -> None:
        """Begin anew in a child process: connections, leases and loops are the parent's."""
        self._parts.backend.after_fork()
        self._parts.registry.reset()
        self._parts.announcer.reset()
        self._parts.rooms.reset()
        self._parts.clients.clear()
        self._assemble()

    # The server's side

    def enter(
        self,
        channel: str,
        identity: Identity,
        *,
        client_id: str,
        meta: str | None,
        force: bool,
    ) -> list[Change]:
        """Enter for a caller without a connection, held by a deadline.

        :raises AccessDenied: the identity may not enter, and ``force`` is not set.
        """
        config = self.registry.resolve(channel)
        if not force and not can_enter(config, identity):
            raise AccessDenied(
                f"{identity.user_id or 'An anonymous client'} may not enter {channel}; "
                "force=True enters all the same."
            )
        client = self._parts.clients.find(client_id)
        if client is not None and client.identity.user_id == identity.user_id:
            return self.connections.enter_unchecked(client, channel, meta, config)
        member = Member(channel, client_id, identity.user_id, identity.info, meta)
        changes = self.connections.unless_full(
            channel,
            lambda: self.backend.enter(
                member,
                epoch=new_epoch(),
                timeout=self._timeout(config),
                max_users=config.max_users,
            ),
        )
        self._parts.announcer.announce(changes)
        return changes

    def update(self, channel: str, client_id: str, meta: str) -> list[Change]:
        """Replace the meta that a client gave.

        :raises NotPresent: it is not in the channel.
        """
        if self._parts.clients.find(client_id) is not None:
            return self.connections.update(client_id, channel, meta)
        changes = self.backend.update(channel, client_id, meta)
        self._parts.announcer.announce(changes)
        return changes

    def touch(self, channel: str, client_id: str) -> bool:
        """Move the deadline of a client without a connection; whether it is in."""
        self.connections.hear(client_id)
        timeout = self._timeout(self.registry.resolve(channel))
        return self.backend.touch(channel, client_id, timeout)

    def touch_client(self, client_id: str) -> None:
        """A sign of life of a client, in every channel that it is in."""
        if self._parts.clients.find(client_id) is not None:
            self.connections.hear(client_id)
            return
        for channel in self.backend.channels_of(client_id=client_id):
            try:
                self.touch(channel, client_id)
            except (ChannelNotFound, ChannelUnavailable, InvalidChannelConfig):
                self.backend.touch(channel, client_id, self._parts.settings.timeout)

    def _timeout(self, config: ChannelConfig) -> float:
        return config.timeout or self._parts.settings.timeout

    def clear(self) -> list[Change]:
        """Take everyone out of every channel."""
        return [
            change
            for channel in self.backend.channels()
            for change in self.commands.evict(channel, reason="cleared")
        ]

    def watch(self, channel: str | None = None) -> Watch:
        """A look at one channel's comings and goings, or at all; starts nothing."""
        return Watch(self.backend, self.states, channel)

    def prune(self) -> list[Change]:
        """End all that is due."""
        ended: list[Change] = []
        more = True
        while more:
            changes, more = self.backend.prune()
            self._parts.announcer.announce(changes)
            ended += changes
        return ended

    def prune_channels(self) -> int:
        """Forget channels that have been empty for long."""
        return self.backend.drop_empty_channels(self._parts.settings.channel_retention)

    def drain(self) -> None:
        """This process stops: its members get a deadline, and later disconnects change nothing."""
        self.holdings.drain()
        self._parts.announcer.flush()

    def hang_up(self) -> None:
        """Close the connections of this process, so that their clients look for another one."""
        self._runtime.hang_up()
