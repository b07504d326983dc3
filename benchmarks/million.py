"""What a million members cost one Redis: memory, entering, renewing, pruning.

``python -m benchmarks.million --help`` tells the options.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from flask_presence.backends.base import chunks
from flask_presence.backends.redis import RedisBackend, connect

from .speed.filling import EPOCH, members_of
from .stores import redis

WORKERS = 100
LOOKS = 50


def main() -> None:
    options = _parse()
    with redis() as url:
        backend = RedisBackend(connect(url))
        client = backend.server.client
        before = _memory(client)
        workers = [f"worker{number:010}" for number in range(WORKERS)]
        took = _seconds(lambda: _fill(backend, workers, options.members, options.channels))
        rate = options.members / took
        print(f"filled: {options.members:,} members in {options.channels:,} channels")
        print(f"        {took:.0f} s, {rate:,.0f} a second, in slices of one channel")
        each = (_memory(client) - before) / options.members
        print(f"memory: {each:,.0f} bytes each, {_memory(client) / 2**30:.2f} GiB in all")
        _time_steps(backend, workers[0], options.channels)
        _prune(backend, workers, options.channels)


def _fill(backend: RedisBackend, workers: list[str], members: int, channels: int) -> None:
    for worker in workers:
        backend.renew(worker, 3600, create=True)
    each = members // channels
    for index in range(channels):
        worker = workers[index % len(workers)]
        name = f"/filled/{index}"
        for some in chunks(list(members_of(name, range(index * each, (index + 1) * each)))):
            backend.hold(name, some, epoch=EPOCH, worker=worker)


def _time_steps(backend: RedisBackend, worker: str, channels: int) -> None:
    visitors = list(members_of("/filled/0", range(10**9, 10**9 + LOOKS)))
    names = [f"/filled/{index}" for index in range(min(1000, channels))]
    steps: dict[str, Callable[[int], object]] = {
        "enter": lambda n: backend.enter(visitors[n], epoch=EPOCH, worker=worker),
        "leave": lambda n: backend.leave("/filled/0", [visitors[n].client_id]),
        "renew": lambda n: backend.renew(worker, 3600),
        "renew, with 1,000 positions": lambda n: backend.renew(worker, 3600, channels=names),
        "look for who is due": lambda n: backend.due(500),
    }
    for name, step in steps.items():
        took = _seconds(lambda step=step: [step(number) for number in range(LOOKS)])  # type: ignore[misc]
        print(f"{name}: {1e6 * took / LOOKS:,.0f} µs")


def _prune(backend: RedisBackend, workers: list[str], channels: int) -> None:
    """One worker of all dies."""
    dead = workers[-1]
    backend.renew(dead, 0.001)
    time.sleep(0.01)
    ended, slices, longest, more = 0, 0, 0.0, True
    began = time.perf_counter()
    while more:
        since = time.perf_counter()
        changes, more = backend.prune()
        longest = max(longest, time.perf_counter() - since)
        ended, slices = ended + len(changes), slices + 1
    took = time.perf_counter() - began
    print(f"prune of a dead worker: {ended:,} members in {took:.2f} s, {slices} prunes,")
    print(f"        {1e6 * took / ended:.0f} µs each, the longest prune {longest * 1000:.0f} ms")


def _memory(client: Any) -> int:
    return int(client.info("memory")["used_memory"])


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=1_000_000)
    parser.add_argument("--channels", type=int, default=10_000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
