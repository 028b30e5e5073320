"""Keeps house: raw material goes after its days, refused write-backs are tried again, sealed answers are opened.

In small batches, so that nobody waits, and at most once an hour over all processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from core.clock import DAY_MS, HOUR_MS
from core.jobs.context import Context, JobReport
from core.jobs.turns import turn
from core.storage import anonymous, deliveries, hits, inbox, settings, write_backs
from core.storage.store import Transaction
from core.workspace import Retention

NAME = "prune"
EVERY_MS = HOUR_MS
BATCH = 500
#: How long an event's name is remembered, and at least as long as its request: no vendor repeats one for that long.
EVENT_DAYS = 90

#: Looking for what is over may take a moment and disturbs nobody; removing it is done in batches.
FOUND_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Step:
    """`find` at most so many rows, in a snapshot; `change` some of them, and say how many."""

    find: Callable[[Transaction, int], Sequence[Any]]
    change: Callable[[Transaction, Sequence[Any]], int]


def run(context: Context) -> JobReport:
    """Everything that is over; `done` counts rows removed, emptied or put back to be tried again."""
    started = time.monotonic()
    report = JobReport(NAME)
    with turn(context, NAME, EVERY_MS) as mine:
        if mine:
            kept = _retention(context)
            report.done += sum(_drain(context, step) for step in _steps(kept, context.clock.now_ms()))
            report.done += _forget_hits(context, context.clock.now_ms() - kept.hits * DAY_MS)
            report.done += _unseal(context)  # the last: it fails if a key is missing, which must stop nothing else
    report.seconds = time.monotonic() - started
    return report


def _retention(context: Context) -> Retention:
    with context.store.read() as tx:
        workspace = settings.read_workspace(tx)
    return workspace.retention_days if workspace is not None else Retention()


def _steps(kept: Retention, now: int) -> list[Step]:
    requests = now - kept.inbox * DAY_MS
    names = now - max(kept.inbox, EVENT_DAYS) * DAY_MS
    payloads = now - kept.payloads * DAY_MS
    return [
        Step(lambda tx, limit: inbox.over(tx, requests, limit), inbox.forget),
        Step(lambda tx, limit: inbox.old_events(tx, names, limit), inbox.forget_events),
        Step(lambda tx, limit: deliveries.old_payloads(tx, payloads, limit), deliveries.forget_payloads),
        Step(deliveries.orphans, deliveries.forget_orphans),
        Step(
            lambda tx, limit: write_backs.refused_long_ago(tx, now, limit),
            lambda tx, ids: write_backs.retry_failed(tx, ids, now),
        ),
    ]


def _drain(context: Context, step: Step) -> int:
    """Find and change, until nothing is left to find."""
    changed = 0
    while not context.stopping.is_set():
        with context.store.read() as tx:
            found = step.find(tx, FOUND_AT_ONCE)
        for start in range(0, len(found), BATCH):
            if context.stopping.is_set():
                break
            with context.store.write() as tx:
                changed += step.change(tx, found[start : start + BATCH])
        if len(found) < FOUND_AT_ONCE:
            break
    return changed


def _forget_hits(context: Context, before: int) -> int:
    forgotten = 0
    while not context.stopping.is_set():
        with context.store.write() as tx:
            gone = hits.forget(tx, before, BATCH)
        forgotten += gone
        if gone < BATCH:
            break
    return forgotten


def _unseal(context: Context) -> int:
    """Open the anonymous answers of waves that are over. Raises UnknownKey."""
    opened = 0
    while not context.stopping.is_set():
        with context.store.write() as tx:
            some = anonymous.unseal_due(tx, context.keyring, context.clock.now_ms())
        opened += some
        if not some:
            break
    return opened
