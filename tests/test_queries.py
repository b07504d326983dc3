"""Who is here, and who was last here when, in an app's own queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple
from uuid import UUID

import pytest
import sqlalchemy as sa
from flask import Flask
from flask_socketio import SocketIO
from flask_sqlalchemy import SQLAlchemy
from server import TestUser as Person
from sqlalchemy import func, select
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import aliased

from flask_presence import ChannelConfig, Presence
from flask_presence.model import Member

ONE = UUID("0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d")
TWO = UUID("11111111-2222-4333-8444-555555555555")
CASELESS = {"sqlite": "NOCASE", "postgresql": "und-x-icu", "mysql": "latin1_swedish_ci"}

MakeApp = Callable[..., tuple[Flask, Presence]]


class Forum(NamedTuple):
    """An app whose presence is in its own database."""

    app: Flask
    db: SQLAlchemy
    presence: Presence
    user: Any

    def enter(self, user_id: Any, channel: str = "/room/1", **options: Any) -> None:
        backend = self.app.extensions["presence"].backend
        member = Member(channel, f"client of {user_id} in {channel}", str(user_id))
        backend.enter(member, epoch="e", **({"timeout": 60} | options))

    def leave(self, user_id: Any, channel: str = "/room/1") -> None:
        backend = self.app.extensions["presence"].backend
        backend.leave(channel, [f"client of {user_id} in {channel}"])

    def add(self, model: Any, *ids: Any) -> None:
        self.db.session.add_all([model(id=user_id) for user_id in ids])
        self.db.session.commit()

    def present(self, model: Any, **where: Any) -> list[Any]:
        query = select(model.id).where(self.presence.is_present(model.id, **where))
        return list(self.db.session.scalars(query.order_by(model.id)))

    def last_seen(self, user_id: Any) -> datetime | None:
        moment = self.presence.last_seen_at(self.user.id)
        found: datetime | None = self.db.session.scalar(
            select(moment).where(self.user.id == user_id)
        )
        return found

    def change(self, table: str, **values: Any) -> None:
        """Change all rows of one of the tables of presence."""
        tables = self.app.extensions["presence"].backend.tables
        self.db.session.execute(sa.update(getattr(tables, table)).values(values))
        self.db.session.commit()


def make_forum(url: str, instance: Any, **config: Any) -> tuple[Flask, SQLAlchemy, Presence]:
    app = Flask(__name__, instance_path=str(instance))
    app.config |= {
        "SECRET_KEY": "test",
        "SQLALCHEMY_DATABASE_URI": url,
        "PRESENCE_BACKEND": "sqlalchemy://",
    } | config
    db = SQLAlchemy(app)
    SocketIO(app, async_mode="threading")
    return app, db, Presence(app)


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def forum(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Forum]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/app.sqlite3"
    else:
        url = request.getfixturevalue(request.param).new_database()
    app, db, presence = make_forum(url, tmp_path)

    class User(db.Model):
        id = db.Column(db.Integer, primary_key=True)

    with app.app_context():
        db.create_all()
        forum = Forum(app, db, presence, User)
        forum.add(User, 1, 2, 3)
        yield forum
        db.session.remove()
        db.engine.dispose()
    app.extensions["presence"].stop()


# is_present


def test_a_query_finds_who_is_here(forum: Forum) -> None:
    forum.enter(1)
    forum.enter(2)
    forum.enter(20)
    forum.leave(2)

    absent = select(forum.user.id).where(~forum.presence.is_present(forum.user.id))
    each = select(forum.user.id, forum.presence.is_present(forum.user.id))

    assert forum.present(forum.user) == [1]
    assert sorted(forum.db.session.scalars(absent)) == [2, 3]
    assert dict(forum.db.session.execute(each).all()) == {1: True, 2: False, 3: False}


def test_a_query_finds_who_is_in_one_channel_or_below_a_prefix(forum: Forum) -> None:
    forum.enter(1, "/room/1")
    forum.enter(2, "/Room/1")
    forum.enter(3, "/room0/1")

    assert forum.present(forum.user, channel="/room/1") == [1]
    assert forum.present(forum.user, channel="/room/2") == []
    assert forum.present(forum.user, prefix="room") == [1]
    assert forum.present(forum.user, prefix="Room") == [2]
    assert forum.present(forum.user, prefix="roo") == []
    assert forum.present(forum.user) == [1, 2, 3]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"lease": 1}, id="ran out"),
        pytest.param({"status": "lost"}, id="ended"),
        pytest.param({"status": "drained", "lease": 1}, id="drained long ago"),
        pytest.param({"id": "another"}, id="unknown"),
    ],
)
def test_a_query_shows_nobody_whose_worker_is_gone(forum: Forum, change: dict[str, Any]) -> None:
    forum.app.extensions["presence"].backend.renew("w1", 60, create=True)
    forum.enter(1, worker="w1", timeout=None)
    forum.enter(2)
    before = forum.present(forum.user)
    forum.change("workers", status="drained")
    drained = forum.present(forum.user)

    forum.change("workers", **({"status": "alive"} | change))

    assert before == drained == [1, 2]
    assert forum.present(forum.user) == [2]


def test_a_query_shows_nobody_whose_deadline_ran_out(forum: Forum) -> None:
    forum.enter(1)
    forum.change("members", deadline=1)
    forum.enter(2)

    assert forum.present(forum.user) == [2]


def test_a_query_need_not_name_the_users_otherwise(forum: Forum) -> None:
    forum.enter(1)
    forum.enter(2)
    forum.enter(20)
    presence, user = forum.presence, forum.user
    other = aliased(user)

    counted = forum.db.session.scalar(select(func.count()).where(presence.is_present(user.id)))
    moments = forum.db.session.scalars(select(presence.last_seen_at(user.id))).all()
    pairs = (
        select(user.id, other.id)
        .join(other, other.id != user.id)
        .where(presence.is_present(user.id), ~presence.is_present(other.id))
    )

    assert counted == 2
    assert [moment is None for moment in moments].count(True) == 1
    assert set(forum.db.session.execute(pairs).all()) == {(1, 3), (2, 3)}


def test_a_query_may_join_the_members_too(forum: Forum) -> None:
    forum.enter(1, "/room/1")
    forum.enter(2, "/room/2")
    member = forum.presence.models.Member

    query = (
        select(forum.user.id)
        .join(member, member.user_id == sa.cast(forum.user.id, sa.String(255)))
        .where(member.channel == "/room/2", forum.presence.is_present(forum.user.id))
    )
    if forum.db.engine.dialect.name == "mysql":
        text = func.convert(forum.user.id.op("USING")(sa.literal_column("utf8mb4")))
        query = select(forum.user.id).join(
            member, member.user_id == sa.collate(sa.type_coerce(text, sa.String), "utf8mb4_bin")
        )
        query = query.where(member.channel == "/room/2", forum.presence.is_present(forum.user.id))

    assert forum.db.session.scalars(query).all() == [2]


# The ids of users


def caseless(db: SQLAlchemy) -> sa.String:
    return sa.String(200, collation=CASELESS[db.engine.dialect.name])


@pytest.mark.parametrize(
    ("make_type", "here", "away"),
    [
        pytest.param(lambda db: sa.Integer(), [7, -7], [70, 77], id="integer"),
        pytest.param(lambda db: sa.BigInteger(), [2**62], [2**62 + 1], id="big integer"),
        pytest.param(lambda db: sa.SmallInteger(), [0], [1], id="small integer"),
        pytest.param(lambda db: sa.String(200), ["ann", "a'b\\%_"], ["ann b", "nn"], id="string"),
        pytest.param(
            lambda db: sa.String(200).with_variant(
                mysql.VARCHAR(200, charset="utf8mb4"), "mysql", "mariadb"
            ),
            ["é😀"],
            ["x"],
            id="any string",
        ),
        pytest.param(lambda db: sa.String(200), ["7", "1"], ["07", "1.0"], id="string of digits"),
        pytest.param(lambda db: sa.Unicode(200), ["ß"], ["s"], id="unicode"),
        pytest.param(lambda db: sa.CHAR(36), [str(ONE)], [str(TWO)], id="char"),
        pytest.param(caseless, ["ann"], ["bob"], id="caseless"),
        pytest.param(lambda db: sa.Uuid(), [ONE], [TWO], id="uuid"),
        pytest.param(lambda db: sa.Uuid(native_uuid=False), [ONE], [TWO], id="uuid as digits"),
        pytest.param(lambda db: sa.Uuid(as_uuid=False), [str(ONE)], [str(TWO)], id="uuid as text"),
    ],
)
def test_a_query_finds_users_by_whatever_id(
    forum: Forum, make_type: Callable[[SQLAlchemy], Any], here: list[Any], away: list[Any]
) -> None:
    class Person(forum.db.Model):
        id = forum.db.Column(make_type(forum.db), primary_key=True, autoincrement=False)

    forum.db.create_all()
    forum.add(Person, *here, *away)
    for user_id in here:
        forum.enter(user_id)
    moment = forum.presence.last_seen_at(Person.id)

    assert forum.present(Person) == sorted(here)
    assert set(forum.db.session.scalars(select(Person.id).where(moment.is_(None)))) == set(away)


def test_ids_compare_as_bytes_in_queries_too(forum: Forum) -> None:
    class Person(forum.db.Model):
        number = forum.db.Column(sa.Integer, primary_key=True)
        id = forum.db.Column(caseless(forum.db))

    forum.db.create_all()
    forum.add(Person, "ann", "ANN", "Ann", None)
    forum.enter("Ann")
    forum.enter("ANN")

    assert sorted(forum.present(Person)) == ["ANN", "Ann"]


@pytest.mark.parametrize(
    "column",
    [
        pytest.param(sa.Column("id", sa.LargeBinary), id="binary"),
        pytest.param(sa.Column("id", sa.Enum("a", "b")), id="enum"),
        pytest.param(sa.Column("id", sa.Numeric), id="numeric"),
        pytest.param(sa.Column("id", sa.PickleType), id="decorated"),
        pytest.param("7", id="no column"),
    ],
)
@pytest.mark.parametrize("forum", ["sqlite"], indirect=True)
def test_an_id_whose_text_is_not_known_is_refused(forum: Forum, column: Any) -> None:
    with pytest.raises(TypeError, match=r"Integer, String or Uuid, or an .*cast\(User.id, String"):
        forum.presence.is_present(column)
    with pytest.raises(TypeError, match="cannot tell that of"):
        forum.presence.last_seen_at(column)


# last_seen_at


def test_a_query_tells_who_was_last_seen_when(forum: Forum) -> None:
    forum.enter(1)
    forum.enter(2)
    forum.leave(2)
    forum.change("seen", at=1_700_000_000_123)
    moment = forum.presence.last_seen_at(forum.user.id)
    session = forum.db.session

    found = dict(session.execute(select(forum.user.id, moment)).all())
    order = session.scalars(select(forum.user.id).order_by(moment.is_(None), moment.desc())).all()
    then = datetime(2023, 11, 14, 22, 13, 20, 123_000, timezone.utc)
    since = session.scalars(select(forum.user.id).where(moment >= then)).all()
    after = session.scalars(select(forum.user.id).where(moment > then)).all()

    assert found[2] == then == forum.presence.last_seen([2])["2"]
    assert found[3] is None
    assert timedelta(0) <= datetime.now(timezone.utc) - found[1] < timedelta(minutes=1)
    assert order == [1, 2, 3]
    assert (sorted(since), after) == ([1, 2], [1])


def test_who_is_due_was_last_seen_when_that_began(forum: Forum) -> None:
    forum.app.extensions["presence"].backend.renew("w1", 60, create=True)
    forum.enter(1, worker="w1", timeout=None)
    forum.enter(2)
    forum.change("workers", lease=1_700_000_000_000)
    forum.change("members", deadline=sa.case((sa.column("worker").is_(None), 1_600_000_000_000)))

    found = {number: forum.last_seen(number) for number in (1, 2)}

    assert found[1] == datetime.fromtimestamp(1_700_000_000, timezone.utc)
    assert found[2] == datetime.fromtimestamp(1_600_000_000, timezone.utc)
    assert forum.presence.last_seen([1, 2]) == {"1": found[1], "2": found[2]}


def test_a_moment_without_a_time_zone_is_refused(forum: Forum) -> None:
    query = select(forum.user).where(
        forum.presence.last_seen_at(forum.user.id) > datetime(2026, 1, 1)
    )

    with pytest.raises(sa.exc.StatementError, match="has no time zone"):
        forum.db.session.execute(query)


@pytest.mark.parametrize("forum", ["sqlite"], indirect=True)
def test_an_index_leads_from_a_user_to_presence(forum: Forum) -> None:
    here = forum.presence.is_present(forum.user.id)
    moment = forum.presence.last_seen_at(forum.user.id)
    query = select(forum.user.id).where(here).order_by(moment)
    text = query.compile(forum.db.engine, compile_kwargs={"literal_binds": True})

    plan = forum.db.session.execute(sa.text(f"EXPLAIN QUERY PLAN {text}")).all()

    ways = [row.detail for row in plan if "presence_members" in row.detail]
    assert len(ways) == 2
    assert all(way.startswith("SEARCH") and "members_user (user_id=?)" in way for way in ways)


# Where no query can ask


def test_an_empty_or_double_question_is_refused(make_app: MakeApp) -> None:
    app, presence = make_app()

    with app.app_context():
        with pytest.raises(ValueError, match="a channel or a prefix, not both"):
            presence.is_present(sa.column("id"), channel="/room/1", prefix="room")
        with pytest.raises(ValueError, match="no channel name"):
            presence.is_present(sa.column("id"), channel="room")
        with pytest.raises(ValueError, match="no bare prefix"):
            presence.is_present(sa.column("id"), prefix="/room")


def test_another_store_has_no_expressions(make_app: MakeApp) -> None:
    app, presence = make_app(PRESENCE_BACKEND="memory://")

    with app.app_context():
        with pytest.raises(RuntimeError, match=r"is_present needs .* PRESENCE_BACKEND to sqlalch"):
            presence.is_present(sa.column("id", sa.Integer))
        with pytest.raises(RuntimeError, match="last_seen_at needs an SQL database"):
            presence.last_seen_at(sa.column("id", sa.Integer))


@pytest.mark.parametrize("backend", [None, "sqlite:///elsewhere.sqlite3", "sqlalchemy://other"])
def test_users_in_another_database_cannot_be_joined(tmp_path: Any, backend: str | None) -> None:
    app, db, presence = make_forum(
        "sqlite:///app.sqlite3",
        tmp_path,
        PRESENCE_BACKEND=backend,
        SQLALCHEMY_BINDS={"other": "sqlite:///other.sqlite3"},
    )

    class User(db.Model):
        id = db.Column(db.Integer, primary_key=True)

    class Guest(db.Model):
        __bind_key__ = "other"
        id = db.Column(db.Integer, primary_key=True)

    with app.app_context():
        with pytest.raises(RuntimeError, match=r"cannot join User.id, which is in .*app.sqlite3"):
            presence.is_present(User.id)
        with pytest.raises(RuntimeError, match="sqlalchemy://BIND_KEY"):
            presence.last_seen_at(aliased(User).id)
        if backend == "sqlalchemy://other":
            presence.is_present(Guest.id)
    app.extensions["presence"].stop()


# last_seen


def test_users_and_ids_were_last_seen(make_app: MakeApp) -> None:
    app, presence = make_app()
    presence.channel_config("room")(lambda name: ChannelConfig(public=True))
    with app.app_context():
        before = datetime.now(timezone.utc) - timedelta(milliseconds=1)
        presence.channel("/room/1").enter(Person({"user": "ada"}), client_id="a")
        presence.channel("/room/1").enter(7, client_id="b")
        presence.channel("/room/1").leave(client_id="b")

        found = presence.last_seen(iter([Person({"user": "ada"}), 7, "7", ONE]))

    moments = [found["ada"], found["7"]]
    assert found.keys() == {"ada", "7", str(ONE)}
    assert all(moment and before <= moment <= datetime.now(timezone.utc) for moment in moments)
    assert found[str(ONE)] is None


@pytest.mark.parametrize("one", ["ada", 7, Person({"user": "ada"})])
def test_one_user_is_not_several(make_app: MakeApp, one: Any) -> None:
    app, presence = make_app()

    with app.app_context(), pytest.raises(TypeError, match=r"such as \[user\]"):
        presence.last_seen(one)


@pytest.mark.parametrize("backend", ["memory://", "flask_presence.backends.memory:MemoryBackend"])
def test_the_setting_says_for_how_long_that_is_kept(make_app: MakeApp, backend: Any) -> None:
    app, presence = make_app(PRESENCE_BACKEND=backend, PRESENCE_LAST_SEEN_RETENTION=0)
    presence.channel_config("room")(lambda name: ChannelConfig(public=True))

    with app.app_context():
        presence.channel("/room/1").enter("ada", client_id="a")
        present = presence.last_seen(["ada"])["ada"]
        presence.channel("/room/1").leave(client_id="a")

        assert present is not None
        assert presence.last_seen(["ada"]) == {"ada": None}
