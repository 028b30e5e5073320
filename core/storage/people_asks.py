"""Dates of other tools and of people: what a `last surveyed` that a source shows means for the ledger."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from core.clock import from_ms, to_ms
from core.ids import public_id, public_ids
from core.outside_asks import Judgement, Verdict, judge
from core.storage.deliveries import request_write_back
from core.storage.people_clocks import recently_asked
from core.storage.people_links import cancel_touches
from core.storage.people_rows import Origin, chunks, insert_rows
from core.storage.schema import identities, touches
from core.touches import TouchState

COLUMNS = (
    "public_id", "person_id", "identity_id", "company_id", "address_hash", "type", "source", "state", "origin",
    "handed_over_at", "asked_at", "asked_local_date", "clamped",
)  # fmt: skip
_FIXED = ("nps", "outside", TouchState.HANDED_OVER.value)  # type, source, state


@dataclass(slots=True)
class AskedElsewhere:
    """A date a record shows. `first_sight`: the record is new, so that an older date is history and nobody's edit."""

    identity_id: int
    person_id: int
    company_id: int | None
    address_hash: bytes | None
    text: str | None
    first_sight: bool


def store_outside_asks(
    tx: Connection, origin: Origin, asks: Sequence[AskedElsewhere], linked: Collection[int], fresh: Collection[int],
    now: int,
) -> None:  # fmt: skip
    """Store what is an ask; have the ledger's date put back where it was undone.

    `fresh` are people who were made just now and have no history; to those in `linked` a record was joined just now.
    """
    new = [ask for ask in asks if ask.first_sight and ask.person_id in fresh]
    if new:
        _store_history(tx, origin, new, now)
    if len(new) < len(asks):
        for chunk in chunks(ask for ask in asks if not (ask.first_sight and ask.person_id in fresh)):
            _store(tx, origin, chunk, linked, now)


def _store_history(tx: Connection, origin: Origin, asks: Sequence[AskedElsewhere], now: int) -> None:
    """Dates of people without touches: all that could speak against them is the text itself."""
    moment = from_ms(now)
    meaning: dict[str | None, tuple[Any, ...] | None] = {}
    rows = []
    for ask, name in zip(asks, public_ids(len(asks)), strict=True):
        if ask.text not in meaning:
            judged = judge(ask.text, (), origin.zone, moment, first_sight=True)
            meaning[ask.text] = _claim(judged.at, judged) if judged.at is not None else None
        claim = meaning[ask.text]
        if claim is not None:
            rows.append((name, ask.person_id, ask.identity_id, ask.company_id, ask.address_hash, *_FIXED, origin.name,
                         *claim))  # fmt: skip
    insert_rows(tx, "touches", COLUMNS, rows)


def _store(
    tx: Connection, origin: Origin, asks: Sequence[AskedElsewhere], linked: Collection[int], now: int
) -> None:  # fmt: skip
    people = _people(tx, asks)
    known = _known(tx, set(people.values()))
    had_touches = set(known)
    moment = from_ms(now)
    new: list[tuple[Any, ...]] = []
    restore: set[int] = set()
    asked: set[int] = set()
    for ask in asks:
        person_id = people[ask.identity_id]
        judged = judge(ask.text, known[person_id], origin.zone, moment, first_sight=ask.first_sight)
        if judged.verdict is Verdict.ACCEPT and judged.at is not None:
            new.append((public_id(), person_id, ask.identity_id, ask.company_id, ask.address_hash, *_FIXED, origin.name,
                        *_claim(judged.at, judged)))  # fmt: skip
            known[person_id].append(judged.at)
            asked.add(person_id)
        elif judged.verdict is Verdict.RESTORE:
            restore.add(person_id)
    insert_rows(tx, "touches", COLUMNS, new)
    for person_id in _waiting(tx, asked):
        _spare(tx, person_id, now)
    # history read for the first time is what its source shows already, but perhaps no other source
    edited = {people[ask.identity_id] for ask in asks if not ask.first_sight}
    request_write_back(tx, restore | (asked & (edited | had_touches | set(linked))), now)


def _people(tx: Connection, asks: Sequence[AskedElsewhere]) -> dict[int, int]:
    """Whose records these are by now: people may have been linked since the records were read."""
    i = identities.c
    rows = tx.execute(select(i.id, i.person_id).where(i.id.in_([ask.identity_id for ask in asks])))
    return {row[0]: row[1] for row in rows}


def _claim(at: datetime, judged: Judgement) -> tuple[Any, ...]:
    """The last of COLUMNS of an accepted date."""
    moment = to_ms(at)
    return moment, moment, judged.local_date, judged.clamped


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
