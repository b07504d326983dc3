"""The wheel: what it holds, and that it works where nothing else is installed."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from flask_presence.socketio_client import CDN_INTEGRITY, CDN_URL

ROOT = Path(__file__).parent.parent
VENDORED = {
    "flask_presence/static/vendor/LICENSE",
    "flask_presence/static/vendor/socket.io.min.js",
}

# What a stranger's app does first: a page with the client, and what that page loads.
APP = """
import importlib.metadata, json, re
from flask import Flask, render_template_string
from flask_socketio import SocketIO
import flask_presence

app = Flask("stranger")
app.config.update(SECRET_KEY="secret", PRESENCE_BACKEND="memory://")
SocketIO(app)
flask_presence.Presence(app)

with app.test_request_context():
    page = render_template_string(
        '{% from "flask_presence/macros.html" import presence_client %}{{ presence_client() }}'
    )
local = [url for url in re.findall('src="([^"]+)"', page) if url.startswith("/")]
local.append("/presence/static/presence.mjs")
responses = {url: app.test_client().get(url) for url in local}
backends = importlib.metadata.entry_points(group="flask_presence.backends")
print(json.dumps({
    "package": flask_presence.__file__,
    "page": page,
    "status": {url: response.status_code for url, response in responses.items()},
    "backends": {entry.name: entry.load().__name__ for entry in backends},
}))
"""


def run(*command: object, **options: object) -> str:
    """What the command printed, errors included; where it fails, the test shows it."""
    result = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout as git would give it: nothing built in it, nothing brought into it."""
    ignored = shutil.ignore_patterns(
        ".*", "__pycache__", "*.egg-info", "build", "dist", "instance", "node_modules", "vendor"
    )
    return shutil.copytree(ROOT, tmp_path_factory.mktemp("source") / "project", ignore=ignored)


@pytest.fixture(scope="module")
def package_files(source: Path) -> set[str]:
    """Every file that git keeps of the package."""
    package = source / "flask_presence"
    return {str(path.relative_to(source)) for path in package.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def wheel_without_npm(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The wheel built where there is no npm, and what the build printed."""
    target = tmp_path_factory.mktemp("without_npm")
    no_programs = {**os.environ, "PATH": ""}
    output = run(
        sys.executable, "-m", "build", "--wheel", "--outdir", target, source, env=no_programs
    )
    (wheel,) = target.glob("*.whl")
    return wheel, output


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution, as for a release."""
    if shutil.which("npm") is None and "CI" not in os.environ:
        pytest.skip("npm is missing: the wheel would lack the Socket.IO client")
    target = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", target, source)
    (wheel,) = target.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment that has the wheel and what it depends on."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=True)
    python = home / "bin/python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
    return python


def run_app(python: Path, folder: Path, **environ: object) -> dict:
    """What `APP` saw, run where the checkout is out of reach."""
    (folder / "app.py").write_text(APP)
    env = {"PATH": os.environ["PATH"], **{key: str(value) for key, value in environ.items()}}
    return json.loads(run(python, "app.py", cwd=folder, env=env).splitlines()[-1])


def test_the_wheel_holds_the_package_and_the_client_and_nothing_else(
    wheel: Path, package_files: set[str]
) -> None:
    assert contents(wheel) == package_files | VENDORED
    assert {Path(name).suffix for name in package_files} >= {".js", ".mjs", ".ts", ".html"}
    assert "flask_presence/py.typed" in package_files


def test_the_client_in_the_wheel_is_the_file_that_the_cdn_serves(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        script = archive.read("flask_presence/static/vendor/socket.io.min.js")

    digest = base64.b64encode(hashlib.sha384(script).digest()).decode()

    assert f"sha384-{digest}" == CDN_INTEGRITY


def test_the_wheel_works_in_an_empty_environment(python: Path, tmp_path: Path) -> None:
    seen = run_app(python, tmp_path)

    assert Path(seen["package"]).is_relative_to(python.parent.parent)
    assert "/presence/static/vendor/socket.io.min.js" in seen["page"]
    assert "/presence/static/presence.js" in seen["page"]
    assert CDN_URL not in seen["page"]
    assert set(seen["status"].values()) == {200}
    assert seen["backends"]["memory"] == "MemoryBackend"


def test_the_wheel_brings_the_flask_command(python: Path, tmp_path: Path) -> None:
    output = run(python.with_name("flask"), "presence", "--help", cwd=tmp_path)

    assert "init-db" in output


def test_without_npm_the_wheel_is_built_with_a_warning(
    wheel_without_npm: tuple[Path, str], package_files: set[str]
) -> None:
    wheel, output = wheel_without_npm

    assert contents(wheel) == package_files
    assert re.search(r"warning: .*npm is not installed.*CDN", output)


def test_without_the_client_in_the_wheel_pages_load_it_from_the_cdn(
    wheel_without_npm: tuple[Path, str], python: Path, tmp_path: Path
) -> None:
    wheel, _ = wheel_without_npm
    package = tmp_path / "package"
    zipfile.ZipFile(wheel).extractall(package)

    seen = run_app(python, tmp_path, PYTHONPATH=package)

    assert Path(seen["package"]).is_relative_to(package)
    assert f'src="{CDN_URL}"' in seen["page"]
    assert f'integrity="{CDN_INTEGRITY}"' in seen["page"]
    assert 'crossorigin="anonymous"' in seen["page"]
    assert set(seen["status"].values()) == {200}
