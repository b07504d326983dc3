"""``flask presence``: the command line. It starts no thread and needs no server process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from time import sleep
from typing import Any

import click
from flask import current_app
from flask.cli import AppGroup, ScriptInfo

from .delivery.wire import state_form
from .doctor import Patient, examine
from .errors import BackendUnavailable, ChannelNotFound, PresenceError
from .model import State, User
from .protocol import check_channel_name, check_prefix
from .tracker import Tracker
from .tracker.watch import Sight

LOOK_SECONDS = 1.0
"""How often ``watch`` looks."""


class PresenceGroup(AppGroup):
    """Tells what went wrong in a sentence, and exits with 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PresenceError as error:
            raise click.ClickException(f"{error}{_advice(error)}") from error


def _advice(error: PresenceError) -> str:
    if isinstance(error, ChannelNotFound):
        return " 'flask presence channels' lists those where somebody is."
    if isinstance(error, BackendUnavailable):
        return " PRESENCE_BACKEND says where the store is."
    return ""


presence_commands = PresenceGroup("presence", help="Who is in which channel.")


def _checked_by(check: Callable[[Any], str]) -> Callable[..., str | None]:
    """For an argument: what is malformed is wrong usage, which exits with 2."""

    def callback(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
        try:
            return None if value is None else check(value)
        except PresenceError as error:
            raise click.BadParameter(str(error), ctx, parameter) from error

    return callback


channel_argument = click.argument("channel", callback=_checked_by(check_channel_name))
any_channel_argument = click.argument(
    "channel", required=False, callback=_checked_by(check_channel_name)
)
json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")


def _presence() -> Any:
    try:
        return current_app.extensions["presence"]
    except KeyError:
        raise click.ClickException(
            "This app has no presence: call presence.init_app(app)."
        ) from None


def _tracker() -> Tracker:
    tracker: Tracker = _presence().tracker
    if not tracker.backend.shared:
        click.echo(
            "Note: presence is kept in each process by itself; this one sees only its own. "
            "PRESENCE_BACKEND names a store for all.",
            err=True,
        )
    return tracker


def _state(tracker: Tracker, channel: str) -> State:
    """The state of a channel; one without a config may still have someone in it.

    :raises ChannelNotFound: there is no such channel, and nobody is or was in it.
    """
    state = tracker.states.state(channel)
    if state.epoch is None:
        tracker.registry.resolve(channel)
    return state


# Looking


@presence_commands.command()
@click.argument("prefix", required=False, callback=_checked_by(check_prefix))
@json_option
def channels(prefix: str | None, as_json: bool) -> None:
    """List channels where somebody is, and how many users; all, or those below PREFIX.

    What a killed process leaves behind is counted until somebody prunes.
    """
    found = _tracker().backend.channels(prefix)
    if as_json:
        _print_json(found)
    elif found:
        _print_table(("USERS", "CHANNEL"), [(str(found[name]), name) for name in sorted(found)])
    else:
        click.echo("Nobody is in any channel.", err=True)


@presence_commands.command()
@channel_argument
@json_option
def show(channel: str, as_json: bool) -> None:
    """Show who is in CHANNEL, in the order of entering."""
    state = _state(_tracker(), channel)
    if as_json:
        _print_json(state_form(state, count_only=False))
        return
    click.echo(f"{channel}: {_count(state)}, revision {state.revision}")
    if state.users:
        rows = [(user.id, _compact(user.info), _compact(user.meta)) for user in state.users]
        _print_table(("USER", "INFO", "META"), rows)


@presence_commands.command()
@any_channel_argument
@json_option
def watch(channel: str | None, as_json: bool) -> None:
    """Show comings and goings as they happen, in CHANNEL or in all; Ctrl-C ends it.

    Looks once a second: who came and went in between is not shown.
    """
    tracker = _tracker()
    if channel is not None:
        _state(tracker, channel)
    watching = tracker.watch(channel)
    try:
        states = watching.begin()
        if channel is None:
            where = f"all channels (somebody is in {len(states)})"
        else:
            where = f"{channel} ({_count(states[0] if states else State(channel))})"
        click.echo(f"Watching {where}; Ctrl-C ends it.", err=True)
        while True:
            sleep(LOOK_SECONDS)
            for sight in watching.look():
                click.echo(json.dumps(_sight_form(sight)) if as_json else _sight_line(sight))
    except KeyboardInterrupt:
        return


def _sight_form(sight: Sight) -> dict[str, Any]:
    kind, state, user, _ = sight
    return {
        "time": datetime.now().astimezone().isoformat(timespec="milliseconds"),
        "kind": kind,
        "channel": state.channel,
        "epoch": state.epoch,
        "revision": state.revision,
        "user_id": None if user is None else user.id,
        "info": {} if user is None else user.info,
        "meta": {} if user is None else user.meta,
        "count": state.count,
        "anonymous": state.anonymous,
    }


def _sight_line(sight: Sight) -> str:
    who = f"{sight.number} anonymous" if sight.user is None else _who(sight.user)
    now = datetime.now().strftime("%H:%M:%S")
    return f"{now}  {sight.kind:7}  {_printable(sight.state.channel)}  {who}"


def _who(user: User) -> str:
    extras = [_compact(value) for value in (user.info, user.meta) if value]
    return "  ".join([_printable(user.id), *extras])


# Changing


@presence_commands.command()
def prune() -> None:
    """End what is due: clients whose deadline or whose worker's lease has run out."""
    changes = _tracker().prune()
    click.echo(f"{_many(len(changes), 'change')}.")


@presence_commands.command("prune-channels")
def prune_channels() -> None:
    """Forget channels that have been empty for PRESENCE_CHANNEL_RETENTION."""
    number = _tracker().prune_channels()
    click.echo(f"{_many(number, 'channel')} forgotten.")


@presence_commands.command()
@any_channel_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
def clear(channel: str | None, yes: bool) -> None:
    """Take everyone out of CHANNEL, or of all channels."""
    tracker = _tracker()
    if channel is not None:
        _state(tracker, channel)
        changes = tracker.commands.evict(channel, reason="cleared")
    else:
        if not yes:
            click.confirm("Take everyone out of all channels?", abort=True, err=True)
        changes = tracker.clear()
    click.echo(f"{len(changes)} left.")


# Setting up


@presence_commands.command("init-db")
def init_db() -> None:
    """Make the tables, where they are missing."""
    backend = _tracker().backend
    backend.prepare()
    backend.check()
    click.echo("The presence store is ready.")


@presence_commands.command(with_appcontext=False)
@json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Look for what would go wrong, and say what to do; a problem exits with 1."""
    # The flask command makes Flask-SocketIO take threading; a server's process is looked at here.
    os.environ.pop("FLASK_RUN_FROM_CLI", None)
    app = ctx.ensure_object(ScriptInfo).load_app()
    with app.app_context():
        presence = _presence()
        findings = examine(
            Patient(
                backend=presence.backend,
                settings=presence.settings,
                engine=presence.transport.engine,
                has_queue=presence.transport.crosses_processes,
                environ=os.environ,
            )
        )
    if as_json:
        _print_json([finding._asdict() for finding in findings])
    else:
        for check, status, text in findings:
            click.echo(f"{status:7}  {check:10}  {text}")
    if any(finding.status == "problem" for finding in findings):
        ctx.exit(1)


# Printing


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [head, *([_printable(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _count(state: State) -> str:
    users = _many(state.count, "user")
    return f"{users}, {state.anonymous} anonymous" if state.anonymous else users


def _many(number: int, noun: str) -> str:
    return f"1 {noun}" if number == 1 else f"{number} {noun}s"


def _compact(value: dict[str, Any]) -> str:
    return _printable(json.dumps(value, ensure_ascii=False)) if value else ""


def _printable(text: str) -> str:
    """Escape what could steer the terminal: users choose their names."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
