"""The scheduled work: ending what is due, and forgetting channels that have long been empty."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import BaseScheduler

from .settings import Settings
from .tracker import Tracker
from .tracker.parts import attempt

log = logging.getLogger(__name__)

ALIAS = "flask_presence"
PRUNE = "flask_presence.prune"
PRUNE_CHANNELS = "flask_presence.prune_channels"
PRUNE_CHANNELS_SECONDS = 60.0


class Jobs:
    """Has an APScheduler prune, in a job store and with an executor of our own.

    Several processes may prune at once: each departure is found by one of them.
    """

    def __init__(self, tracker: Tracker, settings: Settings) -> None:
        self._tracker = tracker
        self._interval = settings.prune_interval
        self._scheduler: BaseScheduler | None = None
        self._is_own = False
        self._pruned_at = time.monotonic()

    def add_to(self, scheduler: BaseScheduler) -> None:
        """Add the jobs to a scheduler that somebody else starts and stops."""
        if not self._interval:
            return
        if scheduler.get_job(PRUNE) is not None:
            raise ValueError(
                "This scheduler prunes for another app already; give each app one of its own."
            )
        # The scheduler's own store may be one that writes jobs to a database: ours cannot be.
        scheduler.add_jobstore(MemoryJobStore(), ALIAS)
        scheduler.add_executor(_executor_for(scheduler), ALIAS)
        # One line for each run would fill the app's log.
        logging.getLogger(f"apscheduler.executors.{ALIAS}").setLevel(logging.WARNING)
        self._add(scheduler, PRUNE, self.prune, self._interval)
        self._add(scheduler, PRUNE_CHANNELS, self.prune_channels, PRUNE_CHANNELS_SECONDS)
        self._scheduler = scheduler

    def start(self, async_mode: str) -> None:
        """Prune with a scheduler of our own, in the way of the server's async mode."""
        if self._interval:
            scheduler = _make_scheduler(async_mode)
            self._pruned_at = time.monotonic()
            self.add_to(scheduler)
            self._is_own = True
            scheduler.start()

    def stop(self) -> None:
        """Stop a scheduler of our own."""
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None and self._is_own and scheduler.running:
            scheduler.shutdown(wait=False)

    def reset(self) -> None:
        """Forget the scheduler of a parent process: it came along without its thread."""
        self._scheduler = None

    def check(self) -> None:
        """Prune now where the scheduler missed its time: it goes by the wall clock, which may
        have stepped back."""
        late = time.monotonic() - self._pruned_at > 3 * self._interval + 5
        if not late or self._scheduler is None or not self._scheduler.running:
            return
        log.warning("The scheduler did not prune in time; it is woken")
        self._pruned_at = time.monotonic()
        for job_id in (PRUNE, PRUNE_CHANNELS):
            # A job that the scheduler's owner took out stays out.
            if self._scheduler.get_job(job_id, ALIAS) is not None:
                self._scheduler.modify_job(job_id, ALIAS, next_run_time=_now())

    def prune(self) -> None:
        self._pruned_at = time.monotonic()
        attempt(self._tracker.prune, "prune")

    def prune_channels(self) -> None:
        attempt(self._tracker.prune_channels, "forget empty channels")

    def _add(
        self, scheduler: BaseScheduler, job_id: str, job: Callable[[], None], seconds: float
    ) -> None:
        scheduler.add_job(
            job,
            "interval",
            seconds=seconds,
            next_run_time=_now() + timedelta(seconds=seconds),
            id=job_id,
            jobstore=ALIAS,
            executor=ALIAS,
            misfire_grace_time=None,
            coalesce=True,
            max_instances=1,
        )


def _make_scheduler(async_mode: str) -> BaseScheduler:
    if async_mode.startswith("gevent"):
        from apscheduler.schedulers.gevent import GeventScheduler

        return GeventScheduler(timezone=timezone.utc)
    return BackgroundScheduler(timezone=timezone.utc, daemon=True)


def _executor_for(scheduler: BaseScheduler) -> Any:
    if type(scheduler).__name__ == "GeventScheduler":
        from apscheduler.executors.gevent import GeventExecutor

        return GeventExecutor()
    return ThreadPoolExecutor(1)


def _now() -> datetime:
    return datetime.now(timezone.utc)
