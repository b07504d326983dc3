"""What README says is so; that its code runs is proven in test_docs_code.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from docs_pages import PAGES, ROOT, blocks


def test_the_whole_program_is_short_and_shows_who_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLASK_RUN_FROM_CLI", "true")
    program = blocks("README.md", "python")[0]
    names: dict[str, Any] = {"__name__": "app"}
    exec(compile(program.text, "app.py", "exec"), names)
    app = names["app"]
    browser, other = app.test_client(), app.test_client()
    assert browser.get("/as/ada").status_code == 302
    socket = names["socketio"].test_client(app, namespace="/presence", flask_test_client=browser)

    entered = socket.emit("enter", {"channel": "/page/index"}, namespace="/presence", callback=True)
    page = other.get("/").text

    assert entered == {"ok": True}
    assert "Ada" in page
    assert program.text.count("\n") <= 40
    app.extensions["presence"].stop()


def test_readme_is_short() -> None:
    assert PAGES["README.md"].count("\n") < 170


def test_the_pictures_are_there() -> None:
    for name in ("screenshot-desktop.png", "screenshot-phone.png"):
        assert f"docs/{name}" in PAGES["README.md"]
        assert (ROOT / "docs" / name).stat().st_size > 1000
