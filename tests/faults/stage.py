"""Where a run plays: a store, servers on it with a network between, tabs, and everybody's log."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from processes import Redis, free_port
from proxy import Proxy
from wire import Wire

from .crew import Crew
from .grounds import Ground
from .journal import Journal, Record, read
from .node import Node
from .plan import VIEWABLE
from .pruners import pruning

WORKER_TIMEOUT = 6.0
"""Well above the two seconds that a call to a frozen store may take on a busy machine."""
GRACE = 1.0
RECONCILE = 3.0
HEARTBEAT = 2.0
SETTINGS: dict[str, Any] = {
    "PRESENCE_WORKER_TIMEOUT": WORKER_TIMEOUT,
    "PRESENCE_PRUNE_INTERVAL": 0.5,
    "PRESENCE_LEAVE_GRACE": GRACE,
    "PRESENCE_HEARTBEAT_INTERVAL": HEARTBEAT,
    "PRESENCE_TIMEOUT": 60,
    "PRESENCE_RATE_LIMIT": None,
    "RECONCILE_SECONDS": RECONCILE,
}
MODES = ["threading", "gevent"]
LOOK_SECONDS = 0.25
QUIET_SECONDS = 4.0


class Stage:
    """Build it with `with`. Everything random comes from ``seed``.

    :param mutation: a defence that the servers go without.
    :param modes: the async mode of each server.
    """

    def __init__(
        self,
        ground: Ground,
        *,
        seed: int,
        tabs: int = 20,
        modes: Iterable[str] = MODES,
        settings: dict[str, Any] | None = None,
        mutation: str | None = None,
        environments: Callable[[Path], list[dict[str, str]]] = lambda folder: [],
    ) -> None:
        self.ground = ground
        self.seed = seed
        self.chance = random.Random(f"{seed} stage")
        self.folder = Path(tempfile.mkdtemp(prefix="faults-"))
        self.journal = Journal(self.folder / "stage.log")
        self.nodes: list[Node] = []
        self.proxies: list[Proxy] = []
        self.queue: Redis | None = None
        self._tabs = tabs
        self._modes = list(modes)
        self._settings = SETTINGS | (settings or {})
        self._mutation = mutation
        self._environments = [*environments(self.folder), *[{} for _ in self._modes]]
        self._crew: Crew | None = None
        self._readers: dict[int, Wire] = {}

    def __enter__(self) -> Stage:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        if not self.ground.carries_events:
            self.queue = Redis(self.folder)
        ports = [free_port() for _ in self._modes]
        if self.ground.port:
            self.proxies = [Proxy(self.ground.port) for _ in ports]
        with ThreadPoolExecutor() as pool:
            self.nodes = list(pool.map(self._start_node, range(len(ports)), ports))
        self._crew = Crew(self.folder / "tabs.log")
        if self._tabs:
            self.crew.ask("open", seed=self.seed, tabs=self._tabs, ports=ports)

    @property
    def crew(self) -> Crew:
        assert self._crew is not None
        return self._crew

    def _start_node(self, number: int, port: int) -> Node:
        store = self.proxies[number].port if self.proxies else 0
        name = f"node{number}"
        return Node(
            name,
            self._config(self.ground.url(store), self._modes[number]),
            journal=self.folder / f"{name}.log",
            port=port,
            environment=self._environments[number],
        )

    def _config(self, url: str, mode: str) -> dict[str, Any]:
        socketio = {"async_mode": mode} | self._settings.get("SOCKETIO", {})
        if self.queue is not None:
            socketio["message_queue"] = self.queue.url
        return self._settings | {
            "instance_path": str(self.folder),
            "PRESENCE_BACKEND": url,
            "SOCKETIO": socketio,
            "MUTATION": self._mutation,
        }

    def pruning(self, count: int) -> AbstractContextManager[None]:
        """So many other processes prune meanwhile."""
        config = self._config(self.ground.url(self.ground.port), "threading")
        return pruning(count, config, self.folder)

    def start_again(self, number: int) -> None:
        """A server in the place of one that ended."""
        self._repeat_errors(self.nodes[number])
        self.nodes[number] = self._start_node(number, self.nodes[number].port)

    def stop(self) -> None:
        if self._crew is not None:
            self._crew.stop()
        for reader in self._readers.values():
            reader.hang_up()
        for node in self.nodes:
            node.stop()
        for proxy in self.proxies:
            proxy.close()
        if self.queue is not None:
            self.queue.stop()

    def remove(self) -> None:
        """Delete the logs."""
        shutil.rmtree(self.folder)

    def _repeat_errors(self, node: Node) -> None:
        """What raised in a thread that nobody waited for is in no log."""
        said = "".join(node.errors)
        if "Traceback" in said:
            self.complain(f"{node.name}: {said[-2000:]}")

    def records(self) -> list[Record]:
        """What everybody logged; the servers have ended."""
        for node in self.nodes:
            self._repeat_errors(node)
        return read(self.folder.glob("*.log"))

    def mark(self, kind: str, data: Any = None) -> None:
        """Write down what is done to all."""
        self.journal.write("stage", kind, data)

    def complain(self, text: str) -> None:
        """Write down something that is wrong, for the checker to repeat."""
        self.mark("complaint", text)

    def mass(self, kind: str, **details: Any) -> None:
        """Have the process of the tabs do something with many connections, and wait for it."""
        self.crew.tell("mass", kind=kind, **details)
        self.answer_of_mass()

    def answer_of_mass(self) -> None:
        answer = self.crew.answer()
        self.mark("operations", answer["operations"])
        for failure in answer["failures"][:20]:
            self.complain(failure)

    @contextmanager
    def same_figures(self, within: float) -> Iterator[None]:
        """Afterwards the first server and the store hold no more than before, soon."""
        before = self._figures()
        yield
        until = time.monotonic() + within
        while (grown := _grown(before, self._figures())) and time.monotonic() < until:
            time.sleep(1)
        self.mark("figures", {"before": before, "after": self._figures()})
        for name in grown:
            self.complain(f"{name} grew: {before} became {self._figures()}")

    def await_quiet(self) -> None:
        """Await that the first server and the store let go of nothing more."""
        before: Any = None
        while before != (now := self._rough_figures()):
            before = now
            time.sleep(QUIET_SECONDS)

    def _rough_figures(self) -> dict[str, int]:
        return {name: figure // SPARE[name] for name, figure in self._figures().items()}

    def _figures(self) -> dict[str, int]:
        return self.nodes[0].figures() | {"stored": self.ground.size()}

    # Looking

    def states(self, number: int) -> dict[str, Any] | None:
        """What a server says about all channels; ``None`` where it says nothing."""
        try:
            reader = self._readers.get(number)
            if reader is None or reader.closed.is_set():
                reader = self._readers[number] = Wire(self.nodes[number].port)
            answer = reader.call("state", {"channels": VIEWABLE})
        except Exception:
            reader = self._readers.pop(number, None)
            if reader is not None:
                reader.hang_up()
            return None
        return answer["states"] if answer["ok"] else None

    def await_healed(self, within: float) -> None:
        """Await that all agree with the store and nothing changes any more, and mark that."""
        until = time.monotonic() + within
        before: Any = None
        while True:
            states, held, differences = self._look()
            if not differences and before == (states, held):
                self.mark("final", {"states": states})
                return
            before = None if differences else (states, held)
            self.mark("looked", differences[:3])
            if time.monotonic() > until:
                self.mark("unhealed", differences[:20] or ["it did not become quiet"])
                return
            time.sleep(LOOK_SECONDS)

    def _look(self) -> tuple[Any, Any, list[str]]:
        """What the store says, who is in as the tabs believe, and what does not agree."""
        found = [self.states(number) for number in range(len(self.nodes))]
        states = found[0]
        if states is None or None in found:
            return None, None, ["a server has no states"]
        differences = [
            f"{node.name} has {other}, node0 has {states}"
            for node, other in zip(self.nodes, found, strict=True)
            if other != states
        ]
        seen = self.crew.ask("look", states=states)
        believed = {(channel, client) for channel, client, _ in seen["held"]}
        stored = self.ground.members({*VIEWABLE, *(channel for channel, _ in believed)})
        differences += [f"{key} is stored, and no tab is in" for key in stored - believed]
        differences += [f"{key} believes to be in, and is not stored" for key in believed - stored]
        return states, sorted(seen["held"], key=str), differences + seen["differences"]


SPARE = {"memory": 60_000_000, "threads": 6, "files": 20, "stored": 150}
"""By how much each figure may be larger than before: tabs come and go, and nothing is exact."""


def _grown(before: dict[str, int], after: dict[str, int]) -> list[str]:
    return [name for name, spare in SPARE.items() if after[name] > before[name] + spare]
