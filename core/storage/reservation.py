"""Taking the quota: reservations are made in batches under the workspace's reservation lock and re-checked there.

How two waves cannot both win (FREQUENCY.md): the transaction's first statement takes the lock, the next one evaluates
every clock, the company's share and the day's limit again for the batch, and only then rows are written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Column, Connection, Integer, MetaData, Table, func, insert, null, select

from core.deliveries import DeliveryKind, DeliveryState, invite_key
from core.frequency import Rule
from core.ids import public_id, survey_token, token_hash
from core.storage.pacing import company_shares
from core.storage.planning import Scope, create_zones, decision_rows
from core.storage.schema import deliveries, identities, survey_links, touches
from core.touches import TouchState
from core.waves import expires_at, zone_now
from core.zones import zone_of

BATCH = 500

temporary = MetaData()
batch_table = Table("plan_batch", temporary, Column("identity_id", Integer, primary_key=True), prefixes=["TEMPORARY"])


@dataclass(frozen=True, slots=True)
class Quota:
    """What a reservation takes from, beside the people's own clocks."""

    wave_id: int
    campaign_id: int
    type: str
    sender_id: int  # the connection that will send
    window_ms: int  # how long answers count, from the moment asked
    daily_limit: int | None
    day_began_at: int  # local midnight of the workspace
    at_most: int | None = None  # what the brakes and the sender's rate leave


@dataclass(frozen=True, slots=True)
class Reserved:
    """What became of a batch: how many were reserved, and the others by the rule that stopped them."""

    touches: int
    refused: Counter[str]


def prepare(tx: Connection, scope: Scope) -> None:
    """Make the temporary tables that the batches of this connection use."""
    create_zones(tx, scope)
    batch_table.drop(tx, checkfirst=True)
    batch_table.create(tx)


def reserve(tx: Connection, scope: Scope, quota: Quota, identity_ids: Sequence[int]) -> Reserved:
    """Reserve as many of `identity_ids` (in order, at most BATCH) as every rule allows at this moment.

    `tx` must be a `reservation()` transaction of a session on which `prepare` has run.
    """
    if len(identity_ids) > BATCH:
        raise ValueError(f"a batch has at most {BATCH} people, not {len(identity_ids)}")
    allowed, refused = _recheck(tx, scope, identity_ids)
    left = _left_today(tx, quota)
    allowed, over_share = _within_shares(tx, scope, allowed)
    refused[Rule.COMPANY_SHARE] += over_share
    if left is not None and len(allowed) > left:
        refused[Rule.DAILY_LIMIT] += len(allowed) - left
        allowed = allowed[:left]
    if allowed:
        _write(tx, scope, quota, allowed)
    return Reserved(len(allowed), +refused)


def _recheck(tx: Connection, scope: Scope, identity_ids: Sequence[int]) -> tuple[list[Any], Counter[str]]:
    """The rows that every clock still allows, in the order asked for, and the others counted by rule."""
    tx.execute(batch_table.delete())
    tx.execute(batch_table.insert(), [{"identity_id": identity} for identity in identity_ids])
    only = identities.c.id.in_(select(batch_table.c.identity_id))
    found: dict[int, Any] = {}
    refused: Counter[str] = Counter()
    addresses: set[bytes] = set()
    for source in scope.sources:
        for row in tx.execute(decision_rows(tx, scope, source, only)):
            person_id, identity_id, _company, rule, _until, _last, shared, address = row
            if rule is None and shared and address in addresses:
                rule = Rule.SHARED_MAILBOX
            if rule is None and shared:
                addresses.add(address)
            if rule is None and person_id not in found:
                found[identity_id] = row
            elif rule is not None:
                refused[rule] += 1
    return [found[identity] for identity in identity_ids if identity in found], refused


def _left_today(tx: Connection, quota: Quota) -> int | None:
    left = quota.at_most
    if quota.daily_limit is not None:
        today = tx.scalar(
            select(func.count())
            .select_from(touches)
            .where(
                touches.c.campaign_id == quota.campaign_id,
                touches.c.source == "boucle",
                touches.c.reserved_at >= quota.day_began_at,
                touches.c.state != TouchState.RETURNED,
            )
        )
        still = max(0, quota.daily_limit - (today or 0))
        left = still if left is None else min(left, still)
    return left


def _within_shares(tx: Connection, scope: Scope, rows: list[Any]) -> tuple[list[Any], int]:
    companies = {row.company_id for row in rows if row.company_id is not None}
    if not companies:
        return rows, 0
    concerned = (
        select(identities.c.company_id)
        .distinct()
        .where(identities.c.id.in_(select(batch_table.c.identity_id)), identities.c.company_id.is_not(null()))
    )
    free = {row[0]: row[1] for row in tx.execute(company_shares(scope.limits.company_share, scope.now, concerned))}
    kept = []
    for row in rows:
        if row.company_id is None:
            kept.append(row)
        elif free[row.company_id] > 0:
            free[row.company_id] -= 1
            kept.append(row)
    return kept, len(rows) - len(kept)


def _write(tx: Connection, scope: Scope, quota: Quota, rows: list[Any]) -> None:
    first_id = (tx.scalar(select(func.max(touches.c.id))) or 0) + 1
    expiry: dict[ZoneInfo, int] = {}
    new_touches, new_links, new_deliveries = [], [], []
    local_date: dict[ZoneInfo, str] = {}
    time_zones = _time_zones(tx)
    for touch_id, row in enumerate(rows, first_id):
        name, token = public_id(), survey_token()
        zone = zone_of(time_zones.get(row.identity_id), scope.zone)
        if zone not in expiry:
            expiry[zone] = expires_at(zone, scope.window, scope.now)
            local_date[zone] = zone_now(zone, None, scope.now).local_date
        new_touches.append(
            {
                "id": touch_id,
                "public_id": name,
                "person_id": row.person_id,
                "identity_id": row.identity_id,
                "company_id": row.company_id,
                "address_hash": row.address_hash,
                "asked_local_date": local_date[zone],
            }
        )
        new_links.append({"token_hash": token_hash("touch", token), "touch_id": touch_id})
        new_deliveries.append(
            {
                "key": invite_key(name),
                "touch_id": touch_id,
                "payload": {"token": token, "kind": "invite"},
                "expires_at": expiry[zone],
            }
        )
    tx.execute(
        insert(touches).values(
            campaign_id=quota.campaign_id,
            wave_id=quota.wave_id,
            type=quota.type,
            source="boucle",
            state=TouchState.RESERVED,
            reserved_at=scope.now,
            asked_at=scope.now,
            window_closes_at=scope.now + quota.window_ms,
        ),
        new_touches,
    )
    tx.execute(insert(survey_links).values(kind="invite"), new_links)
    tx.execute(
        insert(deliveries).values(
            kind=DeliveryKind.SEND,
            connection_id=quota.sender_id,
            state=DeliveryState.READY,
            due_at=scope.now,
            created_at=scope.now,
        ),
        new_deliveries,
    )


def _time_zones(tx: Connection) -> dict[int, str]:
    statement = select(identities.c.id, identities.c.time_zone).where(
        identities.c.id.in_(select(batch_table.c.identity_id)), identities.c.time_zone.is_not(null())
    )
    return {key: value for key, value in tx.execute(statement)}
