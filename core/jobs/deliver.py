"""Sends what is due: one pump per sender, all that is due for it, as fast as its account allows.

One transaction records what became of the last messages and claims the next ones, so that no more than the sender's
`send_batch_size` are ever in doubt. A message whose worker died is never sent again on a guess: the vendor is asked by
the message's key, and if it cannot say, the message stays `unknown` and its person counts as asked.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from core.dispatch import Leave, Message, Never, may_leave
from core.errors import ConnectorError, Misconfigured, RateLimited, Rejected, Unauthorized, Unavailable, Unsupported
from core.jobs.context import Context, JobReport
from core.jobs.outlet import LEASE_MS, Outlet, held, side_by_side
from core.jobs.send_results import Recorder, Result, give_up
from core.ports import Invitation, InvitationRequest, WriteResult
from core.storage import deliveries, rates, sends, settings, touches
from core.storage.settings import ConnectionRow
from core.storage.store import Transaction
from core.touches import ReturnReason
from core.workspace import Campaign, Workspace

NAME = "deliver"
USE = "send"
#: Candidates looked at in one transaction, so that a run of opt-outs does not hold the write lock.
LOOKED_AT = 40
#: A vendor that wants to be left alone for longer than this is tried at the next run.
LONGEST_WAIT = 60.0
SLICE_SECONDS = LEASE_MS / 4000
#: What somebody changes in the workspace or a campaign holds for messages that leave later than this.
FRESH_SECONDS = 2.0


def run(context: Context, *, patient: bool = False) -> JobReport:
    """Send everything that is due now. `patient` leaves a sender alone that failed a moment ago."""
    started = time.monotonic()
    report = JobReport(NAME)
    with context.store.read() as tx:
        waiting = set(deliveries.connections_with_work(tx, "send", context.clock.now_ms()))
        senders = [connection for connection in settings.read_connections(tx) if connection.id in waiting]
    for connection_id in sorted(waiting - {sender.id for sender in senders}):
        report.add(give_up(context, connection_id))
    for part in side_by_side(partial(_pump, context, patient=patient), senders):
        report.add(part)
    report.seconds = time.monotonic() - started
    return report


def _pump(context: Context, sender: ConnectionRow, *, patient: bool) -> JobReport:
    with held(context, sender, USE, patient=patient) as outlet:
        if outlet is None:
            return JobReport(NAME)
        try:
            return Pump(context, outlet).run()
        except Exception as error:  # one sender must not stop the others
            context.log.exception("sending by %s failed", sender.name)
            return JobReport(NAME, failed=1, messages=[f"{sender.name}: {type(error).__name__}: {error}"])


class Pump:
    """Drains one sender."""

    def __init__(self, context: Context, outlet: Outlet) -> None:
        self.context = context
        self.outlet = outlet
        self.report = JobReport(NAME)
        self._due_at = context.clock.now_ms()  # what becomes due later waits for the next run
        self._recorder = Recorder(context, outlet, self.report, self._due_at)
        self._queue: deque[int] = deque()
        self._workspace: Workspace
        self._campaigns: Mapping[int, Campaign] = {}
        self._surveys: dict[int, dict[str, Any]] = {}
        self._read_at = -FRESH_SECONDS
        self._claimed_at = 0
        self._over = False

    def run(self) -> JobReport:
        """Everything due, until nothing is left, the vendor stops us or the process ends."""
        if not self.outlet.open():
            self._tell_problem()
            return self.report
        self._recorder.recover()
        results: list[Result] = []
        while True:
            batch, more = self._turn(results)
            if not batch and not more:
                break
            results = self._send(batch) if batch else []
        self._tell_problem()
        return self.report

    def _tell_problem(self) -> None:
        if self.outlet.problem is not None:
            self.report.failed += 1
            self.report.messages.append(f"{self.outlet.connection.name}: {self.outlet.problem}")

    # --- one turn: record, then claim ---------------------------------------------------------------------------

    def _turn(self, results: Sequence[Result]) -> tuple[list[Message], bool]:
        with self.context.store.write() as tx:
            if results:
                self._recorder.record(tx, results, self._workspace.brakes)
            if not self._goes_on(tx) or not self._has_more(tx):
                return [], False
            wait = self._wait_for_token(tx)
            if not wait:
                return self._claim(tx)
        if not self._wait(wait):
            return [], False
        with self.context.store.write() as tx:
            return self._claim(tx)

    def _rate(self) -> float | None:
        """Messages per second, for a connector that does not take its own tokens."""
        ask = getattr(self.outlet.connector, "rate_per_second", None)
        return None if ask is None else ask()

    def _wait_for_token(self, tx: Transaction) -> float:
        """Seconds until the account may be used: another of its connections may have been told to wait meanwhile."""
        now = self.context.clock.now_ms()
        blocked = rates.blocked_for(tx, self.outlet.account, now)
        if blocked > LONGEST_WAIT:
            self._stop(self.outlet.told_to_wait(blocked))
        rate = self._rate()
        if self._over or rate is None:
            return blocked
        return rates.take_in(tx, self.outlet.account, rate, now, self._batch_size())

    def _wait(self, seconds: float) -> bool:
        """Sleep in slices, holding on to the outlet. False if there is no point in going on."""
        until = time.monotonic() + seconds
        while not self._over and (left := until - time.monotonic()) > 0:
            if self.context.stopping.wait(min(left, SLICE_SECONDS)):
                return False
            if left > SLICE_SECONDS:
                with self.context.store.write() as tx:
                    self._goes_on(tx)
        return not self._over

    def _goes_on(self, tx: Transaction) -> bool:
        if self.outlet.problem is not None or self.context.stopping.is_set() or not self.outlet.renew(tx):
            self._over = True
        return not self._over

    def _stop(self, why: str) -> None:
        self._over = True
        self.report.messages.append(f"{self.outlet.connection.name}: {why}")

    def _batch_size(self) -> int:
        return max(1, int(self.outlet.connector.send_batch_size))

    def _claim(self, tx: Transaction) -> tuple[list[Message], bool]:
        """The next messages that may leave, and whether there may be more after them."""
        if not self._goes_on(tx):
            return [], False
        self._claimed_at = self.context.clock.now_ms()
        if time.monotonic() - self._read_at >= FRESH_SECONDS:
            self._read_settings(tx)
        batch: list[Message] = []
        looked_at = 0
        while self._queue and len(batch) < self._batch_size() and looked_at < LOOKED_AT + self._batch_size():
            wanted = min(self._batch_size() - len(batch), len(self._queue))
            ids = [self._queue.popleft() for _ in range(wanted)]
            looked_at += len(ids)
            claimed = (self._claim_one(tx, message) for message in sends.read_facts(tx, ids))
            batch.extend(message for message in claimed if message is not None)
        return batch, bool(self._queue) or looked_at > 0

    def _has_more(self, tx: Transaction) -> bool:
        if not self._queue:
            self._queue.extend(sends.due_sends(tx, self.outlet.connection.id, self._due_at))
        return bool(self._queue)

    def _read_settings(self, tx: Transaction) -> None:
        self._read_at = time.monotonic()
        self._workspace = settings.applied_workspace(tx)
        self._campaigns = {row.id: row.settings for row in settings.read_campaigns(tx)}
        self._surveys = {number: _survey(one, self._workspace) for number, one in self._campaigns.items()}
        self._recorder.targets = deliveries.write_back_targets(tx)

    def _claim_one(self, tx: Transaction, message: Message) -> Message | None:
        now = self.context.clock.now_ms()
        campaign = self._campaigns.get(message.campaign_id)
        if campaign is None and message.campaign_state == "active":
            self._read_at = -FRESH_SECONDS  # made since the settings were read: the next turn knows it
            return None
        if campaign is None:
            self._withdraw(tx, message, Never(ReturnReason.CANCELLED, "the campaign was removed"), now)
            return None
        decision = may_leave(message, campaign, self._workspace, now)
        if isinstance(decision, Never):
            self._withdraw(tx, message, decision, now)
            return None
        if isinstance(decision, Leave):
            return self._take(tx, message, decision, now)
        if decision.until is not None:
            sends.postpone(tx, message, max(decision.until, now + 1000), decision.why)
        return None

    def _take(self, tx: Transaction, message: Message, leave: Leave, now: int) -> Message | None:
        free_at = sends.take_guard(tx, message, now)
        if free_at is not None:
            sends.postpone(tx, message, free_at, "another message to this person left within 24 h")
            return None
        claimed = sends.take(tx, message, self.context.owner, now, now + LEASE_MS)
        if claimed is not None and not message.is_reminder:
            touches.claim(tx, [(message.touch_id, leave.local_date)], now)
        return claimed

    def _withdraw(self, tx: Transaction, message: Message, decision: Never, now: int) -> None:
        if sends.withdraw(tx, message, decision.why, now) and decision.reason is not None:
            touches.give_back(tx, [message.touch_id], decision.reason, decision.why, now)

    # --- the vendor ---------------------------------------------------------------------------------------------

    def _send(self, batch: Sequence[Message]) -> list[Result]:
        results: list[Result] = []
        invitations: list[Invitation] = []
        for message in batch:
            try:
                invitations.append(self.context.composer.compose(self._request(message)))
            except Exception as error:  # a message that cannot be written has not left, and stops nobody else
                self.context.log.exception("composing %s failed", message.key)
                results.append(Result(message, WriteResult.retry(message.key, f"could not be written: {error}")))
        waiting = {message.key: message for message in batch}
        for result in results:
            del waiting[result.message.key]
        if self._is_late():
            late = "the worker took too long before it could be sent"
            results.extend(Result(one, WriteResult.retry(one.key, late), tried=False) for one in waiting.values())
        elif invitations:
            results.extend(self._hand_to_vendor(invitations, waiting))
        return results

    def _is_late(self) -> bool:
        """Whether this worker slept: half a lease is for the vendor, and afterwards the claim may be another's."""
        return self.context.clock.now_ms() - self._claimed_at > LEASE_MS // 2

    def _hand_to_vendor(self, invitations: Sequence[Invitation], waiting: dict[str, Message]) -> Iterator[Result]:
        """One result per message, whatever the connector does."""
        try:
            for outcome in self.outlet.connector.send_surveys(invitations):
                message = waiting.pop(outcome.key, None)
                if message is not None:
                    yield Result(message, outcome)
            rest: ConnectorError | None = None
        except ConnectorError as error:
            rest = error
        except Exception as error:  # whatever it was, the request may have left
            self.context.log.exception("%s failed while sending", self.outlet.connection.name)
            rest = ConnectorError(f"{type(error).__name__}: {error}")
        for message in waiting.values():
            yield self._without_result(message, rest)

    def _without_result(self, message: Message, error: ConnectorError | None) -> Result:
        if isinstance(error, Unauthorized | Misconfigured | Unavailable | RateLimited):
            self.outlet.problem = error  # written down with the results
            return Result(message, WriteResult.retry(message.key, str(error)), tried=False)
        if isinstance(error, Rejected | Unsupported):
            suppress = isinstance(error, Rejected) and error.suppress
            return Result(message, WriteResult.rejected(message.key, str(error), suppress=suppress))
        return Result(message, WriteResult.uncertain(message.key, str(error or "the sender gave no result")))

    def _request(self, message: Message) -> InvitationRequest:
        return InvitationRequest(
            key=message.key,
            kind=message.kind,
            token=str(message.payload["token"]),
            campaign=message.campaign,
            survey=self._surveys[message.campaign_id],
            languages=self._workspace.languages,
            external_id=message.external_id or "",
            email=message.email or "",
            first_name=message.first_name,
            last_name=message.last_name,
            company=message.company,
            language=message.language,
            shared_mailbox=message.shared,
        )


def _survey(campaign: Campaign, workspace: Workspace) -> dict[str, Any]:
    return {**campaign.survey.model_dump(mode="json"), "brand": campaign.survey.brand or workspace.name}
