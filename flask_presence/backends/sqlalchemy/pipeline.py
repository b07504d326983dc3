"""A transaction on psycopg, in which what is asked or written together takes one round trip.

psycopg's own pipelines send each statement by itself, which wakes the server as often.
"""

from __future__ import annotations

import hashlib
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

_prepared: weakref.WeakKeyDictionary[Connection[Any], set[bytes]] = weakref.WeakKeyDictionary()
"""The names of the statements that each connection knows."""

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
        known = None if driver.prepare_threshold is None else _prepared.setdefault(driver, set())
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
            # Somebody had the connection forget them all, as psycopg does when it rolls back.
            _prepared.pop(driver, None)
            raise


def _answers(
    driver: Connection[Any],
    known: set[bytes] | None,
    commands: Sequence[Command],
    results: Sequence[PGresult],
) -> Iterator[Rows]:
    for command, result in zip(commands, results, strict=True):
        rows = _rows(driver, result)
        if not command.prepares:
            yield rows
        elif known is not None:
            known.add(command.prepares)


class Command(NamedTuple):
    """Something to send, and the name of the statement where it only prepares one."""

    send: Callable[[], None]
    prepares: bytes = b""


def _commands(
    driver: Connection[Any], known: set[bytes] | None, statements: Sequence[tuple[str, Any]]
) -> Iterator[Command]:
    """What the statements take: each is prepared before, where it is not known yet, and where the
    app has not told psycopg to prepare none.
    """
    pgconn, new = driver.pgconn, set[bytes]()
    for statement, parameters in statements:
        text = statement.encode(driver.info.encoding)
        formats = [PyFormat.TEXT] * len(parameters)
        values = Transformer(driver).dump_sequence(parameters, formats)
        if known is None:
            yield Command(partial(pgconn.send_query_params, text, values))
            continue
        name = b"presence_" + hashlib.sha256(text).hexdigest()[:32].encode()
        if name not in known and name not in new:
            new.add(name)
            yield Command(partial(pgconn.send_prepare, name, text), prepares=name)
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
