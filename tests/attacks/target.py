"""The test app under watch, in a process of its own: ``python attacks/target.py PORT``.

It tells over HTTP what a visitor's words made it do, how much it keeps, and lets a test change who
may do what while somebody is present.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

CONFIG = json.loads(os.environ["TEST_CONFIG"])
if CONFIG.get("SOCKETIO", {}).get("async_mode") == "gevent":
    from gevent import monkey

    monkey.patch_all()

# ruff: noqa: E402 - gevent patches what is imported after it
sys.path.insert(0, str(Path(__file__).parent.parent))

import ctypes
import gc
import logging
import threading
import traceback
from collections.abc import Callable
from typing import Any

import statements
from flask import Flask, render_template_string, request
from server import TestUser, create_app, report, serve
from sqlalchemy import text

from flask_presence import ChannelConfig, Presence
from flask_presence.tracker import holdings

PAGE = """{% from "flask_presence/macros.html" import presence_client, presence_users %}
{{ presence_client() }}{{ presence_users(channel, max=100) }}"""


class Diary:
    """What the server did, in order: callbacks that it called and statements to the store."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done: list[str] = []
        self._thread = threading.local()

    def watch_loops(self, runtime: Any) -> None:
        """Tell what the loops ask of the store from what clients have asked for."""
        spawn = runtime.spawn

        def spawn_watched(target: Callable[[], None]) -> None:
            def run() -> None:
                self._thread.is_loop = True
                target()

            spawn(run)

        runtime.spawn = spawn_watched

    def note_store(self, statement: str) -> None:
        """Note a statement, or a script."""
        self.note(f"{'loop' if hasattr(self._thread, 'is_loop') else 'store'}: {statement}")

    def note(self, what: str) -> None:
        with self._lock:
            self._done.append(what)

    def take(self) -> list[str]:
        with self._lock:
            done, self._done = self._done, []
        return done


def watch_store(backend: Any, diary: Diary) -> None:
    """Note each statement to the database, or each script that Redis runs."""
    if hasattr(backend, "engine"):
        statements.listen(backend, diary.note_store)
        return
    send = backend.server._send

    def noted(script: str, words: tuple[Any, ...]) -> Any:
        diary.note_store(script)
        return send(script, words)

    backend.server._send = noted


def add_channels(presence: Presence, diary: Diary, configs: dict[str, Any]) -> None:
    """Channels that note who asks for them, and one kind whose config a test may change."""

    @presence.channel_config("/vault/<name>")
    def vault(name: str) -> ChannelConfig | None:
        diary.note("callback: vault")
        return None if name.startswith("missing") else ChannelConfig(allowed_group_ids=["staff"])

    @presence.channel_config("/turning/<name>")
    def turning(name: str) -> ChannelConfig | None:
        config = configs.get(name, {"public": True, "anonymous": True})
        return None if config is None else ChannelConfig(**config)


def add_identities(presence: Presence, diary: Diary, people: dict[str, Any]) -> None:
    """Who somebody is, as the app knows by now: groups may be taken away, and sessions end."""

    @presence.user_loader
    def load_user(auth: Any) -> TestUser | None:
        diary.note("callback: user_loader")
        if not isinstance(auth, dict) or not isinstance(auth.get("user"), str):
            return None
        if auth.get("raises"):
            raise RuntimeError("the loader was told to raise")
        known = people.get(auth["user"], {})
        return None if known is None else TestUser(auth | known)


def add_controls(app: Flask, presence: Presence, people: dict[str, Any], configs: Any) -> None:
    """What a test changes while the server runs."""

    @app.post("/people/<user>")
    def change_person(user: str) -> str:
        people[user] = request.get_json()
        if "reload" in request.args:
            presence.reload(user)
        return ""

    @app.post("/configs/<name>")
    def change_config(name: str) -> str:
        configs[name] = request.get_json()
        presence.forget_config(f"/turning/{name}")
        return ""

    @app.post("/forget")
    def forget() -> str:
        presence.forget_config(request.get_json()["channel"])
        return ""

    @app.get("/fail")
    def fail() -> str:
        """What is said where a statement of presence fails, with all that it was caused by."""
        engine = app.extensions["presence"].backend.engine
        try:
            with engine.begin() as connection:
                connection.execute(text("SELECT :value FROM nowhere"), request.args)
        except Exception:
            return traceback.format_exc()
        return ""

    @app.get("/page")
    def page() -> str:
        return render_template_string(PAGE, channel=request.args["channel"])


def add_instruments(app: Flask, diary: Diary) -> None:
    """What a test reads off."""

    @app.get("/done")
    def done() -> list[str]:
        return diary.take()

    @app.get("/spares")
    def spares() -> str:
        """Does this process end no leases, because the store was away just now?"""
        return json.dumps(app.extensions["presence"].backend.spares_leases)

    @app.get("/kept")
    def kept() -> dict[str, int]:
        gc.collect()
        # What was freed goes back to the system, as far as it can.
        ctypes.CDLL(None).malloc_trim(0)
        return sizes_of(app)


def sizes_of(app: Flask) -> dict[str, int]:
    """How much the process keeps: resident kilobytes, the blocks of memory that Python's objects
    take, threads, and items in its tables."""
    status = Path("/proc/self/status").read_text()
    tracker = app.extensions["presence"].tracker
    parts = tracker._parts
    return {
        "kilobytes": int(status.split("VmRSS:")[1].split()[0]),
        "blocks": sys.getallocatedblocks(),
        "threads": threading.active_count(),
        "clients": len(parts.clients.all()),
        "configs": len(parts.registry._cache),
        "audiences": len(parts.rooms._audiences),
        "watched": len(parts.feed._watched),
        "rooms": sum(map(len, app.extensions["socketio"].server.manager.rooms.values())),
    }


def main() -> None:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    holdings.RECONCILE_SECONDS = CONFIG.pop("RECONCILE_SECONDS", holdings.RECONCILE_SECONDS)
    app, presence = create_app(CONFIG)
    diary = Diary()
    people: dict[str, Any] = {}
    configs: dict[str, Any] = {}
    add_channels(presence, diary, configs)
    add_identities(presence, diary, people)
    add_controls(app, presence, people, configs)
    add_instruments(app, diary)
    watch_store(app.extensions["presence"].backend, diary)
    diary.watch_loops(app.extensions["presence"].tracker._runtime)
    report(app)
    serve(app, int(sys.argv[1]), on_port=lambda port: print(f"PORT {port}", flush=True))


if __name__ == "__main__":
    main()
