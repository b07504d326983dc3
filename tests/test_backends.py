"""Every backend keeps the contract."""

from __future__ import annotations

import pytest
from stores import STORES, Clock, Store

from flask_presence.backends.base import Backend
from flask_presence.testing import BackendContract


class TestBackend(BackendContract):
    @pytest.fixture(params=STORES, autouse=True)
    def store_to_prove(self, request: pytest.FixtureRequest) -> Store:
        self._store: Store = request.getfixturevalue(f"{request.param}_store")
        return self._store

    def make_backend(self, clock: Clock) -> Backend:
        return self._store.make(clock)

    def lose_lease(self, backend: Backend, worker: str) -> None:
        self._store.lose_lease(backend, worker)
