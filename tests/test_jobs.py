"""The scheduled work: by a scheduler of ours or one that is given, and on time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from flask import Flask
from flask_socketio import SocketIO
from named import named
from wire import PATIENCE

from flask_presence import BackendUnavailable, ChannelConfig, Presence, jobs, signals
from flask_presence.backends.memory import MemoryBackend
from flask_presence.jobs import Jobs
from flask_presence.settings import Settings

MakeApp = Callable[..., tuple[Flask, Presence]]

PRUNE = "flask_presence.prune"


class StubTracker:
    """Counts, and raises what it is told to."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.pruned = threading.Semaphore(0)
        self.times = 0

    def prune(self) -> list[Any]:
        self.times += 1
        self.pruned.release()
        if self.error is not None:
            raise self.error
        return []

    def prune_channels(self) -> int:
        self.prune()
        return 0


class Monotonic:
    """Stands in for the module `time`: its clock moves on when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def scheduler() -> Iterator[BackgroundScheduler]:
    """An app's own scheduler, not started."""
    scheduler = BackgroundScheduler(timezone=timezone.utc)
    yield scheduler
    if scheduler.running:
        scheduler.shutdown()


def jobs_of(tracker: StubTracker, **config: Any) -> Jobs:
    return Jobs(tracker, Settings.read(config))  # type: ignore[arg-type]  # a stub


def app_with(scheduler: Any, tmp_path: Any, **config: Any) -> tuple[Flask, Presence]:
    """An app whose `Presence` was given a scheduler."""
    app = Flask(__name__, instance_path=str(tmp_path))
    app.config.update({"PRESENCE_BACKEND": "memory://"} | config)
    SocketIO(app, async_mode="threading")
    return app, Presence(app, scheduler=scheduler)


# A given scheduler


def test_a_given_scheduler_gets_the_job_and_is_not_started(
    scheduler: BackgroundScheduler, tmp_path: Any
) -> None:
    app_with(scheduler, tmp_path, PRESENCE_PRUNE_INTERVAL=7)

    job = scheduler.get_job(PRUNE)

    assert job is not None
    assert job.trigger.interval == timedelta(seconds=7)
    assert not scheduler.running


def test_a_given_scheduler_may_be_running(scheduler: BackgroundScheduler, tmp_path: Any) -> None:
    scheduler.start()

    app_with(scheduler, tmp_path)

    assert scheduler.get_job(PRUNE) is not None


def test_a_given_scheduler_is_not_stopped(scheduler: BackgroundScheduler, tmp_path: Any) -> None:
    scheduler.start()
    app, _ = app_with(scheduler, tmp_path)

    app.extensions["presence"].stop()

    assert scheduler.running


def test_a_given_scheduler_is_not_started_by_the_background_work(
    scheduler: BackgroundScheduler, tmp_path: Any
) -> None:
    app, _ = app_with(scheduler, tmp_path)

    app.extensions["presence"].tracker.start()

    assert not scheduler.running
    app.extensions["presence"].stop()


def test_with_a_given_scheduler_there_is_no_other(
    scheduler: BackgroundScheduler, tmp_path: Any
) -> None:
    app, _ = app_with(scheduler, tmp_path)
    before = set(threading.enumerate())

    app.extensions["presence"].tracker.start()

    names = {thread.name for thread in set(threading.enumerate()) - before}
    assert "APScheduler" not in names
    app.extensions["presence"].stop()


def test_a_job_is_never_missed_never_piled_up_and_never_twice_at_once(
    scheduler: BackgroundScheduler,
) -> None:
    jobs_of(StubTracker()).add_to(scheduler)

    for job in scheduler.get_jobs():
        assert (job.misfire_grace_time, job.coalesce, job.max_instances) == (None, True, 1)


def test_the_app_s_own_jobs_keep_their_executor(scheduler: BackgroundScheduler) -> None:
    jobs_of(StubTracker()).add_to(scheduler)
    mine = scheduler.add_job(print, "interval", seconds=60, id="mine")

    job = scheduler.get_job(PRUNE)

    assert job.executor != mine.executor


def test_a_scheduler_whose_only_thread_is_busy_prunes_all_the_same(
    scheduler: BackgroundScheduler,
) -> None:
    scheduler.add_executor("threadpool", "default", max_workers=1)
    done, busy, tracker = threading.Event(), threading.Event(), StubTracker()
    scheduler.add_job(lambda: busy.set() or done.wait(PATIENCE))
    jobs_of(tracker, PRESENCE_PRUNE_INTERVAL=0.05).add_to(scheduler)
    scheduler.start()
    assert busy.wait(PATIENCE)

    pruned = tracker.pruned.acquire(timeout=PATIENCE)

    assert pruned
    done.set()


def test_an_interval_of_zero_schedules_none(scheduler: BackgroundScheduler, tmp_path: Any) -> None:
    app_with(scheduler, tmp_path, PRESENCE_PRUNE_INTERVAL=0)

    assert scheduler.get_jobs() == []


def test_an_interval_of_zero_starts_no_scheduler() -> None:
    before = set(threading.enumerate())

    made = jobs_of(StubTracker(), PRESENCE_PRUNE_INTERVAL=0)
    made.start("threading")
    made.check()
    made.stop()

    assert set(threading.enumerate()) <= before


# Running


@pytest.fixture
def started() -> Iterator[Callable[..., Jobs]]:
    made: list[Jobs] = []

    def start(tracker: StubTracker, **config: Any) -> Jobs:
        made.append(jobs_of(tracker, **config))
        made[-1].start("threading")
        return made[-1]

    yield start
    for each in made:
        each.stop()


def test_our_own_scheduler_prunes_every_interval(started: Callable[..., Jobs]) -> None:
    tracker = StubTracker()
    began = time.monotonic()

    started(tracker, PRESENCE_PRUNE_INTERVAL=0.1)

    assert tracker.pruned.acquire(timeout=PATIENCE)
    assert tracker.pruned.acquire(timeout=PATIENCE)
    assert time.monotonic() - began >= 0.19


@pytest.mark.parametrize(
    "error", [BackendUnavailable("the store is away"), RuntimeError("something else")], ids=named
)
def test_a_job_that_fails_is_logged_and_runs_again(
    started: Callable[..., Jobs], caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    tracker = StubTracker()
    tracker.error = error

    started(tracker, PRESENCE_PRUNE_INTERVAL=0.05)

    assert tracker.pruned.acquire(timeout=PATIENCE)
    assert tracker.pruned.acquire(timeout=PATIENCE)
    assert str(error) in caplog.text
    assert any(record.name.startswith("flask_presence") for record in caplog.records)


def test_a_run_that_goes_well_fills_no_log(
    started: Callable[..., Jobs], caplog: pytest.LogCaptureFixture
) -> None:
    tracker = StubTracker()
    caplog.set_level(logging.INFO, "apscheduler.executors")

    started(tracker, PRESENCE_PRUNE_INTERVAL=0.05)
    for _ in range(3):
        assert tracker.pruned.acquire(timeout=PATIENCE)

    assert [record for record in caplog.records if record.name.startswith("apscheduler.exec")] == []


def test_a_due_member_is_ended_in_a_running_app_and_the_diff_is_sent(serve: Any, dial: Any) -> None:
    port, app, presence = serve(
        PRESENCE_TIMEOUT=0.5, PRESENCE_HEARTBEAT_INTERVAL=0.2, PRESENCE_PRUNE_INTERVAL=0.1
    )
    reasons: list[Any] = []

    def left(sender: Any, channel: str, user_id: str, change: Any) -> None:
        reasons.append((user_id, change.reason))

    wire = dial(port)
    wire.call("subscribe", {"channel": "/room/1"})
    with signals.user_left.connected_to(left, sender=app):
        with app.app_context():
            presence.channel("/room/1").enter("7", client_id="import")

        diff = wire.wait_for("diff", lambda diff: diff["count"] == 0)

    assert [entry["id"] for entry in diff["left"]] == ["7"]
    assert reasons == [("7", "timeout")]


def test_a_given_scheduler_ends_a_due_member(scheduler: BackgroundScheduler, tmp_path: Any) -> None:
    moment = [1000.0]
    app, presence = app_with(
        scheduler,
        tmp_path,
        PRESENCE_BACKEND=MemoryBackend(clock=lambda: moment[0]),
        PRESENCE_PRUNE_INTERVAL=0.05,
    )
    presence.channel_config("room")(lambda name: ChannelConfig(public=True))
    gone = threading.Event()

    def left(sender: Any, **about: Any) -> None:
        gone.set()

    with signals.user_left.connected_to(left, sender=app):
        with app.app_context():
            presence.channel("/room/1").enter("7", client_id="import")
        moment[0] += 61
        scheduler.start()

        assert gone.wait(PATIENCE)


# A wall clock that stepped back


@pytest.fixture
def monotonic(monkeypatch: pytest.MonkeyPatch) -> Monotonic:
    clock = Monotonic()
    monkeypatch.setattr(jobs, "time", clock)
    return clock


def put_off(scheduler: BackgroundScheduler) -> None:
    """What a step back of the wall clock by an hour amounts to."""
    ahead = datetime.now(timezone.utc) + timedelta(hours=1)
    for job in scheduler.get_jobs():
        job.modify(next_run_time=ahead)


def test_after_the_wall_clock_stepped_back_the_scheduler_is_woken(
    scheduler: BackgroundScheduler, monotonic: Monotonic, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = StubTracker()
    made = jobs_of(tracker, PRESENCE_PRUNE_INTERVAL=600)
    made.add_to(scheduler)
    scheduler.start()
    put_off(scheduler)
    made.check()
    assert not tracker.pruned.acquire(blocking=False)

    monotonic.now += 3600
    made.check()

    assert tracker.pruned.acquire(timeout=PATIENCE)
    assert caplog.records


def test_a_scheduler_in_time_is_left_alone(
    scheduler: BackgroundScheduler, monotonic: Monotonic
) -> None:
    tracker = StubTracker()
    made = jobs_of(tracker, PRESENCE_PRUNE_INTERVAL=600)
    made.add_to(scheduler)
    scheduler.start()
    before = scheduler.get_job(PRUNE).next_run_time

    monotonic.now += 600
    made.check()
    made.prune()
    monotonic.now += 600
    made.check()

    assert scheduler.get_job(PRUNE).next_run_time == before


def test_a_scheduler_that_begins_late_is_not_taken_for_one_that_missed_its_time(
    monotonic: Monotonic, caplog: pytest.LogCaptureFixture
) -> None:
    made = jobs_of(StubTracker(), PRESENCE_PRUNE_INTERVAL=600)
    monotonic.now += 3600

    made.start("threading")
    made.check()
    made.stop()

    assert caplog.records == []


def test_a_scheduler_that_its_owner_has_not_started_is_left_alone(
    scheduler: BackgroundScheduler, monotonic: Monotonic
) -> None:
    made = jobs_of(StubTracker())
    made.add_to(scheduler)
    monotonic.now += 3600

    made.check()

    assert not scheduler.running


def test_the_background_work_looks_at_the_scheduler_with_each_renewal(
    make_app: MakeApp, monotonic: Monotonic
) -> None:
    app, _ = make_app(PRESENCE_WORKER_TIMEOUT=0.3, PRESENCE_PRUNE_INTERVAL=600)
    pruned = threading.Event()
    state = app.extensions["presence"]
    state.tracker.prune = lambda: pruned.set() or []
    state.tracker.start()

    monotonic.now += 3600

    assert pruned.wait(PATIENCE)


def test_a_job_that_the_scheduler_s_owner_removed_stops_no_renewal(
    scheduler: BackgroundScheduler, monotonic: Monotonic, tmp_path: Any
) -> None:
    app, _ = app_with(scheduler, tmp_path, PRESENCE_WORKER_TIMEOUT=0.15)
    scheduler.start()
    scheduler.remove_all_jobs()
    monotonic.now += 3600
    ticks = threading.Semaphore(0)
    state = app.extensions["presence"]
    state.tracker.on_tick(ticks.release)

    state.jobs.check()
    state.tracker.start()

    for _ in range(3):
        assert ticks.acquire(timeout=PATIENCE)
    state.stop()


def test_channels_that_have_long_been_empty_are_forgotten_by_a_job_of_their_own(
    scheduler: BackgroundScheduler,
) -> None:
    tracker = StubTracker()
    forgotten = threading.Event()
    tracker.prune_channels = lambda: forgotten.set() or 0  # type: ignore[method-assign]
    jobs_of(tracker).add_to(scheduler)
    scheduler.start()

    for job in scheduler.get_jobs():
        job.modify(next_run_time=datetime.now(timezone.utc))

    assert forgotten.wait(PATIENCE)
