"""A client for tests, in the presence namespace over Flask-SocketIO's own test client."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..errors import PresenceError
from .stand_in import StandIn
from .subscription import Subscription

Payload = dict[str, Any]


class Refused(PresenceError):
    """The server refused what a test client asked for.

    ``code`` is that of the wire, such as ``not_found`` or ``login_required``;
    ``connection_refused`` where the client was not let in at all.
    """

    def __init__(
        self, what: str, code: str, message: str, retry_after: float | None = None
    ) -> None:
        super().__init__(f"{what}: {code} ({message})")
        self.code = code
        self.message = message
        self.retry_after = retry_after


class Heartbeat(NamedTuple):
    """What the server answered: channels where the client missed something, and those that it is no
    longer in without having left or been evicted."""

    stale: list[str]
    lost: list[str]


class PresenceTestClient:
    """One connection, such as a browser tab has. Made by `PresenceKit.connect`.

    It says nothing by itself, unless it ``beats``: without a heartbeat it falls silent as the clock
    is moved. Each method is one event on the wire, and returns once it was answered and everybody
    was told; a refusal raises `Refused`.

    :ivar socket: Flask-SocketIO's test client below, for namespaces of the app's own.
    :ivar client_id: its id in the store.
    :ivar user_id: who the server says that it is; ``None``: anonymous.
    :ivar subscriptions: what it watches, by channel.
    :ivar evicted: the channels that the server took it out of, with the reason.
    :raises Refused: the server does not let it in.
    """

    def __init__(
        self,
        stand_in: StandIn,
        *,
        user: Any = None,
        auth: Any = None,
        flask_test_client: Any = None,
        beats: bool = False,
    ) -> None:
        self._stand_in = stand_in
        self._user = user
        self._options = {"auth": auth, "flask_test_client": flask_test_client}
        self._entered: dict[str, Payload | None] = {}
        self._received: list[tuple[str, Any]] = []
        self.beats = beats
        self.client_id = ""
        self.user_id: str | None = None
        self.subscriptions: dict[str, Subscription] = {}
        self.evicted: dict[str, str] = {}
        self._connect()

    def __repr__(self) -> str:
        state = "" if self.is_connected else ", closed"
        return f"<PresenceTestClient of {self.user_id or 'nobody'}{state}>"

    def _connect(self) -> None:
        hooks = self._stand_in.hooks
        hooks.user = self._user
        try:
            self.socket = self._stand_in.socketio.test_client(
                self._stand_in.app, namespace=self._stand_in.namespace, **self._options
            )
        finally:
            hooks.user = None
        if not self.is_connected:
            self.close()
            raise Refused("connect", "connection_refused", repr(hooks.raised)) from hooks.raised
        self._receive()

    @property
    def is_connected(self) -> bool:
        """Is the connection open? The server closes it where the user is reloaded."""
        return bool(self.socket.is_connected(self._stand_in.namespace))

    # Being in

    def enter(self, channel: str, meta: Payload | None = None) -> None:
        """Enter a channel; without a meta, what this client gave before stays."""
        self.call("enter", {"channel": channel} | ({} if meta is None else {"meta": meta}))
        self._entered[channel] = self._entered.get(channel) if meta is None else meta
        self.evicted.pop(channel, None)

    def update(self, channel: str, meta: Payload) -> None:
        """Replace the meta that this client gave."""
        self.call("update", {"channel": channel, "meta": meta})
        self._entered[channel] = meta

    def leave(self, channel: str) -> None:
        """Leave a channel."""
        self.call("leave", {"channel": channel})
        self._entered.pop(channel, None)

    def heartbeat(self) -> Heartbeat:
        """Give a sign of life; more often than once a second it is answered without a look."""
        positions = {
            name: seen.position for name, seen in self.subscriptions.items() if seen.position
        }
        answer = self.call("heartbeat", {"positions": positions})
        return Heartbeat(answer["stale"], answer["lost"])

    # Watching

    def subscribe(self, channel: str) -> Subscription:
        """Watch a channel."""
        seen = self.subscriptions.get(channel) or Subscription(channel, receive=self._receive)
        asked = {"channel": channel} | ({"position": seen.position} if seen.position else {})
        self.subscriptions[channel] = seen
        try:
            state = self.call("subscribe", asked)["state"]
        except Refused:
            del self.subscriptions[channel]
            raise
        if state is not None:
            seen.apply_state(state)
        self.evicted.pop(channel, None)
        return seen

    def unsubscribe(self, channel: str) -> None:
        """Watch a channel no longer."""
        self.call("unsubscribe", {"channel": channel})
        self.subscriptions.pop(channel, None)

    def received(self, event: str | None = None) -> list[Any]:
        """The data of the app's own events, in order: of one event, or as ``(event, data)`` of all.

        They are what ``presence.channel(name).emit(event, data)`` sends.
        """
        self._receive()
        if event is None:
            return list(self._received)
        return [data for name, data in self._received if name == event]

    # The connection

    def disconnect(self) -> None:
        """Close the connection in an orderly way: the client is out of everything at once."""
        self._close("CLIENT_DISCONNECT")

    def drop(self) -> None:
        """Lose the connection, as by a page load or a network that fails: the grace begins."""
        self._close("TRANSPORT_CLOSE")

    def reconnect(self) -> None:
        """Come back with a new connection, as a browser does: who it is is asked anew, then it
        enters and subscribes to what it had.

        :raises Refused: the server does not let it in, or no longer into one of the channels.
        """
        if self.is_connected:
            self.drop()
        self.close()
        self._connect()
        for channel, meta in list(self._entered.items()):
            del self._entered[channel]
            self.enter(channel, meta)
        for channel in list(self.subscriptions):
            self.subscribe(channel)

    def _close(self, reason: str) -> None:
        self._check_open()
        self._receive()
        self._hang_up(reason)
        self._stand_in.settle()

    def _hang_up(self, reason: str) -> None:
        """Do as an Engine.IO server does whose socket has closed, and leave nothing behind."""
        server = self._stand_in.socketio.server
        server.eio.handlers["disconnect"](self.socket.eio_sid, getattr(server.reason, reason))
        self.socket.connected.clear()
        self.socket.clients.pop(self.socket.eio_sid, None)

    def close(self) -> None:
        """Give the connection up, open or not; nobody is told."""
        self._hang_up("CLIENT_DISCONNECT")

    # The wire

    def call(self, event: str, payload: Any = None) -> Payload:
        """Send an event, and return its acknowledgement once everybody was told.

        :raises Refused: the server refused.
        :raises RuntimeError: the connection is closed.
        """
        self._check_open()
        answer: Payload = self.socket.emit(
            event, payload, namespace=self._stand_in.namespace, callback=True
        )
        self._receive()
        if not answer["ok"]:
            where = payload.get("channel", "") if isinstance(payload, dict) else ""
            raise Refused(
                f"{event} {where}".strip(),
                answer["error"],
                answer["message"],
                answer.get("retry_after"),
            )
        return answer

    def _check_open(self) -> None:
        if not self.is_connected:
            raise RuntimeError(f"{self!r} has no connection; reconnect() opens another one.")

    def _receive(self) -> None:
        """Let everything arrive that is pending."""
        self._stand_in.settle()
        arrived, self.socket.queue = self.socket.queue, []
        for packet in arrived:
            if packet["namespace"] == self._stand_in.namespace:
                self._take(packet["name"], *packet["args"])
            else:
                self.socket.queue.append(packet)

    def _take(self, event: str, data: Any = None) -> None:
        if event == "hello":
            self.client_id, self.user_id = data["client_id"], data["user_id"]
        elif event == "evicted":
            self._take_eviction(data["channel"], data["reason"])
        elif event not in ("state", "diff"):
            self._received.append((event, data))
        elif seen := self.subscriptions.get(data["channel"]):
            (seen.apply_state if event == "state" else seen.apply_diff)(data)

    def _take_eviction(self, channel: str, reason: str) -> None:
        self.evicted[channel] = reason
        self._entered.pop(channel, None)
        seen = self.subscriptions.pop(channel, None)
        if seen is not None:
            seen.evict(reason)
