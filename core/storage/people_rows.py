"""Records as rows: what of a page is new or changed, and writing many rows fast.

A million records pass through here, so the hot statements go to the driver as they are, with tuples: SQLAlchemy's own
bulk insert spends 6 microseconds a row on parameters that a tuple has in order already.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, tzinfo
from functools import lru_cache
from hashlib import blake2b
from json.encoder import encode_basestring
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, bindparam, text

from core.clock import DAY_MS, to_ms
from core.contacts import address_hasher, clean_address, company_key, is_role_address
from core.dates import parse_moment
from core.ports import Contact

CHUNK = 500
COMPANIES_REMEMBERED = 10_000  # of all sources together; a bound, so that memory does not grow with the file
EPOCH_DAY = date(1970, 1, 1).toordinal()

#: What a record says, in the order of the tuples of `values_of`.
VALUES = (
    "email", "address_hash", "shared", "company_id", "first_name", "last_name", "language", "country", "time_zone",
    "phone", "owner", "customer_since", "opted_out", "last_surveyed_seen", "hold_until", "attributes", "nps_seen",
    "digest",
)  # fmt: skip
INSERTED = ("id", "person_id", "connection_id", "external_id", *VALUES)
ADDRESS, SHARED, COMPANY, OPTED_OUT, HOLD, DIGEST = map(
    INSERTED.index, ("address_hash", "shared", "company_id", "opted_out", "hold_until", "digest")
)
FIRST_VALUE = INSERTED.index(VALUES[0])
_MAY_BE_EMPTY = tuple(
    map(
        INSERTED.index,
        (
            "email", "address_hash", "company_id", "first_name", "last_name", "language", "country", "time_zone",
            "phone", "owner", "customer_since", "last_surveyed_seen", "hold_until", "nps_seen",
        ),
    )
)  # fmt: skip

#: A record in the order of INSERTED; its ids and its company are filled in where they are known.
Row = list[Any]


@dataclass(slots=True)
class Origin:
    """The connection records come from, and what is needed to read them. One per sync run."""

    connection_id: int
    name: str
    zone: tzinfo
    pepper: bytes
    hash_of: Callable[[str], bytes] = field(init=False)
    companies: dict[str, int] = field(default_factory=dict)  # by name as written

    def __post_init__(self) -> None:
        self.hash_of = address_hasher(self.pepper)


@dataclass(slots=True)
class Difference:
    """What of some contacts is news. `changed` are (contact, identity id or None when new)."""

    changed: list[tuple[Contact, int | None]] = field(default_factory=list)
    unchanged: list[int] = field(default_factory=list)


def compare(tx: Connection, connection_id: int, contacts: Sequence[Contact]) -> Difference:
    """Tell news from what is stored already. Of a record that comes twice the last counts. Reads only."""
    difference = Difference()
    for chunk in chunks(_last_of_each(contacts)):
        known = _known(tx, connection_id, [contact.external_id for contact in chunk])
        for contact in chunk:
            row = known.get(contact.external_id)
            if row is None:
                difference.changed.append((contact, None))
            elif row[1] != digest_of(contact) or row[2] is not None:
                difference.changed.append((contact, row[0]))
            else:
                difference.unchanged.append(row[0])
    return difference


def _last_of_each(contacts: Sequence[Contact]) -> Sequence[Contact]:
    by_id = {contact.external_id: contact for contact in contacts}
    return contacts if len(by_id) == len(contacts) else list(by_id.values())


def _known(tx: Connection, connection_id: int, external_ids: Sequence[str]) -> dict[str, tuple[int, bytes, int | None]]:
    mark = placeholder(tx)
    statement = _known_statement(mark, len(external_ids))
    rows = tx.exec_driver_sql(statement, (connection_id, *external_ids)).cursor.fetchall()
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


@lru_cache(maxsize=64)
def _known_statement(mark: str, number: int) -> str:
    wanted = ",".join([mark] * number)
    return (
        "SELECT external_id, id, digest, gone_at FROM identities"
        f" WHERE connection_id = {mark} AND external_id IN ({wanted})"
    )


def digest_of(contact: Contact) -> bytes:
    """The digest of all a record says: its connector's, or one of ours where it makes none."""
    if not contact.digest:
        said = (
            contact.email, contact.first_name, contact.last_name, contact.company, contact.language, contact.country,
            contact.time_zone, contact.phone, contact.owner, contact.customer_since, contact.opted_out,
            contact.last_surveyed_at, contact.hold_until, contact.attributes, contact.nps, contact.company_external_id,
        )  # fmt: skip
        contact.digest = blake2b(repr(said).encode(errors="surrogatepass"), digest_size=16).digest()
    return contact.digest


def row_of(origin: Origin, contact: Contact) -> Row:
    """A record as a row, without its ids and its company. Needs no database: made before the lock is taken."""
    email = clean_address(contact.email) if contact.email else None
    since = contact.customer_since
    attributes = contact.attributes
    return [
        None,
        None,
        origin.connection_id,
        contact.external_id,
        email,
        origin.hash_of(email) if email else None,
        email is not None and _may_be_role(email) and is_role_address(email),
        None,
        contact.first_name,
        contact.last_name,
        contact.language,
        contact.country,
        contact.time_zone,
        contact.phone,
        contact.owner,
        (since.toordinal() - EPOCH_DAY) * DAY_MS if since else None,
        contact.opted_out,
        contact.last_surveyed_at,
        hold_ms(contact.hold_until, origin.zone) if contact.hold_until else None,
        json_object(attributes) if attributes else "{}",
        json_object(contact.nps) if contact.nps else None,
        contact.digest or digest_of(contact),
    ]


def _may_be_role(email: str) -> bool:
    """Names of functions have no dot: most addresses need no closer look."""
    local = email[: email.index("@")]
    return "." not in local or "+" in local


def hold_ms(written: str, zone: tzinfo) -> int | None:
    """Until when a record asks to be left alone, to the end of the day for a date. None for no date."""
    moment = parse_moment(written, zone)
    return to_ms(moment.at) if moment else None


def json_object(values: dict[str, Any]) -> str:
    """JSON text; texts alone, the common case, take a third of the time of `json.dumps`."""
    quote = encode_basestring
    try:
        return "{" + ",".join([f"{quote(key)}:{quote(value)}" for key, value in values.items()]) + "}"
    except TypeError:
        return json.dumps(values, ensure_ascii=False, default=str)


def store_companies(tx: Connection, origin: Origin, names: Iterable[str | None]) -> None:
    """Make sure `origin.companies` knows these, in a reservation. Names that differ in case or spaces are one."""
    cache = origin.companies
    wanted = set(names)
    wanted.discard(None)
    missing = [name for name in wanted if name and name not in cache]
    if not missing:
        return
    if len(cache) + len(missing) > COMPANIES_REMEMBERED:
        cache.clear()
        missing = [name for name in wanted if name]
    keys = {name: company_key(name) for name in missing}
    ids = _company_ids(tx, set(keys.values()))
    new = {key: name for name, key in sorted(keys.items()) if key not in ids}
    ids |= zip(new, reserve_ids(tx, "companies", len(new)), strict=True)
    insert_rows(tx, "companies", ("id", "key", "name"), [(ids[key], key, name) for key, name in new.items()])
    cache.update((name, ids[key]) for name, key in keys.items())


def _company_ids(tx: Connection, keys: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for chunk in chunks(keys):
        found.update((key, number) for key, number in tx.execute(_COMPANIES, {"keys": chunk}))
    return found


_COMPANIES = text("SELECT key, id FROM companies WHERE key IN :keys").bindparams(bindparam("keys", expanding=True))


def reserve_ids(tx: Connection, table: str, number: int) -> Sequence[int]:
    """Primary keys for new rows, ascending. The transaction must be a writing one."""
    if not number:
        return ()
    if tx.dialect.name == "sqlite":
        last = tx.exec_driver_sql(f"SELECT max(id) FROM {table}").scalar() or 0
        return range(last + 1, last + 1 + number)
    sequence = text("SELECT nextval(pg_get_serial_sequence(:table, 'id')) FROM generate_series(1, :number)")
    return sorted(tx.scalars(sequence, {"table": table, "number": number}))


def insert_rows(tx: Connection, table: str, columns: Sequence[str], rows: Sequence[Any], conflict: str = "") -> None:
    """Insert tuples, by the driver's own bulk call."""
    if rows:
        marks = ", ".join([placeholder(tx)] * len(columns))
        tx.exec_driver_sql(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks}){conflict}", list(rows))


def insert_records(tx: Connection, rows: Sequence[Row]) -> None:
    """Insert rows of identities in ascending order of their ids. The rows are used up.

    SQLite's driver binds texts, exact ints and bytearrays at once and asks a registry about every other value, None
    too: a quarter of the time of a row. So columns that no row fills are left out.
    """
    empty = {place for place in _MAY_BE_EMPTY if all(row[place] is None for row in rows)}
    if tx.dialect.name == "sqlite":
        for row in rows:
            row[SHARED] += 0
            row[OPTED_OUT] += 0
            row[DIGEST] = bytearray(row[DIGEST])
            if row[ADDRESS] is not None:
                row[ADDRESS] = bytearray(row[ADDRESS])
    filled = [place for place in range(len(INSERTED)) if place not in empty]
    insert_rows(tx, "identities", [INSERTED[place] for place in filled], list(map(itemgetter(*filled), rows)))


def blobs(tx: Connection, values: Iterable[bytes]) -> tuple[Any, ...]:
    """Bytes as the driver binds them fastest."""
    return tuple(map(bytearray, values) if tx.dialect.name == "sqlite" else values)


def update_rows(tx: Connection, table: str, columns: Sequence[str], rows: Sequence[Any]) -> None:
    """Update by primary key: each tuple holds the columns' values, then the id."""
    if rows:
        mark = placeholder(tx)
        assignments = ", ".join(f"{column} = {mark}" for column in columns)
        tx.exec_driver_sql(f"UPDATE {table} SET {assignments} WHERE id = {mark}", list(rows))


def placeholder(tx: Connection) -> str:
    """How the driver writes a parameter by position."""
    return "?" if tx.dialect.paramstyle == "qmark" else "%s"


def chunks(items: Iterable[Any], size: int = CHUNK) -> Iterable[list[Any]]:
    """Lists of at most `size`."""
    items = list(items)
    for start in range(0, len(items), size):
        yield items[start : start + size]
