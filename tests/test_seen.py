"""What it costs an SQL database to keep when users were last seen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from stores import ServerStore, Store

from flask_presence.backends.sqlalchemy import SQLAlchemyBackend
from flask_presence.backends.sqlalchemy import backend as backend_module
from flask_presence.model import Member

USERS = [f"user {number}" for number in range(20)]
CHANNELS = [f"/room/{number}" for number in range(8)]


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


def statements(backend: SQLAlchemyBackend, act: Callable[[], Any]) -> list[str]:
    """What is sent to the database meanwhile: each text once for all the rows that go with it."""
    sent: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        sent.append(" ".join(statement.split()[:3]))

    sa.event.listen(backend.engine, "before_cursor_execute", note)
    act()
    sa.event.remove(backend.engine, "before_cursor_execute", note)
    return sent


@pytest.mark.parametrize("backend", ["sqlite", "postgresql", "mariadb"], indirect=True)
@pytest.mark.parametrize("some", [USERS[:1], USERS[:9]], ids=["one", "many"])
def test_a_departure_takes_one_write_more_and_none_where_nothing_is_kept(
    backend: SQLAlchemyBackend, some: list[str]
) -> None:
    fill(backend, "/room/1", "/room/2")
    backend.last_seen_retention = 0
    without = statements(backend, lambda: backend.leave("/room/1", some))
    backend.last_seen_retention = 60

    kept = statements(backend, lambda: backend.leave("/room/2", some))

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

    sent = statements(backend, stay)

    assert not [statement for statement in sent if statement.startswith(("INSERT", "DELETE"))]


@pytest.mark.parametrize("store", ["postgresql", "mariadb"])
def test_departures_and_forgetting_never_lock_each_other_out(
    store: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers: ServerStore = request.getfixturevalue(f"{store}_store")
    backend = SQLAlchemyBackend(sa.create_engine(servers.new_url(), pool_size=10))
    backend.prepare()
    backend.last_seen_retention = 0.001
    for _ in range(3):
        fill(backend, *CHANNELS)
        monkeypatch.setattr(backend_module, "MAX_ATTEMPTS", 1)
        start = threading.Barrier(len(CHANNELS) + 1)

        def leave(number: int, start: threading.Barrier = start) -> None:
            start.wait()
            for begin in range(0, len(USERS), 5):
                some = USERS[begin : begin + 5]
                backend.leave(CHANNELS[number], some if number % 2 else some[::-1])

        def forget(start: threading.Barrier = start) -> None:
            start.wait()
            for _ in range(5):
                backend.drop_empty_channels(3600)

        with ThreadPoolExecutor(len(CHANNELS) + 1) as pool:
            working = [pool.submit(leave, number) for number in range(len(CHANNELS))]
            working.append(pool.submit(forget))
            for done in working:
                done.result()
        monkeypatch.undo()

    assert backend.channels() == {}
    backend.close()
