"""The contact-frequency rule (quarantine): may this person be asked now, and if not, by which rule and until when?

This module decides for one person from plain facts and explains every clock (`flask why`). `core.storage.planning` says
the same in SQL for a million at once; a property test holds the two together. Moments are milliseconds since the epoch,
a day is 24 hours: 90 days are 90 x 24 h whatever the calendar does meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from core.clock import DAY_MS
from core.touches import COUNTING, TouchState
from core.workspace import Campaign, Quarantine


class Rule(StrEnum):
    """Why somebody is not asked. The names are stable: other programs rely on them."""

    NOT_IN_AUDIENCE = "not_in_audience"
    NO_ADDRESS = "no_address"
    SUPPRESSED = "suppressed"
    OPTED_OUT = "opted_out"
    SHARED_MAILBOX = "shared_mailbox"
    INCIDENT = "incident"
    HOLD = "hold"
    QUIET_PERIOD = "quiet_period"
    OPEN_FOLLOW_UP = "open_follow_up"
    TOO_LATE = "too_late"
    FLOOR_24H = "floor_24h"
    ANY_SURVEY = "any_survey"
    SAME_TYPE = "same_type"
    AFTER_ANSWER = "after_answer"
    AFTER_DECLINE = "after_decline"
    AFTER_SILENCE = "after_silence"
    SAME_SURVEY = "same_survey"
    YEARLY_COUNT = "yearly_count"
    TENURE = "tenure"
    COMPANY_SHARE = "company_share"
    SAMPLE = "sample"
    DAILY_LIMIT = "daily_limit"
    SEND_WINDOW = "send_window"


#: Reported first, in this order; the first that holds is the answer.
FIXED = (
    Rule.NOT_IN_AUDIENCE, Rule.NO_ADDRESS, Rule.SUPPRESSED, Rule.OPTED_OUT, Rule.SHARED_MAILBOX, Rule.INCIDENT,
    Rule.HOLD, Rule.QUIET_PERIOD, Rule.OPEN_FOLLOW_UP, Rule.TOO_LATE,
)  # fmt: skip
#: Then the clock with the latest free date; ties go to the earlier one here.
CLOCKS = (
    Rule.FLOOR_24H, Rule.ANY_SURVEY, Rule.SAME_TYPE, Rule.AFTER_ANSWER, Rule.AFTER_DECLINE, Rule.AFTER_SILENCE,
    Rule.SAME_SURVEY, Rule.YEARLY_COUNT, Rule.TENURE,
)  # fmt: skip
#: Then what depends on the others of the wave.
PACING = (Rule.COMPANY_SHARE, Rule.SAMPLE, Rule.DAILY_LIMIT, Rule.SEND_WINDOW)

FLOOR_MS = DAY_MS  # fixed: cannot be switched off
YEAR_MS = 365 * DAY_MS
RECENT_MS = 3 * DAY_MS  # one calendar date lasts 50 hours, from the first place on Earth to the last


@dataclass(frozen=True, slots=True)
class PastTouch:
    """What the clocks need to know of one touch."""

    type: str
    state: TouchState
    asked_at: int
    campaign_id: int | None = None
    answered_at: int | None = None
    declined_at: int | None = None
    window_closes_at: int | None = None
    asked_local_date: str | None = None

    @property
    def counts(self) -> bool:
        """Whether its quota is taken."""
        return self.state in COUNTING

    def outcome(self, now: int) -> TouchState | None:
        """ANSWERED, DECLINED or SILENT; None while nothing is known. A closed window is silence at once."""
        if self.state in (TouchState.ANSWERED, TouchState.DECLINED, TouchState.SILENT):
            return self.state
        closed = self.window_closes_at is not None and self.window_closes_at <= now
        return TouchState.SILENT if self.state is TouchState.HANDED_OVER and closed else None


@dataclass(frozen=True, slots=True)
class Clock:
    """One clock of one person: since when, until when, and whether it blocks now."""

    rule: Rule
    last_at: int | None
    free_at: int | None
    blocks: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """The clocks' lengths in milliseconds for one campaign."""

    campaign_id: int
    type: str
    any_survey: int
    same_type: int
    after_answer: int
    after_decline: int
    after_silence: int
    same_survey: int
    yearly_count: int
    tenure: int
    latest: int | None
    company_share: float
    wave: tuple[int, int] | None = None  # when the wave opened and ends: nobody is asked twice in one


def limits(quarantine: Quarantine, campaign: Campaign, campaign_id: int, wave: tuple[int, int] | None = None) -> Limits:
    """The rules of the workspace as they apply to a campaign, and to its wave from `wave[0]` until `wave[1]`."""
    days = campaign.every_days if campaign.every_days is not None else quarantine.same_type_days
    return Limits(
        campaign_id=campaign_id,
        type=campaign.type,
        any_survey=quarantine.any_survey_days * DAY_MS,
        same_type=quarantine.same_type_days * DAY_MS,
        after_answer=quarantine.after_answer_days * DAY_MS,
        after_decline=quarantine.after_decline_days * DAY_MS,
        after_silence=quarantine.after_silence_days * DAY_MS,
        same_survey=days * DAY_MS,
        yearly_count=quarantine.touches_per_365_days,
        tenure=quarantine.tenure_days * DAY_MS,
        latest=None if campaign.latest_days is None else campaign.latest_days * DAY_MS,
        company_share=quarantine.company_share,
        wave=wave,
    )


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything known of one person that bears on being asked. `*_until` of None means it does not hold."""

    in_audience: bool = True
    has_address: bool = True
    suppressed: bool = False
    opted_out: bool = False
    shared_until: int | None = None
    incident: bool = False
    hold_until: int | None = None
    quiet_until: int | None = None
    open_follow_up: bool = False
    event_at: int | None = None
    last_message_at: int | None = None
    local_date: str | None = None  # today, where the person lives
    next_local_day_at: int | None = None
    customer_since: int | None = None
    touches: Sequence[PastTouch] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Decision:
    """May be asked (`rule` is None), or not, by which rule, and until when (None: no date frees)."""

    rule: Rule | None = None
    until: int | None = None

    @property
    def allowed(self) -> bool:
        return self.rule is None


def clocks(facts: Facts, limit: Limits, now: int) -> list[Clock]:
    """Every clock that has started, in the order of CLOCKS."""
    started = {
        Rule.FLOOR_24H: _floor(facts, now),
        Rule.ANY_SURVEY: _latest(facts, limit.any_survey, lambda touch: touch.asked_at),
        Rule.SAME_TYPE: _same_type(facts, limit, now),
        Rule.AFTER_ANSWER: _after(facts, limit, limit.after_answer, TouchState.ANSWERED, now),
        Rule.AFTER_DECLINE: _after(facts, limit, limit.after_decline, TouchState.DECLINED, now),
        Rule.AFTER_SILENCE: _silence(facts, limit, now),
        Rule.SAME_SURVEY: _same_survey(facts, limit),
        Rule.YEARLY_COUNT: _yearly(facts, limit, now),
        Rule.TENURE: _span(facts.customer_since, limit.tenure),
    }
    return [Clock(rule, last, free, free > now) for rule, span in started.items() if span for last, free in [span]]


def decide(facts: Facts, limit: Limits, now: int) -> Decision:
    """The decision on one person, before what depends on the others of the wave."""
    fixed = _fixed(facts, limit, now)
    if fixed is not None:
        return fixed
    blocking = [clock for clock in clocks(facts, limit, now) if clock.blocks]
    if not blocking:
        return Decision()
    binding = max(blocking, key=lambda clock: (clock.free_at or 0, -CLOCKS.index(clock.rule)))
    return Decision(binding.rule, binding.free_at)


def company_quota(contacts: int, share: float) -> int:
    """How many people of one company may be asked in 30 days: k = max(1, floor(share x contacts))."""
    return max(1, contacts * share_ppm(share) // 1_000_000)


def share_ppm(share: float) -> int:
    """The share in millionths: 0.29 of 100 is 29, not the 28 that binary fractions make of it."""
    return round(share * 1_000_000)


def _fixed(facts: Facts, limit: Limits, now: int) -> Decision | None:
    late = facts.event_at is not None and limit.latest is not None and facts.event_at + limit.latest < now
    held = facts.hold_until if facts.hold_until is not None and facts.hold_until > now else None
    shared = facts.shared_until if facts.shared_until is not None and facts.shared_until > now else None
    answers: dict[Rule, tuple[bool, int | None]] = {
        Rule.NOT_IN_AUDIENCE: (not facts.in_audience, None),
        Rule.NO_ADDRESS: (not facts.has_address, None),
        Rule.SUPPRESSED: (facts.suppressed, None),
        Rule.OPTED_OUT: (facts.opted_out, None),
        Rule.SHARED_MAILBOX: (shared is not None, shared),
        Rule.INCIDENT: (facts.incident, None),
        Rule.HOLD: (held is not None, held),
        Rule.QUIET_PERIOD: (facts.quiet_until is not None, facts.quiet_until),
        Rule.OPEN_FOLLOW_UP: (facts.open_follow_up, None),
        Rule.TOO_LATE: (late, None),
    }
    return next((Decision(rule, until) for rule, (holds, until) in answers.items() if holds), None)


Span = tuple[int | None, int] | None  # since when, free when


def _span(last: int | None, length: int) -> Span:
    return None if last is None else (last, last + length)


def _floor(facts: Facts, now: int) -> Span:
    free = None if facts.last_message_at is None else facts.last_message_at + FLOOR_MS
    today = [
        t.asked_at
        for t in facts.touches
        if t.counts
        and t.asked_at > now - RECENT_MS
        and t.asked_local_date
        and facts.local_date
        and t.asked_local_date >= facts.local_date
    ]
    if today and facts.next_local_day_at is not None:  # moved west: still the same local day
        free = max(free or 0, facts.next_local_day_at)
    if free is None:
        return None
    return facts.last_message_at if facts.last_message_at is not None else max(today), free


def _latest(facts: Facts, length: int, moment: Callable[[PastTouch], int | None]) -> Span:
    moments = [at for t in facts.touches if t.counts and (at := moment(t)) is not None]
    return _span(max(moments, default=None), length)


def _same_type(facts: Facts, limit: Limits, now: int) -> Span:
    same = [touch for touch in facts.touches if touch.counts and touch.type == limit.type]
    open_ = [touch.asked_at for touch in same if touch.outcome(now) is None]
    if not open_ or max(open_) < max(touch.asked_at for touch in same):
        return None  # the last touch of the type has an outcome: another clock binds instead
    return _span(max(open_), limit.same_type)


def _after(facts: Facts, limit: Limits, length: int, outcome: TouchState, now: int) -> Span:
    def moment(touch: PastTouch) -> int | None:
        if touch.type != limit.type or touch.outcome(now) is not outcome:
            return None
        if outcome is TouchState.DECLINED:
            return touch.declined_at if touch.declined_at is not None else touch.asked_at
        # an anonymous answer keeps no time: the latest moment it may have come is when the window closes
        closes = touch.window_closes_at if touch.window_closes_at is not None else touch.asked_at
        return touch.answered_at if touch.answered_at is not None else closes

    return _latest(facts, length, moment)


def _silence(facts: Facts, limit: Limits, now: int) -> Span:
    silent = [t for t in facts.touches if t.type == limit.type and t.outcome(now) is TouchState.SILENT]
    if not silent:
        return None
    free = max(max(t.asked_at + limit.after_silence, t.window_closes_at or 0) for t in silent)
    return max(t.asked_at for t in silent), free


def _same_survey(facts: Facts, limit: Limits) -> Span:
    span = _latest(facts, limit.same_survey, lambda t: t.asked_at if t.campaign_id == limit.campaign_id else None)
    if span is None or limit.wave is None or span[0] is None or span[0] < limit.wave[0]:
        return span
    # a wave may last longer than the clock: a touch is one ask in one wave
    return span[0], max(span[1], limit.wave[1])


def address_period(limit: Limits, campaign_id: int | None, type: str) -> int:
    """How long an ask to a mailbox of several people leaves the others behind it alone, in milliseconds."""
    periods = [limit.any_survey]
    if type == limit.type:
        periods.append(limit.same_type)
    if campaign_id == limit.campaign_id:
        periods.append(limit.same_survey)
    return max(periods)


def _yearly(facts: Facts, limit: Limits, now: int) -> Span:
    asked = sorted((t.asked_at for t in facts.touches if t.counts and t.asked_at > now - YEAR_MS), reverse=True)
    if len(asked) < limit.yearly_count:
        return None
    oldest = asked[limit.yearly_count - 1]  # free again when this one falls out of the year
    return asked[0], oldest + YEAR_MS
