"""Does everything that is due now, use case after use case, until a whole round finds nothing to do.

For cron, for tests, for people who run no daemon. The jobs take the same leases as a running service, so both may work
at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from core.errors import BoucleError
from core.jobs import apply_inbox, close_windows, deliver, plan_waves, prune, push_scores, sync_contacts
from core.jobs.context import Context, JobReport

NAME = "tick"
#: In the order in which one makes work for the next.
JOBS: Mapping[str, Callable[[Context], JobReport]] = {
    apply_inbox.NAME: apply_inbox.run,
    sync_contacts.NAME: sync_contacts.run,
    close_windows.NAME: close_windows.run,
    plan_waves.NAME: plan_waves.run,
    deliver.NAME: deliver.run,
    push_scores.NAME: push_scores.run,
    prune.NAME: prune.run,
}
#: From the second round on: a source that nobody has changed since is not read again.
AGAIN: Mapping[str, Callable[[Context], JobReport]] = {
    sync_contacts.NAME: partial(sync_contacts.run, due_only=True),
}
#: A job that never runs dry must not keep cron's lock for ever; the next tick goes on.
MOST_ROUNDS = 50


def run(context: Context, jobs: Mapping[str, Callable[[Context], JobReport]] = JOBS) -> list[JobReport]:
    """One report per use case, in their order."""
    totals = {name: JobReport(name) for name in jobs}
    again = {name: AGAIN.get(name, job) if job is JOBS.get(name) else job for name, job in jobs.items()}
    for number in range(MOST_ROUNDS):
        if not _round(context, again if number else jobs, totals):
            return list(totals.values())
    stuck = JobReport(NAME, failed=1, messages=[f"something is still due after {MOST_ROUNDS} rounds; tick again"])
    return [*totals.values(), stuck]


def document(reports: list[JobReport]) -> dict[str, Any]:
    """The JSON document of `flask tick --json`."""
    return {
        "jobs": [
            {"job": one.job, "done": one.done, "failed": one.failed, "seconds": round(one.seconds, 3)}
            for one in reports
        ]
    }


def _round(
    context: Context, jobs: Mapping[str, Callable[[Context], JobReport]], totals: Mapping[str, JobReport]
) -> bool:
    """One round of all; whether anything was done."""
    busy = False
    for name, job in jobs.items():
        if context.stopping.is_set():
            return False
        report = _guarded(context, name, job)
        busy = busy or report.done > 0
        _count(totals[name], report)
    return busy


def _guarded(context: Context, name: str, job: Callable[[Context], JobReport]) -> JobReport:
    """One use case that fails stops no other."""
    context.progress(name)
    started = time.monotonic()
    try:
        return job(context)
    except Exception as error:
        if not isinstance(error, BoucleError):
            context.log.exception("%s failed", name)
        told = str(error) if isinstance(error, BoucleError) else f"{type(error).__name__}: {error}"
        return JobReport(name, failed=1, seconds=time.monotonic() - started, messages=[told])


def _count(total: JobReport, report: JobReport) -> None:
    """Add a round's report. What failed in the same words before is the same failure, met again."""
    fresh = [message for message in report.messages if message not in total.messages]
    if report.messages and not fresh:
        report.failed = 0
    report.messages = fresh
    total.add(report)
