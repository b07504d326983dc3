"""Members in a SQL database, through SQLAlchemy Core."""

from .backend import SQLAlchemyBackend
from .dialects import connect_patiently
from .tables import Tables

__all__ = ["SQLAlchemyBackend", "Tables", "connect_patiently"]
