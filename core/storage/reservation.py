"""Taking the quota: reservations are made in batches under the workspace's reservation lock and re-checked there.

How two waves cannot both win (FREQUENCY.md): the transaction's first statement takes the lock, the next one evaluates
every clock, the company's share and the day's limit again for the batch, and only then rows are written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    Select,
    Table,
    Text,
    func,
    literal,
    null,
    select,
)

from core.deliveries import DeliveryKind, DeliveryState, invite_key
from core.frequency import Rule
from core.ids import public_id, survey_token, token_hash
from core.storage.pacing import company_shares
from core.storage.planning import Scope, create_zones, decision_rows
from core.storage.schema import deliveries, identities, survey_links, touches
from core.touches import TouchState
from core.waves import expires_at, zone_now
from core.zones import zone_of

#: FREQUENCY.md allows 500; half of it holds the lock for some 25 ms, so that a page never waits for long.
BATCH = 250

temporary = MetaData()
batch_table = Table("plan_batch", temporary, Column("identity_id", Integer, primary_key=True), prefixes=["TEMPORARY"])

#: What a batch reserves, put together here so that three statements copy it where it belongs.
fresh = Table(
    "plan_fresh",
    temporary,
    Column("touch_id", Integer, primary_key=True),
    Column("public_id", Text),
    Column("person_id", Integer),
    Column("identity_id", Integer),
    Column("company_id", Integer),
    Column("address_hash", LargeBinary),
    Column("local_date", Text),
    Column("token_hash", LargeBinary),
    Column("key", Text),
    Column("payload", JSON),
    Column("expires_at", BigInteger),
    prefixes=["TEMPORARY"],
)


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


@dataclass(frozen=True, slots=True)
class Recheck:
    """The statements that look again, made once per plan: to make one takes as long as to run it."""

    scope: Scope
    decisions: tuple[Select[Any], ...]  # one per source
    shares: Select[Any]


def prepare(tx: Connection, scope: Scope) -> Recheck:
    """Make the temporary tables that the batches of this connection use, and the statements."""
    create_zones(tx, replace(scope, window=None))  # hours are the plan's; what is checked again is the local day
    temporary.drop_all(tx)
    temporary.create_all(tx)
    only = identities.c.id.in_(select(batch_table.c.identity_id))
    companies = select(identities.c.company_id).distinct().where(only, identities.c.company_id.is_not(null()))
    return Recheck(
        scope,
        tuple(decision_rows(tx, scope, source, only) for source in scope.sources),
        company_shares(scope.limits.company_share, companies),
    )


def reserve(tx: Connection, recheck: Recheck, quota: Quota, identity_ids: Sequence[int], now: int) -> Reserved:
    """Reserve as many of `identity_ids` (in order, at most BATCH) as every rule allows at this moment.

    `tx` must be a `reservation()` transaction of the session on which `prepare` has run.
    """
    if len(identity_ids) > BATCH:
        raise ValueError(f"a batch has at most {BATCH} people, not {len(identity_ids)}")
    allowed, refused = _still_allowed(tx, recheck, identity_ids, now)
    left = _left_today(tx, quota)
    allowed, over_share = _within_shares(tx, recheck, allowed, now)
    refused[Rule.COMPANY_SHARE] += over_share
    if left is not None and len(allowed) > left:
        refused[Rule.DAILY_LIMIT] += len(allowed) - left
        allowed = allowed[:left]
    if allowed:
        _write(tx, recheck.scope, quota, allowed, now)
    return Reserved(len(allowed), +refused)


def _still_allowed(
    tx: Connection, recheck: Recheck, identity_ids: Sequence[int], now: int
) -> tuple[list[Any], Counter[str]]:
    """The rows that every clock still allows, in the order asked for, and the others counted by rule."""
    tx.execute(batch_table.delete())
    tx.execute(batch_table.insert(), [{"identity_id": identity} for identity in identity_ids])
    found: dict[int, Any] = {}
    refused: Counter[str] = Counter()
    addresses: set[bytes] = set()
    people: set[int] = set()
    for statement in recheck.decisions:
        for row in tx.execute(statement, {"now": now}).all():
            person_id, identity_id, _company, rule, _until, _last, shared, address = row
            if rule is None and shared and address in addresses:
                rule = Rule.SHARED_MAILBOX
            if rule is not None:
                refused[rule] += 1
            elif person_id not in people:
                found[identity_id] = row
                people.add(person_id)
                if shared:
                    addresses.add(address)
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


def _within_shares(tx: Connection, recheck: Recheck, rows: list[Any], now: int) -> tuple[list[Any], int]:
    if all(row.company_id is None for row in rows):
        return rows, 0
    free = {company: left for company, left, _ in tx.execute(recheck.shares, {"now": now}).all()}
    kept = []
    for row in rows:
        if row.company_id is None:
            kept.append(row)
        elif free[row.company_id] > 0:
            free[row.company_id] -= 1
            kept.append(row)
    return kept, len(rows) - len(kept)


def _write(tx: Connection, scope: Scope, quota: Quota, rows: list[Any], now: int) -> None:
    tx.execute(fresh.delete())
    tx.execute(fresh.insert(), list(_fresh_rows(tx, scope, rows, now)))
    f = fresh.c
    same_for_all = {
        "campaign_id": literal(quota.campaign_id),
        "wave_id": literal(quota.wave_id),
        "type": literal(quota.type),
        "source": literal("boucle"),
        "state": literal(TouchState.RESERVED.value),
        "reserved_at": literal(now, BigInteger),
        "asked_at": literal(now, BigInteger),
        "window_closes_at": literal(now + quota.window_ms, BigInteger),
    }
    of_each = {
        "id": f.touch_id, "public_id": f.public_id, "person_id": f.person_id, "identity_id": f.identity_id,
        "company_id": f.company_id, "address_hash": f.address_hash, "asked_local_date": f.local_date,
    }  # fmt: skip
    _copy(tx, touches, {**of_each, **same_for_all})
    _copy(tx, survey_links, {"token_hash": f.token_hash, "touch_id": f.touch_id, "kind": literal("invite")})
    send = {
        "kind": literal(DeliveryKind.SEND.value),
        "connection_id": literal(quota.sender_id),
        "state": literal(DeliveryState.READY.value),
        "due_at": literal(now, BigInteger),
        "created_at": literal(now, BigInteger),
    }
    of_each = {"key": f.key, "touch_id": f.touch_id, "payload": f.payload, "expires_at": f.expires_at}
    _copy(tx, deliveries, {**of_each, **send})


def _copy(tx: Connection, table: Table, values: Mapping[str, Any]) -> None:
    rows = select(*values.values()).order_by(fresh.c.touch_id)
    tx.execute(table.insert().from_select(list(values), rows, include_defaults=False))


def _fresh_rows(tx: Connection, scope: Scope, rows: list[Any], now: int) -> Iterator[dict[str, Any]]:
    first_id = (tx.scalar(select(func.max(touches.c.id))) or 0) + 1
    addresses = _addresses(tx)
    expiry: dict[ZoneInfo, int] = {}
    local_date: dict[ZoneInfo, str] = {}
    for touch_id, row in enumerate(rows, first_id):
        name, token = public_id(), survey_token()
        time_zone, address = addresses[row.identity_id]
        zone = zone_of(time_zone, scope.zone)
        if zone not in expiry:
            expiry[zone] = expires_at(zone, scope.window, now)
            local_date[zone] = zone_now(zone, None, now).local_date
        yield {
            "touch_id": touch_id,
            "public_id": name,
            "person_id": row.person_id,
            "identity_id": row.identity_id,
            "company_id": row.company_id,
            "address_hash": address,
            "local_date": local_date[zone],
            "token_hash": token_hash("touch", token),
            "key": invite_key(name),
            "payload": {"token": token, "kind": "invite"},
            "expires_at": expiry[zone],
        }


def _addresses(tx: Connection) -> dict[int, tuple[str | None, bytes]]:
    """Time zone and hashed address of the batch's records."""
    statement = select(identities.c.id, identities.c.time_zone, identities.c.address_hash).where(
        identities.c.id.in_(select(batch_table.c.identity_id))
    )
    return {identity: (time_zone, address) for identity, time_zone, address in tx.execute(statement).all()}
