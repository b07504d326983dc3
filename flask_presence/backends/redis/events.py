"""What a script publishes, and answers, about the changes that it made."""

from __future__ import annotations

import json
from typing import Any, get_args

from ...model import Change, Kind, Reason
from ...protocol import load_object
from ..stored import Damaged, are_ids, are_whole

KINDS = frozenset(get_args(Kind))
REASONS = frozenset([False, *get_args(Reason)])


def changes_of(channel: str, text: str) -> list[Change]:
    """The changes in a text that ``saving.lua`` wrote; an empty one has none."""
    if not text:
        return []
    try:
        epoch, changes = json.loads(text)
        made = [_change_of(channel, epoch, *change) for change in changes]
    except (ValueError, TypeError, RecursionError) as error:
        raise Damaged(f"An event of {channel} is none: {error}") from error
    return made


def _change_of(
    channel: str,
    epoch: Any,
    kind: Any,
    revision: Any,
    user_id: Any,
    info: Any,
    meta: Any,
    count: Any,
    anonymous: Any,
    reason: Any,
) -> Change:
    are_ids([epoch, user_id] if user_id else [epoch], channel)
    are_whole([revision, count, anonymous], channel)
    if kind not in KINDS or reason not in REASONS:
        raise ValueError(f"{kind!r} because of {reason!r}")
    return Change(
        kind=kind,
        channel=channel,
        epoch=epoch,
        revision=revision,
        user_id=user_id or None,
        info=load_object(info),
        meta=load_object(meta),
        count=count,
        anonymous=anonymous,
        reason=reason or None,
    )
