"""Which channels there are, and who may view and enter them."""

from .config import ChannelConfig
from .permission import can_enter, can_view
from .registry import Registry, Rules

__all__ = ["ChannelConfig", "Registry", "Rules", "can_enter", "can_view"]
