"""What depends on the others of a wave: the company's share, the day's limit, the hour of the day.

Works on the temporary table `plan_decided` that `planning.decide` filled, on the people no other rule stops.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Integer,
    MetaData,
    Select,
    Table,
    and_,
    case,
    distinct,
    func,
    literal,
    null,
    select,
    true,
)

from core.clock import DAY_MS
from core.frequency import Rule, share_ppm
from core.storage.clocks_sql import NOW, zones
from core.storage.planning import Scope, decided
from core.storage.schema import identities, people, touches
from core.touches import TouchState

SHARE_WINDOW_MS = 30 * DAY_MS

temporary = MetaData()

#: The people a wave asks now, in the order they are asked.
chosen = Table(
    "plan_chosen",
    temporary,
    Column("place", Integer, primary_key=True),
    Column("identity_id", Integer),
    Column("person_id", Integer),
    prefixes=["TEMPORARY"],
)

#: Per company with somebody to ask: how many more may be asked, and when the next place is free.
shares = Table(
    "plan_shares",
    temporary,
    Column("company_id", Integer, primary_key=True),
    Column("free", Integer),
    Column("next_free_at", Integer),
    prefixes=["TEMPORARY"],
)


def pace(tx: Connection, scope: Scope, day_limit: int | None, next_day_at: int) -> None:
    """Mark who waits for the company's share, the day's limit or the hour; fill `plan_chosen` with the others.

    `day_limit` is what is left of today's (None: no limit), `next_day_at` when the next day begins.
    """
    _limit_companies(tx, scope)
    _limit_day(tx, scope, day_limit, next_day_at)
    _limit_hours(tx, scope)
    _choose(tx, scope)


def company_shares(share: float, companies: Select[Any]) -> Select[Any]:
    """(company_id, how many more may be asked at `NOW`, when a place is free next) for the companies of a SELECT.

    k = max(1, floor(share x contacts with an address, not opted out)) minus those asked in 30 days, whichever tool
    asked them.
    """
    which = companies.subquery("companies_asked_about")
    company = which.c.company_id
    contacts = (
        select(func.count(distinct(identities.c.person_id)))
        .select_from(identities.join(people, people.c.id == identities.c.person_id))
        .where(
            identities.c.company_id == company,
            identities.c.address_hash.is_not(null()),
            identities.c.gone_at.is_(null()),
            people.c.opted_out_at.is_(null()),
            people.c.source_opted_out.is_not(true()),
        )
        .scalar_subquery()
    )
    asked = and_(
        touches.c.company_id == company,
        touches.c.asked_at > NOW - SHARE_WINDOW_MS,
        touches.c.state != TouchState.RETURNED,
    )
    count_asked = select(func.count(distinct(touches.c.person_id))).where(asked).scalar_subquery()
    oldest = select(func.min(touches.c.asked_at) + SHARE_WINDOW_MS).where(asked).scalar_subquery()
    quota = contacts * share_ppm(share) // 1_000_000
    return select(company, case((quota < 1, 1), else_=quota) - count_asked, oldest)


def share_left(tx: Connection, company_id: int, share: float, now: int) -> tuple[int, int | None]:
    """How many more of one company may be asked now, and when a place is free next."""
    row = tx.execute(company_shares(share, select(literal(company_id).label("company_id"))), {"now": now}).one()
    return int(row[1]), row[2]


def _limit_companies(tx: Connection, scope: Scope) -> None:
    shares.drop(tx, checkfirst=True)
    shares.create(tx)
    concerned = (
        select(decided.c.company_id).distinct().where(decided.c.rule.is_(null()), decided.c.company_id.is_not(null()))
    )
    tx.execute(
        shares.insert().from_select(
            ["company_id", "free", "next_free_at"], company_shares(scope.limits.company_share, concerned)
        ),
        {"now": scope.now},
    )
    place = func.row_number().over(partition_by=decided.c.company_id, order_by=_rotation(scope)).label("place")
    ranked = (
        select(decided.c.person_id, decided.c.company_id, place)
        .where(decided.c.rule.is_(null()), decided.c.company_id.is_not(null()))
        .subquery("ranked")
    )
    over = (
        select(ranked.c.person_id)
        .join(shares, shares.c.company_id == ranked.c.company_id)
        .where(ranked.c.place > shares.c.free)
    )
    next_free = select(shares.c.next_free_at).where(shares.c.company_id == decided.c.company_id).scalar_subquery()
    tx.execute(
        decided.update().where(decided.c.person_id.in_(over)).values(rule=Rule.COMPANY_SHARE.value, until=next_free)
    )


def _limit_day(tx: Connection, scope: Scope, day_limit: int | None, next_day_at: int) -> None:
    if day_limit is None:
        return
    first = (
        select(decided.c.person_id)
        .where(decided.c.rule.is_(null()))
        # those whose send window is open go first: a place kept for a sleeping town would be lost
        .order_by(case((_opens_at(scope).is_(null()), 0), else_=1), *_rotation(scope))
        .limit(max(0, day_limit))
    )
    tx.execute(
        decided.update()
        .where(decided.c.rule.is_(null()), decided.c.person_id.not_in(first))
        .values(rule=Rule.DAILY_LIMIT.value, until=next_day_at)
    )


def _limit_hours(tx: Connection, scope: Scope) -> None:
    if scope.window is None:
        return
    opens_at = _opens_at(scope)
    tx.execute(
        decided.update()
        .where(decided.c.rule.is_(null()), opens_at.is_not(null()))
        .values(rule=Rule.SEND_WINDOW.value, until=opens_at)
    )


def _choose(tx: Connection, scope: Scope) -> None:
    chosen.drop(tx, checkfirst=True)
    chosen.create(tx)
    ordered = (
        select(decided.c.identity_id, decided.c.person_id).where(decided.c.rule.is_(null())).order_by(*_rotation(scope))
    )
    tx.execute(chosen.insert().from_select(["identity_id", "person_id"], ordered))


def _rotation(scope: Scope) -> tuple[ColumnElement[Any], ...]:
    """Never asked first, then least recently asked; equals in an order that is the wave's own, fair to all."""
    opened_at = scope.limits.wave[0] if scope.limits.wave else 0  # known to a preview, too, before the wave has a row
    factor = (2654435761 + opened_at // 1000 * 1597334677) % 4294967291  # of 32 bits, modulo a prime
    shuffle = decided.c.person_id * factor % 4294967291
    return func.coalesce(decided.c.last_asked, 0), shuffle, decided.c.person_id


def _opens_at(scope: Scope) -> ColumnElement[Any]:
    """When the recipient's send window opens next; NULL while it is open."""
    if scope.window is None:
        return null()
    here = zones.c.name.in_((func.coalesce(identities.c.time_zone, ""), ""))  # the record's zone, else the workspace's
    return (
        select(zones.c.opens_at)
        .select_from(identities.join(zones, here))
        .where(identities.c.id == decided.c.identity_id)
        .order_by(zones.c.name.desc())
        .limit(1)
        .correlate(decided)
        .scalar_subquery()
    )


def next_chosen(tx: Connection, after: int, limit: int) -> list[tuple[int, int]]:
    """The next (place, identity) the plan chose, in order."""
    rows = tx.execute(
        select(chosen.c.place, chosen.c.identity_id).where(chosen.c.place > after).order_by(chosen.c.place).limit(limit)
    )
    return [(place, identity) for place, identity in rows]
