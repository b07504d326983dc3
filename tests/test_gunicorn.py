"""Real gunicorn processes that stop, restart and die, as others see it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster import ROOM, Watcher, await_closed, enter, enter_all, left, users_at
from flask import Flask
from processes import Gunicorn
from wire import PATIENCE, eventually

from flask_presence import BackendUnavailable, Presence, gunicorn

USERS = [f"user{number}" for number in range(100)]
Start = Callable[..., Gunicorn]
both_classes = pytest.mark.parametrize("worker_class", ["gthread", "gevent"])
both_stores = pytest.mark.parametrize("shared_store", ["redis", "sqlite"], indirect=True)


@both_stores
@both_classes
def test_who_comes_back_after_a_graceful_stop_was_never_seen_leaving(
    start_gunicorn: Start, dial: Any, worker_class: str
) -> None:
    stopping, living = start_gunicorn(worker_class), start_gunicorn(worker_class)
    watcher = Watcher(dial(living.port, "watcher"))
    wires = [enter(dial, stopping.port, user) for user in [*USERS, "goes"]]
    others = [dial(living.port, user) for user in USERS]
    watcher.sees({*USERS, "goes"})

    stopping.send(signal.SIGTERM)
    await_closed(wires)
    enter_all(others)
    watcher.await_left("goes")

    assert stopping.process.wait(PATIENCE) == 0
    assert "Traceback" not in "".join(stopping.errors)
    assert eventually(lambda: left(stopping, living)) == [("goes", "timeout")]
    assert users_at(watcher.wire) == set(USERS)
    for wire in others:
        assert wire.call("leave", {"channel": ROOM})["ok"]
    assert users_at(watcher.wire) == set()


@pytest.mark.parametrize(
    ("worker_class", "how"),
    [("gthread", "SIGHUP"), ("gevent", "SIGHUP"), ("gthread", f"--max-requests={len(USERS) + 1}")],
)
def test_a_worker_that_is_replaced_hands_its_users_to_the_next(
    start_gunicorn: Start, dial: Any, worker_class: str, how: str
) -> None:
    """gunicorn stops the old worker before the new one has loaded the app: hence the patience."""
    options = [how] if how.startswith("--") else []
    replaced = start_gunicorn(worker_class, options=options, PRESENCE_WORKER_TIMEOUT=60)
    living = start_gunicorn(worker_class, PRESENCE_WORKER_TIMEOUT=60)
    watcher = Watcher(dial(living.port, "watcher"))
    wires = [enter(dial, replaced.port, user) for user in USERS]
    watcher.sees(set(USERS))

    if options:
        dial(replaced.port)
    else:
        replaced.send(signal.SIGHUP)
    await_closed(wires)
    back = [enter(dial, replaced.port, user) for user in USERS]

    assert len(replaced.workers) == 2
    eventually(lambda: "exiting" in "".join(replaced.errors))
    assert "Traceback" not in "".join(replaced.errors)
    for wire in back:
        assert users_at(wire) == set(USERS)
    assert left(replaced, living) == []


def test_who_comes_back_after_a_kill_was_never_seen_leaving(
    start_gunicorn: Start, dial: Any
) -> None:
    dying, living = start_gunicorn("gevent"), start_gunicorn("gevent")
    watcher = Watcher(dial(living.port, "watcher"))
    wires = [enter(dial, dying.port, user) for user in [*USERS, "goes"]]
    others = [dial(living.port, user) for user in USERS]
    watcher.sees({*USERS, "goes"})

    os.kill(dying.workers[0], signal.SIGKILL)
    await_closed(wires)
    enter_all(others)
    watcher.await_left("goes")

    assert eventually(lambda: left(dying, living)) == [("goes", "worker_lost")]
    assert users_at(watcher.wire) == set(USERS)


def test_who_leaves_a_frozen_worker_was_never_seen_leaving(
    start_gunicorn: Start, dial: Any
) -> None:
    frozen, living = start_gunicorn("gthread"), start_gunicorn("gthread")
    watcher = Watcher(dial(living.port, "watcher"))
    wires = [enter(dial, frozen.port, user) for user in [*USERS, "goes"]]
    others = [dial(living.port, user) for user in USERS]
    watcher.sees({*USERS, "goes"})

    os.kill(frozen.workers[0], signal.SIGSTOP)
    for wire in wires:
        wire.drop()
    enter_all(others)
    watcher.await_left("goes")
    os.kill(frozen.workers[0], signal.SIGCONT)
    late = enter(dial, frozen.port, "late")

    assert users_at(late) == users_at(watcher.wire) == {*USERS, "late"}
    assert eventually(lambda: left(frozen, living)) == [("goes", "worker_lost")]


def test_a_preloaded_app_works_anew_in_each_worker(start_gunicorn: Start, dial: Any) -> None:
    server = start_gunicorn("gthread", options=["--preload"])
    wires = [enter(dial, server.port, user) for user in ("stays", "goes")]

    os.kill(server.workers[0], signal.SIGTERM)
    await_closed(wires)
    watcher = Watcher(enter(dial, server.port, "stays"))
    watcher.await_left("goes")

    assert len(server.workers) == 2
    assert eventually(lambda: left(server)) == [("goes", "timeout")]
    assert "Traceback" not in "".join(server.errors)


def test_a_worker_that_is_told_to_quit_drains_as_it_exits(
    start_gunicorn: Start, dial: Any, tmp_path: Path
) -> None:
    """On Ctrl-C there is no time to notice it in; and hooks may be imported into a config."""
    config = tmp_path / "gunicorn.conf.py"
    config.write_text("from flask_presence.gunicorn import worker_exit\n")
    quitting = start_gunicorn("gthread", options=["--threads=9", f"--config={config}"])
    living = start_gunicorn("gthread")
    watcher = Watcher(dial(living.port, "watcher"))
    wire = enter(dial, quitting.port, "goes")
    stranger = dial(quitting.port, connect=False)  # not ours to close: it holds the worker up

    quitting.send(signal.SIGINT)
    await_closed([wire])
    watcher.await_left("goes")
    stranger.drop()

    assert quitting.process.wait(PATIENCE) == 0
    assert "Traceback" not in "".join(quitting.errors)
    assert eventually(lambda: left(quitting, living)) == [("goes", "timeout")]


class Worker:
    """What a hook sees of gunicorn's worker."""

    def __init__(self, pid: int) -> None:
        self.pid = pid


def test_the_end_of_a_worker_drains_no_app_of_another_process(
    make_app: Callable[..., tuple[Flask, Presence]],
) -> None:
    """gunicorn's master calls the hook for a worker that died, and may have loaded the app."""
    app, presence = make_app()
    gunicorn.worker_exit(None, Worker(os.getpid() + 1))

    with app.test_request_context():
        assert presence.channel(ROOM).enter("ada", client_id="a")
    assert not app.extensions["presence"].tracker.holdings.lease.drained

    gunicorn.worker_exit(None, Worker(os.getpid()))

    assert app.extensions["presence"].tracker.holdings.lease.drained


def test_a_store_that_is_away_lets_a_worker_exit_without_a_traceback(
    make_app: Callable[..., tuple[Flask, Presence]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app, _ = make_app()
    state = app.extensions["presence"]
    state.tracker.holdings.lease.hold()

    def end_worker(*args: Any, **options: Any) -> None:
        raise BackendUnavailable("The store is away.")

    monkeypatch.setattr(state.backend, "end_worker", end_worker)
    gunicorn.worker_exit(None, Worker(os.getpid()))

    (record,) = caplog.records
    assert "The store is away." in record.getMessage()
    assert record.exc_info is None
