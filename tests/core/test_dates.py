"""Dates and moments as customers' files hold them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from core.dates import end_of_day, parse_moment

PARIS = ZoneInfo("Europe/Paris")


@pytest.mark.parametrize(
    "text", ["2026-12-01", "2026/12/01", "01/12/2026", "1/12/2026", "01.12.2026", "01-12-2026", " 2026-12-01 "]
)
def test_a_date_counts_to_the_end_of_its_day_in_the_accounts_zone(text: str) -> None:
    moment = parse_moment(text, PARIS)
    assert moment is not None
    assert moment.date_only
    assert moment.day == date(2026, 12, 1)
    assert moment.at == datetime(2026, 12, 1, 22, 59, 59, 999_000, UTC)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-12-01T10:30", datetime(2026, 12, 1, 9, 30, tzinfo=UTC)),
        ("2026-12-01 10:30:05", datetime(2026, 12, 1, 9, 30, 5, tzinfo=UTC)),
        ("2026-12-01T10:30:05.250Z", datetime(2026, 12, 1, 10, 30, 5, 250_000, UTC)),
        ("2026-12-01T10:30:05+02:00", datetime(2026, 12, 1, 8, 30, 5, tzinfo=UTC)),
        ("2026-12-01T10:30:05.000-0500", datetime(2026, 12, 1, 15, 30, 5, tzinfo=UTC)),
        ("01/12/2026 10:30", datetime(2026, 12, 1, 9, 30, tzinfo=UTC)),
        ("01/12/2026 10h30", datetime(2026, 12, 1, 9, 30, tzinfo=UTC)),
        ("25/10/2026 02:30", datetime(2026, 10, 25, 1, 30, tzinfo=UTC)),  # the hour that comes twice: the later one
    ],
)
def test_moments_are_read_in_the_accounts_zone_unless_they_say_otherwise(text: str, at: datetime) -> None:
    moment = parse_moment(text, PARIS)
    assert moment is not None
    assert not moment.date_only
    assert moment.at == at


def test_with_the_year_last_the_day_comes_first() -> None:
    moment = parse_moment("03/04/2026", PARIS)
    assert moment is not None
    assert moment.day == date(2026, 4, 3)


def test_the_calendar_day_of_a_moment_is_that_of_the_account() -> None:
    moment = parse_moment("2026-12-01T23:30:00Z", PARIS)
    assert moment is not None
    assert moment.day == date(2026, 12, 2)


@pytest.mark.parametrize(
    "text",
    ["", "soon", "12/25/2026", "31/02/2026", "01/12/26", "2026-12", "20261201", "0000-01-01", "2026-12-01T25:00",
     "2026-12/01", "٢٠٢٦-١٢-٠١", "1" * 10_000],
)  # fmt: skip
def test_what_is_no_date_is_none_and_no_error(text: str) -> None:
    assert parse_moment(text, PARIS) is None


def test_a_day_of_25_hours_ends_when_the_next_one_begins() -> None:
    assert end_of_day(date(2026, 10, 25), PARIS) == datetime(2026, 10, 25, 22, 59, 59, 999_000, UTC)


@pytest.mark.parametrize("zone", [PARIS, ZoneInfo("America/Los_Angeles"), ZoneInfo("Pacific/Auckland")])
def test_the_last_day_there_is_can_be_held_to(zone: ZoneInfo) -> None:
    moment = parse_moment("31/12/9999", zone)
    assert moment is not None
    assert moment.at.year == 9999
