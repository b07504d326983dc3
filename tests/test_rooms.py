"""The rooms of python-socketio, which several threads enter and leave at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from bidict import bidict
from flask import Flask

from flask_presence import Presence

NAMESPACE, ROOM = "/presence", "presence:full:/room/1"


def test_who_enters_a_room_while_the_last_one_leaves_is_in_it(
    make_app: Callable[..., tuple[Flask, Presence]],
) -> None:
    app, _ = make_app()
    manager = app.extensions["socketio"].server.manager
    for sid in ("ada", "bob"):
        manager.basic_enter_room(sid, NAMESPACE, None, eio_sid=f"socket of {sid}")
    armed: list[bool] = []
    entering = threading.Thread(target=manager.basic_enter_room, args=("bob", NAMESPACE, ROOM))

    class Room(bidict[str, Any]):
        def __len__(self) -> int:
            found = super().__len__()
            if armed and not found and not entering.ident:
                entering.start()
                # Where nothing keeps it from entering, it has entered by now.
                entering.join(0.2)
            return found

    manager.rooms[NAMESPACE][ROOM] = Room({"ada": "socket of ada"})

    armed.append(True)
    manager.basic_leave_room("ada", NAMESPACE, ROOM)
    entering.join()

    assert [sid for sid, _ in manager.get_participants(NAMESPACE, ROOM)] == ["bob"]
