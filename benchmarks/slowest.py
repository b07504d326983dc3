"""How long the scripts that end and put back many members keep a Redis from everybody else.

``python -m benchmarks.slowest``: 100,000 members are held, come due and are pruned in 1, 10 and 100
channels. The figures are what the server itself measured of each script, in milliseconds of its
clock: a machine that is busy makes them longer.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from typing import Any

from flask_presence.backends.redis import RedisBackend, connect
from flask_presence.backends.redis.scripts import load_scripts

from .speed.filling import fill
from .speed.pruning import prune
from .stores import redis

CHANNELS = (1, 10, 100)
KEPT = 1_000_000
"""Entries of the server's own log: more than there are scripts in a run."""

COLUMNS = "script", "calls", "median ms", "99.9 % ms", "longest ms"


def main() -> None:
    options = _parse()
    for channels in CHANNELS:
        print(f"\n{options.members:,} members in {channels} channels")
        with redis() as url:
            backend = RedisBackend(connect(url))
            _run(backend, options.members, channels)
            backend.close()


def _run(backend: RedisBackend, members: int, channels: int) -> None:
    client = backend.server.client
    client.config_set("slowlog-max-len", KEPT)
    client.config_set("slowlog-log-slower-than", 0)
    fill(backend, members, channels=channels, timeout=0.001)
    _print(client, "put back, then given deadlines")
    client.slowlog_reset()
    prune(backend)
    _print(client, "pruned")


def _print(client: Any, what: str) -> None:
    names = {script.sha.encode(): name for name, script in load_scripts(client).items()}
    took: dict[str, list[float]] = {}
    for entry in client.slowlog_get(KEPT):
        words = entry["command"].split(b" ")
        if words[0] == b"EVALSHA" and words[1] in names:
            took.setdefault(names[words[1]], []).append(entry["duration"] / 1000)
    print(f"\n{what}\n{''.join(f'{column:>14}' for column in COLUMNS)}")
    for name, times in sorted(took.items()):
        print(f"{name:>14}{len(times):>14,}{''.join(f'{one:>14.2f}' for one in _points(times))}")


def _points(times: Sequence[float]) -> list[float]:
    order = sorted(times)
    return [statistics.median(order), order[int(0.999 * (len(order) - 1))], order[-1]]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=100_000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
