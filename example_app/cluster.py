"""`python -m example_app.cluster`: the board on two gunicorn workers and a Redis of their own.

Both share one port, so that which worker gets a connection is chance. A WebSocket is one
connection; long-polling is many, which would need a proxy with sticky clients in front: hence
WebSockets only. See docs/deployment.md for more than your own machine.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from flask import Flask

from flask_presence import Change
from flask_presence.signals import presence_changed

from . import create_app as create_example

ROOT = Path(__file__).parent.parent


def create_app() -> Flask:
    """What each worker serves: the board, and a line on the console whenever somebody moves."""
    app = create_example({"TRANSPORTS": ["websocket"]})

    @presence_changed.connect_via(app)
    def tell(app: Flask, channel: str, change: Change) -> None:
        who = f"user {change.user_id}" if change.user_id else "a guest"
        print(f"worker {os.getpid()}: {who} {change.kind} {channel}", flush=True)

    # Signals hold their receivers weakly.
    app.extensions["tell"] = tell
    return app


def main() -> int:
    redis = shutil.which("redis-server")
    if redis is None:
        sys.exit("This needs redis-server; on Debian: apt-get install redis-server")
    with tempfile.TemporaryDirectory(prefix="presence-") as folder:
        socket = Path(folder) / "redis.sock"
        store = subprocess.Popen(
            [redis, "--port", "0", "--unixsocket", socket, "--dir", folder, "--save", ""],
            stdout=subprocess.DEVNULL,
            # Ctrl-C is not for the store: the workers hand their users over to it as they end.
            start_new_session=True,
        )
        try:
            while not socket.exists() and store.poll() is None:
                time.sleep(0.01)
            return serve(f"unix://{socket}")
        finally:
            store.terminate()
            store.wait()


def serve(backend: str) -> int:
    """Run gunicorn until it ends; what tells this process to stop is gunicorn's to obey."""
    address = f"{os.environ.get('HOST', '127.0.0.1')}:{os.environ.get('PORT', '5000')}"
    gunicorn = subprocess.Popen(
        [
            *(sys.executable, "-m", "gunicorn", "--workers", "2", "--bind", address),
            *("--config", ROOT / "docs/deployment/gunicorn.conf.py"),
            "example_app.cluster:create_app()",
        ],
        env=os.environ | {"PRESENCE_BACKEND": backend},
        # Ctrl-C is for gunicorn's master, which tells the workers: a worker that hears it from both
        # at the same moment may wait for itself for ever.
        start_new_session=True,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: gunicorn.send_signal(number))
    return gunicorn.wait()


if __name__ == "__main__":
    sys.exit(main())
