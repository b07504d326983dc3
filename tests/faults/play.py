"""Plays faults on a stage, one round after another, and asks the checker about it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from . import checker
from .grounds import Ground
from .stage import GRACE, Stage
from .table import Fault

CALM_SECONDS = 1.0
DEEDS_PER_SECOND = 5
"""Of each tab."""
SLACK_SECONDS = 8.0


@dataclass
class Outcome:
    """What came of a few rounds of one fault on one store."""

    fault: str
    ground: str
    rounds: int = 0
    operations: int = 0
    healed: list[float] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)
    """What a server and its store held before and after."""

    def line(self) -> str:
        times = [f"{median(self.healed):.1f} s", f"{max(self.healed):.1f} s"] if self.healed else []
        return _row(
            self.fault, self.ground, self.rounds, self.operations, len(self.violations), *times
        )


def _row(fault: str, ground: str, *figures: Any) -> str:
    return f"{fault:26} {ground:11}" + "".join(f"{figure:>12}" for figure in figures)


HEAD = _row("fault", "store", "rounds", "operations", "violations", "median", "worst")
"""The last two are the time until all had healed."""


def play(
    faults: Sequence[Fault],
    ground: Ground,
    *,
    seed: int,
    rounds: int = 1,
    patience: float = SLACK_SECONDS,
    framed: bool = True,
    keep: bool = False,
    **options: Any,
) -> list[Outcome]:
    """Play these faults on one stage, so many rounds: an outcome for each.

    :param patience: how many seconds later than it should a busy machine may heal.
    :param framed: have a turn without any fault before and after.
    :param keep: leave the logs, and say where.
    """
    outcomes = {fault.name: Outcome(fault.name, ground.name) for fault in faults}
    began: list[tuple[float, Outcome]] = []
    needs = _options_of(faults) | options
    stage = Stage(ground, seed=seed, **needs)
    try:
        with stage:
            if framed:
                _play_without_fault(stage, patience)
            for fault in [fault for _ in range(rounds) for fault in faults]:
                began.append((time.monotonic(), outcomes[fault.name]))
                _round(stage, fault, outcomes[fault.name], patience)
            if framed:
                _play_without_fault(stage, patience)
        records = stage.records()
    finally:
        if keep:
            print(f"The logs are in {stage.folder}", file=sys.stderr)
        else:
            stage.remove()
        ground.stop()
    last = outcomes[faults[-1].name]
    last.figures += [str(record.data) for record in records if record.kind == "figures"]
    last.operations += sum(record.data for record in records if record.kind == "operations")
    grace = needs["settings"].get("PRESENCE_LEAVE_GRACE", GRACE)
    for violation in checker.check(records, grace=grace):
        whose = [outcome for at, outcome in began if at <= violation.at]
        (whose or [began[0][1]])[-1].violations.append(str(violation))
    return list(outcomes.values())


def _options_of(faults: Iterable[Fault]) -> dict[str, Any]:
    """What the stage needs for all of these."""
    merged: dict[str, Any] = {"settings": {}}
    for fault in faults:
        merged["settings"] |= fault.settings
        merged["modes"] = fault.modes
        merged |= {"environments": fault.environments, "tabs": fault.tabs}
    return merged


def _play_without_fault(stage: Stage, patience: float) -> None:
    """A turn without a fault."""
    _begin_turn(stage, CALM_SECONDS)
    stage.crew.ask("rest")
    stage.await_healed(patience)


def _begin_turn(stage: Stage, seconds: float) -> None:
    stage.crew.ask("act", seconds=seconds, count=round(seconds * DEEDS_PER_SECOND))


def _round(stage: Stage, fault: Fault, outcome: Outcome, patience: float) -> None:
    _begin_turn(stage, CALM_SECONDS + fault.seconds)
    time.sleep(CALM_SECONDS)
    costs_signals = stage.ground.name in fault.costs_signals
    about = {"name": fault.name, "costs_signals": costs_signals}
    about |= {"turns_back": fault.turns_back, "is_slow": fault.is_slow}
    stage.mark("fault", about)
    fault.act(stage)
    stage.mark("over", fault.name)
    ended = time.monotonic()
    done = stage.crew.ask("rest")
    stage.await_healed(fault.heals_within + patience)
    outcome.rounds += 1
    outcome.operations += sum(done["operations"].values())
    outcome.healed.append(round(time.monotonic() - ended, 1))
    outcome.violations += [f"0 failed: {failure}" for failure in done["failures"]]
