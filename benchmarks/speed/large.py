"""What a large channel costs: entering it, and reading its state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import sqlalchemy as sa

from flask_presence.backends.base import Backend
from flask_presence.backends.memory import MemoryBackend
from flask_presence.backends.redis import RedisBackend
from flask_presence.backends.sqlalchemy import SQLAlchemyBackend

from .figures import Line
from .filling import EPOCH, fill, members_of
from .redis_steps import WORKER, redis_backend
from .rounds import Step, one_round, pairs, seconds_of
from .sql_steps import database, sql_backend

LARGE, SMALL, READ = 100_000, 10, 10_000
VISITORS = 50
READS = 5


def measure(rounds: int, seconds: float) -> list[Line]:
    with ExitStack() as stack:
        backends = {name: stack.enter_context(opened(name)) for name in STORES}
        entering = [_entering(name, backend, rounds, seconds) for name, backend in backends.items()]
    with ExitStack() as stack:
        backends = {name: stack.enter_context(opened(name)) for name in STORES if name != "memory"}
        reading = [_reading(name, backend, rounds) for name, backend in backends.items()]
    return entering + reading


@contextmanager
def _memory() -> Iterator[Backend]:
    backend = MemoryBackend()
    backend.renew(WORKER, 3600, create=True)
    yield backend


@contextmanager
def _sql(name: str) -> Iterator[Backend]:
    with database(name) as url, sql_backend(url) as backend:
        yield backend


STORES = ("memory", "sqlite", "postgresql", "mariadb", "redis")


@contextmanager
def opened(name: str) -> Iterator[Backend]:
    """An empty store of one kind, with a lease."""
    kinds: Mapping[str, Callable[[], object]] = {"memory": _memory, "redis": redis_backend}
    with kinds[name]() if name in kinds else _sql(name) as backend:  # type: ignore[attr-defined]
        yield backend


def _entering(name: str, backend: Backend, rounds: int, seconds: float) -> Line:
    fill(backend, LARGE)
    small = "/filled/small"
    for member in members_of(small, range(SMALL)):
        backend.enter(member, epoch=EPOCH, worker=WORKER)
    contenders = {"large": _visit(backend, "/filled/0"), "small": _visit(backend, small)}
    found = [one_round(contenders, seconds / 2) for _ in range(rounds)]
    costs = [(1e6 / large, 1e6 / little) for large, little in pairs(found, "large", "small", 0)]
    what, against = f"`enter` where {LARGE:,} are, {name}", f"`enter` where {SMALL} are"
    return Line(what, against, "µs", "times the cost", 1.2, costs)


def _visit(backend: Backend, channel: str) -> list[Step]:
    visitors = list(members_of(channel, range(10**7, 10**7 + VISITORS)))
    return [
        lambda number: backend.enter(visitors[number], epoch=EPOCH, worker=WORKER),
        lambda number: backend.leave(channel, [visitors[number].client_id]),
    ]


def _reading(name: str, backend: Backend, rounds: int) -> Line:
    channel = fill(backend, READ)[0]
    plain = _plain_reading(backend, channel)

    def read() -> None:
        state = backend.state(channel).state
        assert state is not None
        assert len(state.users) == READ

    found = [
        tuple(1000 * min(seconds_of(work) for _ in range(READS)) for work in (read, plain))
        for _ in range(rounds)
    ]
    what = f"state of {READ:,} users, {name}"
    return Line(what, "reading the same bytes", "ms", "times the cost", 2, found)  # type: ignore[arg-type]


def _plain_reading(backend: Backend, channel: str) -> Callable[[], object]:
    if isinstance(backend, RedisBackend):
        client = backend.server.client
        return lambda: client.hgetall(f"presence:users:{channel}")
    assert isinstance(backend, SQLAlchemyBackend)
    members, engine = backend.tables.members, backend.engine
    query = sa.select(members).where(members.c.channel == channel)

    def select() -> object:
        with engine.connect() as connection:
            return connection.execute(query).all()

    return select
