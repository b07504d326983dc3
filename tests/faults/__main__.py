"""Plays all faults on all stores, and prints a table; ends with 1 where anything was violated.

``make faults`` runs it. ``--fault`` and ``--store`` choose, ``--seed`` makes the tabs do the same
operations once more, and ``--keep`` leaves the logs.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from databases import MariaDB, PostgreSQL

from .grounds import DatabaseGround, Ground, RedisGround, SentinelGround, SQLiteGround
from .harm import FAULTS, Fault
from .play import HEAD, Outcome, play

STORES = ["redis", "postgresql", "sentinel", "mariadb", "sqlite"]
DATABASES = {"postgresql": PostgreSQL, "mariadb": MariaDB}
TOLD = 10
"""Violations of one fault that are told in detail."""
ROUNDS = 3
LONG_SECONDS = 15
"""A fault that lasts longer is played once."""


def main() -> int:
    options = _parse()
    print(HEAD, flush=True)
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        lines = [
            pool.submit(_play_all, options, faults, make)
            for faults, make in _queues(options, stack)
        ]
        outcomes = [outcome for line in lines for outcome in line.result()]
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


def _queues(
    options: argparse.Namespace, stack: ExitStack
) -> Iterable[tuple[list[Fault], Callable[[], Ground]]]:
    """What is played one after another, on each store beside the others."""
    names = options.fault or [name for name, fault in FAULTS.items() if not fault.is_load]
    chosen = [FAULTS[name] for name in names]
    makers: dict[str, Callable[[], Ground]] = {
        "redis": RedisGround,
        "sentinel": SentinelGround,
        "sqlite": SQLiteGround,
    }
    for store in options.store or STORES:
        if store in DATABASES:
            server = DATABASES[store]()
            stack.callback(server.remove)
            makers[store] = partial(DatabaseGround, server)
        faults = [fault for fault in chosen if store in fault.grounds]
        if faults:
            yield faults, makers[store]


def _play_all(
    options: argparse.Namespace, faults: list[Fault], make: Callable[[], Ground]
) -> list[Outcome]:
    outcomes = []
    for fault in faults:
        rounds = 1 if fault.seconds > LONG_SECONDS else options.rounds
        try:
            outcomes += play([fault], make(), seed=options.seed, rounds=rounds, keep=options.keep)
        except Exception:
            failure = f"0 failed: {traceback.format_exc()}"
            outcomes.append(Outcome(fault.name, "?", violations=[failure]))
        print(outcomes[-1].line(), flush=True)
        for figures in outcomes[-1].figures:
            print(f"  {figures}", flush=True)
        for violation in outcomes[-1].violations[:TOLD]:
            print(f"  {violation}", file=sys.stderr, flush=True)
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
