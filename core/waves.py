"""Waves: when a campaign asks. Pure: settings and moments in, a wave out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from core.clock import DAY_MS, from_ms, to_ms
from core.workspace import Campaign, QuietPeriod, SendWindow

#: A campaign that runs once and names no end stops asking after as long as the slowest drip should take.
ONCE_DAYS = 90


@dataclass(frozen=True, slots=True)
class WavePlan:
    """One run of a campaign: who is free between `opens_at` and `ends_at` (milliseconds) is asked in it."""

    number: int
    opens_at: int
    ends_at: int


def wave_at(campaign: Campaign, created_at: int, zone: ZoneInfo, now: int) -> WavePlan | None:
    """The wave that is open at `now`, or None: before the start, after the end, or between."""
    end = None if campaign.end is None else midnight(campaign.end + timedelta(days=1), zone)
    if end is not None and now >= end:
        return None
    if campaign.once is not None:
        return _single(campaign.once, campaign.start, end, zone, now)
    if campaign.every_days is None:
        return None  # triggers make their own waves
    anchor = created_at if campaign.start is None else midnight(campaign.start, zone)
    if now < anchor:
        return None
    length = campaign.every_days * DAY_MS
    number = (now - anchor) // length
    opens = anchor + number * length
    return WavePlan(number + 1, opens, min(opens + length, end) if end is not None else opens + length)


def _single(day: date, start: date | None, end: int | None, zone: ZoneInfo, now: int) -> WavePlan | None:
    opens = midnight(max(day, start) if start else day, zone)
    ends = end if end is not None else opens + ONCE_DAYS * DAY_MS
    return WavePlan(1, opens, ends) if opens <= now < ends else None


def midnight(day: date, zone: ZoneInfo) -> int:
    """When a day begins in a zone. Where midnight does not exist that night, the moment the clocks jumped to."""
    return to_ms(datetime.combine(day, time(0), zone))


def quiet_until(periods: tuple[QuietPeriod, ...], zone: ZoneInfo, now: int) -> int | None:
    """When the quiet period that holds now ends (several overlapping: the last of them); None if none holds."""
    until: int | None = None
    for period in sorted(periods, key=lambda quiet: quiet.from_):
        begins, ends = midnight(period.from_, zone), midnight(period.to + timedelta(days=1), zone)
        if begins <= (until if until is not None else now) and ends > now:
            until = max(until or 0, ends)
    return until


@dataclass(frozen=True, slots=True)
class ZoneNow:
    """What the moment is like in one time zone."""

    local_date: str
    next_day_at: int  # the next local midnight
    opens_at: int | None  # the send window: None while it is open, else when it opens next


def zone_now(zone: ZoneInfo, window: SendWindow | None, now: int) -> ZoneNow:
    """Local date and send window in a zone at a moment."""
    local = from_ms(now).astimezone(zone)
    today = local.date()
    return ZoneNow(today.isoformat(), midnight(today + timedelta(days=1), zone), _opens_at(window, zone, local, now))


def _opens_at(window: SendWindow | None, zone: ZoneInfo, local: datetime, now: int) -> int | None:
    if window is None:
        return None
    for ahead in range(8):
        day = local.date() + timedelta(days=ahead)
        if day.weekday() not in window.weekdays:
            continue
        opens, closes = window_on(window, day, zone)
        if opens <= now < closes:
            return None
        if now < opens:
            return opens
    raise AssertionError("a send window opens on some day of the week")


def window_on(window: SendWindow, day: date, zone: ZoneInfo) -> tuple[int, int]:
    """When the send window opens and closes on a day in a zone."""
    last = day + timedelta(days=1) if window.to == time(0) else day
    return (
        to_ms(datetime.combine(day, window.from_, zone)),
        to_ms(datetime.combine(last, window.to, zone)),
    )


def expires_at(zone: ZoneInfo, window: SendWindow | None, now: int, permitted_ms: int = DAY_MS) -> int:
    """When 24 h of permitted sending time have passed from `now` on."""
    if window is None:
        return now + permitted_ms
    left = permitted_ms
    day = from_ms(now).astimezone(zone).date()
    for _ in range(400):  # a window of one minute a week would need years: then a year is enough
        if day.weekday() in window.weekdays:
            opens, closes = window_on(window, day, zone)
            usable = max(0, closes - max(opens, now))
            if usable >= left:
                return max(opens, now) + left
            left -= usable
        day += timedelta(days=1)
    return now + 400 * DAY_MS
