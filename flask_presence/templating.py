"""What the Jinja macros are made of: the client's settings and scripts, first states, users."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, request, url_for

from .errors import PresenceError
from .markup import OwnMarkup, face_of
from .settings import Settings
from .socketio_client import CDN_INTEGRITY, CDN_URL

log = logging.getLogger(__name__)

NAME = "flask_presence"
CLIENT_FILE = "vendor/socket.io.min.js"


def register(
    app: Flask,
    settings: Settings,
    *,
    socketio_path: str,
    state_of: Callable[[str], dict[str, Any] | None],
) -> None:
    """Serve the static files, and give the macros their globals."""
    app.register_blueprint(
        Blueprint(
            NAME,
            __name__,
            url_prefix=settings.url_prefix,
            static_folder="static",
            template_folder="templates",
        )
    )

    def client() -> dict[str, Any]:
        return {
            "settings": {
                "url": None,
                "path": request.root_path.rstrip("/") + socketio_path,
                "namespace": settings.namespace,
            },
            "scripts": [
                *_socketio_client(settings),
                _static("presence.js"),
                _static("elements.js"),
            ],
            "styles": [_static("presence.css")["src"]],
        }

    def state(name: str) -> dict[str, Any] | None:
        try:
            return state_of(name)
        except PresenceError as error:
            log.warning("A page was rendered without the presence of %s: %s", name, error)
        except Exception:
            log.exception("A page was rendered without the presence of %s", name)
        return None

    app.jinja_env.globals.update(
        flask_presence_client=client,
        flask_presence_state=state,
        flask_presence_face=face_of,
        flask_presence_markup=OwnMarkup,
    )


def _static(filename: str) -> dict[str, str | None]:
    return {"src": url_for(f"{NAME}.static", filename=filename), "integrity": None}


def _socketio_client(settings: Settings) -> list[dict[str, str | None]]:
    url = settings.socketio_client_url
    if url is False:
        return []
    if isinstance(url, str):
        return [{"src": url, "integrity": None}]
    if (Path(__file__).parent / "static" / CLIENT_FILE).exists():
        return [_static(CLIENT_FILE)]
    return [{"src": CDN_URL, "integrity": CDN_INTEGRITY}]
