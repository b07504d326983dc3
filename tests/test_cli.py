"""``flask presence`` shows and changes who is where, from a process that serves nobody."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from processes import Command, free_port
from wire import eventually

from flask_presence import Presence
from flask_presence.cli import presence_commands

Run = Callable[..., Result]

SQLITE = "sqlite:///presence.sqlite3"
UNKNOWN = "/nowhere/1"
MALFORMED = ["room", "/room", "/room/", "/ro om/1", "/room/1 ", "/room/\x07"]


@pytest.fixture(params=["memory://", SQLITE, "redis"])
def app_and_presence(request: pytest.FixtureRequest, make_app: Any) -> tuple[Flask, Presence]:
    url = request.param
    if url == "redis":
        url = request.getfixturevalue("redis").url
    made: tuple[Flask, Presence] = make_app(PRESENCE_BACKEND=url, PRESENCE_CHANNEL_RETENTION=0)
    return made


@pytest.fixture
def presence(app_and_presence: tuple[Flask, Presence]) -> Any:
    app, presence = app_and_presence
    with app.app_context():
        yield presence


@pytest.fixture
def run(app_and_presence: tuple[Flask, Presence]) -> Run:
    return runner(app_and_presence[0])


def runner(app: Flask) -> Run:
    def run(*words: str, **options: Any) -> Result:
        return app.test_cli_runner().invoke(presence_commands, words, **options)

    return run


@pytest.fixture
def quick(make_app: Any) -> Run:
    """Runs on a store of which nothing depends."""
    return runner(make_app(PRESENCE_BACKEND=SQLITE)[0])


def fails(result: Result, code: int, *words: str) -> None:
    """It says in one sentence what is wrong, on stderr and nowhere else."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert isinstance(result.exception, SystemExit)
    for word in words:
        assert word in result.stderr


# channels


def test_channels_lists_where_somebody_is(run: Run, presence: Presence) -> None:
    presence.channel("/room/10").enter("7", client_id="a")
    presence.channel("/room/10").enter("8", client_id="b")
    presence.channel("/mixed/x").enter(None, client_id="c")
    presence.channel("/room/2").enter("7", client_id="a")
    presence.channel("/room/2").leave(client_id="a")

    result = run("channels")

    assert result.exit_code == 0
    assert result.stdout == "USERS  CHANNEL\n0      /mixed/x\n2      /room/10\n"


def test_channels_of_a_prefix_leaves_out_the_others(run: Run, presence: Presence) -> None:
    presence.channel("/room/1").enter("7", client_id="a")
    presence.channel("/mixed/x").enter("7", client_id="a")

    result = run("channels", "room", "--json")

    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"/room/1": 1}


def test_where_nobody_is_channels_lists_nothing(run: Run) -> None:
    people, programs = run("channels"), run("channels", "--json")

    assert (people.exit_code, people.stdout) == (0, "")
    assert "Nobody" in people.stderr
    assert (programs.exit_code, json.loads(programs.stdout)) == (0, {})


@pytest.mark.parametrize("prefix", ["/room", "room/", "ro om", ""])
def test_a_malformed_prefix_is_wrong_usage(quick: Run, prefix: str) -> None:
    fails(quick("channels", prefix), 2, "is no bare prefix", "PREFIX")


# show


def test_show_lists_users_in_the_order_of_entering(run: Run, presence: Presence) -> None:
    channel = presence.channel("/mixed/x")
    channel.enter("twelve", client_id="a", meta={"typing": True})
    channel.enter("7", client_id="b")
    channel.enter(None, client_id="c")

    result = run("show", "/mixed/x")

    assert result.exit_code == 0
    assert result.stdout == (
        "/mixed/x: 2 users, 1 anonymous, revision 3\n"
        "USER    INFO                META\n"
        'twelve  {"name": "twelve"}  {"typing": true}\n'
        '7       {"name": "7"}\n'
    )


def test_show_gives_programs_the_state_of_the_wire(run: Run, presence: Presence) -> None:
    channel = presence.channel("/count/x")
    channel.enter("7", client_id="a", force=True)

    result = run("show", "/count/x", "--json")

    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "channel": "/count/x",
        "epoch": channel.state().epoch,
        "revision": 1,
        "count": 1,
        "anonymous": 0,
        "users": [{"id": "7", "info": {"name": "7"}, "meta": {}}],
    }


def test_a_channel_that_nobody_ever_entered_is_shown_empty(run: Run) -> None:
    people, programs = run("show", "/room/1"), run("show", "/room/1", "--json")

    assert (people.exit_code, people.stdout) == (0, "/room/1: 0 users, revision 0\n")
    assert json.loads(programs.stdout)["epoch"] is None


def test_what_users_chose_cannot_steer_the_terminal(run: Run, presence: Presence) -> None:
    presence.channel("/room/1").enter("7", client_id="a", meta={"x": "\x9b2J\u202eevil é"})

    result = run("show", "/room/1")

    assert result.exit_code == 0
    assert result.stdout.replace("\n", "").isprintable()
    assert "é" in result.stdout


# Channels that there are not


@pytest.mark.parametrize("command", ["show", "watch", "clear"])
def test_an_unknown_channel_is_an_error(quick: Run, command: str) -> None:
    fails(quick(command, UNKNOWN), 1, "no channel '/nowhere/1'", "flask presence channels")


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("command", ["show", "watch", "clear"])
def test_a_malformed_name_is_wrong_usage(quick: Run, command: str, name: str) -> None:
    fails(quick(command, name), 2, "is no channel name")


@pytest.mark.parametrize("command", ["show", "clear"])
def test_a_channel_that_lost_its_config_can_be_looked_at_and_cleared(
    make_app: Any, command: str
) -> None:
    app, presence = make_app(PRESENCE_BACKEND=SQLITE)
    topics = {"1"}

    @presence.channel_config("topic")  # type: ignore[untyped-decorator, unused-ignore]
    def topic(name: str) -> Any:
        from flask_presence import ChannelConfig

        return ChannelConfig() if name.removeprefix("/topic/") in topics else None

    with app.app_context():
        presence.channel("/topic/1").enter("7", client_id="a", force=True)
        topics.clear()
        presence.forget_config()

    result = runner(app)(command, "/topic/1")

    assert result.exit_code == 0
    assert result.stdout


def test_a_channel_whose_callback_raises_is_unavailable(quick: Run) -> None:
    fails(quick("show", "/broken/1"), 1, "The configuration of /broken/1 failed.")


# prune, prune-channels, clear


def test_prune_ends_what_is_due(make_app: Any) -> None:
    app, presence = make_app(
        PRESENCE_BACKEND=SQLITE, PRESENCE_TIMEOUT=0.01, PRESENCE_HEARTBEAT_INTERVAL=0.005
    )
    with app.app_context():
        presence.channel("/room/1").enter("7", client_id="a")
        presence.channel("/room/2").enter("7", client_id="a")
    run = runner(app)
    ended = []

    def is_done() -> bool:
        result = run("prune")
        assert result.exit_code == 0
        ended.append(int(result.stdout.split()[0]))
        return sum(ended) == 2

    eventually(is_done)
    assert run("prune").stdout == "0 changes.\n"
    assert run("channels", "--json").stdout == "{}\n"


def test_prune_channels_forgets_the_empty_ones(run: Run, presence: Presence) -> None:
    presence.channel("/room/1").enter("7", client_id="a")
    presence.channel("/room/2").enter("7", client_id="a")
    presence.channel("/room/2").leave(client_id="a")

    assert eventually(lambda: run("prune-channels").stdout == "1 channel forgotten.\n")

    assert presence.channel("/room/1").state().revision == 1
    assert presence.channel("/room/2").state().epoch is None


def test_clear_takes_everyone_out_of_one_channel(run: Run, presence: Presence) -> None:
    room = presence.channel("/room/1")
    room.enter("7", client_id="a")
    room.enter("8", client_id="b")
    presence.channel("/room/2").enter("7", client_id="a")

    result = run("clear", "/room/1")

    assert (result.exit_code, result.stdout) == (0, "2 left.\n")
    assert presence.channels() == {"/room/2": 1}
    assert room.state().revision == 4


def test_clear_of_all_asks_first(run: Run, presence: Presence) -> None:
    presence.channel("/room/1").enter("7", client_id="a")

    no, nothing = run("clear", input="n\n"), run("clear", input="")
    kept = presence.channels()
    yes = run("clear", input="y\n")

    fails(no, 1, "all channels?", "Aborted")
    fails(nothing, 1, "all channels?", "Aborted")
    assert kept == {"/room/1": 1}
    assert (yes.exit_code, yes.stdout) == (0, "1 left.\n")
    assert presence.channels() == {}


def test_clear_of_all_does_not_ask_where_yes_was_said(run: Run, presence: Presence) -> None:
    presence.channel("/room/1").enter("7", client_id="a")
    presence.channel("/mixed/1").enter(None, client_id="b")

    result = run("clear", "--yes", input="")

    assert (result.exit_code, result.stdout) == (0, "2 left.\n")
    assert "?" not in result.stderr
    assert presence.channels() == {}


# What goes wrong

COMMANDS = [
    ("channels",),
    ("show", "/room/1"),
    ("watch", "/room/1"),
    ("watch",),
    ("prune",),
    ("prune-channels",),
    ("clear", "/room/1"),
    ("clear", "--yes"),
    ("init-db",),
]
"""Every command that asks the store."""


def test_each_command_is_tried_without_a_store() -> None:
    assert {words[0] for words in COMMANDS} | {"doctor"} == set(presence_commands.commands)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_store_that_is_down_is_told_in_a_sentence(make_app: Any, words: tuple[str, ...]) -> None:
    url = f"redis://127.0.0.1:{free_port()}"

    fails(runner(make_app(PRESENCE_BACKEND=url)[0])(*words), 1, url, "PRESENCE_BACKEND")


@pytest.mark.parametrize("words", [*COMMANDS, ("doctor",)], ids=" ".join)
def test_an_app_without_presence_is_told_which_line_is_missing(words: tuple[str, ...]) -> None:
    fails(runner(Flask(__name__))(*words), 1, "presence.init_app(app)")


@pytest.mark.parametrize(
    "words", [("show",), ("channels", "a", "b"), ("nonsense",), ("prune", "--json")], ids=" ".join
)
def test_wrong_usage_exits_with_2(quick: Run, words: tuple[str, ...]) -> None:
    fails(quick(*words), 2, "Usage:")


def test_of_a_store_in_memory_a_command_says_that_it_sees_only_its_own(make_app: Any) -> None:
    in_memory = runner(make_app()[0])("channels", "--json")
    shared = runner(make_app(PRESENCE_BACKEND=SQLITE)[0])("channels", "--json")

    assert "PRESENCE_BACKEND" in in_memory.stderr
    assert shared.stderr == ""
    assert in_memory.stdout == shared.stdout == "{}\n"


# watch


class Looks:
    """Stands for the pauses of ``watch``: acts in each of them, and presses Ctrl-C in the end."""

    def __init__(self, *acts: Callable[[], object]) -> None:
        self._acts = list(acts)
        self.pauses: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if not self._acts:
            raise KeyboardInterrupt
        self._acts.pop(0)()


def test_watch_shows_time_what_channel_and_user(
    run: Run, presence: Presence, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = presence.channel("/mixed/1")
    room.enter("9", client_id="z")
    looks = Looks(
        lambda: room.enter("7", client_id="a"),
        lambda: room.update(client_id="a", meta={"n": 1}),
        lambda: room.enter(None, client_id="b"),
        lambda: room.leave(client_id="a"),
    )
    monkeypatch.setattr("flask_presence.cli.sleep", looks)

    result = run("watch", "/mixed/1")

    assert result.exit_code == 0
    assert "Watching /mixed/1 (1 user)" in result.stderr
    assert re.sub(r"\d\d:\d\d:\d\d", "12:34:56", result.stdout) == (
        '12:34:56  entered  /mixed/1  7  {"name": "7"}\n'
        '12:34:56  updated  /mixed/1  7  {"name": "7"}  {"n": 1}\n'
        "12:34:56  entered  /mixed/1  1 anonymous\n"
        '12:34:56  left     /mixed/1  7  {"name": "7"}  {"n": 1}\n'
    )
    assert set(looks.pauses) == {1.0}


def test_watch_of_all_gives_programs_one_object_a_line(
    run: Run, presence: Presence, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, other = presence.channel("/room/1"), presence.channel("/mixed/2")
    looks = Looks(
        lambda: room.enter("7", client_id="a", meta={"n": 1}),
        lambda: other.enter(None, client_id="b"),
    )
    monkeypatch.setattr("flask_presence.cli.sleep", looks)

    result = run("watch", "--json")

    assert result.exit_code == 0
    entered, anonymous = map(json.loads, result.stdout.splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", entered.pop("time"))
    assert entered == {
        "kind": "entered",
        "channel": "/room/1",
        "epoch": room.state().epoch,
        "revision": 1,
        "user_id": "7",
        "info": {"name": "7"},
        "meta": {"n": 1},
        "count": 1,
        "anonymous": 0,
    }
    assert (anonymous["channel"], anonymous["user_id"], anonymous["anonymous"]) == (
        "/mixed/2",
        None,
        1,
    )


def test_watch_ends_with_a_sentence_when_the_store_goes_away(
    make_app: Any, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runner(make_app(PRESENCE_BACKEND=redis.url)[0])
    monkeypatch.setattr("flask_presence.cli.sleep", Looks(redis.stop))

    fails(run("watch"), 1, f":{redis.port} failed", "Watching all channels")


# Real processes


@pytest.fixture(params=["sqlite", "sqlite with a message queue", "redis"])
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What servers and commands have in common; renewals are far apart where events are quick."""
    if request.param == "sqlite":
        return {"PRESENCE_WORKER_TIMEOUT": 1.5}
    redis = request.getfixturevalue("redis")
    if request.param == "redis":
        return {"PRESENCE_BACKEND": redis.url, "PRESENCE_WORKER_TIMEOUT": 300}
    return {"SOCKETIO": {"message_queue": redis.url}, "PRESENCE_WORKER_TIMEOUT": 300}


def test_watch_shows_a_real_client_of_a_real_server_until_ctrl_c(
    spawn: Any, dial: Any, flask_presence: Any, config: dict[str, Any]
) -> None:
    server = spawn(**config)
    one: Command = flask_presence("watch", "/room/1", "--json", config=config)
    all_: Command = flask_presence("watch", config=config)
    for command in (one, all_):
        command.wait_for(lambda errors=command.errors: "Watching" in "".join(errors))

    wire = dial(server.port, "ada")
    assert wire.call("enter", {"channel": "/room/1"})["ok"]
    for command in (one, all_):
        command.wait_for(lambda output=command.output: len(output) == 1)
    assert wire.call("leave", {"channel": "/room/1"})["ok"]
    for command in (one, all_):
        command.wait_for(lambda output=command.output: len(output) == 2)
        command.interrupt()

    assert [command.finish() for command in (one, all_)] == [0, 0]
    seen = [json.loads(line) for line in one.output]
    assert [(line["kind"], line["user_id"]) for line in seen] == [
        ("entered", "ada"),
        ("left", "ada"),
    ]
    assert [line.split()[1:4] for line in all_.output] == [
        ["entered", "/room/1", "ada"],
        ["left", "/room/1", "ada"],
    ]
    assert "Traceback" not in "".join(one.errors + all_.errors)


def test_what_a_command_changes_reaches_the_subscribers_of_running_servers(
    spawn: Any, dial: Any, flask_presence: Any, config: dict[str, Any]
) -> None:
    server = spawn(**config)
    watcher, ada = dial(server.port, "bob"), dial(server.port, "ada")
    assert ada.call("enter", {"channel": "/room/1"})["ok"]
    state = watcher.call("subscribe", {"channel": "/room/1"})["state"]
    assert [user["id"] for user in state["users"]] == ["ada"]

    clear: Command = flask_presence("clear", "/room/1", config=config)

    assert clear.finish() == 0, clear.errors
    assert clear.output == ["1 left.\n"]
    if "PRESENCE_BACKEND" in config or "SOCKETIO" in config:
        diff = watcher.wait_for("diff", lambda diff: diff.get("left"))
        assert [user["id"] for user in diff["left"]] == ["ada"]
    else:
        watcher.wait_for("state", lambda state: state["count"] == 0)
    show: Command = flask_presence("show", "/room/1", "--json", config=config)
    assert show.finish() == 0
    assert json.loads("".join(show.output))["count"] == 0


def test_a_cleared_client_is_told(spawn: Any, dial: Any, flask_presence: Any, redis: Any) -> None:
    config = {"PRESENCE_BACKEND": redis.url}
    server = spawn(**config)
    ada = dial(server.port, "ada")
    assert ada.call("enter", {"channel": "/room/1"})["ok"]

    clear: Command = flask_presence("clear", "--yes", config=config)

    assert clear.finish() == 0
    assert ada.wait_for("evicted") == {"channel": "/room/1", "reason": "cleared"}
