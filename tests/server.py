"""A small app with presence, and a real server process for it: ``python tests/server.py PORT``.

Its config comes as JSON in the environment variable ``TEST_CONFIG``. Everything that a client can
be told to be is in its ``auth``: ``{"user": "ada", "groups": ["staff"], "info": {...}}``.
"""

from __future__ import annotations

import json
import os

CONFIG = json.loads(os.environ["TEST_CONFIG"]) if __name__ == "__main__" else {}
if CONFIG.get("SOCKETIO", {}).get("async_mode") == "gevent":
    from gevent import monkey

    monkey.patch_all()

# ruff: noqa: E402 - gevent patches what is imported after it
import logging
import sys
import threading
from typing import Any

from flask import Flask, request
from flask_socketio import SocketIO

from flask_presence import BackendUnavailable, ChannelConfig, Presence, signals
from flask_presence.tracker import holdings


class TestUser:
    def __init__(self, auth: dict[str, Any]) -> None:
        self.id = auth["user"]
        self.info = auth.get("info", {})
        self.groups = auth.get("groups", [])


def create_app(config: dict[str, Any]) -> tuple[Flask, Presence]:
    """An app with one channel for each kind of config."""
    app = Flask(__name__, instance_path=config.pop("instance_path"))
    app.config.update(SECRET_KEY="test", **config)
    options = app.config.get("SOCKETIO", {})
    SocketIO(app, **({"async_mode": "threading"} | options))
    presence = Presence(app)

    @presence.user_loader
    def load_user(auth: Any) -> Any:
        if auth is None:
            auth = json.loads(request.headers.get("X-Auth", "null"))
        if not auth:
            return None
        if auth.get("raises"):
            raise RuntimeError("the loader was told to raise")
        return TestUser(auth)

    @presence.user_info
    def info(user: Any) -> Any:
        return user.info if isinstance(user, TestUser) else {"name": str(user)}

    @presence.user_groups
    def groups(user: Any) -> Any:
        return user.groups if isinstance(user, TestUser) else []

    @presence.channel_config("/room/<int:number>")
    def room(number: int) -> ChannelConfig:
        return ChannelConfig(public=True)

    @presence.channel_config("/mixed/<name>")
    def mixed(name: str) -> ChannelConfig:
        return ChannelConfig(public=True, anonymous=True)

    @presence.channel_config("/count/<name>")
    def count(name: str) -> ChannelConfig:
        return ChannelConfig(public=True, anonymous=True, count_only=True)

    @presence.channel_config("/staff/<name>")
    def staff(name: str) -> ChannelConfig:
        return ChannelConfig(allowed_group_ids=["staff"])

    @presence.channel_config("/small/<name>")
    def small(name: str) -> ChannelConfig:
        return ChannelConfig(public=True, max_users=2)

    @presence.channel_config("/server/<name>")
    def server_only(name: str) -> ChannelConfig:
        return ChannelConfig()

    @presence.channel_config("broken")
    def broken(name: str) -> Any:
        raise RuntimeError("the callback was told to raise")

    @presence.channel_config("invalid")
    def invalid(name: str) -> Any:
        return "no config"

    @app.post("/drain")
    def drain() -> tuple[str, int]:
        try:
            presence.drain()
        except BackendUnavailable:
            return "", 503
        return "", 204

    @app.post("/evict/<user_id>")
    def evict(user_id: str) -> tuple[str, int]:
        try:
            presence.evict(user_id)
        except BackendUnavailable:
            return "", 503
        return "", 204

    @app.post("/emit")
    def emit() -> str:
        body = request.get_json()
        presence.channel(body["channel"]).emit(body["event"], body["data"], to=body["to"])
        return ""

    return app, presence


def serve(app: Flask, port: int, on_port: Any = lambda port: None) -> None:
    """Serve for ever, in the way of the app's async mode."""
    socketio = app.extensions["socketio"]
    if socketio.async_mode == "gevent":
        from gevent.pywsgi import WSGIServer

        server = WSGIServer(("127.0.0.1", port), app, log=None)
        server.start()
        on_port(server.server_port)
        server.serve_forever()
    else:
        from werkzeug.serving import make_server

        werkzeug = make_server("127.0.0.1", port, app, threaded=True)
        on_port(werkzeug.server_port)
        werkzeug.serve_forever()


def report(app: Flask) -> None:
    """Print each signal as one line of JSON, so that a test can count them."""
    lock = threading.Lock()

    def changed(sender: Flask, channel: str, change: Any) -> None:
        line = {
            "kind": change.kind,
            "channel": channel,
            "user_id": change.user_id,
            "revision": change.revision,
            "epoch": change.epoch,
            "reason": change.reason,
            "info": change.info,
            "meta": change.meta,
            "count": change.count,
            "anonymous": change.anonymous,
        }
        with lock:
            print("SIGNAL " + json.dumps(line), flush=True)

    signals.presence_changed.connect(changed, sender=app, weak=False)


def count_statements(app: Flask) -> None:
    """Count what the store is asked, to be read at ``/statements``."""
    import statements

    sent: list[str] = []
    lock = threading.Lock()

    def count(statement: str) -> None:
        with lock:
            sent.append(statement)

    statements.listen(app.extensions["presence"].backend, count)

    @app.get("/statements")
    def read_statements() -> list[str]:
        with lock:
            found = list(sent)
            sent.clear()
        return found


def main() -> None:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    # A reconcile is due once a minute, and no test waits so long.
    holdings.RECONCILE_SECONDS = CONFIG.pop("RECONCILE_SECONDS", holdings.RECONCILE_SECONDS)
    app, _ = create_app(CONFIG)
    report(app)
    if app.config.get("COUNT_STATEMENTS"):
        count_statements(app)
    serve(app, int(sys.argv[1]), on_port=lambda port: print(f"PORT {port}", flush=True))


if __name__ == "__main__":
    main()
