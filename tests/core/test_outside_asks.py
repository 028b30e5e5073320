"""Dates typed into the `last surveyed` attribute of a source."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from core.outside_asks import Judgement, Verdict, judge

PARIS = ZoneInfo("Europe/Paris")
NOW = datetime(2026, 12, 1, 9, tzinfo=UTC)
TOUCH = datetime(2026, 11, 10, 23, 30, tzinfo=UTC)  # the 11th in Paris


def verdict(text: str | None, *known: datetime, first_sight: bool = False) -> Judgement:
    return judge(text, known, PARIS, NOW, first_sight=first_sight)


def test_a_later_date_is_an_outside_ask_until_the_end_of_its_day() -> None:
    judged = verdict("20/11/2026", TOUCH)
    assert judged == Judgement(Verdict.ACCEPT, datetime(2026, 11, 20, 22, 59, 59, 999_000, UTC), "2026-11-20")


@pytest.mark.parametrize("text", ["2026-11-09", "2026-11-10", "", None, "soon"])
def test_an_earlier_cleared_or_senseless_date_frees_nobody(text: str | None) -> None:
    assert verdict(text, TOUCH).verdict is Verdict.RESTORE


@pytest.mark.parametrize("text", ["2026-11-11", "2026-11-11T00:30:00+01:00", "11/11/2026 08:00"])
def test_the_calendar_day_of_a_known_touch_is_our_own_echo(text: str) -> None:
    assert verdict(text, TOUCH).verdict is Verdict.NOTHING
    assert verdict(text, TOUCH - timedelta(days=300), TOUCH).verdict is Verdict.NOTHING


def test_an_older_date_of_a_record_never_seen_before_is_history() -> None:
    judged = verdict("2025-01-15", TOUCH, first_sight=True)
    assert (judged.verdict, judged.local_date) == (Verdict.ACCEPT, "2025-01-15")
    assert verdict(None, TOUCH, first_sight=True).verdict is Verdict.NOTHING


def test_a_claim_more_than_five_minutes_ahead_is_clamped_and_flagged() -> None:
    assert verdict("2026-12-01T09:06:00Z") == Judgement(Verdict.ACCEPT, NOW, "2026-12-01", clamped=True)
    near = datetime(2026, 12, 1, 9, 4, tzinfo=UTC)
    assert verdict("2026-12-01T09:04:00Z") == Judgement(Verdict.ACCEPT, near, "2026-12-01")


def test_a_date_ahead_of_somebody_asked_today_is_no_second_ask_and_is_put_right() -> None:
    assert verdict("2027-03-01", NOW - timedelta(hours=2)).verdict is Verdict.RESTORE


def test_the_clamp_compares_dates_with_dates() -> None:
    today = datetime(2026, 12, 1, 22, 59, 59, 999_000, UTC)
    assert verdict("2026-12-01") == Judgement(Verdict.ACCEPT, today, "2026-12-01")
    assert verdict("2026-12-02") == Judgement(Verdict.ACCEPT, NOW, "2026-12-01", clamped=True)


def test_a_senseless_date_of_somebody_never_asked_is_told() -> None:
    assert verdict("soon").verdict is Verdict.UNREADABLE
    assert verdict(None).verdict is Verdict.NOTHING
