"""Flask-SocketIO's own test client, with which apps test themselves, works with presence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask_socketio import SocketIOTestClient
from wire import eventually

from flask_presence import Presence

MakeApp = Callable[..., tuple[Flask, Presence]]
Connect = Callable[..., "Client"]

ROOM = {"channel": "/room/1"}


class Client:
    """A test client in the presence namespace that keeps what it was sent."""

    def __init__(self, app: Flask, user: str | None, namespace: str) -> None:
        socketio = app.extensions["socketio"]
        self.namespace = namespace
        self.socket: SocketIOTestClient = socketio.test_client(
            app, namespace=namespace, auth={"user": user} if user else None
        )
        self._kept: list[dict[str, Any]] = []

    def call(self, event: str, *args: Any) -> Any:
        return self.socket.emit(event, *args, namespace=self.namespace, callback=True)

    def received(self, event: str) -> list[Any]:
        self._kept += self.socket.get_received(self.namespace)
        return [item["args"][0] for item in self._kept if item["name"] == event]

    def wait_for(self, event: str) -> Any:
        return eventually(lambda: self.received(event))[0]


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app()[0]


@pytest.fixture
def connect(app: Flask) -> Connect:
    namespace = app.config.get("PRESENCE_NAMESPACE", "/presence")
    return lambda user=None: Client(app, user, namespace)


def test_a_test_client_is_greeted(connect: Connect) -> None:
    client = connect("ada")

    hello = client.wait_for("hello")

    assert client.socket.is_connected("/presence")
    assert (hello["user_id"], hello["heartbeat_interval"]) == ("ada", 25)
    assert isinstance(hello["client_id"], str)


def test_enter_is_acknowledged_to_a_test_client(connect: Connect) -> None:
    client = connect("ada")

    entered = client.call("enter", ROOM | {"meta": {"a": 1}})
    read = client.call("state", {"channels": ["/room/1"]})

    assert entered == {"ok": True}
    assert read["states"]["/room/1"]["users"] == [{"id": "ada", "info": {}, "meta": {"a": 1}}]


def test_a_test_client_receives_diffs(connect: Connect) -> None:
    watcher, client = connect(), connect("ada")

    state = watcher.call("subscribe", ROOM)["state"]
    client.call("enter", ROOM)
    diff = watcher.wait_for("diff")

    assert state["revision"] == 0
    assert diff["revisions"] == [[1, 1]]
    assert [user["id"] for user in diff["entered"]] == ["ada"]


def test_a_test_client_that_disconnects_leaves(app: Flask, connect: Connect) -> None:
    watcher, client = connect(), connect("ada")
    watcher.call("subscribe", ROOM)
    client.call("enter", ROOM)
    watcher.wait_for("diff")

    client.socket.disconnect("/presence")

    left = eventually(lambda: [diff for diff in watcher.received("diff") if "left" in diff])
    assert left[0]["left"] == [{"id": "ada", "revision": 2}]


def test_a_test_client_is_not_taken_for_a_closed_connection(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_presence.tracker.holdings.RECONCILE_SECONDS", 0.0)
    app, _ = make_app(PRESENCE_WORKER_TIMEOUT=0.3)
    ticks: list[None] = []
    app.extensions["presence"].tracker.on_tick(lambda: ticks.append(None))
    client = Client(app, "ada", "/presence")
    client.call("enter", ROOM)

    seen = len(ticks)
    eventually(lambda: len(ticks) > seen + 2)

    assert client.call("heartbeat") == {"ok": True, "stale": [], "lost": []}
    assert client.call("update", ROOM | {"meta": {}}) == {"ok": True}


def test_refusals_reach_a_test_client(connect: Connect) -> None:
    client = connect()

    codes = [
        client.call("enter", ROOM)["error"],
        client.call("enter", {"channel": "/staff/1"})["error"],
        client.call("enter")["error"],
        client.call("update", ROOM | {"meta": {}})["error"],
        client.call("nonsense", {})["error"],
    ]

    assert codes == ["login_required", "not_found", "bad_request", "not_present", "bad_request"]


def test_a_test_client_is_told_of_what_the_server_enters(
    make_app: MakeApp,
) -> None:
    app, presence = make_app()
    watcher = Client(app, None, "/presence")
    watcher.call("subscribe", ROOM)

    with app.app_context():
        presence.channel("/room/1").enter("job", client_id="import-7")

    assert watcher.wait_for("diff")["entered"][0]["id"] == "job"


def test_presence_may_have_another_namespace(make_app: MakeApp) -> None:
    app, _ = make_app(PRESENCE_NAMESPACE="/who")
    client = Client(app, "ada", "/who")

    assert client.wait_for("hello")["user_id"] == "ada"
    assert client.call("enter", ROOM) == {"ok": True}


def test_a_test_client_whose_loader_raises_is_not_connected(app: Flask) -> None:
    client = app.extensions["socketio"].test_client(
        app, namespace="/presence", auth={"user": "ada", "raises": True}
    )

    assert not client.is_connected("/presence")
