"""A shortened run of the fuzzer; `make fuzz` has the whole."""

from __future__ import annotations

from pathlib import Path

from fuzz import Mutator, fuzz, is_exception, is_ours, settings
from stores import SharedStore
from watched import Ground, Watched


def test_mutated_frames_raise_nothing_and_disturb_nobody(
    ground: Ground, store: SharedStore, tmp_path: Path
) -> None:
    config = settings(
        async_mode=ground.async_mode,
        instance_path=str(tmp_path),
        PRESENCE_BACKEND=store.new_url(),
    )
    server = Watched(config)
    try:
        verdict = fuzz(server, frames=3000, seed=20261126)
    finally:
        server.stop()

    print(verdict)
    assert verdict.ours == []
    assert verdict.is_flat
    # It does get through to the handlers.
    assert verdict.answers > 500


def test_the_same_seed_makes_the_same_frames() -> None:
    one, other = Mutator(7), Mutator(7)

    assert [one.frame() for _ in range(500)] == [other.frame() for _ in range(500)]
    assert min(one.levels.values()) > 10


def test_an_exception_of_presence_is_told_from_those_of_the_libraries() -> None:
    head = ["ERROR:engineio.server:message handler error\n", "Traceback (most recent call last):\n"]
    library = ['  File "/x/site-packages/socketio/packet.py", line 1, in decode\n', "ValueError\n"]
    own = ['  File "/x/flask_presence/sockets.py", line 1, in _handle\n', "ValueError\n"]

    assert is_exception(head + own)
    assert not is_ours(head + own + library)
    assert is_ours(head + library + own)
    assert is_ours(["ERROR:flask_presence.sockets:The presence event enter failed\n"])
