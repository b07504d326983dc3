"""Names of parameters, the same in every process that collects the tests."""

from __future__ import annotations

import re
from typing import Any


def named(value: Any) -> str:
    """A short name for a value, without its address."""
    return re.sub(r" at 0x[0-9a-f]+", "", ascii(value))[:60]
