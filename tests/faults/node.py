"""A server process of the test app that logs each signal, and breaks where it is told to.

``python -m faults.node PORT`` with what `Node` says in the environment; everything that is broken
here is patched in from outside, the package knows nothing of it.
"""

# ruff: noqa: E402 - gevent patches what is imported after it
from __future__ import annotations

import ctypes
import gc
import json
import os
import sys

CONFIG = json.loads(os.environ["TEST_CONFIG"]) if __name__ == "__main__" else {}
if CONFIG.get("SOCKETIO", {}).get("async_mode") == "gevent":
    from gevent import monkey

    monkey.patch_all()

import logging
import signal
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import requests
from flask import Flask, Response
from processes import Server
from server import create_app, serve

from flask_presence import signals
from flask_presence.delivery import Announcer
from flask_presence.tracker import holdings

from . import mutations
from .journal import Journal
from .parent import end_with_parent


class Node(Server):
    """The stage's side of such a process.

    :param name: what its log calls it; an old one may come back under the same name.
    :param environment: what its environment has in addition.
    """

    def __init__(
        self,
        name: str,
        config: dict[str, Any],
        *,
        journal: Path,
        port: int = 0,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self._additions = environment or {}
        super().__init__(config | {"NODE": name, "JOURNAL": str(journal)}, port)

    def _command(self, port: int) -> list[str]:
        return [sys.executable, "-m", "faults.node", str(port)]

    def _environment(self) -> dict[str, str]:
        return super()._environment() | self._additions

    def post(self, path: str, **body: Any) -> requests.Response:
        answer = requests.post(f"http://127.0.0.1:{self.port}/{path}", json=body, timeout=10)
        answer.raise_for_status()
        return answer

    def figures(self) -> dict[str, int]:
        """What the process holds: memory in bytes, threads and open files."""
        answer = requests.get(f"http://127.0.0.1:{self.port}/figures", timeout=30)
        answer.raise_for_status()
        found: dict[str, int] = answer.json()
        return found

    def die_before_announcing(self) -> None:
        """Let it be killed between its next commit and what it says about it."""
        # That one may come before the answer to this.
        with suppress(requests.ConnectionError):
            self.post("die")

    def await_death(self, seconds: float) -> bool:
        """Await its end: whether it came."""
        try:
            self.process.wait(seconds)
        except Exception:
            return False
        return True


class _LogHandler(logging.Handler):
    """Writes what the app logs where the checker finds it."""

    def __init__(self, journal: Journal, name: str) -> None:
        super().__init__(logging.WARNING)
        self._journal = journal
        self._name = name

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        about = {"logger": record.name, "level": record.levelname, "text": text}
        self._journal.write(self._name, "log", about)


def _log_signals(app: Flask, journal: Journal, name: str) -> None:
    def changed(sender: Flask, channel: str, change: Any) -> None:
        journal.write(name, "signal", asdict(change))

    signals.presence_changed.connect(changed, sender=app, weak=False)


def _add_routes(app: Flask) -> None:
    @app.post("/die")
    def die() -> tuple[str, int]:
        def announce(self: Announcer, changes: Any) -> None:
            if changes:
                os.kill(os.getpid(), signal.SIGKILL)

        Announcer.announce = announce  # type: ignore[method-assign]
        return "", 204

    @app.get("/figures")
    def figures() -> Response | dict[str, int]:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return {
            "memory": pages * os.sysconf("SC_PAGE_SIZE"),
            "threads": threading.active_count(),
            "files": len(os.listdir("/proc/self/fd")),
        }


def make_app(config: dict[str, Any]) -> Flask:
    """The test app, with a log for everything that the checker wants to know."""
    # A reconcile is due once a minute, and nobody waits so long.
    holdings.RECONCILE_SECONDS = config.pop("RECONCILE_SECONDS", holdings.RECONCILE_SECONDS)
    name, journal = config.pop("NODE"), Journal(Path(config.pop("JOURNAL")))
    mutation = config.pop("MUTATION", None)
    handler = _LogHandler(journal, name)
    logging.getLogger().addHandler(handler)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    if mutation is not None:
        mutations.MUTATIONS[mutation].apply()
    app, _ = create_app(config)
    _log_signals(app, journal, name)
    _add_routes(app)
    journal.write(name, "started", os.getpid())
    return app


def main() -> None:
    end_with_parent()
    serve(
        make_app(CONFIG),
        int(sys.argv[1]),
        on_port=lambda port: print(f"PORT {port}", flush=True),
    )


if __name__ == "__main__":
    main()
