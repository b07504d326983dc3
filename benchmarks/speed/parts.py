"""The parts of a run, each of which begins in a process of its own, on the core for load."""

from __future__ import annotations

import importlib

from . import host, profile
from .figures import Line

PARTS = {
    # Name: rounds, and the seconds of a measured stretch.
    "events": (3, 2.0),
    "burst": (5, 0.0),
    "telling": (3, 0.0),
    "vanishing": (3, 0.0),
    "memory": (3, 0.0),
    "idling": (1, 60.0),
    "redis_steps": (5, 2.0),
    "sql_steps": (5, 2.0),
    "pruning": (3, 0.0),
    "large": (3, 2.0),
}
PROFILED = (200, 4.0)
"""Connections, and seconds."""


def measure(part: str, is_quick: bool) -> list[Line]:
    """The lines of one part; a quick run is one short round, which proves nothing."""
    host.take_core(host.LOAD_CORE)
    rounds, seconds = (1, 0.5) if is_quick else PARTS[part]
    found: list[Line] = importlib.import_module(f".{part}", __package__).measure(rounds, seconds)
    return found


def take_profile() -> str:
    """Where a heartbeat's CPU goes, as Markdown."""
    host.take_core(host.LOAD_CORE)
    return profile.measure(*PROFILED)
