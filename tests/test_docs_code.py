"""The code in README and in the documentation works.

A Python block that makes an app begins a program, with which the blocks after it go on, up to the
end of the section. Blocks with tests are run by pytest, beside README's program as ``app.py``. All
others belong to the forum: they run in a request there, each after those above it on the page.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import click
import pytest
from docs_pages import DOCS, PAGES, ROOT, Block, blocks, pages_with
from flask import render_template_string
from forum import Forum

from flask_presence.cli import presence_commands
from flask_presence.delivery.wire import state_form
from flask_presence.model import State
from flask_presence.settings import Settings

LANGUAGES = {"", "console", "css", "html", "jinja", "js", "json", "python", "ts"}
SPHINX = {"{eval-rst}", "{include}", "{toctree}"}
STATIC = ROOT / "flask_presence/static"


def is_program(block: Block) -> bool:
    return "Flask(__name__)" in block.text


def is_test(block: Block) -> bool:
    return re.search(r"^(def test_|class Test)", block.text, re.MULTILINE) is not None


def programs() -> list[list[Block]]:
    """Programs, each with the blocks that go on with it."""
    found: list[list[Block]] = []
    for page in pages_with("python"):
        for _, section in groupby(blocks(page, "python"), lambda block: block.section):
            for block in section:
                if is_program(block):
                    found.append([block])
                elif found and found[-1][0][:3:2] == block[:3:2] and not is_test(block):
                    found[-1].append(block)
    return found


def fragments(page: str) -> list[Block]:
    """The blocks of a page that belong to the forum."""
    elsewhere = [block for program in programs() for block in program]
    return [
        block for block in blocks(page, "python") if block not in elsewhere and not is_test(block)
    ]


def run(block: Block, names: dict[str, Any]) -> None:
    """Run a block; what it raises points to the line on the page."""
    exec(compile("\n" * (block.line - 1) + block.text, str(ROOT / block.page), "exec"), names)


@pytest.fixture
def forum(tmp_path: Path) -> Iterator[Forum]:
    forum = Forum(tmp_path)
    yield forum
    forum.stop()


# Python


@pytest.mark.parametrize("page", pages_with("python"))
def test_fragments_run(page: str, forum: Forum) -> None:
    with forum.request():
        for block in fragments(page):
            run(block, forum.names)

    Settings.read(forum.app.config)


@pytest.mark.parametrize(
    "program", programs(), ids=lambda program: f"{program[0].page}:{program[0].section}"
)
def test_programs_serve_their_page(program: list[Block], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLASK_RUN_FROM_CLI", "true")
    # Where Flask looks for the program's folder, whichever other app.py there is.
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "app.py").touch()
    names: dict[str, Any] = {"__name__": "app"}
    write_template(program[0], tmp_path)

    for block in program:
        run(block, names)
    page = names["app"].test_client().get("/as/ada", follow_redirects=True)

    assert page.status_code == 200
    assert "presence.js" in page.text
    names["app"].extensions["presence"].stop()


def write_template(program: Block, folder: Path) -> None:
    """A template that stands in the section of a program is its ``index.html``."""
    for block in blocks(program.page, "jinja"):
        if block.section == program.section:
            path = folder / "templates/index.html"
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.text)


@pytest.mark.parametrize(
    "block",
    [block for page in pages_with("python") for block in blocks(page, "python") if is_test(block)],
    ids=lambda block: f"{block.page}:{block.section}",
)
def test_tests_pass(block: Block, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(programs()[0][0].text)
    (tmp_path / "test_it.py").write_text(block.text)

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


# JavaScript, Jinja, HTML, CSS, JSON


def test_javascript_fits_the_types(tmp_path: Path) -> None:
    sources = [(page, language) for language in ("js", "ts") for page in pages_with(language)]
    for page, language in sources:
        name = f"{Path(page).stem}.{language}"
        (tmp_path / name).write_text(nested(blocks(page, language)))
    (tmp_path / "tsconfig.json").write_text(
        json.dumps(
            {
                "extends": str(ROOT / "tests/js/types/tsconfig.json"),
                "compilerOptions": {
                    "allowJs": True,
                    "checkJs": True,
                    "noImplicitAny": False,
                    "useUnknownInCatchVariables": False,
                    "target": "ES2022",
                    "module": "ES2022",
                    "lib": ["ES2022", "DOM"],
                },
                "files": [
                    str(STATIC / "presence.d.ts"),
                    str(ROOT / "tests/js/types/docs.d.ts"),
                    *(f"{Path(page).stem}.{language}" for page, language in sources),
                ],
            }
        )
    )

    checked = subprocess.run(
        [ROOT / "node_modules/.bin/tsc", "-p", tmp_path], capture_output=True, text=True
    )

    assert checked.stdout == ""
    assert len(sources) > 5


def nested(some: list[Block]) -> str:
    """Each block inside those above it on the page, so that it sees their names, and may take them
    for its own."""
    imports = [line for block in some for line in block.text.splitlines() if is_import(line)]
    bodies = [
        f"// {block.page}:{block.line}\n"
        + "\n".join(line for line in block.text.splitlines() if not is_import(line))
        for block in some
    ]
    return "\n".join([*imports, "export {};", *("{\n" + body for body in bodies), "}" * len(some)])


def is_import(line: str) -> bool:
    return line.startswith("import ")


@pytest.mark.parametrize("page", pages_with("jinja"))
def test_jinja_renders(page: str, forum: Forum) -> None:
    with forum.request():
        for block in blocks(page, "jinja"):
            rendered = render_template_string(block.text, **forum.names)

            channels = re.findall(r'presence_(?:count|users)\("([^"]+)"', block.text)
            for channel in channels:
                assert f'channel="{channel}"' in rendered
            assert channels or '"revision": 0' in rendered
    assert "presence_client" in PAGES[page]


def test_html_uses_elements_and_attributes_that_exist() -> None:
    script = "".join(path.read_text() for path in sorted(STATIC.glob("*.js")))
    tags = [
        tag
        for page in PAGES
        for block in blocks(page, "html")
        for tag in re.findall(r"<(presence-\w+)([^>]*)>", block.text)
    ]

    assert tags
    for name, attributes in tags:
        assert f'customElements.define("{name}"' in script
        for attribute in re.findall(r"([\w-]+)(?:=|\s|$)", re.sub(r'"[^"]*"', "", attributes)):
            assert f'"{attribute}"' in script


def test_css_selects_what_is_rendered() -> None:
    macros = (ROOT / "flask_presence/templates/flask_presence/macros.html").read_text()
    css = "".join(block.text for page in PAGES for block in blocks(page, "css"))
    name = r"presence-[\w-]+|data-[\w-]+"

    named = set(re.findall(name, re.sub(r"\{[^}]*\}", "", css)))

    assert named
    assert named - set(re.findall(name, macros)) == set()


def test_json_has_the_form_of_the_wire() -> None:
    full = set(state_form(State("/a/b"), count_only=False))
    counted = set(state_form(State("/a/b"), count_only=True))
    diff = {"channel", "epoch", "revisions", "count", "anonymous", "entered", "updated", "left"}
    told = [json.loads(block.text) for page in pages_with("json") for block in blocks(page, "json")]

    forms = [form for value in told for form in value.get("states", {"": value}).values()]

    assert len(forms) == 4
    for form in forms:
        assert set(form) in (full, counted, diff)


# The console


def test_commands_exist() -> None:
    for page in pages_with("console"):
        for block in blocks(page, "console"):
            for line in re.findall(r"^\$ (.+?)(?:  +#.*)?$", block.text, re.MULTILINE):
                check_command(shlex.split(line), f"{page}: {line}")


def check_command(command: list[str], where: str) -> None:
    match command:
        case ["flask", "run"] | ["systemctl", ("enable" | "restart" | "reload"), *_]:
            pass
        case ["flask", "presence", name, *arguments]:
            assert name in presence_commands.commands, where
            try:
                presence_commands.commands[name].make_context(name, list(arguments))
            except click.ClickException as error:
                pytest.fail(f"{where}: {error.format_message()}")
        case ["make", *targets]:
            makefile = (ROOT / "Makefile").read_text()
            for target in targets:
                assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), where
        case ["pip", "install", requirement]:
            extras = re.fullmatch(r"Flask-Presence(?:\[(\w+)\])?|gunicorn", requirement)
            assert extras, where
            assert extras[1] is None or f'"{extras[1]}":' in (ROOT / "setup.py").read_text(), where
        case ["gunicorn", *_]:
            assert where.startswith("docs/deployment.md")  # tested in test_deployment.py
        case ["python", "-m", module]:
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), where
        case ["pytest", *_]:
            pass
        case _:
            pytest.fail(f"{where} is no known command")


# All


def test_every_block_says_what_it_is() -> None:
    known = LANGUAGES | SPHINX

    for page in PAGES:
        for block in re.findall(r"^ *```(\S*)", PAGES[page], re.MULTILINE):
            assert block in known, page
    assert not list(DOCS.glob("*.rst"))
