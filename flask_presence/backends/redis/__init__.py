"""Members in Redis or Valkey, whose events reach every process by themselves."""

from .backend import RedisBackend
from .connect import connect

__all__ = ["RedisBackend", "connect"]
