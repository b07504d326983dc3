"""What concerns every process: told through the store, and done here to this process's clients."""

from __future__ import annotations

from collections.abc import Sequence

from ..backends.base import Command, Told
from ..channels import ChannelConfig, can_enter, can_view
from ..errors import ChannelNotFound, ChannelUnavailable, InvalidChannelConfig
from ..model import Change, Reason
from .clients import Client
from .parts import Parts
from .states import States
from .worker import Worker


class Commands:
    """Evictions, renewed connections and forgotten configs."""

    def __init__(self, parts: Parts, worker: Worker, states: States) -> None:
        self._parts = parts
        self._worker = worker
        self._states = states
        self._told_here: set[int] = set()

    def reload(self, user_id: str) -> None:
        """Renew the connections of a user."""
        self._tell_and_obey(Command("reload", user_id=user_id))

    def forget_config(self, channel: str | None) -> None:
        """Drop one cached config, or all."""
        self._tell_and_obey(Command("forget", channel))

    def evict_client(self, channel: str, client_id: str) -> list[Change]:
        """Take one client out of a channel, wherever it is connected."""
        moment = self._parts.clock()
        changes, _, was_held = self._parts.backend.evict(channel, client_id=client_id)
        self._parts.announcer.announce(changes)
        if was_held:
            command = Command("evict", channel, client_id=client_id, reason="evicted")
            self._tell(command)
            self._obey(command, moment)
        return changes

    def evict(
        self, channel: str | None, *, user_id: str | None = None, reason: Reason = "evicted"
    ) -> list[Change]:
        """Take out a user of one channel or all, or everyone of one channel."""
        command = Command("evict", channel, user_id=user_id, reason=reason)
        moment = self._parts.clock()
        # Told first: a worker that misses a member after this knows why and does not put it back.
        self._tell(command)
        channels = [channel] if channel else self._parts.backend.channels_of(user_id=user_id)
        evicted: list[Change] = []
        for name in channels:
            evicted += self._evict_from_store(name, user_id, reason)
        self._obey(command, moment)
        return evicted

    def _evict_from_store(self, channel: str, user_id: str | None, reason: Reason) -> list[Change]:
        evicted: list[Change] = []
        more = True
        while more:
            changes, more, _ = self._parts.backend.evict(channel, user_id=user_id, reason=reason)
            self._parts.announcer.announce(changes)
            evicted += changes
        return evicted

    def _tell(self, command: Command) -> None:
        self._told_here.add(self._parts.backend.tell(command))

    def _tell_and_obey(self, command: Command) -> None:
        self._tell(command)
        self._obey(command, self._parts.clock())

    def obey(self, commands: Sequence[Told], answered: float) -> None:
        """Do what other processes told; ``answered`` is when the store brought it."""
        for number, age, command in commands:
            if number in self._told_here:
                self._told_here.discard(number)
            else:
                self._obey(command, answered - age)

    def _obey(self, command: Command, moment: float) -> None:
        """Whoever came after ``moment`` is not meant."""
        clients = self._parts.clients.matching(user_id=command.user_id, client_id=command.client_id)
        if command.kind == "forget":
            self._parts.registry.forget(command.channel)
        for client in clients:
            if command.kind == "reload":
                client.renewing = True
                self._parts.rooms.disconnect(client.id)
                continue
            for channel in client.channels():
                if command.channel not in (None, channel):
                    continue
                if command.kind == "forget":
                    self.check_permission(client, channel)
                elif _is_meant(client, channel, command, moment):
                    self._evict_here(client, channel, command.reason or "evicted")

    def check_permission(self, client: Client, channel: str) -> None:
        """Look again whether a client may be where it is, as its cached config says."""
        try:
            config = self._parts.registry.resolve(channel)
        except ChannelNotFound:
            config = ChannelConfig()
        except (ChannelUnavailable, InvalidChannelConfig):
            return
        allowed = can_enter if channel in client.entered else can_view
        if not allowed(config, client.identity):
            self._evict_here(client, channel, "forbidden")
        elif channel in client.subscribed:
            self._states.turn(channel, config)

    def _evict_here(self, client: Client, channel: str, reason: str) -> None:
        """Take a client of this process out of a channel and its rooms."""
        with client.lock:
            was_in = client.entered.pop(channel, None) is not None
            client.lost.discard(channel)
            self._parts.rooms.leave(client.id, channel)
            if client.subscribed.pop(channel, None) is not None:
                self._parts.rooms.unsubscribe(client.id, channel)
        self._parts.rooms.send_evicted(client.id, channel, reason)
        if was_in:
            self._worker.give_up(client, channel, "cleared" if reason == "cleared" else "evicted")


def _is_meant(client: Client, channel: str, command: Command, moment: float) -> bool:
    entry, watched = client.entered.get(channel), client.subscribed.get(channel)
    if entry is not None and entry.since <= moment:
        return True
    # Clearing a channel concerns those who are in; others go on watching.
    return command.reason != "cleared" and watched is not None and watched <= moment
