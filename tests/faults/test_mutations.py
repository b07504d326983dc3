"""The checker has to notice each defence that the servers go without."""

from __future__ import annotations

import pytest

from .mutations import MUTATIONS
from .play import play
from .table import FAULTS
from .test_short_round import make_ground

pytestmark = pytest.mark.faults

TRIES = 5
"""How often chance may favour a server without a defence."""


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_defence_that_is_missing_is_noticed(name: str, request: pytest.FixtureRequest) -> None:
    mutation = MUTATIONS[name]
    fault = FAULTS[mutation.fault]

    for seed in range(TRIES):
        ground = make_ground(mutation.ground, request)
        (outcome,) = play(
            [fault],
            ground,
            seed=seed,
            mutation=name,
            settings=fault.settings | mutation.settings,
            patience=1,
            framed=False,
        )
        if any(violation.startswith(mutation.rule) for violation in outcome.violations):
            break

    assert any(violation.startswith(mutation.rule) for violation in outcome.violations), outcome
