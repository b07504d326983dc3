"""The door for plain HTTP: states of channels for the request's user; nobody is kept alive."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from flask import Flask, Response, jsonify, request

from .errors import BadRequest, PresenceError
from .protocol import check_channel_names
from .settings import Settings

ENDPOINT = "flask_presence.state"


def register(
    app: Flask, settings: Settings, *, states_of: Callable[[Sequence[str]], dict[str, Any]]
) -> None:
    """Serve ``GET {PRESENCE_URL_PREFIX}/state?channel=/a/b&channel=/c/d``.

    :param states_of: the wire form of each channel for the request's user, ``None`` where there is
        none to be seen.
    """

    def state() -> Response:
        try:
            names = check_channel_names(request.args.getlist("channel"))
            response = jsonify(states=states_of(names))
        except BadRequest as error:
            response = _refusal(error, 400)
        except PresenceError as error:
            response = _refusal(error, 503)
            response.headers["Retry-After"] = str(math.ceil(error.retry_after or 1))
        response.headers["Cache-Control"] = "private, no-store"
        return response

    app.add_url_rule(f"{settings.url_prefix}/state", ENDPOINT, state)


def _refusal(error: PresenceError, status: int) -> Response:
    response = jsonify(error=error.code, message=error.for_clients)
    response.status_code = status
    return response
