"""Reads every key of a presence store in Redis, and holds each index against the rows."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, NamedTuple

KINDS_OF_CHANNEL = ("channel", "users", "clients", "deadlines")

LASTING = {"presence:workers", "presence:holders", "presence:commands", "presence:seen"}
"""What may be left where nobody is, besides answers that are kept for a moment."""


class Row(NamedTuple):
    """A member as its row tells it."""

    client: str
    user: str | None
    worker: str | None


def rows_of(text: str) -> list[Row]:
    """The rows in a text: nine fields each, a NUL after every one."""
    *fields, rest = text.split("\0")
    assert rest == ""
    assert len(fields) % 9 == 0
    return [
        Row(client, user or None, worker or None)
        for client, user, worker in zip(fields[::9], fields[1::9], fields[7::9], strict=True)
    ]


class Audit:
    """One look at all keys.

    :param client: a Redis client that decodes responses.
    """

    def __init__(self, client: Any, prefix: str = "presence") -> None:
        self.client = client
        self.prefix = prefix
        self.keys = sorted(client.scan_iter(count=1000))
        self.names: defaultdict[str, set[str]] = defaultdict(set)
        for key in self.keys:
            kind, _, name = key.removeprefix(f"{prefix}:").partition(":")
            self.names[kind].add(name)
        self.rows = {name: self._rows(name) for name in self.names["channel"]}

    def _key(self, kind: str, name: str | None = None) -> str:
        return f"{self.prefix}:{kind}" if name is None else f"{self.prefix}:{kind}:{name}"

    def _rows(self, channel: str) -> list[Row]:
        users = self.client.hgetall(self._key("users", channel))
        rows = []
        for user, text in users.items():
            listed = rows_of(text)
            assert listed, f"{user} has no rows in {channel}"
            assert {row.user for row in listed} == {user}
            rows += listed
        for client, text in self.client.hgetall(self._key("clients", channel)).items():
            if text[0] == "a":
                (row,) = rows_of(text[1:])
                assert row[:2] == (client, None)
                rows.append(row)
        return rows

    def check(self) -> None:
        """Fail where anything disagrees."""
        for key in self.keys:
            assert key.startswith(f"{self.prefix}:"), key
            assert self.client.pttl(key) > 0, f"{key} never expires"
        for kind in ("users", "clients", "deadlines"):
            assert self.names[kind] <= self.names["channel"], f"{kind} without their channel"
        for channel, rows in self.rows.items():
            self._check_channel(channel, rows)
        self._check_ways_to_rows()
        self._check_sorted_names()

    def _check_channel(self, channel: str, rows: list[Row]) -> None:
        found = self.client.hgetall(self._key("channel", channel))
        held = Counter(row.worker for row in rows if row.worker)
        users = {row.user for row in rows} - {None}
        waiting = {row.client for row in rows if row.worker is None}
        assert {name[2:]: int(n) for name, n in found.items() if name[:2] == "w:"} == held
        assert int(found["count"]) == len(users)
        assert int(found["anonymous"]) == sum(row.user is None for row in rows)
        assert int(found["clients"]) == len(rows)
        assert int(found["waiting"]) == len(waiting)
        assert set(self._members(self._key("deadlines", channel))) == waiting
        pointers = self.client.hgetall(self._key("clients", channel))
        assert pointers.keys() == {row.client for row in rows}
        for row in rows:
            if row.user is not None:
                assert pointers[row.client] == f"u{row.user}"

    def _check_ways_to_rows(self) -> None:
        held, users, clients = defaultdict(set), defaultdict(set), defaultdict(set)
        for channel, rows in self.rows.items():
            for row in rows:
                clients[row.client].add(channel)
                if row.worker:
                    held[row.worker].add(f"{channel}\0{row.client}")
                if row.user is not None:
                    users[row.user].add(channel)
        assert {w: set(self._members(self._key("held", w))) for w in self.names["held"]} == held
        assert {u: self.client.smembers(self._key("user", u)) for u in self.names["user"]} == users
        assert {
            c: self.client.smembers(self._key("client", c)) for c in self.names["client"]
        } == clients

    def _check_sorted_names(self) -> None:
        occupied = {name for name, rows in self.rows.items() if rows}
        waiting = {
            name for name, rows in self.rows.items() if any(row.worker is None for row in rows)
        }
        assert set(self._members(self._key("occupied"))) == occupied
        assert set(self._members(self._key("vacated"))) == self.rows.keys() - occupied
        assert set(self._members(self._key("ahead"))) == waiting
        firsts = {
            name: min(self._members(self._key("deadlines", name)).values()) for name in waiting
        }
        assert self._members(self._key("due")) == firsts

    def _members(self, key: str) -> dict[str, float]:
        return dict(self.client.zrange(key, 0, -1, withscores=True))


def audit(client: Any, prefix: str = "presence") -> Audit:
    """Look at all keys, and fail where anything disagrees."""
    found = Audit(client, prefix)
    found.check()
    return found
