"""Checkers and measurements that are run by hand, on the servers and clients of the tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
