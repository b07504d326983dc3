"""Servers under attack, one for each way to serve and each kind of store."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from stores import SharedStore
from watched import Connect, Ground, Start, Watched

GROUNDS = [Ground("threading", "sqlite"), Ground("gevent", "redis")]


@pytest.fixture(scope="module", params=GROUNDS, ids="-".join)
def ground(request: pytest.FixtureRequest) -> Ground:
    ground: Ground = request.param
    return ground


@pytest.fixture(scope="module")
def store(ground: Ground, request: pytest.FixtureRequest) -> SharedStore:
    store: SharedStore = request.getfixturevalue(f"{ground.store}_store")
    return store


@pytest.fixture(scope="module")
def start(
    ground: Ground, store: SharedStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Start]:
    """Starts servers under watch, each on a store of its own; settings as keywords."""
    servers: list[Watched] = []

    def start_one(**config: Any) -> Watched:
        basis = {
            "instance_path": str(tmp_path_factory.mktemp("instance")),
            "PRESENCE_BACKEND": store.new_url(),
            "PRESENCE_BATCH_WINDOW": 0,
        }
        socketio = {"async_mode": ground.async_mode} | config.pop("SOCKETIO", {})
        servers.append(Watched(basis | config | {"SOCKETIO": socketio}))
        return servers[-1]

    yield start_one
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def server(start: Start) -> Watched:
    """A server with the defaults, but that diffs are sent at once."""
    return start()


@pytest.fixture
def connect(server: Watched, dial: Connect) -> Connect:
    return lambda user=None, **options: dial(server.port, user, **options)
