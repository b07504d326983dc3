"""The app that code in the documentation speaks of: a forum with users and topics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flask import Flask, abort, current_app
from flask_login import LoginManager, UserMixin, current_user, login_user
from flask_socketio import SocketIO
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_presence import ChannelConfig, Presence


class Forum:
    """An app of its own, with what its code may name in ``names``."""

    def __init__(self, folder: Path) -> None:
        class Base(DeclarativeBase):
            pass

        app = Flask("forum", instance_path=str(folder / "forum"))
        app.config.update(
            SECRET_KEY="forum",
            SQLALCHEMY_DATABASE_URI="sqlite:///forum.sqlite3",
            PRESENCE_BACKEND="sqlalchemy://",
        )
        db = SQLAlchemy(app, model_class=Base)

        class User(db.Model, UserMixin):  # type: ignore[name-defined,misc]
            id: Mapped[int] = mapped_column(primary_key=True)
            name: Mapped[str]
            avatar_url = "/avatar.svg"
            group_ids = ("staff",)

            @staticmethod
            def from_token(token: str | None) -> Any:
                return None

        class Topic(db.Model):  # type: ignore[name-defined,misc]
            id: Mapped[int] = mapped_column(primary_key=True)
            group_ids = ("staff",)

        socketio = SocketIO(app, async_mode="threading")
        presence = Presence(app)
        LoginManager(app).user_loader(lambda user_id: db.session.get(User, int(user_id)))
        presence.user_info(lambda user: {"name": user.name})
        presence.user_groups(lambda user: user.group_ids)
        # Pages that bring a rule or a prefix of their own for these go before or beside them.
        for rule in ("page", "room", "topic", "/site/<name>"):
            presence.channel_config(rule)(lambda *_, **__: ChannelConfig(public=True))

        self.app, self.db, self.user, self.topic = app, db, User(id=7, name="Ada"), Topic(id=42)
        self.names: dict[str, Any] = {
            "__name__": "forum",
            "ChannelConfig": ChannelConfig,
            "Presence": Presence,
            "SocketIO": SocketIO,
            "Topic": Topic,
            "User": User,
            "abort": abort,
            "app": app,
            "current_app": current_app,
            "current_user": current_user,
            "db": db,
            "presence": presence,
            "select": select,
            "socketio": socketio,
        }

    @contextmanager
    def request(self) -> Iterator[None]:
        """A request by a user of the forum, with a topic in the database."""
        with self.app.test_request_context():
            self.db.create_all()
            self.db.session.add_all([self.user, self.topic])
            self.db.session.commit()
            login_user(self.user)
            self.names |= {"user": self.user, "topic": self.topic, "csp_nonce": "nonce"}
            yield

    def stop(self) -> None:
        with self.app.app_context():
            self.db.engine.dispose()
        self.app.extensions["presence"].stop()
