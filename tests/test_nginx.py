"""Two gunicorns behind a real nginx, with the config that the docs give."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import ROOM, Watcher, enter, left, users_at
from polling import Polling
from processes import Gunicorn, Nginx
from wire import PATIENCE, eventually


@pytest.fixture
def pair(start_gunicorn: Callable[..., Gunicorn]) -> tuple[Gunicorn, Gunicorn]:
    return start_gunicorn("gthread"), start_gunicorn("gthread")


@pytest.fixture
def nginx(pair: tuple[Gunicorn, Gunicorn], tmp_path: Path) -> Iterator[Nginx]:
    directory = tmp_path / "nginx"
    directory.mkdir()
    nginx = Nginx(directory, pair)
    yield nginx
    nginx.stop()


def until_both_serve(pair: tuple[Gunicorn, Gunicorn], arrive: Callable[[str], Any]) -> set[str]:
    """Let users come until both servers have two: where one goes is a matter of chance."""
    users: set[str] = set()
    while any(len(server.signals) < 2 for server in pair):
        assert len(users) < 64, "all clients go to one server"
        users.add(f"user{len(users)}")
        arrive(f"user{len(users) - 1}")
        eventually(lambda: sum(len(server.signals) for server in pair) == len(users))
    return users


def test_a_client_that_polls_stays_with_one_server(
    pair: tuple[Gunicorn, Gunicorn], nginx: Nginx
) -> None:
    clients: list[Polling] = []

    def arrive(user: str) -> None:
        clients.append(Polling(nginx.port, user))
        assert clients[-1].call("enter", {"channel": ROOM})["ok"]

    users = until_both_serve(pair, arrive)
    states = [client.call("state", {"channels": [ROOM]})["states"][ROOM] for client in clients]

    assert [{user["id"] for user in state["users"]} for state in states] == [users] * len(users)
    for client in clients:
        client.close()


def test_clients_come_through_by_websocket_and_learn_of_each_other(
    pair: tuple[Gunicorn, Gunicorn], nginx: Nginx, dial: Any
) -> None:
    watcher = Watcher(dial(nginx.port, "watcher"))

    users = until_both_serve(pair, lambda user: enter(dial, nginx.port, user))

    told: set[str] = set()
    while told != users:
        diff = watcher.wire.wait_for("diff")
        told |= {user["id"] for user in diff["entered"]}


def test_a_server_that_stops_behind_nginx_is_seen_by_nobody(
    pair: tuple[Gunicorn, Gunicorn], nginx: Nginx, dial: Any
) -> None:
    stopping, living = pair
    watcher = Watcher(dial(living.port, "watcher"))
    wires = {}

    def arrive(user: str) -> None:
        wires[user] = enter(dial, nginx.port, user)

    users = until_both_serve(pair, arrive)
    goes, *others = [signal["user_id"] for signal in stopping.signals]

    stopping.send(signal.SIGTERM)
    for user in others:
        assert wires[user].closed.wait(PATIENCE)
        enter(dial, nginx.port, user)
    watcher.await_left(goes)

    assert users_at(watcher.wire) == users - {goes}
    assert eventually(lambda: left(*pair)) == [(goes, "timeout")]
