"""Database servers of the tests' own, which care for speed and not for a power cut."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import sqlalchemy as sa
from processes import free_port, require
from wire import PATIENCE, eventually

IS_ROOT = os.geteuid() == 0
ELSEWHERE = ["/usr/sbin", *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")))]
"""Where Debian keeps servers, beside the PATH."""


class Database(ABC):
    """A server on a free port, with its data in a folder of its own."""

    _user: Sequence[str] = ()
    """Who runs it, as options of ``setpriv``."""

    _stopping = signal.SIGTERM

    waiting: str
    """The query that tells how many transactions wait for a lock."""

    def __init__(self) -> None:
        self.port = free_port()
        self._numbers = count(1)
        self._folder = Path(tempfile.mkdtemp(prefix="presence-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._thawing: threading.Timer | None = None
        try:
            self._initialise()
            self.start()
        except BaseException:
            self.remove()
            raise

    @abstractmethod
    def url(self, name: str) -> str:
        """The SQLAlchemy URL of a database on this server."""

    @property
    @abstractmethod
    def admin_url(self) -> str:
        """The URL of a database that is always there."""

    @abstractmethod
    def lock_statement(self, tables: Sequence[str]) -> str:
        """What keeps all others from these tables while the connection is open."""

    @abstractmethod
    def guest(self, name: str) -> list[str]:
        """What makes a user ``guest``, who may read and write this database's tables, no more."""

    @abstractmethod
    def _initialise(self) -> None:
        """Fill the folder."""

    @abstractmethod
    def _command(self) -> list[str]:
        """What serves the folder, in the foreground."""

    def new_database(self) -> str:
        """Make an empty database, and give its URL."""
        name = f"presence_{next(self._numbers)}"
        with self.administering() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        return self.url(name)

    @contextmanager
    def administering(self) -> Iterator[sa.Connection]:
        engine = sa.create_engine(
            self.admin_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
        )
        with engine.connect() as connection:
            yield connection

    def start(self) -> None:
        self.began = time.monotonic()
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                self._as_user(self._command()),
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=self._environment,
            )
        eventually(self._answers, patience=PATIENCE * 3)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
        try:
            with self.administering():
                return True
        except sa.exc.OperationalError:
            return False

    def stop(self) -> None:
        """Stop the server in good order, but without waiting for its clients."""
        self._end(self._stopping)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(PATIENCE * 3)

    def remove(self) -> None:
        self._end(signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)

    def freeze(self, most: float = 2 * PATIENCE) -> None:
        """Halt all the server's processes: connections stay open, and are not answered.

        :param most: after so many seconds it thaws by itself, lest a test that waits for an answer
            hang where it should fail.
        """
        self._thawing = threading.Timer(most, self.thaw)
        self._thawing.start()
        assert self._process is not None
        _halt(self._process.pid)
        # It makes no more of these now.
        for pid in self._pids()[1:]:
            _halt(pid)

    def thaw(self) -> None:
        if self._thawing is not None:
            self._thawing.cancel()
        for pid in self._pids():
            # One that served a single connection may have ended with it.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _pids(self) -> list[int]:
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def _run(self, *command: str) -> None:
        subprocess.run(
            self._as_user(list(command)),
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=self._folder,
            env=self._environment,
        )

    @property
    def _environment(self) -> dict[str, str]:
        # A MariaDB that starts deletes what others have in the folder for temporary tables.
        return os.environ | {"TMPDIR": str(self._folder)}

    def _as_user(self, command: list[str]) -> list[str]:
        """The command, as somebody who may run it; it ends with this process, however that ends."""
        setpriv = shutil.which("setpriv")
        return [setpriv, "--pdeathsig", "KILL", *self._user, *command] if setpriv else command


def _halt(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    threads = list(Path(f"/proc/{pid}/task").glob("*/stat"))
    eventually(lambda: all(map(_is_still, threads)))


def _is_still(thread: Path) -> bool:
    """Is it halted, or was it about to end anyway?"""
    with suppress(FileNotFoundError, ProcessLookupError):
        return thread.read_text().rpartition(")")[2].split()[0] in "TZX"
    return True


class PostgreSQL(Database):
    """Sorts by the rules of a language, and makes transactions serializable unless told."""

    # It refuses to run as root.
    _user = ("--reuid=postgres", "--regid=postgres", "--clear-groups") if IS_ROOT else ()
    _stopping = signal.SIGINT
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"

    @property
    def admin_url(self) -> str:
        return self.url("postgres")

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{name}"

    def lock_statement(self, tables: Sequence[str]) -> str:
        return f"LOCK TABLE {', '.join(tables)} IN ACCESS EXCLUSIVE MODE"

    def guest(self, name: str) -> list[str]:
        # Nobody but its owner makes tables in a new database.
        return ["CREATE USER guest"]

    def _initialise(self) -> None:
        initdb = require("initdb", ELSEWHERE)
        if IS_ROOT:
            shutil.chown(self._folder, "postgres", "postgres")
        options = "--no-sync -A trust -U postgres -E UTF8 --locale C.UTF-8"
        language = "--locale-provider icu --icu-locale en-US"
        self._run(initdb, "-D", f"{self._folder}/data", *options.split(), *language.split())
        (self._folder / "data" / "pg_hba.conf").write_text(
            "host all stranger 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"
        )

    def _command(self) -> list[str]:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": 300,
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "default_transaction_isolation": "serializable",
        }
        options = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
        return [require("postgres", ELSEWHERE), "-D", f"{self._folder}/data", *options]


class MariaDB(Database):
    """Takes ``A`` for ``a``, knows no emoji and makes transactions serializable, unless told."""

    waiting = (
        "SELECT variable_value + 0 FROM information_schema.global_status "
        "WHERE variable_name = 'INNODB_ROW_LOCK_CURRENT_WAITS'"
    )

    @property
    def admin_url(self) -> str:
        return self.url("mysql")

    def url(self, name: str) -> str:
        # Else PyMySQL reads all certificates of the machine for each connection.
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/{name}?ssl_disabled=true"

    def lock_statement(self, tables: Sequence[str]) -> str:
        return "LOCK TABLES " + ", ".join(f"{table} WRITE" for table in tables)

    def guest(self, name: str) -> list[str]:
        rights = "SELECT, INSERT, UPDATE, DELETE"
        return ["CREATE USER guest", f"GRANT {rights} ON {name}.* TO guest"]

    def _initialise(self) -> None:
        self._run(
            require("mariadb-install-db", ELSEWHERE),
            "--no-defaults",
            f"--datadir={self._folder}/data",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            *self._options(),
        )

    def _command(self) -> list[str]:
        return [
            require("mariadbd", ELSEWHERE),
            "--no-defaults",
            *self._options(),
            f"--datadir={self._folder}/data",
            f"--socket={self._folder}/socket",
            f"--pid-file={self._folder}/pid",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--max-connections=300",
            "--innodb-flush-method=nosync",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-doublewrite=0",
            "--innodb-buffer-pool-size=64M",
            "--character-set-server=latin1",
            "--transaction-isolation=SERIALIZABLE",
        ]

    def _options(self) -> list[str]:
        return ["--user=root"] if IS_ROOT else []
