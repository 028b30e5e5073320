"""Turns: work that is done at most every so often, by whichever process comes first. A turn is a row of `leases`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from core.clock import MINUTE_MS
from core.jobs.context import Context
from core.storage import leases
from core.storage.store import Transaction

#: Work that takes longer than this may be begun by a second process beside the first.
LEASE_MS = 10 * MINUTE_MS
#: After a failure the turn comes again this much later, or at its usual time if that is sooner.
RETRY_MS = MINUTE_MS


def is_due(tx: Transaction, name: str, every_ms: int, now: int) -> bool:
    """Whether `name` ran to its end longer than `every_ms` ago, or never, and did not fail a moment ago."""
    row = leases.read(tx, name)
    if row is None:
        return True
    ran = row.finished_at is not None and 0 <= now - row.finished_at < every_ms
    pausing = now < row.due_at <= now + RETRY_MS  # further off: the clock was set back
    return not ran and not pausing


@contextmanager
def turn(context: Context, name: str, every_ms: int) -> Iterator[bool]:
    """Take the turn. Yields whether it is ours: False if it is not due, or somebody else is at it."""
    with context.store.write() as tx:
        now = context.clock.now_ms()
        due = is_due(tx, name, every_ms, now)
        fence = leases.acquire(tx, name, context.owner, now, LEASE_MS) if due else None
    if fence is None:
        yield False
        return
    try:
        yield True
    except BaseException:
        with context.store.write() as tx:
            now = context.clock.now_ms()
            leases.postpone(tx, name, context.owner, fence, now + min(RETRY_MS, every_ms))
            leases.renew(tx, name, context.owner, fence, now, 0)
        raise
    with context.store.write() as tx:
        leases.release(tx, name, context.owner, fence, context.clock.now_ms())
