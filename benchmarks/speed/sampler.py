"""Where a process spends its CPU: its stack, looked at once in each millisecond of CPU time."""

from __future__ import annotations

import signal
from collections import Counter
from types import FrameType

SECONDS = 0.001

_stacks: Counter[tuple[str, ...]] = Counter()


def begin() -> None:
    """Look from now on."""
    _stacks.clear()
    signal.signal(signal.SIGPROF, _look)
    signal.setitimer(signal.ITIMER_PROF, SECONDS, SECONDS)


def end() -> list[tuple[list[str], int]]:
    """Look no more: each stack from the outermost, as ``file:function``, and how often it was
    met."""
    signal.setitimer(signal.ITIMER_PROF, 0)
    return [(list(stack), number) for stack, number in _stacks.most_common()]


def _look(number: int, frame: FrameType | None) -> None:
    stack = []
    while frame is not None:
        code = frame.f_code
        stack.append(f"{code.co_filename}:{code.co_name}")
        frame = frame.f_back
    _stacks[tuple(reversed(stack))] += 1
