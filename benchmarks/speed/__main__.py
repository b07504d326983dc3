"""Runs the measurements and writes the table: ``python -m benchmarks.speed --help``."""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Sequence
from pathlib import Path

from . import figures, host

PARTS = {"events": "events", "redis": "redis_steps"}
RESULTS = Path(__file__).parent.parent / "RESULTS.md"


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse(arguments)
    host.take_core(host.LOAD_CORE)
    lines: list[figures.Line] = []
    for part in options.parts:
        began = time.monotonic()
        module = importlib.import_module(f".{PARTS[part]}", __package__)
        found = module.measure(options.rounds, options.seconds)
        lines += found
        print(f"{part}: {time.monotonic() - began:.0f} s\n{figures.table(found)}", flush=True)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3, help="of each measured stretch")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
