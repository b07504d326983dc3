"""The waist: what any door asks for goes through `Tracker`, to the store and the rooms."""

from .parts import Runtime
from .tracker import Tracker

__all__ = ["Runtime", "Tracker"]
