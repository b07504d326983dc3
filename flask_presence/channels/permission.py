"""Who may view and enter a channel."""

from __future__ import annotations

from ..model import Identity
from .config import ChannelConfig


def can_view(config: ChannelConfig, identity: Identity) -> bool:
    """May this identity see the channel?"""
    if config.public:
        return True
    if identity.user_id is None:
        return False
    users, groups = config.allowed_user_ids, config.allowed_group_ids
    # Both are frozensets of strings by now.
    return (isinstance(users, frozenset) and identity.user_id in users) or (
        isinstance(groups, frozenset) and not identity.group_ids.isdisjoint(groups)
    )


def can_enter(config: ChannelConfig, identity: Identity) -> bool:
    """May this identity be in the channel, unless it is full?"""
    has_place = identity.user_id is not None or config.anonymous
    return has_place and can_view(config, identity)
