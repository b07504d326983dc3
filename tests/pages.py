"""Pages of the test app in real Chromium, under the strictest policy that they can have."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from flask import Flask, Response, render_template_string, request
from playwright.sync_api import Browser, BrowserContext, Page
from wire import PATIENCE

from flask_presence import Presence

POLICY = (
    "default-src 'none'; script-src 'nonce-n0nce'; style-src 'nonce-n0nce'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
PAGE = """
{% from "flask_presence/macros.html" import presence_client, presence_count, presence_users %}
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>A page</title><link rel="icon" href="/dot.png">
{{ presence_client(nonce="n0nce") if client }}</head>
<body>BODY</body>
</html>
"""
DOT = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c63608060f80f0001040100a5b98d2a0000000049454e44ae426082"
)
WATCH = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) =>
    window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


def person(user_id: str, **info: Any) -> Any:
    return SimpleNamespace(id=user_id, info=info)


class Site:
    """The test app with pages; what their consoles complain of is kept."""

    def __init__(self, port: int, app: Flask, presence: Presence, browser: Browser) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.app = app
        self.presence = presence
        self.errors: list[str] = []
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self._pages: list[Page] = []
        self._body, self._client = "", True
        presence.user_loader(load_user)
        presence.user_info(lambda user: user.info)
        app.add_url_rule("/page", view_func=self._render)
        app.add_url_rule("/dot.png", view_func=lambda: Response(DOT, mimetype="image/png"))

    def _render(self) -> Response:
        page = render_template_string(PAGE.replace("BODY", self._body), client=self._client)
        return Response(page.lstrip(), headers={"Content-Security-Policy": POLICY})

    def show(
        self, body: str, *, user: Any = None, client: bool = True, script: bool = True
    ) -> Page:
        """Open a page whose body is that template, as that user.

        :param client: whether `presence_client` is in the page.
        :param script: whether the browser runs scripts.
        """
        self._body, self._client = body, client
        context = self._browser.new_context(java_script_enabled=script)
        context.set_default_timeout(PATIENCE * 1000)
        self._contexts.append(context)
        if user:
            cookie = json.dumps({"id": user.id, "info": user.info}).encode().hex()
            context.add_cookies([{"name": "user", "value": cookie, "url": self.url}])
        context.on("console", self._hear)
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        page = context.new_page()
        if script:
            page.add_init_script(WATCH)
            self._pages.append(page)
        page.goto(f"{self.url}/page")
        return page

    def live(self, body: str, **options: Any) -> Page:
        """The same, once every element of the page has heard from the server."""
        page = self.show(body, **options)
        page.evaluate(
            """async () => {
                const presence = FlaskPresence.connect();
                for (const element of document.querySelectorAll("[channel]"))
                    await presence.channel(element.getAttribute("channel")).subscribe();
            }"""
        )
        return page

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def enter(self, *users: Any, channel: str = "/room/1", meta: Any = None) -> None:
        with self.app.app_context():
            for user in users:
                self.presence.channel(channel).enter(user, client_id=user.id, meta=meta)

    def leave(self, *users: Any, channel: str = "/room/1") -> None:
        with self.app.app_context():
            for user in users:
                self.presence.channel(channel).leave(client_id=user.id)

    def close(self) -> list[str]:
        """Close the pages; gives what went wrong in them."""
        for page in self._pages:
            self.errors += page.evaluate("window.violations")
        for context in self._contexts:
            context.close()
        return self.errors


def load_user(auth: Any) -> Any:
    cookie = request.cookies.get("user")
    return SimpleNamespace(**json.loads(bytes.fromhex(cookie))) if cookie else None
