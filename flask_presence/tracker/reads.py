"""Reads that are shared: who asks for the same thing at the same time gets the same answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class _Line(Generic[T]):
    """Those who ask for one thing: one reads, and the rest wait for whoever reads next."""

    def __init__(self) -> None:
        self.reading = threading.Lock()
        self.next: Future[T] | None = None
        self.waiting = 0


class SharedReads(Generic[T]):
    """Each answer comes from a read that began after it was asked for.

    :param read: reads one thing by its name. It must ask nothing of the same reads.
    """

    def __init__(self, read: Callable[[str], T]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._lines: dict[str, _Line[T]] = {}

    def get(self, name: str) -> tuple[T, bool]:
        """The answer, and whether it was this call that read it."""
        with self._lock:
            line = self._lines.setdefault(name, _Line())
            line.waiting += 1
            future, leads = line.next, line.next is None
            if future is None:
                future = line.next = Future()
        try:
            if leads:
                self._lead(name, line, future)
            return future.result(), leads
        finally:
            with self._lock:
                line.waiting -= 1
                if not line.waiting:
                    del self._lines[name]

    def _lead(self, name: str, line: _Line[T], future: Future[T]) -> None:
        try:
            with line.reading:
                with self._lock:
                    line.next = None
                future.set_result(self._read(name))
        except BaseException as error:
            with self._lock:
                if line.next is future:
                    line.next = None
            future.set_exception(error)
