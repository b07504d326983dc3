"""Plays all faults on all stores, and prints a table; ends with 1 where anything was violated.

``make faults`` runs it. ``--fault`` and ``--store`` choose, ``--seed`` makes the tabs do the same
operations once more, and ``--keep`` leaves the logs.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

from databases import MariaDB, PostgreSQL

from .grounds import DatabaseGround, Ground, RedisGround, SentinelGround, SQLiteGround
from .play import HEAD, Outcome, play
from .table import FAULTS, Fault

STORES = ["redis", "postgresql", "sentinel", "mariadb", "sqlite"]
DATABASES = {"postgresql": PostgreSQL, "mariadb": MariaDB}
GROUNDS: dict[str, Callable[[], Ground]] = {
    "redis": RedisGround,
    "sentinel": SentinelGround,
    "sqlite": SQLiteGround,
}
AT_ONCE = 2
"""On so many stores faults are played beside one another: they consist of waiting."""
TOLD = 10
"""Violations of one fault that are told in detail."""
ROUNDS = 2
LONG_SECONDS = 15
"""A fault that lasts longer is played once."""


def main() -> int:
    options = _parse()
    print(HEAD, flush=True)
    with ExitStack() as stack:
        queues = list(_queues(options, stack))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            light = [pool.submit(_play_all, options, queue, is_heavy=False) for queue in queues]
        outcomes = [outcome for line in light for outcome in line.result()]
        for queue in queues:
            outcomes += _play_all(options, queue, is_heavy=True)
    violations = sum(len(outcome.violations) for outcome in outcomes)
    operations = sum(outcome.operations for outcome in outcomes)
    print(f"{len(outcomes)} faults, {operations} operations, {violations} violations")
    return int(violations > 0)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--fault", action="append", choices=FAULTS, help="any number; all")
    parser.add_argument("--store", action="append", choices=STORES, help="any number; all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each short fault")
    parser.add_argument("--keep", action="store_true", help="leave the logs")
    return parser.parse_args()


class Queue(NamedTuple):
    """What is played one after another, on new stores of one kind."""

    make: Callable[[], Ground]
    faults: list[Fault]


def _queues(options: argparse.Namespace, stack: ExitStack) -> Iterator[Queue]:
    names = options.fault or [name for name, fault in FAULTS.items() if not fault.is_load]
    for store in options.store or STORES:
        faults = [FAULTS[name] for name in names if store in FAULTS[name].grounds]
        if not faults:
            continue
        if store in DATABASES:
            server = DATABASES[store]()
            stack.callback(server.remove)
            yield Queue(partial(DatabaseGround, server), faults)
        else:
            yield Queue(GROUNDS[store], faults)


def _play_all(options: argparse.Namespace, queue: Queue, *, is_heavy: bool) -> list[Outcome]:
    outcomes = []
    for fault in queue.faults:
        if fault.is_heavy == is_heavy:
            outcomes.append(_play(options, fault, queue.make()))
            _tell(outcomes[-1])
    return outcomes


def _play(options: argparse.Namespace, fault: Fault, ground: Ground) -> Outcome:
    rounds = 1 if fault.seconds > LONG_SECONDS else options.rounds
    try:
        (outcome,) = play([fault], ground, seed=options.seed, rounds=rounds, keep=options.keep)
    except Exception:
        failure = f"0 failed: {traceback.format_exc()}"
        return Outcome(fault.name, ground.name, violations=[failure])
    return outcome


def _tell(outcome: Outcome) -> None:
    print(outcome.line(), flush=True)
    for figures in outcome.figures:
        print(f"  {figures}", flush=True)
    for violation in outcome.violations[:TOLD]:
        print(f"  {violation}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
