"""A TCP proxy for tests: a network that stalls, is cut, or brings questions but no answers."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable


class Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, client: socket.socket, port: int) -> None:
        self.subscribes = False
        """Has the client asked Redis for events?"""
        self.received = 0
        """How many bytes the server sent."""
        self._proxy = proxy
        self._client = client
        self._server = socket.create_connection(("127.0.0.1", port), timeout=5)
        self._server.settimeout(None)
        for source, target in ((client, self._server), (self._server, client)):
            threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        is_reply = source is self._server
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if is_reply:
                    self.received += len(data)
                elif b"SUBSCRIBE" in data:
                    self.subscribes = True
                if is_reply and not self.subscribes and self._proxy.takes_bite():
                    break
                if self._proxy.lets_pass(self, is_reply=is_reply):
                    target.sendall(data)
        self.close()

    def close(self) -> None:
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Proxy:
    """Carries bytes between its own ``port`` and the server's.

    What goes wrong goes wrong for those links that ``only`` says, old and new, until `flow`.
    """

    def __init__(self, port: int) -> None:
        self.links: list[Link] = []
        self._target = port
        self._fault = ""
        self._bites = 0
        self._only: Callable[[Link], bool] = lambda link: True
        self._turned = threading.Condition()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def flow(self) -> None:
        """Let everything pass, also what is held up."""
        self._turn("", lambda link: True)

    def stall(self, only: Callable[[Link], bool] = lambda link: True) -> None:
        """Hold everything up: nobody can tell from a server that is slow."""
        self._turn("stalled", only)

    def cut(self, only: Callable[[Link], bool] = lambda link: True) -> None:
        """Close the links, and whatever comes instead of them."""
        self._turn("cut", only)
        for link in list(self.links):
            if only(link):
                link.close()

    def mute(self, only: Callable[[Link], bool] = lambda link: True) -> None:
        """Drop what the server answers: it did what it was asked, and nobody hears of it."""
        self._turn("mute", only)

    def bite(self) -> None:
        """Drop the next answer, and close its link: what was asked is done."""
        with self._turned:
            self._bites = 1

    def hang_up(self) -> None:
        """Close the links that there are; new ones may be made."""
        for link in list(self.links):
            link.close()

    def _turn(self, fault: str, only: Callable[[Link], bool]) -> None:
        with self._turned:
            self._fault, self._only = fault, only
            self._turned.notify_all()

    def takes_bite(self) -> bool:
        """Is this answer the one to drop?"""
        with self._turned:
            is_next, self._bites = self._bites > 0, 0
            return is_next

    def lets_pass(self, link: Link, *, is_reply: bool) -> bool:
        """May the next bytes of a link go on? Waits for as long as they are held up."""
        with self._turned:
            self._turned.wait_for(lambda: self._fault != "stalled" or not self._only(link))
            if not self._fault or not self._only(link):
                return True
            if self._fault == "cut":
                raise ConnectionResetError
            return not is_reply

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                try:
                    self.links.append(Link(self, client, self._target))
                except OSError:
                    client.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.flow()
        for link in self.links:
            link.close()
