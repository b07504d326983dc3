"""The door for the app's own code: a channel as `Presence.channel` hands it out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .channels import can_enter, can_view
from .delivery import Recipients
from .identity import user_id_of
from .model import Change, Identity, State, User
from .protocol import check_event, check_id, check_json, dump_object
from .tracker import Tracker


class Channel:
    """One channel, seen and changed from the server's side.

    Identities are seen in count-only channels too. Made by `Presence.channel`; use it in the app
    context that it was made in.
    """

    def __init__(
        self,
        name: str,
        tracker: Tracker,
        *,
        identify: Callable[[Any], Identity],
        max_meta_bytes: int,
        begin: Callable[[], None],
    ) -> None:
        self.name = name
        self._tracker = tracker
        self._identify = identify
        self._max_meta_bytes = max_meta_bytes
        self._begin = begin

    def __repr__(self) -> str:
        return f"<Channel {self.name}>"

    # Changing

    def enter(
        self,
        user: Any,
        client_id: str,
        meta: dict[str, Any] | None = None,
        force: bool = False,
    ) -> Change | None:
        """Enter a user, or an anonymous client for ``None``, held by a deadline of one timeout.

        ``None``: nothing visible changed.

        :param client_id: names the caller; the same again is the same client.
        :param force: enter without asking whether this user may.
        :raises AccessDenied: the user may not enter.
        :raises ChannelFull: the channel has its ``max_users``.
        :raises ValueError: the client id is in as another user, or the meta no small JSON object.
        """
        identity = self._identify(user)
        check_id(client_id, "client id")
        text = None if meta is None else self._meta(meta)
        self._begin()
        return _first(
            self._tracker.enter(self.name, identity, client_id=client_id, meta=text, force=force)
        )

    def leave(self, client_id: str) -> Change | None:
        """Take a client out; one that is connected is evicted."""
        check_id(client_id, "client id")
        return _first(self._tracker.commands.evict_client(self.name, client_id))

    def touch(self, client_id: str) -> bool:
        """Move a client's deadline to one timeout ahead; ``False`` where it is not in."""
        check_id(client_id, "client id")
        return self._tracker.touch(self.name, client_id)

    def update(self, client_id: str, meta: dict[str, Any]) -> Change | None:
        """Replace what a client gave as its meta.

        :raises PresenceError: the client is not in.
        """
        check_id(client_id, "client id")
        return _first(self._tracker.update(self.name, client_id, self._meta(meta)))

    def clear(self) -> list[Change]:
        """Take everyone out; the revision goes on."""
        return self._tracker.commands.evict(self.name, reason="cleared")

    def emit(self, event: str, data: Any = None, to: Recipients = "present") -> None:
        """Send an event of the app's own, in the presence namespace, to who is here.

        It arrives once or not at all: who comes later, or is cut off just now, never gets it.

        :param to: ``present`` for those who entered, ``subscribed`` for those who watch.
        :raises ValueError: the name is one of presence's own, or the data is no JSON.
        """
        check_event(event)
        if to not in ("present", "subscribed"):
            raise ValueError(f"to must be 'present' or 'subscribed', not {to!r}.")
        self._tracker.hearing.publish(event, check_json(data, "data"), self.name, to=to)

    def _meta(self, meta: Any) -> str:
        return dump_object(meta, what="meta", max_bytes=self._max_meta_bytes)

    # Reading

    def state(self) -> State:
        """The snapshot of the channel."""
        return self._tracker.states.state(self.name)

    @property
    def users(self) -> tuple[User, ...]:
        """Who is here, in the order of entering."""
        return self.state().users

    @property
    def user_ids(self) -> list[str]:
        """Ids of who is here, in the order of entering."""
        return [user.id for user in self.users]

    @property
    def count(self) -> int:
        """How many users are here."""
        return self._tracker.states.count(self.name).count

    @property
    def anonymous_count(self) -> int:
        """How many clients without a user are here."""
        return self._tracker.states.count(self.name).anonymous

    def __contains__(self, user: Any) -> bool:
        """Is this user, or the user with this id, here?"""
        if user is None or not getattr(user, "is_authenticated", True):
            return False
        return user_id_of(user) in self.user_ids

    # Permission

    def can_view(self, user: Any) -> bool:
        """May this user, or for ``None`` anyone, see the channel?"""
        return can_view(self._tracker.registry.resolve(self.name), self._identify(user))

    def can_enter(self, user: Any) -> bool:
        """May this user, or for ``None`` an anonymous client, be in the channel?"""
        return can_enter(self._tracker.registry.resolve(self.name), self._identify(user))


def _first(changes: list[Change]) -> Change | None:
    return changes[0] if changes else None
