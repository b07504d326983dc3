"""Presence for Flask: who is here, over Flask-SocketIO."""

from .channels import ChannelConfig
from .decorators import remove_presence, touch_presence
from .errors import (
    AccessDenied,
    BackendUnavailable,
    ChannelFull,
    ChannelNotFound,
    ChannelUnavailable,
    InvalidChannelConfig,
    PresenceError,
)
from .extension import Presence
from .model import Change, State, User

__version__ = "0.1.0"

__all__ = [
    "AccessDenied",
    "BackendUnavailable",
    "Change",
    "ChannelConfig",
    "ChannelFull",
    "ChannelNotFound",
    "ChannelUnavailable",
    "InvalidChannelConfig",
    "Presence",
    "PresenceError",
    "State",
    "User",
    "remove_presence",
    "touch_presence",
]
