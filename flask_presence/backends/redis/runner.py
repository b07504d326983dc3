"""Runs scripts on connections of the client's pool, with as little ado as a script deserves."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import Parameter, signature
from typing import Any

import redis

from .scripts import load_scripts


class Runner:
    """Sends scripts, each on a connection that nobody else uses meanwhile.

    What the client does around any command costs more than most scripts do, and taking a
    connection from its pool as much as packing the command. So whoever is done leaves the
    connection for who comes next.
    """

    def __init__(self, client: Any) -> None:
        self._pool = client.connection_pool
        self._scripts = load_scripts(client)
        self._idle: list[Any] = []

    def run(self, script: str, args: Sequence[str | int]) -> Any:
        """The answer to a script, as bytes, numbers and lists of them.

        :raises redis.RedisError: as the client raises it. Nothing is sent again.
        """
        connection = self._waiting() or _taken_from(self._pool)
        try:
            answer = self._ask(connection, script, args)
        except redis.ResponseError:
            self._idle.append(connection)
            raise
        except BaseException:
            # An answer may still arrive, and is not the next one's.
            connection.disconnect()
            self._pool.release(connection)
            raise
        self._idle.append(connection)
        return answer

    def _waiting(self) -> Any:
        """A connection that somebody left, or ``None``; threads may take one at the same time."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _ask(self, connection: Any, script: str, args: Sequence[str | int]) -> Any:
        sha = self._scripts[script].sha
        command = packed(["EVALSHA", sha, 0, *args])
        try:
            return _answer(connection, command)
        except redis.exceptions.NoScriptError:
            _answer(connection, packed(["SCRIPT", "LOAD", self._scripts[script].script]))
        return _answer(connection, command)

    def give_back(self) -> None:
        """Leave connections to the pool, which looks whether they still hold."""
        while connection := self._waiting():
            self._pool.release(connection)

    def after_fork(self) -> None:
        """Forget the parent's connections."""
        self._idle = []


def packed(words: Sequence[str | int]) -> bytes:
    """A command as it is sent."""
    lines = [f"*{len(words)}"]
    for word in map(str, words):
        size = len(word) if word.isascii() else len(word.encode())
        lines.append(f"${size}\r\n{word}")
    lines.append("")
    return "\r\n".join(lines).encode()


def _answer(connection: Any, command: bytes) -> Any:
    connection.send_packed_command([command])
    return connection.read_response(disable_decoding=True)


def _taken_from(pool: Any) -> Any:
    """A connection of the pool; until redis-py 5.3 it wants to know for which command."""
    wanted = signature(pool.get_connection).parameters.get("command_name")
    is_old = wanted is not None and wanted.default is Parameter.empty
    return pool.get_connection("EVALSHA") if is_old else pool.get_connection()
