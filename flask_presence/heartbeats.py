"""Answers heartbeats where they arrive, before Socket.IO makes a thread for each of them.

A heartbeat is most of what clients send while nobody moves, and asks no store. So it is taken from
Engine.IO's own ``message`` event; all else goes the way of every packet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import socketio
from socketio.packet import Packet

EVENT = '["heartbeat"'
MAX_DIGITS = 15


class Heartbeats:
    """Reads and writes the packets of one event of one namespace.

    What is not plainly such a packet, though it may mean the same, is left to Socket.IO.

    :param answer: what a client is acknowledged with, by its session id and its arguments;
        ``not_handled``: with nothing.
    """

    def __init__(self, server: socketio.Server, namespace: str, answer: Callable[..., Any]) -> None:
        self._server = server
        self._namespace = namespace
        self._space = "" if namespace == "/" else f"{namespace},"
        self._start = f"2{self._space}"
        self._answer = answer

    def register(self) -> None:
        """Look at each message first, where clients speak JSON."""
        if self._server.packet_class is Packet:
            self._pass_on = self._server.eio.handlers["message"]
            self._server.eio.on("message", self._receive)

    def _receive(self, eio_sid: str, data: Any) -> None:
        if not (isinstance(data, str) and data.startswith(self._start)):
            self._pass_on(eio_sid, data)
            return
        number, _, rest = data[len(self._start) :].partition(EVENT)
        sid = self._server.manager.sid_from_eio_sid(eio_sid, self._namespace)
        if not (_is_number(number) and self._is_connected(sid)):
            self._pass_on(eio_sid, data)
            return
        _, *args = self._server.packet_class.json.loads(EVENT + rest)
        answer = self._answer(sid, *args)
        if answer is not self._server.not_handled:
            text = self._server.packet_class.json.dumps([answer])
            self._server.eio.send(eio_sid, f"3{self._space}{number}{text}")

    def _is_connected(self, sid: str | None) -> bool:
        return bool(self._server.manager.is_connected(sid, self._namespace))


def _is_number(text: str) -> bool:
    """Is this how a client counts its acknowledgements? Others may be what Socket.IO refuses."""
    return text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS
