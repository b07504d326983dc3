"""``flask presence``: the command line."""

from __future__ import annotations

import click
from flask import current_app
from flask.cli import AppGroup

from .errors import PresenceError
from .tracker import Tracker

presence_commands = AppGroup("presence", help="Who is in which channel.")


def _tracker() -> Tracker:
    try:
        tracker: Tracker = current_app.extensions["presence"].tracker
    except KeyError:
        raise click.ClickException(
            "This app has no presence: call presence.init_app(app)."
        ) from None
    return tracker


@presence_commands.command("init-db")
def init_db() -> None:
    """Make the tables, where they are missing."""
    try:
        _tracker().backend.prepare()
    except PresenceError as error:
        raise click.ClickException(str(error)) from error
    click.echo("The presence store is ready.")


@presence_commands.command()
def prune() -> None:
    """End what is due: clients whose deadline or whose worker's lease has run out."""
    try:
        changes = _tracker().prune()
    except PresenceError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{len(changes)} changes.")
