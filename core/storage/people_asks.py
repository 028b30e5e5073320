"""Dates of other tools and of people: what a `last surveyed` that a source shows means for the ledger."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from core.clock import from_ms, to_ms
from core.ids import public_id
from core.outside_asks import Judgement, Verdict, judge
from core.storage.deliveries import request_write_back
from core.storage.people_clocks import recently_asked
from core.storage.people_links import cancel_touches
from core.storage.people_rows import Origin, chunks, insert_rows
from core.storage.schema import identities, touches
from core.touches import TouchState

COLUMNS = (
    "public_id", "person_id", "identity_id", "company_id", "type", "source", "origin", "state", "address_hash",
    "handed_over_at", "asked_at", "asked_local_date", "answered", "clamped", "reason", "detail",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class AskedElsewhere:
    """A date a record shows. `first_sight`: the record is new, so that an older date is history and nobody's edit."""

    identity_id: int
    text: str | None
    line: int
    first_sight: bool


def store_outside_asks(
    tx: Connection, origin: Origin, asks: Sequence[AskedElsewhere], now: int
) -> list[tuple[int, str]]:
    """Store what is an ask; have the ledger's date put back where it was undone. Returns (line, text) of no dates."""
    unreadable: list[tuple[int, str]] = []
    for chunk in chunks(asks):
        unreadable += _store(tx, origin, chunk, now)
    return unreadable


def _store(tx: Connection, origin: Origin, asks: Sequence[AskedElsewhere], now: int) -> list[tuple[int, str]]:
    records = _records(tx, asks)
    known = _known(tx, {row.person_id for row in records.values()})
    had_touches = set(known)
    moment = from_ms(now)
    new: list[tuple[Any, ...]] = []
    restore: set[int] = set()
    asked: set[int] = set()
    unreadable = []
    for ask in asks:
        row = records[ask.identity_id]
        judged = judge(ask.text, known[row.person_id], origin.zone, moment, first_sight=ask.first_sight)
        if judged.verdict is Verdict.ACCEPT and judged.at is not None:
            new.append(_touch(origin, row, judged, to_ms(judged.at)))
            known[row.person_id].append(judged.at)
            asked.add(row.person_id)
        elif judged.verdict is Verdict.RESTORE:
            restore.add(row.person_id)
        elif judged.verdict is Verdict.UNREADABLE and ask.text:
            unreadable.append((ask.line, ask.text))
    insert_rows(tx, "touches", COLUMNS, new)
    for person_id in _waiting(tx, asked):
        _spare(tx, person_id, now)
    # history read for the first time is what its source shows already
    edited = {records[ask.identity_id].person_id for ask in asks if not ask.first_sight}
    request_write_back(tx, restore | (asked & (edited | had_touches)), now)
    return unreadable


def _records(tx: Connection, asks: Sequence[AskedElsewhere]) -> dict[int, Any]:
    i = identities.c
    wanted = select(i.id, i.person_id, i.company_id, i.address_hash).where(
        i.id.in_([ask.identity_id for ask in asks])
    )  # fmt: skip
    return {row.id: row for row in tx.execute(wanted)}


def _known(tx: Connection, person_ids: set[int]) -> dict[int, list[datetime]]:
    """The moments of the touches that count."""
    known: dict[int, list[datetime]] = defaultdict(list)
    rows = tx.execute(
        select(touches.c.person_id, touches.c.asked_at).where(
            touches.c.person_id.in_(sorted(person_ids)),
            touches.c.state.not_in((TouchState.RETURNED, TouchState.RESERVED)),
        )
    )
    for person_id, asked_at in rows:
        known[person_id].append(from_ms(asked_at))
    return known


def _touch(origin: Origin, row: Any, judged: Judgement, asked_at: int) -> tuple[Any, ...]:
    return (
        public_id(), row.person_id, row.id, row.company_id, "nps", "outside", origin.name, TouchState.HANDED_OVER.value,
        row.address_hash, asked_at, asked_at, judged.local_date, False, judged.clamped, "", "",
    )  # fmt: skip


def _waiting(tx: Connection, person_ids: set[int]) -> list[int]:
    """Those of these people for whom an invitation is reserved."""
    reserved = select(touches.c.person_id).where(
        touches.c.person_id.in_(sorted(person_ids)), touches.c.state == TouchState.RESERVED
    )
    return sorted(set(tx.scalars(reserved))) if person_ids else []


def _spare(tx: Connection, person_id: int, now: int) -> None:
    """Somebody else has just asked this person: what waits to leave stays here."""
    if not recently_asked(tx, person_id, now):
        return
    waiting = tx.scalars(
        select(touches.c.id).where(touches.c.person_id == person_id, touches.c.state == TouchState.RESERVED)
    ).all()
    cancel_touches(tx, waiting, now, "asked by another tool meanwhile")
