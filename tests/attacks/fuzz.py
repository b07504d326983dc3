"""Sends mutated frames to a server under watch: ``python tests/attacks/fuzz.py --frames 100000``.

Valid frames are mutated at the level of Engine.IO, of Socket.IO and of the payload, by a seed that
reproduces them. Meanwhile two others enter, leave and watch each other, and must never notice.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

# ruff: noqa: E402 - found by the lines above
import websocket
from watched import Watched
from wire import PATIENCE, Wire, eventually

from flask_presence.testing.fold import Fold

FRAMES_PER_CONNECTION = 20
FRAMES_PER_VISIT = 5
"""After so many it joins the namespace again, in case that it was thrown out of it."""
MOST_BLOCKS = 3000
"""Blocks of memory that Python's objects may take on top of the warm-up: fewer than if one object
of each connection stayed."""

MOST_GROWN = 20_000
"""Kilobytes that may come on top of it: what allocators keep, and stacks of threads that are gone,
which is far more than the objects take that may have stayed."""

WARM_UP = 20_000
"""Frames after which the memory is taken for what the server needs anyhow."""

DEAF_SECONDS = 0.15
"""Who does not answer for that long was driven to read no more of this connection."""

JOIN = '40/presence,{"user":"eve"}'

QUICK_PINGS = {"ping_interval": 2, "ping_timeout": 4}
"""Some broken packets end Engine.IO's reader alone: only its pings find out that nobody is left."""

CHANNELS = ["/room/1", "/mixed/a", "/count/b", "/staff/c", "/small/d", "/server/e", "/vault/f"]
CHANNELS += ["/broken/g", "/invalid/h", "/turning/i", "/nowhere/j", "/room/007", "/mixed/é"]

TEXTS = [
    "", " ", "\x00", "\n", "é", "é", "\ud800", "\udfff", "\u2028", "😀", "a" * 300,
    "__proto__", "constructor", "*", "connect", "disconnect", "message", "/", "//", "/room/", "..",
    "presence:full:/room/1", "%00", "<b>", "'", '"', "\\", "x" * 5000,
]  # fmt: skip
NUMBERS = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1e999",
    "-0",
    "0.1",
    "-1",
    "9" * 90,
    "9" * 400,
]
NUMBERS += ["1e-400", str(2**53), str(2**63), str(2**64)]
PART = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d[\d.e+-]*|\btrue\b|\bnull\b|\{\}|\[\]')
KINDS = ["0", "1", "2", "2", "3", "4", "5", "6", "7", "9", "", "x", "٢"]
ATTACHMENTS = ["", "", "", "", "", "", "", "", "1-", "2-", "99999999-", "-", "0-", "1" * 20 + "-"]
NAMESPACES = ["/presence,", "/presence,", "/presence?a=b,", "/presence", "/,", "", "/other,", "//,"]
FORGED = ["connect", "disconnect", "*"]
IDS = ["", "0", "1", "-1", "9" * 99, "9" * 200, "1.5", "٣"]
PACKETS = ["", "2", "3", "5", "6", "9", "b", "bAAAA", "x", "2probe"]
LETTERS = [0, 10, 34, 44, 50, 91, 125, 233, 0x2028]
WORDS = ["null", "true", "false", "[]", "{}", '{"_placeholder":true,"num":0}', "[[]]", '{"":{}}']

EVENTS: list[tuple[str, Any]] = [
    ("enter", {"channel": "/room/1", "meta": {"typing": True}}),
    ("enter", {"channel": "/mixed/a"}),
    ("update", {"channel": "/room/1", "meta": {"n": 1}}),
    ("leave", {"channel": "/room/1"}),
    ("subscribe", {"channel": "/room/1", "position": ["abc", 5]}),
    ("unsubscribe", {"channel": "/room/1"}),
    ("state", {"channels": ["/room/1", "/mixed/a", "/count/b"]}),
    ("heartbeat", {"positions": {"/room/1": ["abc", 5]}}),
    ("batch", {"ops": [["enter", {"channel": "/room/1"}], ["leave", {"channel": "/room/1"}]]}),
]


class Frame(NamedTuple):
    """What is sent, as text or as bytes."""

    data: str | bytes

    def send(self, connection: websocket.WebSocket) -> None:
        if isinstance(self.data, bytes):
            connection.send_binary(self.data)
        else:
            # As it is: also what is no Unicode.
            connection.send(self.data.encode("utf-8", "surrogatepass"))


class Mutator:
    """Makes frames from valid ones; the same seed makes the same."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.levels: Counter[str] = Counter()

    def frame(self) -> Frame:
        level = self._random.choices(["payload", "socketio", "engineio"], [16, 3, 1])[0]
        self.levels[level] += 1
        make: Callable[[], Frame] = getattr(self, f"_{level}")
        return make()

    def _valid(self) -> tuple[str, Any]:
        event, payload = self._random.choice(EVENTS)
        text = json.dumps(payload)
        for known in re.findall(r'"(/[^"]+)"', text):
            if self._random.random() < 0.7:
                text = text.replace(known, self._random.choice(CHANNELS))
        return event, json.loads(text)

    # The payload: one part of a valid one is another

    def _payload(self) -> Frame:
        event, payload = self._valid()
        text = json.dumps([event, payload], ensure_ascii=self._random.random() < 0.5)
        for _ in range(self._random.choice([0, 1, 1, 1, 2, 3])):
            text = self._mutated_json(text)
        return Frame(f"42/presence,{self._random.randrange(1000)}{text}")

    def _mutated_json(self, text: str) -> str:
        parts = list(
            re.finditer(r'"(?:[^"\\]|\\.)*"|-?\d[\d.e+-]*|\btrue\b|\bnull\b|\{\}|\[\]', text)
        )
        if not parts:
            return text
        part = self._random.choice(parts)
        is_key = text[part.end() : part.end() + 1] == ":"
        new = json.dumps(self._random.choice(TEXTS)) if is_key else self._strange(part[0])
        return text[: part.start()] + new + text[part.end() :]

    def _strange(self, part: str) -> str:
        depth = self._random.choice([5, 9, 50, 2000])
        return self._random.choice(
            [
                lambda: json.dumps(self._random.choice(TEXTS)),
                lambda: json.dumps(self._random.choice(CHANNELS) + self._random.choice(TEXTS)),
                lambda: json.dumps(self._random.choice([event for event, _ in EVENTS])),
                lambda: self._random.choice(NUMBERS),
                lambda: self._random.choice(WORDS),
                lambda: "[" * depth + "]" * depth,
                lambda: '{"a":' * depth + "1" + "}" * depth,
                lambda: f"[{','.join([part] * self._random.choice([2, 60, 120]))}]",
            ]
        )()

    # The packet around it

    def _socketio(self) -> Frame:
        event, payload = self._valid()
        head = "".join(map(self._random.choice, (KINDS, ATTACHMENTS, NAMESPACES, IDS)))
        body = self._random.choice(
            [
                json.dumps([event, payload]),
                json.dumps([event]),
                json.dumps(payload),
                json.dumps({"user": "eve"}),
                json.dumps([self._random.choice(FORGED), "x", {"user": "ada"}]),
                self._random.choice(WORDS + NUMBERS),
                json.dumps([json.loads(self._random.choice(WORDS)), payload]),
                "",
            ]
        )
        return Frame(f"4{head}{body}")

    # The bytes

    def _engineio(self) -> Frame:
        event, payload = self._valid()
        text = f"42/presence,1{json.dumps([event, payload])}"
        return self._random.choice(
            [
                lambda: Frame(self._random.choice(PACKETS)),
                lambda: Frame(text[: self._random.randrange(1, len(text))]),
                lambda: Frame(self._flipped(text)),
                lambda: Frame(self._random.randbytes(self._random.choice([0, 1, 40, 4000]))),
                lambda: Frame(text + text),
                lambda: Frame(text * 40),
            ]
        )()

    def _flipped(self, text: str) -> str:
        letters = list(text)
        for place in self._random.sample(range(len(letters)), self._random.randint(1, 4)):
            letters[place] = chr(self._random.choice(LETTERS))
        return "".join(letters)


class Attacker:
    """Sends frames; when the server closes the connection it comes with another one."""

    def __init__(self, port: int, mutator: Mutator) -> None:
        self._port = port
        self._mutator = mutator
        self._connection: websocket.WebSocket | None = None
        self._left = 0
        self.connections = 0
        self.answers = 0

    def attack(self, frames: int) -> None:
        for _ in range(frames):
            frame = self._mutator.frame()
            try:
                self._open()
                assert self._connection is not None
                frame.send(self._connection)
                self._drain()
            except (OSError, websocket.WebSocketException):
                self.close()

    def _open(self) -> None:
        if self._connection is not None and self._left:
            self._left -= 1
            if self._left % FRAMES_PER_VISIT == 0:
                self._connection.send(JOIN)
            return
        self.finish()
        self._left = FRAMES_PER_CONNECTION
        self.connections += 1
        url = f"ws://127.0.0.1:{self._port}/socket.io/?EIO=4&transport=websocket"
        self._connection = websocket.create_connection(url, timeout=PATIENCE)
        self._connection.send(JOIN)

    def _drain(self, patience: float = 0, until: str = "") -> None:
        """Read what there is, so that nobody cuts off one who does not read."""
        assert self._connection is not None
        self._connection.settimeout(patience)
        with contextlib.suppress(BlockingIOError, websocket.WebSocketTimeoutException, ValueError):
            while True:
                text = self._connection.recv()
                self.answers += text.startswith("43")
                if text == "2":
                    self._connection.send("3")
                if until and text.startswith(until):
                    break
        self._connection.settimeout(PATIENCE)

    def finish(self) -> None:
        """Await that everything was read by the server, unless that does not listen any more."""
        if self._connection is not None:
            with contextlib.suppress(OSError, websocket.WebSocketException):
                self._connection.send('42/presence,777["heartbeat"]')
                self._drain(DEAF_SECONDS, "43/presence,777[")
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.shutdown()
            self._connection = None


class Bystanders:
    """Two users who come and go, and watch each other all the while."""

    ROOM = "/room/424242"

    def __init__(self, port: int) -> None:
        self._wires = {user: Wire(port, auth={"user": user}) for user in ("ada", "bob")}
        self._folds = {user: Fold() for user in self._wires}
        for user, wire in self._wires.items():
            self._folds[user].apply_state(wire.call("subscribe", {"channel": self.ROOM})["state"])
        self.rounds = 0

    def go_round(self) -> None:
        """Each enters, updates and leaves; both see it all, and nothing else."""
        self.rounds += 1
        for user, wire in self._wires.items():
            name = {"channel": self.ROOM}
            self._do(wire, "enter", name | {"meta": {"round": self.rounds}})
            self._await({user: self.rounds})
            self._do(wire, "leave", name)
            self._await({})
            self._do(wire, "heartbeat", None)

    def _do(self, wire: Wire, event: str, payload: Any) -> None:
        answer = wire.call(event, payload)
        assert answer["ok"], answer
        assert not answer.get("lost"), answer

    def _await(self, expected: dict[str, int]) -> None:
        for user, wire in self._wires.items():
            eventually(lambda user=user, wire=wire: self._sees(user, wire) == expected)
            assert not self._folds[user].gap
            assert not wire.closed.is_set()

    def _sees(self, user: str, wire: Wire) -> dict[str, int]:
        fold = self._folds[user]
        for event, data in wire.take("diff", "state", "evicted"):
            assert event != "evicted", data
            apply = fold.apply_diff if event == "diff" else fold.apply_state
            apply(data)
        assert not fold.needs_state
        return {found["id"]: found["meta"]["round"] for found in fold.users}

    def close(self) -> None:
        for wire in self._wires.values():
            wire.drop()


class Verdict(NamedTuple):
    """What came of it."""

    frames: int
    connections: int
    answers: int
    rounds: int
    ours: list[str]
    upstream: int
    grown: int
    blocks: int

    @property
    def is_flat(self) -> bool:
        """Does the server keep nothing of what was sent?"""
        return self.grown <= MOST_GROWN and self.blocks <= MOST_BLOCKS

    def __str__(self) -> str:
        return (
            f"{self.frames} frames on {self.connections} connections, {self.answers} answered: "
            f"{len(self.ours)} exceptions of ours, {self.upstream} of the libraries for broken "
            f"packets; {self.rounds} rounds of bystanders, 0 disturbed; memory "
            f"{self.grown:+d} KB, {self.blocks:+d} blocks of Python's after the warm-up"
        )


BEGINNING = re.compile(
    r"(DEBUG|INFO|WARNING|ERROR|CRITICAL):|Exception in thread|<Greenlet|Traceback"
    r"|[a-zA-Z ]+ error$"
)
"""How a log entry begins, or what is written beside the log."""


def entries(lines: list[str]) -> Iterator[list[str]]:
    """The log, cut where a line begins an entry or a traceback outside of it."""
    entry: list[str] = []
    for line in lines:
        if BEGINNING.match(line):
            is_its_traceback = line.startswith("Traceback") and len(entry) == 1
            if entry and not is_its_traceback:
                yield entry
                entry = []
        entry.append(line)
    if entry:
        yield entry


def is_exception(entry: list[str]) -> bool:
    return any(line.startswith("Traceback") for line in entry) or entry[0].startswith("ERROR:")


def is_ours(entry: list[str]) -> bool:
    """Did it come from presence? Its refusal of many attachments is raised into the library.

    That the test app's callbacks raise where they were told to is what they are there for.
    """
    text = "".join(entry)
    if "told to raise" in text or "must return a ChannelConfig" in text:
        return False
    places = [line for line in entry if line.lstrip().startswith('File "')]
    raised_here = bool(places) and "/flask_presence/" in places[-1]
    is_refusal = "attachments; at most" in text
    return entry[0].startswith("ERROR:flask_presence") or (raised_here and not is_refusal)


def fuzz(server: Watched, *, frames: int, seed: int, step: int = 500) -> Verdict:
    """Attack a server; an assertion fails where a bystander is disturbed."""
    attacker = Attacker(server.port, Mutator(seed))
    bystanders = Bystanders(server.port)
    warm: dict[str, int] = {}
    for sent in range(0, frames, step):
        attacker.attack(min(step, frames - sent))
        bystanders.go_round()
        # What the server did is of no interest here, and would be kept.
        server.done()
        if not warm and sent + step >= min(WARM_UP, frames // 2):
            warm = server.kept()
    attacker.finish()
    eventually(lambda: server.kept()["clients"] == 2, patience=60)
    kept = server.kept()
    grown, blocks = (kept[what] - warm[what] for what in ("kilobytes", "blocks"))
    bystanders.close()
    exceptions = [entry for entry in entries(list(server.errors)) if is_exception(entry)]
    ours = ["".join(entry) for entry in exceptions if is_ours(entry)]
    upstream = len(exceptions) - len(ours)
    met = frames, attacker.connections, attacker.answers, bystanders.rounds
    return Verdict(*met, ours, upstream, grown, blocks)


def settings(*, async_mode: str, **others: Any) -> dict[str, Any]:
    """For a server that every frame gets through to."""
    socketio = {"async_mode": async_mode} | QUICK_PINGS
    return {"SOCKETIO": socketio, "PRESENCE_RATE_LIMIT": None} | others


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--async-mode", choices=["threading", "gevent"], default="gevent")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Watched(settings(instance_path=folder, async_mode=options.async_mode))
        try:
            verdict = fuzz(server, frames=options.frames, seed=options.seed)
        finally:
            server.stop()
    print("".join(verdict.ours[:3]), end="")
    print(f"seed {options.seed}, {options.async_mode}: {verdict}")
    return 1 if verdict.ours or not verdict.is_flat else 0


if __name__ == "__main__":
    sys.exit(main())
