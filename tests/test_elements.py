"""The elements in real Chromium, under the strictest policy that a page can have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pages import Site, person
from playwright.sync_api import Browser, Page, expect
from wire import eventually

ADA = person("ada", name="Ada Lovelace", url="/ada", avatar="/dot.png")
BOB = person("bob", name="Bob")
CAROL = person("carol", name="Carol", url="https://carol.example/")
HOSTILE = [
    person(
        '"><script>alert(1)</script>', name='"><script>alert(1)</script>', url="javascript:alert(1)"
    ),
    person("__proto__", name="__proto__", avatar="data:text/html,x"),
    person("constructor", name="constructor", url="/constructor"),
    person("arabic", name="مرحبا بالعالم!", avatar="/dot.png"),
]

DEFAULT = '{{ presence_users("/room/1", ARGUMENTS) }}'
OWN = """
{% call presence_users("/room/1", ARGUMENTS) %}
<a class="reader" data-presence-href="url"
  data-presence-title="info.name" data-presence-data-mood="meta.mood">
  <img data-presence-src="avatar" data-presence-show="avatar" alt="">
  <i data-presence="initials" data-presence-hide="avatar">?</i>
  <b data-presence="name">Somebody</b>
  <em data-presence="meta.mood" data-presence-show="meta.mood"></em>
</a>
{% endcall %}
"""
MARKUPS = pytest.mark.parametrize("markup", [DEFAULT, OWN], ids=["default", "own"])
NODES = "presence-users > :is(a, .presence-user)"


@pytest.fixture
def site(serve: Callable[..., Any], browser: Browser) -> Iterator[Site]:
    site = Site(*serve(PRESENCE_BATCH_WINDOW=0), browser)
    yield site
    assert site.close() == []


def users(markup: str = DEFAULT, arguments: str = "") -> str:
    return markup.replace("ARGUMENTS", arguments)


def names(page: Page) -> list[str]:
    found: list[str] = page.locator("presence-users :is(.presence-name, b)").all_text_contents()
    return found


def shows(page: Page, *expected: str) -> None:
    expect(page.locator("presence-users :is(.presence-name, b)")).to_have_text(list(expected))


def look_of(page: Page) -> Any:
    """The element as it looks: tags, attributes in no order, texts."""
    return page.locator("presence-users").evaluate(
        """(element) => {
            const attributes = (node) =>
                Object.fromEntries([...node.attributes].map(({ name, value }) => [name, value]));
            const look = (node) => node.nodeType === 3 ? node.data
                : [node.localName, attributes(node), [...node.childNodes].map(look)];
            const { "data-state": state, ...own } = attributes(element);
            return [own, [...element.childNodes].map(look)];
        }"""
    )


# From the server's markup to a live element


@MARKUPS
def test_what_the_server_rendered_is_not_touched_when_it_becomes_live(
    site: Site, markup: str
) -> None:
    site.enter(ADA, BOB, *HOSTILE, meta={"mood": "glad"})
    watch = """
        <script nonce="n0nce">
            window.touched = [];
            const all = { childList: true, subtree: true, characterData: true, attributes: true };
            new MutationObserver((records) => {
                for (const { attributeName, type } of records)
                    window.touched.push(attributeName || type);
            }).observe(document.querySelector("presence-users"), all);
        </script>"""

    page = site.live(users(markup, "max=3, announce=true") + watch)
    site.leave(HOSTILE[-1])

    expect(page.locator(".presence-more")).to_have_text("+2")
    assert page.evaluate("window.touched.filter((name) => name !== 'data-state')") == [
        "data-count",
        "data-anonymous",
        "childList",
    ]


@MARKUPS
def test_a_live_element_looks_as_the_server_would_render_it(site: Site, markup: str) -> None:
    template = users(markup, 'max=5, announce=true, attributes={"text-more": "and {count} more"}')
    live = site.live(template)

    site.enter(ADA, *HOSTILE, meta={"mood": "glad", "n": 1.0, "deep": {"x": True}})
    site.enter(BOB, CAROL)
    expect(live.locator(".presence-more")).to_have_text("and 2 more")

    assert look_of(live) == look_of(site.live(template))


def test_numbers_truths_and_what_lies_deeper_are_shown_alike(site: Site) -> None:
    keys = ["meta.n", "meta.half", "meta.yes", "meta.no", "meta.deep.x", "meta.deep", "meta.none"]
    keys += [
        "meta.constructor",
        "meta.list.0",
        "meta.list.length",
        "info.name.length",
        "meta.zero",
        "info.missing.x",
    ]
    slots = "".join(f'<b data-presence="{key}" data-presence-hide="{key}"></b>' for key in keys)
    template = f"{{% call presence_users('/room/1') %}}<p>{slots}</p>{{% endcall %}}"
    live = site.live(template)
    meta = {
        "n": 1.0,
        "half": 0.5,
        "yes": True,
        "no": False,
        "deep": {"x": "y"},
        "list": ["z"],
        "zero": 0,
    }

    site.enter(BOB, meta=meta)

    shows(live, "1", "0.5", "true", "", "y", *[""] * 6, "0", "")
    assert look_of(live) == look_of(site.live(template))


@MARKUPS
def test_an_element_that_a_script_made_shows_the_same(site: Site, markup: str) -> None:
    site.enter(ADA, BOB, meta={"mood": "glad"})
    rendered = site.live(users(markup))
    page = site.live(users(markup))

    page.evaluate(
        """() => {
            const made = document.querySelector("presence-users").cloneNode(true);
            for (const node of [...made.children]) if (node.localName !== "template") node.remove();
            document.querySelector("presence-users").replaceWith(made);
        }"""
    )

    shows(page, "Ada Lovelace", "Bob")
    assert look_of(page) == look_of(rendered)


# Who stays


@MARKUPS
def test_who_stays_keeps_their_node_and_the_focus(site: Site, markup: str) -> None:
    site.enter(BOB, ADA, CAROL)
    page = site.live(users(markup))
    page.evaluate(
        f"""() => {{
            window.kept = [...document.querySelectorAll("{NODES}")].slice(1);
            window.kept[0].focus();
        }}"""
    )

    site.leave(BOB)

    shows(page, "Ada Lovelace", "Carol")
    assert page.evaluate("document.activeElement === window.kept[0]")
    assert page.evaluate(
        f"""[...document.querySelectorAll("{NODES}")]
            .every((node, index) => node === window.kept[index])"""
    )


def test_a_meta_that_changes_is_shown_in_the_node_that_is_there(site: Site) -> None:
    site.enter(ADA)
    page = site.live(users(OWN))
    page.evaluate(f"window.node = document.querySelector('{NODES}')")

    with site.app.app_context():
        site.presence.channel("/room/1").update(client_id="ada", meta={"mood": "<b>glad</b>"})

    expect(page.locator("presence-users em")).to_have_text("<b>glad</b>")
    expect(page.locator("presence-users em")).to_be_visible()
    assert page.evaluate(f"document.querySelector('{NODES}') === window.node")
    assert page.evaluate("window.node.dataset.mood") == "<b>glad</b>"


@MARKUPS
def test_somebody_renamed_keeps_their_node(site: Site, markup: str) -> None:
    site.enter(ADA)
    page = site.live(users(markup))
    page.evaluate(f"window.node = document.querySelector('{NODES}')")

    site.enter(person("ada", name="Ada King", url="/countess"))

    shows(page, "Ada King")
    assert page.evaluate(f"document.querySelector('{NODES}') === window.node")
    assert page.evaluate("window.node.getAttribute('href')") == "/countess"
    expect(page.locator("presence-users img:visible")).to_have_count(0)


def test_nothing_moves_when_somebody_comes_or_an_announcement_is_made(site: Site) -> None:
    page = site.live(users(arguments="max=1, announce=true") + "<p>Below</p>")
    below = page.locator("p").bounding_box()

    site.enter(BOB)
    expect(page.locator(".presence-announcement")).to_have_text("\u2068Bob\u2069 joined.")

    assert page.locator("p").bounding_box() == below
    size = page.locator(".presence-announcement").bounding_box()
    assert size is not None
    assert (size["width"], size["height"]) == (1, 1)
    edges = page.evaluate(
        """() => ["presence-users", ".presence-user"]
            .map((part) => document.querySelector(part).getBoundingClientRect().right)"""
    )
    assert edges[0] == edges[1]


def test_what_is_hidden_is_not_seen_whatever_its_style(site: Site) -> None:
    page = site.live(
        """{% call presence_users("/room/1") %}
        <p><i class="presence-avatar" data-presence="initials" data-presence-hide="avatar"></i></p>
        {% endcall %}"""
    )

    site.enter(ADA, BOB)

    faces = page.locator("presence-users i")
    expect(faces).to_have_text(["AL", "B"])
    expect(faces.nth(0)).to_be_hidden()
    expect(faces.nth(1)).to_be_visible()


# A markup that cannot be filled


@pytest.mark.parametrize(
    ("markup", "problem"),
    [
        ("<b></b><b></b>", "must hold exactly one element"),
        ("", "must hold exactly one element"),
        ('<b data-presence="nmae"></b>', '<b data-presence="nmae">: no such value'),
        ('<b data-presence="info"></b>', "no such value"),
        ('<b data-presence-onclick="name"></b>', '"onclick" cannot be filled here'),
        ('<b data-presence-style="name"></b>', '"style" cannot be filled here'),
        ('<b><script data-presence-src="url"></script></b>', '"src" cannot be filled here'),
        ('<b><base data-presence-href="url"></b>', '"href" cannot be filled here'),
    ],
)
def test_a_markup_that_cannot_be_filled_is_an_error_that_says_why(
    site: Site, markup: str, problem: str
) -> None:
    site.show(f'<presence-users channel="/room/1"><template>{markup}</template></presence-users>')

    (error,) = site.errors
    site.errors.clear()
    assert problem in error


# Events


def listen(page: Page, target: str = "document.body") -> None:
    page.evaluate(
        f"""() => {{
            window.heard = [];
            for (const name of ["change", "enter", "leave", "update", "sync", "evicted", "error"])
                {target}.addEventListener(`presence:${{name}}`, ({{ type, detail }}) => {{
                    const seen = {{ ...detail, users: detail.users.map(({{ id }}) => id) }};
                    if (detail.user) seen.user = detail.user.id;
                    if (detail.error) seen.error = detail.error.code;
                    window.heard.push([type, seen]);
                }});
        }}"""
    )


def heard(page: Page, last: str) -> list[Any]:
    """What was heard up to an event that is awaited."""
    eventually(lambda: page.evaluate("last => window.heard.some(([type]) => type === last)", last))
    events: list[Any] = page.evaluate("window.heard.splice(0)")
    return events


def test_events_bubble_out_of_a_shadow_root_with_what_they_are_about(site: Site) -> None:
    site.enter(BOB)
    page = site.live("<div></div>")
    listen(page)
    page.evaluate(
        """() => {
            const root = document.querySelector("div").attachShadow({ mode: "open" });
            root.append(Object.assign(document.createElement("presence-users")));
            root.firstChild.setAttribute("channel", "/room/1");
        }"""
    )
    here = {"channel": "/room/1", "anonymous": 0, "countOnly": False, "present": False}
    one = here | {"count": 1, "users": ["bob"]}
    two = here | {"count": 2, "users": ["bob", "ada"]}

    assert heard(page, "presence:change") == [
        ["presence:enter", one | {"user": "bob"}],
        ["presence:sync", one],
        ["presence:change", one],
    ]
    site.enter(ADA)
    assert heard(page, "presence:change") == [
        ["presence:enter", two | {"user": "ada"}],
        ["presence:change", two],
    ]
    site.enter(ADA, meta={"n": 1})
    assert heard(page, "presence:change") == [
        ["presence:update", two | {"user": "ada"}],
        ["presence:change", two],
    ]
    site.leave(ADA)
    assert heard(page, "presence:change") == [
        ["presence:leave", one | {"user": "ada"}],
        ["presence:change", one],
    ]


def test_the_element_is_up_to_date_when_its_event_is_heard(site: Site) -> None:
    page = site.live(users())
    page.evaluate(
        """() => document.addEventListener("presence:enter", ({ target, detail }) =>
            (window.seen = [target.textContent, target.dataset.count, detail.user.info.name]))"""
    )

    site.enter(BOB)

    shows(page, "Bob")
    assert page.evaluate("window.seen") == ["BBob", "1", "Bob"]


def test_an_eviction_is_an_event_and_empties_the_element(site: Site) -> None:
    page = site.live(users(arguments="enter=true"), user=ADA)
    shows(page, "Ada Lovelace")
    listen(page)

    with site.app.app_context():
        site.presence.evict("ada")

    (detail,) = [seen for kind, seen in heard(page, "presence:evicted") if "reason" in seen]
    assert (detail["reason"], detail["users"]) == ("evicted", [])
    shows(page)


def test_a_refusal_is_an_event(site: Site) -> None:
    page = site.live("<presence-count></presence-count>")
    listen(page)

    page.evaluate('document.querySelector("presence-count").setAttribute("channel", "/staff/x")')

    ((kind, detail),) = heard(page, "presence:error")
    assert (kind, detail["channel"], detail["error"]) == ("presence:error", "/staff/x", "not_found")


# Announcements


def announcement(page: Page, text: str) -> None:
    expect(page.locator("presence-users > [role=status]")).to_have_text(text, timeout=15_000)


def test_who_comes_and_goes_within_a_moment_is_one_announcement(site: Site) -> None:
    site.enter(BOB)
    page = site.live(users(arguments="announce=true"))
    people = [person(f"p{number}", name=f"P{number}") for number in range(5)]

    site.enter(CAROL, *people)
    site.leave(BOB)
    site.leave(CAROL)

    some = "\u2068P0\u2069, \u2068P1\u2069, \u2068P2\u2069"
    announcement(page, f"{some}, and 2 others joined. \u2068Bob\u2069 left.")


@pytest.mark.parametrize(
    "element",
    [
        users(arguments="enter=true, announce=true"),
        '<presence-users channel="/room/1" enter announce></presence-users>',
    ],
    ids=["rendered", "written"],
)
def test_neither_those_who_are_there_nor_oneself_are_announced(site: Site, element: str) -> None:
    site.enter(BOB)
    page = site.live(element, user=ADA)
    shows(page, "Bob", "Ada Lovelace")

    site.enter(CAROL)

    announcement(page, "\u2068Carol\u2069 joined.")


def test_announcements_are_some_seconds_apart_and_soon_forgotten(site: Site) -> None:
    page = site.live(users(arguments="announce=true"))
    page.evaluate(
        """() => {
            window.said = [];
            const region = document.querySelector("[role=status]");
            new MutationObserver(() => window.said.push([performance.now(), region.textContent]))
                .observe(region, { childList: true });
        }"""
    )

    site.enter(BOB)
    announcement(page, "\u2068Bob\u2069 joined.")
    site.leave(BOB)
    announcement(page, "\u2068Bob\u2069 left.")
    expect(page.locator("[role=status]")).to_be_empty(timeout=15_000)

    said = page.evaluate("window.said")
    assert [text for _, text in said] == ["\u2068Bob\u2069 joined.", "\u2068Bob\u2069 left.", ""]
    assert said[1][0] - said[0][0] >= 4_990


def test_announcements_are_made_in_the_page_s_own_words(site: Site) -> None:
    texts = {
        "lang": "de",
        "text-entered": "Neu hier: {names}",
        "text-left": "Nicht mehr hier: {names}",
        "text-others": "{count} weitere",
    }
    page = site.live(users(arguments=f"announce=true, attributes={texts}"))
    people = [person(f"p{number}", name=f"P{number}") for number in range(5)]

    site.enter(*people)

    announcement(page, "Neu hier: \u2068P0\u2069, \u2068P1\u2069, \u2068P2\u2069 und 2 weitere")


def test_a_lang_that_is_none_spoils_no_announcement(site: Site) -> None:
    page = site.live(users(arguments='announce=true, attributes={"lang": "pt_BR"}'))

    site.enter(BOB)

    announcement(page, "\u2068Bob\u2069 joined.")


def test_without_announce_nothing_is_announced(site: Site) -> None:
    page = site.live(users())

    site.enter(BOB)

    shows(page, "Bob")
    expect(page.locator("[role=status]")).to_have_count(0)


# A strict policy; that nothing was refused or complained of is asked of every test here


@MARKUPS
@pytest.mark.parametrize("when", ["rendered", "live"])
def test_hostile_names_are_shown_as_they_are(site: Site, markup: str, when: str) -> None:
    expected = [user.info["name"] for user in HOSTILE]
    if when == "rendered":
        site.enter(*HOSTILE)
        page = site.show(users(markup, "announce=true"), client=False, script=False)
    else:
        page = site.live(users(markup, "announce=true"))
        site.enter(*HOSTILE)

    shows(page, *expected)
    assert page.locator("presence-users script").count() == 0
    expect(page.locator("presence-users img:visible")).to_have_count(1)  # Once it is loaded.
    links = page.locator("presence-users a[href]").evaluate_all(
        "all => all.map((a) => a.getAttribute('href'))"
    )
    pictures = page.locator("presence-users img:visible").evaluate_all(
        "all => all.map((i) => i.getAttribute('src'))"
    )
    assert links == ["/constructor"]
    assert pictures == ["/dot.png"]


def test_a_link_that_could_run_is_left_out_whatever_key_it_comes_from(site: Site) -> None:
    page = site.live(
        """{% call presence_users("/room/1") %}
        <p><a data-presence-href="info.site"><b data-presence="name"></b></a></p>
        {% endcall %}"""
    )

    site.enter(
        person("1", name="Eve", site="javascript:alert(1)"),
        person("2", name="Bob", site="https://bob.example/"),
    )

    shows(page, "Eve", "Bob")
    links = page.locator("presence-users a").evaluate_all(
        "all => all.map((a) => a.getAttribute('href'))"
    )
    assert links == [None, "https://bob.example/"]


@MARKUPS
def test_a_name_from_right_to_left_leaves_its_neighbours_in_their_place(
    site: Site, markup: str
) -> None:
    hebrew, number = person("1", name="שלום"), person("2", name="123!")
    page = site.live(f"<p>{users(markup)}</p>")

    site.enter(HOSTILE[-1], number, hebrew)
    shows(page, HOSTILE[-1].info["name"], "123!", "שלום")

    directions = page.locator("presence-users :is(.presence-name, b)").evaluate_all(
        """(all) => all.map(getComputedStyle)
            .map(({ direction, unicodeBidi }) => [direction, unicodeBidi])"""
    )
    assert directions == [["rtl", "isolate"], ["ltr", "isolate"], ["rtl", "isolate"]]


def test_the_module_alone_makes_the_elements_live(site: Site) -> None:
    site.enter(BOB)
    page = site.show(
        """
        <script nonce="n0nce" src="/presence/static/vendor/socket.io.min.js"></script>
        <script nonce="n0nce" type="module">
            import { connect, fold } from "/presence/static/presence.mjs";
            const channel = connect().channel("/room/1");
            await channel.subscribe();
            document.title = `${connect().status} ${channel.count} ${typeof fold.applyDiff}`;
        </script>
        <presence-users channel="/room/1"></presence-users>""",
        client=False,
    )

    expect(page).to_have_title("live 1 function")
    shows(page, "Bob")


WALK = """async () => {
    const empty = { epoch: null, revision: 0, count: 0, anonymous: 0, users: [] };
    const presence = FlaskPresence.connect();
    const channel = presence.channel("/mixed/x", { initial: { channel: "/mixed/x", ...empty } });
    const heard = [];
    const tell = (event) => ({ id = "" } = {}) => heard.push(`${event} ${id}`.trim());
    const events = ["change", "enter", "leave", "update", "sync", "evicted", "error"];
    const offs = events.map((event) => channel.on(event, tell(event)));
    const seen = [];
    const note = (step) => {
        const { users, count, anonymous, countOnly, present, synced } = channel;
        const metas = users.map(({ id, meta }) => [id, meta]);
        seen.push([step, metas, count, anonymous, countOnly, present, synced, presence.status]);
        seen.push(heard.splice(0).sort()); // a diff and an acknowledgement come in either order
    };
    const until = async (event) => {
        while (!heard.includes(event)) await new Promise((done) => setTimeout(done, 5));
    };

    note("page");
    await channel.subscribe();
    note("subscribed");
    await channel.enter({ typing: true });
    await until("enter ada");
    note("entered");
    await channel.update({ typing: false });
    await until("update ada");
    note("updated");
    await channel.leave();
    await until("leave ada");
    note("left");
    await channel.update({}).catch(({ code }) => heard.push(code));
    await channel.unsubscribe();
    for (const off of offs) off();
    note("unsubscribed");
    presence.close();
    note("closed");
    return seen;
}"""


def test_the_lines_of_the_interface_do_in_a_browser_what_they_say(site: Site) -> None:
    page = site.show("", user=ADA)
    site.enter(BOB, channel="/mixed/x")

    seen = page.evaluate(WALK)

    bob = ["bob", {}]
    alone = [[bob], 1, 0, False, False, True, "live"]
    assert seen == [
        ["page", [], 0, 0, False, False, True, "connecting"],
        [],
        ["subscribed", *alone],
        ["change", "enter bob", "sync"],
        ["entered", [bob, ["ada", {"typing": True}]], 2, 0, False, True, True, "live"],
        ["change", "change", "enter ada"],
        ["updated", [bob, ["ada", {"typing": False}]], 2, 0, False, True, True, "live"],
        ["change", "update ada"],
        ["left", *alone],
        ["change", "change", "leave ada"],
        ["unsubscribed", *alone],
        ["not_present"],
        ["closed", *alone[:-1], "offline"],
        [],
    ]
