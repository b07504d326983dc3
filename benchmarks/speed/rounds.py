"""Rounds in which contenders take turns in short blocks, so that what the machine does to one of
them it does to all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

Step = Callable[[int], object]
BLOCK = 50
"""How often a contender takes each of its steps before the next one has its turn."""


def seconds_of(work: Callable[[], object]) -> float:
    """How long something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def one_round(
    contenders: Mapping[str, Sequence[Step]], seconds: float, *, block: int = BLOCK
) -> dict[str, list[float]]:
    """How often in a second each contender takes each of its steps, which get a running number."""
    until = time.monotonic() + seconds
    taken: dict[str, list[float]] = {name: [0.0] * len(steps) for name, steps in contenders.items()}
    blocks = 0
    while not blocks or time.monotonic() < until:
        for name, steps in contenders.items():
            for index, step in enumerate(steps):
                taken[name][index] += seconds_of(lambda step=step: _block(step, block))  # type: ignore[misc]
        blocks += 1
    return {name: [blocks * block / spent for spent in times] for name, times in taken.items()}


def _block(step: Step, size: int) -> None:
    for number in range(size):
        step(number)


def pairs(
    found: Sequence[Mapping[str, Sequence[float]]], ours: str, theirs: str, index: int
) -> list[tuple[float, float]]:
    """The figures of one step of two contenders, for each round."""
    return [(one[ours][index], one[theirs][index]) for one in found]
