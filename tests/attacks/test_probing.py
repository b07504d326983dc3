"""Somebody who wants to know which channels there are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from watched import Connect, Start, Watched
from wire import Wire, eventually

_numbers = count(1)


@pytest.fixture(scope="module", params=["remembered", "never remembered"])
def quiet(start: Start, request: pytest.FixtureRequest) -> Watched:
    """A server that does nothing by itself, with configs remembered or not."""
    server = start(
        PRESENCE_RATE_LIMIT=None,
        PRESENCE_PRUNE_INTERVAL=0,
        PRESENCE_WORKER_TIMEOUT=3000,
        PRESENCE_CONFIG_CACHE_SECONDS=120 if request.param == "remembered" else 0,
    )
    begin(server)
    return server


def begin(server: Watched) -> None:
    """Await that the server has its lease, and has renewed it."""
    wire = Wire(server.port, auth={"user": "first"})
    assert wire.call("enter", {"channel": "/room/1"})["ok"]
    eventually(lambda: any(RENEWAL.search(step) for step in server.done()))
    wire.drop()


def steps_of(server: Watched) -> list[str]:
    """What the server did for its clients since this was asked last."""
    return [step for step in server.done() if not step.startswith("loop: ")]


RENEWAL = re.compile("^loop: (renew|UPDATE presence_workers SET lease)")


@pytest.fixture
def eve(quiet: Watched, dial: Connect) -> Wire:
    return dial(quiet.port, "eve")


@pytest.fixture
def secret(quiet: Watched, dial: Connect) -> str:
    """A channel that eve may not view, and that somebody was in just now."""
    channel = f"/vault/secret-{next(_numbers)}"
    staff = dial(quiet.port, "ada", auth={"groups": ["staff"]})
    assert staff.call("enter", {"channel": channel, "meta": {"a": 1}})["ok"]
    assert staff.call("leave", {"channel": channel})["ok"]
    # Remembered is what somebody asked for: here, nobody has.
    quiet.post("/forget", {"channel": channel})
    return channel


@pytest.fixture
def missing() -> str:
    return f"/vault/missing-{next(_numbers):02}"


PROBES: dict[str, Callable[[str], tuple[str, Any]]] = {
    "enter": lambda name: ("enter", {"channel": name, "meta": {"a": 1}}),
    "subscribe": lambda name: ("subscribe", {"channel": name, "position": [None, 0]}),
    "state": lambda name: ("state", {"channels": [name]}),
    "update": lambda name: ("update", {"channel": name, "meta": {}}),
    "unsubscribe": lambda name: ("unsubscribe", {"channel": name}),
    "heartbeat": lambda name: ("heartbeat", {"positions": {name: [None, 0]}}),
    "batch": lambda name: ("batch", {"ops": [["subscribe", {"channel": name}]]}),
}


@pytest.mark.parametrize("probe", PROBES)
def test_what_is_forbidden_takes_the_same_steps_as_what_is_not_there(
    quiet: Watched, eve: Wire, secret: str, missing: str, probe: str
) -> None:
    def about(channel: str) -> tuple[str, list[str]]:
        quiet.done()
        answers = [eve.call(*PROBES[probe](channel)) for _ in range(2)]
        return json.dumps(answers).replace(channel, "NAME"), steps_of(quiet)

    answers, steps = about(secret)

    assert about(missing) == (answers, steps)
    assert not [step for step in steps if step.startswith("store")]


def test_leaving_asks_the_store_the_same_of_both(
    quiet: Watched, eve: Wire, secret: str, missing: str
) -> None:
    def first_step(channel: str) -> tuple[Any, str]:
        quiet.done()
        answer = eve.call("leave", {"channel": channel})
        return answer, steps_of(quiet)[0]

    assert first_step(secret) == first_step(missing)


def test_over_http_and_in_a_page_both_look_the_same(
    quiet: Watched, secret: str, missing: str
) -> None:
    def about(path: str, channel: str) -> tuple[int, str, list[str]]:
        quiet.done()
        answer = quiet.get(f"{path}?channel={channel}")
        return answer.status_code, answer.text.replace(channel, "NAME"), steps_of(quiet)

    for path in ("/presence/state", "/page"):
        assert about(path, secret) == about(path, missing)


def test_a_probe_for_both_at_once_tells_them_not_apart(
    eve: Wire, secret: str, missing: str
) -> None:
    answer = eve.call("state", {"channels": [secret, missing]})

    assert answer == {"ok": True, "states": {secret: None, missing: None}}


@pytest.mark.parametrize("quiet", ["never remembered"], indirect=True)
def test_where_nothing_is_remembered_nothing_tells_that_somebody_is_there(
    quiet: Watched, eve: Wire, dial: Connect, missing: str
) -> None:
    channel = f"/vault/secret-{next(_numbers)}"
    staff = dial(quiet.port, "ada", auth={"groups": ["staff"]})
    assert staff.call("enter", {"channel": channel})["ok"]

    def steps_for(name: str) -> list[str]:
        quiet.done()
        assert eve.call("subscribe", {"channel": name})["error"] == "not_found"
        return steps_of(quiet)

    assert steps_for(channel) == steps_for(missing) == ["callback: vault"]


def test_nothing_of_a_forbidden_channel_arrives_later(
    quiet: Watched, eve: Wire, secret: str, dial: Connect
) -> None:
    for event in ("subscribe", "enter"):
        assert eve.call(event, {"channel": secret})["error"] == "not_found"

    staff = dial(quiet.port, "cyd", auth={"groups": ["staff"]})
    assert staff.call("enter", {"channel": secret})["ok"]
    eve.await_quiet("/room/1")

    assert eve.take("diff", "state", "evicted") == []


def test_unknown_names_without_end_are_not_remembered(quiet: Watched, eve: Wire) -> None:
    for part in range(3):
        names = [f"/vault/missing-{part}-{number}" for number in range(4000)]
        for start in range(0, len(names), 50):
            assert eve.call("state", {"channels": names[start : start + 50]})["ok"]

    assert quiet.kept()["configs"] <= 10_000
