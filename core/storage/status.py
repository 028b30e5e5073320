"""What is going on, in numbers: for `flask status`, the start page, /readyz and /metrics. Cheap: a few counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, func, null, select

from core.clock import from_ms
from core.deliveries import DeliveryState
from core.storage import deliveries, inbox, incidents, leases, write_backs
from core.storage.schema import (
    bad_records,
    campaigns,
    decisions,
    identities,
    responses,
    touches,
    waves,
)
from core.storage.schema import deliveries as schema_deliveries
from core.storage.settings import ConnectionRow, read_connections
from core.touches import TouchState

SWEEP = "sweep"
INBOX_STATES = ("ready", "applying", "done", "failed")


@dataclass(frozen=True, slots=True)
class CampaignNumbers:
    """A campaign at a glance. `counts`: of its last plan, {"asked": n, "not_asked": {rule: n}}."""

    name: str
    state: str
    reason: str
    wave: int | None
    planned_at: int | None
    counts: dict[str, Any]
    touches: dict[str, int]
    asked: int


def status(tx: Connection, now: int, clock_offset: float = 0.0) -> dict[str, Any]:
    """The JSON document of `flask status --json` (DESIGN)."""
    return {
        "touches": touch_counts(tx),
        "deliveries": delivery_counts(tx),
        "inbox": inbox_counts(tx),
        "connections": connection_rows(tx, now),
        "incidents": _incidents(tx),
        "campaigns": [
            {"name": one.name, "state": one.state, "reason": one.reason, "wave": one.wave, "touches": one.touches}
            for one in campaign_numbers(tx)
        ],
        "suspect_answers": suspect_answers(tx),
        "clock_offset": clock_offset,
        "last_sweep_at": _iso(last_sweep_at(tx)),
    }


def touch_counts(tx: Connection) -> dict[str, int]:
    """Touches per state. Those `planned` are decisions of open waves that have taken no quota yet."""
    counted = dict.fromkeys((state.value for state in TouchState), 0)
    counted[TouchState.PLANNED] = planned(tx)
    rows = tx.execute(
        select(touches.c.state, func.count()).where(touches.c.source == "boucle").group_by(touches.c.state)
    )
    counted.update({state: number for state, number in rows})
    return counted


def planned(tx: Connection) -> int:
    """People a wave that is open means to ask, and has not yet."""
    asked = (
        select(touches.c.id)
        .where(
            touches.c.wave_id == decisions.c.wave_id,
            touches.c.person_id == decisions.c.person_id,
            touches.c.state != TouchState.RETURNED,
        )
        .exists()
    )
    return (
        tx.scalar(
            select(func.count())
            .select_from(decisions.join(waves, waves.c.id == decisions.c.wave_id))
            .where(decisions.c.state == "planned", waves.c.state == "open", ~asked)
        )
        or 0
    )


def delivery_counts(tx: Connection) -> dict[str, int]:
    """Deliveries per state."""
    return dict.fromkeys((state.value for state in DeliveryState), 0) | deliveries.counts(tx)


def inbox_counts(tx: Connection) -> dict[str, int]:
    """What came in, per state."""
    return dict.fromkeys(INBOX_STATES, 0) | inbox.counts(tx)


def suspect_answers(tx: Connection) -> int:
    """Answers that wait for a human, because a machine may have given them."""
    return tx.scalar(select(func.count()).select_from(responses).where(responses.c.verdict == "suspect")) or 0


def last_sweep_at(tx: Connection) -> int | None:
    """When a worker last went through everything that is due."""
    lease = leases.read(tx, SWEEP)
    return None if lease is None else lease.finished_at


def campaign_numbers(tx: Connection) -> list[CampaignNumbers]:
    """Every campaign that is not removed."""
    per_campaign: dict[int, dict[str, int]] = {}
    rows = tx.execute(
        select(touches.c.campaign_id, touches.c.state, func.count())
        .where(touches.c.campaign_id.is_not(null()), touches.c.source == "boucle")
        .group_by(touches.c.campaign_id, touches.c.state)
    )
    for campaign_id, state, number in rows:
        per_campaign.setdefault(campaign_id, {})[state] = number
    latest = select(waves.c.campaign_id, func.max(waves.c.number).label("number")).group_by(waves.c.campaign_id)
    newest = latest.subquery()
    joined = campaigns.outerjoin(newest, newest.c.campaign_id == campaigns.c.id).outerjoin(
        waves, and_(waves.c.campaign_id == campaigns.c.id, waves.c.number == newest.c.number)
    )
    c = campaigns.c
    found = tx.execute(
        select(c.id, c.name, c.state, c.reason, waves.c.number, waves.c.planned_at, waves.c.counts)
        .select_from(joined)
        .where(c.state != "removed")
        .order_by(c.id)
    )
    return [
        CampaignNumbers(
            row.name,
            row.state,
            row.reason,
            row.number,
            row.planned_at,
            row.counts or {},
            per_campaign.get(row.id, {}),
            sum(n for state, n in per_campaign.get(row.id, {}).items() if state != TouchState.RETURNED),
        )
        for row in found
    ]


def connection_lag(row: ConnectionRow, now: int) -> float | None:
    """Seconds since a source was last read; None for one that never was."""
    return None if row.synced_at is None else round(max(0, now - row.synced_at) / 1000, 1)


def connection_rows(tx: Connection, now: int) -> list[dict[str, Any]]:
    """Every connection; `missing` is how many of its records do not show our scores and dates yet."""
    behind = write_backs.behind(tx)
    return [
        {
            "name": row.name,
            "kind": row.kind,
            "state": row.state,
            "reason": row.reason,
            "lag_seconds": connection_lag(row, now),
            "missing": behind.get(row.id, 0),
            "records": _count(tx, identities, identities.c.connection_id == row.id, identities.c.gone_at.is_(null())),
            "bad_records": _count(tx, bad_records, bad_records.c.connection_id == row.id),
        }
        for row in read_connections(tx)
    ]


def _count(tx: Connection, table: Any, *conditions: Any) -> int:
    return tx.scalar(select(func.count()).select_from(table).where(*conditions)) or 0


def _incidents(tx: Connection) -> list[dict[str, Any]]:
    names = {row.id: row.name for row in tx.execute(select(campaigns.c.id, campaigns.c.name))}
    connections = {row.id: row.name for row in read_connections(tx)}
    return [
        {
            "kind": one.kind.value,
            "campaign": names.get(one.campaign_id or 0),
            "connection": connections.get(one.connection_id or 0),
            "reason": one.reason,
            "opened_at": _iso(one.opened_at),
        }
        for one in incidents.open_incidents(tx)
    ]


def _iso(ms: int | None) -> str | None:
    return None if ms is None else from_ms(ms).isoformat().replace("+00:00", "Z")


def suspect_rows(tx: Connection, limit: int = 200) -> list[dict[str, Any]]:
    """Answers that a machine may have given, the newest first. Not the person: the score is all a human judges by."""
    rows = tx.execute(
        select(responses.c.id, campaigns.c.name, responses.c.score, responses.c.answered_at, responses.c.signals)
        .join(campaigns, campaigns.c.id == responses.c.campaign_id)
        .where(responses.c.verdict == "suspect")
        .order_by(responses.c.answered_at.desc(), responses.c.id)
        .limit(limit)
    )
    return [
        {"id": row.id, "campaign": row.name, "score": row.score, "answered_at": row.answered_at, "signals": row.signals}
        for row in rows
    ]


def written_back(tx: Connection) -> int:
    """Records that show everything we know of them."""
    d = schema_deliveries.c
    return _count(tx, schema_deliveries, d.kind == "write_back", d.state == "done", d.done_version >= d.wanted_version)
