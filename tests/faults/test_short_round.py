"""A short round of faults on each store; ``make faults`` plays the long one."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from processes import HERE

from .grounds import DatabaseGround, Ground, RedisGround, SQLiteGround
from .play import play
from .table import FAULTS

pytestmark = pytest.mark.faults

SHORT = {
    "redis": [
        "nothing",
        "killed after a commit",
        "replies dropped",
        "scripts forgotten",
        "store emptied",
        "older snapshot",
        "many at random",
    ],
    "postgresql": [
        "nothing",
        "halted",
        "connections cut",
        "store restarted",
        "older snapshot",
        "many at random",
    ],
}


def make_ground(name: str, request: pytest.FixtureRequest) -> Ground:
    if name in ("postgresql", "mariadb"):
        return DatabaseGround(request.getfixturevalue(name))
    return {"redis": RedisGround, "sqlite": SQLiteGround}[name]()


@pytest.mark.parametrize("ground", SHORT)
def test_whatever_goes_wrong_no_invariant_is_violated(
    ground: str, request: pytest.FixtureRequest
) -> None:
    faults = [FAULTS[name] for name in SHORT[ground]]

    outcomes = play(faults, make_ground(ground, request), seed=1)

    violations: dict[str, Any] = {
        outcome.fault: outcome.violations for outcome in outcomes if outcome.violations
    }
    assert violations == {}
    assert all(outcome.operations > 50 for outcome in outcomes)


def test_the_command_prints_a_row_for_each_fault_and_what_it_adds_up_to() -> None:
    words = ["--store", "sqlite", "--fault", "nothing", "--fault", "killed", "--rounds", "1"]

    run = subprocess.run(
        [sys.executable, "-m", "faults", *words], cwd=HERE, capture_output=True, text=True
    )

    head, *rows, last = run.stdout.splitlines()
    assert run.returncode == 0, run.stdout + run.stderr
    assert head.split()[:4] == ["fault", "store", "rounds", "operations"]
    assert [row.split()[:3] for row in rows] == [
        ["nothing", "sqlite", "1"],
        ["killed", "sqlite", "1"],
    ]
    assert re.fullmatch(r"2 faults, \d+ operations, 0 violations", last)
