"""Records that are gone, and people with them: tombstones keep the clocks and the opt-out without keeping the person.

A tombstone hangs on the HMAC of the address. The touches of a forgotten person keep that hash and lose the person; who
comes back with the address, under whatever id, inherits both.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import BindParameter, Connection, Row, bindparam, delete, func, null, or_, select, text, update

from core.storage.people_clocks import strictest_free
from core.storage.people_links import cancel_for_records, forget_people, settle_people, wipe_records
from core.storage.people_rows import chunks, insert_rows, placeholder
from core.storage.people_same import settle_addresses
from core.storage.schema import (
    audit,
    bad_records,
    deliveries,
    follow_ups,
    identities,
    inbox,
    link_candidates,
    response_versions,
    responses,
    survey_links,
    tombstones,
    touches,
)
from core.storage.touches import cancel_for_people

PEOPLE: BindParameter[int] = bindparam("people", expanding=True)
RECORDS: BindParameter[int] = bindparam("records", expanding=True)
MAY_VANISH = 0.2  # of the known records of a source in one full read; more looks like a broken export


class SeenRecords:
    """Which records a full read has shown: a bit per identity id, 125 kB for a million of them."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, identity_id: int) -> bool:
        """Note a record. False if it was seen before in this read."""
        place, bit = identity_id >> 3, 1 << (identity_id & 7)
        if place >= len(self._bits):
            self._bits.extend(bytes(place + 4096 - len(self._bits)))
        if self._bits[place] & bit:
            return False
        self._bits[place] |= bit
        return True

    def __contains__(self, identity_id: int) -> bool:
        place = identity_id >> 3
        return place < len(self._bits) and bool(self._bits[place] & (1 << (identity_id & 7)))


def live_records(tx: Connection, connection_id: int) -> int:
    """How many records of a connection are there."""
    query = select(func.count()).where(identities.c.connection_id == connection_id, identities.c.gone_at.is_(null()))
    return tx.scalar(query) or 0


def unseen_records(tx: Connection, connection_id: int, seen: SeenRecords) -> Iterator[int]:
    """The live records of a connection that a full read did not show, by id."""
    mark = placeholder(tx)
    # "+ 0" keeps SQLite on the primary key, which is in the order asked for; driver level: a million pass by here
    statement = (
        f"SELECT id FROM identities WHERE id > {mark} AND connection_id + 0 = {mark} AND gone_at IS NULL"
        " ORDER BY id LIMIT 5000"
    )
    last = 0
    while ids := tx.exec_driver_sql(statement, (last, connection_id)).cursor.fetchall():
        yield from (identity_id for (identity_id,) in ids if identity_id not in seen)
        last = ids[-1][0]


def record_ids(tx: Connection, connection_id: int, external_ids: Sequence[str]) -> list[int]:
    """The live records of a connection with these ids."""
    found: list[int] = []
    for chunk in chunks(external_ids):
        wanted = select(identities.c.id).where(
            identities.c.connection_id == connection_id,
            identities.c.external_id.in_(chunk),
            identities.c.gone_at.is_(null()),
        )
        found += tx.scalars(wanted)
    return found


def too_many(vanished: int, known: int) -> bool:
    """Whether so many records may not count as gone. Of very few, one may."""
    return vanished > max(1, MAY_VANISH * known)


def delete_records(tx: Connection, identity_ids: Iterable[int], now: int) -> int:
    """The source holds these records no more. Returns how many people went with them.

    Reservations to them are returned. A person with another record stays; of one without a tombstone stays.
    """
    gone = 0
    for chunk in chunks(identity_ids):
        cancel_for_records(tx, chunk, now, "the contact was deleted in its source")
        touched = sorted(set(tx.scalars(select(identities.c.person_id).where(identities.c.id.in_(chunk)))))
        living = set(tx.scalars(_LIVING, {"people": touched, "records": chunk}))
        lost = [person_id for person_id in touched if person_id not in living]
        left = _addresses_of(tx, lost, chunk)
        gone += len(lost)
        forget(tx, lost, now)
        wipe_records(tx, chunk, now)
        settle_people(tx, living)
        settle_addresses(tx, left, now)  # a mailbox may be one person's again
    return gone


_LIVING = text(
    "SELECT DISTINCT person_id FROM identities WHERE person_id IN :people AND gone_at IS NULL AND id NOT IN :records"
).bindparams(PEOPLE, RECORDS)


def _addresses_of(tx: Connection, person_ids: Sequence[int], identity_ids: Sequence[int] = ()) -> set[bytes]:
    """The addresses of these people and records, as hashes."""
    held = select(identities.c.address_hash).where(
        or_(identities.c.person_id.in_(person_ids), identities.c.id.in_(identity_ids)),
        identities.c.address_hash.is_not(null()),
    )
    return set(tx.scalars(held))


def forget(tx: Connection, person_ids: Sequence[int], now: int, *, erased: bool = False) -> None:
    """Remove people and all their records; tombstones keep clocks and opt-out by address."""
    for chunk in chunks(person_ids):
        cancel_for_people(tx, chunk, now, detail="the contact was deleted in its source")
        _bury(tx, chunk, now, erased)
        records = list(tx.scalars(select(identities.c.id).where(identities.c.person_id.in_(chunk))))
        for statement in _FORGET:
            tx.execute(statement, {"people": chunk, "records": records})
        forget_people(tx, chunk)


_FORGET = (
    update(touches).where(touches.c.person_id.in_(PEOPLE)).values(person_id=None, identity_id=None),
    update(responses).where(responses.c.person_id.in_(PEOPLE)).values(person_id=None, identity_id=None),
    update(follow_ups).where(follow_ups.c.person_id.in_(PEOPLE)).values(person_id=None),
    delete(deliveries).where(deliveries.c.kind == "write_back", deliveries.c.identity_id.in_(RECORDS)),
    delete(link_candidates).where(link_candidates.c.identity_id.in_(RECORDS)),
    delete(link_candidates).where(link_candidates.c.other_identity_id.in_(RECORDS)),
    text("DELETE FROM message_guard WHERE identity_id IN :records").bindparams(RECORDS),
    delete(identities).where(identities.c.id.in_(RECORDS)),
)


def _bury(tx: Connection, person_ids: Sequence[int], now: int, erased: bool) -> None:
    """Tombstones for every address these people had. A touch without an address gets one of theirs, to be found by."""
    tx.execute(_ADDRESS_OF_TOUCH, {"people": list(person_ids)})
    # clocks that the touches alone will not bring back: those of a former address, or kept after an undone merge
    quarantines = {
        person_id: strictest_free(tx, person_id, now) for person_id in tx.scalars(_MOVED, {"people": list(person_ids)})
    }
    rows = tx.execute(_ADDRESSES, {"people": list(person_ids)}).all()
    insert_rows(
        tx,
        "tombstones",
        ("address_hash", "opted_out_at", "last_message_at", "quarantine_until", "erased", "created_at"),
        [
            (row.address_hash, _opted_out(row, now), row.last_message_at, quarantines.get(row.person_id), erased, now)
            for row in rows
        ],
        _STRICTEST,
    )


def _opted_out(row: Row[tuple[int, ...]], now: int) -> int | None:
    at: int | None = row.opted_out_at
    return now if at is None and row.source_opted_out else at


_ADDRESS_OF_TOUCH = text(
    """
    UPDATE touches SET address_hash = (
        SELECT i.address_hash FROM identities AS i
        WHERE i.person_id = touches.person_id AND i.address_hash IS NOT NULL ORDER BY i.id LIMIT 1)
    WHERE person_id IN :people AND address_hash IS NULL
    """
).bindparams(PEOPLE)

_MOVED = text(
    """
    SELECT id FROM people WHERE id IN :people AND (quarantine_until IS NOT NULL OR EXISTS (
        SELECT 1 FROM touches AS t WHERE t.person_id = people.id AND t.state <> 'returned' AND NOT EXISTS (
            SELECT 1 FROM identities AS i WHERE i.person_id = people.id AND i.address_hash = t.address_hash)))
    """
).bindparams(PEOPLE)

_ADDRESSES = text(
    """
    SELECT held.address_hash, held.person_id, p.opted_out_at, p.source_opted_out,
        (SELECT max(g.last_message_at) FROM identities AS i JOIN message_guard AS g ON g.identity_id = i.id
         WHERE i.person_id = held.person_id) AS last_message_at
    FROM (
        SELECT person_id, address_hash FROM identities WHERE person_id IN :people
        UNION SELECT person_id, address_hash FROM touches WHERE person_id IN :people
    ) AS held JOIN people AS p ON p.id = held.person_id
    WHERE held.address_hash IS NOT NULL
    """
).bindparams(PEOPLE)


def _later(column: str) -> str:
    new, old = f"excluded.{column}", f"tombstones.{column}"
    return f"{column} = CASE WHEN {old} IS NULL OR {new} > {old} THEN {new} ELSE {old} END"


_STRICTEST = (
    " ON CONFLICT (address_hash) DO UPDATE SET "
    " opted_out_at = coalesce(tombstones.opted_out_at, excluded.opted_out_at), "
    + _later("last_message_at")
    + ", "
    + _later("quarantine_until")
    + ", erased = tombstones.erased OR excluded.erased"
)


def adopt_tombstones(tx: Connection, records: Iterable[tuple[int, int, bytes]]) -> set[int]:
    """Who comes back inherits: opt-out, 24 h floor, quarantine and touches. Returns the people concerned.

    `records` are (identity id, person id, address hash) of records that are new or changed their address.
    """
    if tx.scalar(select(tombstones.c.address_hash).limit(1)) is None:
        return set()
    concerned: set[int] = set()
    for chunk in chunks(records):
        wanted = select(tombstones).where(tombstones.c.address_hash.in_([row[2] for row in chunk]))
        found = {row.address_hash: row for row in tx.execute(wanted)}
        for identity_id, person_id, address in chunk:
            if address in found:
                _adopt(tx, identity_id, person_id, found[address])
                concerned.add(person_id)
    return concerned


def _adopt(tx: Connection, identity_id: int, person_id: int, tombstone: Row[tuple[object, ...]]) -> None:
    values = {
        "identity": identity_id,
        "person": person_id,
        "address": tombstone.address_hash,
        "opted_out_at": tombstone.opted_out_at,
        "quarantine_until": tombstone.quarantine_until,
        "last_message_at": tombstone.last_message_at,
    }
    for statement in _ADOPT:
        tx.execute(statement, values)
    if tombstone.last_message_at is not None:
        tx.execute(_ADOPT_GUARD, values)


_ADOPT = tuple(
    map(
        text,
        (
            """
            UPDATE people SET
                opted_out_by = CASE WHEN opted_out_at IS NULL AND CAST(:opted_out_at AS BIGINT) IS NOT NULL
                    THEN 'tombstone' ELSE opted_out_by END,
                opted_out_at = coalesce(opted_out_at, CAST(:opted_out_at AS BIGINT)),
                quarantine_until = CASE
                    WHEN quarantine_until IS NULL OR quarantine_until < CAST(:quarantine_until AS BIGINT)
                    THEN CAST(:quarantine_until AS BIGINT) ELSE quarantine_until END
            WHERE id = :person
            """,
            """
            UPDATE touches SET origin = 'wave:' || wave_id, wave_id = NULL
            WHERE address_hash = :address AND person_id IS NULL AND wave_id IS NOT NULL
                AND state NOT IN ('returned', 'answered') AND EXISTS (
                    SELECT 1 FROM touches AS other WHERE other.wave_id = touches.wave_id AND other.id <> touches.id
                        AND other.state NOT IN ('returned', 'answered')
                        AND (other.person_id = :person OR (other.person_id IS NULL
                             AND other.address_hash = :address AND other.id < touches.id)))
            """,
            "UPDATE touches SET person_id = :person, identity_id = :identity"
            " WHERE address_hash = :address AND person_id IS NULL",
        ),
    )
)

_ADOPT_GUARD = text(
    "INSERT INTO message_guard (identity_id, last_message_at) VALUES (:identity, :last_message_at)"
    " ON CONFLICT (identity_id) DO UPDATE SET last_message_at = excluded.last_message_at"
    " WHERE message_guard.last_message_at < excluded.last_message_at"
)


# --- erasure --------------------------------------------------------------------------------------------------------


def erase_people(
    tx: Connection, person_ids: Sequence[int], address: str, address_hash: bytes, now: int, actor: str
) -> int:
    """Remove everything that is known of these people, at their request. Returns how many there were.

    A tombstone keeps that they must not be asked again: erased means opted out until a human says otherwise. If a
    source still shows them, they come back with what it shows and nothing else.
    """
    _overwrite_what_is_deleted(tx)
    for chunk in chunks(person_ids):
        for statement in _ERASE:
            tx.execute(statement, {"people": chunk, "now": now})
        left = _addresses_of(tx, chunk)
        asked = tx.scalars(select(touches.c.id).where(touches.c.person_id.in_(chunk))).all()
        forget(tx, chunk, now, erased=True)
        # nobody who comes with the address one day is tied to what was asked and answered
        for ids in chunks(asked):
            tx.execute(update(touches).where(touches.c.id.in_(ids)).values(address_hash=None))
        settle_addresses(tx, left, now)
    for by_address in _ERASE_BY_ADDRESS:
        tx.execute(by_address, {"address": address_hash, "now": now})
    _forget_mentions(tx, address)
    tx.execute(audit.insert().values(at=now, actor=actor, action="people.erase", detail={"people": len(person_ids)}))
    return len(person_ids)


def _overwrite_what_is_deleted(tx: Connection) -> None:
    """SQLite leaves deleted text in its file until the page is used again, unless it is told to overwrite it."""
    if tx.dialect.name == "sqlite":
        tx.exec_driver_sql("PRAGMA secure_delete=ON")


_TOUCHED = select(touches.c.id).where(touches.c.person_id.in_(PEOPLE)).scalar_subquery()
# answers of shared mailboxes and forwarded links name no person: they are found by the touch
_THEIRS = or_(responses.c.person_id.in_(PEOPLE), responses.c.touch_id.in_(_TOUCHED))
_ANSWERED = select(responses.c.id).where(_THEIRS).scalar_subquery()
_ERASE = (
    text("UPDATE people SET opted_out_at = coalesce(opted_out_at, :now) WHERE id IN :people").bindparams(PEOPLE),
    update(response_versions).where(response_versions.c.response_id.in_(_ANSWERED)).values(comment=None, signals={}),
    update(responses).where(_THEIRS).values(comment=None, attributes=None, signals={}),
    delete(survey_links).where(survey_links.c.touch_id.in_(_TOUCHED)),
    # payloads and error texts may name the address; a message that is leaving keeps its row for its outcome
    update(deliveries)
    .where(deliveries.c.touch_id.in_(_TOUCHED), deliveries.c.state != "sending")
    .values(payload=null(), error="", vendor_ref=""),
    update(touches).where(touches.c.person_id.in_(PEOPLE)).values(detail=""),
)
# of somebody whose source deleted them before
_ASKED_THERE = select(touches.c.id).where(touches.c.address_hash == bindparam("address")).scalar_subquery()
_ANSWERED_THERE = select(responses.c.id).where(responses.c.touch_id.in_(_ASKED_THERE)).scalar_subquery()
_ERASE_BY_ADDRESS = (
    text(
        "UPDATE tombstones SET erased = true, opted_out_at = coalesce(opted_out_at, :now) WHERE address_hash = :address"
    ),
    update(response_versions)
    .where(response_versions.c.response_id.in_(_ANSWERED_THERE))
    .values(comment=None, signals={}),
    update(responses).where(responses.c.touch_id.in_(_ASKED_THERE)).values(comment=None, attributes=None, signals={}),
    delete(survey_links).where(survey_links.c.touch_id.in_(_ASKED_THERE)),
    text("UPDATE touches SET address_hash = NULL WHERE address_hash = :address AND person_id IS NULL"),
)


def _forget_mentions(tx: Connection, address: str) -> None:
    """What came in, was noted or failed with the address in it: read through, as no index knows, and rarely needed."""
    needle = address.strip().lower()
    raw = needle.encode()
    bodies = [row.id for row in tx.execute(select(inbox.c.id, inbox.c.body)) if raw in bytes(row.body).lower()]
    notes = [
        row.id
        for row in tx.execute(select(audit.c.id, audit.c.subject, audit.c.detail))
        if needle in f"{row.subject} {json.dumps(row.detail, ensure_ascii=False)}".lower()
    ]
    places = [
        row.id
        for row in tx.execute(select(bad_records.c.id, bad_records.c.place, bad_records.c.reason))
        if needle in f"{row.place} {row.reason}".lower()
    ]
    for chunk in chunks(bodies):
        tx.execute(update(inbox).where(inbox.c.id.in_(chunk)).values(body=b"", headers={}))
    for chunk in chunks(notes):
        tx.execute(update(audit).where(audit.c.id.in_(chunk)).values(subject="(erased)", detail={}))
    for chunk in chunks(places):
        tx.execute(delete(bad_records).where(bad_records.c.id.in_(chunk)))
