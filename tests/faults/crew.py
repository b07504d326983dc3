"""The tabs, all in one process of greenlets, and how the stage talks to it.

Both sides send lines of JSON over a socket; the stage asks, and there is one answer to each.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from gevent import monkey

    monkey.patch_all()

import json
import os
import socket
import subprocess
import threading
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import wire

from . import masses
from .journal import Journal
from .mirror import may_show
from .parent import end_with_parent
from .plan import Planner
from .tab import Tab

HERE = Path(__file__).parent


class Crew:
    """The stage's side: starts the process, and asks."""

    def __init__(self, journal: Path) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "faults.crew", str(theirs.fileno()), str(journal)],
                cwd=HERE.parent,
                pass_fds=[theirs.fileno()],
            )
        self._socket = ours
        self._lines = ours.makefile("rw")

    def tell(self, question: str, **details: Any) -> None:
        """Ask, and have the answer waited for by `answer`."""
        self._lines.write(json.dumps([question, details]) + "\n")
        self._lines.flush()

    def answer(self) -> Any:
        line = self._lines.readline()
        assert line, "the process of the clients ended"
        return json.loads(line)

    def ask(self, question: str, **details: Any) -> Any:
        self.tell(question, **details)
        return self.answer()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._lines.close()
        self._socket.close()


class Company:
    """The process's side: the tabs, and what is asked of all of them."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._tabs: list[Tab] = []
        self._acting: list[threading.Thread] = []
        self._closed = threading.Event()

    def open(self, *, seed: int, tabs: int, ports: list[int]) -> None:
        """Open the tabs; from now on they keep up."""
        planners = [Planner(seed, number, servers=len(ports)) for number in range(tabs)]
        self._tabs = [
            Tab(planner, number, ports, self._journal) for number, planner in enumerate(planners)
        ]
        _all([threading.Thread(target=tab.open) for tab in self._tabs])
        for tab in self._tabs:
            threading.Thread(target=self._keep_up, args=(tab,), daemon=True).start()

    def _keep_up(self, tab: Tab) -> None:
        while not self._closed.wait(0.1):
            with tab.turn:
                tab.rest()

    def act(self, *, seconds: float, count: int) -> None:
        """Begin a turn."""
        self._acting = [
            threading.Thread(target=self._act, args=(tab, seconds, count)) for tab in self._tabs
        ]
        for thread in self._acting:
            thread.start()

    @staticmethod
    def _act(tab: Tab, seconds: float, count: int) -> None:
        with tab.turn:
            tab.act(seconds, count)

    def rest(self) -> dict[str, Any]:
        """Await the end of the turn: how many operations there were, and what failed."""
        for thread in self._acting:
            thread.join()
        operations: Counter[str] = Counter()
        for tab in self._tabs:
            operations.update(tab.operations)
            tab.operations.clear()
        return {"operations": operations, "failures": [t.failure for t in self._tabs if t.failure]}

    def look(self, *, states: dict[str, Any]) -> dict[str, Any]:
        """Who is in, as the tabs believe, and where what they see differs from these states."""
        held = []
        given: dict[tuple[str, str | None], list[Any]] = defaultdict(list)
        differences = []
        for tab in self._tabs:
            mirror = tab.mirror
            for channel, meta in mirror.entered.items():
                held.append([channel, mirror.client_id, mirror.user])
                given[channel, mirror.user].append(meta)
            doubtful = mirror.changing() | mirror.uncertain | set(mirror.lost)
            differences += [f"{tab.name} does not know yet about {name}" for name in doubtful]
            differences += [
                f"{tab.name}, {channel}: {difference}"
                for channel, watch in mirror.watched.items()
                if channel in states
                for difference in watch.differences(states[channel])
            ]
        # Who gave none may be in with what they gave before, where the store turned back.
        differences += [
            f"{user} shows {shown[user]} in {channel}, given were {metas}"
            for (channel, user), metas in given.items()
            if user in (shown := _metas(states.get(channel)))
            and None not in metas
            and not may_show(shown[user], metas)
        ]
        return {"held": held, "differences": differences}

    def close(self) -> None:
        """Close all tabs."""
        self._closed.set()
        for tab in self._tabs:
            with tab.turn:
                tab.close()

    def mass(self, *, kind: str, **details: Any) -> Any:
        """Do something with many connections of their own."""
        return getattr(masses, kind)(self._journal, **details)


def _metas(state: Any) -> dict[str, Any]:
    """What each user shows."""
    return {user["id"]: user["meta"] for user in (state or {}).get("users", ())}


def _all(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    # A loaded machine answers late, and that is no failure.
    wire.PATIENCE = 20
    end_with_parent()
    company = Company(Journal(Path(sys.argv[2])))
    lines = socket.socket(fileno=int(sys.argv[1])).makefile("rw")
    for line in lines:
        question, details = json.loads(line)
        answer = getattr(company, question)(**details)
        lines.write(json.dumps(answer) + "\n")
        lines.flush()
    os._exit(0)  # Without waiting for anybody's connection.


if __name__ == "__main__":
    main()
