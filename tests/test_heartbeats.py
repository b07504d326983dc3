"""Heartbeats are answered where they arrive, and as they would be by the way of all events."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from socketio.packet import Packet
from werkzeug.test import create_environ

from flask_presence.sockets import SocketIOTransport

ENGINE_SID = "engine"
EMPTY = {"ok": True, "stale": [], "lost": []}


class Line:
    """A server with one client and no socket: what arrives, and what is sent for it."""

    def __init__(self, server: Any, namespace: str) -> None:
        self.made_threads = 0
        self.sent: list[str] = []
        self.handlers = server.eio.handlers
        server.eio.send = lambda sid, data: self.sent.append(data)
        server.eio.send_packet = lambda sid, packet: self.sent.append(packet.data)
        server.eio.transport = lambda sid: "websocket"
        self.handlers["connect"](ENGINE_SID, create_environ())
        self.receive(f'0{namespace},{{"user":"ann"}}')
        server.start_background_task = self._run_at_once

    def _run_at_once(self, target: Any, *args: Any, **options: Any) -> None:
        self.made_threads += 1
        target(*args, **options)

    def receive(self, text: Any) -> list[str]:
        """What is sent when a message arrives."""
        self.sent.clear()
        # Engine.IO logs what a handler raises.
        with contextlib.suppress(Exception):
            self.handlers["message"](ENGINE_SID, text)
        return [text for text in self.sent if text[0] == "3"]


@pytest.fixture
def make_line(make_app: Any) -> Callable[[str], Line]:
    def make(namespace: str) -> Line:
        app, _ = make_app(PRESENCE_NAMESPACE=namespace)
        return Line(app.extensions["socketio"].server, namespace)

    return make


@pytest.fixture
def line(make_line: Callable[[str], Line]) -> Line:
    return make_line("/presence")


def answer(text: str) -> Any:
    """What a packet acknowledges with."""
    return json.loads(text[text.index("[") :])


@pytest.mark.parametrize("namespace", ["/presence", "/here/too"])
def test_a_heartbeat_is_answered_without_a_thread(
    make_line: Callable[[str], Line], namespace: str
) -> None:
    line = make_line(namespace)

    sent = line.receive(f'2{namespace},17["heartbeat"]')

    assert [text.partition("[")[0] for text in sent] == [f"3{namespace},17"]
    assert answer(sent[0]) == [EMPTY]
    assert line.made_threads == 0


def test_its_positions_are_looked_at(line: Line) -> None:
    line.receive('2/presence,1["subscribe",{"channel":"/room/1"}]')

    sent = line.receive('2/presence,2["heartbeat",{"positions":{"/room/1":["other",5]}}]')

    assert answer(sent[0]) == [EMPTY | {"stale": ["/room/1"]}]


def test_a_malformed_one_is_refused_in_words(line: Line) -> None:
    sent = line.receive('2/presence,2["heartbeat",{"positions":7}]')

    assert answer(sent[0])[0]["error"] == "bad_request"
    assert line.made_threads == 0


@pytest.mark.parametrize(
    "text",
    [
        '2/presence?a=b,2["heartbeat"]',
        '2/presence,2 ["heartbeat"]',
        '2/presence,2[ "heartbeat"]',
        '2/presence,2["heart\\u0062eat"]',
    ],
)
def test_what_is_written_otherwise_goes_the_way_of_all_events(line: Line, text: str) -> None:
    sent = line.receive(text)

    assert answer(sent[0]) == [EMPTY]
    assert line.made_threads == 1


@pytest.mark.parametrize(
    "text",
    [
        '2/presence,["heartbeat"]',  # asks for no answer
        '2/presence,²["heartbeat"]',
        '2/other,3["heartbeat"]',
        '2/presence,3["heartbeats"]',
        '2/presence,3["state",["heartbeat"]]',
        b'2/presence,3["heartbeat"]',
    ],
)
def test_what_is_no_heartbeat_is_not_answered_as_one(line: Line, text: Any) -> None:
    sent = line.receive(text)

    assert [EMPTY] not in [answer(text) for text in sent]


@pytest.mark.parametrize("rest", ["", ",", ',{"positions":', ",NaN]]"])
def test_one_that_is_no_json_is_not_answered(line: Line, rest: str) -> None:
    assert line.receive(f'2/presence,3["heartbeat"{rest}') == []


def test_after_the_connection_closed_nothing_is_answered(line: Line) -> None:
    line.handlers["disconnect"](ENGINE_SID, "transport close")

    assert line.receive('2/presence,3["heartbeat"]') == []


def test_one_of_a_client_that_does_not_read_is_not_answered(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SocketIOTransport, "end_backlog", lambda self, client_id: True)

    assert line.receive('2/presence,3["heartbeat"]') == []


class Spoken(Packet):
    """Packets of another kind, as a serializer of the app's own makes them."""


def test_where_clients_speak_otherwise_all_goes_the_way_of_all_events(make_app: Any) -> None:
    app, _ = make_app(SOCKETIO={"serializer": Spoken})
    line = Line(app.extensions["socketio"].server, "/presence")

    sent = line.receive('2/presence,17["heartbeat"]')

    assert answer(sent[0]) == [EMPTY]
    assert line.made_threads == 1
