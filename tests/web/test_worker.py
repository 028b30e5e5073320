"""The worker of a process: it ends when asked, with its server, and tells a monitor that it gets round."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import web.worker
from core.clock import Clock
from core.engines.local import LocalEngine
from core.errors import BoucleError
from core.jobs import sweep
from core.jobs.context import Context, JobReport
from core.jobs.sweep import UseCase
from core.storage import schema
from core.storage.store import Store
from tests.world import make_context
from web.worker import Heartbeat, Worker

PATIENCE = 10.0


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    store = Store(f"sqlite:///{tmp_path / 'boucle.db'}", Clock())
    schema.metadata.create_all(store.engine)
    yield make_context(store, store.clock)
    store.close()


class Monitor:
    """A monitor on loopback that counts calls."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.status = 200
        self.delay = 0.0
        monitor = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                monitor.paths.append(self.path)
                time.sleep(monitor.delay)
                self.send_response(monitor.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return None

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/ping/secret-path"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    monitor = Monitor()
    yield monitor
    monitor.server.shutdown()
    monitor.server.server_close()


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.005)


# --- the heartbeat ----------------------------------------------------------------------------------------------------


def test_a_sweep_is_told_to_the_monitor_at_most_once_a_minute(
    context: Context, monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    heart = Heartbeat(context, monitor.url)
    for _ in range(5):
        heart.swept()
    wait_until(lambda: len(monitor.paths) == 1)
    time.sleep(0.1)
    assert monitor.paths == ["/ping/secret-path"]
    monkeypatch.setattr(web.worker, "HEARTBEAT_SECONDS", 0.0)
    heart.swept()
    wait_until(lambda: len(monitor.paths) == 2)


def test_a_monitor_that_fails_is_told_of_once_and_never_by_its_address(
    context: Context, monitor: Monitor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "boucle")
    monkeypatch.setattr(web.worker, "HEARTBEAT_SECONDS", 0.0)
    heart = Heartbeat(context, monitor.url)
    for status, calls in ((500, 1), (500, 2), (200, 3), (200, 4)):
        monitor.status = status
        heart.swept()
        wait_until(lambda calls=calls: len(monitor.paths) == calls and not heart._calling.is_alive())  # type: ignore
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "BOUCLE_HEARTBEAT_URL could not be called: it answered 500",
        "BOUCLE_HEARTBEAT_URL is called again",
    ]


def test_a_monitor_that_is_not_there_stops_nothing(context: Context, caplog: pytest.LogCaptureFixture) -> None:
    heart = Heartbeat(context, "http://127.0.0.1:9/secret-path")
    heart.swept()
    wait_until(lambda: bool(caplog.records))
    (record,) = caplog.records
    assert "secret-path" not in record.getMessage()


def test_a_slow_monitor_does_not_hold_up_the_sweep(
    context: Context, monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web.worker, "HEARTBEAT_SECONDS", 0.0)
    monitor.delay = 1.0
    heart = Heartbeat(context, monitor.url)
    started = time.monotonic()
    for _ in range(100):
        heart.swept()
    assert time.monotonic() - started < 0.5
    assert len(monitor.paths) <= 1


def test_without_an_address_nobody_is_called(context: Context) -> None:
    heart = Heartbeat(context, "")
    heart.swept()
    assert heart._calling is None


def test_a_worker_tells_the_monitor_after_its_first_sweep(context: Context, monitor: Monitor) -> None:
    worker = Worker(context, monitor.url)
    worker.start()
    wait_until(lambda: len(monitor.paths) == 1)
    worker.stop()


# --- beginning and end ------------------------------------------------------------------------------------------------


def test_an_idle_worker_ends_at_once(context: Context) -> None:
    worker = Worker(context)
    thread = threading.Thread(target=worker.run)
    thread.start()
    time.sleep(0.3)
    assert thread.is_alive()
    asked_at = time.monotonic()
    context.stopping.set()
    thread.join(PATIENCE)
    assert time.monotonic() - asked_at < 1.0


def test_a_worker_that_dies_says_so(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalEngine, "run", lambda self: None)
    with pytest.raises(BoucleError, match="ended by itself"):
        Worker(context).run()


def test_stopping_waits_for_a_job_and_no_longer_than_a_server_would(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, entered = threading.Event(), threading.Event()

    def long(context: Context) -> JobReport:
        entered.set()
        go_on.wait(PATIENCE)
        return JobReport("long")

    monkeypatch.setattr(web.worker, "STOP_SECONDS", 0.2)
    worker = Worker(context)
    worker.engine = LocalEngine(context, {"long": UseCase(long)})
    worker.start()
    assert entered.wait(PATIENCE)
    started = time.monotonic()
    worker.stop()
    assert 0.15 < time.monotonic() - started < 2.0
    go_on.set()
    worker.stop()


def test_whoever_makes_work_can_wake_the_job(context: Context) -> None:
    worker = Worker(context)
    worker.wake("push_scores")
    assert worker.engine.inspect()["push_scores"]["waiting"]
    assert set(worker.engine.inspect()) == set(sweep.USE_CASES)


def test_the_worker_ends_as_soon_as_its_server_is_asked_to(context: Context) -> None:
    asked: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    others = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        worker = Worker(context)
        worker.start()
        os.kill(os.getpid(), signal.SIGTERM)
        wait_until(lambda: bool(asked))
        assert context.stopping.is_set()
        assert asked == [signal.SIGTERM]  # the server's own handler did what it does
        worker.stop()
    finally:
        signal.signal(signal.SIGTERM, before)
        for number, handler in others.items():
            signal.signal(number, handler)
