"""Flask-Migrate makes the tables of presence with the app's own, and then has nothing to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from stores import TABLES

FORUM = """\
from flask import Flask
from flask_migrate import Migrate
from flask_presence import Presence
from flask_socketio import SocketIO
from flask_sqlalchemy import SQLAlchemy

app = Flask(__name__)
app.config.update(SQLALCHEMY_DATABASE_URI={url!r}, PRESENCE_BACKEND="sqlalchemy://")
db = SQLAlchemy(app)


class Topic(db.Model):
    id = db.Column(db.Integer, primary_key=True)


SocketIO(app, async_mode="threading")
Presence(app)
Migrate(app, db, compare_server_default=True)
"""

RunFlask = Callable[..., str]


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/app.sqlite3"
    url: str = request.getfixturevalue(request.param).new_database()
    return url


@pytest.fixture
def run_flask(tmp_path: Path, url: str) -> RunFlask:
    """Runs ``flask`` in the folder of an app on that database."""
    (tmp_path / "forum.py").write_text(FORUM.format(url=url))

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "flask", "--app", "forum", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout + done.stderr

    return run


def test_migrations_make_the_tables_once(run_flask: RunFlask, url: str, tmp_path: Path) -> None:
    run_flask("db", "init")
    run_flask("db", "migrate")
    run_flask("db", "upgrade")

    again = run_flask("db", "migrate")

    assert "No changes in schema detected" in again
    assert len(list((tmp_path / "migrations" / "versions").glob("*.py"))) == 1
    assert tables_in(url) == {"topic", "alembic_version", *TABLES}


def tables_in(url: str) -> set[str]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    return set(sa.inspect(engine).get_table_names())
