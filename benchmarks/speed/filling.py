"""Fills stores with many members, by the verbs that processes use themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator

from flask_presence.backends.base import Backend, Key, chunks
from flask_presence.model import Member

EPOCH = "AAAAAAAAAAAA"


def members_of(channel: str, numbers: range) -> Iterator[Member]:
    """Members whose ids and info are about as long as real ones."""
    for number in numbers:
        user = f"user{number:08}"
        yield Member(channel, f"client{number:014}", user, json.dumps({"name": user}))


def fill(
    backend: Backend,
    number: int,
    *,
    channels: int = 1,
    timeout: float | None = None,
    worker: str = "filling",
) -> list[str]:
    """Put so many members into channels, each in one: the names of the channels.

    :param timeout: they are held by a deadline so far ahead, else by the worker.
    """
    each = number // channels
    names = [f"/filled/{index}" for index in range(channels)]
    backend.renew(worker, 3600, create=True)
    keys: list[Key] = []
    for index, name in enumerate(names):
        members = list(members_of(name, range(index * each, (index + 1) * each)))
        for some in chunks(members):
            backend.hold(name, some, epoch=EPOCH, worker=worker)
        keys += [Key(name, member.client_id) for member in members]
    if timeout is not None:
        backend.release(worker, keys, after=timeout)
    return names
