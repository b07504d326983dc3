"""Runs the measurements and writes the tables: ``python -m benchmarks.speed --help``."""

from __future__ import annotations

import argparse
import multiprocessing
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

from . import figures, host
from .parts import PARTS, measure, take_profile

T = TypeVar("T")

RESULTS = Path(__file__).parent.parent / "RESULTS.md"


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse(arguments)
    began = time.monotonic()
    lines: list[figures.Line] = []
    failures: list[str] = []
    for part in options.parts or PARTS:
        since = time.monotonic()
        found = _attempt(failures, part, measure, part, options.quick) or []
        lines += found
        print(f"{part}: {time.monotonic() - since:.0f} s\n{figures.table(found)}\n", flush=True)
    if not options.parts:
        table = _attempt(failures, "profile", take_profile) or ""
        took = time.monotonic() - began
        RESULTS.write_text(_report(lines, failures, table, took))
        print(f"{RESULTS} was written after {took:.0f} s.")


def _attempt(failures: list[str], part: str, work: Callable[..., T], *args: object) -> T | None:
    """A part that something disturbed spoils no other."""
    try:
        return _in_a_process(work, *args)
    except Exception as error:
        failures.append(f"`{part}` was not measured: {type(error).__name__}: {error}")
        traceback.print_exc()
        return None


def _in_a_process(work: Callable[..., T], *args: object) -> T:
    """Each part begins in a new process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work, *args).result()


def _report(lines: Sequence[figures.Line], failures: Sequence[str], table: str, took: float) -> str:
    missing = "".join(f"\n{failure}\n" for failure in failures)
    return f"""# Results

Written by `make bench`, {time.strftime("%Y-%m-%d")}, in {took:.0f} s.

{host.describe()}

Figures are medians of the rounds, in which both sides take turns; the range is that of the ratios.

{figures.table(lines)}
{missing}
## Where a heartbeat's CPU goes

{table}
"""


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="one short round of each")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
