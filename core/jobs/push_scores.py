"""Writes scores and dates back: every record that is behind, in batches, each from the ledger as it is at that moment.

Writing the same values twice is harmless, so a write whose outcome is not known is simply done again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from core.dispatch import retry_at
from core.errors import ConnectorError, Misconfigured, RateLimited, Rejected, Unauthorized, Unavailable, Unsupported
from core.frequency import Limits, limits
from core.jobs.context import Context, JobReport
from core.jobs.outlet import LEASE_MS, Outlet, held, side_by_side
from core.ports import Outcome, ScoreUpdate, WriteResult
from core.storage import deliveries, rates, settings, write_backs
from core.storage.settings import CampaignRow, ConnectionRow
from core.storage.store import Transaction
from core.storage.write_backs import Claimed, Finished, Postponed
from core.workspace import Workspace
from core.writeback import Ledger, Update, update_for

NAME = "push_scores"
USE = "write_back"
#: Rows in one transaction, so that nobody waits for the write lock.
CHUNK = 500
#: A vendor that wants to be left alone for longer than this is tried at the next run.
LONGEST_WAIT = 60.0
BLOCKED_SECONDS = 60.0


def run(context: Context, *, patient: bool = False) -> JobReport:
    """Bring every record that is behind up to date. `patient` leaves a connection alone that failed a moment ago."""
    started = time.monotonic()
    report = JobReport(NAME)
    with context.store.read() as tx:
        waiting = set(deliveries.connections_with_work(tx, "write_back", context.clock.now_ms()))
        targets = [connection for connection in settings.read_connections(tx) if connection.id in waiting]
    for connection_id in sorted(waiting - {connection.id for connection in targets}):
        _take_back(context, connection_id)  # it was removed
    for part in side_by_side(partial(_push, context, patient=patient), targets):
        report.add(part)
    report.seconds = time.monotonic() - started
    return report


def _push(context: Context, connection: ConnectionRow, *, patient: bool) -> JobReport:
    with held(context, connection, USE, patient=patient) as outlet:
        if outlet is None:
            return JobReport(NAME)
        try:
            return Pusher(context, outlet).run()
        except Exception as error:  # one connection must not stop the others
            context.log.exception("writing back to %s failed", connection.name)
            return JobReport(NAME, failed=1, messages=[f"{connection.name}: {type(error).__name__}: {error}"])


class Pusher:
    """Brings the records of one connection up to date."""

    def __init__(self, context: Context, outlet: Outlet) -> None:
        self.context = context
        self.outlet = outlet
        self.report = JobReport(NAME)
        self._due_at = 0  # what becomes due after the beginning waits for the next run
        self._workspace: Workspace
        self._rules: Sequence[Limits] = ()

    def run(self) -> JobReport:
        """Everything due, until nothing is left, the vendor stops us or the process ends."""
        if self.outlet.open():
            self._prepare()
            while self._may_go_on() and (batch := self._claim()):
                self._write(batch)
        if self.outlet.problem is not None:
            self.report.failed += 1
            self.report.messages.append(f"{self.outlet.connection.name}: {self.outlet.problem}")
        return self.report

    def _prepare(self) -> None:
        connection = self.outlet.connection
        _take_back(self.context, connection.id)
        self._due_at = self.context.clock.now_ms()
        with self.context.store.read() as tx:
            self._workspace = settings.applied_workspace(tx)
            self._rules = _rules(self._workspace, settings.read_campaigns(tx), connection.name)

    def _may_go_on(self) -> bool:
        if self.outlet.problem is not None or self.context.stopping.is_set():
            return False
        with self.context.store.write() as tx:
            if not self.outlet.renew(tx):
                return False
            wait = rates.blocked_for(tx, self.outlet.account, self.context.clock.now_ms())
        if wait > LONGEST_WAIT:
            self.report.messages.append(f"{self.outlet.connection.name}: {self.outlet.told_to_wait(wait)}")
            return False
        return not self.context.stopping.wait(wait) if wait else True

    def _claim(self) -> list[tuple[Claimed, Update]]:
        """The next batch, with its values. Records that are gone need nothing any more."""
        batch: list[tuple[Claimed, Update]] = []
        size = max(1, int(self.outlet.connector.write_batch_size))
        while len(batch) < size:
            with self.context.store.write() as tx:
                now = self.context.clock.now_ms()
                limit = min(CHUNK, size - len(batch))
                self.outlet.renew(tx)  # a large batch takes its time to be read
                claimed = write_backs.claim(
                    tx, self.outlet.connection.id, self.context.owner, self._due_at, now + LEASE_MS, limit
                )
            if not claimed:
                break
            batch.extend(self._with_values(claimed))
        return batch

    def _with_values(self, claimed: Sequence[Claimed]) -> list[tuple[Claimed, Update]]:
        """Values are read after the claim: what changes from then on asks for a write-back of its own."""
        people = [one.person_id for one in claimed if one.person_id is not None]
        zone = self._workspace.zone
        now = self.context.clock.now_ms()
        with self.context.store.read() as tx:
            ledgers = write_backs.read_ledger(tx, people, self._rules, zone, now)
        updates = []
        nothing = []
        for one in claimed:
            ledger = ledgers.get(one.person_id or 0, Ledger())
            update = update_for(ledger, one.written, one.shown, zone, now)
            if one.gone or not update.fields:
                nothing.append(Finished(one, one.written))
            else:
                updates.append((one, update))
        if nothing:
            with self.context.store.write() as tx:
                write_backs.finish(tx, nothing, now)
        return updates

    # --- the vendor ---------------------------------------------------------------------------------------------

    def _write(self, batch: Sequence[tuple[Claimed, Update]]) -> None:
        waiting = {claimed.key: (claimed, update) for claimed, update in batch}
        updates = [
            ScoreUpdate(claimed.key, claimed.external_id or "", update.fields, update.expected)
            for claimed, update in batch
        ]
        results = list(self._hand_to_vendor(updates, waiting))
        for start in range(0, len(results), CHUNK):
            with self.context.store.write() as tx:
                self._record(tx, results[start : start + CHUNK])
        with self.context.store.write() as tx:
            self._record_problem(tx, any(result.outcome is Outcome.DONE for _, _, result in results))

    def _hand_to_vendor(
        self, updates: Sequence[ScoreUpdate], waiting: dict[str, tuple[Claimed, Update]]
    ) -> Iterator[tuple[Claimed, Update, WriteResult]]:
        """One result per record, whatever the connector does."""
        error: Exception | None = None
        try:
            for result in self.outlet.connector.write_scores(updates):
                if result.key in waiting:
                    yield (*waiting.pop(result.key), result)
        except ConnectorError as refused:
            error = refused
        except Exception as broken:
            self.context.log.exception("%s failed while writing back", self.outlet.connection.name)
            error = broken
        for key, (claimed, update) in waiting.items():
            yield claimed, update, self._without_result(key, error)

    def _without_result(self, key: str, error: Exception | None) -> WriteResult:
        if isinstance(error, Unauthorized | Misconfigured | Unavailable | RateLimited):
            self.outlet.problem = error  # written down with the results
            return WriteResult.retry(key, str(error), retry_after=0.0)
        if isinstance(error, Rejected | Unsupported):
            return WriteResult.rejected(key, str(error))
        return WriteResult.uncertain(key, str(error or "the connector gave no result"))

    # --- what became of it ----------------------------------------------------------------------------------------

    def _record(self, tx: Transaction, results: Iterable[tuple[Claimed, Update, WriteResult]]) -> None:
        now = self.context.clock.now_ms()
        finished, later = [], []
        for claimed, update, result in results:
            if result.outcome is Outcome.DONE:
                self.report.done += 1
                # what a source shows that was read before this moment may be older than what we wrote
                finished.append(Finished(claimed, replace(update.written, at=now)))
            elif result.outcome is Outcome.REJECTED:
                self._tell(claimed, result)
                finished.append(Finished(claimed, None, result.reason))
            else:
                later.append(self._later(claimed, result, now))
        write_backs.finish(tx, finished, now)
        write_backs.put_back(tx, later)

    def _later(self, claimed: Claimed, result: WriteResult, now: int) -> Postponed:
        if self.outlet.problem is not None:  # the connection's fault, not the record's
            return Postponed(claimed.delivery_id, claimed.fence, self._due_at, result.reason, tried=False)
        self._tell(claimed, result)
        due_at = retry_at(claimed.attempts, result.retry_after, now)
        return Postponed(claimed.delivery_id, claimed.fence, due_at, result.reason)

    def _tell(self, claimed: Claimed, result: WriteResult) -> None:
        self.report.failed += 1
        where = f"{self.outlet.connection.name}, record {claimed.external_id}"
        self.report.messages.append(f"{where}: {result.reason}")

    def _record_problem(self, tx: Transaction, something_done: bool) -> None:
        problem = self.outlet.problem
        if problem is None:
            if something_done:
                self.outlet.works(tx)
        elif isinstance(problem, RateLimited):
            seconds = BLOCKED_SECONDS if problem.retry_after is None else problem.retry_after
            rates.block(tx, self.outlet.account, self.context.clock.now_ms() + round(max(1.0, seconds) * 1000))
            self.outlet.problem = None  # the next batch looks how long to wait
        else:
            self.outlet.broken(tx, problem)


def _take_back(context: Context, connection_id: int) -> None:
    """What an earlier worker left is simply due again."""
    now = context.clock.now_ms()
    with context.store.read() as tx:
        left = deliveries.stranded(tx, connection_id, "write_back", now)
    for start in range(0, len(left), CHUNK):
        with context.store.write() as tx:
            write_backs.put_back(tx, [Postponed(one.id, one.fence, now) for one in left[start : start + CHUNK]])


def _rules(workspace: Workspace, campaigns: Iterable[CampaignRow], connection: str) -> list[Limits]:
    """The clocks of the campaigns that write back here: `nps_may_be_asked_at` is the earliest date any of them has."""
    return [
        limits(workspace.quarantine, row.settings, row.id)
        for row in campaigns
        if row.state != "removed" and connection in row.settings.write_back
    ]
