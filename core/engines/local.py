"""The engine inside one process: a thread per job, a condition variable to wake them, and the sweep every 5 s.

Nothing is kept here that is not in a row as well. A wake-up that is lost is made good by the next sweep, one too many
finds nothing to do, and the leases of the jobs keep several processes out of each other's way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from core.clock import from_ms
from core.errors import BoucleError
from core.jobs import sweep
from core.jobs.context import Context, JobReport
from core.jobs.sweep import UseCase
from core.jobs.turns import turn

#: Messages of one run that are worth a line in the log.
TOLD = 20


@dataclass(slots=True)
class _Job:
    """What this process knows of one job. `woken`: run whatever the clock says; `scheduled`: if its turn has come."""

    woken: bool = False
    scheduled: bool = False
    running_since: int | None = None
    ended_at: int | None = None
    told: frozenset[str] = frozenset()  # complaints of the last run, not to be repeated every 5 s


class LocalEngine:
    """`core.ports.Engine` in threads. One run per job at a time; jobs run beside each other."""

    def __init__(
        self,
        context: Context,
        use_cases: Mapping[str, UseCase] = sweep.USE_CASES,
        after_sweep: Callable[[], None] = lambda: None,
    ) -> None:
        self._context = context
        self._use_cases = dict(use_cases)
        self._after_sweep = after_sweep
        self._changed = threading.Condition()
        self._jobs = {name: _Job() for name in use_cases}
        self._over = False
        self._told_of_sweep = ""

    # --- the port -------------------------------------------------------------------------------------------------

    def wake(self, job: str, argument: str = "") -> None:
        """Run `job` soon, once however often it is called meanwhile. Any thread may call it, at any time.

        A job drains all that is due, so `argument` needs no looking at here. Raises ValueError if there is no such job.
        """
        self._known(job)
        with self._changed:
            self._jobs[job].woken = True
            self._changed.notify_all()

    def cron(self, job: str, every_seconds: float) -> None:
        """Run `job` at least this often over all processes. Raises ValueError if there is no such job."""
        self._known(job)
        if every_seconds <= 0:
            raise ValueError("a job runs every so many seconds, more than none")
        self._use_cases[job] = replace(self._use_cases[job], every_seconds=every_seconds)

    def run(self) -> None:
        """Work until `context.stopping` is set, and then until what is being done has ended."""
        threads = [
            threading.Thread(target=self._work, args=(name,), name=f"boucle-{name}", daemon=True)
            for name in self._use_cases
        ]
        for thread in threads:
            thread.start()
        try:
            while not self._context.stopping.is_set():
                self._sweep()
                self._context.stopping.wait(sweep.EVERY_SECONDS)
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()
            for thread in threads:
                thread.join()

    def inspect(self) -> Mapping[str, Any]:
        """`{job: {running_since, waiting, ended_at}}`, moments as ISO texts or None."""
        with self._changed:
            return {
                name: {
                    "running_since": _iso(job.running_since),
                    "waiting": job.woken or job.scheduled,
                    "ended_at": _iso(job.ended_at),
                }
                for name, job in self._jobs.items()
            }

    def _known(self, job: str) -> None:
        if job not in self._use_cases:
            raise ValueError(f"there is no job {job}; there are: {', '.join(self._use_cases)}")

    # --- the sweep ------------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        try:
            sweep.run(self._context, self._schedule, self._use_cases)
            self._after_sweep()
            self._told_of_sweep = ""
        except Exception as error:  # a full disk, a database that is away: the next sweep may find it mended
            told = f"{type(error).__name__}: {error}"
            if told != self._told_of_sweep:
                self._context.log.exception("the sweep failed")
            self._told_of_sweep = told

    def _schedule(self, job: str) -> None:
        with self._changed:
            self._jobs[job].scheduled = True
            self._changed.notify_all()

    # --- the thread of a job --------------------------------------------------------------------------------------

    def _work(self, name: str) -> None:
        while (woken := self._wait(name)) is not None:
            report = self._run(name, woken)
            self._ended(name, report)

    def _wait(self, name: str) -> bool | None:
        """Wait for a reason to run: True if somebody woke the job, False if the sweep did, None when all is over."""
        job = self._jobs[name]
        with self._changed:
            self._changed.wait_for(lambda: self._over or job.woken or job.scheduled)
            if self._over:
                return None
            woken, job.woken, job.scheduled = job.woken, False, False
            job.running_since = self._context.clock.now_ms()
            return woken

    def _run(self, name: str, woken: bool) -> JobReport:
        """One run. Whatever goes wrong in it ends here."""
        try:
            with self._turn(name, woken) as mine:
                return self._use_cases[name].run(self._context) if mine else JobReport(name)
        except BoucleError as error:
            return JobReport(name, failed=1, messages=[str(error)])
        except (Exception, SystemExit) as error:  # a library that means to end the process ends its run
            told = f"{type(error).__name__}: {error}"
            if told not in self._jobs[name].told:
                self._context.log.exception("%s failed", name)
            return JobReport(name, failed=1, messages=[told])

    @contextmanager
    def _turn(self, name: str, woken: bool) -> Iterator[bool]:
        every = self._use_cases[name].every_seconds
        if woken or every is None:
            yield True
            return
        with turn(self._context, sweep.turn_name(name), round(every * 1000)) as mine:
            yield mine

    def _ended(self, name: str, report: JobReport) -> None:
        job = self._jobs[name]
        fresh = [message for message in report.messages if message not in job.told]
        for message in fresh[:TOLD]:
            self._context.log.warning("%s: %s", name, message)
        if len(fresh) > TOLD:
            self._context.log.warning("%s: and %d more", name, len(fresh) - TOLD)
        with self._changed:
            if report.done or report.messages:  # a run that left a broken connection alone mends nothing
                job.told = frozenset(report.messages)
            job.running_since, job.ended_at = None, self._context.clock.now_ms()
        if report.done:
            for follower in self._use_cases[name].then:
                self.wake(follower)


def _iso(ms: int | None) -> str | None:
    return None if ms is None else from_ms(ms).isoformat()
