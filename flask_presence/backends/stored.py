"""What a store gives back, checked: somebody else may have written it.

One value that no browser can read would disconnect everybody who watches, and one that cannot be
computed with would stop whoever prunes. A channel with such a value is lost, like one of which
the store lost a part: it begins anew, and its members come back with the next reconcile.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from ..errors import BackendUnavailable
from ..protocol import MAX_SAFE_INTEGER, are_plain_ids, check_id
from .base import Command, Told

log = logging.getLogger(__name__)

COMMANDS_KEPT = 600_000
"""Milliseconds for which a command stays readable."""

RESTORED_SECONDS = 600.0
"""For so long after a store started from what it had saved there may be clients who remember more
than it has."""


class Damaged(BackendUnavailable):
    """The store holds something that presence did not write, in this channel where it is known."""

    def __init__(self, message: str, channel: str | None = None) -> None:
        super().__init__(message)
        self.channel = channel


def is_whole(value: Any) -> bool:
    """Is this a number that presence counts with?"""
    return type(value) is int and 0 <= value <= MAX_SAFE_INTEGER


def is_id(value: Any) -> bool:
    """Is this the id of a client, user, worker or epoch?"""
    try:
        return isinstance(value, str) and check_id(value, "id") == value
    except ValueError:
        return False


def are_whole(values: Sequence[Any], channel: str) -> None:
    """Raise `Damaged` unless all of a channel's numbers are some."""
    are_plainly = set(map(type, values)) <= {int} and (
        not values or (min(values) >= 0 and max(values) <= MAX_SAFE_INTEGER)
    )
    if not are_plainly:
        raise Damaged(f"The store holds numbers of {channel} that are none.", channel)


def are_ids(values: Sequence[Any], channel: str) -> None:
    """Raise `Damaged` unless all of a channel's ids are some."""
    if not are_plain_ids(values) and not all(map(is_id, values)):
        raise Damaged(f"The store holds ids of {channel} that are none.", channel)


def told_of(number: Any, at: Any, fields: Any, now: int) -> Told | None:
    """A command as a worker reads it; ``None``, and a line in the log, where it is none."""
    is_command = (
        is_whole(number)
        and is_whole(at)
        and isinstance(fields, (list, tuple))
        and len(fields) == len(Command.__dataclass_fields__)
        and isinstance(fields[0], str)
        and all(field is None or isinstance(field, str) for field in fields)
    )
    if not is_command:
        log.error("The store holds a command that presence did not give: it is passed over")
        return None
    return Told(number, max(0, now - at) / 1000, Command(*fields))


def told_of_text(text: str, now: int) -> Told | None:
    """The same, from the JSON that ``tell.lua`` wrote."""
    try:
        number, at, fields = json.loads(text)
        return told_of(int(number), int(at), json.loads(fields), now)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return told_of(None, None, None, now)
