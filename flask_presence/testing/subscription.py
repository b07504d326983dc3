"""What a test client sees of a channel that it subscribed to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..identity import user_id_of
from ..model import User
from .fold import Fold


class Subscription:
    """One channel, folded from the state and the diffs that arrived, as a browser does.

    Made by `PresenceTestClient.subscribe`. Whenever it is asked, everything that is due happens
    first and what is pending arrives. Once unsubscribed or disconnected it stays as it was.

    :ivar evicted: why the server took the client out of the channel (``evicted``, ``forbidden`` or
        ``cleared``): such a client sees nobody; ``None`` where it did not.
    """

    def __init__(self, channel: str, *, receive: Callable[[], None]) -> None:
        self.channel = channel
        self.evicted: str | None = None
        self._receive = receive
        self._fold = Fold()

    def __repr__(self) -> str:
        return f"<Subscription {self.channel}: {', '.join(self.user_ids) or 'nobody'}>"

    @property
    def users(self) -> list[User]:
        """Who is here, in the order of entering; nobody where only the count may be seen."""
        return [User(**user) for user in self._latest.users]

    @property
    def user_ids(self) -> list[str]:
        return [user.id for user in self.users]

    @property
    def count(self) -> int:
        """How many users are here."""
        return self._latest.count

    @property
    def anonymous(self) -> int:
        """How many clients without a user are here."""
        return self._latest.anonymous

    @property
    def count_only(self) -> bool:
        """May the client see the count alone?"""
        return self._latest.count_only

    def __contains__(self, user: Any) -> bool:
        return user_id_of(user) in self.user_ids

    def __getitem__(self, user: Any) -> User:
        """A user as seen here.

        :raises KeyError: they are not; it says who is.
        """
        user_id = user_id_of(user)
        for seen in self.users:
            if seen.id == user_id:
                return seen
        raise KeyError(f"{user_id!r} is not seen in {self.channel}, only {self.user_ids} are")

    @property
    def _latest(self) -> Fold:
        self._receive()
        return self._fold

    # What the client hands on

    @property
    def position(self) -> list[Any] | None:
        """Up to where it knows all, as it goes over the wire; ``None`` before the first state."""
        position = self._fold.position
        return None if position is None else list(position)

    def apply_state(self, state: Mapping[str, Any]) -> None:
        self._fold.apply_state(state)

    def apply_diff(self, diff: Mapping[str, Any]) -> None:
        self._fold.apply_diff(diff)

    def evict(self, reason: str) -> None:
        """What the client may not see any more, it does not go on showing."""
        self.evicted = reason
        self._fold = Fold()
