"""How work on an SQL database takes turns."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from wire import PATIENCE, eventually

from flask_presence import BackendUnavailable
from flask_presence.backends.sqlalchemy import database
from flask_presence.backends.sqlalchemy.database import Database


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database where one has its turn at a time."""
    monkeypatch.setattr(database, "AT_ONCE", 1)
    engine = sa.create_engine(f"sqlite:///{tmp_path}/presence.sqlite3")
    return Database(engine, make_tables=None, on_failure=lambda: None)


class Turn:
    """Work that goes on until it is told to end, and how."""

    def __init__(self) -> None:
        self.has_begun = threading.Event()
        self._may_end = threading.Event()
        self._error: Exception | None = None

    def __call__(self, connection: sa.Connection) -> str:
        self.has_begun.set()
        assert self._may_end.wait(PATIENCE)
        if self._error is not None:
            raise self._error
        return "done"

    def end(self, error: Exception | None = None) -> None:
        self._error = error
        self._may_end.set()


def wait_behind(ours: Database, pool: ThreadPoolExecutor) -> tuple[Turn, Any, list[Any], list[str]]:
    """One has its turn and three wait for theirs: the first turn, its end, theirs, and who ran."""
    turn, ran = Turn(), list[str]()
    first = pool.submit(ours.read, turn)
    assert turn.has_begun.wait(PATIENCE)
    others = [
        pool.submit(ours.read, lambda _, number=number: ran.append(number)) for number in "abc"
    ]
    eventually(lambda: len(ours._turns._cond._waiters) == 3)  # type: ignore[attr-defined]
    return turn, first, others, ran


def test_who_waits_behind_work_that_is_done_has_a_turn(ours: Database) -> None:
    with ThreadPoolExecutor(4) as pool:
        turn, first, others, ran = wait_behind(ours, pool)
        before = list(ran)
        turn.end()
        for other in others:
            other.result(PATIENCE)

    assert first.result() == "done"
    assert before == []
    assert sorted(ran) == ["a", "b", "c"]


@pytest.mark.parametrize(("patience", "is_refused"), [(0, True), (60, False)])
def test_who_waited_while_the_database_let_others_wait_in_vain_is_refused(
    ours: Database, monkeypatch: pytest.MonkeyPatch, patience: float, is_refused: bool
) -> None:
    monkeypatch.setattr(database, "PATIENCE_SECONDS", patience)
    refused = 0
    with ThreadPoolExecutor(4) as pool:
        turn, first, others, ran = wait_behind(ours, pool)
        turn.end(sa.exc.TimeoutError("the database is away"))
        with pytest.raises(BackendUnavailable):
            first.result(PATIENCE)
        for other in others:
            try:
                other.result(PATIENCE)
            except BackendUnavailable:
                refused += 1

    assert (refused, len(ran)) == ((3, 0) if is_refused else (0, 3))
    # Whoever comes now has a turn again.
    assert ours.read(lambda connection: "done") == "done"


def test_a_lease_is_renewed_out_of_turn(ours: Database) -> None:
    with ThreadPoolExecutor(5) as pool:
        turn, *_ = wait_behind(ours, pool)
        renewed = pool.submit(ours.transact_apart, lambda connection: "renewed")
        try:
            assert renewed.result(PATIENCE) == "renewed"
        finally:
            turn.end()
