"""Somebody who wants to know who is behind the number."""

from __future__ import annotations

from itertools import count

from watched import Connect, Watched
from wire import Wire, eventually

_numbers = count(1)

SECRETS = ("zebra", "quagga", "okapi", "bongo")


def enter(connect: Connect, channel: str, number: int) -> Wire:
    wire = connect(f"zebra-{number}", auth={"info": {"name": f"Quagga {number}"}})
    meta = {"okapi": "bongo"}
    assert wire.call("enter", {"channel": channel, "meta": meta})["ok"]
    return wire


def pry(wire: Wire, channel: str) -> None:
    """Ask in every way there is."""
    for event, payload in [
        ("subscribe", {"channel": channel}),
        ("subscribe", {"channel": channel, "position": ["x", 1]}),
        ("state", {"channels": [channel]}),
        ("heartbeat", {"positions": {channel: ["x", 1]}}),
        ("update", {"channel": channel, "meta": {}}),
        ("enter", {"channel": channel, "count_only": False, "client_id": "zebra-1"}),
        ("leave", {"channel": channel, "user_id": "zebra-1"}),
        ("batch", {"ops": [["state", {"channels": [channel]}]]}),
        ("state", {"channels": [channel], "count_only": False}),
    ]:
        wire.call(event, payload)


def assert_ignorant(wire: Wire, *ids: str | None) -> None:
    frames = "\n".join(wire.frames).lower()
    for secret in (*SECRETS, *(client_id.lower() for client_id in ids if client_id)):
        assert secret not in frames


def test_no_frame_tells_who_is_in_a_count_only_channel(connect: Connect, server: Watched) -> None:
    channel = f"/count/{next(_numbers)}"
    spies = [connect("spy"), connect()]
    for spy in spies:
        pry(spy, channel)

    present = [enter(connect, channel, number) for number in range(3)]
    for spy in spies:
        pry(spy, channel)
    present[0].call("update", {"channel": channel, "meta": {"okapi": "other bongo"}})
    present[1].call("leave", {"channel": channel})
    present[2].drop()
    for spy in spies:
        spy.wait_for("diff", lambda diff: diff["channel"] == channel and diff["count"] > 0)
        pry(spy, channel)

    sids = [wire.sid for wire in present]
    for spy in spies:
        assert_ignorant(spy, *sids)
    for path in (f"/presence/state?channel={channel}", f"/page?channel={channel}"):
        text = server.get(path).text.lower()
        assert not [secret for secret in SECRETS if secret in text]


def test_who_watches_a_channel_that_turns_sees_identities_just_while_it_shows_them(
    connect: Connect, server: Watched
) -> None:
    name = f"turn-{next(_numbers)}"
    channel = f"/turning/{name}"
    server.post(f"/configs/{name}", {"public": True, "count_only": True})
    spy = connect()
    spy.call("subscribe", {"channel": channel})
    first = enter(connect, channel, 1)
    spy.wait_for("diff")
    assert_ignorant(spy, first.sid)

    server.post(f"/configs/{name}", {"public": True})
    shown = spy.wait_for("state", lambda state: "users" in state)
    spy.frames.clear()
    server.post(f"/configs/{name}", {"public": True, "count_only": True})
    spy.wait_for("state", lambda state: state.get("count_only"))
    spy.frames.clear()
    second = enter(connect, channel, 2)
    first.call("update", {"channel": channel, "meta": {"okapi": 2}})
    spy.wait_for("diff", lambda diff: diff["count"] == 2)
    pry(spy, channel)

    assert [user["id"] for user in shown["users"]] == ["zebra-1"]
    assert_ignorant(spy, first.sid, second.sid)


def test_no_identity_travels_while_a_channel_turns_to_and_fro(
    connect: Connect, server: Watched
) -> None:
    """Every form with identities is of a moment at which the channel showed them."""
    name = f"turn-{next(_numbers)}"
    channel = f"/turning/{name}"
    server.post(f"/configs/{name}", {"public": True, "count_only": True})
    spy, mover = connect(), enter(connect, channel, 1)
    spy.call("subscribe", {"channel": channel})

    for turn in range(10):
        server.post(f"/configs/{name}", {"public": True, "count_only": turn % 2 == 0})
        mover.call("update", {"channel": channel, "meta": {"turn": turn}})
    mover.call("update", {"channel": channel, "meta": {"turn": "last"}})
    server.post(f"/configs/{name}", {"public": True, "count_only": True})
    eventually(lambda: "users" not in state_of(spy, channel))

    told = [data for _, data in spy.take("diff", "state") if data["channel"] == channel]
    hidden = [turn for turn in range(10) if turn % 2 == 0]
    for data in told:
        for entry in data.get("updated", []):
            assert entry["meta"]["turn"] not in hidden, "sent while only the count was shown"


def state_of(wire: Wire, channel: str) -> dict[str, object]:
    state: dict[str, object] = wire.call("state", {"channels": [channel]})["states"][channel]
    return state


def test_an_anonymous_client_s_words_reach_nobody(connect: Connect) -> None:
    channel, watcher, stranger = f"/mixed/{next(_numbers)}", connect("ada"), connect()
    watcher.call("subscribe", {"channel": channel})

    assert stranger.call("enter", {"channel": channel, "meta": {"okapi": "bongo"}})["ok"]
    assert stranger.call("update", {"channel": channel, "meta": {"okapi": "bongo 2"}})["ok"]
    stranger.call("leave", {"channel": channel})
    watcher.wait_for("diff", lambda diff: diff["anonymous"] == 0)

    assert_ignorant(watcher, stranger.sid)
