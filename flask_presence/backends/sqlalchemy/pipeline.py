"""A transaction on psycopg, in which what is asked or written together takes one round trip.

psycopg's own pipelines send each statement by itself, which wakes the server as often.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from psycopg import Connection, OperationalError, waiting
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import InvalidSqlStatementName, error_from_result
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import Dialect

from .statements import Question
from .transaction import Rows, Transaction


class Prepared:
    """The statements that one connection knows by a name; no name is given twice."""

    def __init__(self) -> None:
        self._names: dict[bytes, bytes] = {}
        self._given = 0

    def name(self, text: bytes) -> bytes | None:
        return self._names.get(text)

    def new_name(self) -> bytes:
        self._given += 1
        return b"presence_%d" % self._given

    def add(self, text: bytes, name: bytes) -> None:
        self._names[text] = name

    def forget(self) -> None:
        """Somebody had the connection forget them all, as psycopg does when it rolls back. What
        was prepared since has a name that is not given again."""
        self._names.clear()


_prepared: weakref.WeakKeyDictionary[Connection[Any], Prepared] = weakref.WeakKeyDictionary()

_dialect: Dialect = PGDialect_psycopg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
"""That of what the server is sent without a driver's help."""


class Pipeline(Transaction):
    """On a connection that has begun nothing."""

    def ask(self, *questions: Question) -> Iterator[Rows]:
        waiting, self._waiting = self._waiting, []
        bound = [self._bind(question) for question in questions]
        return iter(self._run([*waiting, *bound])[len(waiting) :])

    def _bind(self, question: Question) -> tuple[str, Any]:
        return question.bound(_dialect)

    def _execute(self, statements: Sequence[tuple[str, Any]]) -> list[Rows]:
        driver: Connection[Any] = self._driver.driver_connection  # type: ignore[assignment]
        known = (
            None if driver.prepare_threshold is None else _prepared.setdefault(driver, Prepared())
        )
        commands = list(_commands(driver, known, statements))
        try:
            driver.pgconn.enter_pipeline_mode()
            for command in commands:
                command.send()
            driver.pgconn.pipeline_sync()
            results = driver.wait(_results(driver.pgconn))
        except Exception as error:
            # What is under way would be taken for the answer to something else.
            driver.close()
            raise OperationalError(str(error)) from error
        driver.pgconn.exit_pipeline_mode()
        try:
            return list(_answers(driver, known, commands, results))
        except InvalidSqlStatementName:
            if known is not None:
                known.forget()
            raise


def _answers(
    driver: Connection[Any],
    known: Prepared | None,
    commands: Sequence[Command],
    results: Sequence[PGresult],
) -> Iterator[Rows]:
    for command, result in zip(commands, results, strict=True):
        rows = _rows(driver, result)
        if not command.prepares:
            yield rows
        elif known is not None:
            known.add(*command.prepares)


class Command(NamedTuple):
    """Something to send; where that only prepares a statement, its text and its name."""

    send: Callable[[], None]
    prepares: tuple[bytes, bytes] | None = None


def _commands(
    driver: Connection[Any], known: Prepared | None, statements: Sequence[tuple[str, Any]]
) -> Iterator[Command]:
    """What the statements take: each is prepared before, where it is not known yet, and where the
    app has not told psycopg to prepare none.
    """
    pgconn, new = driver.pgconn, dict[bytes, bytes]()
    for statement, parameters in statements:
        text = statement.encode(driver.info.encoding)
        formats = [PyFormat.TEXT] * len(parameters)
        values = Transformer(driver).dump_sequence(parameters, formats)
        if known is None:
            yield Command(partial(pgconn.send_query_params, text, values))
            continue
        name = known.name(text) or new.get(text)
        if name is None:
            name = new[text] = known.new_name()
            yield Command(partial(pgconn.send_prepare, name, text), (text, name))
        yield Command(partial(pgconn.send_query_prepared, name, values))


def _results(connection: PGconn) -> Generator[waiting.Wait, waiting.Ready | int, list[PGresult]]:
    """Receive all results, as psycopg's waiting asks for it."""
    while connection.flush():
        yield waiting.Wait.RW
        connection.consume_input()
    results: list[PGresult] = []
    while True:
        while connection.is_busy():
            yield waiting.Wait.R
            connection.consume_input()
        result = connection.get_result()
        if result is not None and result.status == ExecStatus.PIPELINE_SYNC:
            return results
        if result is not None:
            results.append(result)
        elif connection.status == ConnStatus.BAD:
            raise OperationalError("the connection was lost")


def _rows(driver: Connection[Any], result: PGresult) -> Rows:
    """The rows of a result that is no error."""
    if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
        raise error_from_result(result, encoding=driver.info.encoding)
    if not result.ntuples:
        return ()
    transformer = Transformer(driver)
    transformer.set_pgresult(result)
    rows: Rows = transformer.load_rows(0, result.ntuples, tuple)
    return rows
