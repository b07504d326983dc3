"""Atomic steps in plain Python, for stores that have transactions but no scripts of their own."""

from .backend import StepBackend
from .leases import ALIVE, DRAINED, LOST, Lease, held_until
from .rows import Columns, Counters, Row, check_columns, check_rows, columns_of, users_in, users_of
from .step import Opening, Step

__all__ = [
    "ALIVE",
    "DRAINED",
    "LOST",
    "Columns",
    "Counters",
    "Lease",
    "Opening",
    "Row",
    "Step",
    "StepBackend",
    "check_columns",
    "check_rows",
    "columns_of",
    "held_until",
    "users_in",
    "users_of",
]
