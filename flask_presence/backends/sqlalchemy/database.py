"""The way to the database: runs work, again after a deadlock, and says in words what is wrong."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

from sqlalchemy import Engine, exc
from sqlalchemy.engine import Connection

from ...errors import BackendUnavailable
from .dialects import dialect_of
from .transaction import Transaction

S = TypeVar("S")
T = TypeVar("T")

MAX_ATTEMPTS = 8
"""How often work is run when the database answers with a deadlock."""

RETRY_SECONDS = 1.5
"""After this long work is not run again: somebody waits for it."""

AT_ONCE = 10
"""How much work of one process is under way: more would take turns in the database anyway, each on
a connection of its own, and an app that shares its pool needs some too."""

PATIENCE_SECONDS = 1.0
"""Work that failed after so long found the database busy or away, and not itself in the wrong."""


class Database:
    """One database, as the backend sees it.

    All raise `BackendUnavailable` where it fails; work is run anew where that cures it.

    :param make_tables: makes missing tables, ``None`` where that is not ours to do.
    :param on_failure: called whenever the database did not do what it was asked, or hardly in time.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        make_tables: Callable[[], None] | None,
        on_failure: Callable[[], None],
    ) -> None:
        self.engine = engine
        self.dialect = dialect_of(engine)
        self._engine_of_leases = self.dialect.beside(engine)
        self._make_tables = make_tables
        self._on_failure = on_failure
        self._begin()

    def _begin(self) -> None:
        self._turns = threading.BoundedSemaphore(AT_ONCE)
        self._vain = 0
        """How much work waited for the database in vain."""

    def step(self, work: Callable[[Transaction], T]) -> T:
        """Run ``work`` in one transaction, which writes what it leaves for later at its end."""
        return self._run(work, self.dialect.stepping)

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in one transaction."""
        return self._run(work, self.dialect.writing)

    def transact_apart(self, work: Callable[[Connection], T]) -> T:
        """The same for a lease, which waits neither for its turn nor for a connection."""
        return self._run(work, self.dialect.writing, self._engine_of_leases)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work``, each statement of which stands for itself."""
        return self._run(work, self.dialect.reading)

    def ask(self, work: Callable[[Transaction], T]) -> T:
        """The same with questions, of which the driver may take many at once."""
        return self._run(work, self.dialect.asking)

    def _run(
        self,
        work: Callable[[S], T],
        way: Callable[[Engine], AbstractContextManager[S]],
        engine: Engine | None = None,
    ) -> T:
        """Run ``work`` in this way; again after a deadlock, or after making the tables."""
        made_tables = False
        began = time.monotonic()
        for attempt in range(MAX_ATTEMPTS):
            try:
                turn = self._turn() if engine is None else nullcontext()
                with turn, self._noticing_absence(), way(engine or self.engine) as means:
                    return work(means)
            except exc.DBAPIError as error:
                if self._make_tables and not made_tables and self._is_missing_table(error):
                    made_tables = True
                    self._make_tables()
                elif (
                    self._is_transient(error)
                    and attempt < MAX_ATTEMPTS - 1
                    and time.monotonic() - began < RETRY_SECONDS
                ):
                    time.sleep(random.uniform(0, 0.01 * 2**attempt))
                else:
                    raise self.unavailable(error) from error
            except exc.SQLAlchemyError as error:
                raise self.unavailable(error) from error
        raise AssertionError("unreachable")

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for a turn, without end while the database does what it is asked. Whoever waited
        while others were let down has waited enough."""
        vain = self._vain
        with self._turns:
            if self._vain != vain:
                raise exc.TimeoutError("The database did not do what others asked it just now.")
            yield

    @contextmanager
    def _noticing_absence(self) -> Iterator[None]:
        """A database that answers so late was away, and others may renew first."""
        began = time.monotonic()
        try:
            yield
        except exc.SQLAlchemyError:
            if time.monotonic() - began > PATIENCE_SECONDS:
                self._vain += 1
            raise
        if time.monotonic() - began > RETRY_SECONDS:
            self._on_failure()

    def unavailable(self, error: exc.SQLAlchemyError) -> BackendUnavailable:
        """What to raise instead."""
        self._on_failure()
        where = self.engine.url.render_as_string(hide_password=True)
        if self._is_missing_table(error):
            return BackendUnavailable(
                f"The presence tables are missing in {where}: run 'flask presence init-db', or "
                "your migrations."
            )
        cause = " ".join(str(getattr(error, "orig", None) or error).split())
        if isinstance(error, exc.DBAPIError) and error.statement is None:
            return BackendUnavailable(
                f"The presence database {where} cannot be reached; is it running, and is its URL "
                f"right? {cause}"
            )
        return BackendUnavailable(f"The presence database {where} failed: {cause}")

    def _is_transient(self, error: exc.DBAPIError) -> bool:
        """Is this cured by running the step again? So is the same new row from two steps."""
        return isinstance(error, exc.IntegrityError) or self.dialect.is_transient(error)

    def _is_missing_table(self, error: BaseException | None) -> bool:
        return isinstance(error, exc.DBAPIError) and self.dialect.is_missing_table(error)

    def after_fork(self) -> None:
        """Leave the parent's connections to the parent."""
        self.engine.dispose(close=False)
        self._engine_of_leases.dispose(close=False)
        self.dialect.after_fork()
        self._begin()

    def close(self) -> None:
        self.engine.dispose()
        self._engine_of_leases.dispose()
