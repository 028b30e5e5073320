"""Who did what, when: for people who have to answer for it. No answer and no secret ever stands here."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert

from core.storage.schema import audit


def note(tx: Connection, actor: str, action: str, subject: str, detail: dict[str, Any], now: int) -> None:
    """Write down an act in the transaction that does it."""
    tx.execute(insert(audit).values(at=now, actor=actor, action=action, subject=subject, detail=detail))
