"""The recipes do what they say, in real Chromium windows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docs_pages import blocks
from playwright.sync_api import Browser, Page, expect, sync_playwright
from processes import require
from werkzeug.serving import make_server
from wire import PATIENCE

from flask_presence.settings import Settings

GRACE = Settings().leave_grace
RECIPES = {block.section: block.text for block in blocks("docs/recipes.md", "python")}

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=require("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield chromium
        chromium.close()


@pytest.fixture
def serve_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Serves a recipe from a thread; gives its address."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLASK_RUN_FROM_CLI", "true")
    servers: list[Any] = []

    def start(recipe: str) -> str:
        names: dict[str, Any] = {"__name__": "app"}
        exec(compile(RECIPES[recipe], f"docs/recipes.md: {recipe}", "exec"), names)
        server = make_server("127.0.0.1", 0, names["app"], threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.app.extensions["presence"].stop()


@pytest.fixture
def open_as(browser: Browser) -> Iterator[Open]:
    """Opens a recipe in a window of somebody's own; fails where its console shows an error."""
    pages: list[Page] = []
    errors: list[str] = []

    def open_page(address: str, name: str) -> Page:
        context = browser.new_context()
        context.set_default_timeout(PATIENCE * 1000)
        context.on("weberror", lambda error: errors.append(str(error.error)))
        page = context.new_page()
        page.goto(f"{address}/as/{name}")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.context.close()
    assert errors == []


def names_on(page: Page) -> Any:
    return page.locator(".presence-name")


def test_every_recipe_is_tested() -> None:
    assert set(RECIPES) == {
        "Who is viewing",
        "A typing indicator",
        "Online friends",
        "One editor at a time",
        "Kick",
        "Only while active",
    }


def test_a_page_shows_those_who_view_the_same_page(
    serve_recipe: Callable[..., str], open_as: Open
) -> None:
    address = serve_recipe("Who is viewing")

    ada = open_as(address, "ada")
    expect(names_on(ada)).to_have_text(["ada"])
    bob = open_as(address, "bob")
    expect(names_on(ada)).to_have_text(["ada", "bob"])
    bob.goto(f"{address}/help/start")

    expect(names_on(bob)).to_have_text(["bob"])
    expect(names_on(ada)).to_have_text(["ada"], timeout=(GRACE + PATIENCE) * 1000)


def test_who_types_is_shown_typing_until_they_stop(
    serve_recipe: Callable[..., str], open_as: Open
) -> None:
    address = serve_recipe("A typing indicator")
    ada, bob = open_as(address, "ada"), open_as(address, "bob")

    bob.locator("#text").press_sequentially("hello")

    expect(ada.locator("#typing")).to_have_text("Bob typing…")
    expect(bob.locator("#typing")).to_have_text("")
    expect(ada.locator("#typing")).to_have_text("")


def test_friends_are_shown_online_and_only_to_friends(
    serve_recipe: Callable[..., str], open_as: Open
) -> None:
    address = serve_recipe("Online friends")
    ada = open_as(address, "ada")
    of_bob = ada.locator("li", has_text="bob").locator("presence-count")
    expect(of_bob).to_have_attribute("data-count", "0")

    bob = open_as(address, "bob")

    expect(of_bob).to_have_attribute("data-count", "1")
    expect(bob.locator("li presence-count")).to_have_attribute("data-count", "1")
    eve = open_as(address, "eve")
    state = eve.request.get(f"{address}/presence/state?channel=/online/bob").json()
    assert state == {"states": {"/online/bob": None}}


def test_the_second_editor_gets_the_turn_when_the_first_one_leaves(
    serve_recipe: Callable[..., str], open_as: Open
) -> None:
    address = serve_recipe("One editor at a time")
    ada = open_as(address, "ada")
    expect(ada.locator("#who")).to_have_text("You are editing.")
    bob = open_as(address, "bob")
    expect(bob.locator("#who")).to_have_text("Ada is editing.")
    expect(bob.locator("button")).to_be_disabled()
    refused = bob.request.post(f"{address}/document/1", form={"text": "Mine!"})
    assert refused.status == 409

    ada.close()

    expect(bob.locator("#who")).to_have_text("You are editing.", timeout=(GRACE + PATIENCE) * 1000)
    bob.locator("textarea").fill("Dear Ada,")
    bob.locator("button").click()
    expect(bob.locator("textarea")).to_have_text("Dear Ada,")


def test_who_is_kicked_is_out_is_told_and_stays_out(
    serve_recipe: Callable[..., str], open_as: Open
) -> None:
    address = serve_recipe("Kick")
    ada = open_as(address, "ada")
    expect(names_on(ada)).to_have_text(["ada"])
    bob = open_as(address, "bob")
    expect(names_on(ada)).to_have_text(["ada", "bob"])

    ada.locator("button").click()

    expect(bob.locator("#notice")).to_have_text("You were asked to leave.")
    expect(names_on(ada)).to_have_text(["ada"])
    bob.reload()
    expect(bob.locator("presence-users")).to_have_count(0)
    expect(names_on(ada)).to_have_text(["ada"])


def test_who_looks_away_is_not_there_and_goes_on_watching(
    serve_recipe: Callable[..., str], open_as: Open
) -> None:
    address = serve_recipe("Only while active")
    ada = open_as(address, "ada")
    expect(names_on(ada)).to_have_text(["ada"])
    bob = open_as(address, "bob")
    expect(names_on(ada)).to_have_text(["ada", "bob"])

    hide(bob, hidden=True)
    expect(names_on(ada)).to_have_text(["ada"])
    expect(names_on(bob)).to_have_text(["ada"])

    hide(bob, hidden=False)
    expect(names_on(ada)).to_have_text(["ada", "bob"])


def hide(page: Page, *, hidden: bool) -> None:
    """Tell a page what a browser tells it whose tab goes to the background, or comes back."""
    page.evaluate(
        """hidden => {
            Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


def test_who_touches_nothing_for_a_minute_is_not_there_until_they_do(
    serve_recipe: Callable[..., str], open_as: Open
) -> None:
    address = serve_recipe("Only while active")
    ada = open_as(address, "ada")
    expect(names_on(ada)).to_have_text(["ada"])
    bob = open_as(address, "bob")
    expect(names_on(ada)).to_have_text(["ada", "bob"])

    # With nothing under way, whose time would be over a minute later too.
    bob.wait_for_function("FlaskPresence.connect().channel('/room/lobby').present")
    bob.clock.install()
    bob.keyboard.press("Shift")
    bob.clock.fast_forward(61_000)
    expect(names_on(ada)).to_have_text(["ada"])

    bob.keyboard.press("Shift")
    expect(names_on(ada)).to_have_text(["ada", "bob"])
