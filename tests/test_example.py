"""The example as a visitor without JavaScript sees it, and who is seen where by its channels."""

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
from example_app.models import Topic, User, db
from flask_presence.testing import PresenceKit, PresenceTestClient, Refused

MAINTAINERS_TOPIC = "The next release"
PUBLIC_TOPIC = "Say hello"
ONLINE, LOBBY = "/site/online", "/lobby/guests"


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


@pytest.fixture
def kit(app: Flask) -> Iterator[PresenceKit]:
    with PresenceKit(app) as kit:
        yield kit


@pytest.fixture
def open_page(
    kit: PresenceKit, sign_in: Callable[..., FlaskClient]
) -> Callable[..., PresenceTestClient]:
    def open_page(name: str = "Reader", **form: str) -> PresenceTestClient:
        return kit.connect(flask_test_client=sign_in(name, **form))

    return open_page


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


def test_who_opens_a_topic_is_seen_by_its_other_readers(open_page, path_of):
    topic = path_of(PUBLIC_TOPIC)
    ada, bob = open_page("Ada"), open_page("Bob")
    readers = bob.subscribe(topic)

    ada.enter(topic)

    assert [user.info["name"] for user in readers.users] == ["Ada"]
    assert readers[ada.user_id].info["avatar"] == f"/avatar/{ada.user_id}.svg"


def test_a_reader_is_shown_on_a_page_that_is_rendered_meanwhile(guest, open_page, path_of):
    open_page("Ada").enter(path_of(PUBLIC_TOPIC))

    for path in path_of(PUBLIC_TOPIC), "/":
        assert "Ada" in guest.get(path).text


def test_a_reader_who_goes_on_to_another_page_stays_for_the_grace(kit, open_page, path_of):
    topic = path_of(PUBLIC_TOPIC)
    ada = open_page("Ada")
    ada.enter(topic)

    ada.drop()
    kit.clock.advance(4)
    kit.assert_exactly(topic, ada.user_id)
    kit.clock.advance(1)
    kit.assert_exactly(topic)


def test_readers_see_who_is_replying_until_the_reply_is_sent(kit, open_page, path_of):
    topic = path_of(PUBLIC_TOPIC)
    ada = open_page("Ada")
    readers = open_page("Bob").subscribe(topic)
    ada.enter(topic)

    ada.enter(topic, {"replying": True})
    while_typing = readers[ada.user_id].meta
    ada.enter(topic, {"replying": False})

    assert while_typing == {"replying": True}
    assert readers[ada.user_id].meta == {"replying": False}
    assert [change.kind for change in kit.changes] == ["entered", "updated", "updated"]


def test_a_guest_sees_the_readers_of_a_topic_and_is_none(kit, open_page, path_of):
    topic = path_of(PUBLIC_TOPIC)
    visitor, ada = kit.connect(), open_page("Ada")
    readers = visitor.subscribe(topic)
    ada.enter(topic)

    with pytest.raises(Refused, match="login_required"):
        visitor.enter(topic)

    assert readers.user_ids == [ada.user_id]


def test_how_many_are_online_is_known_to_all_and_who_to_nobody(kit, sign_in, open_page):
    browser = sign_in("Ada")
    ada, other_tab = (kit.connect(flask_test_client=browser) for _ in range(2))
    bob = open_page("Bob")
    online = kit.connect().subscribe(ONLINE)

    for page in ada, other_tab, bob:
        page.enter(ONLINE)
    with_both = online.count
    bob.disconnect()
    other_tab.disconnect()

    assert (with_both, online.count) == (2, 1)
    assert online.count_only
    assert online.users == []
    kit.assert_exactly(ONLINE, ada.user_id)


def test_who_reads_the_members_topic_is_told_to_its_members_alone(kit, open_page, path_of):
    topic = path_of(MAINTAINERS_TOPIC)
    keeper, other = open_page("Keeper", member="on"), open_page("Other", member="on")
    readers = other.subscribe(topic)

    keeper.enter(topic)

    assert readers.user_ids == [keeper.user_id]
    for page in open_page("Reader"), kit.connect():
        for ask in page.enter, page.subscribe:
            with pytest.raises(Refused, match="not_found"):
                ask(topic)


def test_who_is_no_longer_a_member_is_not_seen_in_their_topic(kit, sign_in, path_of):
    topic = path_of(MAINTAINERS_TOPIC)
    keeper = kit.connect(flask_test_client=sign_in("Keeper", member="on"))
    keeper.enter(topic)

    sign_in("Keeper")
    with pytest.raises(Refused, match="not_found"):
        keeper.reconnect()
    kit.clock.advance(5)

    kit.assert_exactly(topic)


def test_guests_are_counted_in_the_lobby_and_users_named(kit, open_page, guest):
    guests = [kit.connect(), kit.connect(flask_test_client=guest)]
    ada = open_page("Ada")
    lobby = ada.subscribe(LOBBY)

    for page in [*guests, ada]:
        page.enter(LOBBY)
    before = (lobby.anonymous, lobby.user_ids)
    guests[0].drop()

    assert before == (2, [ada.user_id])
    assert (lobby.anonymous, lobby.count) == (1, 1)
    kit.assert_exactly(LOBBY, ada.user_id, anonymous=1)


def test_a_guest_who_signs_in_becomes_a_face(app, kit, guest):
    page = kit.connect(flask_test_client=guest)
    lobby = page.subscribe(LOBBY)
    page.enter(LOBBY)

    guest.post("/sign-in", data={"name": "Ada"}).close()
    page.reconnect()

    with app.app_context():
        ada = db.session.scalars(select(User).filter_by(name="Ada")).one()
        kit.assert_exactly(LOBBY, ada)
    assert (lobby.anonymous, [user.info["name"] for user in lobby.users]) == (0, ["Ada"])


def test_who_signs_out_is_out_of_what_they_read(kit, sign_in, path_of):
    browser, topic = sign_in("Ada"), path_of(PUBLIC_TOPIC)
    page = kit.connect(flask_test_client=browser)
    page.enter(topic)

    browser.post("/sign-out").close()

    assert not page.is_connected
    with pytest.raises(Refused, match="login_required"):
        page.reconnect()
    kit.clock.advance(5)
    kit.assert_exactly(topic)


def without_nonce(response: TestResponse) -> str:
    return re.sub(r' nonce="[^"]*"', "", response.text)


def avatar_of(client: FlaskClient) -> str:
    return re.search(r'<img class="avatar" src="([^"]+)"', client.get("/").text).group(1)
