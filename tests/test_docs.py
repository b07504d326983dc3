"""The documentation tells everything, nothing that is not there, and is a site that builds."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import zlib
from dataclasses import fields
from pathlib import Path

import click
import pytest
from blinker import NamedSignal
from docs_pages import DOCS, PAGES, ROOT, table, words

import flask_presence
from flask_presence import ChannelConfig, Presence, errors, markup, protocol, signals, testing
from flask_presence.backends.base import Backend
from flask_presence.cli import presence_commands
from flask_presence.doctor import CHECKS
from flask_presence.errors import PresenceError
from flask_presence.handle import Channel
from flask_presence.settings import PREFIX, Settings

TYPES = (ROOT / "flask_presence/static/presence.d.ts").read_text()


# Settings


def test_every_setting_is_told_with_its_default() -> None:
    told = {words([row[0]])[0]: row[1].strip("`") for row in table("docs/settings.md", "key")}

    assert told == defaults()


def defaults() -> dict[str, str]:
    """Every setting with its default, as they are written."""
    settings = Settings.read({})
    limit = settings.rate_limit
    assert limit is not None
    values = {field.name: getattr(settings, field.name) for field in fields(Settings)}
    values["rate_limit"] = f'"{limit.operations}/{limit.seconds:g}"'
    return {
        PREFIX + name.upper(): "unset" if value is None else str(value)
        for name, value in values.items()
    }


def test_no_page_names_a_setting_that_is_none() -> None:
    named = {
        name for text in PAGES.values() for name in re.findall(r"\bPRESENCE_[A-Z_]+[A-Z]", text)
    }

    assert named - set(defaults()) == set()


# The wire


def test_every_client_event_is_told() -> None:
    told = table("docs/wire.md", "event")

    assert {words([row[0]])[0] for row in told if len(row) == 3} == protocol.EVENTS


def test_every_server_event_is_told() -> None:
    told = table("docs/wire.md", "event")
    sent = protocol._OWN_EVENTS - {"connect", "connect_error", "disconnect"}

    assert {words([row[0]])[0] for row in told if len(row) == 2} == sent


def test_every_error_code_is_told() -> None:
    told = {words([row[0]])[0] for row in table("docs/wire.md", "code")}

    assert told == {error.code for error in all_errors()}


def all_errors() -> list[type[PresenceError]]:
    return [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, PresenceError)
    ]


# The browser


@pytest.mark.parametrize(
    ("head", "block"),
    [
        ("event", "interface ChannelEvents"),
        ("`code`", "type ErrorCode"),
        ("option", "interface Options"),
    ],
)
def test_the_tables_of_the_browser_are_those_of_the_types(head: str, block: str) -> None:
    told = {word for row in table("docs/browser.md", head) for word in words([row[0]])}

    assert told == members(block)


def test_every_event_of_the_elements_is_told() -> None:
    told = {word for row in table("docs/browser.md", "DOM event") for word in words([row[0]])}

    assert told == {f"presence:{event}" for event in members("interface ChannelEvents")}


def test_every_value_for_markup_of_ones_own_is_told() -> None:
    told = re.search(r"^The values are (.+?), and anything", PAGES["docs/browser.md"], re.MULTILINE)

    assert told is not None
    assert words([told[1]]) == list(markup.DERIVED)


def test_every_member_of_a_channel_is_told() -> None:
    told = {
        re.sub(r"^channel\.|\(.*", "", word)
        for row in table("docs/browser.md", "")
        for word in words([row[0]])
    }

    assert members("interface Channel") <= told


def members(declaration: str) -> set[str]:
    """What the types declare under this name: members of an interface, or a union of strings."""
    start = re.search(rf"{declaration}\b", TYPES)
    assert start is not None
    body = TYPES[start.end() :]
    if declaration.startswith("type "):
        return set(re.findall(r'"(\w+)"', body[: body.index(";")]))
    body = body[: body.index("\n  }")]
    return set(re.findall(r"^    (?:readonly )?(\w+)[?<(:]", body, re.MULTILINE))


# Python


def test_every_field_of_a_config_is_told_with_its_default() -> None:
    told = {words([row[0]])[0]: row[1] for row in table("docs/channels.md", "field")}

    assert told == {field.name: f"`{field.default}`" for field in fields(ChannelConfig)}


def test_every_signal_is_told() -> None:
    told = {words([row[0]])[0] for row in table("docs/server.md", "signal")}

    assert told == signal_names()


def test_every_exported_error_is_told() -> None:
    told = {words([row[0]])[0] for row in table("docs/server.md", "error")}
    exported = {error.__name__ for error in all_errors()} & set(flask_presence.__all__)

    assert told == exported - {"PresenceError"}


def test_every_public_name_says_what_it_is_for() -> None:
    for place in (flask_presence, testing):
        for name in place.__all__:
            assert inspect.getdoc(getattr(place, name)), name
    for owner in (Presence, Channel, Backend):
        for name, value in vars(owner).items():
            if not name.startswith("_") and (callable(value) or isinstance(value, property)):
                assert inspect.getdoc(value), f"{owner.__name__}.{name}"


# The command line


def test_every_command_is_told_as_it_is_used() -> None:
    told = [words([row[0]])[0] for row in table("docs/cli.md", "command")]

    assert sorted(told) == sorted(usage(command) for command in presence_commands.commands.values())


def usage(command: click.Command) -> str:
    arguments = [
        parameter.make_metavar(click.Context(command))
        for parameter in command.params
        if isinstance(parameter, click.Argument)
    ]
    return " ".join(["flask presence", str(command.name), *arguments])


def test_every_option_is_told_with_its_commands() -> None:
    told = {words([row[0]])[0]: set(words([row[1]])) for row in table("docs/cli.md", "option")}

    found: dict[str, set[str]] = {}
    for name, command in presence_commands.commands.items():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                found.setdefault(parameter.opts[0], set()).add(name)

    assert told == found


def test_every_check_of_the_doctor_is_told() -> None:
    assert [words([row[0]])[0] for row in table("docs/cli.md", "check")] == list(CHECKS)


# Features


def test_every_feature_is_proven_by_a_test_that_exists() -> None:
    proofs = [proof for row in table("docs/features.md", "feature") for proof in words([row[2]])]

    assert len(proofs) > 100
    for proof in proofs:
        path, name = proof.split("::", 1)
        assert name in proofs_in(ROOT / path), proof


def proofs_in(path: Path) -> set[str]:
    """The names of the tests in a file, Python or JavaScript."""
    if path.suffix == ".mjs":
        return set(re.findall(r'^ *test\("((?:[^"\\]|\\.)+)"', path.read_text(), re.MULTILINE))
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_row_of_the_features_says_how_and_is_proven_or_says_why_not() -> None:
    for row in table("docs/features.md", "feature"):
        feature, how, proof = row
        assert feature, row
        assert how, row
        assert "::" in proof or proof == "does not apply", row


def test_every_test_that_the_security_page_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGES["docs/security.md"]))
    places = [*(ROOT / "tests/attacks").glob("test_*.py"), *(ROOT / "tests").glob("test_*.py")]

    assert len(named) > 30
    assert named - set().union(*map(proofs_in, places)) == set()


# The site


def test_the_site_builds_without_a_warning_and_has_every_public_name(tmp_path: Path) -> None:
    built = subprocess.run(
        [
            sys.executable,
            *["-m", "sphinx", "--fail-on-warning", "--keep-going", "--nitpicky", "-q"],
            DOCS,
            tmp_path,
        ],
        capture_output=True,
        text=True,
    )

    assert (built.returncode, built.stderr) == (0, "")
    named = inventory(tmp_path)
    public = {f"flask_presence.{name}" for name in flask_presence.__all__}
    public |= {f"flask_presence.testing.{name}" for name in testing.__all__}
    public |= {f"flask_presence.signals.{name}" for name in signal_names()}
    assert public - named == set()


def signal_names() -> set[str]:
    return {name for name, value in vars(signals).items() if isinstance(value, NamedSignal)}


def inventory(site: Path) -> set[str]:
    """The Python names that a built site has a place for."""
    packed = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    lines = zlib.decompress(packed).decode().splitlines()
    return {line.split()[0] for line in lines if " py:" in line}


def test_readme_links_to_files_and_headings_that_are_there() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", PAGES["README.md"]):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        assert (ROOT / path).is_file(), target
        if anchor:
            assert anchor in anchors(PAGES[path]), target


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
