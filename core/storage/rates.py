"""Rate buckets: one per vendor account, shared by every worker of every process.

A token is a moment: calls are spaced evenly, so nobody bursts and nobody starves. A vendor's "too much" stops everybody
on the account until it ends.
"""

from __future__ import annotations

import math

from sqlalchemy import Connection, bindparam, select, text

from core.clock import DAY_MS, HOUR_MS, Clock
from core.storage.schema import rate_buckets
from core.storage.store import Store

#: So many workers may wait for one account, even one that takes a call every few hours.
QUEUE = 20


def take(store: Store, account: str, per_second: float, share: float, clock: Clock, count: int = 1) -> float:
    """Take `count` tokens; returns the seconds to wait before using them. `share`: our part of the account's limit."""
    with store.write() as tx:
        return take_in(tx, account, per_second * share, clock.now_ms(), count)


def take_in(tx: Connection, account: str, per_second: float, now: int, count: int = 1) -> float:
    """As `take`, within a transaction that is open anyway. `per_second` is our own part."""
    if per_second <= 0:
        raise ValueError("a rate is more than nothing per second")
    next_at, blocked_until = _bucket(tx, account)
    step = math.ceil(1000 * count / per_second)
    if next_at > now + max(HOUR_MS, QUEUE * step):
        next_at = now  # nobody is that far ahead: the clock was set back since
    if blocked_until > now + DAY_MS:
        blocked_until = 0
    mine = max(now, next_at, blocked_until)
    _keep(tx, account, mine + step, blocked_until)
    return (mine - now) / 1000


def blocked_for(tx: Connection, account: str, now: int) -> float:
    """Seconds until the vendor wants to hear from this account again; 0 when it may be called."""
    _, blocked_until = _bucket(tx, account)
    return max(0, blocked_until - now) / 1000 if blocked_until <= now + DAY_MS else 0.0


def block(tx: Connection, account: str, until: int) -> None:
    """The vendor said "too much": everybody on the account waits until then."""
    next_at, blocked_until = _bucket(tx, account)
    _keep(tx, account, next_at, max(blocked_until, until))


def _bucket(tx: Connection, account: str) -> tuple[int, int]:
    row = tx.execute(_BUCKET, {"account": account}).one_or_none()
    return (0, 0) if row is None else (row[0], row[1])


_BUCKET = (  # made once: it is looked at before every message
    select(rate_buckets.c.next_at, rate_buckets.c.blocked_until)
    .where(rate_buckets.c.account == bindparam("account"))
    .with_for_update()
)


def _keep(tx: Connection, account: str, next_at: int, blocked_until: int) -> None:
    tx.execute(
        text(
            "INSERT INTO rate_buckets (account, next_at, blocked_until) VALUES (:account, :next_at, :blocked_until)"
            " ON CONFLICT (account) DO UPDATE SET"
            " next_at = excluded.next_at, blocked_until = excluded.blocked_until"
        ),
        {"account": account, "next_at": next_at, "blocked_until": blocked_until},
    )
