"""Real processes for tests: servers of the test app, and a Redis of one's own."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from wire import PATIENCE, eventually

HERE = Path(__file__).parent


class Server:
    """A process that serves the test app."""

    def __init__(self, config: dict[str, Any], port: int = 0) -> None:
        self.config = config
        self.signals: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self._ready = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "server.py"), str(port)],
            env=os.environ | {"TEST_CONFIG": json.dumps(config), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._readers = [
            threading.Thread(target=target, daemon=True)
            for target in (self._read_output, self._read_errors)
        ]
        for reader in self._readers:
            reader.start()
        assert self._ready.wait(PATIENCE * 2), "".join(self.errors)

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._take(line)

    def _take(self, line: str) -> None:
        if line.startswith("PORT "):
            self.port = int(line.split()[1])
            self._ready.set()
        elif line.startswith("SIGNAL "):
            self.signals.append(json.loads(line[7:]))

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            self.errors.extend(lines)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """End the process as ``kill -9`` does, and read the rest of what it said."""
        self.process.kill()
        self.process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.kill()


def free_port() -> int:
    """A port that no outgoing connection takes while its server is away."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


def require(program: str, elsewhere: Sequence[str] = ()) -> str:
    """The path of a program; without it a test is skipped on a laptop and fails in CI.

    :param elsewhere: folders to look in beside those of the ``PATH``.
    """
    path = shutil.which(program, path=os.pathsep.join([os.environ["PATH"], *elsewhere]))
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(f"{program} is missing")
        pytest.skip(f"{program} is missing")
    return path


class Redis:
    """A Redis server of the test's own."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process = subprocess.Popen(
            [require("redis-server"), "--port", str(self.port), "--save", "", "--dir", directory],
            stdout=subprocess.DEVNULL,
        )
        eventually(self._answers)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)
