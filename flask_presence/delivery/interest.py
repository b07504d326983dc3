"""Which channels this process hears of, where the store carries events itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..backends.base import Listener

LINGER_SECONDS = 10.0
"""How long a channel is listened to after its last subscriber went: most pages come back."""


class Interest:
    """Follows the audiences of this process.

    :param listener: whom to ask for the channels; without one, nothing needs to be asked for.
    :param has_audience: has a channel subscribers in this process?
    """

    def __init__(
        self,
        listener: Listener | None,
        *,
        has_audience: Callable[[str], bool],
        clock: Callable[[], float],
    ) -> None:
        self._listener = listener
        self._has_audience = has_audience
        self._clock = clock
        self._lock = threading.Lock()
        self._joining: dict[str, int] = {}
        self._needed: dict[str, float] = {}
        """When each channel that is listened to was needed last."""

    @contextmanager
    def of(self, channel: str) -> Iterator[None]:
        """Hear of a channel while a client joins its audience.

        :raises BackendUnavailable: the store does not bring its events.
        """
        if self._listener is None:
            yield
            return
        with self._lock:
            self._joining[channel] = self._joining.get(channel, 0) + 1
        try:
            self._listener.add(channel)
            yield
        finally:
            with self._lock:
                self._needed[channel] = self._clock()
                self._joining[channel] -= 1
                if not self._joining[channel]:
                    del self._joining[channel]

    def sweep(self) -> None:
        """Stop to listen to channels whose audience has been gone for long."""
        if self._listener is None:
            return
        now = self._clock()
        for channel, needed in list(self._needed.items()):
            if self._has_audience(channel):
                self._needed[channel] = now
            elif now - needed > LINGER_SECONDS:
                self._discard(self._listener, channel)

    def _discard(self, listener: Listener, channel: str) -> None:
        # Under the lock, so that whoever joins now asks for the channel after this.
        with self._lock:
            if channel not in self._joining and not self._has_audience(channel):
                self._needed.pop(channel, None)
                listener.discard(channel)
