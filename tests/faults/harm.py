"""What is done to a stage while its tabs go on: one function for each fault."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests
from proxy import Link

from .grounds import RedisGround, SentinelGround, ServerGround
from .node import Node
from .plan import CHANNELS
from .stage import WORKER_TIMEOUT, Stage

RENEWAL = WORKER_TIMEOUT / 3
LEASE_OVER = WORKER_TIMEOUT + 1.5
"""Seconds after which a worker that does not renew is found dead."""
LATE_SECONDS = 2.5
"""What waited for so long is not done any more, where the store can tell."""
ALONE_SECONDS = 2.0
"""For so long one server alone has the store again: after a failed call it does not ask for a
second, and then it prunes."""
MANY = 5000
HANDS = ThreadPoolExecutor(16)
"""Threads that stay: a database ends with the one that started it."""
BULKY = "/room/99"
"""A channel of those alone who do not read."""


def _one_of(stage: Stage) -> int:
    return stage.chance.randrange(len(stage.nodes))


def _is_server(stage: Stage) -> ServerGround:
    assert isinstance(stage.ground, ServerGround)
    return stage.ground


def _down(stage: Stage, node: Node) -> None:
    """From now until all is healed, what the clients of this server know may be wrong."""
    stage.mark("down", node.port)


# Nothing


def nothing(stage: Stage) -> None:
    """All goes well, and every diff arrives."""
    time.sleep(2)


# Servers


def kill(stage: Stage) -> None:
    number = _one_of(stage)
    _down(stage, stage.nodes[number])
    stage.nodes[number].kill()
    time.sleep(0.5)
    stage.start_again(number)


def kill_for_good(stage: Stage) -> None:
    """Nobody comes back in its place until its lease is over."""
    number = _one_of(stage)
    _down(stage, stage.nodes[number])
    stage.nodes[number].kill()
    time.sleep(LEASE_OVER)
    stage.start_again(number)


def kill_before_announcing(stage: Stage) -> None:
    number = _one_of(stage)
    node = stage.nodes[number]
    _down(stage, node)
    node.die_before_announcing()
    died = node.await_death(10)
    node.stop()
    assert died, "nothing changed, so nobody was killed"
    stage.start_again(number)


def halt(stage: Stage) -> None:
    """A server stands still until others took it for dead, and goes on."""
    node = stage.nodes[_one_of(stage)]
    _down(stage, node)
    node.send(signal.SIGSTOP)
    time.sleep(LEASE_OVER)
    node.send(signal.SIGCONT)


def halt_briefly(stage: Stage) -> None:
    node = stage.nodes[_one_of(stage)]
    node.send(signal.SIGSTOP)
    time.sleep(RENEWAL)
    node.send(signal.SIGCONT)


def roll(stage: Stage) -> None:
    """All servers are drained, stopped and started, one after another."""
    for number in range(len(stage.nodes)):
        _down(stage, stage.nodes[number])
        with contextlib.suppress(requests.HTTPError):  # The store may be away.
            stage.nodes[number].post("drain")
        stage.nodes[number].kill()
        stage.start_again(number)


# The store


def restart(stage: Stage) -> None:
    _is_server(stage).restart()


def empty(stage: Stage) -> None:
    _is_server(stage).empty()


def tear(stage: Stage) -> None:
    """Parts of some channels are lost."""
    for channel in stage.chance.sample(CHANNELS[:4], 2):
        _is_server(stage).tear(channel)


def turn_back(stage: Stage) -> None:
    _is_server(stage).save()
    time.sleep(1.5)
    _is_server(stage).go_back()


def crash(stage: Stage) -> None:
    """The machine of all servers goes down, and the store has only a snapshot."""
    _is_server(stage).save()
    time.sleep(1.5)
    for node in stage.nodes:
        _down(stage, node)
        node.kill()
    _is_server(stage).go_back()
    for number in range(len(stage.nodes)):
        stage.start_again(number)


def freezing(seconds: float) -> Callable[[Stage], None]:
    def freeze(stage: Stage) -> None:
        """It wakes for one server after another, so that the first sees whom the others hold, and
        finds nothing to do that was asked just before."""
        _is_server(stage).freeze()
        time.sleep(max(0, seconds - LATE_SECONDS))
        for proxy in stage.proxies:
            proxy.stall()
        time.sleep(min(seconds, LATE_SECONDS))
        _is_server(stage).thaw()
        for proxy in stage.chance.sample(stage.proxies, len(stage.proxies)):
            proxy.flow()
            time.sleep(ALONE_SECONDS)

    return freeze


def forget_scripts(stage: Stage) -> None:
    assert isinstance(stage.ground, RedisGround)
    for _ in range(10):
        stage.ground.forget_scripts()
        time.sleep(0.1)


def fail_over(stage: Stage) -> None:
    assert isinstance(stage.ground, SentinelGround)
    stage.ground.fail_over()
    time.sleep(2)


# The network


def drop_replies(stage: Stage) -> None:
    """What was asked is done, and whoever asked does not hear of it; asked again, all is well."""
    for _ in range(10):
        for proxy in stage.proxies:
            proxy.bite()
        time.sleep(0.2)


def mute(stage: Stage) -> None:
    """No reply arrives for longer than anybody waits."""
    proxy = stage.chance.choice(stage.proxies)
    proxy.mute()
    time.sleep(1.5)
    proxy.hang_up()
    proxy.flow()


def cut(stage: Stage) -> None:
    """Connections break in the middle of whatever they are about."""
    for _ in range(10):
        for proxy in stage.proxies:
            proxy.hang_up()
        time.sleep(0.3)


def deafen(stage: Stage) -> None:
    """One server does not hear the store's events any more."""

    def is_listener(link: Link) -> bool:
        return link.subscribes

    proxy = stage.chance.choice(stage.proxies)
    proxy.stall(is_listener)
    time.sleep(2)
    proxy.flow()


def lose_queue(stage: Stage) -> None:
    assert stage.queue is not None
    stage.queue.stop()
    time.sleep(2)
    stage.queue.start()


# Clocks


def kill_the_first(stage: Stage) -> None:
    """What it held is ended by the others, whose clocks may be wrong."""
    _down(stage, stage.nodes[0])
    stage.nodes[0].kill()
    time.sleep(LEASE_OVER)
    stage.start_again(0)


def set_clock_back(stage: Stage) -> None:
    """The wall clock of the others steps back by an hour, under APScheduler; then one dies."""
    (stage.folder / CLOCK).write_text("-3600\n")
    time.sleep(1.5)
    kill_the_first(stage)
    (stage.folder / CLOCK).write_text("+0\n")


CLOCK = "clock"
FAKETIME = [str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketime.so.1")]


def _clock_of_others(folder: Path, **how: str) -> list[dict[str, str]]:
    """The second server's wall clock is not that of the machine, while its monotonic one is."""
    if not FAKETIME:
        raise RuntimeError("libfaketime is missing; on Debian: apt-get install faketime")
    faked = {"LD_PRELOAD": FAKETIME[0], "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    return [{}, faked | how]


def clock_off(offset: str) -> Callable[[Path], list[dict[str, str]]]:
    return lambda folder: _clock_of_others(folder, FAKETIME=offset)


def clock_in_file(folder: Path) -> list[dict[str, str]]:
    (folder / CLOCK).write_text("+0\n")
    how = {"FAKETIME_TIMESTAMP_FILE": str(folder / CLOCK), "FAKETIME_NO_CACHE": "1"}
    return _clock_of_others(folder, **how)


# Many at once


def prune_at_once(stage: Stage) -> None:
    """Eight processes prune without a pause, while a server is dead."""
    with stage.pruning(8):
        kill_the_first(stage)


def storm(stage: Stage) -> None:
    ports = [node.port for node in stage.nodes]
    stage.mass("storm", ports=ports, tabs=300, reloads=20, seed=stage.seed)


def burst(stage: Stage) -> None:
    """Twice: what Python keeps after the first time, it has for the second."""
    stage.mass("burst", port=stage.nodes[0].port, clients=MANY)
    stage.await_quiet()
    with stage.same_figures(within=30):
        stage.mass("burst", port=stage.nodes[0].port, clients=MANY)


def long_day(stage: Stage) -> None:
    """What the first crowd leaves behind, such as memory that Python keeps, is there before."""
    port = stage.nodes[0].port
    stage.mass("burst", port=port, clients=MANY)
    stage.await_quiet()
    with stage.same_figures(within=90):
        stage.mass("day", port=port, clients=MANY, seconds=300, rate=20, seed=stage.seed)


def silence(stage: Stage) -> None:
    """They are sent more than their connections can hold, too."""
    node = stage.nodes[0]
    with stage.same_figures(within=30):
        stage.crew.tell(
            "mass",
            kind="silence",
            port=node.port,
            clients=10,
            seconds=8,
            channels=[BULKY, *CHANNELS[:4]],
        )
        for _ in range(40):
            node.post("emit", channel=BULKY, event="bulk", data="x" * 100_000, to="subscribed")
            time.sleep(0.1)
        stage.answer_of_mass()


SERVER_FAULTS = (kill, halt, halt_briefly, roll)
STORE_FAULTS = (restart, empty, freezing(2))
TURNING_FAULTS = (turn_back, tear, empty)
NETWORK_FAULTS = (drop_replies, mute, cut)


def many(*families: Sequence[Callable[[Stage], None]]) -> Callable[[Stage], None]:
    """Of each family two after another, while those of the others go on."""

    def at_random(stage: Stage) -> None:
        chosen = [stage.chance.choices(family, k=2) for family in families]
        for running in [HANDS.submit(_one_by_one, stage, some) for some in chosen]:
            running.result()

    return at_random


def _one_by_one(stage: Stage, acts: Iterable[Callable[[Stage], None]]) -> None:
    for act in acts:
        act(stage)
