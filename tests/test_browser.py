"""The example app in real Chromium windows, against a real server process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, Page, expect
from processes import free_port
from wire import PATIENCE, eventually

GRACE = 5
FACE = "presence-users .presence-user"


class Example:
    """The example app in a process of its own, with its data in one folder."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._env = os.environ | {
            "EXAMPLE_INSTANCE_PATH": str(folder),
            "PORT": str(self.port),
        }
        self._log = (folder.parent / "example.log").open("ab")
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "example_app"],
            env=self._env,
            cwd=Path(__file__).parent.parent,
            stdout=self._log,
            stderr=self._log,
        )
        eventually(self._answers, PATIENCE * 2)

    def _answers(self) -> bool:
        try:
            return requests.get(self.url, timeout=1).ok
        except requests.ConnectionError:
            return False

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)

    def stop(self) -> None:
        self.kill()
        self._log.close()


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Example]:
    server = Example(tmp_path / "instance")
    yield server
    server.stop()


@pytest.fixture
def sign_in(browser: Browser, example: Example) -> Iterator[Callable[[str], BrowserContext]]:
    """Opens a browser of somebody's own, signed in; fails where its console shows an error."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def open_as(name: str) -> BrowserContext:
        context = browser.new_context()
        context.set_default_timeout(PATIENCE * 1000)
        context.on("weberror", lambda error: errors.append(str(error.error)))
        contexts.append(context)
        # Without a page: one that is closed while it navigates may never be.
        assert context.request.post(f"{example.url}/sign-in", form={"name": name}).ok
        return context

    yield open_as
    for context in contexts:
        context.close()
    assert errors == []


def read_topic(context: BrowserContext, example: Example) -> Page:
    page = context.new_page()
    page.goto(f"{example.url}/topic/1")
    return page


def faces(page: Page) -> list[str]:
    names: list[str] = page.locator(f"main {FACE}").evaluate_all(
        "faces => faces.map(face => face.textContent.trim() || face.title)"
    )
    return names


def log_people(page: Page) -> None:
    """Have the page write down who comes and goes, and how the count of those online moves."""
    page.evaluate(
        """() => {
            window.people = [];
            const presence = FlaskPresence.connect();
            const topic = presence.channel("/topic/1");
            for (const event of ["enter", "leave"])
                topic.on(event, (user) => window.people.push([event, user.info.name]));
            window.online = [];
            const site = presence.channel("/site/online");
            site.on("change", () => window.online.push(site.count));
            window.topic = topic;
            return Promise.all([topic.subscribe(), site.subscribe()])
                .then(() => { window.people.length = 0; window.online.length = 0; });
        }"""
    )


def is_status(page: Page, status: str) -> None:
    # Asked by the debugger: the page's policy lets no test evaluate strings in it.
    eventually(lambda: page.evaluate("FlaskPresence.connect().status") == status)


def sees(page: Page, name: str, there: bool = True) -> None:
    person = page.locator(f"main {FACE}").filter(has_text=name)
    expect(person).to_have_count(1 if there else 0, timeout=(GRACE + 2) * 1000)


def test_two_windows_see_each_other_come_and_go(
    sign_in: Callable[[str], BrowserContext], example: Example
) -> None:
    ada, bob = sign_in("Ada"), sign_in("Bob")
    watching = read_topic(ada, example)
    sees(watching, "Ada")
    log_people(watching)

    reading = read_topic(bob, example)
    sees(watching, "Bob")
    sees(reading, "Ada")
    assert watching.evaluate("window.people") == [["enter", "Bob"]]

    # A reload, and a walk through three pages and back, are nothing to the others.
    watching.evaluate("window.people.length = 0; window.online.length = 0")
    reading.reload()
    sees(reading, "Ada")
    for path in ("/", "/guests", "/topic/2", "/topic/1"):
        reading.goto(example.url + path)
        is_status(reading, "live")
    sees(reading, "Bob")
    reading.wait_for_timeout((GRACE + 1) * 1000)
    assert watching.evaluate("window.people") == []
    assert set(watching.evaluate("window.online")) <= {2}

    # One of two tabs.
    second = read_topic(bob, example)
    sees(second, "Bob")
    second.close()
    watching.wait_for_timeout((GRACE + 1) * 1000)
    assert watching.evaluate("window.people") == []

    # The last one.
    reading.close()
    closed = time.monotonic()
    sees(watching, "Bob", there=False)
    assert time.monotonic() - closed < GRACE + 2
    assert watching.evaluate("window.people") == [["leave", "Bob"]]


def test_after_the_server_was_killed_everyone_is_back_without_a_reload(
    sign_in: Callable[[str], BrowserContext], example: Example
) -> None:
    pages = [read_topic(sign_in(name), example) for name in ("Ada", "Bob")]
    for page in pages:
        sees(page, "Ada")
        sees(page, "Bob")
        page.evaluate("window.sameDocument = true")

    example.kill()
    for page in pages:
        is_status(page, "offline")
    example.start()
    for page in pages:
        is_status(page, "live")

    carol = read_topic(sign_in("Carol"), example)
    for page in [*pages, carol]:
        for name in ("Ada", "Bob", "Carol"):
            sees(page, name)
    assert all(page.evaluate("window.sameDocument") for page in pages)


def test_who_types_is_shown_replying(
    sign_in: Callable[[str], BrowserContext], example: Example
) -> None:
    watching = read_topic(sign_in("Ada"), example)
    typing = read_topic(sign_in("Bob"), example)
    sees(watching, "Bob")

    typing.locator(".reply textarea").press_sequentially("Hello")

    expect(watching.locator(".replying")).to_have_text("Bob is replying…")
    typing.locator(".reply button").click()
    expect(watching.locator(".replying")).to_have_text("")


def test_hostile_names_are_only_text(
    sign_in: Callable[[str], BrowserContext], example: Example
) -> None:
    names = ['"><b>x</b>', "__proto__", "مرحبا"]

    pages = [read_topic(sign_in(name), example) for name in names]

    for page in pages:
        for name in names:
            sees(page, name)
        assert page.locator("presence-users b").count() == 0


def test_the_page_shows_who_is_there_before_any_script_runs(
    sign_in: Callable[[str], BrowserContext], browser: Browser, example: Example
) -> None:
    sees(read_topic(sign_in("Ada"), example), "Ada")

    context = browser.new_context(java_script_enabled=False)
    page: Any = context.new_page()
    page.goto(f"{example.url}/topic/1")

    sees(page, "Ada")
    context.close()
