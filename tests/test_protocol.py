"""The forms of what travels, whatever arrives."""

from __future__ import annotations

import json
import math
import sys
import unicodedata
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from named import named

from flask_presence.errors import BadRequest
from flask_presence.model import Position
from flask_presence.protocol import (
    EVENTS,
    Batch,
    Enter,
    Heartbeat,
    Leave,
    ReadStates,
    Subscribe,
    Unsubscribe,
    Update,
    check_channel_name,
    check_channel_names,
    check_id,
    check_position,
    dump_object,
    is_channel_name,
    load_object,
    load_objects,
    parse,
)

LIMIT = 1024

plain_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
"""Text that is valid UTF-8."""

good_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | plain_text
)


def nested(depth: int) -> st.SearchStrategy[Any]:
    """JSON values in which objects and lists are at most so deep."""
    if depth == 0:
        return good_scalars
    below = st.deferred(lambda: nested(depth - 1))
    return (
        good_scalars | st.lists(below, max_size=2) | st.dictionaries(plain_text, below, max_size=2)
    )


good_objects = st.dictionaries(plain_text, nested(7), max_size=3)

any_text = st.text(st.characters(), max_size=20) | st.sampled_from(
    ["/room/1", "/a/b", "enter", "batch", "\ud800", "\x00", ""]
)
any_key = any_text | st.sampled_from(["channel", "meta", "position", "positions", "ops"])
any_json: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**400), 2**53])
    | st.floats()
    | any_text
    | st.binary(max_size=3),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(any_key, below, max_size=3),
)
"""Whatever the Socket.IO server may hand over: any JSON, with what is none, and attachments."""

any_payload = any_json | st.fixed_dictionaries(
    {},
    optional={
        "channel": any_json | st.just("/room/1"),
        "meta": any_json,
        "position": any_json | st.lists(any_json, min_size=2, max_size=2),
        "channels": any_json | st.lists(any_text, max_size=3),
        "positions": st.dictionaries(any_text, any_json, max_size=3),
        "ops": st.lists(
            any_json | st.tuples(st.sampled_from(sorted(EVENTS)), any_json).map(list), max_size=3
        ),
    },
)


def dump(value: Any, max_bytes: int = LIMIT) -> str:
    return dump_object(value, what="meta", max_bytes=max_bytes)


# Objects


@given(good_objects)
def test_what_is_dumped_is_loaded_the_same(value: dict[str, Any]) -> None:
    text = dump(value, 10**6)

    assert load_object(text) == value
    assert dump(load_object(text), 10**6) == text


@given(good_objects)
def test_the_same_object_has_one_text(value: dict[str, Any]) -> None:
    turned = dict(reversed(value.items()))

    assert dump(turned, 10**6) == dump(value, 10**6)


@given(good_objects)
def test_the_limit_is_that_of_the_bytes_of_the_canonical_text(value: dict[str, Any]) -> None:
    size = len(dump(value, 10**6).encode())

    assert dump(value, size)
    with pytest.raises(BadRequest):
        dump(value, size - 1)


@given(any_json)
def test_dumping_raises_nothing_but_bad_request(value: Any) -> None:
    try:
        text = dump(value)
    except BadRequest as error:
        str(error).encode()
    else:
        assert isinstance(json.loads(text), dict)
        assert len(text.encode()) <= LIMIT
        assert is_fit_for_browsers(json.loads(text))


def is_fit_for_browsers(value: Any, depth: int = 1) -> bool:
    """Do all browsers read this from a message as it was meant?"""
    if isinstance(value, str):
        return not any(unicodedata.category(character) == "Cs" for character in value)
    if isinstance(value, (dict, list)):
        children = [*value, *value.values()] if isinstance(value, dict) else value
        return depth <= 8 and all(is_fit_for_browsers(child, depth + 1) for child in children)
    if isinstance(value, int):
        return abs(value) <= sys.float_info.max
    return not isinstance(value, float) or math.isfinite(value)


@given(st.text() | any_json.map(lambda value: json.dumps(value, default=repr)))
@example('{"a":NaN}')
@example('{"a":-Infinity}')
@example('{"a":1e999}')
@example('{"a":"\\ud800"}')
@example('{"\\udc00":1}')
@example('{"a":' * 8 + "{}" + "}" * 8)
@example('{"a":' * 100_000)
@example("[" * 100_000 + "]" * 100_000)
@example('{"a":1' + "0" * 400 + "}")
@example('{"a":1' + "0" * 5000 + "}")
@example("[]")
@example("")
def test_loading_never_raises_and_gives_what_browsers_can_read(text: str) -> None:
    value = load_object(text)

    assert isinstance(value, dict)
    assert is_fit_for_browsers(value)


@pytest.mark.parametrize(
    "value",
    [None, [], "", "{}", 0, 1.5, True, b"{}", {1: 2}, {None: 1}, {"a": {1: 2}}, {"a": b"x"}],
)
def test_what_is_no_json_object_is_refused(value: Any) -> None:
    with pytest.raises(BadRequest):
        dump(value)


# Names, ids, positions


@given(st.text(st.characters(), max_size=30).map(lambda rest: "/room/" + rest) | any_text)
def test_a_name_is_one_by_the_rules_that_are_written_down(name: str) -> None:
    parts = name.split("/", 2)
    has_form = (
        len(parts) == 3
        and parts[0] == ""
        and parts[1] != ""
        and all(
            character.isascii() and (character.isalnum() or character in "_-")
            for character in parts[1]
        )
        and parts[2] != ""
    )
    is_clean = not any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
    has_size = len(name.encode("utf-8", "surrogatepass")) <= 255

    expected = has_form and is_clean and has_size and name == name.strip()

    assert is_channel_name(name) is expected


@given(any_json)
def test_a_name_is_given_back_or_refused(value: Any) -> None:
    if is_channel_name(value):
        assert check_channel_name(value) == value
    else:
        with pytest.raises(BadRequest):
            check_channel_name(value)


@pytest.mark.parametrize("length", [1, 249])
def test_a_name_has_at_most_255_bytes(length: int) -> None:
    assert is_channel_name("/room/" + "a" * length)
    assert not is_channel_name("/room/" + "a" * 250)
    assert is_channel_name("/room/" + "a" + "é" * 124)
    assert not is_channel_name("/room/" + "aa" + "é" * 124)


def test_names_are_read_once_each_and_in_order() -> None:
    assert check_channel_names(["/b/1", "/a/1", "/b/1"]) == ("/b/1", "/a/1")


@pytest.mark.parametrize("names", [[], ["/a/b"] * 51, ("/a/b",), "/a/b", None, ["/a/b", None]])
def test_what_is_no_list_of_names_is_refused(names: Any) -> None:
    with pytest.raises(BadRequest):
        check_channel_names(names)


@pytest.mark.parametrize("event", ["heartbeat", "batch"])
def test_what_cannot_be_in_a_batch_is_named(event: str) -> None:
    with pytest.raises(BadRequest, match=f"A {event} cannot be in a batch"):
        parse("batch", {"ops": [[event, {}]]}, max_meta_bytes=LIMIT)


@pytest.mark.parametrize(
    "value", ["", "a\nb", "\x7f", "\ud800", "x" * 256, "é" * 128, 7, None, b"7", ["7"]], ids=named
)
def test_an_id_of_the_wrong_form_is_an_error(value: Any) -> None:
    with pytest.raises(ValueError, match="client id"):
        check_id(value, "client id")


@pytest.mark.parametrize("value", ["7", " ", "x" * 255, "é" * 127, "__proto__"])
def test_an_id_is_given_back(value: str) -> None:
    assert check_id(value, "client id") == value


@given(st.none() | any_text, st.integers(0, 2**53 - 1))
def test_a_position_is_given_back(epoch: str | None, revision: int) -> None:
    assert check_position([epoch, revision]) == Position(epoch, revision)


@given(any_json)
@example([None, True])
@example(["x", 1.0])
@example(["x", -1])
@example(["x", 2**53])
@example(["x", 1, 2])
@example(("x", 1))
def test_what_is_no_position_is_refused(value: Any) -> None:
    try:
        position = check_position(value)
    except BadRequest:
        return
    assert value == list(position)
    assert type(position.revision) is int
    assert position.revision >= 0


# Client events


def parsed(event: Any, payload: Any) -> Any:
    return parse(event, payload, max_meta_bytes=LIMIT)


@pytest.mark.parametrize(
    ("event", "payload", "expected"),
    [
        ("enter", {"channel": "/a/b"}, Enter("/a/b", None)),
        ("enter", {"channel": "/a/b", "meta": {}}, Enter("/a/b", "{}")),
        ("enter", {"channel": "/a/b", "meta": {"b": 1, "a": 2}}, Enter("/a/b", '{"a":2,"b":1}')),
        ("leave", {"channel": "/a/b", "more": 1}, Leave("/a/b")),
        ("update", {"channel": "/a/b", "meta": {"a": "é"}}, Update("/a/b", '{"a":"é"}')),
        ("subscribe", {"channel": "/a/b"}, Subscribe("/a/b", None)),
        (
            "subscribe",
            {"channel": "/a/b", "position": [None, 0]},
            Subscribe("/a/b", Position(None, 0)),
        ),
        ("unsubscribe", {"channel": "/a/b"}, Unsubscribe("/a/b")),
        ("state", {"channels": ["/a/b"]}, ReadStates(("/a/b",))),
        ("batch", {"ops": [["leave", {"channel": "/a/b"}]]}, Batch((Leave("/a/b"),))),
        ("heartbeat", None, Heartbeat({})),
        ("heartbeat", {}, Heartbeat({})),
        (
            "heartbeat",
            {"positions": {"/a/b": ["x", 1]}},
            Heartbeat({"/a/b": Position("x", 1)}),
        ),
    ],
)
def test_each_event_is_parsed(event: str, payload: Any, expected: Any) -> None:
    assert parsed(event, payload) == expected


@given(st.sampled_from(sorted(EVENTS)) | any_json, any_payload)
def test_parsing_raises_nothing_but_bad_request(event: Any, payload: Any) -> None:
    try:
        parsed(event, payload)
    except BadRequest as error:
        str(error).encode()
    else:
        assert event in EVENTS


@pytest.mark.parametrize("event", ["connect", "disconnect", "*", "", "Enter", None, 5, [], {}])
def test_what_is_no_event_is_refused(event: Any) -> None:
    with pytest.raises(BadRequest):
        parsed(event, {"channel": "/a/b"})


def test_a_refusal_is_short_whatever_arrived() -> None:
    for payload in (
        "x" * 10**6,
        {"channel": "x" * 10**6},
        {"channel": "/a/b", "meta": "x" * 10**6},
    ):
        with pytest.raises(BadRequest) as refusal:
            parsed("enter", payload)
        assert len(str(refusal.value)) < 300


NASTY = [
    "{}",
    '{"a":1}',
    '{"a":{"b":[1]}}',
    '{"a":NaN}',
    '{"a":1e999}',
    '{"a":"\\ud800"}',
    '{"a":"\ud800"}',
    f'{{"a":{"9" * 400}}}',
    '{"a":1},{"b":2}',
    '{"a":1',
    '"b":2}',
    "[]",
    "",
    "null",
    '{"a":' * 9 + "1" + "}" * 9,
    '{"a":' + "[" * 9 + "]" * 9 + "}",
    '1,{"a":1}',
    '{"a":1},1',
    '{"":"}"}',
    '{"é":"✓"}',
]


@given(st.lists(st.sampled_from(NASTY), max_size=6))
def test_many_texts_are_read_as_each_of_them_is(texts: list[str]) -> None:
    many = load_objects(texts)

    assert many == [load_object(text) for text in texts]
