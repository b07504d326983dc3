"""What README says is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from flask_presence.cli import presence_commands
from flask_presence.settings import PREFIX, Settings

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_whole_program_runs_and_shows_who_is_here(tmp_path: Path, monkeypatch: Any) -> None:
    program = re.search(r"## A whole program.*?```python\n(.*?)```", README, re.DOTALL)
    assert program is not None
    assert program[1].count("\n") <= 40
    source = program[1].replace(
        "Flask(__name__)", f"Flask(__name__, instance_path={str(tmp_path)!r})"
    )
    names: dict[str, Any] = {"__name__": "app"}
    monkeypatch.setenv("FLASK_RUN_FROM_CLI", "true")
    exec(compile(source, "app.py", "exec"), names)
    app = names["app"]
    browser, other = app.test_client(), app.test_client()
    assert browser.get("/as/ada").status_code == 302
    socket = names["socketio"].test_client(app, namespace="/presence", flask_test_client=browser)

    entered = socket.emit("enter", {"channel": "/page/index"}, namespace="/presence", callback=True)
    page = other.get("/").text

    assert entered == {"ok": True}
    assert "Ada" in page
    app.extensions["presence"].stop()


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
