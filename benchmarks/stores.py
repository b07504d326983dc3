"""Stores for a run: each is started on a free port, and gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from processes import Redis, free_port
from sqlalchemy import create_engine, exc
from wire import eventually


@contextmanager
def redis() -> Iterator[str]:
    """A Redis server, by its URL."""
    with tempfile.TemporaryDirectory() as directory:
        server = Redis(Path(directory))
        try:
            yield server.url
        finally:
            server.stop()


@contextmanager
def sqlite() -> Iterator[str]:
    """A file of SQLite, by its URL."""
    with tempfile.TemporaryDirectory() as directory:
        yield f"sqlite:///{directory}/presence.sqlite3"


@contextmanager
def postgresql() -> Iterator[str]:
    """A PostgreSQL server, by its URL."""
    initdb, server, port = _program("initdb"), _program("postgres"), free_port()
    with _home("postgres") as (home, user):
        _run([initdb, "-D", home, "-U", "presence", "--auth=trust", "--no-sync"], user)
        command = [server, "-D", home, "-p", str(port), "-h", "127.0.0.1", "-c", "fsync=off"]
        url = f"postgresql+psycopg://presence@127.0.0.1:{port}/postgres"
        with _served([*command, "-c", "unix_socket_directories="], user, url):
            yield url


@contextmanager
def mariadb() -> Iterator[str]:
    """A MariaDB server, by its URL."""
    install, server, port = _program("mariadb-install-db"), _program("mariadbd"), free_port()
    with _home("mysql") as (home, user):
        options = ["--no-defaults", f"--datadir={home}"]
        _run([install, *options, "--auth-root-authentication-method=normal"], user)
        command = [server, *options, f"--port={port}", "--bind-address=127.0.0.1"]
        url = f"mysql+pymysql://root@127.0.0.1:{port}/test"
        with _served([*command, f"--socket={home}/socket"], user, url):
            yield url


STORES: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "sqlite": sqlite,
    "postgresql": postgresql,
    "mariadb": mariadb,
    "redis": redis,
}


def _program(name: str) -> str:
    """The path of a program; Debian hides those of PostgreSQL."""
    hidden = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    path = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin", *hidden]))
    if path is None:
        raise SystemExit(f"{name} is missing: install it, or give the --url of a running store.")
    return path


@contextmanager
def _home(user: str) -> Iterator[tuple[str, str | None]]:
    """A folder of a server's own, and the user it runs as: not root, whom servers refuse."""
    with tempfile.TemporaryDirectory() as home:
        if os.geteuid() != 0:
            yield home, None
        else:
            shutil.chown(home, user)
            yield home, user


def _run(command: list[str], user: str | None) -> None:
    subprocess.run(command, user=user, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def _served(command: list[str], user: str | None, url: str) -> Iterator[None]:
    process = subprocess.Popen(
        command, user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        eventually(lambda: _answers(url), patience=60)
        yield
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    engine = create_engine(url)
    try:
        engine.connect().close()
    except exc.OperationalError:
        return False
    finally:
        engine.dispose()
    return True
