"""Members in a SQL database, through SQLAlchemy Core."""

from .backend import SQLAlchemyBackend
from .tables import Tables

__all__ = ["SQLAlchemyBackend", "Tables"]
