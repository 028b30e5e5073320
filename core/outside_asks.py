"""What a `last surveyed` date that somebody else wrote means for the ledger (FREQUENCY.md, edge cases).

The ledger is the truth and the attribute in the source a copy that people can read and type into. A later date is an
ask by another tool or by phone; an earlier or cleared one frees nobody and is put back; the day of a known touch is our
own echo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum

from core.dates import parse_moment

SKEW = timedelta(minutes=5)  # a claim further in the future than clocks may differ is clamped and flagged


class Verdict(StrEnum):
    """What a claim means."""

    NOTHING = "nothing"  # no claim, or the echo of a touch we know
    ACCEPT = "accept"  # an outside ask
    RESTORE = "restore"  # an earlier or cleared date: the source is to show the ledger's again
    UNREADABLE = "unreadable"  # no date at all, and the ledger has none to put in its place


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict, and of an accepted claim the moment asked, its local day and whether it lay in the future."""

    verdict: Verdict
    at: datetime | None = None
    local_date: str = ""
    clamped: bool = False


def judge(text: str | None, known: Sequence[datetime], zone: tzinfo, now: datetime, *, first_sight: bool) -> Judgement:
    """Judge the text a source shows. `known` are the moments of the person's touches that count.

    `first_sight`: the record was never seen before, so that an older date is history and nobody's edit.
    """
    moment = parse_moment(text, zone) if text else None
    if moment is None:
        return _no_date(text, bool(known), first_sight)
    today = now.astimezone(zone).date()
    ahead = moment.day > today if moment.date_only else moment.at > now + SKEW
    at, day = (now, today) if ahead else (moment.at, moment.day)
    if any(touch.astimezone(zone).date() == day for touch in known):
        return Judgement(Verdict.RESTORE if ahead else Verdict.NOTHING)
    if known and at < max(known) and not first_sight:
        return Judgement(Verdict.RESTORE)
    return Judgement(Verdict.ACCEPT, at.astimezone(UTC), day.isoformat(), clamped=ahead)


def _no_date(text: str | None, has_touches: bool, first_sight: bool) -> Judgement:
    if has_touches and not first_sight:
        return Judgement(Verdict.RESTORE)
    return Judgement(Verdict.UNREADABLE if text else Verdict.NOTHING)
