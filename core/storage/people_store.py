"""A page of records becomes rows: new people, changed records, and what follows from both.

All of it runs in a `Store.reservation()` transaction, because linking people and storing outside asks change what a
plan may reserve. Storing the same page again changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, bindparam, select, text

from core.ports import Company, Contact, ContactDeleted, ContactMerged, ContactRecord
from core.storage.deliveries import request_write_back
from core.storage.people_asks import AskedElsewhere, store_outside_asks
from core.storage.people_gone import adopt_tombstones, delete_records
from core.storage.people_links import cancel_for_records, merge_records, settle_people, split, was_merged
from core.storage.people_rows import (
    INSERTED,
    VALUES,
    Difference,
    Origin,
    chunks,
    compare,
    insert_rows,
    reserve_ids,
    store_companies,
    update_rows,
    values_of,
)
from core.storage.people_same import settle_addresses
from core.storage.schema import identities
from core.storage.touches import end_open_touches

#: Records in one transaction: some 40 ms, so that no page of ours waits for the write lock.
BATCH = 2_000
_ADDRESS = VALUES.index("address_hash")


@dataclass(slots=True)
class Stored:
    """What storing some records brought: `changed` counts them, `seen` are the identities they are."""

    changed: int = 0
    seen: list[int] = field(default_factory=list)
    unreadable: list[tuple[int, str]] = field(default_factory=list)  # (line, the text that is no date)


def store_records(tx: Connection, origin: Origin, records: Sequence[ContactRecord], now: int) -> Stored:
    """Store records in the order they came."""
    stored = Stored()
    contacts: list[Contact] = []
    for record in records:
        if isinstance(record, Contact):
            contacts.append(record)
            continue
        _store_contacts(tx, origin, contacts, now, stored)
        contacts = []
        stored.changed += _store_other(tx, origin, record, now)
    _store_contacts(tx, origin, contacts, now, stored)
    return stored


def unchanged(tx: Connection, origin: Origin, records: Sequence[ContactRecord]) -> list[int] | None:
    """The identities of records that are all stored as they are; None if anything is news. Reads only."""
    seen: list[int] = []
    for chunk in chunks(records):
        if not all(isinstance(record, Contact) for record in chunk):
            return None
        difference = compare(tx, origin.connection_id, chunk)
        if difference.changed:
            return None
        seen += difference.unchanged
    return seen


def _store_other(tx: Connection, origin: Origin, record: ContactDeleted | ContactMerged | Company, now: int) -> int:
    if isinstance(record, ContactMerged):
        merge_records(tx, origin.connection_id, record.winner, record.losers, now)
        return 1
    if isinstance(record, ContactDeleted):
        wanted = select(identities.c.id).where(
            identities.c.connection_id == origin.connection_id,
            identities.c.external_id == record.external_id,
            identities.c.gone_at.is_(None),
        )
        ids = tx.scalars(wanted).all()
        delete_records(tx, ids, now)
        return len(ids)
    store_companies(tx, origin, [Contact(external_id="", company=record.name)])
    return 0


def _store_contacts(tx: Connection, origin: Origin, contacts: Sequence[Contact], now: int, stored: Stored) -> None:
    difference = Difference()
    for chunk in chunks(contacts):
        part = compare(tx, origin.connection_id, chunk)
        difference.changed += part.changed
        difference.unchanged += part.unchanged
    stored.seen += difference.unchanged
    if not difference.changed:
        return
    store_companies(tx, origin, (contact for contact, _, _ in difference.changed))
    new = [(contact, digest) for contact, digest, known in difference.changed if known is None]
    old = [(contact, digest, known) for contact, digest, known in difference.changed if known is not None]
    asks: list[AskedElsewhere] = []
    touched: set[bytes] = set()
    moved: list[tuple[int, int, bytes]] = []  # (identity, person, address) of records new at their address
    _insert(tx, origin, new, stored, asks, touched, moved)
    changes = _update(tx, origin, old, now, stored, asks, touched, moved)
    _follow_up(tx, origin, changes, touched, moved, now)
    stored.unreadable += store_outside_asks(tx, origin, asks, now)
    stored.changed += len(difference.changed)


def _insert(
    tx: Connection,
    origin: Origin,
    new: Sequence[tuple[Contact, bytes]],
    stored: Stored,
    asks: list[AskedElsewhere],
    touched: set[bytes],
    moved: list[tuple[int, int, bytes]],
) -> None:
    person_ids, identity_ids = reserve_ids(tx, "people", len(new)), reserve_ids(tx, "identities", len(new))
    people_rows: list[tuple[Any, ...]] = []
    identity_rows: list[tuple[Any, ...]] = []
    connection_id, hold = origin.connection_id, VALUES.index("hold_until")
    for (contact, digest), person_id, identity_id in zip(new, person_ids, identity_ids, strict=True):
        values = values_of(origin, contact, digest)
        people_rows.append((person_id, contact.opted_out, values[hold]))
        identity_rows.append((identity_id, person_id, connection_id, contact.external_id, *values))
        address = values[_ADDRESS]
        if address is not None:
            touched.add(address)
            moved.append((identity_id, person_id, address))
        if contact.last_surveyed_at:
            asks.append(AskedElsewhere(identity_id, contact.last_surveyed_at, contact.line, first_sight=True))
    insert_rows(tx, "people", ("id", "source_opted_out", "hold_until"), people_rows)
    insert_rows(tx, "identities", INSERTED, identity_rows)
    stored.seen += identity_ids


@dataclass(slots=True)
class _Before:
    """A record as it stood before it changed."""

    person_id: int
    address_hash: bytes | None
    opted_out: bool
    last_surveyed_seen: str | None
    nps_seen: dict[str, str] | None
    gone: bool


@dataclass(slots=True)
class _Changes:
    """What changed records mean for their people."""

    people: set[int] = field(default_factory=set)
    opted_out: set[int] = field(default_factory=set)
    edited: set[int] = field(default_factory=set)  # our own fields show something else than before
    readdressed: list[int] = field(default_factory=list)  # identities
    restored: list[int] = field(default_factory=list)  # identities that were gone


def _update(
    tx: Connection,
    origin: Origin,
    old: Sequence[tuple[Contact, bytes, int]],
    now: int,
    stored: Stored,
    asks: list[AskedElsewhere],
    touched: set[bytes],
    moved: list[tuple[int, int, bytes]],
) -> _Changes:
    changes = _Changes()
    before = _before(tx, [identity_id for _, _, identity_id in old])
    rows: list[tuple[Any, ...]] = []
    for contact, digest, identity_id in old:
        was = before[identity_id]
        values = values_of(origin, contact, digest)
        rows.append((*values, None, identity_id))
        address = values[_ADDRESS]
        touched.update(one for one in (address, was.address_hash) if one is not None)
        changes.people.add(was.person_id)
        if address != was.address_hash or was.gone:
            changes.readdressed.append(identity_id)
            if address is not None:
                moved.append((identity_id, was.person_id, address))
        if was.gone:
            changes.restored.append(identity_id)
        if contact.opted_out and not was.opted_out:
            changes.opted_out.add(was.person_id)
        if (contact.nps or None) != (was.nps_seen or None):
            changes.edited.add(was.person_id)
        if (contact.last_surveyed_at or None) != was.last_surveyed_seen:
            asks.append(AskedElsewhere(identity_id, contact.last_surveyed_at, contact.line, first_sight=was.gone))
        stored.seen.append(identity_id)
    update_rows(tx, "identities", (*VALUES, "gone_at"), rows)
    return changes


def _before(tx: Connection, identity_ids: Sequence[int]) -> dict[int, _Before]:
    i = identities.c
    found: dict[int, _Before] = {}
    for chunk in chunks(identity_ids):
        rows = tx.execute(
            select(
                i.id, i.person_id, i.address_hash, i.opted_out, i.last_surveyed_seen, i.nps_seen,
                i.gone_at.is_not(None),
            ).where(i.id.in_(chunk))
        )  # fmt: skip
        found.update({row[0]: _Before(row[1], row[2], row[3], row[4], row[5], bool(row[6])) for row in rows})
    return found


def _follow_up(
    tx: Connection,
    origin: Origin,
    changes: _Changes,
    touched: set[bytes],
    moved: Sequence[tuple[int, int, bytes]],
    now: int,
) -> None:
    """What follows for people: the record asked, opt-outs, invitations to former addresses, who is who."""
    # a merge undone at the source: the record is somebody else again
    split_off = {i: split(tx, i, now, actor=origin.name) for i in was_merged(tx, changes.restored)}
    changes.people.update(split_off.values())
    if changes.people:
        settle_people(tx, changes.people)
        cancel_for_records(tx, changes.readdressed, now, "the address changed")
        end_open_touches(tx, changes.opted_out, now)
    heirs = adopt_tombstones(tx, [(i, split_off.get(i, person), address) for i, person, address in moved])
    settle_addresses(tx, touched, now)
    concerned = heirs | changes.edited
    if heirs:
        end_open_touches(tx, _opted_out(tx, heirs), now)
    if concerned:
        request_write_back(tx, concerned, now)


def _opted_out(tx: Connection, person_ids: set[int]) -> list[int]:
    query = text("SELECT id FROM people WHERE id IN :people AND opted_out_at IS NOT NULL")
    return list(tx.scalars(query.bindparams(bindparam("people", expanding=True)), {"people": sorted(person_ids)}))
