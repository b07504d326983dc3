"""What a script publishes, and answers, about the changes that it made."""

from __future__ import annotations

import json

from ...model import Change
from ...protocol import load_object


def changes_of(channel: str, text: str) -> list[Change]:
    """The changes in a text that ``scene.lua`` wrote; an empty one has none."""
    if not text:
        return []
    epoch, changes = json.loads(text)
    return [
        Change(
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
        for kind, revision, user_id, info, meta, count, anonymous, reason in changes
    ]
