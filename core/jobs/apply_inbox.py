"""Applies what came in: each request parsed by its receiver, its events applied and remembered in one transaction.

One process at a time does it, so that requests are applied in the order they came.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from core.clock import from_ms
from core.dispatch import BACKOFF_MS
from core.errors import BoucleError, Unsupported
from core.events import Event
from core.jobs.apply_events import apply_event
from core.jobs.context import Context, JobReport
from core.storage import inbox, leases
from core.storage.inbox import InboxRow

NAME = "apply_inbox"
BATCH = 50
LEASE_MS = 60_000
#: What fails this often is left for a human.
ATTEMPTS = 6


class TakenOver(Exception):
    """Somebody else claimed the request meanwhile: nothing of ours may be committed."""


def run(context: Context) -> JobReport:
    """Apply everything that is due now, in the order it came. `done` counts requests."""
    started = time.monotonic()
    report = JobReport(NAME)
    with context.store.write() as tx:
        fence = leases.acquire(tx, NAME, context.owner, context.clock.now_ms(), LEASE_MS)
    if fence is not None:
        try:
            _drain(context, fence, report)
        finally:
            with context.store.write() as tx:
                leases.release(tx, NAME, context.owner, fence, context.clock.now_ms())
    report.seconds = time.monotonic() - started
    return report


def _drain(context: Context, fence: int, report: JobReport) -> None:
    due_at = context.clock.now_ms()  # what is put back becomes due later, and waits for the next run
    while not context.stopping.is_set():
        with context.store.write() as tx:
            held = leases.renew(tx, NAME, context.owner, fence, context.clock.now_ms(), LEASE_MS)
            rows = inbox.claim(tx, due_at, BATCH) if held else []
        if not rows:
            break
        for row in rows:
            _apply(context, row, report)


def _apply(context: Context, row: InboxRow, report: JobReport) -> None:
    try:
        if row.attempts > ATTEMPTS:
            raise BoucleError(f"given up after {ATTEMPTS} attempts, the last of which ended without a word")
        _apply_events(context, row, _parse(context, row))
        report.done += 1
    except TakenOver:
        context.log.warning("request %s of %s was taken over by another worker", row.id, row.connection)
    except Exception as error:  # one request stops nobody else
        if not isinstance(error, BoucleError):
            context.log.exception("applying request %s of %s failed", row.id, row.connection)
        report.failed += 1
        report.messages.append(f"{row.connection}: {error}")
        _fail(context, row, error)


def _parse(context: Context, row: InboxRow) -> Sequence[Event]:
    if context.parse_inbox is None:
        raise BoucleError(f"nothing here can read what {row.kind} sends")
    return list(context.parse_inbox(row.kind, row.headers, row.body, from_ms(row.received_at)))


def _apply_events(context: Context, row: InboxRow, found: Sequence[Event]) -> None:
    """All events of a request at once; if one of them cannot be applied, each by itself, so that it stops no other."""
    try:
        _commit(context, row, found, finished=True)
    except TakenOver:
        raise
    except Exception:
        failed = [error for event in found if (error := _problem_of(context, row, event)) is not None]
        if failed:
            raise failed[0] from None
        _commit(context, row, [], finished=True)


def _problem_of(context: Context, row: InboxRow, event: Event) -> Exception | None:
    try:
        _commit(context, row, [event], finished=False)
    except TakenOver:
        raise
    except Exception as error:
        return error
    return None


def _commit(context: Context, row: InboxRow, found: Sequence[Event], *, finished: bool) -> None:
    with context.store.write() as tx:
        now = context.clock.now_ms()
        for event in found:
            apply_event(tx, row.connection_id, row.connection, event, context.pepper, now)
        if not (inbox.finish(tx, row) if finished else inbox.is_ours(tx, row)):
            raise TakenOver


def _fail(context: Context, row: InboxRow, error: Exception) -> None:
    """Try again later, unless it would be the same then."""
    last = row.attempts >= ATTEMPTS or isinstance(error, Unsupported)
    with context.store.write() as tx:
        retry_at = context.clock.now_ms() + BACKOFF_MS[min(row.attempts, len(BACKOFF_MS)) - 1]
        inbox.fail(tx, row, f"{type(error).__name__}: {error}", None if last else retry_at)
