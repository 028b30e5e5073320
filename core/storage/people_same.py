"""Which records with one address are one person, and which share a mailbox.

Within a source: a role address (info@) or differing names make a shared mailbox, one ask per period, never linked; the
same name twice is a duplicate and one person. Between sources: an address that belongs to one person in each links
them; where it does not, records of the same name wait for a human. What a human has kept apart stays apart.

No port says that an id of one source is the id of another, so nobody is linked by external id yet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from itertools import combinations, islice
from typing import Any

from sqlalchemy import BindParameter, Connection, Row, bindparam, text

from core.contacts import differ, is_role_address, name_key
from core.storage.deliveries import request_write_back
from core.storage.people_links import link, put_candidate, settle_people
from core.storage.people_rows import blobs, chunks, placeholder
from core.storage.touches import end_open_touches

#: Of a mailbox of very many records, so many pairs are put before a human at most.
MOST_CANDIDATES = 20


def held_addresses(tx: Connection, addresses: Iterable[bytes]) -> set[bytes]:
    """Those of these addresses that a live record has. Driver level: asked for every new record of a sync."""
    held: set[bytes] = set()
    mark = placeholder(tx)
    for chunk in chunks(addresses):
        wanted = ",".join([mark] * len(chunk))
        rows = tx.exec_driver_sql(
            f"SELECT address_hash FROM identities WHERE address_hash IN ({wanted}) AND gone_at IS NULL",
            blobs(tx, chunk),
        )
        held.update(bytes(row[0]) for row in rows)
    return held


def settle_addresses(
    tx: Connection, addresses: Iterable[bytes], now: int, fresh: Collection[int] = frozenset()
) -> set[int]:
    """Bring up to date who is who behind these addresses (hashes). Returns the people that were linked, kept or not.

    `fresh` are people made in this transaction, without touches or answers: they can be linked by the thousand.
    """
    linked: set[int] = set()
    for chunk in chunks(addresses):
        groups: dict[bytes, list[Row[Any]]] = defaultdict(list)
        for row in tx.execute(_RECORDS, {"addresses": _of_interest(tx, chunk)}):
            groups[bytes(row.address_hash)].append(row)
        one_person: list[list[int]] = []
        for rows in groups.values():
            shared = _is_shared(rows)
            if any(bool(row.shared) != shared for row in rows):
                tx.execute(_FLAG, {"shared": shared, "address": rows[0].address_hash})
            if shared:
                _ask_a_human(tx, rows, now)
            elif len(rows) > 1:
                one_person.append([row.person_id for row in rows])
        linked |= _Linking(tx, one_person, fresh, now).run()
    return linked


def _of_interest(tx: Connection, addresses: Sequence[bytes]) -> list[bytes]:
    """Those that several live records have, or one that is marked as shared."""
    rows = tx.execute(_SEVERAL, {"addresses": list(addresses)})
    return [row[0] for row in rows]


_ADDRESSES: BindParameter[bytes] = bindparam("addresses", expanding=True)
_SEVERAL = text(
    "SELECT address_hash FROM identities WHERE address_hash IN :addresses AND gone_at IS NULL"
    " GROUP BY address_hash HAVING count(*) > 1 OR max(CASE WHEN shared THEN 1 ELSE 0 END) = 1"
).bindparams(_ADDRESSES)
_RECORDS = text(
    "SELECT id, person_id, connection_id, address_hash, email, first_name, last_name, shared FROM identities"
    " WHERE address_hash IN :addresses AND gone_at IS NULL ORDER BY id"
).bindparams(_ADDRESSES)
_FLAG = text(
    "UPDATE identities SET shared = :shared WHERE address_hash = :address AND gone_at IS NULL AND shared <> :shared"
)


def _is_shared(rows: Sequence[Row[Any]]) -> bool:
    by_source: dict[int, list[str]] = defaultdict(list)
    for row in rows:
        by_source[row.connection_id].append(name_key(row.first_name, row.last_name))
    return is_role_address(rows[0].email or "") or any(differ(names) for names in by_source.values())


def _ask_a_human(tx: Connection, rows: Sequence[Row[Any]], now: int) -> None:
    """Records of several sources that carry one name in a shared mailbox may be one person: not ours to say."""
    named: dict[str, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        named[name_key(row.first_name, row.last_name)].append(row)
    pairs = (pair for name, part in named.items() if name for pair in combinations(part, 2))
    strangers = (
        (one.id, other.id)
        for one, other in pairs
        if one.connection_id != other.connection_id and one.person_id != other.person_id
    )
    for first, second in islice(strangers, MOST_CANDIDATES):
        put_candidate(tx, first, second, "same name in a shared mailbox", "open", now, replace=False)


class _Linking:
    """Makes one person of each of these groups of people, but for those whom somebody has kept apart."""

    def __init__(self, tx: Connection, groups: Sequence[Sequence[int]], fresh: Collection[int], now: int) -> None:
        self._tx = tx
        self._groups = [people for group in groups if len(people := sorted(set(group))) > 1]
        self._fresh = set(fresh)
        self._now = now
        self._became: dict[int, int] = {}
        self._apart: list[tuple[int, int]] = []
        self._joined: list[tuple[int, int]] = []  # (keep, fresh person that is gone)

    def run(self) -> set[int]:
        """Link them. Returns the people this concerned, those that were kept and those that are gone."""
        if not self._groups:
            return set()
        everybody = sorted({person for group in self._groups for person in group})
        for chunk in chunks(everybody):
            self._apart += [(row[0], row[1]) for row in self._tx.execute(_APART, {"people": chunk})]
        for group in self._groups:
            self._link(group)
        self._join_fresh()
        return {*self._became, *map(self._now_is, self._became)}

    def _link(self, group: Sequence[int]) -> None:
        kept: list[int] = []
        for person in group:
            one = self._now_is(person)
            keep = next((other for other in kept if other == one or not self._are_apart(other, one)), None)
            if keep is None:
                kept.append(one)
            elif keep != one:
                self._merge(min(keep, one), max(keep, one))
                kept = [self._now_is(other) for other in kept]

    def _merge(self, keep: int, other: int) -> None:
        self._became[other] = keep
        if other in self._fresh:
            self._joined.append((keep, other))
        else:
            link(self._tx, keep, other, self._now)
            self._fresh.discard(keep)  # it has a history by now

    def _now_is(self, person: int) -> int:
        while person in self._became:
            person = self._became[person]
        return person

    def _are_apart(self, first: int, second: int) -> bool:
        return any({self._now_is(one), self._now_is(other)} == {first, second} for one, other in self._apart)

    def _join_fresh(self) -> None:
        """People who have nothing but records hand those over; what the records say then binds the person kept."""
        if not self._joined:
            return
        mark = placeholder(self._tx)
        moves = [(self._now_is(keep), other) for keep, other in self._joined]
        self._tx.exec_driver_sql(f"UPDATE identities SET person_id = {mark} WHERE person_id = {mark}", moves)
        self._tx.exec_driver_sql(f"DELETE FROM people WHERE id = {mark}", [(other,) for _, other in moves])
        kept = sorted({keep for keep, _ in moves})
        settle_people(self._tx, kept)
        for chunk in chunks(kept):
            end_open_touches(self._tx, self._tx.scalars(_OPTED_OUT, {"people": chunk}).all(), self._now)
            request_write_back(self._tx, self._tx.scalars(_WITH_HISTORY, {"people": chunk}).all(), self._now)


_PEOPLE: BindParameter[int] = bindparam("people", expanding=True)
# of each pair the record with the lower id stands first: both people have to be among these
_APART = text(
    "SELECT one.person_id, other.person_id FROM identities AS one"
    " JOIN link_candidates AS pair ON pair.identity_id = one.id AND pair.state = 'kept_apart'"
    " JOIN identities AS other ON other.id = pair.other_identity_id"
    " WHERE one.person_id IN :people"
).bindparams(_PEOPLE)
_OPTED_OUT = text(
    "SELECT id FROM people WHERE id IN :people AND (opted_out_at IS NOT NULL OR source_opted_out)"
).bindparams(_PEOPLE)
_WITH_HISTORY = text(
    "SELECT person_id FROM touches WHERE person_id IN :people UNION"
    " SELECT person_id FROM responses WHERE person_id IN :people"
).bindparams(_PEOPLE)
