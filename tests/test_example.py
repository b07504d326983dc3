"""The example as a visitor without JavaScript sees it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from werkzeug.test import TestResponse

from example_app import create_app
from example_app.models import Topic, db

MAINTAINERS_TOPIC = "The next release"
PUBLIC_TOPIC = "Say hello"


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    app = create_app({"INSTANCE_PATH": str(tmp_path), "PRESENCE_BACKEND": "memory://"})
    yield app
    with app.app_context():
        db.session.remove()
        db.engine.dispose()


@pytest.fixture
def guest(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def sign_in(app: Flask) -> Callable[..., FlaskClient]:
    def sign_in(name: str = "Reader", **form: str) -> FlaskClient:
        client = app.test_client()
        response = client.post("/sign-in", data={"name": name, **form})
        assert response.status_code == 302, response.text
        return client

    return sign_in


@pytest.fixture
def path_of(app: Flask) -> Callable[[str], str]:
    def path_of(title: str) -> str:
        with app.app_context():
            return f"/topic/{db.session.scalars(select(Topic.id).filter_by(title=title)).one()}"

    return path_of


def test_a_guest_sees_the_public_topics_and_a_way_to_sign_in(guest):
    page = guest.get("/").text

    assert PUBLIC_TOPIC in page
    assert MAINTAINERS_TOPIC not in page
    assert 'href="/sign-in"' in page


def test_who_signs_in_finds_their_name_until_they_sign_out(sign_in):
    client = sign_in("Reader One")

    assert 'alt="Reader One"' in client.get("/").text
    client.post("/sign-out").close()
    assert 'alt="Reader One"' not in client.get("/").text


@pytest.mark.parametrize("name", ["", "x", " x ", "x" * 31, "a\x00b", "a\u202eb"])
def test_a_name_that_is_none_is_refused_with_a_reason(guest, name):
    response = guest.post("/sign-in", data={"name": name})

    assert response.status_code == 400
    assert "2 to 30 characters" in response.text


def test_the_same_name_is_the_same_user(sign_in, path_of):
    first, second = sign_in("Reader"), sign_in("  Reader ")

    assert avatar_of(first) == avatar_of(second)
    assert avatar_of(first) != avatar_of(sign_in("Writer"))


def test_after_signing_in_from_a_topic_one_is_back_in_it(guest, path_of):
    path = path_of(PUBLIC_TOPIC)
    link = re.search(r"/sign-in\?topic=\d+", guest.get(path).text).group()

    assert guest.post(link, data={"name": "Reader"}).location == path


def test_a_reply_is_shown_after_a_redirect(sign_in, path_of):
    client, path = sign_in("Writer"), path_of(PUBLIC_TOPIC)

    response = client.post(path, data={"text": "  First line\nsecond line "})

    assert response.status_code == 302
    assert response.location == f"{path}#post-1"
    assert "First line\nsecond line</p>" in client.get(path).text
    assert "1 reply" in client.get("/").text


def test_an_empty_reply_is_not_posted(sign_in, path_of):
    client, path = sign_in("Writer"), path_of(PUBLIC_TOPIC)

    page = client.post(path, data={"text": " \n "}, follow_redirects=True).text

    assert "Write something first." in page
    assert "No replies yet" in page


def test_a_guest_reads_but_cannot_reply(guest, path_of):
    path = path_of(PUBLIC_TOPIC)

    response = guest.post(path, data={"text": "let me in"})

    assert response.location.startswith("/sign-in")
    assert "let me in" not in guest.get(path).text


def test_a_group_topic_is_there_for_its_members_alone(guest, sign_in, path_of):
    path = path_of(MAINTAINERS_TOPIC)
    outsider, member = sign_in("Reader"), sign_in("Keeper", member="on")

    assert member.get(path).status_code == 200
    assert MAINTAINERS_TOPIC in member.get("/").text
    assert MAINTAINERS_TOPIC not in outsider.get("/").text
    for client in guest, outsider:
        assert client.get(path).status_code == 404
        assert without_nonce(client.get(path)) == without_nonce(client.get("/topic/999"))
    assert outsider.post(path, data={"text": "hello?"}).status_code == 404


def test_who_no_longer_ticks_the_group_is_out_of_it(sign_in, path_of):
    member = sign_in("Keeper", member="on")

    sign_in("Keeper")

    assert member.get(path_of(MAINTAINERS_TOPIC)).status_code == 404


def test_a_hostile_name_stays_text(sign_in, path_of):
    client, path = sign_in("<script>x(\"&')//</script>"), path_of(PUBLIC_TOPIC)

    client.post(path, data={"text": "<img src=x onerror=alert(1)>"})

    page = client.get(path).text
    assert "<script>x(" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;x(" in page
    avatar = client.get(avatar_of(client))
    assert avatar.mimetype == "image/svg+xml"
    assert "&lt;</text>" in avatar.text


def test_every_page_has_a_policy_with_a_fresh_nonce(guest):
    nonces = set()
    for path in "/", "/guests", "/sign-in", "/topic/999":
        response = guest.get(path)
        policy = response.headers["Content-Security-Policy"]
        nonce = re.search(r"script-src 'self' 'nonce-([^']+)'", policy).group(1)
        assert f'nonce="{nonce}"' in response.text
        assert not re.search(r"<script(?![^>]* nonce=)", response.text)
        assert " style=" not in response.text
        nonces.add(nonce)

    assert len(nonces) == 4


def test_a_session_outlives_the_server(app, sign_in, tmp_path):
    cookie = sign_in("Reader").get_cookie("session").value

    again = create_app({"INSTANCE_PATH": str(tmp_path), "PRESENCE_BACKEND": "memory://"})
    client = again.test_client()
    client.set_cookie("session", cookie)

    assert 'alt="Reader"' in client.get("/").text


def without_nonce(response: TestResponse) -> str:
    return re.sub(r' nonce="[^"]*"', "", response.text)


def avatar_of(client: FlaskClient) -> str:
    return re.search(r'<img class="avatar" src="([^"]+)"', client.get("/").text).group(1)
