"""Every backend keeps the contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from flask_presence.backends.base import Backend
from flask_presence.backends.memory import MemoryBackend
from flask_presence.backends.sqlalchemy import SQLAlchemyBackend
from flask_presence.testing import BackendContract

Clock = Callable[[], float]
Make = Callable[[Clock], Backend]

STORES = ["memory", "sqlite"]
"""Each names a fixture ``make_…`` that returns how to make a backend on an empty store."""


@pytest.fixture
def make_memory() -> Make:
    return lambda clock: MemoryBackend(clock=clock)


@pytest.fixture
def make_sqlite(tmp_path: Path) -> Iterator[Make]:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/presence.sqlite3")
    yield lambda clock: SQLAlchemyBackend(engine, clock=clock)
    engine.dispose()


class TestBackend(BackendContract):
    @pytest.fixture(params=STORES, autouse=True)
    def make(self, request: pytest.FixtureRequest) -> Make:
        self._make: Make = request.getfixturevalue(f"make_{request.param}")
        return self._make

    def make_backend(self, clock: Clock) -> Backend:
        return self._make(clock)

    def lose_lease(self, backend: Backend, worker: str) -> None:
        if isinstance(backend, MemoryBackend):
            del backend._leases[worker]
            return
        assert isinstance(backend, SQLAlchemyBackend)
        workers = backend.tables.workers
        with backend.engine.begin() as connection:
            connection.execute(sa.delete(workers).where(workers.c.id == worker))
