"""Mapped classes of the tables, for an app's own queries."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy.orm import registry

from .tables import Tables


class Models(NamedTuple):
    """``Channel`` and ``Member``, to be selected and joined, never to be written."""

    Channel: Any
    Member: Any


def map_models(tables: Tables) -> Models:
    """Map the tables to new classes, with their columns as attributes."""
    mapper = registry(metadata=tables.metadata)
    channel = type("Channel", (), {"__doc__": "A channel: ``name``, ``count``, ``anonymous`` …"})
    member = type("Member", (), {"__doc__": "A client in a channel; those due count until pruned."})
    mapper.map_imperatively(channel, tables.channels)
    mapper.map_imperatively(member, tables.members)
    return Models(channel, member)
