"""Leases: one holder at a time per name, found free again when the holder dies.

Every taking counts `fence` up, so that a holder who slept through the end of its lease can be told from its successor.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, Update, select, text, update

from core.clock import DAY_MS
from core.processes import is_gone
from core.storage.schema import leases


@dataclass(frozen=True, slots=True)
class Lease:
    """A row of `leases`: `finished_at` is when the work last ran to its end, `due_at` when to try it again."""

    name: str
    owner: str
    lease_until: int
    fence: int
    finished_at: int | None
    due_at: int


def acquire(tx: Connection, name: str, owner: str, now: int, ttl_ms: int) -> int | None:
    """Take the lease until `now + ttl_ms`. Returns its fence, or None while somebody else, or another thread, holds it.

    The lease of a process of this machine that is gone is free at once.
    """
    held = read(tx, name)
    if held is None:
        taken = tx.execute(
            text(
                "INSERT INTO leases (name, owner, lease_until, fence, due_at) VALUES (:name, :owner, :until, 1, 0)"
                " ON CONFLICT (name) DO NOTHING"
            ),
            {"name": name, "owner": owner, "until": now + ttl_ms},
        )
        return 1 if taken.rowcount else None
    if not _is_free(held, now):
        return None
    taken = tx.execute(
        update(leases)
        .where(leases.c.name == name, leases.c.fence == held.fence)
        .values(owner=owner, lease_until=now + ttl_ms, fence=held.fence + 1)
    )
    return held.fence + 1 if taken.rowcount else None


def renew(tx: Connection, name: str, owner: str, fence: int, now: int, ttl_ms: int) -> bool:
    """Hold on until `now + ttl_ms`. False if the lease was taken over: stop, and write nothing more under it."""
    kept = tx.execute(_mine(name, owner, fence).values(lease_until=now + ttl_ms))
    return bool(kept.rowcount)


def release(tx: Connection, name: str, owner: str, fence: int, now: int) -> None:
    """Give the lease back, its work done. Nothing happens if somebody else took it over meanwhile."""
    tx.execute(_mine(name, owner, fence).values(lease_until=0, finished_at=now))


def read(tx: Connection, name: str) -> Lease | None:
    """The lease of this name, if there ever was one."""
    row = tx.execute(select(leases).where(leases.c.name == name)).one_or_none()
    if row is None:
        return None
    return Lease(row.name, row.owner, row.lease_until, row.fence, row.finished_at, row.due_at)


def finish(tx: Connection, name: str, owner: str, now: int) -> None:
    """Note that the work of this name just ran to its end, for work that needs no lease (the sweep)."""
    tx.execute(
        text(
            "INSERT INTO leases (name, owner, lease_until, fence, finished_at, due_at)"
            " VALUES (:name, :owner, 0, 0, :now, 0)"
            " ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, finished_at = excluded.finished_at"
        ),
        {"name": name, "owner": owner, "now": now},
    )


def postpone(tx: Connection, name: str, owner: str, fence: int, due_at: int) -> None:
    """The holder asks that this work is not tried again before `due_at`."""
    tx.execute(_mine(name, owner, fence).values(due_at=due_at))


def _mine(name: str, owner: str, fence: int) -> Update:
    return update(leases).where(leases.c.name == name, leases.c.owner == owner, leases.c.fence == fence)


def _is_free(held: Lease, now: int) -> bool:
    if held.lease_until <= now or held.lease_until > now + DAY_MS:
        return True  # nobody takes a lease for a day: it was taken before the clock was set back
    return is_gone(held.owner)
