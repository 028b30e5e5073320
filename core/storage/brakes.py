"""What the brakes look at: how the last messages of a campaign fared."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, and_, exists, or_, select, update

from core.storage.schema import campaigns, suppressions, touches
from core.touches import ReturnReason, TouchState

_LEFT = (TouchState.HANDED_OVER, TouchState.UNKNOWN, TouchState.ANSWERED, TouchState.DECLINED, TouchState.SILENT)
_TURNED_DOWN = (ReturnReason.BOUNCED, ReturnReason.REFUSED)


@dataclass(frozen=True, slots=True)
class Record:
    """The last sends of a campaign, counted. `refusals` is how many of the very last were refused in a row."""

    sends: int
    bounces: int
    complaints: int
    refusals: int


def last_sends(tx: Connection, campaign_id: int, since: int, limit: int) -> Record:
    """The last `limit` messages of a campaign that were handed to its sender after `since`, whenever reserved."""
    complained = exists().where(
        suppressions.c.address_hash == touches.c.address_hash,
        suppressions.c.reason == "complaint",
        suppressions.c.created_at >= touches.c.asked_at,
    )
    rows = tx.execute(
        select(touches.c.state, touches.c.reason, complained)
        .where(
            touches.c.campaign_id == campaign_id,
            touches.c.source == "boucle",
            touches.c.claimed_at > since,
            or_(
                touches.c.state.in_(_LEFT),
                and_(touches.c.state == TouchState.RETURNED, touches.c.reason.in_(_TURNED_DOWN)),
            ),
        )
        .order_by(touches.c.claimed_at.desc(), touches.c.id.desc())
        .limit(limit)
    ).all()
    refusals = next((place for place, row in enumerate(rows) if row[0] != TouchState.RETURNED), len(rows))
    bounces = sum(row[1] == ReturnReason.BOUNCED for row in rows)
    return Record(len(rows), bounces, sum(bool(row[2]) for row in rows), refusals)


def pause(tx: Connection, campaign_id: int, reason: str, now: int) -> bool:
    """Pause a campaign that is active. False if it was not."""
    paused = tx.execute(
        update(campaigns)
        .where(campaigns.c.id == campaign_id, campaigns.c.state == "active")
        .values(state="paused", reason=reason, changed_at=now)
    )
    return bool(paused.rowcount)
