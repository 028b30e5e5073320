"""Keeps house: raw material goes after its days, refused write-backs are tried again, sealed answers are opened.

In small batches, so that nobody waits, and at most once an hour over all processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from core.clock import DAY_MS, HOUR_MS
from core.jobs.context import Context, JobReport
from core.jobs.turns import turn
from core.storage import deliveries, hits, inbox, settings, write_backs
from core.storage.store import Transaction
from core.workspace import Retention

NAME = "prune"
EVERY_MS = HOUR_MS
BATCH = 500
#: How long an event's name is remembered, and at least as long as its request: no vendor repeats one for that long.
EVENT_DAYS = 90

#: Removes at most so many rows, and says how many it removed.
Step = Callable[[Transaction, int], int]


def run(context: Context) -> JobReport:
    """Everything that is over; `done` counts rows removed, emptied or put back to be tried again."""
    started = time.monotonic()
    report = JobReport(NAME)
    with turn(context, NAME, EVERY_MS) as mine:
        if mine:
            for step in _steps(context):
                report.done += _drain(context, step)
    report.seconds = time.monotonic() - started
    return report


def _steps(context: Context) -> list[Step]:
    with context.store.read() as tx:
        workspace = settings.read_workspace(tx)
    kept = workspace.retention_days if workspace is not None else Retention()
    now = context.clock.now_ms()
    return [
        partial(_forget, inbox.forget, now - kept.inbox * DAY_MS),
        partial(_forget, inbox.forget_events, now - max(kept.inbox, EVENT_DAYS) * DAY_MS),
        partial(_forget, deliveries.forget_payloads, now - kept.payloads * DAY_MS),
        partial(_forget, hits.forget, now - kept.hits * DAY_MS),
        deliveries.forget_orphans,
        lambda tx, limit: write_backs.retry_failed(tx, now) if limit else 0,
    ]


def _forget(function: Callable[[Transaction, int, int], int], before: int, tx: Transaction, limit: int) -> int:
    return function(tx, before, limit)


def _drain(context: Context, step: Step) -> int:
    """Batch after batch, until one is not full."""
    total = 0
    while not context.stopping.is_set():
        with context.store.write() as tx:
            removed = step(tx, BATCH)
        total += removed
        if removed < BATCH:
            break
    return total
