"""The connections of this process, and what each of them entered and subscribed to."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from ..errors import BackendUnavailable
from ..model import Identity, Member


@dataclass(slots=True)
class Entry:
    """A channel that a client is in.

    ``since`` is the moment, on this process's clock, when it asked to enter; ``timeout`` the
    seconds for which it may be silent.
    """

    meta: str | None
    since: float
    timeout: float


@dataclass(slots=True, eq=False)
class Client:
    """One connection.

    Its own operations run one after another under ``lock``; everything else only looks, and
    looks again after it wrote.
    """

    id: str
    identity: Identity
    since: float
    """When it connected, on this process's clock."""
    heard: float
    """When a packet arrived last."""
    is_real: bool = True
    """Has it a socket that can be asked whether it is alive? Test clients have none."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    entered: dict[str, Entry] = field(default_factory=dict)
    uncertain: dict[str, float] = field(default_factory=dict)
    """Channels where the store may hold it, though nobody knows, and since when."""
    subscribed: dict[str, float] = field(default_factory=dict)
    """Since when it watches each channel."""
    lost: dict[str, None] = field(default_factory=dict)
    """Channels that it entered and is no longer in, without having left or been evicted. An empty
    set would be three times as large, for each client."""
    beat: float = float("-inf")
    """When its last full heartbeat was answered."""
    renewing: bool = False
    """Is the server closing the connection only for it to come back?"""
    closed: bool = False
    dropped: bool = False
    """Was it closed by accident, so that it is given a while to come back?"""

    def member(self, channel: str, meta: str | None) -> Member:
        return Member(channel, self.id, self.identity.user_id, self.identity.info, meta)

    def settle(self, channel: str) -> None:
        """It is known again whether the store holds it in this channel."""
        self.uncertain.pop(channel, None)
        if not self.uncertain:
            # Gives back the room that was made, which most clients need only once.
            self.uncertain.clear()

    def channels(self) -> set[str]:
        """Everything it entered, is entering or watches."""
        return {*self.entered, *self.uncertain, *self.subscribed}


class Clients:
    """The table of connections."""

    def __init__(self) -> None:
        self._clients: dict[str, Client] = {}

    def clear(self) -> None:
        self._clients.clear()

    def add(self, client: Client) -> None:
        self._clients[client.id] = client

    def pop(self, client_id: str) -> Client | None:
        return self._clients.pop(client_id, None)

    def find(self, client_id: str) -> Client | None:
        return self._clients.get(client_id)

    def get(self, client_id: str) -> Client:
        """The client, or an error where its connection is closed."""
        client = self._clients.get(client_id)
        if client is None:
            raise BackendUnavailable("The connection is closed.")
        return client

    def all(self) -> list[Client]:
        return list(self._clients.values())

    def matching(self, *, user_id: str | None, client_id: str | None) -> list[Client]:
        """Those of a user, one by its id, or all where neither is named."""
        if client_id is not None:
            client = self.find(client_id)
            return [] if client is None else [client]
        return [
            client for client in self.all() if user_id is None or client.identity.user_id == user_id
        ]
