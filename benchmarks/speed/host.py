"""The machine: its cores, which are shared out, and what is said about it above the table."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

SERVER_CORE, LOAD_CORE = 0, max(os.sched_getaffinity(0))
"""What is measured has one core for itself; what asks, and the stores, have another one."""

PACKAGES = [
    "flask",
    "flask-socketio",
    "python-socketio",
    "gevent",
    "redis",
    "sqlalchemy",
    "psycopg",
]


def take_core(core: int) -> None:
    """Have this process, and what it starts, run on one core alone."""
    os.sched_setaffinity(0, {core})


@contextmanager
def server_core() -> Iterator[None]:
    """What is started inside of this runs on the core for servers."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {SERVER_CORE})
    yield
    os.sched_setaffinity(0, mine)


def describe() -> str:
    """The machine and the versions, in a line each."""
    system = f"{platform.system()}, Python {platform.python_version()}"
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"{os.cpu_count()} cores, {system}\n\n{packages}"


def resident(pid: int) -> int:
    """How many bytes of memory a process has."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
