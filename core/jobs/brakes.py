"""Brakes: a campaign whose mail goes wrong pauses itself and tells an admin, before it has asked everybody.

Looked at whenever a bounce, a complaint or a refusal is written down, in that same transaction.
"""

from __future__ import annotations

from collections.abc import Iterable

from core.storage import brakes, incidents
from core.storage.incidents import IncidentKind
from core.storage.store import Transaction
from core.workspace import Brakes

#: The share of how many messages is looked at, and how few are too few to speak of a share.
LAST_SENDS = 500
ENOUGH_SENDS = 50


def check(tx: Transaction, campaign_ids: Iterable[int], limits: Brakes, now: int) -> list[str]:
    """Pause those of these campaigns that must stop; returns a sentence for each."""
    stopped = []
    for campaign_id in sorted(set(campaign_ids)):
        since = incidents.last_brake_at(tx, campaign_id)
        record = brakes.last_sends(tx, campaign_id, since, LAST_SENDS)
        reason = why_stop(record, limits)
        if reason and brakes.pause(tx, campaign_id, reason, now):
            incidents.open_incident(tx, IncidentKind.BRAKE, reason, now, campaign_id=campaign_id)
            stopped.append(reason)
    return stopped


def why_stop(record: brakes.Record, limits: Brakes) -> str | None:
    """The reason to pause, in a sentence, or None."""
    if limits.refusals and record.refusals >= limits.refusals:
        return f"Paused: the sender refused {record.refusals} messages in a row; read their errors before resuming."
    if record.sends < ENOUGH_SENDS:
        return None
    if limits.bounce_share and record.bounces > limits.bounce_share * record.sends:
        return _over("bounced", record.bounces, record.sends, limits.bounce_share)
    if limits.complaint_share and record.complaints > limits.complaint_share * record.sends:
        return _over("were reported as spam", record.complaints, record.sends, limits.complaint_share)
    return None


def _over(what: str, count: int, sends: int, limit: float) -> str:
    return (
        f"Paused: {count} of the last {sends} messages {what} ({count / sends:.1%}, the limit is {limit:.1%});"
        " check the list of addresses before resuming."
    )


def release(tx: Transaction, campaign_id: int, now: int) -> None:
    """An admin resumes the campaign: what happened until now is no longer held against it."""
    incidents.close_incidents(tx, IncidentKind.BRAKE, now, campaign_id=campaign_id)
