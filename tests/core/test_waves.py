"""Waves, quiet periods and send windows: when a campaign asks, over changes of the clocks and of the year."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, to_ms
from core.waves import WavePlan, ZoneNow, expires_at, midnight, quiet_until, wave_at, zone_now
from core.workspace import Campaign, QuietPeriod, SendWindow

PARIS = ZoneInfo("Europe/Paris")
CREATED = to_ms(datetime(2026, 11, 20, 14, 30, tzinfo=UTC))


def campaign(**values: Any) -> Campaign:
    return Campaign.model_validate({"name": "r", "source": "crm", "sender": "mail", **values})


def local(*moment: int, zone: ZoneInfo = PARIS) -> int:
    return to_ms(datetime(*moment, tzinfo=zone))  # type: ignore[misc, arg-type]


def test_a_campaign_every_n_days_opens_one_wave_after_the_other_without_a_gap() -> None:
    quarterly = campaign(every_days=90)
    assert wave_at(quarterly, CREATED, PARIS, CREATED - 1) is None
    for number in range(5):
        opens = CREATED + number * 90 * DAY_MS
        expected = WavePlan(number + 1, opens, opens + 90 * DAY_MS)
        assert wave_at(quarterly, CREATED, PARIS, opens) == expected
        assert wave_at(quarterly, CREATED, PARIS, opens + 90 * DAY_MS - 1) == expected


def test_start_is_midnight_in_the_workspaces_zone() -> None:
    later = campaign(every_days=30, start=date(2026, 12, 1))
    assert wave_at(later, CREATED, PARIS, local(2026, 12, 1) - 1) is None
    wave = wave_at(later, CREATED, PARIS, local(2026, 12, 1))
    assert wave == WavePlan(1, local(2026, 12, 1), local(2026, 12, 31))


def test_the_last_day_is_asked_and_the_next_is_not() -> None:
    ending = campaign(every_days=90, start=date(2026, 12, 1), end=date(2026, 12, 15))
    wave = wave_at(ending, CREATED, PARIS, local(2026, 12, 16) - 1)
    assert wave == WavePlan(1, local(2026, 12, 1), local(2026, 12, 16))
    assert wave_at(ending, CREATED, PARIS, local(2026, 12, 16)) is None


def test_a_campaign_that_runs_once_opens_on_its_day_and_lasts_until_its_end_or_90_days() -> None:
    once = campaign(once=date(2026, 12, 1))
    assert wave_at(once, CREATED, PARIS, local(2026, 12, 1) - 1) is None
    wave = wave_at(once, CREATED, PARIS, local(2026, 12, 1))
    assert wave == WavePlan(1, local(2026, 12, 1), local(2026, 12, 1) + 90 * DAY_MS)
    assert wave_at(once, CREATED, PARIS, local(2026, 12, 1) + 90 * DAY_MS) is None
    short = campaign(once=date(2026, 12, 1), end=date(2026, 12, 1))
    assert wave_at(short, CREATED, PARIS, local(2026, 12, 1)) == WavePlan(1, local(2026, 12, 1), local(2026, 12, 2))


def test_waves_are_of_24_hour_days_over_a_change_of_the_clocks() -> None:
    monthly = campaign(every_days=30, start=date(2027, 3, 10))
    second = wave_at(monthly, CREATED, PARIS, local(2027, 4, 10))
    assert second is not None
    assert second.opens_at == local(2027, 4, 9, 1)  # midnight in winter is one o'clock in summer


def test_midnight_where_there_is_none_is_when_the_clocks_jumped_to() -> None:
    santiago = ZoneInfo("America/Santiago")  # 2026-09-06: 24:00 becomes 01:00
    assert midnight(date(2026, 9, 6), santiago) == to_ms(datetime(2026, 9, 6, 4, tzinfo=UTC))


# --- quiet periods --------------------------------------------------------------------------------------------------


def quiet(*periods: tuple[str, str]) -> tuple[QuietPeriod, ...]:
    return tuple(QuietPeriod.model_validate({"name": "q", "from": first, "to": last}) for first, last in periods)


def test_a_quiet_period_holds_from_its_first_midnight_through_its_last_day() -> None:
    holidays = quiet(("2026-12-20", "2027-01-04"))
    assert quiet_until(holidays, PARIS, local(2026, 12, 20) - 1) is None
    assert quiet_until(holidays, PARIS, local(2026, 12, 20)) == local(2027, 1, 5)
    assert quiet_until(holidays, PARIS, local(2027, 1, 5) - 1) == local(2027, 1, 5)
    assert quiet_until(holidays, PARIS, local(2027, 1, 5)) is None


def test_quiet_periods_that_touch_or_overlap_end_together() -> None:
    periods = quiet(("2027-01-03", "2027-01-10"), ("2026-12-20", "2027-01-04"), ("2027-01-11", "2027-01-12"))
    assert quiet_until(periods, PARIS, local(2026, 12, 24)) == local(2027, 1, 13)
    apart = quiet(("2026-12-20", "2026-12-24"), ("2026-12-26", "2026-12-31"))
    assert quiet_until(apart, PARIS, local(2026, 12, 24)) == local(2026, 12, 25)


# --- send windows ---------------------------------------------------------------------------------------------------


def window(from_: str = "09:00", to: str = "17:00", days: str = "mon-fri") -> SendWindow:
    return SendWindow.model_validate({"from": from_, "to": to, "days": days})


@pytest.mark.parametrize(
    ("moment", "opens_at"),
    [
        ((2026, 12, 1, 8, 59), (2026, 12, 1, 9)),
        ((2026, 12, 1, 9), None),
        ((2026, 12, 1, 16, 59), None),
        ((2026, 12, 1, 17), (2026, 12, 2, 9)),
        ((2026, 12, 4, 17), (2026, 12, 7, 9)),  # Friday evening: Monday
        ((2026, 12, 5, 12), (2026, 12, 7, 9)),
    ],
)
def test_the_window_opens_by_the_recipients_clock(moment: tuple[int, ...], opens_at: tuple[int, ...] | None) -> None:
    for zone in (PARIS, ZoneInfo("Asia/Tokyo"), ZoneInfo("America/Los_Angeles")):
        found = zone_now(zone, window(), local(*moment, zone=zone))
        assert found.opens_at == (None if opens_at is None else local(*opens_at, zone=zone))


def test_one_moment_is_two_dates_in_two_zones() -> None:
    now = to_ms(datetime(2026, 12, 1, 3, tzinfo=UTC))
    tokyo, angeles = ZoneInfo("Asia/Tokyo"), ZoneInfo("America/Los_Angeles")
    assert zone_now(tokyo, None, now) == ZoneNow("2026-12-01", local(2026, 12, 2, zone=tokyo), None)
    assert zone_now(angeles, None, now) == ZoneNow("2026-11-30", local(2026, 12, 1, zone=angeles), None)


def test_a_window_until_midnight_closes_with_the_day() -> None:
    evening = window("18:00", "00:00", "mon-sun")
    assert zone_now(PARIS, evening, local(2026, 12, 1, 23, 59)).opens_at is None
    assert zone_now(PARIS, evening, local(2026, 12, 2)).opens_at == local(2026, 12, 2, 18)


def test_a_window_in_the_hour_that_does_not_exist_still_opens_on_some_day() -> None:
    nightly = window("02:15", "02:45", "sun")
    before = zone_now(PARIS, nightly, local(2026, 3, 28, 12)).opens_at
    assert before is not None and before < local(2026, 3, 29, 4)
    after = zone_now(PARIS, nightly, local(2026, 3, 29, 12)).opens_at
    assert after == local(2026, 4, 5, 2, 15)


def test_a_day_of_sending_time_without_a_window_is_a_day() -> None:
    now = local(2026, 12, 1, 12)
    assert expires_at(PARIS, None, now) == now + DAY_MS


@pytest.mark.parametrize(
    ("begins", "ends"),
    [
        ((2026, 12, 1, 9), (2026, 12, 3, 17)),  # three days of eight hours
        ((2026, 12, 1, 13), (2026, 12, 4, 13)),
        ((2026, 12, 4, 16), (2026, 12, 9, 16)),  # one hour on Friday, then Monday to Wednesday
        ((2026, 12, 5, 12), (2026, 12, 9, 17)),
    ],
)
def test_a_reservation_runs_out_after_24_hours_of_permitted_sending_time(
    begins: tuple[int, ...], ends: tuple[int, ...]
) -> None:
    assert expires_at(PARIS, window(), local(*begins)) == local(*ends)


def test_a_tiny_window_ends_the_wait_within_a_good_year() -> None:
    now = local(2026, 12, 1)
    assert expires_at(PARIS, window("09:00", "09:01", "mon"), now) == now + 400 * DAY_MS
    assert HOUR_MS == 60 * MINUTE_MS
