"""How long a connection of psycopg, which waits for ever, waits for an answer."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any


def limit_reading(connection: Any, seconds: float) -> None:
    """Let no answer on this connection take longer; a connection of another driver is left alone.

    A statement that is not answered in time closes the connection: its answer may still come.
    """
    if type(connection).__module__.partition(".")[0] != "psycopg":
        return
    wait = connection.wait

    def wait_for_a_while(generator: Any, *args: Any, **options: Any) -> Any:
        return wait(_until(time.monotonic() + seconds, generator, connection), *args, **options)

    connection.wait = wait_for_a_while


def _until(deadline: float, generator: Any, connection: Any) -> Generator[Any, Any, Any]:
    """The generator with which psycopg asks to be told when its socket is ready."""
    from psycopg import OperationalError

    try:
        wanted = next(generator)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > deadline:
                connection.close()
                raise OperationalError("the server does not answer: timed out")
            wanted = generator.send(ready)
    except StopIteration as end:
        return end.value
