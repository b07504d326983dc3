"""A server process under watch, and what a test asks it beside the sockets."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import requests
from processes import Server
from wire import PATIENCE, Wire


class Watched(Server):
    """Serves `target.py`, which tells what it did and what it keeps."""

    def _command(self, port: int) -> list[str]:
        return [sys.executable, str(Path(__file__).parent / "target.py"), str(port)]

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE, **options)

    def post(self, path: str, body: Any = None) -> Any:
        url = f"http://127.0.0.1:{self.port}{path}"
        # Also a null is a body.
        headers = {"Content-Type": "application/json"}
        answer = requests.post(url, json.dumps(body), headers=headers, timeout=PATIENCE)
        assert answer.status_code == 200, answer.text
        return answer

    def done(self) -> list[str]:
        """What the server did since this was asked last."""
        done: list[str] = self.get("/done").json()
        return done

    def kept(self) -> dict[str, int]:
        """How much the process keeps."""
        kept: dict[str, int] = self.get("/kept").json()
        return kept

    def has_logged(self, text: str) -> bool:
        return any(text in line for line in list(self.errors))


Connect = Callable[..., Wire]
Start = Callable[..., Watched]


class Ground(NamedTuple):
    """What a server stands on."""

    async_mode: str
    store: str
