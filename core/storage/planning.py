"""The contact-frequency rule in SQL: decides a million people at once, with reasons.

`decide` reads one snapshot and writes its decisions to a TEMP table; nothing else waits for it. The same expression
re-checks a batch under the reservation lock (`core.storage.reservation`) and answers for one person (`free_at`).
`core.frequency` says the same in Python; `tests/storage/test_planning.py` holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    Select,
    Table,
    Text,
    and_,
    case,
    exists,
    func,
    literal,
    null,
    or_,
    select,
    true,
)

from core.audience import Audience
from core.frequency import CLOCKS, RECENT_MS, Limits, Rule
from core.storage.audience_sql import audience_clause
from core.storage.clocks_sql import NOW, clocks_of, greatest, zones
from core.storage.schema import (
    decisions,
    follow_ups,
    identities,
    incidents,
    people,
    suppressions,
    touches,
)
from core.touches import TouchState
from core.waves import ZoneNow, zone_now
from core.workspace import SendWindow

temporary = MetaData()

#: One decision per person: `rule` is None for those who may be asked.
decided = Table(
    "plan_decided",
    temporary,
    Column("person_id", Integer, primary_key=True),
    Column("identity_id", Integer),
    Column("company_id", Integer),
    Column("rule", Text),
    Column("until", BigInteger),
    Column("last_asked", BigInteger),
    Column("shared", Boolean),
    Column("address_hash", LargeBinary),  # of shared mailboxes alone: the others need no room in the table
    prefixes=["TEMPORARY"],
)


Holds = tuple[ColumnElement[bool], Any]  # a rule: when it holds, and until when


@dataclass(frozen=True, slots=True)
class Scope:
    """What one plan is about: whom the campaign may address, and the moment's facts that are the same for everybody."""

    limits: Limits
    sources: Sequence[int]  # connection ids, the first that has an address for a person is asked
    audience: Audience
    now: int
    zone: ZoneInfo
    window: SendWindow | None = None
    quiet_until: int | None = None
    wave_id: int | None = None
    wave_ends_at: int | None = None
    keeps_dropped: bool = False  # blocked = "skip": who was dropped in this wave stays dropped


def decide(tx: Connection, scope: Scope) -> None:
    """Fill the temporary table `plan_decided` (new on this connection) with a decision on every person."""
    create_zones(tx, scope)
    decided.drop(tx, checkfirst=True)
    decided.create(tx)
    for position, connection_id in enumerate(scope.sources):
        rows = decision_rows(tx, scope, connection_id)
        columns = [column.name for column in decided.columns]
        if position == 0:
            tx.execute(decided.insert().from_select(columns, rows), {"now": scope.now})
        else:
            _prefer_askable(tx, scope, rows, columns)
    _one_per_shared_address(tx, scope)
    if scope.wave_id is not None:
        _not_again_in_this_wave(tx, scope, scope.wave_id)


def create_zones(tx: Connection, scope: Scope) -> None:
    """Fill `plan_zones`. Only where a campaign has a send window is every zone of the world needed."""
    zones.drop(tx, checkfirst=True)
    zones.create(tx)
    names = sorted(available_timezones()) if scope.window else _zones_asked_lately(tx, scope)
    rows = [_zone_row("", zone_now(scope.zone, scope.window, scope.now))]
    rows += [_zone_row(name, zone_now(ZoneInfo(name), scope.window, scope.now)) for name in names]
    tx.execute(zones.insert(), rows)


def _zones_asked_lately(tx: Connection, scope: Scope) -> list[str]:
    known = available_timezones()
    # of every record of a person asked lately: the one asked now may lie elsewhere than the one asked then
    lately = (
        select(identities.c.time_zone)
        .distinct()
        .where(
            identities.c.person_id.in_(
                select(touches.c.person_id).where(
                    touches.c.asked_at > scope.now - RECENT_MS, touches.c.asked_local_date.is_not(null())
                )
            )
        )
    )
    return [name for name in tx.scalars(lately) if name in known]


def _zone_row(name: str, at: ZoneNow) -> dict[str, Any]:
    return {"name": name, "local_date": at.local_date, "next_day_at": at.next_day_at, "opens_at": at.opens_at}


def decision_rows(tx: Connection, scope: Scope, connection_id: int, only: Any = None) -> Select[Any]:
    """SELECT of the columns of `plan_decided` for the records of one connection at `NOW`.

    `only` narrows to some records. Such a statement may be kept: it holds every rule, also those that stop nobody yet.
    """
    fixed = _fixed_rules(tx, scope, every=only is not None)
    facts = _facts(tx, scope, connection_id, only, fixed).subquery("facts")
    f = facts.c
    free_at = f.clock // 16
    free_now = free_at <= NOW
    clock = f.clock % 16
    return select(
        f.person_id,
        f.identity_id,
        f.company_id,
        case(
            *((f.fixed == number, literal(rule.value)) for number, rule in enumerate(fixed)),
            (free_now, null()),
            *((clock == _order(rule), literal(rule.value)) for rule in CLOCKS),
        ),
        case(
            *(
                (f.fixed == number, f[_until(rule)] if _until(rule) in f else null())
                for number, rule in enumerate(fixed)
            ),
            (free_now, null()),
            else_=free_at,
        ),
        f.last_asked,
        f.shared,
        case((f.shared, f.address_hash)),
    )


def _order(rule: Rule) -> int:
    """The low four bits of a clock: of two free at the same moment the one named first is reported."""
    return 15 - CLOCKS.index(rule)


def _facts(
    tx: Connection, scope: Scope, connection_id: int | None, only: Any, fixed: Mapping[Rule, Holds]
) -> Select[Any]:
    """One row per person: the first fixed rule that holds, and the latest of the clocks.

    Everything is computed in this one level, because SQLite evaluates an expression of a subquery anew wherever the
    outer query names it, except where the subquery groups.
    """
    i, p, t = identities.c, people.c, touches.c
    statement = (
        select(
            i.person_id,
            i.id.label("identity_id"),
            i.company_id,
            i.address_hash,
            i.shared,
            func.max(t.asked_at).label("last_asked"),
            case(*((holds, number) for number, (holds, _) in enumerate(fixed.values()))).label("fixed"),
            *(until.label(_until(rule)) for rule, (_, until) in fixed.items() if until is not None),
            greatest(*(free * 16 + _order(rule) for rule, free in clocks_of(scope.limits).items())).label("clock"),
        )
        .select_from(
            identities.join(people, p.id == i.person_id).outerjoin(
                touches, and_(t.person_id == i.person_id, t.state != TouchState.RETURNED)
            )
        )
        .where(_of_connection(connection_id), i.is_primary == true(), i.gone_at.is_(null()))
        # the rowid alone keeps SQLite streaming without a sort; PostgreSQL wants to see both keys
        .group_by(*((i.id,) if tx.dialect.name == "sqlite" else (i.id, p.id)))
    )
    if only is not None:
        statement = statement.where(only)
    if scope.keeps_dropped and scope.wave_id is not None:
        statement = statement.where(
            ~exists().where(
                decisions.c.campaign_id == scope.limits.campaign_id,
                decisions.c.person_id == i.person_id,
                decisions.c.wave_id == scope.wave_id,
                decisions.c.state == "dropped",
            )
        )
    return statement


def _of_connection(connection_id: int | None) -> ColumnElement[bool]:
    if connection_id is None:
        return true()
    # "+ 0": the whole table in its own order beats an index into most of it, and needs no sort to group
    return identities.c.connection_id + 0 == connection_id


def _fixed_rules(tx: Connection, scope: Scope, every: bool = False) -> Mapping[Rule, Holds]:
    """The rules reported first, in their order. Unless `every`, what can stop nobody at this moment is left out."""
    i, p = identities.c, people.c
    held = _held_until()
    shared = _shared_until(scope)
    suppressed = exists().where(suppressions.c.address_hash == i.address_hash)
    follow_up = exists().where(follow_ups.c.person_id == i.person_id, follow_ups.c.closed_at.is_(null()))
    declared = and_(incidents.c.kind == "declared", incidents.c.closed_at.is_(null()))
    incident = exists().where(declared, or_(incidents.c.company_id.is_(null()), incidents.c.company_id == i.company_id))
    some_suppressed = every or tx.scalar(select(exists().select_from(suppressions)))
    some_follow_up = every or tx.scalar(select(exists().where(follow_ups.c.closed_at.is_(null()))))
    some_incident = every or tx.scalar(select(exists().where(declared)))
    quiet = scope.quiet_until
    rules: dict[Rule, Holds | None] = {
        Rule.NOT_IN_AUDIENCE: (audience_clause(scope.audience).is_not(true()), None)
        if scope.audience.conditions
        else None,
        Rule.NO_ADDRESS: (i.address_hash.is_(null()), None),
        Rule.SUPPRESSED: (suppressed, None) if some_suppressed else None,
        Rule.OPTED_OUT: (or_(p.opted_out_at.is_not(null()), p.source_opted_out), None),
        Rule.SHARED_MAILBOX: (shared > NOW, shared),
        Rule.INCIDENT: (incident, None) if some_incident else None,
        Rule.HOLD: (held > NOW, held),
        Rule.QUIET_PERIOD: (true(), literal(quiet)) if quiet is not None else None,
        Rule.OPEN_FOLLOW_UP: (follow_up, None) if some_follow_up else None,
    }
    return {rule: holds for rule, holds in rules.items() if holds is not None}


def _until(rule: Rule) -> str:
    return f"{rule}_until"


def _held_until() -> Any:
    return greatest(func.coalesce(people.c.hold_until, 0), func.coalesce(people.c.quarantine_until, 0))


def _shared_until(scope: Scope) -> ColumnElement[int]:
    """The address-level clock of a mailbox of several people: one ask per address per period."""
    there, limit = touches.alias("there"), scope.limits
    t = there.c
    period = greatest(
        literal(limit.any_survey),
        case((t.type == limit.type, limit.same_type), else_=0),
        case((t.campaign_id == limit.campaign_id, limit.same_survey), else_=0),
    )
    others = (
        select(func.max(t.asked_at + period))
        .where(
            t.address_hash == identities.c.address_hash,
            t.state != TouchState.RETURNED,
            or_(t.person_id != identities.c.person_id, t.person_id.is_(null())),
        )
        .correlate(identities)
        .scalar_subquery()
    )
    return case((identities.c.shared, func.coalesce(others, 0)), else_=0)  # looked up for shared ones alone


def _prefer_askable(tx: Connection, scope: Scope, rows: Select[Any], columns: list[str]) -> None:
    """Add the people of a further source; its record is taken where the earlier one cannot be asked at all."""
    staged = Table(
        "plan_staged", MetaData(), *(Column(c.name, c.type) for c in decided.columns), prefixes=["TEMPORARY"]
    )
    staged.drop(tx, checkfirst=True)
    staged.create(tx)
    tx.execute(staged.insert().from_select(columns, rows), {"now": scope.now})
    unaskable = (Rule.NOT_IN_AUDIENCE, Rule.NO_ADDRESS)
    replaced = select(staged.c.person_id).where(or_(staged.c.rule.is_(null()), staged.c.rule.not_in(unaskable)))
    tx.execute(decided.delete().where(decided.c.rule.in_(unaskable), decided.c.person_id.in_(replaced)))
    fresh = select(staged).where(~exists().where(decided.c.person_id == staged.c.person_id))
    tx.execute(decided.insert().from_select(columns, fresh))
    staged.drop(tx)


def _one_per_shared_address(tx: Connection, scope: Scope) -> None:
    """Of several askable people behind one address the least recently asked is taken."""
    rank = (
        func.row_number()
        .over(
            partition_by=decided.c.address_hash,
            order_by=(func.coalesce(decided.c.last_asked, 0), decided.c.person_id),
        )
        .label("place")
    )
    ranked = select(decided.c.person_id, rank).where(decided.c.rule.is_(null()), decided.c.shared == true()).subquery()
    tx.execute(
        decided.update()
        .where(decided.c.person_id.in_(select(ranked.c.person_id).where(ranked.c.place > 1)))
        .values(rule=Rule.SHARED_MAILBOX.value, until=scope.now + scope.limits.same_type)
    )


def _not_again_in_this_wave(tx: Connection, scope: Scope, wave_id: int) -> None:
    """Who was refused or bounced in this wave is left alone until it ends."""
    failed = select(touches.c.person_id).where(
        touches.c.wave_id == wave_id,
        touches.c.state == TouchState.RETURNED,
        touches.c.reason.in_(("bounced", "refused", "suppressed")),
        touches.c.person_id.is_not(null()),
    )
    tx.execute(
        decided.update()
        .where(decided.c.rule.is_(null()), decided.c.person_id.in_(failed))
        .values(rule=Rule.SAME_SURVEY.value, until=scope.wave_ends_at)
    )


def free_at(
    tx: Connection, person_ids: Sequence[int], limits: Limits, zone: ZoneInfo, now: int
) -> dict[int, int | None]:
    """When each person may be asked again by the clocks alone, in the past for those who are free.

    None where no date frees (opted out, suppressed, no address) or no clock has ever started.
    """
    scope = Scope(limits, (), Audience(), now, zone)
    create_zones(tx, scope)
    only = identities.c.person_id.in_(person_ids)
    fixed = {rule: holds for rule, holds in _fixed_rules(tx, scope).items() if holds[1] is None}
    rows = _facts(tx, scope, None, only, fixed).subquery("facts")
    found: dict[int, int | None] = dict.fromkeys(person_ids)
    for person_id, free in tx.execute(
        select(rows.c.person_id, rows.c.clock // 16).where(rows.c.fixed.is_(null()), rows.c.clock >= 16), {"now": now}
    ):
        found[person_id] = max(found[person_id] or 0, free)
    return found
