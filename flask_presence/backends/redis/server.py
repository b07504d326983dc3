"""The way to Redis: runs scripts, fails fast, and says in words what is wrong with the server."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any, NoReturn

import redis

from ...errors import BackendUnavailable
from ..stored import RESTORED_SECONDS, Damaged
from .runner import Runner

PAUSE_SECONDS = 1.0
"""After a failure the server is not asked again for this long."""

AT_ONCE = 32
"""How many requests of one process are under way: more would take turns in the server anyway, each
on a connection of its own."""

OLDEST = (6, 2)

REMEDIES = [
    (
        redis.exceptions.AuthenticationError,
        r"\bNOAUTH\b|\bWRONGPASS\b",
        "refuses the password, or wants one: write it into PRESENCE_BACKEND, redis://:PASSWORD@HOST",
    ),
    (
        redis.exceptions.NoPermissionError,
        r"\bNOPERM\b|user executing the script can't|ACL failure",
        "does not let this user run scripts on the presence keys and events: extend its ACL",
    ),
    (
        redis.exceptions.ReadOnlyError,
        r"\bREADONLY\b",
        "is a read-only replica: name its master, or use redis+sentinel://",
    ),
    (redis.exceptions.OutOfMemoryError, r"\bOOM\b", "is full: raise its maxmemory"),
    (
        redis.exceptions.BusyLoadingError,
        r"\bLOADING\b",
        "is still loading its data: it will answer soon",
    ),
]
"""What to do about an error, by its kind or, for one from inside a script, by its words."""

DAMAGE = re.compile(
    r"WRONGTYPE|attempt to |table index is|bad argument|Expected .* but found|Found too many"
    r"|Cannot serialise|a row is none|hash value is not an integer"
)
"""What a script says that meets something which no script wrote."""


class Server:
    """One Redis, as scripts see it.

    A request that fails on the way is sent once more: scripts are idempotent. What was sent but
    not executed in time is refused by the scripts themselves, as nobody waits for it any more.

    :param on_failure: called whenever the server did not do what it was asked.
    """

    def __init__(
        self,
        client: Any,
        *,
        prefix: str,
        kept: float,
        clock: Callable[[], float] | None,
        on_failure: Callable[[], None],
    ) -> None:
        options = client.connection_pool.connection_kwargs
        self.client = client
        self.events = f"{prefix}:{options.get('db') or 0}"
        """What the names of events start with: those of all databases share one space."""
        self._prefix = prefix
        self._kept = int(kept * 1000)
        self._clock = clock
        self._on_failure = on_failure
        self._patience = 2 * (options.get("socket_timeout") or 5)
        self._runner = Runner(client)
        self._begin()

    def _begin(self) -> None:
        self._name = secrets.token_urlsafe(9)
        self._numbers = count(1)
        self._ahead: float | None = None
        """Milliseconds between the server's clock and this process's."""
        self._is_checked = False
        self._run_id: str | None = None
        self.has_begun_anew = False
        """Has the server begun another run since somebody set this to false?"""
        self._restored_until = float("-inf")
        self._failing_until = float("-inf")
        self._failure = ""
        self._turns = threading.BoundedSemaphore(AT_ONCE)

    def run(self, script: str, *args: Any) -> list[Any]:
        """Run a script that may be run twice without harm.

        :raises BackendUnavailable: it is not known whether it ran.
        """
        return self._run(script, "", args)

    def run_once(self, script: str, *args: Any) -> list[Any]:
        """Run a script that, sent again, answers what it answered at first."""
        return self._run(script, f"{self._name}:{next(self._numbers)}", args)

    def set_clock(self, now: int) -> None:
        """Take the server's clock, in milliseconds, as the one to measure patience by."""
        self._ahead = now - time.monotonic() * 1000

    @property
    def is_failing(self) -> bool:
        """Is it no use to ask just now?"""
        return time.monotonic() < self._failing_until

    def doubt(self) -> None:
        """The server may be away, or another one: whoever asks next waits for one answer, not for
        two, and looks."""
        self._is_checked = False

    def check(self) -> None:
        """Look whether the server will do, and does.

        :raises BackendUnavailable: it will not; says why, and what to do.
        """
        info = self._look()
        if 0 < info.get("maxmemory", 0) <= info.get("used_memory", 0):
            raise BackendUnavailable(
                f"The presence store {self.where} is full: raise its maxmemory."
            )
        # A script that would write, for a worker that there is not.
        self.run("renew", "", 0, 0, "")

    def _look(self) -> dict[str, Any]:
        try:
            info = self._ask()
        except redis.RedisError as error:
            self._fail(error)
        problem = _problem_of(info)
        if problem:
            # Where a name or a sentinel leads, another server may be next time.
            self.client.connection_pool.disconnect()
            self._refuse(problem)
        self._is_checked = True
        self._note_run(info)
        return info

    def _note_run(self, info: dict[str, Any]) -> None:
        run_id = info.get("run_id")
        if self._run_id not in (None, run_id):
            self.has_begun_anew = True
        self._run_id = run_id
        if info.get("rdb_last_load_keys_loaded") or info.get("aof_enabled"):
            uptime = info.get("uptime_in_seconds", 0)
            self._restored_until = time.monotonic() + RESTORED_SECONDS - uptime

    @property
    def is_restored(self) -> bool:
        """Did it start from what it had saved, and lately?"""
        return time.monotonic() < self._restored_until

    def _ask(self) -> dict[str, Any]:
        self._runner.give_back()
        seconds, microseconds = self.client.time()
        self.set_clock(seconds * 1000 + microseconds // 1000)
        try:
            found: dict[str, Any] = self.client.info()
        except redis.exceptions.NoPermissionError:
            # Whoever restricts us so far answers for what the server is.
            return {}
        return found

    def _run(self, script: str, operation: str, args: tuple[Any, ...]) -> list[Any]:
        with self._turns:
            return self._run_now(script, operation, args)

    def _run_now(self, script: str, operation: str, args: tuple[Any, ...]) -> list[Any]:
        if self.is_failing:
            raise BackendUnavailable(self._failure)
        if not self._is_checked:
            self._look()
        try:
            reply = self._send_twice(script, operation, args)
            if reply[0] == "late":
                # The server's clock was set, or this process could not breathe.
                self.set_clock(int(reply[1]))
                reply = self._send_twice(script, operation, args)
        except redis.RedisError as error:
            self._fail(error)
        if reply[0] == "late":
            self._refuse("answers too late")
        return reply

    def _send_twice(self, script: str, operation: str, args: tuple[Any, ...]) -> list[Any]:
        # Both times with the same latest moment: whoever asks waits no longer for the second.
        words = (*self._common(operation), *args)
        try:
            return self._send(script, words)
        except (redis.ConnectionError, redis.TimeoutError):
            # It may be another server by now, or another run of this one.
            self.doubt()
            self._runner.give_back()
            return self._send(script, words)

    def _common(self, operation: str) -> tuple[Any, ...]:
        """What every script is told at its head."""
        clock, latest = "", ""
        if self._clock is not None:
            clock = str(int(self._clock() * 1000))
        elif self._ahead is not None:
            latest = str(int(time.monotonic() * 1000 + self._ahead + self._patience * 1000))
        return self._prefix, clock, latest, self._kept, operation, self.events

    def _send(self, script: str, words: tuple[Any, ...]) -> list[Any]:
        answer = self._runner.run(script, words)
        # A renewal brings commands, of which one that is none must not hide the others.
        errors = "replace" if script == "renew" else "strict"
        try:
            reply = _text(answer, errors)
        except UnicodeDecodeError as error:
            raise Damaged(f"The presence store {self.where} holds what is no text.") from error
        # One that has no more to say than this says it alone.
        return reply if isinstance(reply, list) else ["ok", reply]

    def _fail(self, error: redis.RedisError) -> NoReturn:
        remedies = (
            remedy
            for kind, words, remedy in REMEDIES
            if isinstance(error, kind) or re.search(words, str(error))
        )
        problem = next(remedies, None)
        if problem is None and isinstance(error, redis.ResponseError) and DAMAGE.search(str(error)):
            # The server is well, and nobody has to be spared.
            raise Damaged(f"The presence store {self.where} holds what is none: {error}") from error
        problem = problem or f"failed: {error}".rstrip(".")
        if isinstance(error, (redis.ConnectionError, redis.TimeoutError)):
            # Another server may answer next time.
            self._is_checked = False
            self._refuse(problem, error)
        if "is full" not in problem:
            # A full one still renews leases, and so nobody has to be spared.
            self._on_failure()
        raise BackendUnavailable(f"The presence store {self.where} {problem}.") from error

    def _refuse(self, problem: str, error: Exception | None = None) -> NoReturn:
        """Fail, and fail fast for a moment."""
        self._on_failure()
        self._failure = f"The presence store {self.where} {problem}."
        self._failing_until = time.monotonic() + PAUSE_SECONDS
        raise BackendUnavailable(self._failure) from error

    @property
    def where(self) -> str:
        """The server's address, for people."""
        pool = self.client.connection_pool
        options = pool.connection_kwargs
        if hasattr(pool, "service_name"):
            return f"redis+sentinel://…/{pool.service_name}"
        if "path" in options:
            return f"unix://{options['path']}"
        return f"redis://{options.get('host', 'localhost')}:{options.get('port', 6379)}"

    def after_fork(self) -> None:
        """Forget the parent's connections, and its name: its operations are not ours."""
        self._runner.after_fork()
        self._begin()

    def close(self) -> None:
        self.client.close()


def _problem_of(info: dict[str, Any]) -> str | None:
    """Why a server with this ``INFO`` will not do."""
    version = str(info.get("redis_version", "999"))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST:
        return f"is Redis {version}: presence needs 6.2 or later"
    if str(info.get("cluster_enabled", 0)) == "1":
        return "is a Redis Cluster, which cannot run the scripts: name a Redis that is none"
    if info.get("role") == "slave" and info.get("slave_read_only"):
        return "is a read-only replica: name its master, or use redis+sentinel://"
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory") and policy != "noeviction":
        return (
            f"may evict keys (maxmemory-policy {policy}): set noeviction, or give presence a "
            "Redis of its own"
        )
    return None


def _text(reply: Any, errors: str) -> Any:
    if isinstance(reply, bytes):
        return reply.decode(errors=errors)
    if isinstance(reply, list):
        return [_text(item, errors) for item in reply]
    return reply
