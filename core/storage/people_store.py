"""A page of records becomes rows: new people, changed records, and what follows from both.

What needs no database is done before the lock is taken (`Batch.prepare`), so that a transaction holds little but the
statements themselves. Those run in a `Store.reservation()`, because linking people and storing outside asks change what
a plan may reserve. Storing the same records again changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, bindparam, null, select, text

from core.ports import Company, Contact, ContactDeleted, ContactMerged, ContactRecord
from core.storage.deliveries import request_write_back
from core.storage.people_asks import AskedElsewhere, store_outside_asks
from core.storage.people_echo import ShownFields, edited
from core.storage.people_gone import adopt_tombstones, delete_records
from core.storage.people_links import cancel_for_records, merge_records, settle_people, split, was_merged
from core.storage.people_rows import (
    ADDRESS,
    COMPANY,
    FIRST_VALUE,
    HOLD,
    OPTED_OUT,
    VALUES,
    Origin,
    Row,
    chunks,
    compare,
    insert_records,
    insert_rows,
    reserve_ids,
    row_of,
    store_companies,
    update_rows,
)
from core.storage.people_same import held_addresses, settle_addresses
from core.storage.schema import identities
from core.storage.touches import end_open_touches


@dataclass(slots=True)
class Stored:
    """What storing some records brought: `changed` counts them, `seen` are the identities they are."""

    changed: int = 0
    seen: list[int] = field(default_factory=list)


class Batch:
    """Records of one source, in the order they came, to be stored in one transaction."""

    def __init__(self, origin: Origin, records: Sequence[ContactRecord]) -> None:
        self.origin = origin
        self.records = records
        self._rows: dict[int, Row] = {}  # by id() of their contact

    def leave_out_known(self, tx: Connection) -> list[int]:
        """Leave out the contacts that are stored as they are; returns their identities. Reads only.

        A batch in which records are deleted or merged stays whole, because there the order counts.
        """
        if not all(isinstance(record, Contact) for record in self.records):
            return []
        difference = compare(tx, self.origin.connection_id, self.records)  # type: ignore[arg-type]  # contacts alone
        self.records = [contact for contact, _ in difference.changed]
        return difference.unchanged

    def prepare(self) -> None:
        """Make the rows of its contacts. Needs no database."""
        self._rows = {id(record): row_of(self.origin, record) for record in self.records if isinstance(record, Contact)}

    def row(self, contact: Contact) -> Row:
        """The row of one of its contacts."""
        return self._rows.get(id(contact)) or row_of(self.origin, contact)


def store_records(tx: Connection, batch: Batch, now: int) -> Stored:
    """Store a batch, in a reservation."""
    stored = Stored()
    contacts: list[Contact] = []
    for record in batch.records:
        if isinstance(record, Contact):
            contacts.append(record)
            continue
        _store_contacts(tx, batch, contacts, now, stored)
        contacts = []
        stored.changed += _store_other(tx, batch.origin, record, now)
    _store_contacts(tx, batch, contacts, now, stored)
    return stored


def _store_other(tx: Connection, origin: Origin, record: ContactDeleted | ContactMerged | Company, now: int) -> int:
    if isinstance(record, Company):
        store_companies(tx, origin, [record.name])
        return 0
    if isinstance(record, ContactMerged):
        before = _live_records(tx, origin, [record.winner, *record.losers])
        changed = merge_records(tx, origin.connection_id, record.winner, record.losers, now)
        if changed:
            settle_addresses(tx, {row.address_hash for row in before if row.address_hash is not None}, now)
        return int(changed)
    gone = [row.id for row in _live_records(tx, origin, [record.external_id])]
    delete_records(tx, gone, now)
    return len(gone)


def _live_records(tx: Connection, origin: Origin, external_ids: Sequence[str]) -> Sequence[Any]:
    i = identities.c
    return tx.execute(
        select(i.id, i.address_hash).where(
            i.connection_id == origin.connection_id, i.external_id.in_(external_ids), i.gone_at.is_(null())
        )
    ).all()


# --- contacts -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Work:
    """What a batch of contacts brings with it."""

    asks: list[AskedElsewhere] = field(default_factory=list)
    addresses: set[bytes] = field(default_factory=set)  # where who is who may have changed
    arrived: list[tuple[int, int, bytes]] = field(default_factory=list)  # (identity, person, address) new there
    new_people: Collection[int] = ()
    people: set[int] = field(default_factory=set)  # of changed records
    opted_out: list[tuple[int, int]] = field(default_factory=list)  # (identity, person)
    shown: list[ShownFields] = field(default_factory=list)  # our own fields, other than before
    readdressed: list[int] = field(default_factory=list)  # identities
    restored: list[int] = field(default_factory=list)  # identities that were gone


def _store_contacts(tx: Connection, batch: Batch, contacts: Sequence[Contact], now: int, stored: Stored) -> None:
    difference = compare(tx, batch.origin.connection_id, contacts)
    stored.seen += difference.unchanged
    if not difference.changed:
        return
    store_companies(tx, batch.origin, (contact.company for contact, _ in difference.changed))
    new = [contact for contact, known in difference.changed if known is None]
    old = [(contact, known) for contact, known in difference.changed if known is not None]
    work = _Work()
    if new:
        stored.seen += _insert(tx, batch, new, work)
    if old:
        stored.seen += _update(tx, batch, old, work)
    _follow_up(tx, batch.origin, work, now)
    stored.changed += len(difference.changed)


def _insert(tx: Connection, batch: Batch, new: Sequence[Contact], work: _Work) -> Sequence[int]:
    """Each is a person of its own at first."""
    person_ids, identity_ids = reserve_ids(tx, "people", len(new)), reserve_ids(tx, "identities", len(new))
    companies = batch.origin.companies
    rows = []
    for contact, person_id, identity_id in zip(new, person_ids, identity_ids, strict=True):
        row = batch.row(contact)
        row[0], row[1] = identity_id, person_id
        if contact.company:
            row[COMPANY] = companies[contact.company]
        address = row[ADDRESS]
        if address is not None:
            work.arrived.append((identity_id, person_id, address))
        if contact.last_surveyed_at:
            work.asks.append(
                AskedElsewhere(identity_id, person_id, row[COMPANY], address, contact.last_surveyed_at, True)
            )
        rows.append(row)
    work.addresses |= _met_before(tx, [row[ADDRESS] for row in rows if row[ADDRESS] is not None])
    work.new_people = person_ids
    _insert_people(tx, rows)
    insert_records(tx, rows)
    return identity_ids


def _insert_people(tx: Connection, rows: Sequence[Row]) -> None:
    """Nearly all have nothing to say but that they are there."""
    insert_rows(tx, "people", ("id",), [(row[1],) for row in rows])
    said = [(row[OPTED_OUT], row[HOLD], row[1]) for row in rows if row[OPTED_OUT] or row[HOLD] is not None]
    update_rows(tx, "people", ("source_opted_out", "hold_until"), said)


def _met_before(tx: Connection, addresses: Sequence[bytes]) -> set[bytes]:
    """Those that another live record has already, or that come twice."""
    different = set(addresses)
    met = held_addresses(tx, different)
    if len(different) < len(addresses):
        once: set[bytes] = set()
        met |= {address for address in addresses if address in once or once.add(address)}  # type: ignore[func-returns-value]
    return met


def _update(tx: Connection, batch: Batch, old: Sequence[tuple[Contact, int]], work: _Work) -> Sequence[int]:
    before = _before(tx, [identity_id for _, identity_id in old])
    companies = batch.origin.companies
    rows = []
    for contact, identity_id in old:
        row, was = batch.row(contact), before[identity_id]
        if contact.company:
            row[COMPANY] = companies[contact.company]
        _note_changes(contact, identity_id, row, was, work)
        rows.append((*row[FIRST_VALUE:], None, identity_id))
    update_rows(tx, "identities", (*VALUES, "gone_at"), rows)
    return [identity_id for _, identity_id in old]


def _note_changes(contact: Contact, identity_id: int, row: Row, was: Any, work: _Work) -> None:
    address, person_id = row[ADDRESS], was.person_id
    work.people.add(person_id)
    work.addresses.update(one for one in (address, was.address_hash) if one is not None)
    if address != was.address_hash or was.gone:
        work.readdressed.append(identity_id)
        if address is not None:
            work.arrived.append((identity_id, person_id, address))
    if was.gone:
        work.restored.append(identity_id)
    if contact.opted_out and not was.opted_out:
        work.opted_out.append((identity_id, person_id))
    if (contact.nps or None) != (was.nps_seen or None):
        work.shown.append(ShownFields(identity_id, person_id, contact.nps))
    if (contact.last_surveyed_at or None) != was.last_surveyed_seen:
        work.asks.append(
            AskedElsewhere(identity_id, person_id, row[COMPANY], address, contact.last_surveyed_at, bool(was.gone))
        )


def _before(tx: Connection, identity_ids: Sequence[int]) -> dict[int, Any]:
    """The records as they stood before they changed, by id."""
    i = identities.c
    found: dict[int, Any] = {}
    for chunk in chunks(identity_ids):
        wanted = select(
            i.id, i.person_id, i.address_hash, i.opted_out, i.last_surveyed_seen, i.nps_seen,
            i.gone_at.is_not(null()).label("gone"),
        ).where(i.id.in_(chunk))  # fmt: skip
        found.update((row.id, row) for row in tx.execute(wanted))
    return found


def _follow_up(tx: Connection, origin: Origin, work: _Work, now: int) -> None:
    """What follows for people: the record asked, opt-outs, invitations to former addresses, who is who, asks."""
    # a merge undone at the source: the record is somebody else again
    split_off = {i: split(tx, i, now, actor=origin.name) for i in was_merged(tx, work.restored)}
    work.people.update(split_off.values())
    if work.people:
        settle_people(tx, work.people)
        cancel_for_records(tx, work.readdressed, now, "the address changed")
        end_open_touches(tx, {split_off.get(i, person) for i, person in work.opted_out}, now)
    heirs = adopt_tombstones(tx, ((i, split_off.get(i, person), address) for i, person, address in work.arrived))
    fresh = set(work.new_people) - heirs
    linked = settle_addresses(tx, work.addresses, now, fresh)
    if heirs:
        end_open_touches(tx, _opted_out(tx, heirs), now)
    concerned = heirs | edited(tx, origin.connection_id, work.shown, origin.zone, now)
    if concerned:
        request_write_back(tx, concerned, now)
    if work.asks:
        store_outside_asks(tx, origin, work.asks, linked, fresh - linked, now)


def _opted_out(tx: Connection, person_ids: Iterable[int]) -> list[int]:
    query = text("SELECT id FROM people WHERE id IN :people AND (opted_out_at IS NOT NULL OR source_opted_out)")
    return list(tx.scalars(query.bindparams(bindparam("people", expanding=True)), {"people": sorted(person_ids)}))
