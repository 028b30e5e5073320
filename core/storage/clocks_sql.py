"""The clocks of the contact-frequency rule as SQL expressions: says the same as `core.frequency.clocks`.

They are aggregates over the touches of one person that count, joined to the record that would be asked. Used by
`core.storage.planning`, which decides with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    MetaData,
    Table,
    Text,
    and_,
    bindparam,
    case,
    func,
    null,
    or_,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from core.frequency import FLOOR_MS, RECENT_MS, YEAR_MS, Limits, Rule
from core.storage.schema import identities, message_guard, touches
from core.touches import TouchState

#: Local date and send window of every time zone at the moment of the plan.
zones = Table(
    "plan_zones",
    MetaData(),
    Column("name", Text, primary_key=True),  # "" is the workspace's
    Column("local_date", Text),
    Column("next_day_at", BigInteger),
    Column("opens_at", BigInteger),
    prefixes=["TEMPORARY"],
)

#: The moment decided for, in every statement here: executed with {"now": milliseconds}.
NOW = bindparam("now", type_=BigInteger, literal_execute=True)


def constant(value: int | str) -> Any:
    """A value that stands in the statement's text: two parameters are never the same to SQLite, two constants are.

    So it computes an aggregate once that is named several times: a third of the time for a million people.
    """
    type_ = BigInteger() if isinstance(value, int) else Text()
    return bindparam(None, value, type_=type_, unique=True, literal_execute=True)


class greatest(FunctionElement[int]):
    """The largest of its arguments; none of them may be NULL (the databases disagree on that)."""

    type = BigInteger()
    inherit_cache = True
    name = "greatest"


@compiles(greatest)
def _greatest(element: Any, compiler: Any, **options: Any) -> str:
    return f"greatest({compiler.process(element.clauses, **options)})"


@compiles(greatest, "sqlite")
def _greatest_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    return f"max({compiler.process(element.clauses, **options)})"


def clocks_of(limit: Limits) -> Mapping[Rule, ColumnElement[int]]:
    """When each clock is free, 0 if it never started: the order and meaning of `core.frequency.clocks`."""
    t, now = touches.c, NOW
    # the planner's rows are touches that count, all of one person: every aggregate is over them
    reserved, unknown, handed_over, was_answered, was_declined, was_silent = (
        t.state == constant(state.value)
        for state in (
            TouchState.RESERVED,
            TouchState.UNKNOWN,
            TouchState.HANDED_OVER,
            TouchState.ANSWERED,
            TouchState.DECLINED,
            TouchState.SILENT,
        )
    )
    same_type = t.type == constant(limit.type)
    open_window = or_(t.window_closes_at.is_(null()), t.window_closes_at > now)
    silent = and_(same_type, or_(was_silent, and_(handed_over, t.window_closes_at <= now)))
    no_outcome = and_(same_type, or_(reserved, unknown, and_(handed_over, open_window)))
    answered, declined = and_(same_type, was_answered), and_(same_type, was_declined)
    last_open = func.max(case((no_outcome, t.asked_at)))
    silence = greatest(t.asked_at + constant(limit.after_silence), func.coalesce(t.window_closes_at, constant(0)))
    answered_at = func.coalesce(t.answered_at, t.window_closes_at, t.asked_at)
    started: dict[Rule, ColumnElement[int]] = {
        Rule.FLOOR_24H: greatest(_span(_last_message(), FLOOR_MS), _same_local_day()),
        Rule.ANY_SURVEY: _span(func.max(t.asked_at), limit.any_survey),
        Rule.SAME_TYPE: case(
            (last_open >= func.max(case((same_type, t.asked_at))), last_open + limit.same_type), else_=0
        ),
        Rule.AFTER_ANSWER: _span(func.max(case((answered, answered_at))), limit.after_answer),
        Rule.AFTER_DECLINE: _span(
            func.max(case((declined, func.coalesce(t.declined_at, t.asked_at)))), limit.after_decline
        ),
        Rule.AFTER_SILENCE: func.coalesce(func.max(case((silent, silence))), 0),
        Rule.SAME_SURVEY: _same_survey(limit),
        Rule.YEARLY_COUNT: case(
            (
                func.count(case((t.asked_at > now - constant(YEAR_MS), constant(1)))) >= limit.yearly_count,
                _nth_last(limit) + YEAR_MS,
            ),
            else_=0,
        ),
        Rule.TENURE: _span(identities.c.customer_since, limit.tenure),
    }
    return {rule: free for rule, free in started.items() if rule not in _switched_off(limit)}


def _switched_off(limit: Limits) -> set[Rule]:
    """Clocks of no length block nobody: they are left out of the statement."""
    lengths = {
        Rule.ANY_SURVEY: limit.any_survey,
        Rule.SAME_TYPE: limit.same_type,
        Rule.AFTER_ANSWER: limit.after_answer,
        Rule.AFTER_DECLINE: limit.after_decline,
        Rule.SAME_SURVEY: limit.same_survey or limit.wave,
        Rule.TENURE: limit.tenure,
    }
    return {rule for rule, length in lengths.items() if not length}


def _span(last: Any, length: int) -> ColumnElement[int]:
    return func.coalesce(last + length, 0)


def _same_survey(limit: Limits) -> ColumnElement[int]:
    last = func.max(case((touches.c.campaign_id == constant(limit.campaign_id), touches.c.asked_at)))
    if limit.wave is None:
        return _span(last, limit.same_survey)
    opened_at, ends_at = limit.wave
    return greatest(_span(last, limit.same_survey), case((last >= opened_at, ends_at), else_=0))


def _last_message() -> Any:
    return (
        select(message_guard.c.last_message_at)
        .where(message_guard.c.identity_id == identities.c.id)
        .correlate(identities)
        .scalar_subquery()
    )


def _nth_last(limit: Limits) -> Any:
    """The oldest of the last n asks: when it falls out of the year, another one fits in."""
    past = touches.alias("past")
    return (
        select(past.c.asked_at)
        .where(
            past.c.person_id == identities.c.person_id,
            past.c.state != TouchState.RETURNED,
            past.c.asked_at > NOW - YEAR_MS,
        )
        .order_by(past.c.asked_at.desc())
        .limit(1)
        .offset(limit.yearly_count - 1)
        .correlate(identities)
        .scalar_subquery()
    )


def _same_local_day() -> ColumnElement[int]:
    """A person who moves west is not asked twice on one local day: free at the next local midnight."""

    def here(column: Any) -> Any:  # of the record's zone, else the workspace's
        return (
            select(column)
            .where(zones.c.name.in_((func.coalesce(identities.c.time_zone, ""), "")))
            .order_by(zones.c.name.desc())
            .limit(1)
            .correlate(identities)
            .scalar_subquery()
        )

    lately = func.max(case((touches.c.asked_at > NOW - constant(RECENT_MS), touches.c.asked_local_date)))
    # first: nearly nobody was asked lately, and the zone is looked up for those alone
    return case((lately.is_(null()), 0), (lately >= here(zones.c.local_date), here(zones.c.next_day_at)), else_=0)
