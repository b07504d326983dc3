"""What README says is so."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from flask_presence.cli import presence_commands
from flask_presence.settings import PREFIX, Settings

README = (Path(__file__).parent.parent / "README.md").read_text()


def program_of(heading: str) -> str:
    program = re.search(rf"## {heading}\n.*?```python\n(.*?)```", README, re.DOTALL)
    assert program is not None
    return program[1]


@pytest.fixture
def whole_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module ``app`` that README has its reader save."""
    source = program_of("A whole program")
    assert source.count("\n") <= 40
    source = source.replace("Flask(__name__)", f"Flask(__name__, instance_path={str(tmp_path)!r})")
    module = ModuleType("app")
    monkeypatch.setitem(sys.modules, "app", module)
    monkeypatch.setenv("FLASK_RUN_FROM_CLI", "true")
    exec(compile(source, "app.py", "exec"), vars(module))
    return module


def test_the_whole_program_runs_and_shows_who_is_here(whole_program: ModuleType) -> None:
    app = whole_program.app
    browser, other = app.test_client(), app.test_client()
    assert browser.get("/as/ada").status_code == 302
    socket = whole_program.socketio.test_client(
        app, namespace="/presence", flask_test_client=browser
    )

    entered = socket.emit("enter", {"channel": "/page/index"}, namespace="/presence", callback=True)
    page = other.get("/").text

    assert entered == {"ok": True}
    assert "Ada" in page
    app.extensions["presence"].stop()


def test_the_whole_test_passes_on_the_whole_program(whole_program: ModuleType) -> None:
    names: dict[str, Any] = {}
    exec(compile(program_of("In your tests"), "test_app.py", "exec"), names)

    (test,) = [value for name, value in names.items() if name.startswith("test_")]
    test()


def test_every_setting_stands_in_the_table_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(PRESENCE_\w+)` \| `?([^|`]+?)`? \|", README, re.MULTILINE))
    settings = Settings.read({})
    limit = settings.rate_limit
    assert limit is not None

    told = {
        name: "unset" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
        for name, value in (
            (name, getattr(settings, name[len(PREFIX) :].lower()))
            for name in (PREFIX + field.upper() for field in Settings.__dataclass_fields__)
        )
    } | {"PRESENCE_RATE_LIMIT": f'"{limit.operations}/{limit.seconds:g}"'}

    assert rows == told


def test_every_command_is_told_and_every_command_told_is_there() -> None:
    assert set(re.findall(r"`flask presence ([a-z-]+)", README)) == set(presence_commands.commands)


def test_the_pictures_are_there() -> None:
    for path in re.findall(r"\]\((docs/[^)]+)\)", README):
        assert (Path(__file__).parent.parent / path).stat().st_size > 1000
