"""A client without WebSocket: long-polling over plain HTTP, packet for packet."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import requests
from wire import PATIENCE

SEPARATOR = "\x1e"


class Polling:
    """One connection to the presence namespace by Engine.IO's long-polling."""

    def __init__(self, port: int, user: str | None = None) -> None:
        self._http = requests.Session()
        self._url = f"http://127.0.0.1:{port}/socket.io/?EIO=4&transport=polling"
        opened = self._http.get(self._url, timeout=PATIENCE)
        self._url += "&sid=" + json.loads(opened.text[1:])["sid"]
        self._arrived: list[tuple[str, Any]] = []
        self._next = 0
        self.post("40/presence," + (json.dumps({"user": user}) if user else ""))
        self.client_id = self._await("40")["sid"]

    def post(self, *packets: str) -> None:
        body = SEPARATOR.join(packets).encode()
        answer = self._http.post(self._url, data=body, timeout=PATIENCE)
        assert (answer.status_code, answer.text) == (200, "OK")

    def call(self, event: str, payload: Any = None) -> Any:
        self._next += 1
        self.post(f"42/presence,{self._next}{json.dumps([event, payload])}")
        return self._await(f"43 {self._next}")[0]

    def wait_for(self, event: str) -> Any:
        return self._await("42", lambda data: data[0] == event)[1]

    def received(self, event: str) -> list[Any]:
        return [data[1] for kind, data in self._arrived if kind == "42" and data[0] == event]

    def close(self) -> None:
        self._http.close()

    def _await(self, kind: str, match: Callable[[Any], bool] = lambda data: True) -> Any:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            for index, (arrived, data) in enumerate(self._arrived):
                if arrived == kind and match(data):
                    return self._arrived.pop(index)[1]
            self._poll()
        raise AssertionError(f"no {kind} among {self._arrived}")

    def _poll(self) -> None:
        body = self._http.get(self._url, timeout=PATIENCE * 3).content.decode()
        for packet in body.split(SEPARATOR):
            if packet == "2":
                self.post("3")
                continue
            kind, _, rest = packet.partition("/presence,")
            number, start = "", rest.find("[")
            if kind == "43":
                number, rest = " " + rest[:start], rest[start:]
            self._arrived.append((kind + number, json.loads(rest) if rest else None))
