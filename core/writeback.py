"""What a record of a source must show of its person: the nps_* fields, from the ledger and the answers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, tzinfo
from typing import Any

from core.clock import from_ms
from core.dates import parse_moment
from core.scores import category

LAST_SURVEYED = "nps_last_surveyed_at"
MAY_BE_ASKED = "nps_may_be_asked_at"
ANSWER_FIELDS = ("nps_score", "nps_category", "nps_comment", "nps_responded_at")

FieldValues = dict[str, str | int | datetime | None]


@dataclass(frozen=True, slots=True)
class Answer:
    """The latest confirmed answer of a person who is known to have given it."""

    score: int
    comment: str | None
    answered_at: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """What is known of one person now. `last_surveyed_at`: the latest ask that counts. Moments are milliseconds."""

    answer: Answer | None = None
    last_surveyed_at: int | None = None
    may_be_asked_at: int | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What we wrote into a record the last time: the date, and the names of the other fields that held something."""

    at: int | None = None
    last_surveyed_at: int | None = None
    fields: tuple[str, ...] = ()

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any] | None) -> Written:
        """As the delivery keeps it."""
        kept = payload or {}
        return cls(kept.get("at"), kept.get("last_surveyed_at"), tuple(kept.get("fields", ())))

    def payload(self) -> dict[str, Any]:
        """As the delivery is to keep it. No score, no comment: what was said is kept in one place."""
        return {"at": self.at, "last_surveyed_at": self.last_surveyed_at, "fields": list(self.fields)}


@dataclass(frozen=True, slots=True)
class Shown:
    """The date a source showed when it was read last: its own text, and when the reading ended."""

    last_surveyed_at: str | None
    read_at: int | None


@dataclass(frozen=True, slots=True)
class Update:
    """The fields to write, what we believe stands there now, and what will have been written."""

    fields: FieldValues
    expected: Mapping[str, str]
    written: Written


def update_for(ledger: Ledger, written: Written, shown: Shown, zone: tzinfo, now: int) -> Update:
    """Bring a record up to date.

    Answers are the customer's: ours are put back whatever stands there. The date asked follows the ledger, except
    that a date somebody edited since is not rolled back: their later one counts as an ask of its own.

    Moments are aware and in `zone`, so that a source that keeps dates alone writes the day it was in the account.
    """
    fields: FieldValues = {}
    expected: Mapping[str, str] = {}
    asked_at = written.last_surveyed_at
    if _goes_back(ledger, written):
        expected = {LAST_SURVEYED: _stands_there(written, shown, zone)}
    if _date_follows(ledger, written, shown, zone):
        asked_at = ledger.last_surveyed_at
        fields[LAST_SURVEYED] = _moment(asked_at, zone)
    fields.update(_answer_fields(ledger.answer, written, zone))
    if ledger.may_be_asked_at is not None or MAY_BE_ASKED in written.fields:
        fields[MAY_BE_ASKED] = _moment(ledger.may_be_asked_at, zone)
    filled = tuple(name for name, value in fields.items() if value is not None and name != LAST_SURVEYED)
    return Update(fields, expected, Written(now, asked_at, filled))


def _goes_back(ledger: Ledger, written: Written) -> bool:
    """Whether an earlier date than the one we wrote is to be written: after a bounce."""
    return written.last_surveyed_at is not None and (ledger.last_surveyed_at or 0) < written.last_surveyed_at


def _date_follows(ledger: Ledger, written: Written, shown: Shown, zone: tzinfo) -> bool:
    if not _goes_back(ledger, written):
        return ledger.last_surveyed_at is not None
    if not _read_since(written, shown):
        return True
    seen = parse_moment(shown.last_surveyed_at or "", zone)
    if seen is not None and seen.day == _day(written.last_surveyed_at, zone):
        return True
    # edited: not rolled back, but a date that was cleared or moved back frees nobody and is put right
    ours = _day(ledger.last_surveyed_at, zone)
    return ours is not None and (seen is None or seen.day < ours)


def _read_since(written: Written, shown: Shown) -> bool:
    return written.at is None or (shown.read_at is not None and shown.read_at > written.at)


def _stands_there(written: Written, shown: Shown, zone: tzinfo) -> str:
    """What we believe the record shows, for a connector that can compare before it overwrites."""
    if _read_since(written, shown):
        return shown.last_surveyed_at or ""
    ours = _moment(written.last_surveyed_at, zone)
    return ours.isoformat() if ours else ""


def _answer_fields(answer: Answer | None, written: Written, zone: tzinfo) -> FieldValues:
    if answer is None:
        return {name: None for name in ANSWER_FIELDS if name in written.fields}
    return {
        "nps_score": answer.score,
        "nps_category": category(answer.score).value,
        "nps_comment": answer.comment or None,
        "nps_responded_at": _moment(answer.answered_at, zone),
    }


def _day(ms: int | None, zone: tzinfo) -> date | None:
    return None if ms is None else from_ms(ms).astimezone(zone).date()


def _moment(ms: int | None, zone: tzinfo) -> datetime | None:
    return None if ms is None else from_ms(ms).astimezone(zone)
