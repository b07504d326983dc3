"""Processes that are measured, each on the core for servers, and ended with the run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .host import SERVER_CORE

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Running:
    """A process that listens."""

    pid: int
    port: int

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}") as answer:
            return json.load(answer)

    def post(self, path: str) -> None:
        urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", data=b"").close()


@contextmanager
def running(
    command: Sequence[str], *, core: int = SERVER_CORE, **environment: str
) -> Iterator[Running]:
    """A process whose first line is the port that it listens on."""
    process = subprocess.Popen(
        ["taskset", "-c", str(core), *command],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield Running(process.pid, int(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def flask_server(**settings: Any) -> Iterator[Running]:
    """The measured server; without a setting of presence it is a bare one."""
    with tempfile.TemporaryDirectory() as folder:
        config = json.dumps({"instance_path": folder, "settings": settings})
        command = [sys.executable, "-m", "benchmarks.speed.server"]
        with running(command, SPEED_CONFIG=config) as server:
            yield server
