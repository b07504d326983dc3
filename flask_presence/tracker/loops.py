"""The background work of a process: renewing, releasing, and sending diffs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import PresenceError
from .commands import Commands
from .connections import Connections
from .parts import Parts, Runtime
from .states import States
from .worker import Worker, new_epoch

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0


class Loops:
    """Started once in a process.

    :param on_tick: called with each renewal, also where that failed.
    """

    def __init__(
        self,
        parts: Parts,
        runtime: Runtime,
        worker: Worker,
        states: States,
        commands: Commands,
        connections: Connections,
        *,
        on_tick: Sequence[Callable[[], None]],
    ) -> None:
        self._parts = parts
        self._runtime = runtime
        self._worker = worker
        self._states = states
        self._commands = commands
        self._connections = connections
        self._on_tick = on_tick
        self._lock = threading.Lock()
        self._stopped: Any = None

    def start(self) -> bool:
        """Start, unless that was done; was it done by this call?"""
        with self._lock:
            if self._stopped is not None:
                return False
            self._stopped = self._runtime.event()
        released = self._runtime.event()
        self._worker.wake = released.set
        self._parts.announcer.begin(self._runtime.event())
        self._runtime.spawn(self._renew_for_ever)
        self._runtime.spawn(lambda: self._release_for_ever(released))
        self._runtime.spawn(lambda: self._parts.announcer.run(self._runtime.sleep))
        return True

    def stop(self) -> None:
        """Let the loops end."""
        if self._stopped is not None:
            self._stopped.set()
            self._worker.wake()
            self._parts.announcer.end()

    def _renew_for_ever(self) -> None:
        interval = self._parts.settings.renewal_interval
        while not self._stopped.is_set() and not self._worker.drained:
            went_well = self._attempt(self.tick, "renew the lease of this presence worker")
            for callback in self._on_tick:
                callback()
            self._stopped.wait(interval if went_well else min(interval, RETRY_SECONDS))

    def _release_for_ever(self, released: Any) -> None:
        while not self._stopped.is_set():
            released.wait()
            released.clear()
            while not self._attempt(self._worker.work_off_releases, "give up closed connections"):
                if self._stopped.wait(RETRY_SECONDS):
                    return

    def _attempt(self, work: Callable[[], object], what: str) -> bool:
        try:
            work()
        except PresenceError as error:
            log.warning("Could not %s: %s", what, error)
            return False
        except Exception:
            log.exception("Could not %s", what)
            return False
        return True

    def tick(self) -> None:
        """Renew, obey what other processes told, and put right what is not."""
        worker, holdings = self._worker, None
        if worker.is_reconcile_due():
            for client in worker.gone_clients():
                self._connections.disconnect(client.id, dropped=True)
            holdings = worker.read_holdings()
        renewal, known, answered = worker.renew()
        self._commands.obey(renewal.commands, answered)
        if holdings is not None:
            worker.reconcile(*holdings)
        worker.put_back()
        worker.end_silence()
        verdict = self._parts.feed.compare(
            known, renewal.positions, diffs_arrive=self._parts.rooms.crosses_processes
        )
        for channel, epoch in verdict.rolled_back.items():
            self._parts.backend.reset_epoch(channel, epoch, new_epoch())
        for channel in [*verdict.rolled_back, *verdict.behind]:
            self._states.push(channel)
