"""Waves and the decisions of their plans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Integer,
    Text,
    and_,
    bindparam,
    case,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    type_coerce,
    update,
)
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from core.frequency import PACING, Rule
from core.storage.planning import decided
from core.storage.schema import decisions, identities, waves
from core.waves import WavePlan

#: Decisions written per transaction: some 10 ms, so that no page waits for a plan.
CHUNK = 5_000


def find_wave(tx: Connection, campaign_id: int, plan: WavePlan) -> Any:
    """The row of a wave, or None. A wave is known by the moment it opened.

    Its number may be another's: when a campaign's start or cadence is changed the count of `plan` begins anew, and who
    was asked in the old first wave has not been asked in the new one. Nor is a wave opened again that others followed,
    or whose anonymous answers have been read.
    """
    latest = tx.execute(
        select(waves).where(waves.c.campaign_id == campaign_id).order_by(waves.c.number.desc()).limit(1)
    ).first()
    return latest if latest is not None and latest.opens_at == plan.opens_at and not latest.unsealed_at else None


def is_open(row: Any, plan: WavePlan) -> bool:
    """Whether a wave stands as it should."""
    return row is not None and (row.ends_at, row.state) == (plan.ends_at, "open")


def open_wave(tx: Connection, campaign_id: int, plan: WavePlan) -> Any:
    """The row of the wave that is open now, made if need be; every other one of the campaign is closed."""
    row = find_wave(tx, campaign_id, plan)
    if is_open(row, plan):
        return row
    close_waves(tx, campaign_id)
    if row is None:
        highest = tx.scalar(select(func.max(waves.c.number)).where(waves.c.campaign_id == campaign_id)) or 0
        tx.execute(
            insert(waves).values(
                campaign_id=campaign_id,
                number=max(plan.number, highest + 1),
                opens_at=plan.opens_at,
                ends_at=plan.ends_at,
                counts={},
            )
        )
    else:
        tx.execute(
            update(waves).where(waves.c.id == row.id).values(ends_at=plan.ends_at, state="open", next_plan_at=None)
        )
    return find_wave(tx, campaign_id, plan)


def open_campaigns(tx: Connection) -> set[int]:
    """Campaigns with a wave that is open."""
    return set(tx.scalars(select(waves.c.campaign_id).where(waves.c.state == "open")))


def close_waves(tx: Connection, campaign_id: int) -> None:
    """No wave of the campaign is open any more."""
    tx.execute(update(waves).where(waves.c.campaign_id == campaign_id, waves.c.state == "open").values(state="closed"))


def counts(tx: Connection) -> Counter[str]:
    """How many people the plan just made decided, by rule; "asked" are those it chose."""
    rows = tx.execute(select(decided.c.rule, func.count()).group_by(decided.c.rule))
    return Counter({rule or "asked": number for rule, number in rows})


def dropped(tx: Connection, campaign_id: int, wave_id: int) -> Counter[str]:
    """How many people earlier plans of this wave dropped for good, by rule (`blocked = "skip"`)."""
    rows = tx.execute(
        select(decisions.c.rule, func.count())
        .where(decisions.c.campaign_id == campaign_id, decisions.c.wave_id == wave_id, decisions.c.state == "dropped")
        .group_by(decisions.c.rule)
    )
    return Counter({rule: number for rule, number in rows if rule is not None})


def dropped_people(tx: Connection, campaign_id: int, wave_id: int, limit: int | None = None) -> Sequence[Any]:
    """Rows (person_id, email, rule, until) of those whom earlier plans of this wave dropped for good, by person."""
    return tx.execute(
        select(decisions.c.person_id, func.min(identities.c.email).label("email"), decisions.c.rule, decisions.c.until)
        .join(identities, identities.c.person_id == decisions.c.person_id)
        .where(
            decisions.c.campaign_id == campaign_id,
            decisions.c.wave_id == wave_id,
            decisions.c.state == "dropped",
            decisions.c.rule.is_not(null()),
            identities.c.gone_at.is_(null()),
        )
        .group_by(decisions.c.person_id, decisions.c.rule, decisions.c.until)
        .order_by(decisions.c.person_id)
        .limit(limit)
    ).all()


def asked(tx: Connection, limit: int | None = None) -> Sequence[Any]:
    """Rows (person_id, email) of those the plan just made chose, by person."""
    return _decided_people(tx, decided.c.rule.is_(null()), limit)


def not_asked(tx: Connection, limit: int | None = None) -> Sequence[Any]:
    """Rows (person_id, email, rule, until) of those the plan just made did not choose, by person."""
    return _decided_people(tx, decided.c.rule.is_not(null()), limit)


def _decided_people(tx: Connection, which: Any, limit: int | None) -> Sequence[Any]:
    return tx.execute(
        select(decided.c.person_id, identities.c.email, decided.c.rule, decided.c.until)
        .join(identities, identities.c.id == decided.c.identity_id)
        .where(which)
        .order_by(decided.c.person_id)
        .limit(limit)
    ).all()


def earliest_free(tx: Connection, after: int) -> int | None:
    """When the first of the blocked people is free."""
    earliest: int | None = tx.scalar(select(func.min(decided.c.until)).where(decided.c.until > after))
    return earliest


def remember_plan(tx: Connection, wave_id: int, counted: Counter[str], planned_at: int, next_plan_at: int) -> None:
    """Keep a plan's counts per rule, and when the next one is due."""
    not_asked = {rule: number for rule, number in sorted(counted.items()) if rule != "asked"}
    tx.execute(
        update(waves)
        .where(waves.c.id == wave_id)
        .values(
            planned_at=planned_at,
            next_plan_at=next_plan_at,
            counts={"asked": counted["asked"], "not_asked": not_asked},
        )
    )


def replan(tx: Connection) -> None:
    """Something the plans depend on has changed: they are made again at once."""
    tx.execute(update(waves).where(waves.c.state == "open").values(next_plan_at=None))


def people_range(tx: Connection) -> tuple[int, int]:
    """The lowest and highest person decided on; (0, -1) where there is nobody."""
    low, high = tx.execute(select(func.min(decided.c.person_id), func.max(decided.c.person_id))).one()
    return (0, -1) if low is None else (low, high)


def changes(tx: Connection, campaign_id: int, wave_id: int, ends_at: int, waits: bool, now: int) -> Any:
    """The statement that stores the decisions that differ from what is stored, of the people from :low to :high.

    It is executed many times and made once. What only paces the wave (company share, limit, hour) is stored as planned,
    without a date, else a drip would rewrite everybody every day. People outside the audience are stored only if they
    were inside before.
    """
    state = _state(ends_at, waits)
    paces = decided.c.rule.in_([rule.value for rule in PACING])
    rule = case((paces, null()), else_=decided.c.rule)
    until = case((paces, null()), else_=decided.c.until)
    is_new = decisions.c.person_id.is_(null())
    changed = case(
        (is_new, func.coalesce(decided.c.rule, "") != Rule.NOT_IN_AUDIENCE.value),
        else_=or_(
            decisions.c.rule.is_distinct_from(rule),
            decisions.c.until.is_distinct_from(until),
            decisions.c.state != state,
            # who is planned is planned in this wave; rows that merely stay dropped are not touched
            and_(decisions.c.wave_id != wave_id, literal(not waits) | (state == "planned")),
        ),
    )
    known = and_(decisions.c.campaign_id == campaign_id, decisions.c.person_id == decided.c.person_id)
    rows = (
        select(
            literal(campaign_id, Integer),
            decided.c.person_id,
            literal(wave_id, Integer),
            state,
            rule,
            until,
            literal(now, BigInteger),
        )
        .select_from(decided.outerjoin(decisions, known))
        .where(decided.c.person_id.between(bindparam("low"), bindparam("high")), changed)
    )
    names = ["campaign_id", "person_id", "wave_id", "state", "rule", "until", "changed_at"]
    new: Any = sqlite_insert(decisions) if tx.dialect.name == "sqlite" else postgresql_insert(decisions)
    statement = new.from_select(names, rows)
    values = {name: statement.excluded[name] for name in names[2:]}
    return statement.on_conflict_do_update(index_elements=["campaign_id", "person_id"], set_=values)


def store_changes(tx: Connection, statement: Any, people: range) -> int:
    """Store the changed decisions on `people`, a range of ids; returns how many."""
    return tx.execute(statement, {"low": people.start, "high": people.stop - 1}).rowcount


def _state(ends_at: int, waits: bool) -> Any:
    """Planned: may be asked in this wave, now or when free. Dropped: not in this wave."""
    pacing = decided.c.rule.in_([rule.value for rule in PACING if rule is not Rule.SAMPLE])
    in_time = and_(decided.c.until.is_not(null()), decided.c.until < ends_at)
    if not waits:
        pacing = decided.c.rule.in_([Rule.DAILY_LIMIT.value, Rule.SEND_WINDOW.value])
        # a quiet period stops the wave, not the person: who is blocked shows when it is over
        in_time = and_(in_time, decided.c.rule == Rule.QUIET_PERIOD.value)
    return type_coerce(case((or_(decided.c.rule.is_(null()), pacing, in_time), "planned"), else_="dropped"), Text)
