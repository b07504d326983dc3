"""A transaction on psycopg, in which what is asked or written together takes one round trip.

psycopg's own pipelines send each statement by itself, which wakes the server as often.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from psycopg import Connection, OperationalError, waiting
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
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
        try:
            driver.pgconn.enter_pipeline_mode()
            new: set[bytes] = set()
            sent = [_send(driver, known, new, *statement) for statement in statements]
            driver.pgconn.pipeline_sync()
            results = iter(driver.wait(_results(driver.pgconn)))
        except BaseException:
            # What is under way would be taken for the answer to something else.
            driver.close()
            raise
        driver.pgconn.exit_pipeline_mode()
        return _answers(driver, known, sent, results)


def _send(
    driver: Connection[Any],
    known: set[bytes] | None,
    new: set[bytes],
    statement: str,
    parameters: Sequence[Any],
) -> bytes:
    """Send a statement, prepared before where it is neither known nor new: the name of one that is
    new by now."""
    encoding = driver.info.encoding
    formats = [PyFormat.TEXT] * len(parameters)
    values = Transformer(driver).dump_sequence(parameters, formats)
    text = statement.encode(encoding)
    if known is None:
        driver.pgconn.send_query_params(text, values)
        return b""
    name = b"presence_" + hashlib.sha256(text).hexdigest()[:32].encode()
    is_new = name not in known and name not in new
    if is_new:
        new.add(name)
        driver.pgconn.send_prepare(name, text)
    driver.pgconn.send_query_prepared(name, values)
    return name if is_new else b""


def _results(connection: PGconn) -> Generator[waiting.Wait, waiting.Ready | int, list[PGresult]]:
    """Receive all results, as psycopg's waiting asks for it."""
    while connection.flush():
        yield waiting.WAIT_RW
        connection.consume_input()
    results: list[PGresult] = []
    while True:
        while connection.is_busy():
            yield waiting.WAIT_R
            connection.consume_input()
        result = connection.get_result()
        if result is not None and result.status == ExecStatus.PIPELINE_SYNC:
            return results
        if result is not None:
            results.append(result)
        elif connection.status == ConnStatus.BAD:
            raise OperationalError("the connection was lost")


def _answers(
    driver: Connection[Any],
    known: set[bytes] | None,
    sent: Sequence[bytes],
    results: Iterator[PGresult],
) -> list[Rows]:
    answers: list[Rows] = []
    for name in sent:
        if name and known is not None:
            _checked(driver, next(results))
            known.add(name)
        answers.append(_checked(driver, next(results)))
    return answers


def _checked(driver: Connection[Any], result: PGresult) -> Rows:
    """The rows of a result that is no error."""
    if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
        raise error_from_result(result, encoding=driver.info.encoding)
    transformer = Transformer(driver)
    transformer.set_pgresult(result)
    rows: Rows = transformer.load_rows(0, result.ntuples, tuple)
    return rows
