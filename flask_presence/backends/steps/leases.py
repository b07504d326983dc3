"""The leases of workers as they are stored, and until when they hold a member."""

from __future__ import annotations

from typing import NamedTuple

from .rows import Row

ALIVE, DRAINED, LOST = "alive", "drained", "lost"


class Lease(NamedTuple):
    """A worker's lease as it is stored: until when, and how far ahead it was set."""

    status: str
    until: int
    timeout: int

    def is_alive(self, now: int) -> bool:
        """May the worker hold members, and did it renew in time?"""
        return self.status == ALIVE and self.until > now

    def is_over(self, now: int, *, spared: bool) -> bool:
        """Are this worker's members due?

        :param spared: a lease that ran out, but was not ended, is not over. So it is within a
            step: leases are ended before, and one that was renewed since goes on.
        """
        if self.status == LOST:
            return True
        return self.until <= now and (self.status == DRAINED or not spared)


def held_until(row: Row, lease: Lease | None, now: int) -> int:
    """The moment up to which a member is held, but not later than now; ``lease`` is its worker's.

    That of a lease which the store has lost is not known.
    """
    until = row.deadline if row.worker is None else lease and lease.until
    return min(until or now, now)
