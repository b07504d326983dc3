"""Blinker signals for the app's own code, sent after the commit by whoever made the change.

Receivers get the app as sender; ``channel`` is the channel's name and ``change`` a `Change`.
"""

from __future__ import annotations

from blinker import Namespace

_signals = Namespace()

user_entered = _signals.signal("presence-user-entered")
"""A user's first client entered: ``(app, channel=, user_id=, change=)``."""

user_left = _signals.signal("presence-user-left")
"""A user's last client left: ``(app, channel=, user_id=, change=)``."""

presence_changed = _signals.signal("presence-changed")
"""Any visible change, anonymous clients included: ``(app, channel=, change=)``."""

channel_occupied = _signals.signal("presence-channel-occupied")
"""The first client is in a channel that was empty: ``(app, channel=)``."""

channel_vacated = _signals.signal("presence-channel-vacated")
"""The last client left the channel: ``(app, channel=)``."""
