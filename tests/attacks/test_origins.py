"""A page in another origin that a signed-in user visits."""

from __future__ import annotations

import json

import pytest
import requests
import websocket
from watched import Connect, Start, Watched
from wire import PATIENCE, Wire, eventually

POLLING = "/socket.io/?EIO=4&transport=polling"

FOREIGN = ["https://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1"]


def open_socket(server: Watched, origin: str) -> websocket.WebSocket:
    url = f"ws://127.0.0.1:{server.port}/socket.io/?EIO=4&transport=websocket"
    return websocket.create_connection(url, origin=origin, timeout=PATIENCE)


@pytest.mark.parametrize("origin", FOREIGN)
def test_a_websocket_from_another_origin_is_refused(server: Watched, origin: str) -> None:
    server.done()

    with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
        open_socket(server, origin)

    assert refusal.value.status_code == 400
    assert server.done() == []


def test_a_websocket_from_the_page_s_own_origin_is_not(server: Watched) -> None:
    link = open_socket(server, f"http://127.0.0.1:{server.port}")

    assert link.recv().startswith("0{")
    link.close()


@pytest.mark.parametrize("origin", FOREIGN)
def test_long_polling_from_another_origin_is_refused(server: Watched, origin: str) -> None:
    opened = server.get(POLLING)
    sid = json.loads(opened.text[1:])["sid"]

    for method, path, body in [
        ("GET", POLLING, None),
        ("GET", f"{POLLING}&sid={sid}", None),
        ("POST", f"{POLLING}&sid={sid}", b'40/presence,{"user":"ada"}'),
        ("POST", f"{POLLING}&sid={sid}", b'd=40/presence,{"user":"ada"}'),
    ]:
        answer = requests.request(
            method,
            f"http://127.0.0.1:{server.port}{path}",
            data=body,
            headers={"Origin": origin},
            timeout=PATIENCE,
        )
        assert answer.status_code == 400
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_script_element_opens_a_connection_that_can_say_nothing(server: Watched) -> None:
    """Such a request has no origin, and can be nothing but a GET."""
    server.done()

    opened = server.get(f"{POLLING}&j=0")
    for path in (POLLING, f"{POLLING}&d=40/presence,", f"{POLLING}&j=1&d=40/presence,"):
        server.get(path)

    assert opened.text.startswith("___eio[0](")
    assert server.kept()["clients"] == 0
    assert server.done() == []


def test_states_are_not_for_pages_of_other_origins(server: Watched) -> None:
    answer = server.get(
        "/presence/state", params={"channel": "/room/1"}, headers={"Origin": FOREIGN[0]}
    )

    assert "Access-Control-Allow-Origin" not in answer.headers
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert answer.headers["Content-Type"] == "application/json"


def test_an_origin_that_was_named_is_let_in_and_others_are_not(start: Start) -> None:
    friend = "https://friend.example"
    server = start(SOCKETIO={"cors_allowed_origins": [friend]})

    open_socket(server, friend).close()
    for origin in FOREIGN:
        with pytest.raises(websocket.WebSocketBadStatusException):
            open_socket(server, origin)


def test_a_door_that_is_open_to_every_page_is_warned_of(start: Start, dial: Connect) -> None:
    server = start(SOCKETIO={"cors_allowed_origins": "*"})

    wire: Wire = dial(server.port, "ada")

    assert wire.call("state", {"channels": ["/room/1"]})["ok"]
    eventually(lambda: server.has_logged("any web page can be present as the users"))
