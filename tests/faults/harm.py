"""The faults: what is done to a stage, for how long, and what it may cost."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from proxy import Link

from .grounds import RedisGround, SentinelGround, ServerGround
from .node import Node
from .plan import CHANNELS
from .stage import GRACE, HEARTBEAT, RECONCILE, WORKER_TIMEOUT, Stage

RENEWAL = WORKER_TIMEOUT / 3
BOTH = ("redis", "postgresql")
EVERY = (*BOTH, "mariadb", "sqlite")
SQL = ("postgresql", "mariadb")
"""There a reply that is lost is lost; Redis is asked again, and says what it did."""
LEASE_OVER = WORKER_TIMEOUT + 1.5
"""Seconds after which a worker that does not renew is found dead."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong for ``seconds``, in the middle of what all others do.

    ``heals_within`` are seconds after its end. ``costs_signals`` names the stores on which a
    process died, or did not learn what the store did for it, so that some changes were signalled by
    nobody. ``turns_back``: the store forgot its last writes, so that revisions may come twice until
    somebody noticed. ``environments``: what each server's environment has in addition, by a folder.
    """

    name: str
    act: Callable[[Stage], None]
    seconds: float = 1.0
    heals_within: float = 3 * RENEWAL + HEARTBEAT + GRACE
    grounds: tuple[str, ...] = BOTH
    costs_signals: tuple[str, ...] = ()
    turns_back: bool = False
    modes: tuple[str, ...] = ("threading", "gevent")
    settings: dict[str, Any] = field(default_factory=dict)
    environments: Callable[[Path], list[dict[str, str]]] = lambda folder: []
    tabs: int = 20
    is_slow: bool = False
    """May answers take longer than they should, as a server stands still or is too busy?"""
    is_heavy: bool = False
    """Does it need the whole machine?"""
    is_load: bool = False
    """Is it played only when it is named?"""


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
        """It wakes for one server after another, so that the first sees whom the others hold."""
        _is_server(stage).freeze()
        time.sleep(seconds)
        for proxy in stage.proxies:
            proxy.stall()
        _is_server(stage).thaw()
        for proxy in stage.chance.sample(stage.proxies, len(stage.proxies)):
            proxy.flow()
            time.sleep(0.7)

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
    time.sleep(WORKER_TIMEOUT / 2)
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
    faked = {"LD_PRELOAD": FAKETIME[0], "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    return [{}, faked | how]


def _clock_off(offset: str) -> Callable[[Path], list[dict[str, str]]]:
    return lambda folder: _clock_of_others(folder, FAKETIME=offset)


def _clock_in_file(folder: Path) -> list[dict[str, str]]:
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
        with ThreadPoolExecutor() as pool:
            for running in [pool.submit(_one_by_one, stage, some) for some in chosen]:
                running.result()

    return at_random


def _one_by_one(stage: Stage, acts: Iterable[Callable[[Stage], None]]) -> None:
    for act in acts:
        act(stage)


MANY = 5000

BULKY = "/room/99"
"""A channel of those alone who do not read."""

AFTER_DEATH = LEASE_OVER + HEARTBEAT + GRACE
AFTER_LOSS = RECONCILE + 3 * RENEWAL + HEARTBEAT + GRACE

DEFAULTS: dict[str, Any] = {
    "PRESENCE_WORKER_TIMEOUT": 15,
    "PRESENCE_PRUNE_INTERVAL": 2,
    "PRESENCE_LEAVE_GRACE": 5,
    "PRESENCE_HEARTBEAT_INTERVAL": 25,
}

FAULTS = {
    fault.name: fault
    for fault in [
        Fault("nothing", nothing, 2, grounds=EVERY),
        Fault("killed", kill, 1.5, AFTER_DEATH, EVERY, costs_signals=EVERY),
        Fault("killed for good", kill_for_good, LEASE_OVER + 1, costs_signals=BOTH),
        Fault(
            "killed after a commit", kill_before_announcing, 1.5, AFTER_DEATH, costs_signals=BOTH
        ),
        Fault("halted", halt, LEASE_OVER, AFTER_DEATH, is_slow=True),
        Fault("halted briefly", halt_briefly, RENEWAL, is_slow=True),
        Fault("rolling restart", roll, 4, AFTER_DEATH, costs_signals=BOTH),
        Fault("store restarted", restart, 1, AFTER_LOSS, costs_signals=BOTH),
        Fault("store emptied", empty, 0.5, AFTER_LOSS),
        Fault("store torn", tear, 0.5, AFTER_LOSS, turns_back=True),
        Fault("older snapshot", turn_back, 2, AFTER_LOSS, costs_signals=BOTH, turns_back=True),
        Fault("all crashed", crash, 3, AFTER_LOSS, costs_signals=BOTH, turns_back=True),
        Fault("frozen 5 s", freezing(5), 6.5, AFTER_DEATH, costs_signals=BOTH),
        Fault("frozen 30 s", freezing(30), 31.5, AFTER_DEATH, costs_signals=BOTH),
        Fault("replies dropped", drop_replies, 2, costs_signals=SQL),
        Fault("muted", mute, 2, AFTER_DEATH, costs_signals=BOTH),
        Fault("connections cut", cut, 3, AFTER_DEATH, (*BOTH, "mariadb"), costs_signals=SQL),
        Fault("scripts forgotten", forget_scripts, 1, grounds=("redis",)),
        Fault("deafened", deafen, 2, grounds=("redis",)),
        Fault(
            "failover",
            fail_over,
            2,
            AFTER_LOSS + 5,
            grounds=("sentinel",),
            costs_signals=("sentinel",),
            turns_back=True,
        ),
        Fault("queue down", lose_queue, 2, 5 * RENEWAL + HEARTBEAT, ("postgresql", "sqlite")),
        *[
            Fault(
                f"clock an hour {way}",
                kill_the_first,
                LEASE_OVER + 1,
                costs_signals=BOTH,
                environments=_clock_off(offset),
            )
            for way, offset in (("ahead", "+1h"), ("behind", "-1h"))
        ],
        Fault(
            "clock set back",
            set_clock_back,
            LEASE_OVER + 2.5,
            AFTER_DEATH,
            costs_signals=BOTH,
            environments=_clock_in_file,
        ),
        Fault("eight pruners", prune_at_once, LEASE_OVER + 1, costs_signals=BOTH),
        Fault(
            "many at random",
            many(SERVER_FAULTS, STORE_FAULTS, NETWORK_FAULTS),
            8,
            AFTER_LOSS + LEASE_OVER,
            costs_signals=BOTH,
            is_slow=True,
        ),
        Fault(
            "many that turn back",
            many(SERVER_FAULTS, TURNING_FAULTS, NETWORK_FAULTS),
            8,
            AFTER_LOSS + LEASE_OVER,
            costs_signals=BOTH,
            is_slow=True,
            turns_back=True,
        ),
        Fault(
            "reload storm",
            storm,
            20,
            AFTER_DEATH + 5,
            modes=("gevent", "gevent"),
            settings={"PRESENCE_LEAVE_GRACE": 5, "PRESENCE_WORKER_TIMEOUT": 15},
            tabs=4,
            is_slow=True,
            is_heavy=True,
        ),
        Fault(
            "burst of 5,000",
            burst,
            20,
            AFTER_DEATH,
            modes=("gevent",),
            settings={"PRESENCE_WORKER_TIMEOUT": 15},
            tabs=4,
            is_slow=True,
            is_heavy=True,
        ),
        Fault(
            "long day",
            long_day,
            330,
            AFTER_DEATH,
            grounds=("redis",),
            modes=("gevent",),
            settings=DEFAULTS,
            tabs=4,
            is_slow=True,
            is_heavy=True,
            is_load=True,
        ),
        Fault(
            "silent subscribers",
            silence,
            8,
            settings={"SOCKETIO": {"ping_interval": 2, "ping_timeout": 2}},
        ),
    ]
}
