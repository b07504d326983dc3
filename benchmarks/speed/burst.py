"""500 clients who all watch a channel enter it at once: how long until all know of all?"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from flask_presence.testing.fold import Fold

from ..stores import redis
from .figures import Line
from .load import Crowd, Link, event, frame
from .rounds import seconds_of
from .servers import Running, flask_server, running

SIZE = 500
CHANNEL = {"channel": "/room/1"}
JOIN = frame('42/list,["join"]')
NODE_JOIN = frame('42["join"]')


def measure(rounds: int, seconds: float) -> list[Line]:
    ours, dicts, nodes = [], [], []
    for _ in range(rounds):
        with ExitStack() as stack:
            url = stack.enter_context(redis())
            server = stack.enter_context(flask_server(PRESENCE_BACKEND=url))
            ours.append(_ours(server))
            dicts.append(_theirs(server, "/list", JOIN))
        with running(["node", "benchmarks/speed/peer.mjs"]) as node:
            nodes.append(_theirs(node, "/", NODE_JOIN))
    times = [took for took, _, _ in ours]
    what = f"{SIZE} enter at once, until all agree"
    amounts = [(events, size) for _, events, size in ours]
    return [
        Line(what, against, "s", "times as fast", 5.0, list(zip(times, theirs, strict=True)))
        for against, theirs in (
            ("a dict whose list is emitted at each join", dicts),
            ("Node's socket.io, each join emitted", nodes),
        )
    ] + [
        Line(f"{what}: events each", "-", "", "at most", 20, [(most, 0) for most, _ in amounts]),
        Line(f"{what}: KB each", "-", "", "at most", 60, [(size, 0) for _, size in amounts]),
    ]


def _ours(server: Running) -> tuple[float, float, float]:
    """Seconds, events and kilobytes of the client that was sent most."""
    with Crowd(server.port, SIZE) as crowd:
        folds: dict[Link, Fold] = {link: Fold() for link in crowd.links}
        answers = crowd.ask_all("subscribe", lambda link: CHANNEL)
        for link, answer in zip(crowd.links, answers, strict=True):
            folds[link].apply_state(answer["state"])
        before = {link: link.bytes for link in crowd.links}
        texts: dict[Link, list[bytes]] = {link: [] for link in crowd.links}
        known = dict.fromkeys(crowd.links, 0)
        waiting = set(crowd.links)

        def heard(link: Link, text: bytes) -> None:
            texts[link].append(text)
            known[link] += text.count(b'"id":')
            if known[link] >= SIZE:
                waiting.discard(link)

        took = _burst(crowd, heard, event("enter", CHANNEL), lambda: not waiting)
        for link, found in texts.items():
            _check(folds[link], found)
        events = max(sum(text.startswith(b"42") for text in found) for found in texts.values())
        sizes = [link.bytes - before[link] for link in crowd.links]
        return took, events, max(sizes) / 1000


def _check(fold: Fold, texts: list[bytes]) -> None:
    """Do they really know of all?"""
    for text in texts:
        if text.startswith(b"42"):
            fold.apply_diff(json.loads(text[text.index(b"[") :])[1])
    assert fold.count == len(fold.users) == SIZE
    assert not fold.gap


def _theirs(server: Running, namespace: str, join: bytes) -> float:
    with Crowd(server.port, SIZE, namespaces=(namespace,)) as crowd:
        received = dict.fromkeys(crowd.links, 0)
        waiting = set(crowd.links)

        def heard(link: Link, text: bytes) -> None:
            received[link] += 1
            if received[link] == SIZE:
                waiting.discard(link)

        return _burst(crowd, heard, join, lambda: not waiting)


def _burst(
    crowd: Crowd, heard: Callable[[Link, bytes], Any], join: bytes, is_over: Callable[[], bool]
) -> float:
    def burst() -> None:
        for link in crowd.links:
            link.send(join)
        crowd.run(is_over)

    crowd.listen(heard)
    return seconds_of(burst)
