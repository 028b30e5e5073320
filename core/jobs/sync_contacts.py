"""Reads the sources: each under a lease, page by page from its bookmark, a page and its bookmark in one transaction.

Killed anywhere, the next run goes on from the last page that was stored whole; records of a page that is not are
compared again, which is harmless. What has not changed is compared in a snapshot and writes nothing. A source that
cannot be read is marked broken with the reason; the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import cast

from core.clock import MINUTE_MS
from core.dates import parse_moment
from core.errors import ConnectorError, RateLimited
from core.jobs.context import Context, JobReport
from core.jobs.outlet import Outlet, held
from core.ports import BadRecord, Bookmark, Contact, ContactRecord, ContactSource, Page
from core.storage import bad_records, bookmarks, people_gone, rates, settings, waves
from core.storage.people_rows import Origin
from core.storage.people_store import Batch, store_records
from core.storage.settings import ConnectionRow
from core.storage.store import Session, Transaction
from core.workspace import Workspace

NAME = "sync_contacts"
USE = "sync"
#: How often a worker looks at a source that says nothing about it.
SYNC_MINUTES = 1
#: So long a transaction's statements may take, that no page of ours waits for the write lock: batches follow from it.
#: Its commit is left out, because on a slow disk that takes as long for a small one.
TRANSACTION_SECONDS = 0.03
FIRST_BATCH, SMALLEST_BATCH, LARGEST_BATCH = 250, 250, 4_000
#: Records deleted in one transaction: each may take a person with it.
GONE_AT_ONCE = 100
#: Where we are is written down at least so often while nothing has changed.
NOTED_SECONDS = 10.0
#: Bad rows told in a line of `tick`; all of them stand in the status.
TOLD = 3
BLOCKED_SECONDS = 60.0
#: An account that wants to be left alone for longer than this is read at a later run.
LONGEST_WAIT = 60.0


def run(context: Context, *, due_only: bool = False) -> JobReport:
    """Read every source; `done` counts records that were news. `due_only`: those not read a moment ago."""
    started = time.monotonic()
    report = JobReport(NAME)
    with context.store.read() as tx:
        workspace = settings.read_workspace(tx)
        rows = settings.read_connections(tx)
    now = context.clock.now_ms()
    for row in rows if workspace is not None else ():
        if context.stopping.is_set():
            break
        if workspace is not None and not (due_only and _read_lately(row, now)):
            report.add(_sync(context, workspace, row, due_only))
    report.seconds = time.monotonic() - started
    return report


def _read_lately(row: ConnectionRow, now: int) -> bool:
    minutes = row.config.get("sync_minutes") or SYNC_MINUTES
    return row.synced_at is not None and 0 <= now - row.synced_at < minutes * MINUTE_MS


def _sync(context: Context, workspace: Workspace, row: ConnectionRow, patient: bool) -> JobReport:
    if not _is_source(context, row):
        return JobReport(NAME)
    with held(context, row, USE, patient=patient) as outlet:
        if outlet is None:
            return JobReport(NAME)
        sync = Sync(context, workspace, outlet)
        try:
            sync.run()
        except TakenOver as taken:
            sync.report.messages.append(str(taken))
        except Exception as error:  # one source must not stop the others
            context.log.exception("reading %s failed", row.name)
            sync.report.failed += 1
            sync.report.messages.append(f"{row.name}: {type(error).__name__}: {error}")
        return sync.report


def _is_source(context: Context, row: ConnectionRow) -> bool:
    """Whether contacts can be read from it. What cannot be built is tried, so that its reason is written down."""
    try:
        return isinstance(context.opener.open(row.name), ContactSource)
    except Exception:  # told by the outlet, which opens it again
        return True


class TakenOver(Exception):
    """Somebody else moved the bookmark: nothing of ours may be committed."""


class Pace:
    """How many records go into one transaction, by how long the last ones took."""

    def __init__(self) -> None:
        self.size = FIRST_BATCH

    def note(self, number: int, seconds: float) -> None:
        """A transaction stored so many records in so long."""
        if number:
            wanted = int(number * TRANSACTION_SECONDS / max(seconds, 0.001))
            self.size = max(SMALLEST_BATCH, min(wanted, self.size * 2, LARGEST_BATCH))


class Sync:
    """One read of one source."""

    def __init__(self, context: Context, workspace: Workspace, outlet: Outlet) -> None:
        self.context = context
        self.outlet = outlet
        self.report = JobReport(NAME)
        connection = outlet.connection
        self._origin = Origin(connection.id, connection.name, workspace.zone, context.pepper)
        self._pace = Pace()
        self._session: Session
        self._kept = Bookmark()  # the bookmark as stored
        self._noted = 0.0  # when, by the monotonic clock
        self._began_at = 0
        self._seen: people_gone.SeenRecords | None = None
        self._known: int | None = None  # live records before this read; None: not counted yet
        self._unplanned = False  # whether it is written down that plans have to be made again
        self._bad: list[BadRecord] = []
        self._bad_count = 0
        self._over = False

    def run(self) -> None:
        """Read to the end, and once more if the source asks for a read from its beginning."""
        if not self.outlet.open():
            self._tell_problem()
            return
        if not self._may_call():
            return
        try:
            with self.context.store.session(repeatable=True) as self._session:
                self._read_all()
        except RateLimited as error:
            self._blocked(error)
        except ConnectorError as error:
            with self.context.store.write() as tx:
                self.outlet.broken(tx, error)
                self._plan_again(tx)
            self._tell_problem()

    def _may_call(self) -> bool:
        """Wait as long as the account was told to, if that is not long."""
        with self.context.store.read() as tx:
            wait = rates.blocked_for(tx, self.outlet.account, self.context.clock.now_ms())
        if wait > LONGEST_WAIT:
            self.report.messages.append(f"{self.outlet.connection.name}: the vendor asked to wait {wait:.0f} s")
            return False
        return not self.context.stopping.wait(wait) if wait else True

    def _read_all(self) -> None:
        for _ in range(2):
            last = self._read()
            if last is None or last.full or last.bookmark.watermark:
                return

    def _tell_problem(self) -> None:
        self.report.failed += 1
        self.report.messages.append(f"{self.outlet.connection.name}: {self.outlet.problem}")

    def _blocked(self, error: RateLimited) -> None:
        seconds = BLOCKED_SECONDS if error.retry_after is None else error.retry_after
        with self.context.store.write() as tx:
            rates.block(tx, self.outlet.account, self.context.clock.now_ms() + round(seconds * 1000))
        self.report.messages.append(f"{self.outlet.connection.name}: {error}")

    def _read(self) -> Page[ContactRecord] | None:
        """Every page from the bookmark on. Returns the last one, None if it was not reached."""
        connection_id = self._origin.connection_id
        with self._session.read() as tx:
            start = self._kept = bookmarks.read_bookmark(tx, connection_id)
            self._unplanned = bookmarks.has_bookmark(tx, connection_id, bookmarks.UNPLANNED)
        self._began_at, self._noted = self.context.clock.now_ms(), time.monotonic()
        self._seen = None if start.cursor else people_gone.SeenRecords()
        self._known = None
        self._bad, self._bad_count = [], 0
        for page in self._pages(start):
            self._store(page)
            if self._over or self.context.stopping.is_set():
                return None
            if page.last:
                self._finish(page, nothing_new=page.bookmark == start and not page.items)
                return page
            del page  # its records need not wait in memory while the next ones are made
        return None

    def _pages(self, start: Bookmark) -> Iterator[Page[ContactRecord]]:
        source: ContactSource = self.outlet.connector
        with closing(source.read_contacts(start)) as pages:  # type: ignore[type-var]  # an iterator may be a generator
            yield from pages

    # --- one page -----------------------------------------------------------------------------------------------

    def _store(self, page: Page[ContactRecord]) -> None:
        """Store its records and where we are then. The end of a read is noted last of all, in `_finish`."""
        self._note_bad(page)
        position = 0
        while position < len(page.items) and not self._over:
            records = page.items[position : position + self._pace.size]
            position += len(records)
            batch = self._news(records)
            if batch.records:
                self._write(batch, None if page.last or position < len(page.items) else page.bookmark)
        if not page.last and self._kept != page.bookmark and time.monotonic() - self._noted > NOTED_SECONDS:
            self._write(Batch(self._origin, []), page.bookmark)
        self.context.progress(f"{self._origin.name}: {self.report.done:,} records changed")

    def _news(self, records: Sequence[ContactRecord]) -> Batch:
        """These records without those that are stored as they are, ready to be written."""
        batch = Batch(self._origin, records)
        if self._known is None:
            with self._session.read() as tx:
                self._known = people_gone.live_records(tx, self._origin.connection_id)
        if self._known:
            with self._session.read() as tx:
                known = batch.leave_out_known(tx)
            self._note_seen(known)
        batch.prepare()
        return batch

    def _write(self, batch: Batch, bookmark: Bookmark | None) -> None:
        if self._over:
            return
        with self._session.reservation() as tx:
            started = time.monotonic()
            if not self.outlet.renew(tx):
                self._over = True
                return
            now = self.context.clock.now_ms()
            stored = store_records(tx, batch, now)
            if stored.changed:
                self._mark_unplanned(tx, now)
            if bookmark is not None:
                self._move_on(tx, bookmark, now)
            self._pace.note(len(batch.records), time.monotonic() - started)
        self.report.done += stored.changed
        self._note_seen(stored.seen)

    def _move_on(self, tx: Transaction, bookmark: Bookmark, now: int) -> None:
        """Note where we are, if nobody else has moved the bookmark. Raises TakenOver."""
        if not bookmarks.write_bookmark(tx, self._origin.connection_id, bookmark, now, was=self._kept):
            raise TakenOver(f"{self._origin.name} was read by another process at the same time")
        self._kept, self._noted = bookmark, time.monotonic()

    def _note_seen(self, identity_ids: Sequence[int]) -> None:
        if self._seen is not None:
            for identity_id in identity_ids:
                self._seen.add(identity_id)

    # --- what cannot be used --------------------------------------------------------------------------------------

    def _note_bad(self, page: Page[ContactRecord]) -> None:
        for bad in page.bad:
            self._add_bad(bad)
        self._note_seen(self._there([bad.external_id for bad in page.bad if bad.external_id]))
        zone = self._origin.zone
        for item in page.items:
            contact = cast(Contact, item)
            if isinstance(item, Contact) and (text := contact.last_surveyed_at) and parse_moment(text, zone) is None:
                where = f"line {contact.line}" if contact.line else f"record {contact.external_id}"
                self._add_bad(BadRecord(where, f'"{text[:60]}" is no date of a last survey; it was ignored'))

    def _there(self, external_ids: Sequence[str]) -> Sequence[int]:
        """The identities of records that cannot be used as they stand: they are there, and not gone."""
        if not external_ids or self._seen is None:
            return ()
        with self._session.read() as tx:
            return people_gone.record_ids(tx, self._origin.connection_id, external_ids)

    def _add_bad(self, bad: BadRecord) -> None:
        self._bad_count += 1
        if len(self._bad) < bad_records.MOST:
            self._bad.append(bad)

    def _tell_bad(self) -> None:
        if not self._bad_count:
            return
        shown = "; ".join(f"{one.where}: {one.reason}" for one in self._bad[:TOLD])
        more = f"; and {self._bad_count - TOLD} more" if self._bad_count > TOLD else ""
        rows = "1 record" if self._bad_count == 1 else f"{self._bad_count} records"
        self.report.messages.append(f"{self._origin.name}: {rows} could not be used: {shown}{more}")

    # --- the end ------------------------------------------------------------------------------------------------

    def _finish(self, page: Page[ContactRecord], nothing_new: bool) -> None:
        """The read is over. Killed before this is written, the next one reads its end again and removes who is gone."""
        connection = self.outlet.connection
        missing = self._remove_gone(self._seen) if page.full and self._seen is not None else None
        # the first read is complete when the source has nothing more, in however many runs
        complete = page.full or (connection.full_read_at is None and bool(page.bookmark.watermark))
        with self._session.write() as tx:
            now = self.context.clock.now_ms()
            self._move_on(tx, page.bookmark, now)
            if not nothing_new:
                bad_records.replace_bad_records(tx, connection.id, self._bad, now)
                self._tell_bad()
            # what a source shows was written before its read began, or may have been written after
            settings.mark_synced(tx, connection.id, self._began_at, full=complete)
            self.outlet.works(tx)
            if missing is not None and missing != connection.reason:
                settings.mark_connection(tx, connection.id, "ok", missing, now)
            self._plan_again(tx)

    def _mark_unplanned(self, tx: Transaction, now: int) -> None:
        """Plans are made again when the read is over; that they have to be outlives this process."""
        if not self._unplanned:
            bookmarks.put_bookmark(tx, self._origin.connection_id, Bookmark(), now, bookmarks.UNPLANNED)
            self._unplanned = True

    def _plan_again(self, tx: Transaction) -> None:
        if self._unplanned:
            waves.replan(tx)
            bookmarks.forget_bookmark(tx, self._origin.connection_id, bookmarks.UNPLANNED)
            self._unplanned = False

    def _remove_gone(self, seen: people_gone.SeenRecords) -> str:
        """Records the read did not show are gone, unless so many are that the source must be broken: then says so."""
        with self._session.read() as tx:
            gone = list(people_gone.unseen_records(tx, self._origin.connection_id, seen))
            known = self._known or people_gone.live_records(tx, self._origin.connection_id) if gone else 0
        if people_gone.too_many(len(gone), known):
            reason = (
                f"{len(gone)} of {known} records are missing from the source; nobody was removed. If that is meant,"
                " remove them in smaller steps"
            )
            self.report.messages.append(f"{self._origin.name}: {reason}")
            return reason
        for start in range(0, len(gone), GONE_AT_ONCE):
            with self._session.reservation() as tx:
                now = self.context.clock.now_ms()
                self.outlet.renew(tx)
                self._move_on(tx, self._kept, now)  # whoever read it meanwhile knows records that we do not
                people_gone.delete_records(tx, gone[start : start + GONE_AT_ONCE], now)
                self._mark_unplanned(tx, now)
        self.report.done += len(gone)
        return ""
