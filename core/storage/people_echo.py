"""Our own fields as a source shows them: the echo of what we wrote, or somebody's edit that is to be undone.

Score, category, comment and answer date are the customer's. What was written is not kept a second time; it is what the
answer says now, as long as no newer write-back waits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

from sqlalchemy import Connection, select

from core.clock import from_ms
from core.dates import parse_moment
from core.scores import category
from core.storage.people_rows import chunks
from core.storage.schema import deliveries
from core.storage.write_backs import read_ledger
from core.writeback import ANSWER_FIELDS, LAST_SURVEYED, Answer, Written


@dataclass(slots=True)
class ShownFields:
    """The nps_* fields a record shows now, other than before."""

    identity_id: int
    person_id: int
    fields: Mapping[str, str]


def edited(tx: Connection, connection_id: int, shown: Sequence[ShownFields], zone: Any, now: int) -> set[int]:
    """The people of those records whose fields somebody changed since we wrote them."""
    found: set[int] = set()
    for chunk in chunks(shown):
        written = _written(tx, connection_id, [one.identity_id for one in chunk])
        ours = [one for one in chunk if one.identity_id in written]
        ledgers = read_ledger(tx, [one.person_id for one in ours], (), zone, now)
        found.update(
            one.person_id
            for one in ours
            if is_edited(one.fields, written[one.identity_id], ledgers[one.person_id].answer, zone)
        )
    return found


def _written(tx: Connection, connection_id: int, identity_ids: Sequence[int]) -> dict[int, Written]:
    """What was written into these records, if anything was and nothing newer waits."""
    d = deliveries.c
    keys = [f"write_back:{connection_id}:{identity_id}" for identity_id in identity_ids]
    rows = tx.execute(
        select(d.identity_id, d.payload).where(
            d.key.in_(keys), d.payload.is_not(None), d.wanted_version <= d.done_version
        )
    )
    return {row[0]: Written.from_payload(row[1]) for row in rows}


def is_edited(shown: Mapping[str, str], written: Written, answer: Answer | None, zone: tzinfo) -> bool:
    """Whether these fields differ from what was written into them. The date asked is judged elsewhere."""
    if any(not shown.get(name) for name in written.fields if name != LAST_SURVEYED):
        return True
    if answer is None or not set(ANSWER_FIELDS) & set(written.fields):
        return False
    return not (
        _same_number(shown.get("nps_score", ""), answer.score)
        and shown.get("nps_category", "").casefold() == category(answer.score).value
        and _same_text(shown.get("nps_comment", ""), answer.comment or "")
        and _same_day(shown.get("nps_responded_at", ""), answer.answered_at, zone)
    )


def _same_number(text: str, number: int) -> bool:
    try:
        return float(text) == number
    except ValueError:
        return False


def _same_text(shown: str, said: str) -> bool:
    """Sources trim, join lines, drop control characters and cut what is long."""
    shown, said = _letters(shown), _letters(said)
    return shown == said or (shown.endswith("…") and said.startswith(shown[:-1]))


def _letters(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable() and not letter.isspace())


def _same_day(text: str, ms: int, zone: tzinfo) -> bool:
    moment = parse_moment(text, zone)
    return moment is not None and moment.day == from_ms(ms).astimezone(zone).date()
