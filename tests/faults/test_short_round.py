"""A short round of faults on each store; ``make faults`` plays the long one."""

from __future__ import annotations

from typing import Any

import pytest

from .grounds import DatabaseGround, Ground, RedisGround, SQLiteGround
from .play import play
from .table import FAULTS

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
    "sqlite": ["nothing", "killed"],
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
