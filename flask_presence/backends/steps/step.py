"""What a store does for a step."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from .leases import Lease
from .rows import Counters, Row


class Opening(NamedTuple):
    """What a step begins with: the channel, the rows asked for, and whether the worker named may
    hold members."""

    counters: Counters | None
    rows: Sequence[Row]
    may_hold: bool = True


class Step(Protocol):
    """One atomic step of a store, as `StepBackend` needs it. Nothing is written if it raises."""

    @property
    def now(self) -> int:
        """The store's clock in milliseconds, read after the channel was locked."""

    def open(
        self,
        name: str,
        *,
        epoch: str | None = None,
        users: Collection[str] = (),
        clients: Collection[str] = (),
        worker: str | None = None,
    ) -> Opening:
        """Lock a channel, making it where ``epoch`` is given and there is none; with all rows of
        these users and of these clients.

        :param worker: its lease stays as it is found until the step ends.
        """

    def save_channel(self, name: str, counters: Counters) -> None:
        """Write the counters; a channel that is empty now is vacated now."""

    def rows(self, name: str, users: Collection[str]) -> Sequence[Row]:
        """All rows of these users."""

    def some_rows(self, name: str, limit: int) -> list[Row]:
        """Any rows of the channel."""

    def due_rows(self, name: str, limit: int) -> list[Row]:
        """Rows that are due, once `end_leases` ran."""

    def insert_rows(self, name: str, rows: Sequence[Row]) -> None: ...

    def replace_row(self, name: str, row: Row) -> None: ...

    def delete_rows(self, name: str, client_ids: Sequence[str]) -> None: ...

    def keep_seen(self, until: Mapping[str, int | None]) -> None:
        """Keep until when users were seen, ``None`` being now; where that is kept at all."""

    def lease(self, worker: str) -> Lease | None: ...
