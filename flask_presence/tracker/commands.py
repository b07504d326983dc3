"""What concerns every process: told through the store, and done here to this process's clients."""

from __future__ import annotations

from functools import partial

from ..backends.base import Command, Told
from ..channels import ChannelConfig, can_enter, can_view
from ..errors import ChannelNotFound, ChannelUnavailable, InvalidChannelConfig
from ..model import Change, Reason
from .clients import Client
from .holdings import Holdings
from .parts import Parts, attempt
from .states import States

MAX_TOLD = 1000
"""How many commands of this process's own are remembered; others it obeys once more."""


class Commands:
    """Evictions, renewed connections and forgotten configs."""

    def __init__(self, parts: Parts, holdings: Holdings, states: States) -> None:
        self._parts = parts
        self._holdings = holdings
        self._states = states
        self._told_here: dict[int, Command] = {}

    def reload(self, user_id: str) -> None:
        """Renew the connections of a user."""
        command = Command("reload", user_id=user_id)
        self._tell(command)
        self._obey(command, self._parts.clock())

    def forget_config(self, channel: str | None) -> None:
        """Drop one cached config, or all."""
        command = Command("forget", channel)
        self._tell(command)
        self._obey(command, self._parts.clock())

    def evict_client(
        self, channel: str, client_id: str, *, reason: Reason | None = None
    ) -> list[Change]:
        """Take one client out of a channel, wherever it is connected.

        :param reason: that of the changes; ``None`` is ``evicted`` for a client that is connected,
            else ``left``.
        """
        changes, _, was_held = self._parts.backend.evict(
            channel, client_id=client_id, reason=reason
        )
        self._parts.announcer.announce(changes)
        command = Command("evict", channel, client_id=client_id, reason="evicted")
        client = self._parts.clients.find(client_id)
        if client is None:
            if was_held:
                self._tell(command)
        elif was_held or channel in client.entered:
            # It is connected to this process: no other needs to know.
            self._obey(command, self._parts.clock())
        return changes

    def evict_client_everywhere(
        self, client_id: str, *, reason: Reason | None = None
    ) -> list[Change]:
        """Likewise, out of every channel that it is in."""
        client = self._parts.clients.find(client_id)
        channels = {
            *self._parts.backend.channels_of(client_id=client_id),
            *(client.entered if client is not None else ()),
        }
        return [
            change
            for channel in sorted(channels)
            for change in self.evict_client(channel, client_id, reason=reason)
        ]

    def evict(
        self, channel: str | None, *, user_id: str | None = None, reason: Reason = "evicted"
    ) -> list[Change]:
        """Take out a user of one channel or all, or everyone of one channel."""
        command = Command("evict", channel, user_id=user_id, reason=reason)
        # Told first: a worker that misses a member after this knows why and does not put it back.
        # None is woken yet: it would itself take out those of whom this one is to tell.
        self._tell(command, wake=False)
        try:
            evicted = self._evict_everywhere(channel, user_id, reason)
            # Whoever entered while this was done is out too: one too many agrees with what they
            # are told, one too few would not. Other processes need the later moment for that.
            self._tell(command)
        finally:
            # The renewal skips what was told here: it must be done, whatever the store did.
            self._obey(command, self._parts.clock())
        return evicted

    def _evict_everywhere(
        self, channel: str | None, user_id: str | None, reason: Reason
    ) -> list[Change]:
        channels = [channel] if channel else self._parts.backend.channels_of(user_id=user_id)
        evicted: list[Change] = []
        for name in channels:
            evicted += self._evict_from_store(name, user_id, reason)
        return evicted

    def _evict_from_store(self, channel: str, user_id: str | None, reason: Reason) -> list[Change]:
        evicted: list[Change] = []
        more = True
        while more:
            changes, more, _ = self._parts.backend.evict(channel, user_id=user_id, reason=reason)
            self._parts.announcer.announce(changes)
            evicted += changes
        return evicted

    def _tell(self, command: Command, *, wake: bool = True) -> None:
        number = self._parts.backend.tell(command, wake=wake)
        # Also where no lease has begun: its first renewal brings what was told before it.
        self._told_here[number] = command
        if len(self._told_here) > MAX_TOLD:
            self._told_here.pop(min(list(self._told_here)), None)

    def obey(self, told: Told, answered: float) -> None:
        """Do what some process told; ``answered`` is when the store brought it."""
        number, age, command = told
        if self._told_here.pop(number, None) != command:
            attempt(partial(self._obey, command, answered - age), f"{command.kind} clients")

    def _obey(self, command: Command, moment: float) -> None:
        """Whoever came after ``moment`` is not meant."""
        if command.kind == "forget":
            self._parts.registry.forget(command.channel)
        clients = self._parts.clients.matching(user_id=command.user_id, client_id=command.client_id)
        if command.kind == "reload":
            for client in clients:
                if client.since <= moment:
                    client.renewing = True
                    self._parts.rooms.disconnect(client.id)
            return
        for channel in self._channels_of(clients, command.channel):
            there = [client for client in clients if channel in client.channels()]
            if command.kind == "forget":
                for client in there:
                    self.check_permission(client, channel)
            elif command.kind == "evict":
                self._evict_here(channel, there, command.reason or "evicted", moment)

    @staticmethod
    def _channels_of(clients: list[Client], only: str | None) -> list[str]:
        channels = {channel for client in clients for channel in client.channels()}
        return sorted(channels if only is None else channels & {only})

    def check_permission(self, client: Client, channel: str) -> None:
        """Look again whether a client may be where it is, as its cached config says."""
        try:
            config = self._parts.registry.resolve(channel)
            if channel in client.subscribed:
                self._states.move_audience(channel)
        except ChannelNotFound:
            config = ChannelConfig()
        except (ChannelUnavailable, InvalidChannelConfig):
            return
        allowed = can_enter if channel in client.entered else can_view
        if not allowed(config, client.identity):
            self._evict_here(channel, [client], "forbidden", self._parts.clock())

    def _evict_here(self, channel: str, clients: list[Client], reason: str, moment: float) -> None:
        """Take clients of this process out of a channel and its rooms, and tell them."""
        ending: Reason = "cleared" if reason == "cleared" else "evicted"
        out = self._holdings.take_out(
            channel, clients, ending, is_meant=lambda entry: entry.since <= moment
        )
        told = {client.id for client in out}
        for client in clients:
            # Clearing a channel concerns those who are in; others go on watching.
            is_meant = client.id in told or reason != "cleared"
            if is_meant and self._stop_watching(client, channel, moment):
                told.add(client.id)
        for client_id in sorted(told):
            self._parts.rooms.send_evicted(client_id, channel, reason)

    def _stop_watching(self, client: Client, channel: str, moment: float) -> bool:
        with client.lock:
            client.lost.pop(channel, None)
            watched = client.subscribed.get(channel)
            # Who was meant is out by now; who is in entered since, and goes on watching.
            if watched is None or watched > moment or channel in client.entered:
                return False
            del client.subscribed[channel]
            self._parts.rooms.unsubscribe(client.id, channel)
            return True
