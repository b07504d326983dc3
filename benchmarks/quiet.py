"""What a server process costs while its own channels are quiet and those of others are busy.

``python benchmarks/quiet.py``: one server of the test app with 50 subscribers, first with nobody
else there, then while another process changes other channels as fast as it can.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from processes import Redis, Server
from wire import Wire

from flask_presence.backends.redis import RedisBackend, connect
from flask_presence.model import Member

CHANNELS = 50


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def make_changes(url: str, seconds: float) -> None:
    """Enter and leave channels that nobody watches; print how many changes that were."""
    backend = RedisBackend(connect(url))
    made = [0] * 4
    until = time.monotonic() + seconds

    def work(number: int) -> None:
        client = f"busy{number}"
        while time.monotonic() < until:
            channel = f"/room/{1000 + made[number] % 100}"
            member = Member(channel, client, client, "{}", None)
            made[number] += len(backend.enter(member, epoch="busy", timeout=60))
            made[number] += len(backend.leave(channel, [client]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(made))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(sum(made))


def measure(server: Server, seconds: float, url: str | None) -> None:
    busy = None
    if url:
        command = [sys.executable, __file__, "--busy", url, "--seconds", str(seconds)]
        busy = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    before = cpu_seconds(server.process.pid)
    time.sleep(seconds)
    used = cpu_seconds(server.process.pid) - before
    changes = int(busy.communicate()[0]) if busy else 0
    print(
        f"{changes / seconds:8.0f} changes/s elsewhere: {used:.2f} s of CPU in {seconds:.0f} s "
        f"= {100 * used / seconds:.1f} %"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--busy", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.busy:
        make_changes(options.busy, options.seconds)
        return
    with tempfile.TemporaryDirectory() as directory:
        redis = Redis(Path(directory))
        server = Server({"instance_path": directory, "PRESENCE_BACKEND": redis.url})
        try:
            wires = [
                Wire(server.port, auth={"user": f"quiet{number}"}) for number in range(CHANNELS)
            ]
            for number, wire in enumerate(wires):
                assert wire.call("subscribe", {"channel": f"/room/{number}"})["ok"]
            for url in (None, redis.url, None, redis.url):
                measure(server, options.seconds, url)
            assert not any(wire.received("diff") for wire in wires)
        finally:
            server.stop()
            redis.stop()


if __name__ == "__main__":
    main()
