"""Background work starts with the first connection or the first enter in a serving process, once,
and again in a forked child."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from processes import free_port
from wire import PATIENCE

from flask_presence import AccessDenied, Presence

MakeApp = Callable[..., tuple[Flask, Presence]]

HERE = Path(__file__).parent

PROLOGUE = """
import json, os, sys, threading

def threads():
    return sorted(thread.name for thread in threading.enumerate())

def report(**facts):
    print(json.dumps(facts), flush=True)

def make_app(**config):
    from server import create_app
    return create_app({"instance_path": sys.argv[1]} | config)
"""


def run(program: str, instance: Path) -> dict[str, Any]:
    """Run a program in a process of its own, and give what it reports."""
    done = subprocess.run(
        [sys.executable, "-c", PROLOGUE + program, str(instance)],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        facts |= json.loads(line)
    return facts


# Nothing starts


def test_importing_starts_no_thread(tmp_path: Path) -> None:
    facts = run("import flask_presence, flask_presence.cli\nreport(threads=threads())", tmp_path)

    assert facts["threads"] == ["MainThread"]


@pytest.mark.parametrize("url", [None, "memory://", "sqlite:///who.sqlite3"])
def test_init_app_starts_no_thread(tmp_path: Path, url: str | None) -> None:
    program = f"make_app(PRESENCE_BACKEND={url!r})\nreport(threads=threads())"

    facts = run(program, tmp_path)

    assert facts["threads"] == ["MainThread"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_no_command_starts_a_thread(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    url = None if kind == "sqlite" else request.getfixturevalue("redis").url
    program = f"""
from flask_presence import cli

started = []
start = threading.Thread.start
threading.Thread.start = lambda thread: started.append(thread.name) or start(thread)

def press_ctrl_c(seconds):
    raise KeyboardInterrupt

cli.sleep = press_ctrl_c
app, presence = make_app(PRESENCE_BACKEND={url!r})
runner = app.test_cli_runner()
words = {{"show": ["/room/1"], "clear": ["--yes"]}}
codes = [
    runner.invoke(cli.presence_commands, [name, *words.get(name, [])]).exit_code
    for name in ["init-db", *cli.presence_commands.commands]
]
report(codes=codes, started=started, number=len(cli.presence_commands.commands))
"""

    facts = run(program, tmp_path)

    assert facts == {"codes": [0] * 9, "started": [], "number": 8}


def test_a_script_s_server_side_calls_start_no_thread(tmp_path: Path) -> None:
    program = """
app, presence = make_app()
with app.app_context():
    channel = presence.channel("/room/1")
    channel.enter("7", client_id="a")
    channel.update(client_id="a", meta={"n": 1})
    channel.touch(client_id="a")
    count = channel.count
    presence.evict("7")
    presence.forget_config()
    presence.prune()
    presence.drain()
report(count=count, threads=threads())
"""

    facts = run(program, tmp_path)

    assert facts == {"count": 1, "threads": ["MainThread"]}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_a_reloader_s_parent_starts_no_thread(tmp_path: Path) -> None:
    (tmp_path / "forum.py").write_text(
        "import os, sys\n"
        f"sys.path.insert(0, {str(HERE)!r})\n"
        "from server import create_app\n"
        f"app, presence = create_app({{'instance_path': {str(tmp_path)!r}}})\n"
        "print('LOADED', os.getpid(), flush=True)\n"
    )
    port = str(free_port())
    parent = subprocess.Popen(
        [sys.executable, "-m", "flask", "--app", "forum", "run", "--reload", "--port", port],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None

    try:
        loaded = []
        while len(loaded) < 2:
            line = parent.stdout.readline()
            assert line, "the server ended early"
            if line.startswith("LOADED"):
                loaded.append(int(line.split()[1]))

        assert loaded[0] == parent.pid
        assert loaded[1] != parent.pid
        assert len(os.listdir(f"/proc/{parent.pid}/task")) == 1
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.wait(PATIENCE)
        parent.stdout.close()


# Something starts


@pytest.fixture
def starts() -> list[str]:
    return []


def watch(app: Flask, starts: list[str]) -> None:
    """Write down each start of the app's background work."""
    app.extensions["presence"].tracker.on_start(lambda: starts.append(app.name))


def test_the_first_enter_within_a_request_starts_the_background_work_once(
    make_app: MakeApp, starts: list[str]
) -> None:
    app, presence = make_app()
    watch(app, starts)
    before = set(threading.enumerate())

    with app.test_request_context():
        channel = presence.channel("/room/1")
        channel.state()
        presence.state_of("/room/1")
        assert starts == []

        channel.enter("7", client_id="a")
        channel.enter("8", client_id="b")

    assert len(starts) == 1
    assert set(threading.enumerate()) - before


def test_an_enter_outside_of_a_request_starts_nothing(make_app: MakeApp, starts: list[str]) -> None:
    app, presence = make_app()
    watch(app, starts)
    before = set(threading.enumerate())

    with app.app_context():
        presence.channel("/room/1").enter("7", client_id="a")

    assert starts == []
    assert set(threading.enumerate()) <= before


def test_the_first_connection_starts_the_background_work_once(
    serve: Any, dial: Any, starts: list[str]
) -> None:
    port, app, _ = serve()
    watch(app, starts)
    assert starts == []

    for user in ("7", "8"):
        assert dial(port, user).call("heartbeat")["ok"]

    assert len(starts) == 1


def test_a_connection_in_another_namespace_starts_nothing(
    serve: Any, dial: Any, starts: list[str]
) -> None:
    port, app, _ = serve()
    watch(app, starts)
    app.extensions["socketio"].on_event("connect", lambda *args: None, namespace="/app")

    wire = dial(port, namespace="/app")

    assert wire.sid is not None
    assert starts == []


def test_many_requests_that_enter_at_once_start_the_background_work_once(
    make_app: MakeApp, starts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app, presence = make_app()
    watch(app, starts)
    barrier = threading.Barrier(16)
    engineio = app.extensions["socketio"].server.eio
    create_event = engineio.create_event

    def create_slowly() -> Any:
        # Time enough for the others to find nothing started yet.
        threading.Event().wait(0.02)
        return create_event()

    monkeypatch.setattr(engineio, "create_event", create_slowly)

    def enter(number: int) -> None:
        with app.test_request_context():
            barrier.wait(PATIENCE)
            presence.channel("/room/1").enter(str(number), client_id=str(number))

    threads = [threading.Thread(target=enter, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)

    assert len(starts) == 1


def test_each_app_s_background_work_is_its_own(make_app: MakeApp, starts: list[str]) -> None:
    (one, presence), (two, _) = make_app(), make_app()
    watch(one, starts)
    two.extensions["presence"].tracker.on_start(lambda: starts.append("two"))

    with one.test_request_context():
        presence.channel("/room/1").enter("7", client_id="a")

    assert starts == [one.name]


def test_a_denied_enter_spoils_nothing(make_app: MakeApp) -> None:
    app, presence = make_app()

    with app.test_request_context():
        with pytest.raises(AccessDenied):
            presence.channel("/server/x").enter("7", client_id="a")

        assert presence.channel("/room/1").enter("7", client_id="a") is not None


def test_the_background_work_of_a_served_app_ends_what_is_due(serve: Any, dial: Any) -> None:
    port, app, presence = serve(
        PRESENCE_TIMEOUT=0.4, PRESENCE_HEARTBEAT_INTERVAL=0.2, PRESENCE_PRUNE_INTERVAL=0.1
    )
    wire = dial(port)
    wire.call("subscribe", {"channel": "/room/1"})

    with app.test_request_context():
        presence.channel("/room/1").enter("7", client_id="a")

    assert wire.wait_for("diff", lambda diff: diff.get("left"))["count"] == 0


# After a fork

FORK = """
from sqlalchemy import event
app, presence = make_app(PRESENCE_WORKER_TIMEOUT=600)
state = app.extensions["presence"]
starts, strangers = [], []
state.tracker.on_start(lambda: starts.append(os.getpid()))

def connected(connection, record):
    record.info["pid"] = os.getpid()

def taken(connection, record, proxy):
    if record.info["pid"] != os.getpid():
        strangers.append(record.info["pid"])

event.listen(state.backend.engine, "connect", connected)
event.listen(state.backend.engine, "checkout", taken)

def enter(user):
    with app.test_request_context():
        return presence.channel("/room/1").enter(user, client_id=user)

def users():
    with app.app_context():
        return list(presence.channel("/room/1").user_ids)

def in_child(work):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def test_a_forked_child_starts_the_background_work_anew_and_once(tmp_path: Path) -> None:
    program = """
enter("7")

def child():
    threads_before, starts_before = threads(), len(starts)
    enter("8")
    enter("9")
    report(
        threads_before=threads_before,
        threads_after=len(threads()),
        own_starts=starts[starts_before:] == [os.getpid()],
    )

code = in_child(child)
report(code=code, starts=starts == [os.getpid()], threads_here=len(threads()))
"""

    facts = run(FORK + program, tmp_path)

    assert facts["code"] == 0
    assert facts["threads_before"] == ["MainThread"]
    assert facts["own_starts"] is True
    assert facts["starts"] is True
    assert facts["threads_after"] == facts["threads_here"] > 1


def test_a_child_forked_before_anything_began_starts_its_own_work(tmp_path: Path) -> None:
    program = """
def child():
    enter("7")
    report(own_starts=starts == [os.getpid()], strangers=strangers)

codes = [in_child(child) for _ in range(2)]
report(codes=codes, starts=starts, threads=threads(), users=users())
"""

    facts = run(FORK + program, tmp_path)

    assert facts["codes"] == [0, 0]
    assert facts["own_starts"] is True
    assert facts["starts"] == []
    assert facts["threads"] == ["MainThread"]
    assert facts["users"] == ["7"]


def test_a_child_s_child_starts_its_own_work_too(tmp_path: Path) -> None:
    program = """
def grandchild():
    enter("8")
    report(own_starts=starts[-1] == os.getpid())

def child():
    enter("7")
    assert in_child(grandchild) == 0

report(code=in_child(child), users=users())
"""

    facts = run(FORK + program, tmp_path)

    assert facts == {"own_starts": True, "code": 0, "users": ["7", "8"]}


def test_parent_and_child_share_no_connection(tmp_path: Path) -> None:
    program = """
enter("7")

def child():
    enter("8")
    report(strangers_there=strangers, users_there=users())

code = in_child(child)
enter("9")
report(code=code, strangers_here=strangers, users_here=users())
"""

    facts = run(FORK + program, tmp_path)

    assert facts == {
        "code": 0,
        "strangers_there": [],
        "strangers_here": [],
        "users_there": ["7", "8"],
        "users_here": ["7", "8", "9"],
    }


def test_a_child_lets_go_of_none_of_its_parent_s_connections(tmp_path: Path) -> None:
    program = """
import sqlite3
from flask_presence.model import Identity
from flask_presence.settings import Settings
from flask_presence.tracker import holdings
holdings.RECONCILE_SECONDS = 0
Settings.renewal_interval = 0.05
app.extensions["presence"].tracker.connections.connect("c", Identity("7"), is_real=False)
app.extensions["presence"].tracker.connections.enter("c", "/room/1", None)

def holders():
    connection = sqlite3.connect(sys.argv[1] + "/presence.sqlite3")
    return connection.execute("SELECT user_id, worker FROM presence_members").fetchall()

def child():
    ticks = threading.Semaphore(0)
    state.tracker.on_tick(ticks.release)
    state.tracker.start()
    for _ in range(10):
        assert ticks.acquire(timeout=10)
    with app.app_context():
        presence.prune()
        presence.drain()
    state.stop()

before = holders()
code = in_child(child)
with app.app_context():
    revision = presence.channel("/room/1").state().revision
report(code=code, users=users(), revision=revision, same=holders() == before)
"""

    facts = run(FORK + program, tmp_path)

    assert facts == {"code": 0, "users": ["7"], "revision": 1, "same": True}


def test_a_child_forked_in_the_middle_of_a_write_is_not_stuck(tmp_path: Path) -> None:
    program = """
import signal

def child():
    # Whoever is stuck is ended, and fails the test by its exit code.
    signal.alarm(20)
    enter("child")
    users()

def fork_while_writing():
    began, done = threading.Event(), threading.Event()

    def write():
        number = 0
        while not done.is_set():
            number += 1
            enter(str(number % 7))
            with app.app_context():
                presence.channel("/room/1").update(client_id=str(number % 7), meta={"n": number})
            began.set()

    writer = threading.Thread(target=write)
    writer.start()
    began.wait()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child()
            code = 0
        finally:
            os._exit(code)
    done.set()
    writer.join()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

report(codes=[fork_while_writing() for _ in range(8)], came="child" in users())
"""

    facts = run(FORK + program, tmp_path)

    assert facts == {"codes": [0] * 8, "came": True}
