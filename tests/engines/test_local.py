"""The engine of one process: every wake-up is answered, none is needed, and nothing a job does ends the worker."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.clock import Clock
from core.engines.local import LocalEngine
from core.errors import BoucleError
from core.jobs import sweep
from core.jobs.context import Context, JobReport
from core.jobs.sweep import UseCase
from core.ports import Engine
from core.storage import leases, schema, status
from core.storage.store import Store
from tests.world import make_context

PATIENCE = 10.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'boucle.db'}", Clock())
    schema.metadata.create_all(store.engine)
    yield store
    store.close()


@pytest.fixture
def context(store: Store) -> Context:
    return make_context(store, store.clock)


@pytest.fixture
def quick_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "EVERY_SECONDS", 0.05)


class Counting:
    """A job that counts its runs, and may be held up."""

    def __init__(self, done: int = 0, problem: BaseException | None = None) -> None:
        self.runs = self.at_once = self.most_at_once = 0
        self.done, self.problem = done, problem
        self.go_on = threading.Event()
        self.go_on.set()
        self.entered = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, context: Context) -> JobReport:
        with self._lock:
            self.runs += 1
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
        self.entered.set()
        try:
            assert self.go_on.wait(PATIENCE)
            if self.problem is not None:
                raise self.problem
            return JobReport("counting", done=self.done)
        finally:
            with self._lock:
                self.at_once -= 1


class Beats:
    """Counts sweeps."""

    number = 0

    def __call__(self) -> None:
        self.number += 1


def never(tx: object, now: int) -> bool:
    return False


@contextmanager
def running(engine: LocalEngine, context: Context) -> Iterator[LocalEngine]:
    thread = threading.Thread(target=engine.run)
    thread.start()
    try:
        yield engine
    finally:
        context.stopping.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.005)


def test_it_is_the_engine_of_the_ports(context: Context) -> None:
    engine: Engine = LocalEngine(context, {})
    assert set(engine.inspect()) == set()


def test_a_wake_up_runs_the_job_at_once(context: Context) -> None:
    job = Counting()
    with running(LocalEngine(context, {"job": UseCase(job, never)}), context) as engine:
        wait_until(lambda: swept(context))
        engine.wake("job")
        assert job.entered.wait(2.0)  # less than a sweep


def swept(context: Context) -> bool:
    with context.store.read() as tx:
        return status.last_sweep_at(tx) is not None


def test_a_wake_up_before_the_start_is_not_lost(context: Context) -> None:
    job = Counting()
    engine = LocalEngine(context, {"job": UseCase(job, never)})
    engine.wake("job")
    with running(engine, context):
        assert job.entered.wait(2.0)


def test_wake_ups_while_it_runs_are_one_more_run(context: Context) -> None:
    job = Counting()
    job.go_on.clear()
    with running(LocalEngine(context, {"job": UseCase(job, never)}), context) as engine:
        engine.wake("job")
        assert job.entered.wait(PATIENCE)
        for _ in range(100):
            engine.wake("job")
        job.go_on.set()
        wait_until(lambda: job.runs == 2)
        time.sleep(0.1)
    assert (job.runs, job.most_at_once) == (2, 1)


def test_without_any_wake_up_the_sweep_finds_what_is_due(context: Context, quick_sweeps: None) -> None:
    job = Counting()
    with running(LocalEngine(context, {"job": UseCase(job, lambda tx, now: job.runs < 3)}), context):
        wait_until(lambda: job.runs == 3)
        time.sleep(0.2)
    assert job.runs == 3


def test_a_long_job_holds_up_neither_the_sweep_nor_the_others(context: Context, quick_sweeps: None) -> None:
    long, other, sweeps = Counting(), Counting(), Beats()
    long.go_on.clear()
    use_cases = {"long": UseCase(long), "other": UseCase(other)}
    with running(LocalEngine(context, use_cases, sweeps), context) as engine:
        assert long.entered.wait(PATIENCE)
        runs, seen = other.runs, sweeps.number
        wait_until(lambda: other.runs > runs + 3 and sweeps.number > seen + 3)
        told = engine.inspect()
        assert told["long"]["running_since"] is not None
        assert told["other"]["ended_at"] is not None
        long.go_on.set()
    assert long.most_at_once == 1


def test_what_a_job_did_wakes_those_it_made_work_for(context: Context) -> None:
    first, second, idle, third = Counting(done=1), Counting(), Counting(), Counting()
    use_cases = {
        "first": UseCase(first, never, then=("second",)),
        "second": UseCase(second, never),
        "idle": UseCase(idle, never, then=("third",)),
        "third": UseCase(third, never),
    }
    with running(LocalEngine(context, use_cases), context) as engine:
        engine.wake("first")
        engine.wake("idle")
        wait_until(lambda: second.runs == 1 and idle.runs == 1)
        time.sleep(0.05)
    assert (second.runs, third.runs) == (1, 0)


@pytest.mark.parametrize("problem", [ValueError("a bug"), BoucleError("the file is gone"), SystemExit(3)])
def test_a_job_that_fails_is_named_in_the_log_and_ends_nothing(
    context: Context, caplog: pytest.LogCaptureFixture, problem: BaseException, quick_sweeps: None
) -> None:
    failing, other = Counting(problem=problem), Counting()
    caplog.set_level(logging.INFO, "boucle")
    with running(LocalEngine(context, {"failing": UseCase(failing), "other": UseCase(other)}), context):
        wait_until(lambda: failing.runs > 5 and other.runs > 5)
    told = [record.getMessage() for record in caplog.records]
    assert any("failing" in line for line in told)
    assert len(told) <= 2  # the same failure every 5 s is told once


def test_a_database_that_is_away_ends_nothing(
    context: Context, caplog: pytest.LogCaptureFixture, quick_sweeps: None
) -> None:
    job, beats = Counting(), Beats()
    with running(LocalEngine(context, {"job": UseCase(job)}, beats), context):
        wait_until(lambda: job.runs > 1)
        with context.store.write() as tx:
            tx.exec_driver_sql("ALTER TABLE leases RENAME TO away")
        time.sleep(0.3)
        beats_while_away, runs_while_away = beats.number, job.runs
        time.sleep(0.2)
        assert (beats.number, job.runs) == (beats_while_away, runs_while_away)
        with context.store.write() as tx:
            tx.exec_driver_sql("ALTER TABLE away RENAME TO leases")
        wait_until(lambda: job.runs > runs_while_away and beats.number > beats_while_away)
    assert [record.getMessage() for record in caplog.records] == ["the sweep failed"]


def test_jobs_that_run_by_time_run_once_over_all_processes(context: Context, quick_sweeps: None) -> None:
    job = Counting()
    engines = []
    for owner in ("one", "two", "three"):
        process = make_context(context.store, context.clock, owner=owner, stopping=context.stopping)
        engines.append(LocalEngine(process, {"job": UseCase(job, never)}))
        engines[-1].cron("job", 3600)
    with running(engines[0], context), running(engines[1], context), running(engines[2], context):
        wait_until(lambda: job.runs > 0)
        time.sleep(0.5)
    assert job.runs == 1


def test_a_job_that_runs_by_time_runs_again_when_it_is_time(context: Context, quick_sweeps: None) -> None:
    job = Counting()
    engine = LocalEngine(context, {"job": UseCase(job, never)})
    engine.cron("job", 0.1)
    with running(engine, context):
        wait_until(lambda: job.runs >= 3)


def test_the_turn_of_a_process_that_died_is_taken_over_at_once(context: Context, quick_sweeps: None) -> None:
    from core.processes import this_process

    machine = this_process().rpartition(":")[0].rpartition(":")[0]
    with context.store.write() as tx:
        assert leases.acquire(tx, "cron:job", f"{machine}:4194303:1", context.clock.now_ms(), 3_600_000)
    job = Counting()
    engine = LocalEngine(context, {"job": UseCase(job, never)})
    engine.cron("job", 3600)
    with running(engine, context):
        wait_until(lambda: job.runs == 1)


def test_it_ends_after_what_it_is_doing(context: Context) -> None:
    job = Counting()
    job.go_on.clear()
    engine = LocalEngine(context, {"job": UseCase(job, never), "idle": UseCase(Counting(), never)})
    thread = threading.Thread(target=engine.run)
    engine.wake("job")
    thread.start()
    assert job.entered.wait(PATIENCE)
    context.stopping.set()
    thread.join(0.2)
    assert thread.is_alive()
    job.go_on.set()
    thread.join(2.0)
    assert not thread.is_alive()


def test_an_idle_engine_ends_at_once(context: Context) -> None:
    started = time.monotonic()
    with running(LocalEngine(context, {"job": UseCase(Counting(), never)}), context):
        wait_until(lambda: swept(context))
    assert time.monotonic() - started < 2.0


def test_a_job_nobody_knows_is_refused(context: Context) -> None:
    engine = LocalEngine(context, {"job": UseCase(Counting())})
    with pytest.raises(ValueError, match="jbo"):
        engine.wake("jbo")
    for name, seconds in (("jbo", 1), ("job", 0)):
        with pytest.raises(ValueError, match=name if name == "jbo" else "seconds"):
            engine.cron(name, seconds)
