"""The background work of a process: renewing, healing, releasing, and sending diffs."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ..errors import PresenceError
from ..model import Position
from .commands import Commands
from .connections import Connections
from .hearing import Hearing
from .holdings import Holdings, Reading
from .lease import Renewed
from .parts import Parts, Runtime, attempt, new_epoch
from .states import States

RETRY_SECONDS = 1.0


class Loops:
    """Started once in a process. What the app's code may slow down does not run where the lease
    is renewed.

    :param on_tick: called with each renewal, also where that failed.
    """

    def __init__(
        self,
        parts: Parts,
        runtime: Runtime,
        holdings: Holdings,
        states: States,
        commands: Commands,
        connections: Connections,
        hearing: Hearing,
        *,
        on_tick: Sequence[Callable[[], None]],
    ) -> None:
        self._parts = parts
        self._runtime = runtime
        self._holdings = holdings
        self._states = states
        self._commands = commands
        self._connections = connections
        self._hearing = hearing
        self._on_tick = on_tick
        self._lock = threading.Lock()
        self._stopped: Any = None
        self._renewed: deque[Renewed] = deque()
        self._reading: Reading | None = None

    def start(self) -> bool:
        """Start, unless that was done; was it done by this call?"""
        with self._lock:
            if self._stopped is not None:
                return False
            self._stopped = self._runtime.event()
        self._renewal_due = self._runtime.event()
        self._ill = self._runtime.event()
        self._released = self._runtime.event()
        self._holdings.wake = self._released.set
        self._states.on_owed = self._ill.set
        self._hearing.on_owed = self._ill.set
        self._hearing.on_told = self._renewal_due.set
        self._holdings.on_doubt = self._renewal_due.set
        self._parts.announcer.begin(self._runtime.event())
        self._runtime.spawn(self._renew_for_ever)
        self._runtime.spawn(self._heal_for_ever)
        self._runtime.spawn(self._release_for_ever)
        if self._hearing.listener is not None:
            self._runtime.spawn(self._hearing.listener.run)
        self._runtime.spawn(lambda: self._parts.announcer.run(self._runtime.sleep))
        return True

    def stop(self) -> None:
        """Let the loops end."""
        if self._stopped is not None:
            self._stopped.set()
            self._renewal_due.set()
            self._ill.set()
            self._released.set()
            self._parts.announcer.end()
            if self._hearing.listener is not None:
                self._hearing.listener.close()

    def turn(self) -> None:
        """Come round once, here and now, where no loop was started."""
        self._holdings.write_releases()
        self._holdings.end_lapsed()
        if not self._holdings.lease.drained:
            self.renew()
            self.heal()

    def _renew_for_ever(self) -> None:
        interval, clock = self._parts.settings.renewal_interval, self._parts.clock
        next_look = clock()
        while not self._stopped.is_set() and not self._holdings.lease.drained:
            # Woken early for a command, it only reads that.
            looks = clock() >= next_look
            went_well = attempt(
                partial(self.renew, with_positions=looks), "renew the lease of this presence worker"
            )
            if looks or not went_well:
                next_look = clock() + (interval if went_well else min(interval, RETRY_SECONDS))
            self._ill.set()
            self._renewal_due.wait(max(0.0, next_look - clock()))
            self._renewal_due.clear()

    def _heal_for_ever(self) -> None:
        while not self._stopped.is_set():
            attempt(self.heal, "heal the presence of this worker")
            for callback in self._on_tick:
                attempt(callback, "look after the scheduled work")
            self._ill.wait()
            self._ill.clear()

    def _release_for_ever(self) -> None:
        while not self._stopped.is_set():
            self._released.wait(self._holdings.next_lapse())
            self._released.clear()
            while not attempt(self._holdings.write_releases, "give up closed connections"):
                if self._stopped.wait(RETRY_SECONDS):
                    return
            attempt(self._holdings.end_lapsed, "end who did not come back")

    def renew(self, *, with_positions: bool = True) -> None:
        """Renew the lease, and hand on what that brought."""
        self._renewed.append(self._holdings.lease.renew(with_positions=with_positions))
        self._parts.registry.at_most = math.inf

    def heal(self) -> None:
        """Obey what other processes told, and put right what is not."""
        while self._renewed:
            self._take(self._renewed.popleft())
        attempt(self._end_epochs, "begin another epoch")
        attempt(self._holdings.put_back, "put clients back")
        others = self._parts.feed.take_others()
        attempt(lambda: self._holdings.write_again(others), "write again what the store lost")
        attempt(self._holdings.end_silence, "end silent clients")
        attempt(self._hearing.interest.sweep, "listen to fewer channels")
        for channel in self._parts.feed.owed():
            attempt(partial(self._states.push, channel), f"send the state of {channel}")
        if self._reading is None and self._holdings.is_reconcile_due():
            for client in self._holdings.closed_unnoticed():
                self._connections.disconnect(client.id, dropped=True)
            self._reading = self._holdings.read()

    def _take(self, renewed: Renewed) -> None:
        renewal, known, asked, answered = renewed
        for told in renewal.commands:
            self._commands.obey(told, answered)
        self._holdings.end_doubts(asked)
        if self._reading is not None and asked >= self._reading.at:
            reading, self._reading = self._reading, None
            attempt(lambda: self._holdings.reconcile(reading), "reconcile with the store")
        if self._parts.backend.has_begun_anew():
            self._doubt(known)
        verdict = self._parts.feed.compare(
            known,
            renewal.positions,
            diffs_arrive=self._parts.rooms.crosses_processes,
            hears=self._parts.rooms.hears,
        )
        for channel in verdict.behind:
            self._parts.feed.owe(channel)
        for channel, epoch in verdict.rolled_back.items():
            self._parts.feed.give_up(channel, epoch)

    def _doubt(self, known: Mapping[str, Position]) -> None:
        """The store began anew, and may have forgotten its last writes."""
        self._holdings.doubt_all()
        if self._parts.rooms.hears:
            # Whoever hears all that is written notices what is written once more.
            return
        for channel, position in (self._parts.feed.known() | dict(known)).items():
            if position.epoch is not None:
                self._parts.feed.give_up(channel, position.epoch)

    def _end_epochs(self) -> None:
        """Begin another epoch where the store turned back, and have everyone take the state."""
        for channel, epoch in self._parts.feed.take_given_up().items():
            try:
                self._parts.backend.reset_epoch(channel, epoch, new_epoch())
            except PresenceError:
                self._parts.feed.give_up(channel, epoch)
                raise
            self._parts.feed.owe(channel)
