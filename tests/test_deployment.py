"""What docs/deployment.md and the files beside it say is so."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from processes import DEPLOYMENT

from flask_presence.settings import PREFIX, Settings

PAGE = (DEPLOYMENT.parent / "deployment.md").read_text()
UNIT = (DEPLOYMENT / "forum@.service").read_text()
APP = """
from flask import Flask
from flask_presence import Presence
from flask_socketio import SocketIO

app = Flask(__name__)
socketio = SocketIO(app)
Presence(app)
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """The ways in which the docs start gunicorn."""
    typed = re.findall(r"^\$ (gunicorn .+)$", PAGE, re.MULTILINE)
    units = re.findall(r"^ExecStart=\S+/bin/(gunicorn .+)$", UNIT, re.MULTILINE)
    assert typed
    assert units
    return [*typed, *units]


@pytest.mark.parametrize("command", commands())
def test_gunicorn_takes_the_commands_and_the_config(command: str, tmp_path: Path) -> None:
    (tmp_path / "wsgi.py").write_text(APP)
    (tmp_path / "gunicorn.conf.py").write_text((DEPLOYMENT / "gunicorn.conf.py").read_text())

    checked = subprocess.run(
        [sys.executable, "-m", *shlex.split(command.replace("%i", "8001")), "--check-config"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_page_shows_the_very_config_that_is_tested() -> None:
    assert (DEPLOYMENT / "gunicorn.conf.py").read_text() in blocks("python")


def test_the_hooks_that_the_page_imports_are_there() -> None:
    (line,) = [block for block in blocks("python") if block.startswith("from ")]

    names: dict[str, object] = {}
    exec(line, names)

    assert callable(names["post_worker_init"])
    assert callable(names["worker_exit"])


def test_every_setting_on_the_page_exists_with_its_default() -> None:
    settings = Settings.read({})

    named = set(re.findall(r"`PRESENCE_(\w+)`", PAGE))

    assert {PREFIX + name for name in named} >= {"PRESENCE_WORKER_TIMEOUT", "PRESENCE_BACKEND"}
    assert named <= {field.upper() for field in Settings.__dataclass_fields__}
    assert f"`PRESENCE_WORKER_TIMEOUT` ({settings.worker_timeout:g} seconds)" in PAGE


def test_nginx_and_the_unit_agree_with_the_page_on_the_ports() -> None:
    site = (DEPLOYMENT / "nginx.conf").read_text()

    ports = set(re.findall(r"forum@(\d+)", PAGE))

    assert ports == set(re.findall(r"server 127\.0\.0\.1:(\d+);", site))


def test_the_files_that_the_page_links_are_there() -> None:
    linked = re.findall(r"\]\(([^):]+)\)", PAGE)

    assert len(linked) == 3
    for path in linked:
        assert (DEPLOYMENT.parent / path).is_file()
