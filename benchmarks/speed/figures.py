"""What was measured: a pair of figures for each round, and whether their ratio is good enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

Kind = Literal["times as many", "times as fast", "times the cost", "at most"]

RATIOS: dict[Kind, Callable[[float, float], float]] = {
    "times as many": lambda ours, theirs: ours / theirs,
    "times as fast": lambda ours, theirs: theirs / ours,
    "times the cost": lambda ours, theirs: ours / theirs,
    "at most": lambda ours, theirs: ours - theirs,
}
"""How a round's two figures are compared; ``at most`` is for an amount, beyond theirs."""

UPWARDS: frozenset[Kind] = frozenset({"times as many", "times as fast"})
"""Where more is better."""


@dataclass(frozen=True)
class Line:
    """One line of the table.

    :ivar rounds: for each round our figure and theirs.
    :ivar goal: the least that a ratio may be, or the most.
    """

    what: str
    against: str
    unit: str
    kind: Kind
    goal: float
    rounds: Sequence[tuple[float, float]]

    @property
    def ratios(self) -> list[float]:
        return [RATIOS[self.kind](*pair) for pair in self.rounds]

    @property
    def is_reached(self) -> bool:
        ratio = median(self.ratios)
        return ratio >= self.goal if self.kind in UPWARDS else ratio <= self.goal

    def cells(self) -> list[str]:
        """What, against, figure, theirs, ratio, range, goal, reached."""
        ours, theirs = (median(pair[index] for pair in self.rounds) for index in (0, 1))
        unit = "" if self.kind == "at most" else "x"
        ratios = [f"{_short(ratio)}{unit}" for ratio in sorted(self.ratios)]
        sign = "≥" if self.kind in UPWARDS else "≤"
        return [
            self.what,
            self.against,
            f"{_short(ours)} {self.unit}",
            f"{_short(theirs)} {self.unit}",
            f"{_short(median(self.ratios))}{unit}",
            f"{ratios[0]} to {ratios[-1]}",
            f"{sign} {self.goal:g}{unit}",
            "yes" if self.is_reached else "**no**",
        ]


HEADS = ["what", "against", "presence", "theirs", "ratio", "range", "goal", "reached"]


def table(lines: Sequence[Line]) -> str:
    """The lines as Markdown."""
    rows = [HEADS, ["---"] * len(HEADS), *(line.cells() for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _short(number: float) -> str:
    if abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}"
