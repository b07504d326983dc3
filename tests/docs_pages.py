"""README and the pages of the documentation, and the code in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
}

_FENCE = re.compile(r"^( *)```([\w{}-]*).*\n((?:.*\n)*?)\1```$", re.MULTILINE)


class Block(NamedTuple):
    """A block of code; ``section`` is the heading of the second level above it."""

    page: str
    line: int
    section: str
    language: str
    text: str


def blocks(page: str, *languages: str) -> list[Block]:
    """The blocks of a page in these languages, in order."""
    return [block for block in _blocks(page) if block.language in languages]


def _blocks(page: str) -> Iterator[Block]:
    text = PAGES[page]
    for match in _FENCE.finditer(text):
        before = text[: match.start()]
        headings = re.findall(r"^## (.+)$", before, re.MULTILINE)
        line = before.count("\n") + 2
        yield Block(page, line, headings[-1] if headings else "", match[2], dedent(match[3]))


def pages_with(language: str) -> list[str]:
    return [page for page in PAGES if blocks(page, language)]


def table(page: str, head: str) -> list[list[str]]:
    """The rows of all tables on a page whose first column has this head, as lists of cells."""
    rows: list[list[str]] = []
    inside = False
    for line in PAGES[page].splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
        if inside and cells and not cells[0].startswith("---"):
            rows.append(cells)
        inside = bool(cells) and (inside or cells[0] == head)
    return rows


def words(cells: list[str]) -> list[str]:
    """What is in backticks, in these cells."""
    return [word for cell in cells for word in re.findall(r"`([^`]+)`", cell)]
