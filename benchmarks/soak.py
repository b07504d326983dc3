"""Server processes under random load: is any change missing, told twice, or seen differently?

``python -m benchmarks.soak --help`` tells the options.
"""

from __future__ import annotations

import argparse
import multiprocessing
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Any

from processes import Server
from server import create_app
from wire import Wire

from . import stores, verdict
from .actors import CHANNELS, Findings, Held, Task, run

TOLERATED = {"misordered"}
"""Where an update overtakes the entering it follows, nobody is told the place."""
TOLD = 5
"""Violations of one kind that are told in detail."""
QUIET_SECONDS = 2.0
"""For so long nothing may change before the end: then every leave's grace is over."""
SETTINGS = {
    "PRESENCE_LEAVE_GRACE": 0.5,
    "PRESENCE_PRUNE_INTERVAL": 0.5,
    "PRESENCE_RATE_LIMIT": None,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print one line, and return 0 where all was well, else 1."""
    options = _parse(arguments)
    with ExitStack() as stack:
        config = _config(options, stack)
        servers = [stack.enter_context(_server(config)) for _ in range(options.servers)]
        observers = [stack.enter_context(_observer(server)) for server in servers]
        crowd = stack.enter_context(_crowd(options, [server.port for server in servers]))
        began = time.monotonic()
        _answers(crowd)
        took = time.monotonic() - began
        findings = _judge(servers, observers, crowd, options.patience)
        counts, upkeep, errors, failures = _end(crowd)
        findings["failures"] = failures + [line for server in servers for line in _logged(server)]
    for kind, details in findings.items():
        for detail in details[:TOLD]:
            print(f"{kind}: {detail}", file=sys.stderr)
    changes = sum(len(server.signals) for server in servers)
    print(_summary(changes, took, counts, upkeep, errors, findings))
    return int(any(findings[kind] for kind in findings.keys() - TOLERATED))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--store", choices=stores.STORES, default="sqlite", help="started for it")
    parser.add_argument("--url", help="a store that runs already, instead of one that is started")
    parser.add_argument("--operations", type=int, default=100_000, help="in all")
    parser.add_argument("--servers", type=int, default=2, help="server processes")
    parser.add_argument("--clients", type=int, default=8, help="client processes")
    parser.add_argument("--connections", type=int, default=10, help="of each client process")
    parser.add_argument("--async-mode", choices=["threading", "gevent"], default="threading")
    parser.add_argument("--seed", type=int, default=0, help="the same one, the same operations")
    parser.add_argument("--patience", type=float, default=120, help="seconds for all to agree")
    return parser.parse_args(arguments)


# Starting


def _config(options: argparse.Namespace, stack: ExitStack) -> dict[str, Any]:
    """The config of the servers, with everything started that it names."""
    url = options.url or stack.enter_context(stores.STORES[options.store]())
    socketio = {"async_mode": options.async_mode}
    if not url.startswith(("redis", "unix")):
        socketio["message_queue"] = stack.enter_context(stores.redis())
    config = SETTINGS | {
        "instance_path": stack.enter_context(tempfile.TemporaryDirectory()),
        "PRESENCE_BACKEND": url,
        "PRESENCE_KEY_PREFIX": f"soak_{secrets.token_hex(4)}",
        "SOCKETIO": socketio,
    }
    app, _ = create_app(config | {"SOCKETIO": {}})
    app.extensions["presence"].backend.prepare()
    app.extensions["presence"].backend.close()
    return config


@contextmanager
def _server(config: dict[str, Any]) -> Iterator[Server]:
    server = Server(config)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def _observer(server: Server) -> Iterator[Wire]:
    """A connection that only asks for states."""
    wire = Wire(server.port)
    yield wire
    wire.drop()


@contextmanager
def _crowd(options: argparse.Namespace, ports: list[int]) -> Iterator[list[Connection]]:
    """The client processes, each by the pipe on which it answers."""
    # Not forked: this process has threads.
    context = multiprocessing.get_context("spawn")
    share = options.operations // options.clients
    pipes, processes = [], []
    for number in range(options.clients):
        ours, theirs = context.Pipe()
        task = Task(number, options.seed, ports, options.connections, share, options.patience)
        process = context.Process(target=run, args=(task, theirs))
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        yield pipes
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.kill()


# Judging


def _answers(crowd: list[Connection], question: Any = None) -> list[Any]:
    for pipe in crowd:
        if question is not None:
            pipe.send(question)
    return [pipe.recv() for pipe in crowd]


def _judge(
    servers: list[Server], observers: list[Wire], crowd: list[Connection], patience: float
) -> Findings:
    """What is wrong when nothing changes any more, or patience is over."""
    until = time.monotonic() + patience
    while True:
        states, unsettled = _settle(servers, observers, crowd, until)
        verdicts = [each for answer in _answers(crowd, states) for each in answer]
        if _states(observers[0]) == states or time.monotonic() > until:
            break
    seen = {
        kind: [line for found in verdicts for line in found.get(kind, [])]
        for kind in ("disagreeing", "undelivered", "misordered")
    }
    signals = _signals(servers)
    folds, contradicting = verdict.folded(signals, states)
    return {
        "misordered": seen["misordered"],
        "undelivered": seen["undelivered"],
        "missing": verdict.missing(signals, states),
        "twice": verdict.twice(signals),
        "disagreeing": [
            *unsettled,
            *verdict.misplaced(_held(crowd), folds),
            *contradicting,
            *verdict.contradicting(folds, states),
            *seen["disagreeing"],
        ],
    }


def _settle(
    servers: list[Server], observers: list[Wire], crowd: list[Connection], until: float
) -> tuple[dict[str, Any], list[str]]:
    """Wait until store, signals and clients agree and nothing changes any more."""
    before: dict[str, Any] = {}
    since = time.monotonic()
    while True:
        states, *others = [_states(observer) for observer in observers]
        unsettled = verdict.miscounted(_held(crowd), states)
        unsettled += [f"processes have {states} and {other}" for other in others if other != states]
        is_told = len(_signals(servers)) >= sum(state["revision"] for state in states.values())
        now = time.monotonic()
        if states != before or unsettled or not is_told:
            before, since = states, now
        if now - since > QUIET_SECONDS or now > until:
            return states, unsettled
        time.sleep(0.1)


def _signals(servers: list[Server]) -> list[verdict.Signal]:
    return [signal for server in servers for signal in server.signals]


def _held(crowd: list[Connection]) -> list[Held]:
    return [held for answer in _answers(crowd, "held") for held in answer]


def _states(observer: Wire) -> dict[str, Any]:
    """The states of all channels that anybody may view."""
    answer = observer.call("state", {"channels": CHANNELS})
    if not answer["ok"]:
        raise SystemExit(f"The states cannot be read: {answer}")
    return {name: state for name, state in answer["states"].items() if state is not None}


def _end(
    crowd: list[Connection],
) -> tuple[Counter[str], Counter[str], Counter[str], list[str]]:
    """What all clients did, what they did to keep up, their errors, and what failed."""
    totals = (Counter[str](), Counter[str](), Counter[str]())
    failures: list[str] = []
    for *counters, some_failures in _answers(crowd, "end"):
        for total, some in zip(totals, counters, strict=True):
            total.update(some)
        failures += some_failures
    return *totals, failures


def _logged(server: Server) -> list[str]:
    """What the server had to complain of."""
    if server.process.poll() is not None:
        return [f"a server ended by itself: {''.join(server.errors[-TOLD:])}"]
    return [line.rstrip() for line in server.errors if line.startswith(("ERROR", "CRITICAL"))]


def _summary(
    changes: int,
    took: float,
    counts: Counter[str],
    upkeep: Counter[str],
    errors: Counter[str],
    findings: Findings,
) -> str:
    operations = counts.total()
    parts = [
        f"{operations} operations, {changes} changes in {took:.1f} s, {operations / took:.0f}/s",
        _listed(counts),
        f"errors: {_listed(errors) or 'none'}",
        _listed(upkeep),
        _listed({kind: len(details) for kind, details in findings.items()}),
    ]
    return "; ".join(parts)


def _listed(numbers: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in numbers.items())


if __name__ == "__main__":
    sys.exit(main())
