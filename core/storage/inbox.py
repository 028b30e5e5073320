"""What came in: requests stored before they are answered, applied afterwards, each event once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from core.events import Event, UnknownEvent
from core.storage.schema import connections, deliveries, events, identities, inbox, touches

ERROR_LENGTH = 500
KIND_LENGTH = 100


@dataclass(frozen=True, slots=True)
class InboxRow:
    """One request as it came."""

    id: int
    connection_id: int
    connection: str
    kind: str
    headers: Mapping[str, str]
    body: bytes
    attempts: int
    fence: int
    received_at: int


def receive(
    tx: Connection, connection_id: int, delivery_id: str, headers: Mapping[str, str], body: bytes, now: int
) -> bool:
    """Store a request. False if this very delivery came before."""
    new: Any = sqlite_insert(inbox) if tx.dialect.name == "sqlite" else postgresql_insert(inbox)
    statement = new.values(
        connection_id=connection_id,
        delivery_id=delivery_id,
        headers=dict(headers),
        body=body,
        due_at=now,
        received_at=now,
    )
    return bool(tx.execute(statement.on_conflict_do_nothing(index_elements=["connection_id", "delivery_id"])).rowcount)


def claim(tx: Connection, now: int, limit: int) -> list[InboxRow]:
    """Take requests that are due, in the order they came; also those whose worker did not come back.

    The caller holds the lease of this work, so whoever began a request has lost it, dead or not: its fence is over.
    Those are taken one by one: if one of them is what kills workers, the others are not blamed for it.
    """
    ids = list(tx.scalars(_BEGUN)) or list(tx.scalars(_waiting(now).order_by(inbox.c.id).limit(limit)))
    tx.execute(
        update(inbox)
        .where(inbox.c.id.in_(ids))
        .values(state="applying", fence=inbox.c.fence + 1, attempts=inbox.c.attempts + 1)
    )
    i = inbox.c
    rows = tx.execute(
        select(
            i.id,
            i.connection_id,
            connections.c.name,
            connections.c.kind,
            i.headers,
            i.body,
            i.attempts,
            i.fence,
            i.received_at,
        )
        .join(connections, connections.c.id == i.connection_id)
        .where(i.id.in_(ids))
        .order_by(i.id)
    )
    return [InboxRow(*row) for row in rows]


def finish(tx: Connection, row: InboxRow) -> bool:
    """Applied. False if somebody else took it over: then its transaction must not be committed."""
    return bool(tx.execute(_claimed(row).values(state="done", error="")).rowcount)


def is_ours(tx: Connection, row: InboxRow) -> bool:
    """Whether nobody has taken the request over since it was claimed."""
    same = (inbox.c.id == row.id) & (inbox.c.fence == row.fence) & (inbox.c.state == "applying")
    return tx.scalar(select(inbox.c.id).where(same)) is not None


def fail(tx: Connection, row: InboxRow, error: str, retry_at: int | None) -> None:
    """It could not be applied: again at `retry_at`, or never if that is None."""
    later: dict[str, Any] = {"state": "failed"} if retry_at is None else {"state": "ready", "due_at": retry_at}
    tx.execute(_claimed(row).values(error=error[:ERROR_LENGTH], **later))


def _claimed(row: InboxRow) -> Any:
    return update(inbox).where(inbox.c.id == row.id, inbox.c.fence == row.fence, inbox.c.state == "applying")


def is_due(tx: Connection, now: int) -> bool:
    """Whether any request waits to be applied, or was left behind."""
    return tx.scalar(_waiting(now).limit(1)) is not None or tx.scalar(_BEGUN) is not None


def _waiting(now: int) -> Any:
    return select(inbox.c.id).where(inbox.c.state == "ready", inbox.c.due_at <= now)


_BEGUN = select(inbox.c.id).where(inbox.c.state == "applying").order_by(inbox.c.id).limit(1)


def counts(tx: Connection) -> dict[str, int]:
    """How many requests stand in each state."""
    return {row[0]: row[1] for row in tx.execute(select(inbox.c.state, func.count()).group_by(inbox.c.state))}


def over(tx: Connection, before: int, limit: int) -> list[int]:
    """Requests received before a moment, and done with.

    What failed is kept for a human as long as what was applied, and no longer: it holds the same personal data.
    """
    old = select(inbox.c.id).where(inbox.c.state.in_(("done", "failed")), inbox.c.received_at < before)
    return list(tx.scalars(old.limit(limit)))


def forget(tx: Connection, ids: Sequence[int]) -> int:
    """Drop these requests; returns how many."""
    return tx.execute(delete(inbox).where(inbox.c.id.in_(ids))).rowcount


# --- events ---------------------------------------------------------------------------------------------------------


def is_first_time(tx: Connection, connection_id: int, event: Event, now: int) -> bool:
    """Remember the event; False if it was applied before. In the same transaction as what it brings about.

    What we have no word for is counted under the vendor's own.
    """
    kind = f"unknown:{event.name}"[:KIND_LENGTH] if isinstance(event, UnknownEvent) else type(event).__name__
    stored = tx.execute(
        text(
            "INSERT INTO events (connection_id, key, kind, applied_at) VALUES (:connection, :key, :kind, :now)"
            " ON CONFLICT (connection_id, key) DO NOTHING"
        ),
        {"connection": connection_id, "key": event.key, "kind": kind, "now": now},
    )
    return bool(stored.rowcount)


def old_events(tx: Connection, before: int, limit: int) -> list[tuple[int, str]]:
    """(connection, key) of events applied before a moment."""
    old = select(events.c.connection_id, events.c.key).where(events.c.applied_at < before).limit(limit)
    return [(row[0], row[1]) for row in tx.execute(old)]


def forget_events(tx: Connection, names: Sequence[tuple[int, str]]) -> int:
    """Drop the names of these events; returns how many."""
    which = delete(events).where(
        events.c.connection_id == bindparam("of_connection"), events.c.key == bindparam("of_key")
    )
    tx.execute(which, [{"of_connection": connection_id, "of_key": key} for connection_id, key in names])
    return len(names)


@dataclass(frozen=True, slots=True)
class Target:
    """Whom an event is about, as far as that can be told."""

    person_ids: tuple[int, ...] = ()
    address_hash: bytes | None = None
    touch_id: int | None = None
    campaign_id: int | None = None
    delivery_id: int | None = None
    effect_key: str = ""


def find_target(tx: Connection, connection_id: int, event: Event, address_hash: bytes | None) -> Target:
    """By our key if the vendor kept it, else by the record, else by the address. `address_hash`: of `event.email`."""
    if event.effect_key:
        return _by_key(tx, event.effect_key) or Target(address_hash=address_hash)
    about = _by_record(tx, connection_id, event.external_id) if event.external_id else ((), None)
    person_ids, recorded = about
    address = address_hash or recorded
    if not person_ids and address is not None:
        found = select(identities.c.person_id).where(identities.c.address_hash == address).distinct()
        person_ids = tuple(sorted(tx.scalars(found)))
    touch = _last_touch(tx, person_ids, address) if person_ids else None
    return Target(person_ids, address, *(touch or (None, None)))


def _by_key(tx: Connection, key: str) -> Target | None:
    row = tx.execute(
        select(touches.c.person_id, touches.c.address_hash, touches.c.id, touches.c.campaign_id, deliveries.c.id)
        .join(deliveries, deliveries.c.touch_id == touches.c.id)
        .where(deliveries.c.key == key)
    ).one_or_none()
    if row is None:
        return None
    return Target(() if row[0] is None else (row[0],), *row[1:], key)


def _by_record(tx: Connection, connection_id: int, external_id: str) -> tuple[tuple[int, ...], bytes | None]:
    row = tx.execute(
        select(identities.c.person_id, identities.c.address_hash).where(
            identities.c.connection_id == connection_id, identities.c.external_id == external_id
        )
    ).one_or_none()
    return ((), None) if row is None else ((row[0],), row[1])


def _last_touch(tx: Connection, person_ids: tuple[int, ...], address: bytes | None) -> tuple[int, int] | None:
    """The last message of ours to them, at that address."""
    query = (
        select(touches.c.id, touches.c.campaign_id)
        .where(touches.c.person_id.in_(person_ids), touches.c.source == "boucle", touches.c.handed_over_at.is_not(None))
        .order_by(touches.c.asked_at.desc())
        .limit(1)
    )
    if address is not None:
        query = query.where(touches.c.address_hash == address)
    row = tx.execute(query).one_or_none()
    return None if row is None else (row[0], row[1])


def remember_opt_out(tx: Connection, address_hash: bytes, now: int) -> None:
    """Nobody has this address now; whoever comes with it one day has opted out already."""
    tx.execute(
        text(
            "INSERT INTO tombstones (address_hash, opted_out_at, created_at) VALUES (:address_hash, :now, :now)"
            " ON CONFLICT (address_hash) DO UPDATE SET"
            " opted_out_at = coalesce(tombstones.opted_out_at, excluded.opted_out_at)"
        ),
        {"address_hash": address_hash, "now": now},
    )


def note_delivered(tx: Connection, touch_id: int, at: int) -> None:
    """The recipient's server took the message: the first such report stands."""
    tx.execute(
        update(touches).where(touches.c.id == touch_id, touches.c.delivered_at.is_(None)).values(delivered_at=at)
    )
