"""Hooks for gunicorn's config file: a worker that stops hands its clients over to the others.

::

    from flask_presence.gunicorn import post_worker_init, worker_exit

Both are needed. gunicorn calls ``worker_exit`` only when all connections of a worker are closed, or
when ``graceful_timeout`` is over, which is when the master kills it: too late for WebSockets.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

from .assembly import AppPresence
from .errors import PresenceError

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.2


def post_worker_init(worker: Any) -> None:
    """Watch a worker that begins. As soon as it stops (SIGTERM, a reload, ``max_requests``) its
    members get a deadline and its presence connections are closed, so that clients connect to
    another process within a moment, and the worker need not wait for them."""
    threading.Thread(target=_watch, args=(worker,), name="presence-drain", daemon=True).start()


def worker_exit(server: Any, worker: Any) -> None:
    """Hand over what a worker holds that ends without a graceful stop, as on Ctrl-C."""
    if worker.pid == os.getpid():  # gunicorn's master calls this too, for a worker that is gone.
        _drain()
        _hang_up()


def _watch(worker: Any) -> None:
    while worker.alive:
        time.sleep(LOOK_SECONDS)
    _drain()
    while True:
        # Again and again, for those who came by a connection that was kept alive.
        _hang_up()
        time.sleep(LOOK_SECONDS)


def _drain() -> None:
    for presence in AppPresence.all():
        # While Python waits for the last requests, a scheduler can start no thread, and says so.
        presence.jobs.stop()
        try:
            presence.tracker.drain()
        except PresenceError as error:
            log.warning("This worker's members are gone when its lease is: %s", error)


def _hang_up() -> None:
    for presence in AppPresence.all():
        presence.tracker.hang_up()
