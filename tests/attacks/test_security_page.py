"""What docs/security.md says is proved, is."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = (HERE.parent.parent / "docs/security.md").read_text()
NAMED = set(re.findall(r"`(test_\w+)`", PAGE))


def named_in(*paths: Path) -> set[str]:
    texts = "\n".join(path.read_text() for path in paths)
    return set(re.findall(r"^def (test_\w+)\(", texts, re.MULTILINE))


def test_every_test_that_the_page_names_is_there() -> None:
    here = named_in(*HERE.glob("test_*.py"))
    elsewhere = re.findall(r"`(test_\w+)` in `tests/(test_\w+\.py)`", PAGE)

    assert {name for name, _ in elsewhere} | here >= NAMED
    for name, file in elsewhere:
        assert name in named_in(HERE.parent / file)


def test_every_file_of_attacks_proves_something_on_the_page() -> None:
    for path in HERE.glob("test_*.py"):
        assert path.name == Path(__file__).name or named_in(path) & NAMED, path.name


def test_every_line_of_a_table_names_a_test() -> None:
    rows = [
        row for row in PAGE.splitlines() if row.startswith("| ") and not row.startswith("| wants |")
    ]

    assert len(rows) > 20
    for row in rows:
        assert "`test_" in row, row
