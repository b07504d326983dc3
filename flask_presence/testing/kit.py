"""`PresenceKit`: tries out the presence of an app, fast, in one process, without sockets or sleep.

It needs no test framework; `flask_presence.testing.fixtures` has a fixture for pytest.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flask import Flask

from ..identity import user_id_of
from ..model import Change, State, User
from ..signals import presence_changed
from .client import PresenceTestClient
from .clock import Clock
from .stand_in import StandIn, own_presence


class PresenceKit:
    """The presence of an app, in memory and on a clock that stands still until a test moves it.

    ::

        with PresenceKit(app) as kit:
            ada, bob = kit.connect(ada_user), kit.connect(bob_user)
            topic = bob.subscribe("/topic/42")
            ada.enter("/topic/42")
            assert topic.user_ids == ["7"]
            ada.drop()
            kit.clock.advance(6)
            kit.assert_absent("/topic/42", ada_user)

    Your channels, hooks, settings and handlers are the real ones, and so is what goes over the
    wire. In place of the store there is an empty one in memory, whatever ``PRESENCE_BACKEND`` says;
    and no thread is started: what happens by and by happens as ``clock`` is moved, and what is
    pending happens before anybody looks. From here to `close` this is what ``presence`` speaks of,
    in views, templates and everywhere. Use it from one thread.

    :ivar clock: moves by ``clock.advance(seconds)``.
    :raises RuntimeError: the app has no presence, or one that no test client can speak to.
    """

    def __init__(self, app: Flask) -> None:
        self._clients: list[PresenceTestClient] = []
        self._seen: list[tuple[float, Change]] = []
        self._heartbeat_interval = own_presence(app).settings.heartbeat_interval
        self.clock = Clock(on_move=self._come_round)
        self._beat_at = self.clock()
        self._stand_in = StandIn(app, self.clock)
        presence_changed.connect(self._note, sender=app)

    def __enter__(self) -> PresenceKit:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give all connections up, and put the app's own presence back as it was."""
        for client in self._clients:
            client.close()
        presence_changed.disconnect(self._note, sender=self._stand_in.app)
        self._stand_in.close()

    def connect(
        self,
        user: Any = None,
        *,
        auth: Any = None,
        flask_test_client: Any = None,
        beats: bool = False,
    ) -> PresenceTestClient:
        """Open a connection, such as a browser tab has.

        :param user: who it is; ``user_info`` and ``user_groups`` are asked about them, and
            ``user_loader`` is not asked at all.
        :param auth: instead, what the ``user_loader`` gets.
        :param flask_test_client: instead, one that is signed in: its cookies come along.
        :param beats: does it send heartbeats in time, as a browser does?
        :raises Refused: the server does not let it in.
        """
        if user is not None and (auth is not None or flask_test_client is not None):
            raise TypeError("connect() takes a user, or what tells the user_loader who it is.")
        client = PresenceTestClient(
            self._stand_in, user=user, auth=auth, flask_test_client=flask_test_client, beats=beats
        )
        self._clients.append(client)
        return client

    # Looking

    @property
    def changes(self) -> list[Change]:
        """Every visible change so far, in order, as the signals told of them."""
        self._stand_in.settle()
        return [change for _, change in self._seen]

    def state(self, channel: str) -> State:
        """What the server knows of a channel; identities are seen in count-only ones too.

        :raises ChannelNotFound: its callback says that there is none.
        """
        self._stand_in.settle()
        self._stand_in.tracker.registry.resolve(channel)
        return self._stand_in.tracker.states.state(channel)

    def assert_present(self, channel: str, user: Any, *users: Any) -> None:
        """These users are in the channel; others may be.

        :raises AssertionError: one is not; it says who is, and what became of the missing.
        """
        __tracebackhide__ = True
        state = self.state(channel)
        missing = _ids([user, *users]) - _ids(state.users)
        if missing:
            raise AssertionError(self._message(state, missing, "not in"))

    def assert_absent(self, channel: str, user: Any, *users: Any) -> None:
        """None of these users is in the channel.

        :raises AssertionError: one is; it says who else is.
        """
        __tracebackhide__ = True
        state = self.state(channel)
        present = _ids([user, *users]) & _ids(state.users)
        if present:
            raise AssertionError(self._message(state, present, "in"))

    def assert_exactly(self, channel: str, *users: Any, anonymous: int = 0) -> None:
        """These users are in the channel and nobody else, in whatever order.

        :param anonymous: how many clients without a user are there.
        :raises AssertionError: it is somebody else, or another number; it says who is there.
        """
        __tracebackhide__ = True
        state = self.state(channel)
        wanted, found = _ids(users), _ids(state.users)
        if wanted - found:
            raise AssertionError(self._message(state, wanted - found, "not in"))
        if found - wanted:
            raise AssertionError(self._message(state, found - wanted, "also in"))
        if state.anonymous != anonymous:
            raise AssertionError(
                f"{state.anonymous} anonymous in {channel}, not {anonymous}. {_there(state)}"
            )

    # Inside

    def _note(self, sender: Any, channel: str, change: Change) -> None:
        self._seen.append((self.clock(), change))

    def _come_round(self) -> None:
        """What happens by and by."""
        if self.clock() - self._beat_at >= self._heartbeat_interval:
            self._beat_at = self.clock()
            for client in self._clients:
                if client.beats and client.is_connected:
                    client.heartbeat()
        self._stand_in.settle()
        self._stand_in.prune()

    def _message(self, state: State, user_ids: Iterable[str], word: str) -> str:
        names = ", ".join(sorted(user_ids))
        parts = [f"{names} {word} {state.channel}.", _there(state)]
        if word == "not in":
            parts += [self._whereabouts(state.channel, user_id) for user_id in sorted(user_ids)]
        return " ".join(parts)

    def _whereabouts(self, channel: str, user_id: str) -> str:
        """What became of a user who is not in a channel."""
        for at, change in reversed(self._seen):
            if (change.channel, change.user_id, change.kind) == (channel, user_id, "left"):
                return f"{user_id} left {self.clock() - at:.1f} s ago ({change.reason})."
        return f"{user_id} never entered it."


def _ids(users: Iterable[Any]) -> set[str]:
    return {user_id_of(user) for user in users}


def _there(state: State) -> str:
    """Who is in a channel, in words."""
    parts = [_described(user) for user in state.users]
    if state.anonymous:
        parts.append(f"{state.anonymous} anonymous")
    return f"There: {', '.join(parts)}." if parts else "Nobody is there."


def _described(user: User) -> str:
    name = f" ({user.info['name']})" if user.info.get("name") else ""
    return f"{user.id}{name} {user.meta}" if user.meta else f"{user.id}{name}"
