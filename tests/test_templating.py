"""The Jinja macros: scripts, settings and first states, with everything escaped."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask, render_template_string

from flask_presence import Presence, templating
from flask_presence.socketio_client import CDN_INTEGRITY, CDN_URL

MakeApp = Callable[..., tuple[Flask, Presence]]

IMPORT = (
    '{% from "flask_presence/macros.html" import presence_client, presence_count, presence_users %}'
)
OWN_SCRIPTS = ["/presence/static/presence.js", "/presence/static/elements.js"]
HOSTILE = ['"><script>alert(1)</script>', "'><img src=x onerror=alert(1)>", "</script>&amp;"]


class Page(HTMLParser):
    """The elements of a page, each with its attributes and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[list[str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        text: list[str] = []
        self.elements.append((tag, dict(attrs), text))
        if tag not in ("link", "img"):
            self._open.append(text)

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for text in self._open:
            text.append(data)

    def all(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attrs, "".join(text)) for name, attrs, text in self.elements if name == tag]

    def one(self, tag: str) -> tuple[dict[str, str | None], str]:
        (found,) = self.all(tag)
        return found


def render(app: Flask, template: str, user: str | None = None, **request: Any) -> Page:
    auth = {"X-Auth": json.dumps({"user": user, "groups": ["staff"]})} if user else {}
    with app.test_request_context(headers=auth, **request):
        return Page(render_template_string(IMPORT + template, nonce="n0nce"))


def enter(app: Flask, presence: Presence, channel: str, *users: Any) -> None:
    with app.app_context():
        for number, user in enumerate(users):
            presence.channel(channel).enter(user, client_id=f"c{number}", force=True)


def person(user_id: str, **info: Any) -> Any:
    return SimpleNamespace(id=user_id, info=info)


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    app, presence = make_app()
    app.extensions["test"] = presence
    return app


@pytest.fixture
def presence(app: Flask) -> Presence:
    presence: Presence = app.extensions["test"]
    presence.user_info(lambda user: getattr(user, "info", {"name": str(user)}))
    return presence


# The client


def settings_of(page: Page) -> dict[str, Any]:
    (text,) = [
        text for attrs, text in page.all("script") if attrs.get("type") == "application/json"
    ]
    found: dict[str, Any] = json.loads(text)
    return found


def sources_of(page: Page) -> list[str | None]:
    return [attrs["src"] for attrs, _ in page.all("script") if "src" in attrs]


def test_the_client_s_settings_are_json_in_the_page(app: Flask) -> None:
    page = render(app, "{{ presence_client() }}")

    settings = settings_of(page)

    assert settings["path"] == "/socket.io"
    assert settings["namespace"] == "/presence"


def test_the_settings_follow_the_app_s(make_app: MakeApp) -> None:
    app, _ = make_app(
        PRESENCE_NAMESPACE="/who</script>", PRESENCE_URL_PREFIX="/-/who", SOCKETIO={"path": "/ws/"}
    )

    page = render(app, "{{ presence_client() }}")

    assert settings_of(page)["path"] == "/ws"
    assert settings_of(page)["namespace"] == "/who</script>"
    assert "/-/who/static/presence.js" in sources_of(page)


def test_the_client_s_paths_begin_with_the_script_root(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templating, "CLIENT_FILE", "presence.mjs")
    page = render(app, "{{ presence_client() }}", base_url="http://localhost/forum/")

    assert settings_of(page)["path"] == "/forum/socket.io"
    assert "/forum/presence/static/presence.js" in sources_of(page)
    assert all(source.startswith("/forum/") for source in sources_of(page) if source)


def test_a_nonce_is_on_every_script_and_nothing_runs_inline(app: Flask) -> None:
    page = render(app, "{{ presence_client(nonce=nonce) }}")

    scripts = page.all("script")
    assert len(scripts) >= 2
    assert {attrs["nonce"] for attrs, _ in scripts} == {"n0nce"}
    assert all("src" in attrs or attrs["type"] == "application/json" for attrs, _ in scripts)
    assert not any(name.startswith("on") for _, attrs, _ in page.elements for name in attrs)


def test_without_a_nonce_there_is_none(app: Flask) -> None:
    page = render(app, "{{ presence_client() }}")

    assert "nonce" not in page.html


def test_a_hostile_nonce_stays_in_its_attribute(app: Flask) -> None:
    page = render(app, "{{ presence_client(nonce=hostile) }}".replace("hostile", "'\"><b>'"))

    assert {attrs["nonce"] for attrs, _ in page.all("script")} == {'"><b>'}
    assert page.all("b") == []


def test_everything_that_the_client_loads_from_here_is_served(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templating, "CLIENT_FILE", "presence.mjs")
    app, _ = make_app(PRESENCE_URL_PREFIX="/-/who")
    page = render(app, "{{ presence_client() }}")
    styles = [attrs["href"] for attrs, _ in page.all("link")]

    for source in [*sources_of(page), *styles]:
        assert source is not None
        with app.test_client().get(source) as response:
            assert response.status_code == 200, source
            kind = "text/css" if source.endswith(".css") else "text/javascript"
            assert response.mimetype == kind


@pytest.mark.parametrize("name", ["presence.js", "elements.js", "presence.mjs", "presence.d.ts"])
def test_the_files_of_the_client_are_served_below_the_url_prefix(app: Flask, name: str) -> None:
    with app.test_client().get(f"/presence/static/{name}") as response:
        assert response.status_code == 200


# The Socket.IO client


def test_the_socketio_client_is_the_copy_in_the_package_and_comes_first(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templating, "CLIENT_FILE", "presence.mjs")

    page = render(app, "{{ presence_client() }}")

    assert sources_of(page) == ["/presence/static/presence.mjs", *OWN_SCRIPTS]


def test_without_a_copy_in_the_package_the_client_comes_from_its_cdn_with_its_hash(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templating, "CLIENT_FILE", "vendor/none.js")

    page = render(app, "{{ presence_client() }}")

    assert sources_of(page) == [CDN_URL, *OWN_SCRIPTS]
    (cdn,) = [attrs for attrs, _ in page.all("script") if attrs.get("src") == CDN_URL]
    assert cdn["integrity"] == CDN_INTEGRITY
    assert cdn["crossorigin"] == "anonymous"


def test_the_socketio_client_comes_from_where_the_setting_says(make_app: MakeApp) -> None:
    url = 'https://static.example/io.js?a=1&b="2"'
    app, _ = make_app(PRESENCE_SOCKETIO_CLIENT_URL=url)

    page = render(app, "{{ presence_client() }}")

    assert sources_of(page) == [url, *OWN_SCRIPTS]


def test_no_socketio_client_is_loaded_where_the_page_has_it(make_app: MakeApp) -> None:
    app, _ = make_app(PRESENCE_SOCKETIO_CLIENT_URL=False)

    page = render(app, "{{ presence_client() }}")

    assert sources_of(page) == OWN_SCRIPTS


# Counts and users


def names_in(page: Page) -> list[str]:
    return [text for attrs, text in page.all("span") if attrs["class"] == "presence-name"]


def test_a_count_shows_who_was_there_when_the_page_was_rendered(
    app: Flask, presence: Presence
) -> None:
    enter(app, presence, "/mixed/x", "7", "8", None)

    attrs, text = render(app, '{{ presence_count("/mixed/x") }}').one("presence-count")

    assert text == "3"
    assert attrs["channel"] == "/mixed/x"
    assert "enter" not in attrs


@pytest.mark.parametrize("macro", ["presence_count", "presence_users"])
def test_an_element_says_whether_its_page_enters(app: Flask, macro: str) -> None:
    page = render(app, f'{{{{ {macro}("/room/1", enter=true) }}}}')

    attrs, _ = page.one(macro.replace("_", "-"))

    assert "enter" in attrs


@pytest.mark.parametrize("macro", ["presence_count", "presence_users"])
def test_an_element_carries_the_state_that_it_was_rendered_from(
    app: Flask, presence: Presence, macro: str
) -> None:
    enter(app, presence, "/room/1", *[person(name, name=name) for name in HOSTILE])
    with app.test_request_context():
        state = presence.state_of("/room/1")

    attrs, _ = render(app, f'{{{{ {macro}("/room/1") }}}}').one(macro.replace("_", "-"))

    assert json.loads(attrs["data-state"] or "") == state


def test_users_show_their_names_and_avatars(app: Flask, presence: Presence) -> None:
    ada = person("7", name="Ada L", avatar="/ada.png", url="https://ada.example/?a=1&b=2")
    enter(app, presence, "/room/1", ada, person("8"))

    page = render(app, '{{ presence_users("/room/1") }}')

    assert names_in(page) == ["Ada L", "8"]
    assert [a["dir"] for a, _ in page.all("span") if a["class"] == "presence-name"] == ["auto"] * 2
    assert [attrs["src"] for attrs, _ in page.all("img")] == ["/ada.png"]
    assert [attrs["href"] for attrs, _ in page.all("a")] == ["https://ada.example/?a=1&b=2"]


def test_at_most_max_users_are_shown_and_how_many_more_there_are(
    app: Flask, presence: Presence
) -> None:
    enter(app, presence, "/room/1", "7", "8", "9")

    page = render(app, '{{ presence_users("/room/1", max=2) }}')

    more = [text for attrs, text in page.all("span") if attrs["class"] == "presence-more"]
    assert names_in(page) == ["7", "8"]
    assert more == ["+1"]
    assert page.one("presence-users")[0]["max"] == "2"


def test_no_more_are_counted_where_all_are_shown(app: Flask, presence: Presence) -> None:
    enter(app, presence, "/room/1", "7", "8")

    for template in ('{{ presence_users("/room/1", max=2) }}', '{{ presence_users("/room/1") }}'):
        assert "presence-more" not in render(app, template).html


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_ids_and_metas_are_escaped(app: Flask, presence: Presence, text: str) -> None:
    hostile = person(text, name=text, avatar="/" + text, url="/" + text, other={text: text})
    enter(app, presence, "/room/1", hostile, person(text + "2"))
    with app.app_context():
        presence.channel("/room/1").update(client_id="c0", meta={text: text})

    page = render(app, '{{ presence_users("/room/1") }}{{ presence_count("/room/1") }}')

    assert {tag for tag, _, _ in page.elements} <= {
        "presence-users",
        "presence-count",
        "a",
        "img",
        "span",
    }
    assert not any(name.startswith("on") for _, attrs, _ in page.elements for name in attrs)
    assert names_in(page) == [text, text + "2"]
    assert page.one("img")[0]["src"] == "/" + text


@pytest.mark.parametrize("text", ['"><b>x</b>', "'><b>x</b>"])
def test_a_hostile_channel_name_is_escaped(app: Flask, presence: Presence, text: str) -> None:
    name = f"/mixed/{text.replace('/', '')}"
    with app.test_request_context():
        template = IMPORT + "{{ presence_users(n) }}{{ presence_count(n) }}"
        page = Page(render_template_string(template, n=name))

    assert page.all("b") == []
    assert page.one("presence-users")[0]["channel"] == name
    assert page.one("presence-count")[0]["channel"] == name


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        " javascript:alert(1)",
        "java\tscript:alert(1)",
        "data:text/html,x",
        "vbscript:x",
        7,
        None,
        ["/x"],
    ],
)
def test_a_url_that_could_run_is_left_out(app: Flask, presence: Presence, url: Any) -> None:
    enter(app, presence, "/room/1", person("7", name="ada", avatar=url, url=url))

    page = render(app, '{{ presence_users("/room/1") }}')

    assert page.all("a") == []
    assert page.all("img") == []
    assert "ada" in page.one("presence-users")[1]


@pytest.mark.parametrize("name", [None, 7, "", "   ", {"a": 1}, ["x"]])
def test_a_name_that_is_no_text_is_replaced_by_the_id(
    app: Flask, presence: Presence, name: Any
) -> None:
    enter(app, presence, "/room/1", person("user 7", name=name))

    page = render(app, '{{ presence_users("/room/1") }}')

    assert names_in(page) == ["user 7"]


def test_a_count_only_channel_shows_no_user(app: Flask, presence: Presence) -> None:
    enter(app, presence, "/count/x", "secret-7", "secret-8")

    page = render(app, '{{ presence_users("/count/x") }}{{ presence_count("/count/x") }}')

    assert "secret" not in page.html
    assert page.one("presence-count")[1] == "2"


@pytest.mark.parametrize("macro", ["presence_count", "presence_users"])
@pytest.mark.parametrize(
    "name", ["/staff/x", "/server/x", "/unknown/x", "no name", "/room/x", "/broken/x", "/invalid/x"]
)
def test_a_channel_that_may_not_be_viewed_renders_nothing(
    app: Flask, presence: Presence, macro: str, name: str
) -> None:
    page = render(app, f'[{{{{ {macro}("{name}", enter=true) }}}}]')

    assert page.html == "[]"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/page/", "a name looks like '/prefix/rest'"),
        ("room/1", "a name looks like '/prefix/rest'"),
        ("/rooms/1", "no channel_config fits it"),
    ],
)
def test_in_debug_mode_the_log_says_why_nothing_is_rendered(
    app: Flask, caplog: pytest.LogCaptureFixture, name: str, reason: str
) -> None:
    app.debug = True

    page = render(app, f'[{{{{ presence_count("{name}") }}}}]')

    assert page.html == "[]"
    assert f"There is no channel '{name}': {reason}." in caplog.text


def test_in_production_nobody_fills_the_log_with_names_of_no_channel(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    render(app, '{{ presence_count("/rooms/1") }}{{ presence_count("rooms") }}')

    assert caplog.text == ""


def test_a_channel_is_rendered_for_the_request_s_user(app: Flask, presence: Presence) -> None:
    page = render(app, '{{ presence_count("/staff/x") }}', user="7")

    assert page.one("presence-count")[1] == "0"


def test_a_page_is_rendered_without_presence_where_the_store_is_down(
    make_app: MakeApp, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "folder").mkdir()
    app, _ = make_app(PRESENCE_BACKEND=f"sqlite:///{tmp_path}/folder")

    page = render(app, '[{{ presence_count("/room/1") }}]')

    assert page.html == "[]"
    assert "/room/1" in caplog.text


def test_nobody_enters_by_being_shown_a_page(app: Flask, presence: Presence) -> None:
    render(app, '{{ presence_count("/room/1", enter=true) }}', user="7")

    with app.app_context():
        assert presence.channel("/room/1").state().position == (None, 0)


# The app's own markup, attributes and announcements

OWN = """
{% call presence_users("/room/1", max=1, announce=true) %}
  <a data-presence-href="url"><b data-presence="name">{{ nonce }}</b></a>
{% endcall %}
"""


def test_a_call_renders_each_user_in_its_markup_and_leaves_it_to_the_browser(
    app: Flask, presence: Presence
) -> None:
    enter(app, presence, "/room/1", person("7", name="<Ada>", url="/ada"), "8")

    page = render(app, OWN)

    source = '<a data-presence-href="url"><b data-presence="name">n0nce</b></a>'
    ada = (
        '<a data-presence-href="url" href="/ada"><b data-presence="name" dir="auto">'
        "&lt;Ada&gt;</b></a>"
    )
    more = '<span class="presence-more">+1</span>'
    region = '<span class="presence-announcement" role="status"></span>'
    assert f"announce><template>{source}</template>{ada}{more}{region}</" in page.html


def test_a_call_to_a_channel_that_may_not_be_viewed_renders_nothing(app: Flask) -> None:
    page = render(app, OWN.replace("/room/1", "/staff/x"))

    assert page.html.strip() == ""


@pytest.mark.parametrize("macro", ["presence_count", "presence_users"])
def test_an_element_has_the_attributes_that_are_given_for_it(app: Flask, macro: str) -> None:
    attributes = {"class": "x", "data-action": "presence:change->list#draw", "title": HOSTILE[0]}

    page = render(app, f'{{{{ {macro}("/room/1", attributes={attributes}) }}}}')

    attrs, _ = page.one(macro.replace("_", "-"))
    assert attrs | attributes == attrs
    assert attrs["channel"] == "/room/1"


def test_how_many_more_is_said_in_the_app_s_words(app: Flask, presence: Presence) -> None:
    enter(app, presence, "/room/1", "7", "8", "9")

    template = (
        '{{ presence_users("/room/1", max=1, attributes={"text-more": "<{count} weitere>"}) }}'
    )
    page = render(app, template)

    assert page.all("span")[-1][1] == "<2 weitere>"


def test_without_announce_there_is_no_live_region(app: Flask, presence: Presence) -> None:
    page = render(app, '{{ presence_users("/room/1") }}')

    assert "announce" not in page.html
    assert "role" not in page.html
