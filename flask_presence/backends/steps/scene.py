"""One channel in one step: rows of a user come and go, and what others see of that user before and
after decides whether there is a change."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from ...model import Change, Kind, Reason
from ...protocol import load_object
from .rows import Counters, Row, Seen, seen
from .step import Step


class Scene:
    """One channel in one step: collects what to write, and the changes that others see."""

    def __init__(self, step: Step, channel: str, counters: Counters, rows: Iterable[Row]) -> None:
        self.step = step
        self.channel = channel
        self.counters = counters
        self.changes: list[Change] = []
        self.groups: dict[str | tuple[str], dict[str, Row]] = {}
        self.seen_until: dict[str, int | None] = {}
        """Until when those were seen who left; ``None``: until now."""
        self._found = replace(counters)
        self._new: dict[str, Row] = {}
        """Rows to insert, many with one statement."""
        self._group_of: dict[str, str | tuple[str]] = {}
        for row in rows:
            self.groups.setdefault(row.group, {})[row.client_id] = row
            self._group_of[row.client_id] = row.group

    def row(self, client_id: str) -> Row | None:
        """The client's row, among those the scene was opened with."""
        group = self._group_of.get(client_id)
        return None if group is None else self.groups[group].get(client_id)

    def next_write(self) -> int:
        self.counters.writes += 1
        return self.counters.writes

    def put(self, row: Row, *, healed: bool = False) -> None:
        """Insert or replace one row."""
        rows = self.groups.setdefault(row.group, {})
        if rows.get(row.client_id) == row:
            return
        if row.client_id not in rows or row.client_id in self._new:
            self._new[row.client_id] = row
        else:
            self.step.replace_row(self.channel, row)
        before = seen(rows.values())
        rows[row.client_id] = row
        self._group_of[row.client_id] = row.group
        self._compare(row.group, before, "healed" if healed else None)

    def take_out(
        self,
        gone: Collection[Row],
        reason: Callable[[Sequence[Row]], Reason],
        until: Callable[[Sequence[Row]], int | None] = lambda rows: None,
    ) -> list[Change]:
        """Delete rows, a user at a time in the order of entering.

        :param reason: asked for each user's rows.
        :param until: likewise; until when that user was seen, ``None`` being now.
        """
        leaving: dict[str | tuple[str], list[Row]] = {}
        for row in sorted(gone, key=lambda row: (row.place, row.client_id)):
            leaving.setdefault(row.group, []).append(row)
        for group, rows in leaving.items():
            before = seen(self.groups[group].values())
            for row in rows:
                del self.groups[group][row.client_id]
            self._compare(group, before, reason(rows))
            if isinstance(group, str) and not self.groups[group]:
                self.seen_until[group] = until(rows)
        if gone:
            self.step.delete_rows(self.channel, [row.client_id for row in gone])
        return self.close()

    def close(self) -> list[Change]:
        """Write new rows and the channel's counters, and return the changes."""
        if self._new:
            self.step.insert_rows(self.channel, list(self._new.values()))
        if self.counters != self._found:
            self.step.save_channel(self.channel, self.counters)
        if self.seen_until:
            self.step.keep_seen(self.seen_until)
        return self.changes

    def _compare(self, group: str | tuple[str], before: Seen | None, reason: Reason | None) -> None:
        after = seen(self.groups[group].values())
        if before == after:
            return
        kind: Kind = "entered" if before is None else "left" if after is None else "updated"
        if kind == "updated" and reason != "healed":
            reason = None
        user_id = group if isinstance(group, str) else None
        arrived = {"entered": 1, "updated": 0, "left": -1}[kind]
        counters = self.counters
        counters.revision += 1
        counters.count += arrived if user_id is not None else 0
        counters.anonymous += arrived if user_id is None else 0
        shown = after or before
        assert shown is not None
        self.changes.append(
            Change(
                kind=kind,
                channel=self.channel,
                epoch=counters.epoch,
                revision=counters.revision,
                user_id=user_id,
                info=load_object(shown.info),
                meta=load_object(shown.meta),
                count=counters.count,
                anonymous=counters.anonymous,
                reason=reason,
            )
        )
