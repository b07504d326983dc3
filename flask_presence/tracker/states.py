"""What may be seen: states of channels, for those who may view them."""

from __future__ import annotations

from collections.abc import Callable, Collection

from ..backends.base import Reading
from ..channels import ChannelConfig, can_view
from ..delivery.wire import Form, state_form
from ..errors import ChannelNotFound
from ..model import Identity, State
from .parts import Parts
from .reads import SharedReads

MAX_TURNS = 4
"""How often a channel may turn while its subscribers are moved."""


class States:
    """Reads channels. A read that meets the dead announces their leaving first."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.on_owed: Callable[[], object] = lambda: None
        """Called when subscribers are owed a state."""
        self._reads: SharedReads[Reading] = SharedReads(parts.backend.state)

    def state(self, channel: str) -> State:
        """The channel's state, from a read that began after this call."""
        while True:
            (state, changes), was_mine = self._reads.get(channel)
            # Announced by whoever read it, with nothing held: a receiver may read again.
            if was_mine:
                self._parts.announcer.announce(changes)
            if state is not None:
                return state

    def count(self, channel: str) -> State:
        """Like `state`, without the users."""
        while True:
            state, changes = self._parts.backend.count(channel)
            self._parts.announcer.announce(changes)
            if state is not None:
                return state

    def viewable(self, channel: str, identity: Identity) -> ChannelConfig:
        """The channel's config.

        :raises ChannelNotFound: there is none, or this identity may not view it.
        """
        config = self._parts.registry.resolve(channel)
        if not can_view(config, identity):
            raise ChannelNotFound(channel)
        return config

    def forms(self, channels: Collection[str], identity: Identity) -> dict[str, Form | None]:
        """The wire form of each channel that this identity may view, else ``None``."""
        configs = {channel: self._config_or_none(channel, identity) for channel in channels}
        return {channel: self._form(channel, config) for channel, config in configs.items()}

    def _config_or_none(self, channel: str, identity: Identity) -> ChannelConfig | None:
        try:
            return self.viewable(channel, identity)
        except ChannelNotFound:
            return None

    def _form(self, channel: str, config: ChannelConfig | None) -> Form | None:
        if config is None:
            return None
        return state_form(self.state(channel), count_only=config.count_only)

    def push(self, channel: str) -> None:
        """Send the state to everyone in this process who watches the channel."""
        self._parts.rooms.push_state(self._latest(channel))

    def _latest(self, channel: str) -> State:
        """The state; where it is older than what was known before it was read, the store turned
        back, and whoever heals gives the channel a new epoch."""
        known = self._parts.feed.known_of(channel)
        state = self.state(channel)
        is_same = state.epoch is not None and state.epoch == known.epoch
        if is_same and state.revision < known.revision:
            self._parts.feed.give_up(channel, str(state.epoch))
            self.on_owed()
        return state

    def move_audience(self, channel: str) -> None:
        """Take along those who watch a channel that turned count-only or back.

        They are owed a state of the new form; whoever heals sends it.
        """
        count_only = self._parts.registry.resolve(channel).count_only
        for _ in range(MAX_TURNS):
            if self._parts.rooms.move_audience(channel, count_only=count_only):
                self.on_owed()
            # A config that was read before everybody was told to forget it decides nothing.
            latest = self._parts.registry.resolve(channel).count_only
            if latest == count_only:
                return
            count_only = latest

    def watched_form(self, channel: str, identity: Identity) -> Form | None:
        """The wire form for one who watches the channel; ``None`` where they may not view it."""
        config = self._config_or_none(channel, identity)
        if config is None:
            return None
        self.move_audience(channel)
        return self.form_for_audience(channel, config)

    def form_for_audience(self, channel: str, config: ChannelConfig) -> Form:
        """The state in the form of the room that the channel's subscribers are in."""
        state = self._latest(channel)
        self._parts.feed.note_read(channel, state.position)
        count_only = self._parts.rooms.is_counted(channel)
        return state_form(state, count_only=config.count_only if count_only is None else count_only)
