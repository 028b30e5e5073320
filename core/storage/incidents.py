"""Incidents: what stops messages or needs a human. One open row per subject."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, Update, null, select, update

from core.storage.schema import incidents


class IncidentKind(StrEnum):
    """`brake`: a campaign stopped itself. `connection`: a vendor refuses us. `declared`: a human said so."""

    BRAKE = "brake"
    CONNECTION = "connection"
    DECLARED = "declared"


@dataclass(frozen=True, slots=True)
class Incident:
    """An open incident. Moments are milliseconds."""

    id: int
    kind: IncidentKind
    campaign_id: int | None
    connection_id: int | None
    company_id: int | None
    reason: str
    opened_at: int


def open_incident(
    tx: Connection,
    kind: IncidentKind,
    reason: str,
    now: int,
    *,
    campaign_id: int | None = None,
    connection_id: int | None = None,
    company_id: int | None = None,
) -> None:
    """Open an incident, or give the open one on the same subject its newest reason."""
    subject = {"campaign_id": campaign_id, "connection_id": connection_id, "company_id": company_id}
    known = tx.execute(_open(kind, subject).values(reason=reason))
    if not known.rowcount:
        tx.execute(incidents.insert().values(kind=kind, reason=reason, opened_at=now, **subject))


def close_incidents(
    tx: Connection,
    kind: IncidentKind,
    now: int,
    *,
    campaign_id: int | None = None,
    connection_id: int | None = None,
    company_id: int | None = None,
) -> int:
    """Close what is open on this subject; returns how many."""
    subject = {"campaign_id": campaign_id, "connection_id": connection_id, "company_id": company_id}
    if kind is IncidentKind.BRAKE:
        del subject["connection_id"]  # a campaign's brake, whichever sender it was on
    return tx.execute(_open(kind, subject).values(closed_at=now)).rowcount


def open_incidents(tx: Connection) -> list[Incident]:
    """What is open, the oldest first."""
    i = incidents.c
    rows = tx.execute(
        select(i.id, i.kind, i.campaign_id, i.connection_id, i.company_id, i.reason, i.opened_at)
        .where(i.closed_at.is_(null()))
        .order_by(i.opened_at, i.id)
    )
    return [Incident(row[0], IncidentKind(row[1]), *row[2:]) for row in rows]


def last_brake_at(tx: Connection, campaign_id: int) -> int:
    """When the last brake of a campaign was let go, or pulled if it still stands; 0 if there never was one."""
    row = tx.execute(
        select(incidents.c.opened_at, incidents.c.closed_at)
        .where(incidents.c.kind == IncidentKind.BRAKE, incidents.c.campaign_id == campaign_id)
        .order_by(incidents.c.id.desc())
        .limit(1)
    ).one_or_none()
    return 0 if row is None else int(row[1] if row[1] is not None else row[0])


def _open(kind: IncidentKind, subject: dict[str, int | None]) -> Update:
    conditions = [incidents.c[name].is_not_distinct_from(value) for name, value in subject.items()]
    return update(incidents).where(incidents.c.kind == kind, incidents.c.closed_at.is_(null()), *conditions)
