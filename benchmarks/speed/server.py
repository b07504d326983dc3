"""The server that is measured: presence, and beside it what the same app would do without.

``python -m benchmarks.speed.server``; its config comes as JSON in the environment variable
``SPEED_CONFIG``, and it prints the port that it listens on.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

# ruff: noqa: E402 - gevent patches what is imported after it
import gc
import json
import os
from typing import Any

from flask import Flask, request
from flask_socketio import SocketIO
from gevent.pywsgi import WSGIServer

from flask_presence import ChannelConfig, Presence
from flask_presence.tracker import connections

from . import sampler

CONFIG = json.loads(os.environ["SPEED_CONFIG"])


def main() -> None:
    # A measured heartbeat is a full one, however soon it comes after the last.
    connections.HEARTBEAT_SECONDS = 0.0
    app = Flask(__name__, instance_path=CONFIG["instance_path"])
    app.config.update(SECRET_KEY="speed", PRESENCE_RATE_LIMIT=None)
    app.config.update(CONFIG.get("settings", {}))
    socketio = SocketIO(app, async_mode="gevent")
    _add_bare(socketio)
    _add_list(socketio)
    if "PRESENCE_BACKEND" in app.config:
        _add_presence(app)
    _add_routes(app)
    server = WSGIServer(("127.0.0.1", 0), app, log=None)
    server.start()
    print(server.server_port, flush=True)
    server.serve_forever()


gone = {"gone": 0}


def _add_bare(socketio: SocketIO) -> None:
    """What everything is compared with: handlers that do nothing."""

    def nothing(payload: Any = None) -> None:
        pass

    def disconnect() -> None:
        gone["gone"] += 1

    socketio.on_event("nothing", nothing)
    socketio.on_event("disconnect", disconnect)


def _add_list(socketio: SocketIO) -> None:
    """Presence as it is rolled by hand: a dict, and the whole list to everybody."""
    waiting: dict[str, str] = {}
    names: dict[str, str] = {}

    def connect(auth: Any) -> None:
        waiting[_sid()] = auth["user"]

    def join() -> None:
        names[_sid()] = waiting.pop(_sid())
        socketio.emit("here", list(names.values()), namespace="/list")

    def disconnect() -> None:
        waiting.pop(_sid(), None)
        names.pop(_sid(), None)

    for handler in (connect, join, disconnect):
        socketio.on_event(handler.__name__, handler, namespace="/list")


def _sid() -> str:
    return str(request.sid)  # type: ignore[attr-defined]  # Flask-SocketIO sets it


def _add_presence(app: Flask) -> None:
    presence = Presence(app)

    @presence.user_loader
    def load_user(auth: Any) -> Any:
        return auth["user"] if auth else None

    @presence.user_info
    def info(user: Any) -> dict[str, Any]:
        return {"name": str(user)}

    @presence.channel_config("/room/<int:number>")
    def room(number: int) -> ChannelConfig:
        return ChannelConfig(public=True)


def _add_routes(app: Flask) -> None:
    @app.post("/collect")
    def collect() -> str:
        gc.collect()
        return ""

    @app.get("/gone")
    def read_gone() -> dict[str, int]:
        return gone

    @app.post("/sample")
    def sample() -> str:
        sampler.begin()
        return ""

    @app.get("/samples")
    def samples() -> list[Any]:
        return sampler.end()


if __name__ == "__main__":
    main()
