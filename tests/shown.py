"""Pages of records put straight into a database, and short ways to look at what became of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, func, select

from core.clock import DAY_MS, Clock
from core.contacts import address_hash
from core.ports import BadRecord, Bookmark, Contact, ContactRecord, Page
from core.storage import schema
from core.storage.people_rows import Origin
from core.storage.people_store import Batch, Stored, store_records
from core.storage.store import Store
from core.touches import TouchState
from tests.ledger import add_campaign, add_connection, add_touch, add_wave
from tests.world import PEPPER


class Listed:
    """Records in a list. Like a file: read whole, or not at all while nothing has changed; the cursor is a place."""

    def __init__(self, *records: ContactRecord, page_size: int = 100) -> None:
        self.records = list(records)
        self.bad: list[BadRecord] = []
        self.page_size = page_size
        self.pages_read = 0
        self.fails_after: tuple[int, Exception] | None = None  # pages, then this

    def read_contacts(self, start: Bookmark) -> Iterator[Page[ContactRecord]]:
        """Pages after `start`."""
        version = hashlib.sha256(repr((self.records, self.bad)).encode()).hexdigest()
        if start.watermark == version:
            yield Page([], start, last=True)
            return
        place, _, of_version = start.cursor.partition(" ")
        first = int(place) if of_version == version else 0
        places = range(first, max(len(self.records), 1), self.page_size)
        for at in places:
            if self.fails_after is not None and self.pages_read >= self.fails_after[0]:
                raise self.fails_after[1]
            self.pages_read += 1
            end, last = at + self.page_size, at == places[-1]
            whole = Bookmark(version) if first == 0 else Bookmark()
            bookmark = whole if last else Bookmark(cursor=f"{end} {version}")
            yield Page(self.records[at:end], bookmark, last, last and first == 0, self.bad if last else ())


class Shown:
    """A database with two sources, `crm` and `hub`, both written back to."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store, self.clock = store, clock
        with store.write() as tx:
            self.crm, self.hub = add_connection(tx), add_connection(tx, "hub")
            config = {"name": "relationship", "source": ["crm", "hub"], "sender": "mail", "every_days": 90}
            self.campaign = add_campaign(tx, config=config | {"write_back": ["crm", "hub"]})
            self.wave = add_wave(tx, self.campaign)
        paris = ZoneInfo("Europe/Paris")
        self.origins = {
            number: Origin(number, name, paris, PEPPER) for number, name in ((self.crm, "crm"), (self.hub, "hub"))
        }

    @property
    def now(self) -> int:
        return self.clock.now_ms()

    def show(self, source: int, *records: ContactRecord) -> Stored:
        """One page of a source is stored."""
        batch = Batch(self.origins[source], records)
        batch.prepare()
        with self.store.reservation() as tx:
            return store_records(tx, batch, self.now)

    def record(self, source: int, external_id: str) -> Any:
        """A row of identities, or None."""
        i = schema.identities.c
        return self.one(select(schema.identities).where(i.connection_id == source, i.external_id == external_id))

    def person(self, source: int, external_id: str) -> Any:
        """The person a record belongs to."""
        return self.one(select(schema.people).where(schema.people.c.id == self.record(source, external_id).person_id))

    def ask(self, source: int, external_id: str, state: TouchState, days_ago: float = 1, **values: Any) -> int:
        """A touch sent from a record, or reserved to be sent."""
        record = self.record(source, external_id)
        at = self.now - round(days_ago * DAY_MS)
        sent = {} if state is TouchState.RESERVED else {"handed_over_at": at}
        facts = {"identity_id": record.id, "campaign_id": self.campaign, "wave_id": self.wave, **sent, **values}
        with self.store.write() as tx:
            touch = add_touch(
                tx, record.person_id, state, at, address_hash=record.address_hash, window_closes_at=at + 21 * DAY_MS,
                **facts,
            )  # fmt: skip
            if state is TouchState.RESERVED:
                _add_send(tx, touch, source)
        return touch

    def touch(self, touch_id: int) -> Any:
        """A row of touches."""
        return self.one(select(schema.touches).where(schema.touches.c.id == touch_id))

    def touches(self, source: int, external_id: str) -> list[Any]:
        """The touches of the person a record belongs to, in the order they came."""
        t = schema.touches.c
        wanted = select(schema.touches).where(t.person_id == self.record(source, external_id).person_id).order_by(t.id)
        with self.store.read() as tx:
            return list(tx.execute(wanted))

    def wanted(self, source: int, external_id: str) -> int:
        """How often a write-back to a record was asked for."""
        d = schema.deliveries.c
        record = self.record(source, external_id)
        version = select(d.wanted_version).where(d.kind == "write_back", d.identity_id == record.id)
        with self.store.read() as tx:
            return tx.scalar(version) or 0

    def count(self, table: Any, *which: Any) -> int:
        """How many rows of a table there are."""
        with self.store.read() as tx:
            return tx.scalar(select(func.count()).select_from(table).where(*which)) or 0

    def one(self, query: Any) -> Any:
        """The one row of a query, or None."""
        with self.store.read() as tx:
            return tx.execute(query).one_or_none()


def _add_send(tx: Connection, touch_id: int, connection_id: int) -> None:
    tx.execute(
        schema.deliveries.insert().values(
            key=f"touch{touch_id}:invite", kind="send", touch_id=touch_id, connection_id=connection_id, state="ready",
            due_at=0, created_at=0,
        )
    )  # fmt: skip


def contact(external_id: str, email: str | None = None, name: str = "", **values: Any) -> Contact:
    """A record; `name` is "First Last"."""
    first, _, last = name.partition(" ")
    return Contact(external_id, email, first or None, last or None, **values)


def hashed(email: str) -> bytes:
    """The hash of an address under the tests' pepper."""
    return address_hash(PEPPER, email)


def contents(store: Store, *but: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every table but the random names in it, to compare two states of a database."""
    found = {}
    with store.read() as tx:
        for table in schema.metadata.sorted_tables:
            if table.name not in {"leases", *but}:
                columns = [column for column in table.c if column.name != "public_id"]
                rows = tx.execute(select(*columns)).all()
                found[table.name] = sorted(tuple(map(repr, row)) for row in rows)
    return found
