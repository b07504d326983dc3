"""A small discussion board that shows who is here: the app to copy from."""

# Flask-Login ships no types.
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Flask, Response, g
from flask_login import LoginManager
from flask_socketio import SocketIO

from .channels import presence
from .models import User, db, first_start
from .views import ago, views

socketio = SocketIO()
login = LoginManager()
login.login_view = "views.sign_in"
login.login_message = None

POLICY = (
    "default-src 'self'; script-src 'self' 'nonce-{nonce}'; connect-src 'self' ws: wss:; "
    "img-src 'self' data:; style-src 'self'"
)


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """An app from EXAMPLE_… variables (EXAMPLE_DATABASE is DATABASE) and, above them, `config`."""
    config = dict(config or {})
    instance = config.get("INSTANCE_PATH") or os.environ.get("EXAMPLE_INSTANCE_PATH")
    app = Flask(__name__, instance_path=instance and os.path.abspath(instance))
    app.config.from_prefixed_env("EXAMPLE")
    if "PRESENCE_BACKEND" in os.environ:
        app.config["PRESENCE_BACKEND"] = os.environ["PRESENCE_BACKEND"]
    app.config.update(config)
    database = app.config.get("DATABASE", "sqlite:///example.sqlite3")
    app.config.setdefault("SQLALCHEMY_DATABASE_URI", database)
    app.config["SECRET_KEY"] = app.config["SECRET_KEY"] or secret_key(Path(app.instance_path))
    # No CSRF tokens: all that changes anything is a POST, and a Lax cookie stays at home when
    # another site makes the browser send one.
    app.config["SESSION_COOKIE_SAMESITE"] = "Lax"

    db.init_app(app)
    login.init_app(app)
    socketio.init_app(
        app,
        async_mode="threading",
        message_queue=app.config.get("MESSAGE_QUEUE"),
        transports=app.config.get("TRANSPORTS"),
    )
    presence.init_app(app)
    app.register_blueprint(views)
    app.add_template_filter(ago)
    app.before_request(make_nonce)
    app.after_request(send_policy)
    with app.app_context():
        first_start()
    return app


@login.user_loader
def load_user(user_id: str) -> User | None:
    return db.session.get(User, int(user_id))


def secret_key(folder: Path) -> str:
    """Made once and kept, so that sessions outlive the server."""
    if "SECRET_KEY" in os.environ:
        return os.environ["SECRET_KEY"]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "secret_key"
    try:
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(secrets.token_hex())
    except FileExistsError:
        pass
    return path.read_text()


def make_nonce() -> None:
    g.csp_nonce = secrets.token_urlsafe(16)


def send_policy(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = POLICY.format(nonce=g.csp_nonce)
    return response
