"""The ids of an app's users as text, whatever a database stores them as."""

from __future__ import annotations

from functools import reduce
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Enum,
    Integer,
    String,
    Text,
    Uuid,
    cast,
    collate,
    func,
    literal_column,
)


def id_text(column: Any, dialect: str) -> ColumnElement[str]:
    """A column of users' ids as the text that ``str`` makes of them, to be compared as bytes.

    :param dialect: the name of the database's dialect.
    :raises TypeError: it is no column, or its type does not tell what that text is.
    """
    sql_type = getattr(column, "type", None)
    if not isinstance(sql_type, (Integer, String, Uuid)) or isinstance(sql_type, Enum):
        found = repr(column) if sql_type is None else f"{column}, which is {sql_type!r}"
        raise TypeError(
            "Presence knows users by the text of their ids, and cannot tell that of "
            f"{found}: give it a column of type Integer, String or Uuid, or an expression that "
            "gives what str(user.id) gives, such as cast(User.id, String)."
        )
    text = _text(column, dialect)
    if isinstance(sql_type, Uuid):
        text = _with_dashes(text)
    collation = _COLLATIONS.get(dialect)
    return text if collation is None else collate(text, collation)


_COLLATIONS = {
    "postgresql": "C",
    "mysql": "utf8mb4_nopad_bin",
    "mariadb": "utf8mb4_nopad_bin",
}
"""That of the members' ids, where the database would take the column's own."""

_DIGITS_OF_UUID = [(1, 8), (9, 4), (13, 4), (17, 4), (21, 12)]


def _text(column: Any, dialect: str) -> ColumnElement[str]:
    if dialect in ("postgresql", "sqlite"):
        return cast(column, Text)
    return func.convert(column.op("USING")(literal_column("utf8mb4")), type_=Text())


def _with_dashes(text: ColumnElement[str]) -> ColumnElement[str]:
    """A UUID as people write it; where a database has no type for it, it is stored as digits."""
    digits = func.lower(func.replace(text, "-", "", type_=Text()), type_=Text())
    parts = [func.substr(digits, *where, type_=Text()) for where in _DIGITS_OF_UUID]
    return reduce(lambda left, right: left.concat("-").concat(right), parts)
