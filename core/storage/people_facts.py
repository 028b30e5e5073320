"""Everything known of one person that bears on being asked: for `flask why`, and to hold the planner to its word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from sqlalchemy import Connection, null, or_, select

from core.audience import Audience, matches
from core.clock import from_ms
from core.frequency import Facts, Limits, PastTouch, address_period
from core.storage.schema import (
    campaigns,
    companies,
    connections,
    follow_ups,
    identities,
    incidents,
    message_guard,
    people,
    suppressions,
    touches,
    waves,
)
from core.touches import TouchState
from core.waves import zone_now


@dataclass(frozen=True, slots=True)
class TouchRow:
    """One touch of a person, with names instead of numbers."""

    campaign: str | None
    wave: int | None
    source: str
    origin: str
    state: str
    reserved_at: int | None
    handed_over_at: int | None
    asked_at: int
    answered_at: int | None
    declined_at: int | None
    returned_at: int | None
    reason: str
    detail: str
    anonymous: bool


def touch_rows(tx: Connection, person_id: int) -> list[TouchRow]:
    """Every touch of a person, the latest first."""
    t = touches.c
    rows: Any = tx.execute(
        select(
            campaigns.c.name, waves.c.number, t.source, t.origin, t.state, t.reserved_at, t.handed_over_at, t.asked_at,
            t.answered_at, t.declined_at, t.returned_at, t.reason, t.detail, campaigns.c.anonymous,
        )
        .select_from(
            touches.outerjoin(campaigns, campaigns.c.id == t.campaign_id).outerjoin(waves, waves.c.id == t.wave_id)
        )
        .where(t.person_id == person_id)
        .order_by(t.asked_at.desc(), t.id.desc())
    )  # fmt: skip
    return [TouchRow(*row) for row in rows]


def record_rows(tx: Connection, person_id: int) -> list[Any]:
    """The records of a person: connection name, external id, address, company, whether shared, opted out, gone."""
    i = identities.c
    return list(
        tx.execute(
            select(*i, connections.c.name.label("connection"), companies.c.name.label("company"))
            .select_from(
                identities.join(connections, connections.c.id == i.connection_id).outerjoin(
                    companies, companies.c.id == i.company_id
                )
            )
            .where(i.person_id == person_id)
            .order_by(i.id)
        )
    )


def load_facts(
    tx: Connection,
    person_id: int,
    identity_id: int,
    limit: Limits,
    audience: Audience,
    zone: ZoneInfo,
    now: int,
    quiet_until: int | None = None,
) -> Facts:
    """The facts of one person, asked through one of their records."""
    record = next(row for row in record_rows(tx, person_id) if row.id == identity_id)
    person = tx.execute(select(people).where(people.c.id == person_id)).one()
    here = ZoneInfo(record.time_zone) if record.time_zone in available_timezones() else zone
    at = zone_now(here, None, now)
    held = max(person.hold_until or 0, person.quarantine_until or 0)
    return Facts(
        in_audience=matches(audience, _as_mapping(record)),
        has_address=record.address_hash is not None,
        suppressed=_is_suppressed(tx, record.address_hash),
        opted_out=person.opted_out_at is not None or person.source_opted_out,
        shared_until=_shared_until(tx, record, limit) if record.shared else None,
        incident=_in_incident(tx, record.company_id),
        hold_until=held or None,
        quiet_until=quiet_until,
        open_follow_up=_has_open_follow_up(tx, person_id),
        last_message_at=tx.scalar(
            select(message_guard.c.last_message_at).where(message_guard.c.identity_id == identity_id)
        ),
        local_date=at.local_date,
        next_local_day_at=at.next_day_at,
        customer_since=record.customer_since,
        touches=_past_touches(tx, person_id),
    )


def _as_mapping(record: Any) -> dict[str, Any]:
    since = None if record.customer_since is None else from_ms(record.customer_since).date().isoformat()
    fields = ("email", "first_name", "last_name", "company", "language", "country", "time_zone", "phone", "owner")
    return {**record.attributes, **{name: getattr(record, name) for name in fields}, "customer_since": since}


def _past_touches(tx: Connection, person_id: int) -> Sequence[PastTouch]:
    t = touches.c
    rows = tx.execute(
        select(
            t.type, t.state, t.asked_at, t.campaign_id, t.answered_at, t.declined_at, t.window_closes_at,
            t.asked_local_date,
        ).where(t.person_id == person_id)
    )  # fmt: skip
    return [PastTouch(row[0], TouchState(row[1]), *row[2:]) for row in rows]


def _is_suppressed(tx: Connection, address_hash: bytes | None) -> bool:
    return address_hash is not None and bool(
        tx.scalar(select(suppressions.c.reason).where(suppressions.c.address_hash == address_hash))
    )


def _in_incident(tx: Connection, company_id: int | None) -> bool:
    declared = select(incidents.c.id).where(
        incidents.c.kind == "declared",
        incidents.c.closed_at.is_(null()),
        or_(incidents.c.company_id.is_(null()), incidents.c.company_id == company_id),
    )
    return tx.scalar(declared.limit(1)) is not None


def _has_open_follow_up(tx: Connection, person_id: int) -> bool:
    open_ = select(follow_ups.c.id).where(follow_ups.c.person_id == person_id, follow_ups.c.closed_at.is_(null()))
    return tx.scalar(open_.limit(1)) is not None


def _shared_until(tx: Connection, record: Any, limit: Limits) -> int | None:
    t = touches.c
    others = tx.execute(
        select(t.campaign_id, t.type, t.asked_at).where(
            t.address_hash == record.address_hash,
            t.state != TouchState.RETURNED,
            or_(t.person_id != record.person_id, t.person_id.is_(null())),
        )
    )

    return max((asked + address_period(limit, campaign, type_) for campaign, type_, asked in others), default=None)
