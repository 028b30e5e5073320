"""Questions to the ledger that limit how many may be reserved at once."""

from __future__ import annotations

from sqlalchemy import Connection, func, select, text

from core.clock import DAY_MS, MINUTE_MS
from core.storage.schema import deliveries, touches
from core.touches import TouchState
from core.workspace import Brakes


def reserved_since(tx: Connection, campaign_id: int, since: int) -> int:
    """How many of a campaign were reserved since a moment and not returned."""
    return int(
        tx.scalar(
            select(func.count())
            .select_from(touches)
            .where(
                touches.c.campaign_id == campaign_id,
                touches.c.source == "boucle",
                touches.c.reserved_at >= since,
                touches.c.state != TouchState.RETURNED,
            )
        )
        or 0
    )


def first_wave_left(tx: Connection, brakes: Brakes, now: int) -> int | None:
    """How many more the workspace's first live wave may ask now; None once it has shown itself harmless.

    The first `brakes.first_wave` go at once, the others `first_wave_minutes` after the last of those was reserved.
    """
    if brakes.first_wave == 0:
        return None
    asked = list(
        tx.scalars(
            select(touches.c.reserved_at)
            .where(touches.c.source == "boucle", touches.c.state != TouchState.RETURNED)
            .order_by(touches.c.id)
            .limit(brakes.first_wave)
        )
    )
    if len(asked) < brakes.first_wave:
        return brakes.first_wave - len(asked)
    return None if now >= max(asked) + brakes.first_wave_minutes * MINUTE_MS else 0


def sending_capacity(tx: Connection, connection_id: int, per_second: float | None) -> int | None:
    """How many more a sender can hand over in 24 h beside what already waits; None: nobody set a pace."""
    if not per_second:
        return None
    waiting = tx.scalar(
        select(func.count())
        .select_from(deliveries)
        .where(
            deliveries.c.connection_id == connection_id,
            deliveries.c.kind == "send",
            text("state IN ('ready', 'sending')"),  # word for word as in the partial index
        )
    )
    return max(0, int(per_second * DAY_MS / 1000) - int(waiting or 0))


def answer_history(tx: Connection, campaign_id: int) -> tuple[int, int]:
    """(answered, all whose window has had its outcome) of a campaign: its own response rate so far."""
    ended = (TouchState.ANSWERED, TouchState.DECLINED, TouchState.SILENT)
    counted = {
        key: value
        for key, value in tx.execute(
            select(touches.c.state, func.count())
            .where(touches.c.campaign_id == campaign_id, touches.c.source == "boucle", touches.c.state.in_(ended))
            .group_by(touches.c.state)
        )
    }
    return counted.get(TouchState.ANSWERED, 0), sum(counted.values())
