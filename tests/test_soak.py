"""The load checker in a small form; people run the large one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from processes import require

ROOT = Path(__file__).parent.parent


def test_nothing_is_missing_or_told_twice_or_seen_differently_under_load() -> None:
    require("redis-server")
    sizes = ["--operations", "2000", "--clients", "3", "--connections", "4"]

    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", "--store", "sqlite", *sizes],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert "missing 0, twice 0, disagreeing 0" in run.stdout
