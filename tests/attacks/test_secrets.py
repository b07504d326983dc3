"""What a visitor learns when something fails, and what somebody learns who reads the logs."""

from __future__ import annotations

import re

import pytest
from stores import SharedStore
from watched import Connect, Ground, Start, Watched
from wire import eventually

SECRET = "hunter2-token"


@pytest.fixture(scope="module")
def server(start: Start) -> Watched:
    return start(PRESENCE_WORKER_TIMEOUT=1.5, PRESENCE_PRUNE_INTERVAL=0.1, PRESENCE_LEAVE_GRACE=0.1)


def test_nobody_is_told_where_the_store_is_when_it_fails(
    server: Watched, store: SharedStore, connect: Connect
) -> None:
    wire, url = connect("eve"), server.config["PRESENCE_BACKEND"]
    assert wire.call("enter", {"channel": "/room/1"})["ok"]

    with store.locked(url):
        answers = [
            wire.call("enter", {"channel": "/room/1", "meta": {"a": 1}}),
            wire.call("state", {"channels": ["/room/1"]}),
            wire.call("batch", {"ops": [["leave", {"channel": "/room/1"}]]})["results"][0],
        ]
        response = server.get("/presence/state?channel=/room/1", headers={"Connection": "close"})
        eventually(lambda: server.has_logged("Could not"))

    # SQLite's readers do not mind who writes.
    assert response.status_code == (503 if url.startswith("redis") else 200)
    assert not answers[0]["ok"]
    for text in [response.text, *(answer.get("message", "") for answer in answers)]:
        assert not INTERNALS.search(text), text


INTERNALS = re.compile(r"redis|sqlite|sql|lock|127\.0\.0\.1|/tmp|timeout|:\d{4}", re.IGNORECASE)


@pytest.mark.parametrize("channel", ["/broken/x", "/invalid/x"])
def test_nobody_is_told_what_a_callback_said(
    server: Watched, connect: Connect, channel: str
) -> None:
    answer = connect("eve").call("enter", {"channel": channel})

    assert answer["message"] == "Presence is unavailable just now; try again in a moment."
    eventually(lambda: server.has_logged(f"The channel_config callback for {channel}"))


def test_the_log_tells_nothing_of_what_people_send(
    server: Watched, store: SharedStore, connect: Connect
) -> None:
    wire = connect("ada", auth={"token": SECRET, "info": {"name": SECRET}})
    meta = {"meta": {"text": SECRET}}
    # The store may just have been away.
    eventually(lambda: wire.call("enter", {"channel": "/room/1"} | meta)["ok"])
    assert connect("eve", auth={"raises": True, "token": SECRET}).refused

    for event in ("enter", "update", "state", "nonsense", "heartbeat"):
        wire.call(event, {"channel": "/broken/x"} | meta)
        wire.call(event, meta["meta"])
        wire.send_raw(f'42/presence,["{event}",{{"{SECRET}"')
    with store.locked(server.config["PRESENCE_BACKEND"]):
        assert not wire.call("enter", {"channel": "/room/2"} | meta)["ok"]
        server.get("/page?channel=/room/1", headers={"Connection": "close"})
        eventually(lambda: server.has_logged("Could not"))

    assert wire.call("leave", {"channel": "/room/9"})
    assert not server.has_logged(SECRET)


@pytest.mark.parametrize("ground", [Ground("threading", "sqlite")], indirect=True)
def test_an_error_of_the_database_tells_no_values(start: Start) -> None:
    server = start()

    text = server.get(f"/fail?value={SECRET}").text

    assert "sqlite3" in text
    assert SECRET not in text
