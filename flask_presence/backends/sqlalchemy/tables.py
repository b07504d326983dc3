"""The tables, in whose MetaData an app's migrations find them.

Moments are whole milliseconds of the database's clock.
"""

from __future__ import annotations

import re

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import SchemaItem


def _name(length: int) -> String:
    """Text that compares as bytes: the default collation of MariaDB takes ``A`` for ``a``."""
    text: String = String(length).with_variant(String(length, collation="C"), "postgresql")
    nopad = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_nopad_bin")
    return text.with_variant(nopad, "mysql", "mariadb")


def _text() -> Text:
    """Text of any characters: a database of MariaDB may have a narrower default."""
    return Text().with_variant(mysql.MEDIUMTEXT(charset="utf8mb4"), "mysql", "mariadb")


class Tables:
    """The tables of one store, named after ``prefix``."""

    def __init__(self, metadata: MetaData, prefix: str = "presence") -> None:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", prefix):
            raise ValueError(
                f"PRESENCE_KEY_PREFIX {prefix!r} cannot begin the name of a SQL table: use "
                "letters, digits and '_' only."
            )
        self.metadata = metadata
        self._prefix = prefix
        self.channels = self._table(
            "channels",
            Column("name", _name(255), primary_key=True),
            Column("epoch", _name(64), nullable=False),
            Column("revision", BigInteger, nullable=False),
            Column("writes", BigInteger, nullable=False),
            Column("count", Integer, nullable=False),
            Column("anonymous", Integer, nullable=False),
            Column("vacated", BigInteger, index=True),
        )
        self.members = self._table(
            "members",
            Column("channel", _name(255), primary_key=True),
            Column("client_id", _name(255), primary_key=True),
            Column("user_id", _name(255)),
            Column("info", _text(), nullable=False),
            Column("meta", _text()),
            Column("place", BigInteger, nullable=False),
            Column("named", BigInteger, nullable=False),
            Column("wrote", BigInteger, nullable=False),
            Column("worker", _name(64)),
            Column("deadline", BigInteger, index=True),
            Column("held_at", BigInteger, index=True),
            Index(f"ix_{prefix}_members_user", "user_id", "channel"),
            Index(f"ix_{prefix}_members_client", "client_id"),
            Index(f"ix_{prefix}_members_channel", "channel", "deadline"),
            Index(f"ix_{prefix}_members_worker", "worker", "channel", "client_id"),
        )
        self.workers = self._table(
            "workers",
            Column("id", _name(64), primary_key=True),
            Column("status", _name(8), nullable=False),
            Column("lease", BigInteger, nullable=False),
            Column("timeout", BigInteger, nullable=False),
        )
        self.seen = self._table(
            "seen",
            Column("user_id", _name(255), primary_key=True),
            Column("at", BigInteger, nullable=False, index=True),
        )
        self.commands = self._table(
            "commands",
            Column("number", BigInteger, primary_key=True, autoincrement=False),
            Column("at", BigInteger, nullable=False),
            Column("kind", _name(16), nullable=False),
            Column("channel", _name(255)),
            Column("user_id", _name(255)),
            Column("client_id", _name(255)),
            Column("reason", _name(16)),
        )

    def _table(self, name: str, *items: SchemaItem) -> Table:
        """Declare a table; where several apps share the MetaData, the first has declared it."""
        full_name = f"{self._prefix}_{name}"
        declared = self.metadata.tables.get(full_name)
        return Table(full_name, self.metadata, *items) if declared is None else declared

    @property
    def all(self) -> list[Table]:
        return [self.channels, self.members, self.workers, self.seen, self.commands]
