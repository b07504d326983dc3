"""The Lua scripts, each one atomic step of the store."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

NEEDS = re.compile(r"^-- needs  (.+)$", re.MULTILINE)
"""The line at the head of a script that names the parts it is made of, as a part may itself."""


def load_scripts(client: Any) -> dict[str, Any]:
    """All scripts by name, ready to be called; the server is sent those that it does not know."""
    folder = files(__package__).joinpath("lua")
    parts, texts = _texts(folder.joinpath("parts")), _texts(folder)
    return {name: client.register_script(_whole(text, parts)) for name, text in texts.items()}


def _texts(folder: Any) -> dict[str, str]:
    return {
        found.name.removesuffix(".lua"): found.read_text("utf-8")
        for found in folder.iterdir()
        if found.name.endswith(".lua")
    }


def _whole(text: str, parts: dict[str, str]) -> str:
    """A script behind its head and the parts that it needs: each function costs it time whenever
    it runs, called or not."""
    names = dict.fromkeys(["head", *_needed(text, parts)])
    return "".join([*(parts[name] for name in names), text])


def _needed(text: str, parts: dict[str, str]) -> Iterator[str]:
    """The parts that a text needs, each after those that it needs itself."""
    for line in NEEDS.findall(text):
        for name in line.split(", "):
            yield from _needed(parts[name], parts)
            yield name
