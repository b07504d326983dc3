"""Processes that prune without a pause until they are ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from processes import HERE

from .node import make_app
from .parent import end_with_parent


@contextmanager
def pruning(count: int, config: dict[str, Any], folder: Path) -> Iterator[None]:
    """So many processes prune meanwhile, on the store that this config names."""
    about = config | {"JOURNAL": str(folder / "pruners.log"), "PRESENCE_PRUNE_INTERVAL": 0}
    process = subprocess.Popen(
        [sys.executable, "-m", "faults.pruners", str(count)],
        cwd=HERE,
        env=os.environ | {"TEST_CONFIG": json.dumps(about)},
        start_new_session=True,
    )
    try:
        yield
        assert process.poll() is None, "nobody prunes any more"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)


def main() -> None:
    config = json.loads(os.environ["TEST_CONFIG"])
    children = int(sys.argv[1]) - 1
    number = next((one for one in range(children) if os.fork() == 0), children)
    end_with_parent()
    app = make_app(config | {"NODE": f"pruner{number}"})
    presence = app.extensions["presence"].tracker
    with app.app_context():
        while True:
            try:
                presence.prune()
            except Exception as error:
                app.logger.warning("It could not prune: %s", error)


if __name__ == "__main__":
    main()
