"""Applies what came in: each request parsed by its receiver, its events applied and remembered in one transaction."""

from __future__ import annotations

import time

from core.dispatch import BACKOFF_MS
from core.errors import BoucleError
from core.jobs.apply_events import apply_event
from core.jobs.context import Context, JobReport
from core.storage import inbox
from core.storage.inbox import InboxRow

NAME = "apply_inbox"
BATCH = 50
LEASE_MS = 60_000
#: What fails this often is left for a human.
ATTEMPTS = 6


class TakenOver(Exception):
    """Somebody else claimed the request meanwhile: nothing of ours may be committed."""


def run(context: Context) -> JobReport:
    """Apply everything that is due now, in the order it came."""
    started = time.monotonic()
    report = JobReport(NAME)
    due_at = context.clock.now_ms()
    while not context.stopping.is_set():
        with context.store.write() as tx:
            rows = inbox.claim(tx, due_at, context.clock.now_ms() + LEASE_MS, BATCH)
        if not rows:
            break
        for row in rows:
            _apply(context, row, report)
    report.seconds = time.monotonic() - started
    return report


def _apply(context: Context, row: InboxRow, report: JobReport) -> None:
    try:
        if context.parse_inbox is None:
            raise BoucleError(f"nothing here can read what {row.kind} sends")
        found = list(context.parse_inbox(row.kind, row.connection, row.headers, row.body))
        with context.store.write() as tx:
            now = context.clock.now_ms()
            for event in found:
                apply_event(tx, row.connection_id, row.connection, event, context.pepper, now)
            if not inbox.finish(tx, row):
                raise TakenOver
        report.done += 1
    except TakenOver:
        context.log.warning("request %s of %s was taken over by another worker", row.id, row.connection)
    except Exception as error:  # one request stops nobody else
        if not isinstance(error, BoucleError):
            context.log.exception("applying request %s of %s failed", row.id, row.connection)
        report.failed += 1
        report.messages.append(f"{row.connection}: {error}")
        _fail(context, row, f"{type(error).__name__}: {error}")


def _fail(context: Context, row: InboxRow, error: str) -> None:
    with context.store.write() as tx:
        now = context.clock.now_ms()
        last = row.attempts >= ATTEMPTS
        inbox.fail(tx, row, error, None if last else now + BACKOFF_MS[min(row.attempts, len(BACKOFF_MS)) - 1])
