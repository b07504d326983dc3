"""How long the scripts that end and put back many members keep a Redis from everybody else.

``python -m benchmarks.slowest``: 100,000 members are held, come due and are pruned in 1, 10 and 100
channels. The figures are what the server itself measured of each script, in milliseconds of its
clock, which goes on while a busy machine has it wait; and the most CPU that it used for one, with
its request, its answer and a look at the log.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flask_presence.backends.redis import RedisBackend, connect
from flask_presence.backends.redis.server import Server

from .speed.filling import fill
from .speed.pruning import prune
from .stores import redis

CHANNELS = (1, 10, 100)
COLUMNS = "script", "calls", "median ms", "99.9 % ms", "longest ms", "most CPU ms"


def main() -> None:
    options = _parse()
    for channels in CHANNELS:
        print(f"\n{options.members:,} members in {channels} channels")
        with redis() as url:
            backend = RedisBackend(connect(url))
            took = _watch(backend.server)
            fill(backend, options.members, channels=channels, timeout=0.001)
            prune(backend)
            _print(took)
            backend.close()


def _watch(server: Server) -> dict[str, list[tuple[float, float]]]:
    """Note how long each script takes from now on, by its name.

    The server logs a script after the commands that it runs, so that the last entry is its own.
    """
    server.client.config_set("slowlog-log-slower-than", 0)
    server.client.config_set("slowlog-max-len", 1)
    used = Path(f"/proc/{server.client.info()['process_id']}/schedstat")
    took: dict[str, list[tuple[float, float]]] = {}

    def noted(run: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
        def run_and_note(script: str, *args: Any) -> list[Any]:
            before = _nanoseconds(used)
            reply = run(script, *args)
            (entry,) = server.client.slowlog_get(1)
            spent = (_nanoseconds(used) - before) / 1e6
            took.setdefault(script, []).append((entry["duration"] / 1000, spent))
            return reply

        return run_and_note

    server.run, server.run_once = noted(server.run), noted(server.run_once)  # type: ignore[method-assign]
    return took


def _nanoseconds(schedstat: Path) -> int:
    """The CPU time that a process has used."""
    return int(schedstat.read_text().split()[0])


def _print(took: dict[str, list[tuple[float, float]]]) -> None:
    print("".join(f"{column:>14}" for column in COLUMNS))
    for name, times in sorted(took.items()):
        print(f"{name:>14}{len(times):>14,}{''.join(f'{one:>14.2f}' for one in _points(times))}")


def _points(times: Sequence[tuple[float, float]]) -> list[float]:
    order = sorted(lasted for lasted, _ in times)
    longest = order[-1]
    most = max(spent for _, spent in times)
    return [statistics.median(order), order[int(0.999 * (len(order) - 1))], longest, most]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=100_000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
