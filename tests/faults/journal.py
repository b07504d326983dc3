"""Logs of what each process saw and did: one line of JSON for each event, with its moment.

The moments are those of the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple


class Record(NamedTuple):
    """An event. ``who`` is a connection, a server or the stage; what ``data`` is, ``kind`` says."""

    at: float
    who: str
    kind: str
    data: Any


class Journal:
    """Written line by line, so that a process that is killed leaves what it did before."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, who: str, kind: str, data: Any = None) -> None:
        line = json.dumps([round(time.monotonic(), 5), who, kind, data])
        os.write(self._file, line.encode() + b"\n")


def read(paths: Iterable[Path]) -> list[Record]:
    """All events of these logs, in the order in which they happened."""
    records = []
    for path in paths:
        lines = path.read_text().split("\n")
        # Whoever was killed may not have finished its last line.
        records += [Record(*json.loads(line)) for line in lines[:-1]]
    return sorted(records, key=lambda record: record.at)
