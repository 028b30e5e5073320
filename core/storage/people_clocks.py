"""Clocks of single people for what happens to people: a merge, an undone merge, a deletion."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from core.clock import DAY_MS
from core.frequency import CLOCKS, Facts, Limits, PastTouch, Rule, clocks
from core.storage.schema import campaigns, identities, message_guard, people, touches, workspace
from core.touches import TouchState
from core.workspace import Quarantine

# of the record, or of the campaign's own settings: neither is shared by two people who were taken for one
_NOT_INHERITED = {Rule.TENURE}


def quarantine_rules(tx: Connection) -> Quarantine:
    """The rules of the workspace; the defaults before one is applied."""
    config = tx.scalar(select(workspace.c.config))
    return Quarantine.model_validate((config or {}).get("quarantine") or {})


def strictest_free(tx: Connection, person_id: int, now: int) -> int | None:
    """The latest moment any clock of any campaign frees this person; what is kept already counts. None: free now."""
    rules = quarantine_rules(tx)
    facts = Facts(touches=_touches_of(tx, person_id), last_message_at=_last_message(tx, person_id))
    campaign_days = {row.id: (row.config or {}).get("every_days") for row in tx.execute(select(campaigns))}
    kept = tx.scalar(select(people.c.quarantine_until).where(people.c.id == person_id))
    frees = [kept] if kept is not None and kept > now else []
    for campaign_id, days in (campaign_days or {0: None}).items():
        started = clocks(facts, _limits(rules, campaign_id, days), now)
        frees += [c.free_at for c in started if c.blocks and c.rule in CLOCKS and c.rule not in _NOT_INHERITED]
    return max((free for free in frees if free is not None), default=None)


def recently_asked(tx: Connection, person_id: int, now: int) -> bool:
    """Whether a message to this person has left that still binds a clock of the workspace."""
    rules = quarantine_rules(tx)
    asked = [touch for touch in _touches_of(tx, person_id) if touch.state is not TouchState.RESERVED]
    return any(c.blocks for c in clocks(Facts(touches=asked), _limits(rules, 0, 0), now))


def _limits(rules: Quarantine, campaign_id: int, every_days: int | None) -> Limits:
    same_survey = rules.same_type_days if every_days is None else every_days
    return Limits(
        campaign_id=campaign_id,
        type="nps",
        any_survey=rules.any_survey_days * DAY_MS,
        same_type=rules.same_type_days * DAY_MS,
        after_answer=rules.after_answer_days * DAY_MS,
        after_decline=rules.after_decline_days * DAY_MS,
        after_silence=rules.after_silence_days * DAY_MS,
        same_survey=same_survey * DAY_MS,
        yearly_count=rules.touches_per_365_days,
        tenure=rules.tenure_days * DAY_MS,
        latest=None,
        company_share=rules.company_share,
    )


def _touches_of(tx: Connection, person_id: int) -> list[PastTouch]:
    t = touches.c
    rows = tx.execute(
        select(
            t.type, t.state, t.asked_at, t.campaign_id, t.answered_at, t.declined_at, t.window_closes_at,
            t.asked_local_date,
        ).where(t.person_id == person_id)
    )  # fmt: skip
    return [PastTouch(row[0], TouchState(row[1]), *row[2:]) for row in rows]


def _last_message(tx: Connection, person_id: int) -> int | None:
    last: int | None = tx.scalar(
        select(func.max(message_guard.c.last_message_at))
        .join(identities, identities.c.id == message_guard.c.identity_id)
        .where(identities.c.person_id == person_id)
    )
    return last
