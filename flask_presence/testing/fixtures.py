"""A fixture for pytest: ``from flask_presence.testing.fixtures import presence_kit`` in your
``conftest.py``, beside a fixture ``app`` of your own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from .kit import PresenceKit


@pytest.fixture
def presence_kit(app: Flask) -> Iterator[PresenceKit]:
    """The presence of the app, in memory and on a clock that the test moves."""
    with PresenceKit(app) as kit:
        yield kit
