"""Where members are kept: one module for each store, strangers to one another, behind `Backend`."""

from .base import Backend

__all__ = ["Backend"]
