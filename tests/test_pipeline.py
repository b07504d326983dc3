"""Steps on PostgreSQL through psycopg, whose statements travel together."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from databases import Database
from psycopg.pq import TransactionStatus
from stores import ServerStore
from wire import eventually

from flask_presence.backends.sqlalchemy import SQLAlchemyBackend, pipeline
from flask_presence.backends.sqlalchemy.pipeline import Pipeline
from flask_presence.backends.sqlalchemy.statements import Statement
from flask_presence.errors import BackendUnavailable, ChannelFull
from flask_presence.model import Change, Member

ROOM = "/room/1"


@pytest.fixture
def database(postgresql_store: ServerStore) -> Database:
    return postgresql_store.database


@pytest.fixture
def engine(postgresql_store: ServerStore) -> sa.Engine:
    # As an app's is made: nobody but the step ends what it began.
    return sa.create_engine(postgresql_store.new_url(), pool_reset_on_return=None)


@pytest.fixture
def backend(engine: sa.Engine) -> Iterator[SQLAlchemyBackend]:
    backend = SQLAlchemyBackend(engine)
    backend.prepare()
    backend.renew("w1", 600, create=True)
    yield backend
    backend.close()


def enter(backend: SQLAlchemyBackend, user: str = "ada", **held: Any) -> list[Change]:
    return backend.enter(Member(ROOM, f"of-{user}", user), epoch="e", **held or {"worker": "w1"})


@pytest.mark.parametrize("held", [{"worker": "w1"}, {"timeout": 60}], ids=["worker", "deadline"])
def test_who_comes_and_goes_costs_two_round_trips_each(
    backend: SQLAlchemyBackend, monkeypatch: pytest.MonkeyPatch, held: dict[str, Any]
) -> None:
    enter(backend, "somebody")
    backend.leave(ROOM, ["of-somebody"])
    sent: list[list[str]] = []
    execute = Pipeline._execute

    def note(self: Pipeline, statements: Any) -> Any:
        sent.append([text.split()[0] for text, _ in statements])
        return execute(self, statements)

    monkeypatch.setattr(Pipeline, "_execute", note)
    changes = enter(backend, **held)
    changes += backend.leave(ROOM, ["of-ada"], user_id="ada")

    assert [change.kind for change in changes] == ["entered", "left"]
    asked = ["BEGIN", "INSERT", *["SELECT"] * (2 + ("worker" in held))]
    assert sent == [
        asked,
        ["INSERT", "UPDATE", "COMMIT"],
        ["BEGIN", "SELECT", "SELECT", "SELECT"],
        ["DELETE", "UPDATE", "INSERT", "COMMIT"],
    ]


def test_a_step_is_read_committed_whatever_the_default_is(backend: SQLAlchemyBackend) -> None:
    question = Statement(sa.text("SHOW transaction_isolation")).of()

    level = backend.run(lambda step: next(step._transaction.ask(question)))  # type: ignore[attr-defined]

    assert [tuple(row) for row in level] == [("read committed",)]


def test_a_step_that_is_refused_keeps_no_lock(backend: SQLAlchemyBackend) -> None:
    enter(backend)

    with pytest.raises(ChannelFull):
        enter(backend, "bob", worker="w1", max_users=1)

    with backend.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        assert driver.info.transaction_status == TransactionStatus.IDLE


@pytest.mark.parametrize(("threshold", "are_prepared"), [(5, True), (None, False)])
def test_statements_are_prepared_unless_the_app_told_psycopg_not_to(
    backend: SQLAlchemyBackend, threshold: int | None, are_prepared: bool
) -> None:
    backend.engine.dispose()

    @sa.event.listens_for(backend.engine, "connect")
    def set_threshold(connection: Any, record: Any) -> None:
        connection.prepare_threshold = threshold

    for _ in range(2):
        enter(backend)
        backend.leave(ROOM, ["of-ada"])

    ours = sa.text("SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'presence%'")
    with backend.engine.connect() as connection:
        assert bool(connection.execute(ours).scalar()) is are_prepared


def test_a_connection_that_was_told_to_forget_all_statements_goes_on(
    backend: SQLAlchemyBackend,
) -> None:
    enter(backend)
    with backend.engine.begin() as connection:
        connection.exec_driver_sql("DEALLOCATE ALL")
    # Prepared before anybody notices that all others were forgotten.
    assert backend.state(ROOM).state

    assert enter(backend, "bob")
    assert backend.leave(ROOM, ["of-bob"])
    assert backend.state(ROOM).state.count == 1


def test_a_step_whose_connection_is_cut_is_unavailable_and_the_next_one_is_not(
    backend: SQLAlchemyBackend, database: Database
) -> None:
    enter(backend)
    channels = backend.tables.channels

    with (
        ThreadPoolExecutor(1) as pool,
        sa.create_engine(backend.engine.url, poolclass=sa.NullPool).begin() as intruder,
    ):
        intruder.execute(sa.select(channels).with_for_update())
        entering = pool.submit(enter, backend, "bob")
        with database.administering() as admin:
            eventually(lambda: admin.exec_driver_sql(database.waiting).scalar())
            admin.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE wait_event_type = 'Lock'"
            )
        with pytest.raises(BackendUnavailable, match="closed the connection"):
            entering.result()

    assert [change.user_id for change in enter(backend, "bob")] == ["bob"]


def test_a_step_that_fails_midway_leaves_nothing_behind(
    backend: SQLAlchemyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Statement(sa.text("SELECT 1 / 0")).of()
    end = Pipeline._end

    def end_badly(self: Pipeline) -> None:
        self.later(broken)
        end(self)

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "_end", end_badly)
        with pytest.raises(BackendUnavailable, match="division by zero"):
            enter(backend)

    assert backend.state(ROOM).state.users == ()  # type: ignore[union-attr]
    assert [change.revision for change in enter(backend)] == [1]


def test_a_statement_that_a_step_needs_twice_is_prepared_once(backend: SQLAlchemyBackend) -> None:
    members = [Member(ROOM, user, user) for user in ("ada", "bob")]
    for member in members:
        backend.enter(member, epoch="e", timeout=60)

    changes = backend.hold(ROOM, members, epoch="e", worker="w1")

    assert changes == []
    assert len(backend.members_of_worker("w1", after=None, limit=9)) == 2


def test_answers_that_nobody_took_are_not_taken_for_those_to_something_else(
    backend: SQLAlchemyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(backend, "bob")

    def give_up(connection: Any) -> Iterator[Any]:
        raise ValueError("interrupted")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_results", give_up)
        with pytest.raises(BackendUnavailable, match="interrupted"):
            enter(backend)

    assert [change.user_id for change in enter(backend)] == ["ada"]


def test_statements_that_the_connection_was_made_to_forget_are_prepared_anew(
    backend: SQLAlchemyBackend,
) -> None:
    enter(backend, "bob")

    with backend.engine.begin() as connection:
        connection.exec_driver_sql("DEALLOCATE ALL")

    assert [change.user_id for change in enter(backend)] == ["ada"]
