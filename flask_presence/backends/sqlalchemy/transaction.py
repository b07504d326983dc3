"""One transaction, on the driver's own cursors: what SQLAlchemy does around a statement would take
longer than the statement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from sqlalchemy.engine import Connection

if TYPE_CHECKING:
    from .statements import Question

Rows = Sequence[Sequence[Any]]


class Transaction:
    """Asks the database, and keeps what is to be written until the end of its ``with``, where all
    is committed.

    :param connection: whose transaction it is; free for other statements through `flushed`.
    :param begin: the statement that begins it, where nothing else does.
    :param commit: likewise, the one that ends it.
    """

    def __init__(self, connection: Connection, begin: str = "", commit: str = "") -> None:
        self._connection = connection
        self._driver = connection.connection
        self._commit = commit
        self._waiting: list[tuple[str, Any]] = [(begin, ())] if begin else []

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._end()
        else:
            self._undo()

    @property
    def flushed(self) -> Connection:
        """The connection, once all that waited is written."""
        self._flush()
        return self._connection

    def ask(self, *questions: Question) -> Iterator[Rows]:
        """The answers in order; what is not taken may not have been asked."""
        self._flush()
        for question in questions:
            yield self._run([self._bind(question)])[-1]

    def later(self, question: Question) -> None:
        """Write this before anything else is asked, or at the end."""
        self._waiting.append(self._bind(question))

    def _end(self) -> None:
        if self._commit:
            self._waiting.append((self._commit, ()))
        self._flush()

    def _undo(self) -> None:
        if self._connection.invalidated:
            return
        try:
            self._driver.rollback()
        except Exception:
            # What went wrong before is what has to be told.
            self._connection.invalidate()

    def _bind(self, question: Question) -> tuple[str, Any]:
        return question.bound(self._connection.dialect)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._run(waiting)

    def _run(self, statements: Sequence[tuple[str, Any]]) -> list[Rows]:
        """Run statements in order: the rows of each."""
        try:
            return self._execute(statements)
        except BaseException as error:
            self._fail(error, statements[0][0])

    def _execute(self, statements: Sequence[tuple[str, Any]]) -> list[Rows]:
        cursor = self._driver.cursor()
        found: list[Rows] = []
        for statement, parameters in statements:
            cursor.execute(statement, parameters)
            found.append(cursor.fetchall() if cursor.description else ())
        cursor.close()
        return found

    def _fail(self, error: BaseException, statement: str) -> NoReturn:
        """Raise it as SQLAlchemy raises the errors of its own statements, listeners and the state
        of the pool included, for which it has no public name."""
        self._connection._handle_dbapi_exception(error, statement, None, None, None)
