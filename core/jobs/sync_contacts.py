"""Reads the sources: each under a lease, page by page from its bookmark, a page and its bookmark in one transaction.

Killed anywhere, the next run goes on from the last page that was stored whole. What has not changed is compared in a
snapshot and writes nothing. A source that cannot be read is marked broken with the reason; the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from itertools import islice

from core.clock import MINUTE_MS
from core.errors import ConnectorError, RateLimited
from core.jobs.context import Context, JobReport
from core.jobs.outlet import Outlet, held
from core.ports import BadRecord, Bookmark, ContactRecord, ContactSource, Page
from core.storage import bad_records, bookmarks, people_gone, rates, settings, waves
from core.storage.people_rows import Origin
from core.storage.people_store import BATCH, Stored, store_records, unchanged
from core.storage.settings import ConnectionRow
from core.storage.store import Transaction
from core.workspace import Workspace

NAME = "sync_contacts"
USE = "sync"
#: How often a worker looks at a source that says nothing about it.
SYNC_MINUTES = 1
#: Records deleted in one transaction: each may take a person with it.
GONE_AT_ONCE = 200
#: Bad rows told in a line of `tick`; all of them stand in the status.
TOLD = 3
BLOCKED_SECONDS = 60.0


def run(context: Context, *, due_only: bool = False) -> JobReport:
    """Read every source; `done` counts records that were news. `due_only`: those not read a moment ago."""
    started = time.monotonic()
    report = JobReport(NAME)
    with context.store.read() as tx:
        workspace = settings.read_workspace(tx)
        rows = settings.read_connections(tx)
    now = context.clock.now_ms()
    for row in rows if workspace is not None else ():
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
        try:
            return Sync(context, workspace, outlet).run()
        except TakenOver as taken:
            return JobReport(NAME, messages=[str(taken)])
        except Exception as error:  # one source must not stop the others
            context.log.exception("reading %s failed", row.name)
            return JobReport(NAME, failed=1, messages=[f"{row.name}: {type(error).__name__}: {error}"])


def _is_source(context: Context, row: ConnectionRow) -> bool:
    """Whether contacts can be read from it. What cannot be built is tried, so that its reason is written down."""
    try:
        return isinstance(context.opener.open(row.name), ContactSource)
    except Exception:  # told by the outlet, which opens it again
        return True


class Sync:
    """One read of one source."""

    def __init__(self, context: Context, workspace: Workspace, outlet: Outlet) -> None:
        self.context = context
        self.outlet = outlet
        self.report = JobReport(NAME)
        connection = outlet.connection
        self._origin = Origin(connection.id, connection.name, workspace.zone, context.pepper)
        self._kept = Bookmark()  # the bookmark as stored
        self._seen: people_gone.SeenRecords | None = None
        self._known = 0  # live records before this read
        self._bad: list[BadRecord] = []
        self._bad_count = 0
        self._over = False

    def run(self) -> JobReport:
        """Read to the end, and once more if the source asks for a read from its beginning."""
        if not self.outlet.open():
            return self._tell_problem()
        try:
            for _ in range(2):
                last = self._read()
                if last is None or last.full or last.bookmark.watermark or self._over:
                    break
        except RateLimited as error:
            self._blocked(error)
        except ConnectorError as error:
            with self.context.store.write() as tx:
                self.outlet.broken(tx, error)
            self._tell_problem()
        return self.report

    def _tell_problem(self) -> JobReport:
        self.report.failed += 1
        self.report.messages.append(f"{self.outlet.connection.name}: {self.outlet.problem}")
        return self.report

    def _blocked(self, error: RateLimited) -> None:
        seconds = BLOCKED_SECONDS if error.retry_after is None else error.retry_after
        with self.context.store.write() as tx:
            rates.block(tx, self.outlet.account, self.context.clock.now_ms() + round(seconds * 1000))
        self.report.messages.append(f"{self.outlet.connection.name}: {error}")

    def _read(self) -> Page[ContactRecord] | None:
        """Every page from the bookmark on. Returns the last one, None if it was not reached."""
        with self.context.store.read() as tx:
            start = self._kept = bookmarks.read_bookmark(tx, self._origin.connection_id)
            self._known = people_gone.live_records(tx, self._origin.connection_id)
        self._seen = None if start.cursor else people_gone.SeenRecords()
        self._bad, self._bad_count = [], 0
        source: ContactSource = self.outlet.connector
        with closing(source.read_contacts(start)) as pages:  # type: ignore[type-var]  # an iterator may be a generator
            for page in pages:
                self._store(page)
                if self._over or self.context.stopping.is_set():
                    return None
                if page.last:
                    self._finish(page, nothing_new=page.bookmark == start and not page.items)
                    return page
        return None

    # --- one page -----------------------------------------------------------------------------------------------

    def _store(self, page: Page[ContactRecord]) -> None:
        self._bad += page.bad[: bad_records.MOST - len(self._bad)]
        self._bad_count += len(page.bad)
        items = iter(page.items)
        batches = list(iter(lambda: list(islice(items, BATCH)), []))
        for number, batch in enumerate(batches, 1):
            if not self._is_known(batch):
                self._write(batch, page.bookmark if number == len(batches) else None)
            if self._over:
                return
        if page.last and self._kept != page.bookmark:
            self._write([], page.bookmark)
        self.context.progress(f"{self._origin.name}: {self.report.done:,} records changed")

    def _is_known(self, batch: Sequence[ContactRecord]) -> bool:
        """Whether all of these are stored as they are: then nothing is written, not even where we are."""
        if not self._known:
            return False
        with self.context.store.read() as tx:
            seen = unchanged(tx, self._origin, batch)
        if seen is not None:
            self._note(seen)
        return seen is not None

    def _write(self, batch: Sequence[ContactRecord], bookmark: Bookmark | None) -> None:
        with self.context.store.reservation() as tx:
            now = self.context.clock.now_ms()
            if not self.outlet.renew(tx):
                self._over = True
                return
            stored = store_records(tx, self._origin, batch, now)
            if bookmark is not None:
                self._over = not self._move_on(tx, bookmark, now)
                if self._over:
                    raise TakenOver(f"{self._origin.name} was read by another process at the same time")
        self._count(stored)

    def _move_on(self, tx: Transaction, bookmark: Bookmark, now: int) -> bool:
        moved = bookmarks.write_bookmark(tx, self._origin.connection_id, bookmark, now, was=self._kept)
        if moved:
            self._kept = bookmark
        return moved

    def _count(self, stored: Stored) -> None:
        self.report.done += stored.changed
        self._note(stored.seen)
        for line, text in stored.unreadable:
            self._bad_count += 1
            if len(self._bad) < bad_records.MOST:
                where = f"line {line}" if line else "a record"
                self._bad.append(BadRecord(where, f'"{text[:60]}" is no date of a last survey; it was ignored'))

    def _note(self, identity_ids: Sequence[int]) -> None:
        if self._seen is not None:
            for identity_id in identity_ids:
                self._seen.add(identity_id)

    # --- the end ------------------------------------------------------------------------------------------------

    def _finish(self, page: Page[ContactRecord], nothing_new: bool) -> None:
        reason = self._remove_gone(self._seen) if page.full and self._seen is not None else ""
        with self.context.store.write() as tx:
            now = self.context.clock.now_ms()
            if not nothing_new:
                bad_records.replace_bad_records(tx, self._origin.connection_id, self._bad, now)
                self._tell_bad()
            settings.mark_synced(tx, self._origin.connection_id, now, full=page.full)
            self.outlet.works(tx)
            if reason:
                settings.mark_connection(tx, self._origin.connection_id, "ok", reason, now)
            if self.report.done:
                waves.replan(tx)

    def _tell_bad(self) -> None:
        if not self._bad_count:
            return
        shown = "; ".join(f"{one.where}: {one.reason}" for one in self._bad[:TOLD])
        more = f"; and {self._bad_count - TOLD} more" if self._bad_count > TOLD else ""
        rows = "1 record" if self._bad_count == 1 else f"{self._bad_count} records"
        self.report.messages.append(f"{self._origin.name}: {rows} could not be used: {shown}{more}")

    def _remove_gone(self, seen: people_gone.SeenRecords) -> str:
        """Records the read did not show are gone, unless so many are that the source must be broken."""
        with self.context.store.read() as tx:
            gone = list(people_gone.unseen_records(tx, self._origin.connection_id, seen))
        if not gone:
            return ""
        if people_gone.too_many(len(gone), self._known):
            reason = (
                f"{len(gone)} of {self._known} records are missing from the source; nobody was removed. If that is"
                " meant, remove them in smaller steps"
            )
            self.report.messages.append(f"{self._origin.name}: {reason}")
            return reason
        for start in range(0, len(gone), GONE_AT_ONCE):
            with self.context.store.reservation() as tx:
                people_gone.delete_records(tx, gone[start : start + GONE_AT_ONCE], self.context.clock.now_ms())
        self.report.done += len(gone)
        return ""


class TakenOver(Exception):
    """Somebody else moved the bookmark: nothing of ours may be committed."""
