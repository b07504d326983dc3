"""Somebody who may no longer and is still there, and who plays back what was once true."""

from __future__ import annotations

import re
from itertools import count
from typing import Any

import pytest
from watched import Connect, Start, Watched
from wire import PATIENCE, Wire, eventually

_numbers = count(1)


@pytest.fixture(scope="module")
def server(start: Start) -> Watched:
    return start(PRESENCE_WORKER_TIMEOUT=1.5, PRESENCE_LEAVE_GRACE=0.2, PRESENCE_PRUNE_INTERVAL=0.1)


@pytest.fixture
def user() -> str:
    return f"user-{next(_numbers)}"


def insist(wire: Wire, channel: str) -> set[Any]:
    """What an old connection gets by trying everything."""
    answers = [
        wire.call("state", {"channels": [channel]}).get("states", {}).get(channel),
        wire.call("subscribe", {"channel": channel}).get("error"),
        wire.call("enter", {"channel": channel}).get("error"),
    ]
    return set(answers)


def test_a_group_that_was_taken_away_is_gone_with_reload(
    server: Watched, connect: Connect, user: str
) -> None:
    channel = f"/staff/{user}"
    wire, colleague = (connect(name, auth={"groups": ["staff"]}) for name in (user, "colleague"))
    for one in (wire, colleague):
        assert one.call("subscribe", {"channel": channel})["ok"]
    assert wire.call("enter", {"channel": channel})["ok"]

    server.post(f"/people/{user}?reload", {"groups": []})
    assert wire.closed.wait(PATIENCE)
    wire.take("diff", "state")
    colleague.wait_for("diff", lambda diff: diff.get("left"))
    assert colleague.call("enter", {"channel": channel})["ok"]
    # The same connection, the same claims: they are looked at anew.
    wire.connect({"user": user, "groups": ["staff"]})

    assert insist(wire, channel) == {None, "not_found"}
    assert wire.take("diff", "state") == []


def test_who_logged_out_is_out_with_reload_and_stays_out(
    server: Watched, connect: Connect, user: str
) -> None:
    channel = f"/room/{next(_numbers)}"
    wire, watcher = connect(user), connect()
    assert watcher.call("subscribe", {"channel": channel})["ok"]
    assert wire.call("enter", {"channel": channel})["ok"]

    server.post(f"/people/{user}?reload", None)
    assert wire.closed.wait(PATIENCE)
    watcher.wait_for("diff", lambda diff: diff.get("left"))
    wire.connect({"user": user})

    assert wire.call("enter", {"channel": channel})["error"] == "login_required"
    assert connect(user).call("enter", {"channel": channel})["error"] == "login_required"
    assert watcher.call("state", {"channels": [channel]})["states"][channel]["users"] == []


def test_another_process_renews_its_connections_too(
    server: Watched, start: Start, connect: Connect, user: str
) -> None:
    other = start(PRESENCE_BACKEND=server.config["PRESENCE_BACKEND"])
    wire = connect(user)

    other.post(f"/people/{user}?reload", None)

    assert wire.closed.wait(PATIENCE)


@pytest.mark.parametrize(
    ("config", "code"),
    [
        (None, "not_found"),
        ({"allowed_group_ids": ["staff"]}, "not_found"),
        ({"allowed_user_ids": ["colleague"]}, "not_found"),
        ({}, "not_found"),
    ],
    ids=["the channel is gone", "another group", "other users", "nobody"],
)
def test_a_config_that_lets_them_in_no_more_takes_them_out(
    server: Watched, connect: Connect, user: str, config: Any, code: str
) -> None:
    channel = f"/turning/{user}"
    wire = connect(user)
    assert wire.call("subscribe", {"channel": channel})["ok"]
    assert wire.call("enter", {"channel": channel})["ok"]

    server.post(f"/configs/{user}", config)

    assert wire.wait_for("evicted") == {"channel": channel, "reason": "forbidden"}
    wire.take("diff", "state")
    assert insist(wire, channel) == {None, code}
    assert wire.call("update", {"channel": channel, "meta": {}})["error"] == "not_present"
    assert wire.call("heartbeat", {"positions": {channel: ["x", 1]}})["stale"] == []
    assert wire.take("diff", "state") == []


def test_positions_played_back_tell_and_change_nothing(
    server: Watched, connect: Connect, user: str
) -> None:
    channel, secret = f"/room/{next(_numbers)}", f"/staff/{user}"
    watcher, ada = connect("watcher"), connect("ada")
    staff = connect("colleague", auth={"groups": ["staff"]})
    assert staff.call("enter", {"channel": secret})["ok"]
    state = staff.call("subscribe", {"channel": secret})["state"]
    watcher.call("subscribe", {"channel": channel})
    ada.call("enter", {"channel": channel})
    epoch = watcher.wait_for("diff")["epoch"]

    stolen = [state["epoch"], state["revision"]]
    for position in [[epoch, 2**53 - 1], [epoch, 0], ["x" * 10_000, 1], [None, 0], stolen]:
        # Only the first heartbeat of a second is looked at.
        wire = connect(user)
        answer = wire.call("subscribe", {"channel": channel, "position": position})
        assert answer["state"]["users"], position
        assert wire.call("subscribe", {"channel": secret, "position": position})["error"]
        answer = wire.call("heartbeat", {"positions": {channel: position, secret: position}})
        assert answer["stale"] == ([] if position[0] == epoch else [channel])
    await_renewals(server)

    assert watcher.take("state", "evicted") == []
    assert ada.call("update", {"channel": channel, "meta": {"n": 1}})["ok"]
    assert watcher.wait_for("diff")["revisions"] == [[2, 2]]


def await_renewals(server: Watched) -> None:
    """Await that the server has looked twice at what it owes to whom."""
    server.done()
    renewals: list[str] = []

    def has_renewed() -> bool:
        renewals.extend(step for step in server.done() if RENEWAL.search(step))
        return len(renewals) >= 3

    eventually(has_renewed)


RENEWAL = re.compile("^loop: (renew|UPDATE presence_workers SET lease)")
