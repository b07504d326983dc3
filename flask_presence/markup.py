"""What a rendered page shows of a user, in the default markup or in the app's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

from markupsafe import Markup, escape

User = Mapping[str, Any]
"""A user as a state has it: ``id``, ``info`` and ``meta``."""

HUES = 8
PREFIX = "data-presence"
KEY = re.compile(r"(info|meta)(\.[^.\s]+)+")
PLAIN = re.compile(r"alt|title|lang|value|datetime|aria-[a-z]+|data-[a-z0-9-]+")
URLS = {"href": "a", "src": "img"}  # elsewhere they could run something
VOID = frozenset(
    ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr")
)


# What there is to show


def name_of(user: User) -> str:
    name = user["info"].get("name")
    return name if isinstance(name, str) and name.strip() else user["id"]


def initials_of(user: User) -> str:
    words = name_of(user).split()
    return "".join(word[0] for word in [*words[:1], *words[1:][-1:]]).upper()


def hue_of(user: User) -> str:
    return str(sum(user["id"].encode()) % HUES)


def safe_url(value: object) -> str | None:
    """http, https and paths of this site; never ``javascript:``."""
    if isinstance(value, str) and value.lower().startswith(("/", "http://", "https://")):
        return value
    return None


DERIVED: dict[str, Callable[[User], str | None]] = {
    "id": lambda user: user["id"],
    "name": name_of,
    "initials": initials_of,
    "hue": hue_of,
    "avatar": lambda user: safe_url(user["info"].get("avatar")),
    "url": lambda user: safe_url(user["info"].get("url")),
}


def face_of(user: User) -> dict[str, str | None]:
    """What the default markup shows of a user: text, or ``None`` where there is nothing."""
    return {key: derive(user) for key, derive in DERIVED.items()}


def value_of(user: User, key: str) -> str | None:
    """A value by its key, one of `DERIVED` or ``info.…`` or ``meta.…``, likewise."""
    if key in DERIVED:
        return DERIVED[key](user)
    value: Any = user
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int | float) and value is not False:
        return "true" if value is True else str(value)
    return value if isinstance(value, str) and value else None


# The app's own markup


@dataclass(frozen=True)
class Tag:
    """A start tag with slots: which attribute, text or visibility gets which value."""

    name: str
    attributes: tuple[tuple[str, str | None], ...]
    slots: tuple[tuple[str, str], ...]

    def fill(self, user: User) -> str:
        attributes = dict(self.attributes)
        text = ""
        for part, key in self.slots:
            value = value_of(user, key)
            if part == "":
                text = value or ""
                attributes.setdefault("dir", "auto")
            elif part in ("show", "hide"):
                put(attributes, "hidden", "" if (value is None) is (part == "show") else None)
            else:
                put(attributes, part, safe_url(value) if part in URLS else value)
        written = "".join(map(written_attribute, attributes.items()))
        return f"<{self.name}{written}>{escape(text)}"


def put(attributes: dict[str, str | None], name: str, value: str | None) -> None:
    attributes.pop(name, None)
    if value is not None:
        attributes[name] = value


def written_attribute(attribute: tuple[str, str | None]) -> str:
    name, value = attribute
    return f" {name}" if value is None else f' {name}="{escape(value)}"'


class OwnMarkup(HTMLParser):
    """An app's markup for one user, read once, to be filled in for each.

    :raises ValueError: where it is not one element, whole, with slots that can be filled.
    """

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=False)
        self.source = source.strip()
        self._pieces: list[str | Tag] = []
        self._open: list[str] = []
        self._roots = 0
        self._skipping: int | None = None  # how deep the element is whose text is filled in
        self.feed(self.source)
        self.close()
        if self._open:
            raise self._error(f"<{self._open[-1]}> is not closed")
        if self._roots != 1:
            raise self._error("it must be exactly one element")

    def fill(self, user: User) -> Markup:
        """The markup with what there is of a user, escaped."""
        pieces = (piece if isinstance(piece, str) else piece.fill(user) for piece in self._pieces)
        return Markup("".join(pieces))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._take_start(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._take_start(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1] != tag:
            raise self._error(f"</{tag}> closes nothing")
        self._open.pop()
        if self._skipping == len(self._open):
            self._skipping = None
        self._write(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if not self._open and data.strip():
            raise self._error("it must be exactly one element, without text beside it")
        self._write(data)

    def handle_entityref(self, name: str) -> None:
        self.handle_data(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self.handle_data(f"&#{name};")

    def _take_start(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._roots += not self._open
        slots = tuple(self._slot(tag, *attribute) for attribute in attrs if is_slot(attribute))
        if not slots:
            self._write(self.get_starttag_text() or "")
            return
        self._write(Tag(tag, tuple(attrs), slots))
        if "" in dict(slots):
            self._skipping = len(self._open)

    def _slot(self, tag: str, name: str, key: str | None) -> tuple[str, str]:
        part = name[len(PREFIX) + 1 :]
        slot = f'<{tag} {name}="{key or ""}">'
        if not key or not (key in DERIVED or KEY.fullmatch(key)):
            known = ", ".join(DERIVED)
            raise self._error(f"{slot}: no such value; there are {known}, info.… and meta.…")
        if part == "" and tag in VOID:
            raise self._error(f"{slot}: this element has no text")
        if not (part in ("", "show", "hide") or PLAIN.fullmatch(part) or URLS.get(part) == tag):
            raise self._error(
                f'{slot}: "{part}" cannot be filled here; alt, title, lang, value, datetime, '
                "aria-… and data-… can, href of <a> and src of <img>"
            )
        return part, key

    def _write(self, piece: str | Tag) -> None:
        if self._skipping is None:
            self._pieces.append(piece)

    def _error(self, text: str) -> ValueError:
        return ValueError(f"the markup for a user of presence_users: {text}, in: {self.source}")


def is_slot(attribute: tuple[str, str | None]) -> bool:
    return attribute[0] == PREFIX or attribute[0].startswith(f"{PREFIX}-")
