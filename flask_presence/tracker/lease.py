"""This process as the store knows it: a worker with a lease, under an id that may change."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable
from typing import NamedTuple

from ..backends.base import Renewal
from ..errors import BackendUnavailable
from ..model import Position
from .parts import Parts

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.5
"""After the store refused a lease, it is not asked again for a moment."""


class Renewed(NamedTuple):
    """A renewal, what was known when it was asked for, and when it was asked for and answered."""

    renewal: Renewal
    known: dict[str, Position]
    asked: float
    answered: float


class Lease:
    """Renewed by a loop of its own, in which nothing of the app's runs.

    :param on_gone: called when the store holds the lease no longer, before a new one begins. Gets
        the moment since which clients must have been heard to be put back, or ``None`` for all.
    """

    def __init__(self, parts: Parts, on_gone: Callable[[float | None], None]) -> None:
        self._backend = parts.backend
        self._feed = parts.feed
        self._clock = parts.clock
        self._timeout = parts.settings.worker_timeout
        self._on_gone = on_gone
        self._lock = threading.RLock()
        # From the start: a command may come between a connection and the first renewal, and who
        # connected after it is not meant.
        self._cursor = 0
        self._tried_at = self._clock()
        self._refused_at = float("-inf")
        self._frozen_at: float | None = None
        self.id: str | None = None
        self.drained = False

    def hold(self) -> str:
        """The id under which this process may hold members now; a lease begins where there is none.

        :raises BackendUnavailable: the process is stopping, or the store does not answer.
        """
        with self._lock:
            if self.drained:
                raise BackendUnavailable("This server process is stopping.")
            if self.id is None and self._clock() - self._refused_at < PAUSE_SECONDS:
                # Whoever asked now would wait behind all others who do.
                raise BackendUnavailable("The store gave this process no lease just now.")
            return self.id if self.id is not None else self._begin()

    def _begin(self) -> str:
        worker = secrets.token_urlsafe(12)
        try:
            self._backend.renew(worker, self._timeout, create=True)
        except BackendUnavailable:
            self._refused_at = self._clock()
            raise
        self.id = worker
        return worker

    def renew(self, *, with_positions: bool = True) -> Renewed:
        """Renew once, and take a new id where the lease did not hold.

        :param with_positions: also look where the channels stand that are watched here.
        """
        self._notice_freezing()
        try:
            self._refused_at = float("-inf")
            worker = self.hold()
            known, asked = self._feed.known() if with_positions else {}, self._clock()
            renewal = self._backend.renew(
                worker, self._timeout, channels=list(known), cursor=self._cursor
            )
        finally:
            self._tried_at = self._clock()
        if renewal.held:
            self._frozen_at = None
        else:
            self.replace(worker)
        # Last: what did not arrive here is brought again.
        self._cursor = renewal.cursor
        return Renewed(renewal, known, asked, self._tried_at)

    def replace(self, gone: str) -> None:
        """Take a new id, because the store holds no lease for the one that is ``gone``.

        Where this process tried to renew in time, nobody can have ended its lease for a reason: the
        store lost data, and every client is put back. Where it was frozen, others saw its clients
        leave: only those that were heard from since are put back.
        """
        with self._lock:
            if self.id != gone or self.drained:
                return
            self._notice_freezing()
            self.id = None
            self._on_gone(None if self._frozen_at is None else self._frozen_at + self._timeout)
            self._frozen_at = None
            log.warning("The presence lease of this worker was gone; it goes on under a new one")
            self._begin()

    def _notice_freezing(self) -> None:
        with self._lock:
            if self._frozen_at is None and self._clock() - self._tried_at > self._timeout:
                self._frozen_at = self._tried_at

    def drain(self) -> None:
        """Hold nothing new; what is held gets a deadline."""
        with self._lock:
            self.drained = True
            if self.id is not None:
                self._backend.end_worker(self.id, after=self._timeout)
