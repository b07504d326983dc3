"""Names and texts that look like others, or like code."""

from __future__ import annotations

import json
import unicodedata
from itertools import count
from typing import Any

import pytest
from watched import Connect, Watched
from wire import Wire

_numbers = count(1)

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))

LOOK_ALIKES = {
    "letter case": ["a", "A"],
    "normal forms": [NFC, NFD],
    "compatible forms": ["ﬁ", "fi", "ｆｉ"],
    "scripts": ["a", "а", "ɑ"],
    "spaces within": ["a b", "a\u00a0b", "a  b", "a\u2003b"],
    "zero width": ["ab", "a\u200bb", "a\ufeffb", "a\u2060b"],
    "directions": ["ab", "\u202eab", "a\u2066b"],
    "digits": ["1", "١", "１", "²"],
    "percent signs": ["a", "%61", "a%00"],
    "the German ß": ["ß", "ss", "ẞ"],
    "the dotless i": ["i", "ı", "İ"],
}


def ids_in(wire: Wire, channel: str) -> list[str]:
    state = wire.call("state", {"channels": [channel]})["states"][channel]
    return [user["id"] for user in state["users"]]


@pytest.mark.parametrize("kind", LOOK_ALIKES)
def test_channels_that_look_alike_are_different_ones(connect: Connect, kind: str) -> None:
    number = next(_numbers)
    channels = [f"/mixed/{number}-{text}!" for text in LOOK_ALIKES[kind]]

    for index, channel in enumerate(channels):
        assert connect(f"u{index}").call("enter", {"channel": channel})["ok"]

    wire = connect()
    for index, channel in enumerate(channels):
        assert ids_in(wire, channel) == [f"u{index}"]


@pytest.mark.parametrize("kind", LOOK_ALIKES)
def test_users_who_look_alike_are_different_ones(connect: Connect, kind: str) -> None:
    channel, users = f"/room/{next(_numbers)}", LOOK_ALIKES[kind]

    wires = [connect(user) for user in users]
    for wire in wires:
        assert wire.call("enter", {"channel": channel})["ok"]
    wires[0].call("leave", {"channel": channel})

    assert ids_in(connect(), channel) == users[1:]


@pytest.mark.parametrize("text", ["  a", "a ", "\u3000a", "a\u2028", "\ta"])
def test_a_name_with_space_at_its_ends_is_none(connect: Connect, text: str) -> None:
    wire = connect("eve")

    for channel in (f"{text}/mixed/a", f"/mixed/a{text}" if text[-1] != "a" else f"{text}/x"):
        assert wire.call("enter", {"channel": channel})["error"] == "bad_request"


@pytest.mark.parametrize(
    "words",
    [
        '{"channel":"/staff/1","channel":"CHANNEL"}',
        '{"channel":"CHANNEL","\\u0063hannel":"/staff/1"}',
    ],
)
def test_of_a_key_given_twice_one_counts_and_is_checked(connect: Connect, words: str) -> None:
    wire, channel = connect("eve"), f"/room/{next(_numbers)}"

    answer = wire.emit_text(f'["enter",{words.replace("CHANNEL", channel)}]').get(timeout=5)

    last = channel if words.index("CHANNEL") > words.index("/staff") else "/staff/1"
    assert answer.get("error") == (None if last == channel else "not_found")


ORDERS = [
    "'; DROP TABLE presence_members; --",
    "x' OR '1'='1",
    "*",
    "a:b:c",
    "../../etc/passwd",
    "{{1000003*7}}",
    "${1000003*7}",
    "%s%n",
    "__proto__",
    "<script>alert(1)</script>",
    "\\r\\n",
    "[1]",
]


@pytest.mark.parametrize("text", ORDERS)
def test_a_name_that_is_an_order_to_somebody_is_only_text(
    server: Watched, connect: Connect, text: str
) -> None:
    channel = f"/turning/{next(_numbers)}"
    wire = connect(text, auth={"info": {"name": text, "avatar": text}})
    watcher = connect()
    assert watcher.call("subscribe", {"channel": channel})["ok"]

    assert wire.call("enter", {"channel": channel, "meta": {text: text}})["ok"]

    (user,) = watcher.wait_for("diff")["entered"]
    assert (user["id"], user["meta"]) == (text, {text: text})
    page = server.get(f"/page?channel={channel}").text
    assert "<script>alert" not in page
    assert "7000021" not in page


LINES = ["a\nERROR:root:forged", "a\r\nb", "a\x1b[31mred", "a\u0085b", "a\x00b", "a\x9bb"]


@pytest.mark.parametrize("text", LINES)
def test_nobody_writes_lines_of_their_own_into_the_log(
    server: Watched, connect: Connect, text: str
) -> None:
    before, wire = len(server.errors), connect("eve")

    for event in ("enter", "state", text):
        wire.call(event, {"channel": f"/broken/{text}", "channels": [f"/broken/{text}"]})
    server.get("/presence/state", params={"channel": f"/broken/{text}"})
    refused = connect(text)

    assert refused.refused
    log = server.errors[before:]
    assert not [line for line in log if line.startswith("ERROR:root") or "\x1b[31mred" in line]
    assert not [line for line in log if text in line]


def test_what_is_refused_is_quoted_in_short(connect: Connect) -> None:
    wire = connect("eve")

    for payload in ("x" * 100_000, {"channel": "y" * 100_000}, ["z"] * 10_000):
        answer = wire.call("enter", payload)
        assert answer["error"] == "bad_request"
        assert len(answer["message"]) < 300
        assert json.dumps(answer, ensure_ascii=True).isascii()


WIDE: list[Any] = ["a" * 900_000, ["a"] * 100_000, {str(n): n for n in range(50_000)}]


@pytest.mark.parametrize("value", WIDE, ids=["long", "wide", "many keys"])
def test_what_is_large_is_refused_and_not_kept(
    server: Watched, connect: Connect, value: Any
) -> None:
    wire, channel = connect("eve"), f"/room/{next(_numbers)}"
    wire.call("enter", {"channel": channel})

    for event in ("enter", "update"):
        answer = wire.call(event, {"channel": channel, "meta": {"a": value}})
        assert answer["error"] == "bad_request"

    assert ids_in(connect(), channel) == ["eve"]
