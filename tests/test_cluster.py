"""``make run-cluster``: the example on two workers and a Redis of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from processes import free_port, require
from wire import PATIENCE, Wire, eventually

TOPIC = "/topic/1"


class Cluster:
    """The program in a process group of its own, as a terminal runs it."""

    def __init__(self, folder: Path) -> None:
        require("redis-server")
        self.port = free_port()
        self.folder = folder / "tmp"
        self.folder.mkdir(exist_ok=True)
        self._log = folder / "log"
        paths = {"EXAMPLE_INSTANCE_PATH": str(folder / "instance"), "TMPDIR": str(self.folder)}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "example_app.cluster"],
                env=os.environ | {"PORT": str(self.port)} | paths,
                cwd=Path(__file__).parent.parent,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def answers(self) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self.port}", timeout=PATIENCE).ok
        except requests.RequestException:
            return False

    def said(self) -> str:
        return self._log.read_text()

    def workers(self) -> set[str]:
        """The workers that told of somebody who moved."""
        return set(re.findall(r"^worker (\d+): ", self.said(), re.MULTILINE))

    def interrupt(self) -> None:
        """Ctrl-C: the signal reaches every process of the group."""
        os.killpg(self.process.pid, signal.SIGINT)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[], Cluster]]:
    clusters: list[Cluster] = []

    def run() -> Cluster:
        cluster = Cluster(tmp_path)
        clusters.append(cluster)
        eventually(cluster.answers, PATIENCE * 3)
        return cluster

    yield run
    for cluster in clusters:
        if cluster.process.poll() is None:
            cluster.process.terminate()
            cluster.process.wait(PATIENCE * 3)


def enter(dial: Any, cluster: Cluster, name: str) -> Wire:
    with requests.Session() as browser:
        url = f"http://127.0.0.1:{cluster.port}/sign-in"
        assert browser.post(url, data={"name": name}, timeout=PATIENCE).ok
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in browser.cookies)
    wire: Wire = dial(cluster.port, headers={"Cookie": cookies})
    assert wire.call("enter", {"channel": TOPIC})["ok"]
    return wire


def names_at(wire: Wire) -> list[str]:
    state = wire.call("state", {"channels": [TOPIC]})["states"][TOPIC]
    return [user["info"]["name"] for user in state["users"]]


def test_two_workers_show_the_same_users_until_ctrl_c_and_a_second_run_begins_anew(
    run: Callable[[], Cluster], dial: Any
) -> None:
    cluster = run()
    wires: dict[str, Wire] = {}

    while len(cluster.workers()) < 2:
        assert len(wires) < 64, "all clients go to one worker"
        wires[f"User {len(wires)}"] = enter(dial, cluster, f"User {len(wires)}")
        eventually(lambda: cluster.said().count(" entered ") == len(wires))
    seen = [names_at(wire) for wire in wires.values()]
    (store,) = cluster.folder.glob("*/redis.sock")
    cluster.interrupt()

    assert seen == [list(wires)] * len(wires)
    assert cluster.process.wait(PATIENCE * 2) == 0
    assert "Traceback" not in cluster.said()
    assert not store.exists()
    assert names_at(enter(dial, run(), "Ada Lovelace")) == ["Ada Lovelace"]
