"""The suppression list: addresses that are never mailed."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import Connection, select, text

from core.storage.schema import suppressions


class SuppressionReason(StrEnum):
    """Why an address is never mailed."""

    HARD_BOUNCE = "hard_bounce"
    COMPLAINT = "complaint"
    MANUAL = "manual"


def suppress(
    tx: Connection, address_hash: bytes | None, reason: SuppressionReason, detail: str, source: str, now: int
) -> None:
    """Never mail this address again. A complaint outlasts a bounce; otherwise the first reason stands."""
    if address_hash is None:
        return
    tx.execute(
        text(
            "INSERT INTO suppressions (address_hash, reason, detail, source, created_at)"
            " VALUES (:address_hash, :reason, :detail, :source, :now)"
            " ON CONFLICT (address_hash) DO UPDATE SET"
            " reason = excluded.reason, detail = excluded.detail, source = excluded.source,"
            " created_at = excluded.created_at"
            " WHERE excluded.reason = 'complaint' AND suppressions.reason <> 'complaint'"
        ),
        {
            "address_hash": address_hash,
            "reason": reason.value,
            "detail": detail[:500],
            "source": source,
            "now": now,
        },
    )


def is_suppressed(tx: Connection, address_hash: bytes) -> bool:
    """Whether this address is on the list."""
    query = select(suppressions.c.reason).where(suppressions.c.address_hash == address_hash)
    return tx.scalar(query) is not None
