"""The tables as mapped classes, in an app's own queries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from server import TestUser as Person
from sqlalchemy import func, select

from flask_presence import ChannelConfig, Presence

MakeApp = Callable[..., tuple[Flask, Presence]]


@pytest.fixture
def app_with_users(tmp_path: Path) -> Any:
    app = Flask(__name__, instance_path=str(tmp_path))
    app.config |= {
        "SECRET_KEY": "test",
        "SQLALCHEMY_DATABASE_URI": "sqlite:///app.sqlite3",
        "PRESENCE_BACKEND": "sqlalchemy://",
    }
    db = SQLAlchemy(app)

    class User(db.Model):
        id = db.Column(db.String, primary_key=True)

    from flask_socketio import SocketIO

    SocketIO(app, async_mode="threading")
    presence = Presence(app)
    presence.channel_config("room")(lambda name: ChannelConfig(public=True))
    with app.app_context():
        db.create_all()
        db.session.add_all([User(id="ada"), User(id="bob")])
        db.session.commit()
        yield db, User, presence
    app.extensions["presence"].stop()


def test_an_app_joins_its_users_with_who_is_here(app_with_users: Any) -> None:
    db, user, presence = app_with_users
    presence.channel("/room/1").enter(Person({"user": "ada"}), client_id="a")
    member, channel = presence.models.Member, presence.models.Channel

    here = (
        select(user.id).join(member, member.user_id == user.id).where(member.channel == "/room/1")
    )
    counts = select(channel.name, channel.count)
    absent = select(func.count()).where(~select(member).where(member.user_id == user.id).exists())

    assert db.session.scalars(here).all() == ["ada"]
    assert db.session.execute(counts).all() == [("/room/1", 1)]
    assert db.session.scalar(absent.select_from(user)) == 1


def test_the_classes_are_made_once(app_with_users: Any) -> None:
    _, _, presence = app_with_users

    assert presence.models is presence.models


def test_other_stores_say_that_they_have_none(make_app: MakeApp) -> None:
    app, presence = make_app()

    with app.app_context(), pytest.raises(RuntimeError, match="PRESENCE_BACKEND to sqlalchemy://"):
        _ = presence.models
