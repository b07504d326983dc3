"""Every statement that a backend sends to its database, by SQLAlchemy or by the driver itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import event

from flask_presence.backends.sqlalchemy import SQLAlchemyBackend
from flask_presence.backends.sqlalchemy.transaction import Transaction


def listen(backend: SQLAlchemyBackend, note: Callable[[str], None]) -> Callable[[], None]:
    """Have each text noted, once for all the rows that go with it, until this is called."""
    run = Transaction._run

    def note_one(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        note(statement)

    def note_step(self: Transaction, statements: Sequence[tuple[str, Any]]) -> Any:
        for statement, _ in statements:
            note(statement)
        return run(self, statements)

    event.listen(backend.engine, "before_cursor_execute", note_one)
    Transaction._run = note_step

    def stop() -> None:
        event.remove(backend.engine, "before_cursor_execute", note_one)
        Transaction._run = run

    return stop
