"""From a change to the signals and rooms that learn of it."""

from .announcer import Announcer
from .feed import Feed
from .interest import Interest
from .rooms import Recipients, Rooms, Transport

__all__ = ["Announcer", "Feed", "Interest", "Recipients", "Rooms", "Transport"]
