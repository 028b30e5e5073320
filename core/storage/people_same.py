"""Which records with one address are one person, and which share a mailbox.

Within a source: a role address (info@) or differing names make a shared mailbox, one ask per period, never linked; the
same name twice is a duplicate and one person. Between sources: an address that belongs to one person in each links
them; where it does not, records of the same name wait for a human. What a human has kept apart stays apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations, islice
from typing import Any

from sqlalchemy import Connection, Row, bindparam, text

from core.contacts import differ, is_role_address, name_key
from core.storage.people_links import link, put_candidate
from core.storage.people_rows import chunks, placeholder

#: Of a mailbox of very many records, so many pairs are put before a human at most.
MOST_CANDIDATES = 20


def settle_addresses(tx: Connection, addresses: Iterable[bytes], now: int) -> None:
    """Bring up to date who is who behind these addresses (hashes)."""
    for chunk in chunks(addresses):
        several = _with_several(tx, chunk)
        if several:
            groups: dict[bytes, list[Row[Any]]] = defaultdict(list)
            for row in tx.execute(_RECORDS, {"addresses": several}):
                groups[row.address_hash].append(row)
            for rows in groups.values():
                _settle(tx, rows, now)
        _single_again(tx, chunk)


def _with_several(tx: Connection, addresses: Sequence[bytes]) -> list[bytes]:
    """Those that more than one live record has. Driver level: asked for every new record of a sync."""
    mark = placeholder(tx)
    wanted = ",".join([mark] * len(addresses))
    rows = tx.exec_driver_sql(
        f"SELECT address_hash FROM identities WHERE address_hash IN ({wanted}) AND gone_at IS NULL"
        " GROUP BY address_hash HAVING count(*) > 1",
        tuple(addresses),
    )
    return [row[0] for row in rows]


_RECORDS = text(
    "SELECT id, person_id, connection_id, address_hash, email, first_name, last_name, shared FROM identities"
    " WHERE address_hash IN :addresses AND gone_at IS NULL ORDER BY id"
).bindparams(bindparam("addresses", expanding=True))

_FLAG = text(
    "UPDATE identities SET shared = :shared WHERE address_hash = :address AND gone_at IS NULL AND shared <> :shared"
)


def _settle(tx: Connection, rows: Sequence[Row[Any]], now: int) -> None:
    by_source: dict[int, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        by_source[row.connection_id].append(row)
    shared = is_role_address(rows[0].email or "") or any(
        differ(name_key(row.first_name, row.last_name) for row in part) for part in by_source.values()
    )
    if any(bool(row.shared) != shared for row in rows):
        tx.execute(_FLAG, {"shared": shared, "address": rows[0].address_hash})
    if shared:
        _ask_a_human(tx, rows, now)
    else:
        _link_all(tx, rows, now)


def _link_all(tx: Connection, rows: Sequence[Row[Any]], now: int) -> None:
    apart = _kept_apart(tx, [row.id for row in rows])
    persons = {row.id: int(row.person_id) for row in rows}
    for first, second in combinations(persons, 2):
        if persons[first] == persons[second] or _is_apart(apart, persons, first, second):
            continue
        keep, other = sorted((persons[first], persons[second]))
        link(tx, keep, other, now)
        persons = {one: keep if person == other else person for one, person in persons.items()}


def _is_apart(apart: set[tuple[int, int]], persons: dict[int, int], first: int, second: int) -> bool:
    """Whether a human, or a split, has said that these two people are not one: of any of their records."""
    return any({persons.get(one), persons.get(other)} == {persons[first], persons[second]} for one, other in apart)


def _kept_apart(tx: Connection, ids: Sequence[int]) -> set[tuple[int, int]]:
    rows = tx.execute(_APART, {"ids": list(ids)})
    return {(row[0], row[1]) for row in rows}


_APART = text(
    "SELECT identity_id, other_identity_id FROM link_candidates WHERE state = 'kept_apart'"
    " AND identity_id IN :ids AND other_identity_id IN :ids"
).bindparams(bindparam("ids", expanding=True))


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


def _single_again(tx: Connection, addresses: Sequence[bytes]) -> None:
    """A mailbox whose others are gone is one person's again, unless its name says otherwise."""
    mark = placeholder(tx)
    wanted = ",".join([mark] * len(addresses))
    rows = tx.exec_driver_sql(
        f"SELECT min(id), max(email), max(address_hash) FROM identities WHERE address_hash IN ({wanted})"
        " AND gone_at IS NULL AND shared GROUP BY address_hash HAVING count(*) = 1",
        tuple(addresses),
    ).all()
    for identity_id, email, address in rows:
        alone = tx.execute(_OTHERS, {"address": address, "id": identity_id}).first() is None
        if alone and not is_role_address(email or ""):
            tx.execute(_FLAG, {"shared": False, "address": address})


_OTHERS = text("SELECT 1 FROM identities WHERE address_hash = :address AND gone_at IS NULL AND id <> :id LIMIT 1")
