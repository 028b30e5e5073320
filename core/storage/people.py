"""People by their address, and what they decide about themselves."""

from __future__ import annotations

from sqlalchemy import Connection, null, select, update

from core.contacts import address_hash, clean_address
from core.storage.deliveries import request_write_back
from core.storage.schema import identities, people
from core.storage.touches import end_open_touches


def find_people(tx: Connection, pepper: bytes, address: str) -> list[int]:
    """The people behind an address: one, several for a shared mailbox, none for one that is unknown or unusable."""
    clean = clean_address(address)
    if clean is None:
        return []
    found = select(identities.c.person_id).where(
        identities.c.address_hash == address_hash(pepper, clean), identities.c.gone_at.is_(null())
    )
    return sorted(set(tx.scalars(found)))


def opt_out(tx: Connection, person_id: int, by: str, now: int) -> None:
    """This person is not asked again: what has not left stays here, what has left ends as declined. Always wins.

    `by`: link | one_click | admin | <connection name>. Doing it again changes nothing; only a human undoes it.
    """
    tx.execute(
        update(people)
        .where(people.c.id == person_id, people.c.opted_out_at.is_(null()))
        .values(opted_out_at=now, opted_out_by=by)
    )
    end_open_touches(tx, [person_id], now)
    request_write_back(tx, [person_id], now)
