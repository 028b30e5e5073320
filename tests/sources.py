"""Sources that a test holds in its hand, and the world around them: what becomes of people when records change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from core.clock import DAY_MS, FixedClock
from core.errors import ConnectorError
from core.jobs import push_scores, sync_contacts
from core.jobs.context import JobReport
from core.ports import BadRecord, Bookmark, Contact, ContactRecord, Page, ScoreUpdate, WriteResult
from core.storage import schema
from core.storage.store import Store, Transaction
from core.touches import TouchState
from tests import ledger
from tests.world import make_context, set_workspace

DATE = "nps_last_surveyed_at"


class Source:
    """Records in pages, read whole whenever something has changed; what we write into them is shown by the next read.

    `told` comes once, after the records of the next read, and `told_first` before them: merges and deletions.
    `whole=False` for a source that tells changes alone: nobody is missing from such a read.
    """

    kind = "listed"
    write_batch_size = 100

    def __init__(self, page_size: int = 100) -> None:
        self.contacts: dict[str, Contact] = {}
        self.told_first: list[ContactRecord] = []
        self.told: list[ContactRecord] = []
        self.bad: list[BadRecord] = []
        self.whole = True
        self.error: ConnectorError | None = None
        self.page_size = page_size
        self.pages_read = 0
        self._version = 1

    def put(self, external_id: str, email: str | None = None, **values: Any) -> None:
        """Show this record from now on, just as it is said here."""
        self.contacts[external_id] = Contact(external_id, email, **values)
        self._version += 1

    def change(self, external_id: str, **values: Any) -> None:
        """Show something else in some fields of a record."""
        self.contacts[external_id] = replace(self.contacts[external_id], digest=b"", **values)
        self._version += 1

    def remove(self, *external_ids: str) -> None:
        for external_id in external_ids:
            del self.contacts[external_id]
        self._version += 1

    def tell(self, record: ContactRecord, *, first: bool = False) -> None:
        (self.told_first if first else self.told).append(record)
        self._version += 1

    # --- as the core sees it --------------------------------------------------------------------------------------

    def read_contacts(self, start: Bookmark) -> Iterator[Page[ContactRecord]]:
        if self.error is not None:
            raise self.error
        if not start.cursor and start.watermark == str(self._version):
            yield Page([], start, last=True)
            return
        items = [*self.told_first, *map(replace, self.contacts.values()), *self.told]
        begin = int(start.cursor or 0)
        for at in range(begin, max(len(items), 1), self.page_size):
            self.pages_read += 1
            last = at + self.page_size >= len(items)
            end = Bookmark(str(self._version)) if last else Bookmark(cursor=str(at + self.page_size))
            full = last and self.whole and not begin
            if last:
                self.told_first, self.told = [], []
            yield Page(items[at : at + self.page_size], end, last, full, self.bad if at == begin else ())

    def write_scores(self, updates: Sequence[ScoreUpdate]) -> Iterator[WriteResult]:
        for update in updates:
            contact = self.contacts[update.external_id]
            nps = dict(contact.nps)
            for name, value in update.fields.items():
                text = value.isoformat() if isinstance(value, datetime) else "" if value is None else str(value)
                if name == DATE:
                    contact.last_surveyed_at = text[:10] or None  # a field of dates, as most are
                else:
                    nps[name] = text
            contact.nps = {name: text for name, text in nps.items() if text}
            contact.digest = b""
            self._version += 1
            yield WriteResult.done(update.key)


class World:
    """Two sources, `crm` and `hub`, a workspace in Paris and a campaign that writes back to both.

    A record is named `crm:1`. The first sync makes people of what stands in the sources.
    """

    def __init__(self, store: Store, clock: FixedClock, connectors: Mapping[str, Any] | None = None) -> None:
        self.store, self.clock = store, clock
        self.crm, self.hub = Source(), Source()
        self.connectors = {"crm": self.crm, "hub": self.hub, **(connectors or {})}
        self.context = make_context(store, clock, self.connectors)
        set_workspace(store, time_zone="Europe/Paris")
        with store.write() as tx:
            self.connections = {
                name: ledger.add_connection(tx, name, full_read_at=None, state="new") for name in self.connectors
            }
            config = {"name": "relationship", "source": ["crm"], "sender": "mail", "every_days": 90,
                      "write_back": ["crm", "hub"]}  # fmt: skip
            self.campaign = ledger.add_campaign(tx, config=config)
            self.wave = ledger.add_wave(tx, self.campaign)

    @property
    def now(self) -> int:
        return self.clock.now_ms()

    @contextmanager
    def change(self) -> Iterator[Transaction]:
        """A transaction as those that link, merge and split people."""
        with self.store.reservation() as tx:
            yield tx

    def sync(self) -> JobReport:
        """Read both sources; what goes wrong has to be looked at."""
        return sync_contacts.run(self.context)

    def push(self) -> JobReport:
        """Write what is due back into both sources."""
        return push_scores.run(self.context)

    # --- what stands in the database ------------------------------------------------------------------------------

    def rows(self, statement: Any) -> list[Any]:
        with self.store.read() as tx:
            return list(tx.execute(statement))

    def record(self, name: str) -> Any:
        """The row of a record, gone or not."""
        source, _, external_id = name.partition(":")
        i = schema.identities.c
        (row,) = self.rows(
            select(schema.identities).where(
                i.connection_id == self.connections[source], i.external_id == external_id
            )
        )  # fmt: skip
        return row

    def person(self, name: str) -> int:
        """Whose record this is."""
        return int(self.record(name).person_id)

    def person_row(self, name: str) -> Any:
        (row,) = self.rows(select(schema.people).where(schema.people.c.id == self.person(name)))
        return row

    def people(self) -> list[frozenset[str]]:
        """The live records of each person."""
        names = {number: name for name, number in self.connections.items()}
        found: dict[int, set[str]] = {}
        for row in self.rows(select(schema.identities).where(schema.identities.c.gone_at.is_(None))):
            found.setdefault(row.person_id, set()).add(f"{names[row.connection_id]}:{row.external_id}")
        assert len(found) == self.count(schema.people), "people without a record"
        return [frozenset(found[person]) for person in sorted(found)]

    def count(self, table: Any) -> int:
        return int(self.rows(select(func.count()).select_from(table))[0][0])

    def touches(self, name: str) -> list[Any]:
        """The touches of the person a record belongs to, in order of the moment asked."""
        t = schema.touches
        return self.rows(select(t).where(t.c.person_id == self.person(name)).order_by(t.c.asked_at, t.c.id))

    def asked_days(self, name: str) -> list[str]:
        """The local dates of the asks that count, in order."""
        return [row.asked_local_date for row in self.touches(name) if row.state != TouchState.RETURNED]

    def touch(self, touch_id: int) -> Any:
        (row,) = self.rows(select(schema.touches).where(schema.touches.c.id == touch_id))
        return row

    def ask(self, name: str, state: TouchState = TouchState.HANDED_OVER, days_ago: float = 0, **values: Any) -> int:
        """A touch of ours, sent (or, if reserved, to be sent) to a record."""
        record = self.record(name)
        asked_at = self.now - round(days_ago * DAY_MS)
        with self.store.write() as tx:
            touch_id = ledger.add_touch(
                tx, record.person_id, state, asked_at, identity_id=record.id, address_hash=record.address_hash,
                campaign_id=self.campaign, **{"window_closes_at": asked_at + 21 * DAY_MS, **values},
            )  # fmt: skip
            if state is TouchState.RESERVED:
                tx.execute(
                    schema.deliveries.insert().values(
                        key=f"touch{touch_id}:invite", kind="send", connection_id=record.connection_id,
                        touch_id=touch_id, due_at=self.now, created_at=self.now, payload={"token": "secret"},
                    )
                )  # fmt: skip
        return touch_id

    def message(self, touch_id: int) -> str:
        """The state of the invitation of a reserved touch."""
        (row,) = self.rows(select(schema.deliveries).where(schema.deliveries.c.touch_id == touch_id))
        return str(row.state)

    def behind(self) -> set[str]:
        """The records that do not show the ledger yet."""
        names = {number: name for name, number in self.connections.items()}
        i, d = schema.identities, schema.deliveries
        rows = self.rows(
            select(i.c.connection_id, i.c.external_id)
            .join(d, d.c.identity_id == i.c.id)
            .where(d.c.kind == "write_back", d.c.state == "ready")
        )
        return {f"{names[row.connection_id]}:{row.external_id}" for row in rows}

    def contents(self, *but: str) -> dict[str, list[Any]]:
        """Every row of every table; leases, and when a source was last read, are left out."""
        with self.store.read() as tx:
            tables = [table for table in schema.metadata.sorted_tables if table.name not in {"leases", *but}]
            return {
                table.name: sorted(
                    map(str, tx.execute(select(*[c for c in table.c if c.name != "synced_at"])))
                )
                for table in tables
            }  # fmt: skip
