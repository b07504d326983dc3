"""However the stage ends, nothing that it started goes on."""

from __future__ import annotations

import os
import threading
import time


def end_with_parent() -> None:
    """End this process as soon as the one that started it has ended."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
