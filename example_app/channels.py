"""Where people can be, who may see them there, and what others see of them."""

from __future__ import annotations

from flask import url_for

from flask_presence import ChannelConfig, Presence

from .models import Topic, User, db

presence = Presence()


@presence.channel_config("/topic/<int:topic_id>")
def topic_channel(topic_id: int) -> ChannelConfig | None:
    topic = db.session.get(Topic, topic_id)
    if topic is None:
        return None
    if topic.group_id is None:
        return ChannelConfig(public=True)
    return ChannelConfig(allowed_group_ids={topic.group_id})


@presence.channel_config("/site/online")
def online_channel() -> ChannelConfig:
    """How many are signed in and on some page. A guest who goes from page to page leaves and
    comes back, which would make the number jump: so guests see it, and are not in it."""
    return ChannelConfig(public=True, count_only=True)


@presence.channel_config("/lobby/guests")
def lobby_channel() -> ChannelConfig:
    return ChannelConfig(public=True, anonymous=True)


@presence.user_info
def user_info(user: User) -> dict[str, str]:
    return {"name": user.name, "avatar": url_for("views.avatar", user_id=user.id)}


@presence.user_groups
def user_groups(user: User) -> list[int]:
    return [group.id for group in user.groups]
