"""What became of messages handed to a sender: written down by whoever holds the claim, or found out afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.deliveries import DeliveryState, is_reminder
from core.dispatch import GIVE_UP_MS, Message, retry_at
from core.errors import ConnectorError, Misconfigured, RateLimited, Unauthorized, Unavailable
from core.jobs import brakes
from core.jobs.context import Context, JobReport
from core.jobs.outlet import Outlet
from core.ports import Outcome, SendLookup, Sent, WriteResult
from core.storage import deliveries, rates, sends, suppressions, touches
from core.storage.deliveries import Stranded
from core.storage.store import Transaction
from core.storage.suppressions import SuppressionReason
from core.touches import ReturnReason
from core.workspace import Brakes

#: How often, and for how long, a vendor that keeps record is asked about messages in doubt.
ASK_AGAIN_MS = 300_000
IN_DOUBT_MS = 7 * 86_400_000
LEFT_BEHIND = "the process that sent it ended before it knew the outcome"
#: When a vendor says "too much" and not for how long.
BLOCKED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a claimed message. `tried=False`: it never came to its turn."""

    message: Message
    outcome: WriteResult
    tried: bool = True


class Recorder:
    """Writes outcomes down for one outlet. `due_at`: where messages go back to that never came to their turn."""

    def __init__(self, context: Context, outlet: Outlet, report: JobReport, due_at: int) -> None:
        self.context = context
        self.outlet = outlet
        self.report = report
        self.targets: Sequence[int] = ()
        self._due_at = due_at

    def record(self, tx: Transaction, results: Sequence[Result], limits: Brakes) -> None:
        """Every outcome, and what follows from them for the campaigns and the connection."""
        now = self.context.clock.now_ms()
        for result in results:
            self._record(tx, result, now)
        turned_down = [r.message.campaign_id for r in results if r.outcome.outcome is Outcome.REJECTED]
        if turned_down:
            self.report.messages.extend(brakes.check(tx, turned_down, limits, now))
        self._record_problem(tx, now)

    def _record_problem(self, tx: Transaction, now: int) -> None:
        problem = self.outlet.problem
        if isinstance(problem, RateLimited):
            seconds = BLOCKED_SECONDS if problem.retry_after is None else problem.retry_after
            rates.block(tx, self.outlet.account, now + round(max(1.0, seconds) * 1000))
            self.outlet.problem = None  # the next turn looks how long to wait
        elif problem is not None:
            self.outlet.broken(tx, problem)

    def _record(self, tx: Transaction, result: Result, now: int) -> None:
        match result.outcome.outcome:
            case Outcome.DONE:
                self._record_done(tx, result.message, result.outcome, now)
            case Outcome.REJECTED:
                self._record_failed(tx, result.message, result.outcome, now)
            case Outcome.RETRY:
                self._record_retry(tx, result, now)
            case Outcome.UNCERTAIN:
                self._record_doubt(tx, result.message, result.outcome, now)

    def _record_done(self, tx: Transaction, message: Message, outcome: WriteResult, now: int) -> None:
        settled = deliveries.settle(
            tx, message.delivery_id, message.fence, DeliveryState.DONE, now, vendor_ref=outcome.vendor_ref, error=""
        )
        # a worker that was given up comes late with good news: that is knowledge, not a guess
        if settled or deliveries.settle_doubt(tx, message.delivery_id, now, outcome.vendor_ref):
            self.report.done += 1
            self.outlet.works(tx)
            if not message.is_reminder:
                touches.hand_over(tx, [message.touch_id], now)
                self._write_back(tx, message.person_id, now)

    def _record_failed(self, tx: Transaction, message: Message, outcome: WriteResult, now: int) -> None:
        failed, error = DeliveryState.FAILED, outcome.reason
        if not deliveries.settle(tx, message.delivery_id, message.fence, failed, now, error=error):
            return
        self.report.failed += 1
        self.report.messages.append(f"{message.key}: {error}")
        if outcome.suppress:
            reason, name = SuppressionReason.HARD_BOUNCE, self.outlet.connection.name
            suppressions.suppress(tx, message.address_hash, reason, error, name, now)
        if not message.is_reminder:
            why = ReturnReason.BOUNCED if outcome.suppress else ReturnReason.REFUSED
            touches.give_back(tx, [message.touch_id], why, error, now)

    def _record_retry(self, tx: Transaction, result: Result, now: int) -> None:
        message, outcome = result.message, result.outcome
        if not result.tried:
            deliveries.put_back(tx, message.delivery_id, message.fence, self._due_at, outcome.reason, tried=False)
        elif now - message.created_at >= GIVE_UP_MS:
            self._record_failed(tx, message, outcome, now)
        else:
            due_at = retry_at(message.attempts, outcome.retry_after, now)
            deliveries.put_back(tx, message.delivery_id, message.fence, due_at, outcome.reason)

    def _record_doubt(self, tx: Transaction, message: Message, outcome: WriteResult, now: int) -> None:
        guard = {"guarded_at": message.guarded_at}
        self._ask_later(tx, now)
        if not deliveries.settle(
            tx, message.delivery_id, message.fence, DeliveryState.UNKNOWN, now, error=outcome.reason, payload=guard
        ):
            return
        self.report.failed += 1
        self.report.messages.append(f"{message.key}: in doubt, {outcome.reason}")
        if not message.is_reminder:
            touches.mark_unknown(tx, [message.touch_id], now)
            self._write_back(tx, message.person_id, now)

    def _write_back(self, tx: Transaction, person_id: int | None, now: int) -> None:
        if person_id is not None:
            deliveries.request_write_back(tx, [person_id], now, self.targets)

    # --- afterwards ---------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """What an earlier worker left: ask the vendor where that is possible, else say that nobody knows."""
        now = self.context.clock.now_ms()
        connection_id = self.outlet.connection.id
        with self.context.store.read() as tx:
            self.targets = deliveries.write_back_targets(tx)
            left = deliveries.stranded(tx, connection_id, "send", now)
            asks = self._keeps_record and sends.is_time_to_ask(tx, connection_id, now)
            if asks:
                left += sends.doubtful_sends(tx, connection_id, now - IN_DOUBT_MS)
        if left or asks:
            self._find_out(left, now)

    @property
    def _keeps_record(self) -> bool:
        """Whether the vendor can be asked what became of a message."""
        return isinstance(self.outlet.connector, SendLookup)

    def _ask_later(self, tx: Transaction, now: int) -> None:
        if self._keeps_record:
            sends.ask_at(tx, self.outlet.connection.id, now + ASK_AGAIN_MS)

    def _find_out(self, left: Sequence[Stranded], now: int) -> None:
        answers: Mapping[str, Sent] = {}
        if self._keeps_record and left:
            try:
                answers = self.outlet.connector.find_sent([one.key for one in left])
            except ConnectorError as error:  # nothing is known yet: ask again at the next run
                self._could_not_ask(error, now)
                return
        with self.context.store.write() as tx:
            if self._keeps_record:
                sends.ask_at(tx, self.outlet.connection.id, None)
            for one in left:
                self._resolve(tx, one, answers.get(one.key, Sent.CANNOT_SAY), now)

    def _could_not_ask(self, error: ConnectorError, now: int) -> None:
        if not isinstance(error, Unauthorized | Misconfigured | Unavailable | RateLimited):
            self.report.messages.append(f"{self.outlet.connection.name}: {error}")
            return
        self.outlet.problem = error
        with self.context.store.write() as tx:
            self._record_problem(tx, now)

    def _resolve(self, tx: Transaction, one: Stranded, answer: Sent, now: int) -> None:
        if answer is Sent.NOT_SENT:
            sends.send_again(tx, one.id, one.fence, now)
            return
        in_doubt = _doubt(tx, one, now, self.targets)
        if answer is Sent.SENT and deliveries.settle_doubt(tx, one.id, now):
            self.report.done += 1
            if one.touch_id is not None and not is_reminder(one.key):
                touches.hand_over(tx, [one.touch_id], now)
            return
        self._ask_later(tx, now)
        if in_doubt:
            self.report.failed += 1
            self.report.messages.append(_told(one))


def give_up(context: Context, connection_id: int) -> JobReport:
    """A sender was removed, and nobody comes back to the messages that were leaving by it: they are in doubt."""
    report = JobReport("deliver")
    now = context.clock.now_ms()
    with context.store.write() as tx:
        targets = deliveries.write_back_targets(tx)
        for one in deliveries.stranded(tx, connection_id, "send", now):
            if _doubt(tx, one, now, targets):
                report.failed += 1
                report.messages.append(_told(one))
    return report


def _doubt(tx: Transaction, one: Stranded, now: int, targets: Sequence[int]) -> bool:
    """Delivery and touch become `unknown` together. False if somebody else has settled it, or it was so before."""
    # the floor it took stays its own, should the vendor say one day that it never had it
    guard = {"guarded_at": one.payload.get("guarded_at")}
    if not deliveries.settle(tx, one.id, one.fence, DeliveryState.UNKNOWN, now, error=LEFT_BEHIND, payload=guard):
        return False
    if one.touch_id is not None and not is_reminder(one.key):
        touches.mark_unknown(tx, [one.touch_id], now)
        if one.person_id is not None:
            deliveries.request_write_back(tx, [one.person_id], now, targets)
    return True


def _told(one: Stranded) -> str:
    return f"{one.key}: in doubt, {LEFT_BEHIND}"
