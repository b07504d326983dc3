"""The Lua scripts, each one atomic step of the store."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

WITHOUT_SCENE = (
    "channels",
    "due",
    "end_worker",
    "forget_commands",
    "publish",
    "renew",
    "reset_epoch",
    "tell",
    "workers",
)
"""Scripts that open no channel, and so do without ``scene.lua``."""


def load_scripts(client: Any) -> dict[str, Any]:
    """All scripts by name, ready to be called; the server is sent those that it does not know."""
    texts = {
        found.name.removesuffix(".lua"): found.read_text("utf-8")
        for found in files(__package__).joinpath("lua").iterdir()
        if found.name.endswith(".lua")
    }
    head, scene = texts.pop("head"), texts.pop("scene")
    return {
        name: client.register_script(head + ("" if name in WITHOUT_SCENE else scene) + text)
        for name, text in texts.items()
    }
