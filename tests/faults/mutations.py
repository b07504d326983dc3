"""Defences to go without, one at a time: whoever checks must notice.

Each is patched into a server process before its app is made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from flask_presence.backends import base
from flask_presence.backends.redis import server as redis_server
from flask_presence.backends.sqlalchemy import dialects, step
from flask_presence.backends.sqlalchemy.transaction import Transaction
from flask_presence.backends.steps import rows, scene
from flask_presence.delivery import feed, rooms, wire
from flask_presence.tracker import connections, holdings, lease, loops, releases, tracker

HOUR = 3600.0
SHORT_LEASE: dict[str, Any] = {"PRESENCE_WORKER_TIMEOUT": 3}
LONG_GRACE: dict[str, Any] = {"PRESENCE_LEAVE_GRACE": 4}
LONG_BATCHES: dict[str, Any] = {"PRESENCE_BATCH_WINDOW": 1}


@dataclass(frozen=True)
class Mutation:
    """A defence that is gone, the fault that shows it, and what the checker calls it then."""

    name: str
    apply: Callable[[], None]
    ground: str
    fault: str
    rule: str
    settings: dict[str, Any] = field(default_factory=dict)


def _patch(owner: Any, name: str, value: Any) -> None:
    setattr(owner, name, value)


def _one_epoch() -> None:
    """Every life of a counter is taken for the same."""
    for module in (connections, holdings, loops, tracker):
        _patch(module, "new_epoch", lambda: "epoch")


def _no_order_in_batches() -> None:
    """Changes are batched without a look at their revisions, the last one first."""
    _patch(wire, "_parts_of", lambda changes: [changes[::-1]])


def _begin_late() -> None:
    """SQLite locks where something is written, not where the transaction begins."""

    @contextmanager
    def stepping(self: dialects.SQLiteDialect, engine: Any) -> Iterator[Any]:
        with self._writer, engine.connect() as connection, Transaction(connection) as transaction:
            yield transaction

    _patch(dialects.SQLiteDialect, "stepping", stepping)
    _wait_before_writing()


def _wait_before_writing() -> None:
    """Have another one read the same."""
    begin = step.SQLStep.open

    def open_and_wait(self: step.SQLStep, *args: Any, **options: Any) -> Any:
        opening = begin(self, *args, **options)
        time.sleep(0.03)
        return opening

    _patch(step.SQLStep, "open", open_and_wait)


def _no_lock_on_channels() -> None:
    """Two steps read the same counters of a channel."""
    _patch(dialects.Dialect, "locks_by_upsert", False)
    _patch(dialects.Dialect, "lock_row", lambda self, select: select)
    _wait_before_writing()


def _endless_lease() -> None:
    begin = lease.Lease.__init__

    def begin_for_long(self: lease.Lease, *args: Any) -> None:
        begin(self, *args)
        self._timeout = HOUR

    _patch(lease.Lease, "__init__", begin_for_long)


def _no_grace() -> None:
    """Whoever is dropped is gone."""
    begin = releases.Releases.__init__

    def begin_at_once(self: releases.Releases, backend: Any, *, grace: float) -> None:
        begin(self, backend, grace=0)

    _patch(releases.Releases, "__init__", begin_at_once)


def _no_mercy() -> None:
    """After the store was away, leases are ended at once."""
    _patch(base.Backend, "spares_leases", property(lambda self: False))


def _forgetful_scripts() -> None:
    """A script that is sent again does not know what it answered."""
    _patch(redis_server.Server, "run_once", redis_server.Server.run)


def _blind_feed() -> None:
    """Renewals do not look whether subscribers are behind."""
    nothing = feed.Verdict([], {})
    _patch(feed.Feed, "compare", lambda *args, **options: nothing)


def _no_reconcile() -> None:
    _patch(holdings.Holdings, "is_reconcile_due", lambda self: False)


def _one_form() -> None:
    """Everybody is sent the form with identities."""
    send = rooms.Rooms.send_diff

    def send_full(self: rooms.Rooms, diff: wire.Diff) -> None:
        send(self, diff._replace(forms=wire.Forms(diff.forms.full, diff.forms.full)))

    _patch(rooms.Rooms, "send_diff", send_full)


def _read_before_joining() -> None:
    """A subscriber reads the state, and then joins the room."""
    read = connections.Connections.subscribe

    def subscribe(
        self: connections.Connections, client_id: str, channel: str, position: Any = None
    ) -> Any:
        client = self._parts.clients.get(client_id)
        config = self._states.viewable(channel, client.identity)
        form = self._states.form_for_audience(channel, config)
        time.sleep(0.1)
        read(self, client_id, channel, position)
        return form

    _patch(connections.Connections, "subscribe", subscribe)


def _count_the_invisible() -> None:
    """A second tab is a change too."""
    compare = scene.Scene._compare

    def count(self: scene.Scene, group: Any, before: Any, reason: Any) -> None:
        after = rows.seen(self.groups[group].values())
        compare(self, group, None if before == after and after else before, reason)

    _patch(scene.Scene, "_compare", count)


MUTATIONS = {
    mutation.name: mutation
    for mutation in [
        Mutation("one epoch", _one_epoch, "redis", "store emptied", "3 twice"),
        Mutation(
            "no order in batches", _no_order_in_batches, "sqlite", "nothing", "6", LONG_BATCHES
        ),
        Mutation("begin late", _begin_late, "sqlite", "nothing", "3 twice"),
        Mutation("no lock on channels", _no_lock_on_channels, "postgresql", "nothing", "3 twice"),
        Mutation("endless lease", _endless_lease, "redis", "killed for good", "6 unhealed"),
        Mutation("no grace", _no_grace, "redis", "nothing", "1 ", LONG_GRACE),
        Mutation("no mercy", _no_mercy, "redis", "frozen 5 s", "1 seen leaving", SHORT_LEASE),
        Mutation("forgetful scripts", _forgetful_scripts, "redis", "replies dropped", "3 never"),
        Mutation("blind feed", _blind_feed, "sqlite", "queue down", "6 unhealed"),
        Mutation("no reconcile", _no_reconcile, "redis", "store torn", "6 unhealed"),
        Mutation("one form", _one_form, "sqlite", "nothing", "8 identity"),
        Mutation("read before joining", _read_before_joining, "redis", "nothing", "6 undelivered"),
        Mutation("count the invisible", _count_the_invisible, "sqlite", "nothing", "4 fold"),
    ]
}
