"""The forms of what travels: names, ids, JSON, and client events, parsed into values.

Nothing here knows a socket: each function takes what arrived and returns a value, or raises
`BadRequest` with a sentence that says what is wrong.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .errors import BadRequest
from .model import Position

log = logging.getLogger(__name__)

MAX_NAME_BYTES = 255
MAX_DEPTH = 8
MAX_CHANNELS_PER_READ = 50
MAX_POSITIONS = 50
MAX_BATCH = 100
MAX_EVENT_BYTES = 1_000_000
MAX_SAFE_INTEGER = 2**53 - 1

_NAME = re.compile(r"/[a-zA-Z0-9_-]+/.+", re.DOTALL)
_OWN_EVENTS = frozenset(
    {"connect", "connect_error", "disconnect", "hello", "diff", "state", "evicted"}
)
HUGE_DIGITS = 300
_HUGE_NUMBER = re.compile(rf"\d{{{HUGE_DIGITS}}}")
_CONTAINERS = (dict, list, tuple)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def is_channel_name(value: Any) -> bool:
    """Is this a well-formed channel name, ``/prefix/rest``?"""
    return (
        isinstance(value, str)
        and _NAME.fullmatch(value) is not None
        and _CONTROL.search(value) is None
        and value == value.strip()
        and len(value.encode()) <= MAX_NAME_BYTES
    )


def check_channel_name(value: Any) -> str:
    """Return the name, or raise `BadRequest` where it is none."""
    if not is_channel_name(value):
        raise BadRequest(
            f"{_short(value)} is no channel name: it must look like '/prefix/rest', with at most "
            f"{MAX_NAME_BYTES} bytes and no control characters or white space at its ends."
        )
    return str(value)


def check_prefix(value: Any) -> str:
    """Return a bare prefix, or raise `BadRequest`."""
    if isinstance(value, str) and "/" not in value and is_channel_name(f"/{value}/x"):
        return value
    raise BadRequest(f"{_short(value)} is no bare prefix: letters, digits, '_' and '-' only.")


def check_id(value: Any, what: str) -> str:
    """Return an id of 1 to 255 bytes without control characters, or raise `ValueError`."""
    is_text = isinstance(value, str) and value and not _CONTROL.search(value)
    if not is_text or len(value.encode()) > MAX_NAME_BYTES:
        raise ValueError(
            f"{_short(value)} is no {what}: it must be a string of 1 to {MAX_NAME_BYTES} bytes "
            "without control characters."
        )
    return str(value)


def are_plain_ids(values: Sequence[Any]) -> bool:
    """Are all of these ids that need no closer look, as most are?"""
    try:
        joined = "".join(values)
    except TypeError:
        return False
    # No character has more than four bytes.
    longest = max(map(len, values), default=0)
    return (
        all(values)
        and 4 * longest <= MAX_NAME_BYTES
        and (joined.isprintable() or _CONTROL.search(joined) is None)
    )


def check_event(name: Any) -> str:
    """Return the name of an event of the app's own, or raise `BadRequest`."""
    if not isinstance(name, str) or not name or _CONTROL.search(name):
        raise BadRequest(f"{_short(name)} is no event name.")
    if name in _OWN_EVENTS:
        raise BadRequest(f"{name!r} is an event of presence itself: choose another name.")
    return name


# JSON


def check_json(value: Any, what: str) -> Any:
    """Return a value as it arrives when sent as JSON, or raise `BadRequest`."""
    text = _dump(value, what=what, max_bytes=MAX_EVENT_BYTES)
    return json.loads(text)


def dump_object(value: Any, *, what: str, max_bytes: int) -> str:
    """Return canonical JSON of a small, finite, shallow dict, or raise `BadRequest`."""
    if not isinstance(value, dict):
        raise BadRequest(f"{what} must be an object, not {_short(value)}.")
    return _dump(value, what=what, max_bytes=max_bytes)


def _dump(value: Any, *, what: str, max_bytes: int) -> str:
    _check_depth(value, what)
    try:
        text = json.dumps(
            value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
        )
        size = len(text.encode())
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRequest(f"{what} is no finite JSON: {error}.") from None
    if size > max_bytes:
        raise BadRequest(f"{what} has {size} bytes; at most {max_bytes} are allowed.")
    return text


def load_object(text: Any) -> dict[str, Any]:
    """Read back what `dump_object` wrote; a row that was tampered with reads as ``{}``.

    Checked again because one ``NaN`` from the store would disconnect every browser in the room.
    """
    if text == "{}":
        return {}
    try:
        return _load_object(text)
    except (ValueError, RecursionError) as error:
        _complain(str(error))
    return {}


def _load_object(text: Any) -> dict[str, Any]:
    if not isinstance(text, str) or len(text) > MAX_EVENT_BYTES:
        raise ValueError("it is no text, or a very long one")
    text.encode()
    value = _STORED.decode(text)
    if not _is_plain(text):
        _check_depth(value, "stored JSON")
    if not isinstance(value, dict):
        raise ValueError("it is no object")
    return value


@lru_cache(maxsize=100)
def _complain(problem: str) -> None:
    """Say it once: the same row is read again and again."""
    log.error("An info or meta in the store is none, and shown as {}: %s", problem)


def load_objects(texts: Sequence[str]) -> list[dict[str, Any]]:
    """Read back many, as `load_object` would each of them.

    All at once where all are flat, which most are: a brace at each end, and none between.
    """
    try:
        if {*texts} == {"{}"}:
            return [{} for _ in texts]
        joined = _SEPARATOR.join(texts)
        if _are_flat(joined, texts):
            values: list[dict[str, Any]] = _STORED.decode(f"[{joined}]")
            return values
    except (TypeError, ValueError):
        # One is damaged, which is said by itself.
        pass
    return [load_object(text) for text in texts]


_SEPARATOR = ",\n"
"""No JSON as it is stored has a line break in it: where there is one, there a text ends."""


def _are_flat(joined: str, texts: Sequence[str]) -> bool:
    joined.encode()
    ends = len(texts) - 1
    return (
        joined.startswith("{")
        and joined.endswith("}")
        and joined.count("\n") == joined.count("},\n{") == ends
        and joined.count("{") == len(texts)
        and "[" not in joined
        and "\\" not in joined
        and max(map(len, texts)) < HUGE_DIGITS
    )


def _is_plain(text: str) -> bool:
    """Can this JSON be neither too deep, nor too large a number, nor hide a surrogate?"""
    if text.count("{") + text.count("[") > MAX_DEPTH or "\\" in text:
        return False
    return len(text) < HUGE_DIGITS or not _HUGE_NUMBER.search(text)


def _check_depth(value: Any, what: str) -> None:
    level: list[Any] = [[value]]
    for _ in range(MAX_DEPTH + 1):
        level = [
            child
            for node in level
            if isinstance(node, _CONTAINERS)
            for child in _children(node, what)
        ]
        if not level:
            return
    if any(isinstance(node, _CONTAINERS) for node in level):
        raise BadRequest(f"{what} is nested deeper than {MAX_DEPTH}.")


def _children(node: Any, what: str) -> Sequence[Any]:
    children = node
    if isinstance(node, dict):
        children = list(node.values())
        for key in node:
            if not isinstance(key, str):
                raise BadRequest(f"{what} has a key that is no string.")
            _check_text(key, what)
    for child in children:
        if isinstance(child, int) and not isinstance(child, bool) and abs(child) > 1e308:
            raise BadRequest(f"{what} has a number that is too large.")
        if isinstance(child, str):
            _check_text(child, what)
    return children  # type: ignore[no-any-return]  # what JSON is made of


def _check_text(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRequest(f"{what} has text that is no valid UTF-8.") from None


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(digits)
    return number


_STORED = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# Client events


@dataclass(frozen=True, slots=True)
class Enter:
    channel: str
    meta: str | None


@dataclass(frozen=True, slots=True)
class Leave:
    channel: str


@dataclass(frozen=True, slots=True)
class Update:
    channel: str
    meta: str


@dataclass(frozen=True, slots=True)
class Subscribe:
    channel: str
    position: Position | None


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    channel: str


@dataclass(frozen=True, slots=True)
class ReadStates:
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    ops: tuple[Op, ...]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    positions: dict[str, Position]


Op = Enter | Leave | Update | Subscribe | Unsubscribe | ReadStates
Request = Op | Batch | Heartbeat

EVENTS = frozenset(
    ["enter", "leave", "update", "subscribe", "unsubscribe", "state", "batch", "heartbeat"]
)


def parse(event: Any, payload: Any, *, max_meta_bytes: int) -> Request:
    """Parse one client event; an empty payload is ``None``.

    :raises BadRequest: the event is unknown, or the payload not of its form.
    """
    if event == "heartbeat":
        return _heartbeat(payload)
    if event == "batch":
        return _batch(payload, max_meta_bytes)
    return _op(event, payload, max_meta_bytes)


def _op(event: Any, payload: Any, max_meta_bytes: int) -> Op:
    form = _FORMS.get(event) if isinstance(event, str) else None
    if form is None:
        raise BadRequest(f"{_short(event)} is no event of this namespace.")
    if not isinstance(payload, dict):
        raise BadRequest(f"{event} takes one object, not {_short(payload)}.")
    return form(payload, max_meta_bytes)


def _enter(payload: dict[str, Any], max_meta_bytes: int) -> Op:
    channel = check_channel_name(payload.get("channel"))
    if "meta" not in payload:
        return Enter(channel, None)
    return Enter(channel, dump_object(payload["meta"], what="meta", max_bytes=max_meta_bytes))


def _update(payload: dict[str, Any], max_meta_bytes: int) -> Op:
    channel = check_channel_name(payload.get("channel"))
    return Update(channel, dump_object(payload.get("meta"), what="meta", max_bytes=max_meta_bytes))


def _subscribe(payload: dict[str, Any], _: int) -> Op:
    channel = check_channel_name(payload.get("channel"))
    position = check_position(payload["position"]) if "position" in payload else None
    return Subscribe(channel, position)


def _state(payload: dict[str, Any], _: int) -> Op:
    return ReadStates(check_channel_names(payload.get("channels")))


_FORMS: dict[str, Callable[[dict[str, Any], int], Op]] = {
    "enter": _enter,
    "leave": lambda payload, _: Leave(check_channel_name(payload.get("channel"))),
    "update": _update,
    "subscribe": _subscribe,
    "unsubscribe": lambda payload, _: Unsubscribe(check_channel_name(payload.get("channel"))),
    "state": _state,
}


def check_channel_names(names: Any) -> tuple[str, ...]:
    """Return 1 to 50 channel names, each once, or raise `BadRequest`."""
    if not isinstance(names, list) or not 1 <= len(names) <= MAX_CHANNELS_PER_READ:
        raise BadRequest(f"channels must be a list of 1 to {MAX_CHANNELS_PER_READ} names.")
    return tuple(dict.fromkeys(check_channel_name(name) for name in names))


def check_position(value: Any) -> Position:
    """Return a position, ``[epoch, revision]``, or raise `BadRequest`."""
    if isinstance(value, list) and len(value) == 2:
        epoch, revision = value
        if (epoch is None or isinstance(epoch, str)) and _is_revision(revision):
            return Position(epoch, revision)
    raise BadRequest(f"{_short(value)} is no position: it must be [epoch, revision].")


def _is_revision(value: Any) -> bool:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return is_whole and 0 <= value <= MAX_SAFE_INTEGER


def _batch(payload: Any, max_meta_bytes: int) -> Batch:
    ops = payload.get("ops") if isinstance(payload, dict) else None
    if not isinstance(ops, list) or not 1 <= len(ops) <= MAX_BATCH:
        raise BadRequest(f"batch takes {{ops: [[event, payload], ...]}}, 1 to {MAX_BATCH} of them.")
    if not all(isinstance(op, list) and len(op) == 2 for op in ops):
        raise BadRequest("Each op of a batch must be [event, payload].")
    for event, _ in ops:
        if event in ("batch", "heartbeat"):
            raise BadRequest(f"A {event} cannot be in a batch: send it by itself.")
    return Batch(tuple(_op(event, body, max_meta_bytes) for event, body in ops))


def _heartbeat(payload: Any) -> Heartbeat:
    if payload is None:
        return Heartbeat({})
    positions = payload.get("positions", {}) if isinstance(payload, dict) else None
    if not isinstance(positions, dict) or len(positions) > MAX_POSITIONS:
        raise BadRequest(
            "heartbeat takes nothing or {positions: {name: position}}, with at most "
            f"{MAX_POSITIONS} names."
        )
    return Heartbeat({name: check_position(value) for name, value in positions.items()})
