"""States over plain HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from server import TestUser as Person

from flask_presence import BackendUnavailable, Presence
from flask_presence.backends.memory import MemoryBackend

MakeApp = Callable[..., tuple[Flask, Presence]]


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    app, presence = make_app()
    with app.app_context():
        presence.channel("/room/1").enter(user("ada"), client_id="a", meta={"n": 1})
        presence.channel("/count/all").enter(user("ada"), client_id="a")
        presence.channel("/staff/desk").enter(user("bob"), client_id="b", force=True)
    return app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def user(user_id: str) -> Person:
    return Person({"user": user_id, "info": {"name": user_id}})


def ask(client: FlaskClient, *channels: str, auth: Any = None) -> Any:
    headers = {"X-Auth": json.dumps(auth)} if auth else {}
    return client.get(
        "/presence/state", query_string=[("channel", name) for name in channels], headers=headers
    )


def test_a_state_has_its_wire_form(client: FlaskClient) -> None:
    response = ask(client, "/room/1", "/count/all")

    states = response.json["states"]
    assert response.status_code == 200
    assert states["/room/1"]["users"] == [{"id": "ada", "info": {"name": "ada"}, "meta": {"n": 1}}]
    assert states["/count/all"]["count_only"] is True
    assert states["/count/all"]["count"] == 1
    assert "users" not in states["/count/all"]


def test_what_may_not_be_viewed_looks_like_what_does_not_exist(client: FlaskClient) -> None:
    response = ask(client, "/staff/desk", "/nowhere/1")

    assert response.json == {"states": {"/staff/desk": None, "/nowhere/1": None}}


def test_it_answers_for_the_user_of_the_request(client: FlaskClient) -> None:
    response = ask(client, "/staff/desk", auth={"user": "eve", "groups": ["staff"]})

    assert [user["id"] for user in response.json["states"]["/staff/desk"]["users"]] == ["bob"]


def test_nobody_may_keep_an_answer(client: FlaskClient) -> None:
    for channels in (["/room/1"], [], ["/broken/1"]):
        assert ask(client, *channels).headers["Cache-Control"] == "private, no-store"


@pytest.mark.parametrize(
    "channels",
    [
        pytest.param([], id="none"),
        pytest.param([f"/room/{number}" for number in range(51)], id="too many"),
        pytest.param(["/room/1", "room"], id="no name"),
    ],
)
def test_a_bad_question_is_refused(client: FlaskClient, channels: list[str]) -> None:
    response = ask(client, *channels)

    assert response.status_code == 400
    assert response.json["error"] == "bad_request"
    assert response.json["message"]


def test_fifty_channels_are_not_too_many(client: FlaskClient) -> None:
    response = ask(client, *[f"/room/{number}" for number in range(50)])

    assert len(response.json["states"]) == 50


def test_a_callback_that_raises_makes_it_unavailable_as_a_whole(client: FlaskClient) -> None:
    response = ask(client, "/room/1", "/broken/1")

    assert response.status_code == 503
    assert response.json["error"] == "unavailable"
    assert int(response.headers["Retry-After"]) >= 1


def test_a_store_that_is_away_makes_it_unavailable(make_app: MakeApp) -> None:
    class Away(MemoryBackend):
        def state(self, channel: str) -> Any:
            raise BackendUnavailable("away")

    app, _ = make_app(PRESENCE_BACKEND=Away())
    response = ask(app.test_client(), "/room/1")

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"


def test_it_stands_below_the_url_prefix(make_app: MakeApp) -> None:
    app, _ = make_app(PRESENCE_URL_PREFIX="/who")

    assert app.test_client().get("/who/state?channel=/room/1").status_code == 200
    assert app.test_client().get("/presence/state?channel=/room/1").status_code == 404


def test_reading_keeps_nobody_alive(make_app: MakeApp) -> None:
    now = [1000.0]
    app, presence = make_app(PRESENCE_BACKEND=MemoryBackend(clock=lambda: now[0]))
    with app.app_context():
        presence.channel("/room/1").enter(user("ada"), client_id="a")
    for _ in range(3):
        now[0] += 25
        response = ask(app.test_client(), "/room/1")

    assert response.json["states"]["/room/1"]["users"] == []
