"""The contact-frequency rule for one person: every clock at its boundary, the order of the rules, the dates."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import combinations
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from core.clock import DAY_MS, to_ms
from core.frequency import (
    CLOCKS,
    FIXED,
    PACING,
    Clock,
    Decision,
    Facts,
    Limits,
    PastTouch,
    Rule,
    address_period,
    clocks,
    company_quota,
    decide,
    limits,
)
from core.touches import COUNTING, TouchState
from core.workspace import Campaign, Quarantine

NOW = to_ms(datetime(2026, 12, 1, 9, tzinfo=UTC))
CAMPAIGN = Campaign(name="relationship", source=("crm",), sender="mail", every_days=90)
DEFAULT = limits(Quarantine(), CAMPAIGN, 1)
S = TouchState


def only(rule: Rule, **values: Any) -> Limits:
    """Limits with every clock at zero but the one under test."""
    none = Limits(1, "nps", 0, 0, 0, 0, 0, 0, 1000, 0, None, 1.0)
    lengths = {field: getattr(DEFAULT, field) for field in _FIELDS[rule]}
    return replace(none, **lengths, **values)


_FIELDS = {
    Rule.FLOOR_24H: (),
    Rule.ANY_SURVEY: ("any_survey",),
    Rule.SAME_TYPE: ("same_type",),
    Rule.AFTER_ANSWER: ("after_answer",),
    Rule.AFTER_DECLINE: ("after_decline",),
    Rule.AFTER_SILENCE: ("after_silence",),
    Rule.SAME_SURVEY: ("same_survey",),
    Rule.YEARLY_COUNT: ("yearly_count",),
    Rule.TENURE: ("tenure",),
}


def touch(days_ago: float = 0, state: TouchState = S.HANDED_OVER, *, at: int = NOW, **values: Any) -> PastTouch:
    asked = at - round(days_ago * DAY_MS)
    return PastTouch(**{"type": "nps", "state": state, "asked_at": asked, "campaign_id": 2, **values})


def asked(rule: Rule, at: int) -> Facts:
    """A person for whom this one clock began at `at`."""
    match rule:
        case Rule.FLOOR_24H:
            return Facts(last_message_at=at)
        case Rule.AFTER_ANSWER:
            return Facts(touches=[touch(at=at - 7 * DAY_MS, state=S.ANSWERED, answered_at=at)])
        case Rule.AFTER_DECLINE:
            return Facts(touches=[touch(at=at - 7 * DAY_MS, state=S.DECLINED, declined_at=at)])
        case Rule.AFTER_SILENCE:
            return Facts(touches=[touch(at=at, state=S.SILENT, window_closes_at=at + 21 * DAY_MS)])
        case Rule.SAME_SURVEY:
            return Facts(touches=[touch(at=at, type="other", campaign_id=1)])
        case Rule.ANY_SURVEY:
            return Facts(touches=[touch(at=at, type="other")])
        case Rule.YEARLY_COUNT:
            return Facts(touches=[touch(at=at + n * DAY_MS, type="other") for n in range(4)])
        case Rule.TENURE:
            return Facts(customer_since=at)
        case _:
            return Facts(touches=[touch(at=at)])


DAYS = {
    Rule.FLOOR_24H: 1, Rule.ANY_SURVEY: 30, Rule.SAME_TYPE: 90, Rule.AFTER_ANSWER: 90, Rule.AFTER_DECLINE: 180,
    Rule.AFTER_SILENCE: 60, Rule.SAME_SURVEY: 90, Rule.YEARLY_COUNT: 365, Rule.TENURE: 30,
}  # fmt: skip


@pytest.mark.parametrize("rule", CLOCKS)
def test_each_clock_binds_to_the_millisecond(rule: Rule) -> None:
    limit, length = only(rule), DAYS[rule] * DAY_MS
    free = NOW + 1
    assert decide(asked(rule, NOW + 1 - length), limit, NOW) == Decision(rule, free)
    assert decide(asked(rule, NOW - length), limit, NOW).allowed
    assert decide(asked(rule, NOW - 1 - length), limit, NOW).allowed


@pytest.mark.parametrize("rule", CLOCKS)
@pytest.mark.parametrize(
    ("begins", "why"),
    [
        ((2026, 3, 20), "Europe goes to summer time on 29 March"),
        ((2026, 10, 20), "and back on 25 October"),
        ((2028, 2, 15), "2028 has a 29 February"),
        ((2027, 12, 31), "the year ends"),
    ],
)
def test_a_day_is_24_hours_whatever_the_calendar_does(rule: Rule, begins: tuple[int, int, int], why: str) -> None:
    at = to_ms(datetime(*begins, 23, 30, tzinfo=ZoneInfo("Europe/Paris")))
    free = at + DAYS[rule] * DAY_MS
    assert decide(asked(rule, at), only(rule), free - 1) == Decision(rule, free), why
    assert decide(asked(rule, at), only(rule), free).allowed


def test_ninety_days_over_a_change_of_the_clocks_end_at_another_local_hour() -> None:
    paris = ZoneInfo("Europe/Paris")
    at = to_ms(datetime(2026, 9, 1, 10, tzinfo=paris))
    found = decide(asked(Rule.SAME_TYPE, at), only(Rule.SAME_TYPE), at + 1)
    assert found.until == to_ms(datetime(2026, 11, 30, 9, tzinfo=paris))


def test_without_history_a_person_may_be_asked() -> None:
    assert decide(Facts(), DEFAULT, NOW) == Decision()
    assert clocks(Facts(), DEFAULT, NOW) == []


# --- which outcome binds --------------------------------------------------------------------------------------------


def blocking(facts: Facts, limit: Limits = DEFAULT) -> dict[Rule, int | None]:
    return {clock.rule: clock.free_at for clock in clocks(facts, limit, NOW) if clock.blocks}


def test_same_type_binds_only_while_the_last_ask_has_no_outcome() -> None:
    pending = touch(20, window_closes_at=NOW + DAY_MS)
    assert Rule.SAME_TYPE in blocking(Facts(touches=[pending]))
    answered = replace(pending, state=S.ANSWERED, answered_at=NOW - 15 * DAY_MS)
    assert blocking(Facts(touches=[answered])) == {
        Rule.ANY_SURVEY: NOW + 10 * DAY_MS,
        Rule.AFTER_ANSWER: NOW + 75 * DAY_MS,
    }
    older = touch(60)
    assert Rule.SAME_TYPE not in blocking(Facts(touches=[older, answered]))
    assert Rule.SAME_TYPE in blocking(Facts(touches=[pending, replace(answered, asked_at=NOW - 60 * DAY_MS)]))


def test_answer_decline_and_silence_bind_from_their_own_moments() -> None:
    answered = touch(100, S.ANSWERED, answered_at=NOW - 80 * DAY_MS)
    declined = touch(190, S.DECLINED, declined_at=NOW - 170 * DAY_MS)
    silent = touch(50, S.SILENT, window_closes_at=NOW - 29 * DAY_MS)
    assert blocking(Facts(touches=[answered])) == {Rule.AFTER_ANSWER: NOW + 10 * DAY_MS}
    assert blocking(Facts(touches=[declined])) == {Rule.AFTER_DECLINE: NOW + 10 * DAY_MS}
    assert blocking(Facts(touches=[silent])) == {Rule.AFTER_SILENCE: NOW + 10 * DAY_MS}


def test_silence_never_frees_before_the_survey_window_has_closed() -> None:
    long_window = touch(61, S.SILENT, window_closes_at=NOW + 5 * DAY_MS)
    assert blocking(Facts(touches=[long_window])) == {Rule.AFTER_SILENCE: NOW + 5 * DAY_MS}


def test_a_closed_window_is_silence_before_anybody_wrote_it_down() -> None:
    closing = touch(40, window_closes_at=NOW)
    assert blocking(Facts(touches=[closing])) == {Rule.AFTER_SILENCE: NOW + 20 * DAY_MS}
    assert Rule.SAME_TYPE in blocking(Facts(touches=[replace(closing, window_closes_at=NOW + 1)]))


def test_an_answer_after_the_window_still_counts_for_the_clock() -> None:
    late = touch(80, S.ANSWERED, window_closes_at=NOW - 59 * DAY_MS, answered_at=NOW - DAY_MS)
    assert blocking(Facts(touches=[late])) == {Rule.AFTER_ANSWER: NOW + 89 * DAY_MS}


def test_an_anonymous_answer_without_a_time_counts_from_the_latest_moment_it_may_have_come() -> None:
    anonymous = touch(40, S.ANSWERED, window_closes_at=NOW - 19 * DAY_MS, answered_at=None)
    assert blocking(Facts(touches=[anonymous])) == {Rule.AFTER_ANSWER: NOW + 71 * DAY_MS}


def test_unknown_counts_as_asked_and_returned_does_not() -> None:
    for state in S:
        facts = Facts(touches=[touch(5, state, answered_at=NOW, declined_at=NOW)])
        assert (Rule.ANY_SURVEY in blocking(facts)) == (state in COUNTING)
    assert S.UNKNOWN in COUNTING and S.RETURNED not in COUNTING


def test_a_returned_quota_leaves_the_floor_standing() -> None:
    bounced = Facts(touches=[touch(0.1, S.RETURNED, campaign_id=1)], last_message_at=NOW - DAY_MS // 10)
    assert decide(bounced, DEFAULT, NOW) == Decision(Rule.FLOOR_24H, NOW + 9 * DAY_MS // 10)


def test_the_floor_cannot_be_switched_off() -> None:
    assert decide(Facts(last_message_at=NOW - 1), only(Rule.FLOOR_24H), NOW).rule == "floor_24h"
    assert not [name for name in Quarantine.model_fields if "24" in name or "floor" in name]


def test_same_survey_is_its_own_clock_and_other_surveys_never_reset_it() -> None:
    mine, other = touch(89, S.ANSWERED, campaign_id=1, answered_at=NOW - 400 * DAY_MS), touch(31, S.SILENT)
    limit = only(Rule.SAME_SURVEY)
    assert blocking(Facts(touches=[mine, other]), limit) == {Rule.SAME_SURVEY: NOW + DAY_MS}
    assert blocking(Facts(touches=[other]), limit) == {}


def test_same_survey_takes_the_cadence_else_the_type() -> None:
    once = Campaign(name="once", source=("crm",), sender="mail", once="2026-12-01")  # type: ignore[arg-type]
    rules = Quarantine(same_type_days=77)
    assert limits(rules, replace_days(45), 1).same_survey == 45 * DAY_MS
    assert limits(rules, once, 1).same_survey == 77 * DAY_MS


def replace_days(days: int) -> Campaign:
    return CAMPAIGN.model_copy(update={"every_days": days})


def test_nobody_is_asked_twice_in_one_wave_however_long_it_lasts() -> None:
    wave = (NOW - 200 * DAY_MS, NOW + 100 * DAY_MS)
    limit = replace(DEFAULT, wave=wave)
    in_it = Facts(touches=[touch(150, S.SILENT, campaign_id=1)])
    before_it = Facts(touches=[touch(201, S.SILENT, campaign_id=1)])
    assert decide(in_it, limit, NOW) == Decision(Rule.SAME_SURVEY, wave[1])
    assert decide(before_it, limit, NOW).allowed
    assert decide(in_it, DEFAULT, NOW).allowed


def test_outside_asks_count_for_any_same_type_and_year_and_not_for_the_survey() -> None:
    outside = [touch(days, campaign_id=None) for days in (10, 100, 200, 300)]
    found = blocking(Facts(touches=outside))
    assert found == {
        Rule.ANY_SURVEY: NOW + 20 * DAY_MS,
        Rule.SAME_TYPE: NOW + 80 * DAY_MS,
        Rule.YEARLY_COUNT: NOW + 65 * DAY_MS,
    }


# --- the year -------------------------------------------------------------------------------------------------------


def test_four_in_365_days_and_the_fifth_waits_for_the_oldest_to_leave_the_year() -> None:
    limit = only(Rule.YEARLY_COUNT)
    three = [touch(days) for days in (364, 200, 100)]
    assert decide(Facts(touches=three), limit, NOW).allowed
    four = [*three, touch(50)]
    assert decide(Facts(touches=four), limit, NOW) == Decision(Rule.YEARLY_COUNT, NOW + DAY_MS)
    assert decide(Facts(touches=[*three, touch(50, S.RETURNED)]), limit, NOW).allowed
    # with more than four in the year two have to leave it: the limit was lowered, or other tools asked
    assert decide(Facts(touches=[*four, touch(30)]), limit, NOW) == Decision(Rule.YEARLY_COUNT, NOW + 165 * DAY_MS)


def test_a_leap_year_is_365_days_too() -> None:
    now = to_ms(datetime(2029, 2, 14, tzinfo=UTC))
    four = [touch(days, at=now) for days in (364.9, 200, 100, 40)]
    found = decide(Facts(touches=four), only(Rule.YEARLY_COUNT), now)
    assert found == Decision(Rule.YEARLY_COUNT, now + DAY_MS // 10)
    assert decide(Facts(touches=four), only(Rule.YEARLY_COUNT), now + DAY_MS // 10).allowed


# --- moving zones ---------------------------------------------------------------------------------------------------


def moved(asked_days_ago: float, asked_on: str, today: str, next_day_at: int) -> Decision:
    facts = Facts(
        touches=[touch(asked_days_ago, S.ANSWERED, asked_local_date=asked_on, answered_at=NOW)],
        last_message_at=NOW - round(asked_days_ago * DAY_MS),
        local_date=today,
        next_local_day_at=next_day_at,
    )
    return decide(facts, only(Rule.FLOOR_24H), NOW)


def test_a_person_who_moves_west_is_not_asked_twice_on_one_local_day() -> None:
    # asked in Auckland in the small hours of 1 December; 24 h later it is still 1 December in Honolulu
    assert moved(1.2, "2026-12-01", "2026-12-01", NOW + 5_000) == Decision(Rule.FLOOR_24H, NOW + 5_000)
    assert moved(1.2, "2026-11-30", "2026-12-01", NOW + 5_000).allowed


def test_a_person_who_moves_east_waits_for_the_24_hours() -> None:
    assert moved(0.5, "2026-11-30", "2026-12-01", NOW + 5_000) == Decision(Rule.FLOOR_24H, NOW + DAY_MS // 2)


# --- which rule is reported -----------------------------------------------------------------------------------------

STOPPED: dict[Rule, dict[str, Any]] = {
    Rule.NOT_IN_AUDIENCE: {"in_audience": False},
    Rule.NO_ADDRESS: {"has_address": False},
    Rule.SUPPRESSED: {"suppressed": True},
    Rule.OPTED_OUT: {"opted_out": True},
    Rule.SHARED_MAILBOX: {"shared_until": NOW + 7},
    Rule.INCIDENT: {"incident": True},
    Rule.HOLD: {"hold_until": NOW + 8},
    Rule.QUIET_PERIOD: {"quiet_until": NOW + 9},
    Rule.OPEN_FOLLOW_UP: {"open_follow_up": True},
    Rule.TOO_LATE: {"event_at": NOW - 15 * DAY_MS},
}
DATES = {Rule.SHARED_MAILBOX: NOW + 7, Rule.HOLD: NOW + 8, Rule.QUIET_PERIOD: NOW + 9}


def test_the_rules_are_those_of_the_document_in_its_order() -> None:
    fixed = "not_in_audience no_address suppressed opted_out shared_mailbox incident hold quiet_period open_follow_up"
    assert [str(rule) for rule in FIXED] == [*fixed.split(), "too_late"]
    assert [str(rule) for rule in PACING] == ["company_share", "sample", "daily_limit", "send_window"]
    assert set(Rule) == {*FIXED, *CLOCKS, *PACING}


@pytest.mark.parametrize("rule", FIXED)
def test_until_is_null_where_no_date_frees(rule: Rule) -> None:
    limit = replace(DEFAULT, latest=14 * DAY_MS)
    assert decide(Facts(**STOPPED[rule]), limit, NOW) == Decision(rule, DATES.get(rule))


@pytest.mark.parametrize(("first", "second"), list(combinations(FIXED, 2)))
def test_of_two_fixed_rules_the_earlier_one_is_reported_and_before_any_clock(first: Rule, second: Rule) -> None:
    facts = Facts(**STOPPED[first], **STOPPED[second], touches=[touch(1)], last_message_at=NOW)
    assert decide(facts, replace(DEFAULT, latest=14 * DAY_MS), NOW).rule == first


def test_holds_quiet_periods_and_mailboxes_bind_until_their_moment() -> None:
    assert decide(Facts(hold_until=NOW), DEFAULT, NOW).allowed
    assert decide(Facts(shared_until=NOW), DEFAULT, NOW).allowed
    assert decide(Facts(hold_until=NOW + 1), DEFAULT, NOW) == Decision(Rule.HOLD, NOW + 1)


@pytest.mark.parametrize(("days", "expected"), [(13, None), (14, None), (15, "too_late")])
def test_too_late_is_latest_days_after_the_event(days: int, expected: str | None) -> None:
    limit = replace(DEFAULT, latest=14 * DAY_MS)
    assert decide(Facts(event_at=NOW - days * DAY_MS), limit, NOW).rule == expected
    assert decide(Facts(event_at=NOW - 14 * DAY_MS - 1), limit, NOW).rule == "too_late"
    assert decide(Facts(event_at=NOW - 400 * DAY_MS), DEFAULT, NOW).allowed


def test_of_the_clocks_the_one_that_frees_last_is_reported() -> None:
    facts = Facts(touches=[touch(10, S.ANSWERED, answered_at=NOW - 5 * DAY_MS)], customer_since=NOW - DAY_MS)
    assert decide(facts, DEFAULT, NOW) == Decision(Rule.AFTER_ANSWER, NOW + 85 * DAY_MS)


OF_NO_TOUCH = (Rule.FLOOR_24H, Rule.TENURE)  # so that two clocks can be set to one moment without a third


@pytest.mark.parametrize(
    ("first", "second"), [pair for pair in combinations(CLOCKS, 2) if set(pair) & set(OF_NO_TOUCH)]
)
def test_ties_of_the_clocks_go_to_the_order_of_the_table(first: Rule, second: Rule) -> None:
    until = NOW + DAY_MS // 2
    one, other = (asked(rule, until - DAYS[rule] * DAY_MS) for rule in (first, second))
    together = Facts(
        touches=[*one.touches, *other.touches],
        last_message_at=one.last_message_at or other.last_message_at,
        customer_since=one.customer_since or other.customer_since,
    )
    tied = replace(only(first), **{name: getattr(DEFAULT, name) for name in _FIELDS[second]})
    assert blocking(together, tied) == {first: until, second: until}
    assert decide(together, tied, NOW) == Decision(first, until)


def test_a_tie_of_same_type_and_same_survey_is_reported_as_same_type() -> None:
    facts = Facts(touches=[touch(10, campaign_id=1)])
    assert blocking(facts)[Rule.SAME_TYPE] == blocking(facts)[Rule.SAME_SURVEY] == NOW + 80 * DAY_MS
    assert decide(facts, DEFAULT, NOW).rule == "same_type"


def test_a_clock_says_since_when_and_until_when_also_when_it_no_longer_blocks() -> None:
    found = clocks(Facts(customer_since=NOW - 40 * DAY_MS), DEFAULT, NOW)
    assert found == [Clock(Rule.TENURE, NOW - 40 * DAY_MS, NOW - 10 * DAY_MS, False)]


# --- shares and mailboxes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("contacts", "share", "k"),
    [(0, 0.2, 1), (1, 0.2, 1), (9, 0.2, 1), (10, 0.2, 2), (14, 0.2, 2), (15, 0.2, 3), (100, 0.29, 29), (3, 1.0, 3)],
)
def test_a_companys_share_is_rounded_down_and_one_at_least(contacts: int, share: float, k: int) -> None:
    assert company_quota(contacts, share) == k


def test_a_shared_mailbox_waits_for_the_longest_period_that_applies() -> None:
    limit = replace(DEFAULT, same_survey=45 * DAY_MS)
    assert address_period(limit, 1, "nps") == 90 * DAY_MS
    assert address_period(limit, 1, "csat") == 45 * DAY_MS
    assert address_period(limit, 2, "csat") == 30 * DAY_MS
