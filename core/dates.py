"""Dates and moments as people and tools write them: ISO, or day first.

Read are `2026-12-01`, `2026/12/01`, `01/12/2026`, `1.12.2026` and `01-12-2026`, each alone or followed by a time (`T`
or a space, then `14:30`, `14:30:05`, `14:30:05.250` or `14h30`, and perhaps `Z` or `+01:00`). What is ambiguous is
decided once: with the year last the day comes first, so `03/04/2026` is the 3rd of April and `12/25/2026` is no date.
Years have four digits: `01/12/26` is refused, because nobody can say which part is the year.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from functools import lru_cache

_DATE = (
    r"(?:(?P<y1>\d{4})(?P<s1>[-/])(?P<m1>\d{1,2})(?P=s1)(?P<d1>\d{1,2})"
    r"|(?P<d2>\d{1,2})(?P<s2>[-/.])(?P<m2>\d{1,2})(?P=s2)(?P<y2>\d{4}))"
)
_TIME = r"(?P<hour>\d{1,2})[:h](?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?"
_ZONE = r"(?P<zone>[zZ]|[+-]\d{2}:?\d{2})"
_PATTERN = re.compile(rf"{_DATE}(?:(?:[Tt]|[ ]{{1,3}}){_TIME}[ ]?{_ZONE}?)?", re.ASCII)
LONGEST = 40


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment somebody wrote down. `day` is its calendar day in the zone it was read for.

    Of a date without a time `at` is the last millisecond of that day, so that rounding never shortens a gap.
    """

    at: datetime
    day: date
    date_only: bool


@lru_cache(maxsize=8192)
def parse_moment(text: str, zone: tzinfo) -> Moment | None:
    """The moment `text` names, aware UTC, or None if it names none. A time without an offset is one of `zone`."""
    match = _PATTERN.fullmatch(text.strip()) if len(text) <= LONGEST else None
    if match is None:
        return None
    try:
        day = _day(match)
        if match["hour"] is None:
            return Moment(end_of_day(day, zone), day, date_only=True)
        # of an hour that comes twice in autumn the later one: the longer gap
        at = datetime.combine(day, _time(match), _zone(match["zone"]) or zone).replace(fold=1).astimezone(UTC)
        return Moment(at, at.astimezone(zone).date(), date_only=False)
    except (ValueError, OverflowError):  # the 31st of February; the year 0000
        return None


def end_of_day(day: date, zone: tzinfo) -> datetime:
    """The last millisecond of a calendar day in a zone, aware UTC."""
    try:
        return datetime.combine(day, time(23, 59, 59, 999_000), zone).replace(fold=1).astimezone(UTC)
    except OverflowError:  # 9999-12-31 west of Greenwich: for ever is for ever
        return datetime(9999, 12, 31, 23, 59, 59, 999_000, UTC)


def _day(match: re.Match[str]) -> date:
    if match["y1"]:
        return date(int(match["y1"]), int(match["m1"]), int(match["d1"]))
    return date(int(match["y2"]), int(match["m2"]), int(match["d2"]))


def _time(match: re.Match[str]) -> time:
    fraction = (match["fraction"] or "0")[:6].ljust(6, "0")
    return time(int(match["hour"]), int(match["minute"]), int(match["second"] or 0), int(fraction))


def _zone(text: str | None) -> tzinfo | None:
    if not text:
        return None
    if text in "zZ":
        return UTC
    sign = -1 if text[0] == "-" else 1
    return timezone(sign * timedelta(hours=int(text[1:3]), minutes=int(text[-2:])))
