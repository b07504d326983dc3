"""What closed connections held, until the store took it back."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator

from ..backends.base import SLICE, Backend, Key
from ..model import Change


class Releases:
    """A queue of members to give up: dropped ones get a deadline, the others leave at once.

    :param grace: seconds for which a dropped client still counts.
    """

    def __init__(self, backend: Backend, *, grace: float) -> None:
        self._backend = backend
        self._grace = grace
        self._lock = threading.Lock()
        self._dropped: dict[str, set[Key]] = {}
        self._leaving: dict[str, set[str]] = {}
        self._writing: list[set[Key]] = []

    def add(
        self, client_id: str, channels: Collection[str], *, dropped_by: str | None = None
    ) -> None:
        """Queue a client's members; ``dropped_by`` is the worker that held them, for a drop."""
        with self._lock:
            if dropped_by is not None and channels:
                keys = self._dropped.setdefault(dropped_by, set())
                keys.update(Key(channel, client_id) for channel in channels)
                return
            for channel in channels:
                self._leaving.setdefault(channel, set()).add(client_id)

    def __contains__(self, key: Key) -> bool:
        with self._lock:
            return key.client_id in self._leaving.get(key.channel, ()) or any(
                key in keys for keys in [*self._dropped.values(), *self._writing]
            )

    def write_dropped(self) -> set[str]:
        """Give the dropped ones their deadline, and return the channels that they were in.

        :raises BackendUnavailable: the store did not take everything; the rest stays queued.
        """
        channels: set[str] = set()
        for worker in list(self._dropped):
            with self._lock:
                keys = self._dropped.pop(worker, set())
                self._writing.append(keys)
            try:
                self._backend.release(worker, keys, after=self._grace)
            except Exception:
                with self._lock:
                    self._dropped.setdefault(worker, set()).update(keys)
                raise
            finally:
                with self._lock:
                    self._writing.remove(keys)
            channels.update(key.channel for key in keys)
        return channels

    def write_leaving(self) -> Iterator[tuple[list[Change], str, list[str]]]:
        """Let the others leave: for each step its changes, the channel and the client ids.

        :raises BackendUnavailable: as above.
        """
        for channel in list(self._leaving):
            with self._lock:
                client_ids = sorted(self._leaving.pop(channel, ()))
            while client_ids:
                some = client_ids[:SLICE]
                try:
                    changes = self._backend.leave(channel, some)
                except Exception:
                    with self._lock:
                        self._leaving.setdefault(channel, set()).update(client_ids)
                    raise
                del client_ids[:SLICE]
                yield changes, channel, some
