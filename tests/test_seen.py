"""What it costs an SQL database to keep when users were last seen."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
import statements
from stores import Store

from flask_presence.backends.sqlalchemy import SQLAlchemyBackend, database
from flask_presence.model import Member

USERS = [f"user {number}" for number in range(20)]


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[SQLAlchemyBackend]:
    store: Store = request.getfixturevalue(f"{request.param}_store")
    backend = SQLAlchemyBackend(sa.create_engine(store.new_url()))
    backend.prepare()
    yield backend
    backend.close()


def fill(backend: SQLAlchemyBackend, *channels: str) -> None:
    backend.renew("w1", 600, create=True)
    for channel in channels:
        members = [Member(channel, user, user) for user in USERS]
        backend.hold(channel, members, epoch="e", worker="w1")


def statements_of(backend: SQLAlchemyBackend, act: Callable[[], Any]) -> list[str]:
    """How the statements begin that are sent to the database meanwhile."""
    sent: list[str] = []
    stop = statements.listen(backend, lambda text: sent.append(" ".join(text.split()[:3])))
    act()
    stop()
    return sent


@pytest.mark.parametrize("backend", ["sqlite", "postgresql", "mariadb"], indirect=True)
@pytest.mark.parametrize("some", [USERS[:1], USERS[:8]], ids=["one", "many"])
def test_a_departure_takes_one_write_more_and_none_where_nothing_is_kept(
    backend: SQLAlchemyBackend, some: list[str]
) -> None:
    fill(backend, "/room/1", "/room/2")
    backend.last_seen_retention = 0
    without = statements_of(backend, lambda: backend.leave("/room/1", some))
    backend.last_seen_retention = 60

    kept = statements_of(backend, lambda: backend.leave("/room/2", some))

    writes = [statement for statement in kept if not statement.startswith("SELECT")]
    assert [statement for statement in writes if statement not in without] == [
        "INSERT INTO presence_seen"
    ]
    assert len(writes) == len([one for one in without if not one.startswith("SELECT")]) + 1
    assert not [statement for statement in without if "presence_seen" in statement]
    assert len(kept) == len(without) + (1 if len(some) == 1 else 2)


@pytest.mark.parametrize("backend", ["sqlite", "postgresql", "mariadb"], indirect=True)
def test_staying_writes_nothing(backend: SQLAlchemyBackend) -> None:
    fill(backend, "/room/1")

    def stay() -> None:
        backend.renew("w1", 600, channels=["/room/1"])
        backend.state("/room/1")
        backend.touch("/room/1", USERS[0], 60)
        backend.last_seen(USERS)
        backend.prune()

    sent = statements_of(backend, stay)

    assert not [statement for statement in sent if statement.startswith(("INSERT", "DELETE"))]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_client_that_goes_while_its_user_stays_costs_no_write_more(
    backend: SQLAlchemyBackend,
) -> None:
    fill(backend, "/room/1")
    user = USERS[0]
    backend.enter(Member("/room/1", "another", user), epoch="e", worker="w1")

    sent = statements_of(backend, lambda: backend.leave("/room/1", [user]))

    assert sent
    assert not [statement for statement in sent if "presence_seen" in statement]


@pytest.mark.parametrize("backend", ["postgresql", "mariadb"], indirect=True)
def test_keeping_and_forgetting_at_once_never_lock_each_other_out(
    backend: SQLAlchemyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend.engine.dialect.name == "postgresql":
        # MariaDB locks gaps where a deleted row is inserted anew; there a step is run again.
        monkeypatch.setattr(database, "MAX_ATTEMPTS", 1)
    now = backend.database.transact(backend.now)
    start = threading.Barrier(5)

    def keep(number: int) -> None:
        chance = random.Random(number)
        start.wait()
        for turn in range(40):
            some = chance.sample(USERS, 10)
            until = dict.fromkeys(some, now + turn)
            backend.run(lambda step, until=until: step.keep_seen(until))

    def forget() -> None:
        start.wait()
        for turn in range(40):
            kept = -60_000 if turn % 2 else 60_000
            backend.database.transact(
                lambda connection, kept=kept: backend.seen.forget(connection, kept)
            )

    with ThreadPoolExecutor(5) as pool:
        working = [*[pool.submit(keep, number) for number in range(4)], pool.submit(forget)]
        for done in working:
            done.result()
