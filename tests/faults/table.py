"""The faults by name: how long each lasts, on which stores, and what it may cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import harm
from .harm import LEASE_OVER, RENEWAL
from .stage import GRACE, HEARTBEAT, RECONCILE, Stage

BOTH = ("redis", "postgresql")
EVERY = (*BOTH, "mariadb", "sqlite")
SQL = ("postgresql", "mariadb")
"""There a reply that is lost is lost; Redis is asked again, and says what it did."""


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
        Fault("nothing", harm.nothing, 2, grounds=EVERY),
        Fault("killed", harm.kill, 1.5, AFTER_DEATH, EVERY, costs_signals=EVERY),
        Fault("killed for good", harm.kill_for_good, LEASE_OVER + 1, costs_signals=BOTH),
        Fault(
            "killed after a commit",
            harm.kill_before_announcing,
            1.5,
            AFTER_DEATH,
            costs_signals=BOTH,
        ),
        Fault("halted", harm.halt, LEASE_OVER, AFTER_DEATH, is_slow=True),
        Fault("halted briefly", harm.halt_briefly, RENEWAL, is_slow=True),
        Fault("rolling restart", harm.roll, 4, AFTER_DEATH, costs_signals=BOTH),
        Fault("store restarted", harm.restart, 1, AFTER_LOSS, costs_signals=BOTH),
        Fault("store emptied", harm.empty, 0.5, AFTER_LOSS),
        Fault("store torn", harm.tear, 0.5, AFTER_LOSS, turns_back=True),
        Fault("older snapshot", harm.turn_back, 2, AFTER_LOSS, costs_signals=BOTH, turns_back=True),
        Fault(
            "all crashed",
            harm.crash,
            3,
            AFTER_LOSS,
            grounds=("redis",),
            costs_signals=BOTH,
            turns_back=True,
        ),
        *[
            Fault(
                f"frozen {seconds} s",
                harm.freezing(seconds),
                seconds + 4,
                AFTER_DEATH + RENEWAL,
                costs_signals=BOTH,
            )
            for seconds in (5, 30)
        ],
        Fault("replies dropped", harm.drop_replies, 2, costs_signals=SQL),
        Fault("muted", harm.mute, 2, AFTER_DEATH, costs_signals=BOTH),
        # A connection may be cut, and the one on which the same is asked again.
        Fault("connections cut", harm.cut, 3, AFTER_DEATH, (*BOTH, "mariadb"), costs_signals=EVERY),
        Fault("scripts forgotten", harm.forget_scripts, 1, grounds=("redis",)),
        Fault("deafened", harm.deafen, 2, grounds=("redis",)),
        Fault(
            "failover",
            harm.fail_over,
            2,
            AFTER_LOSS + 5,
            grounds=("sentinel",),
            costs_signals=("sentinel",),
            turns_back=True,
        ),
        Fault("queue down", harm.lose_queue, 2, 5 * RENEWAL + HEARTBEAT, ("postgresql", "sqlite")),
        *[
            Fault(
                f"clock an hour {way}",
                harm.kill_the_first,
                LEASE_OVER + 1,
                costs_signals=BOTH,
                environments=harm.clock_off(offset),
            )
            for way, offset in (("ahead", "+1h"), ("behind", "-1h"))
        ],
        Fault(
            "clock set back",
            harm.set_clock_back,
            LEASE_OVER + 2.5,
            AFTER_DEATH,
            costs_signals=BOTH,
            environments=harm.clock_in_file,
        ),
        Fault("eight pruners", harm.prune_at_once, LEASE_OVER + 1, costs_signals=BOTH),
        Fault(
            "many at random",
            harm.many(harm.SERVER_FAULTS, harm.STORE_FAULTS, harm.NETWORK_FAULTS),
            8,
            AFTER_LOSS + LEASE_OVER,
            costs_signals=BOTH,
            is_slow=True,
        ),
        Fault(
            "many that turn back",
            harm.many(harm.SERVER_FAULTS, harm.TURNING_FAULTS, harm.NETWORK_FAULTS),
            8,
            AFTER_LOSS + LEASE_OVER,
            costs_signals=BOTH,
            is_slow=True,
            turns_back=True,
        ),
        Fault(
            "reload storm",
            harm.storm,
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
            harm.burst,
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
            harm.long_day,
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
            harm.silence,
            8,
            modes=("gevent", "gevent"),
            settings={"SOCKETIO": {"ping_interval": 2, "ping_timeout": 2}},
        ),
    ]
}
