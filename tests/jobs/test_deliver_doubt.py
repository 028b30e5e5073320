"""In doubt: nobody can say whether a message left. It counts as asked, is shown, and is never sent on a guess."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from core.clock import DAY_MS, FixedClock
from core.errors import ConnectorError, Uncertain
from core.jobs import deliver
from core.jobs.context import Context
from core.jobs.outlet import LEASE_MS
from core.ports import Sent, WriteResult
from core.processes import this_process
from core.storage import deliveries, schema, status
from core.storage.store import Store
from tests.jobs.mailing import ADA, BO, CLEO, MAIL, Asked, Composer, RecordingSender, Sender, Town
from tests.world import make_context

ENDED = "the process that sent it ended before it knew the outcome"


@pytest.fixture
def town(store: Store, clock: FixedClock) -> Town:
    return Town(store, clock)


@pytest.fixture
def sender() -> Sender:
    return Sender()


@pytest.fixture
def composer() -> Composer:
    return Composer()


@pytest.fixture
def context(town: Town, store: Store, clock: FixedClock, sender: Sender, composer: Composer) -> Context:
    return make_context(store, clock, {"mail": sender, "crm": None}, composer=composer)


def with_record(context: Context, answer: Sent) -> RecordingSender:
    """A sender that keeps record, in the place of the one that does not."""
    sender = RecordingSender(answer)
    context.opener.connectors["mail"] = sender  # type: ignore[attr-defined]
    return sender


class Killed(BaseException):
    """The process ends here: nothing behind it is done."""


def dies(_: Any) -> None:
    raise Killed


def leave_behind(town: Town, asked: Asked, owner: str = "a dead worker", *, lease_until: int = 0) -> int:
    """Somebody claimed it and did not come back; returns when."""
    now = town.clock.now_ms()
    payload = {"token": "secret", "kind": "invite", "guarded_at": now}
    town.change(
        schema.deliveries, asked.delivery_id,
        state="sending", owner=owner, lease_until=lease_until, fence=1, attempts=1, payload=payload,
    )  # fmt: skip
    town.change(schema.touches, asked.touch_id, claimed_at=now, asked_at=now)
    with town.store.write() as tx:
        tx.execute(schema.message_guard.insert().values(identity_id=asked.identity_id, last_message_at=now))
    return now


# --- an outcome that nobody knows -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "happening",
    [WriteResult.uncertain("touch1:invite", "no answer"), Uncertain("no answer"), ConnectorError("no answer")],
    ids=["result", "Uncertain", "any other error"],
)
def test_delivery_and_touch_become_unknown_together_and_count_as_asked(
    context: Context, town: Town, sender: Sender, clock: FixedClock, happening: Any
) -> None:
    ada = town.invite(ADA)
    clock.advance(minutes=3)
    sender.will(ADA, happening)
    report = deliver.run(context)
    assert town.states(ada) == ("unknown", "unknown")
    assert (town.delivery(ada).error, town.touch(ada).asked_at) == ("no answer", clock.now_ms())
    assert (report.done, report.failed) == (0, 1)
    assert report.messages == [f"{ada.key}: in doubt, no answer"]
    with context.store.read() as tx:
        document = status.status(tx, clock.now_ms())
        assert document["touches"]["unknown"] == document["deliveries"]["unknown"] == 1
        assert deliveries.connections_with_work(tx, "write_back", clock.now_ms()) == [1]  # their date moves too


def test_a_message_in_doubt_is_never_sent_again(
    context: Context, town: Town, sender: Sender, clock: FixedClock
) -> None:
    ada = town.invite(ADA)
    sender.will(ADA, WriteResult.uncertain(ada.key, "no answer"))
    for _ in range(4):
        deliver.run(context)
        clock.advance(days=1)
    assert sender.reached == []
    assert town.states(ada) == ("unknown", "unknown")


def test_a_connector_that_breaks_leaves_in_doubt_what_it_had_and_no_more(
    context: Context, town: Town, sender: Sender
) -> None:
    sender.send_batch_size = 2
    ada, bo, cleo = town.invite(ADA), town.invite(BO), town.invite(CLEO)
    sender.will(ADA, ZeroDivisionError("bug"))
    deliver.run(context)
    assert [town.states(one) for one in (ada, bo, cleo)] == [
        ("unknown", "unknown"),
        ("unknown", "unknown"),
        ("done", "handed_over"),
    ]
    assert town.delivery(ada).error == "ZeroDivisionError: bug"


def test_a_connector_without_a_result_for_a_message_leaves_it_in_doubt(
    context: Context, town: Town, sender: Sender
) -> None:
    ada = town.invite(ADA)
    sender.will(ADA, WriteResult.done("somebody else's key"))
    deliver.run(context)
    assert town.states(ada) == ("unknown", "unknown")
    assert town.delivery(ada).error == "the sender gave no result"


def test_the_token_of_a_message_in_doubt_is_not_kept(context: Context, town: Town, sender: Sender) -> None:
    ada = town.invite(ADA)
    sender.will(ADA, WriteResult.uncertain(ada.key, "no answer"))
    deliver.run(context)
    assert set(town.delivery(ada).payload) == {"guarded_at"}


# --- a worker that did not come back ----------------------------------------------------------------------------------


def test_what_a_killed_worker_was_sending_is_in_doubt_and_the_rest_goes_on(
    context: Context, town: Town, sender: Sender, store: Store, clock: FixedClock
) -> None:
    ada, bo = town.invite(ADA), town.invite(BO)
    sender.will(ADA, dies)
    with pytest.raises(Killed):
        deliver.run(context)
    assert town.states(ada) == ("sending", "reserved")
    clock.advance(milliseconds=LEASE_MS)
    report = deliver.run(make_context(store, clock, {"mail": sender}, composer=Composer(), owner="the next"))
    assert town.states(ada) == ("unknown", "unknown")
    assert town.delivery(ada).error == ENDED
    assert town.states(bo) == ("done", "handed_over")
    assert sender.reached == [BO]
    assert (report.done, report.failed, report.messages) == (1, 1, [f"{ada.key}: in doubt, {ENDED}"])


def test_the_moment_asked_of_a_message_in_doubt_is_that_of_the_claim(
    context: Context, town: Town, clock: FixedClock
) -> None:
    ada = town.invite(ADA)
    claimed_at = leave_behind(town, ada)
    clock.advance(hours=3)
    deliver.run(context)
    assert town.touch(ada).asked_at == claimed_at


def test_a_claim_whose_lease_stands_is_left_alone(context: Context, town: Town, clock: FixedClock) -> None:
    ada = town.invite(ADA)
    leave_behind(town, ada, "a worker elsewhere:1:1", lease_until=clock.now_ms() + 1)
    deliver.run(context)
    assert town.states(ada) == ("sending", "reserved")
    clock.advance(milliseconds=1)
    deliver.run(context)
    assert town.states(ada) == ("unknown", "unknown")


def test_the_lease_of_a_process_that_is_gone_from_this_machine_is_not_waited_for(
    context: Context, town: Town, clock: FixedClock
) -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        pid = process.pid
    owner = f"{this_process().rpartition(':')[0].rpartition(':')[0]}:{pid}:1"
    ada = town.invite(ADA)
    leave_behind(town, ada, owner, lease_until=clock.now_ms() + LEASE_MS)
    deliver.run(context)
    assert town.states(ada) == ("unknown", "unknown")


def test_a_reminder_left_behind_is_in_doubt_and_its_touch_is_not(
    context: Context, town: Town, clock: FixedClock
) -> None:
    ada = town.invite(ADA)
    deliver.run(context)
    clock.advance(days=6)
    reminder = town.remind(ada)
    town.change(schema.deliveries, reminder.delivery_id, state="sending", owner="gone", lease_until=0, fence=1)
    deliver.run(context)
    assert town.states(reminder) == ("unknown", "handed_over")


# --- a worker that comes back late ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("late_result", "states"),
    [
        (WriteResult.done("touch1:invite", "ref"), ("done", "handed_over")),
        (WriteResult.uncertain("touch1:invite", "?"), ("unknown", "unknown")),
        (WriteResult.retry("touch1:invite", "451"), ("unknown", "unknown")),
        (WriteResult.rejected("touch1:invite", "550"), ("unknown", "unknown")),
    ],
    ids=["done", "uncertain", "retry", "rejected"],
)
def test_a_worker_whose_lease_ran_out_moves_nothing_but_brings_good_news(
    context: Context,
    town: Town,
    sender: Sender,
    store: Store,
    clock: FixedClock,
    late_result: WriteResult,
    states: tuple[str, str],
) -> None:
    """Another worker has taken over while it slept at the vendor, and has written down that nobody knows."""
    ada = town.invite(ADA)
    town.invite(BO)
    other = Sender()
    successor = make_context(store, clock, {"mail": other}, composer=Composer(), owner="successor")

    def sleep(_: Any) -> WriteResult:
        clock.advance(milliseconds=LEASE_MS)
        deliver.run(successor)
        assert town.states(ada) == ("unknown", "unknown")
        return late_result

    sender.will(ADA, sleep)
    deliver.run(context)
    assert town.states(ada) == states
    assert (sender.reached, other.reached) == ([], [BO])  # the late one claims nothing more


def test_a_worker_that_slept_before_it_sent_does_not_send(
    context: Context, town: Town, sender: Sender, composer: Composer, store: Store, clock: FixedClock
) -> None:
    """Its claim may be another's by now: the vendor has told that one that it never had the message."""
    ada = town.invite(ADA)
    other = RecordingSender(Sent.NOT_SENT)
    successor = make_context(store, clock, {"mail": other}, composer=Composer(), owner="successor")

    def sleep(_: Any) -> None:
        composer.before = lambda request: None
        clock.advance(milliseconds=LEASE_MS)
        deliver.run(successor)

    composer.before = sleep
    deliver.run(context)
    assert (sender.reached, other.reached) == ([], [ADA])
    assert town.states(ada) == ("done", "handed_over")


def test_a_worker_that_slept_and_was_not_replaced_begins_anew(
    context: Context, town: Town, sender: Sender, composer: Composer, clock: FixedClock
) -> None:
    ada = town.invite(ADA)

    def sleep(_: Any) -> None:
        composer.before = lambda request: None
        clock.advance(milliseconds=LEASE_MS // 2 + 1)

    composer.before = sleep
    deliver.run(context)
    assert sender.reached == [ADA]
    assert town.delivery(ada).attempts == 1  # it was not the message's fault


# --- a vendor that can be asked ---------------------------------------------------------------------------------------


def test_a_vendor_that_has_the_message_settles_it(context: Context, town: Town, clock: FixedClock) -> None:
    sender = with_record(context, Sent.SENT)
    ada = town.invite(ADA)
    claimed_at = leave_behind(town, ada)
    clock.advance(hours=1)
    report = deliver.run(context)
    assert sender.asked == [[ada.key]]
    assert town.states(ada) == ("done", "handed_over")
    assert town.touch(ada).asked_at == claimed_at
    assert (report.done, report.failed, sender.reached) == (1, 0, [])


def test_a_vendor_that_never_had_it_gets_it_under_the_same_key(context: Context, town: Town) -> None:
    sender = with_record(context, Sent.NOT_SENT)
    ada = town.invite(ADA)
    leave_behind(town, ada)
    deliver.run(context)
    assert [invitation.key for invitation in sender.sent] == [ada.key]
    assert town.states(ada) == ("done", "handed_over")


def test_a_vendor_that_cannot_say_is_asked_again_and_the_message_stays_in_doubt(
    context: Context, town: Town, clock: FixedClock
) -> None:
    sender = with_record(context, Sent.CANNOT_SAY)
    ada = town.invite(ADA)
    leave_behind(town, ada)
    deliver.run(context)
    assert town.states(ada) == ("unknown", "unknown")
    town.invite(BO)  # what makes it work at all
    clock.advance(minutes=4)
    deliver.run(context)
    assert len(sender.asked) == 1  # not every time
    clock.advance(minutes=1)
    sender.answer = Sent.SENT
    town.invite(CLEO)
    deliver.run(context)
    assert town.states(ada) == ("done", "handed_over")
    assert sender.reached == [BO, CLEO]


def test_what_the_vendor_says_days_later_it_never_had_is_not_stopped_by_its_own_floor(
    context: Context, town: Town, clock: FixedClock
) -> None:
    sender = with_record(context, Sent.CANNOT_SAY)
    ada = town.invite(ADA)
    leave_behind(town, ada)
    deliver.run(context)
    clock.advance(minutes=5)
    sender.answer = Sent.NOT_SENT
    town.invite(BO)
    deliver.run(context)
    assert sorted(sender.reached) == [ADA, BO]
    assert town.states(ada) == ("done", "handed_over")


def test_a_vendor_that_does_not_answer_leaves_it_for_the_next_run(context: Context, town: Town) -> None:
    sender = with_record(context, Sent.SENT)
    sender.problem = ConnectorError("no answer")
    ada = town.invite(ADA)
    leave_behind(town, ada)
    report = deliver.run(context)
    assert town.states(ada) == ("sending", "reserved")
    assert report.messages == ["mail: no answer"]
    sender.problem = None
    deliver.run(context)
    assert town.states(ada) == ("done", "handed_over")


def test_a_vendor_is_not_asked_for_ever(context: Context, town: Town, clock: FixedClock) -> None:
    sender = with_record(context, Sent.CANNOT_SAY)
    ada = town.invite(ADA)
    leave_behind(town, ada)
    deliver.run(context)
    clock.at += 8 * DAY_MS * (clock.at.resolution * 1000)
    town.invite(BO)
    deliver.run(context)
    assert len(sender.asked) == 1
    assert town.delivery(ada).connection_id == MAIL
    assert town.states(ada) == ("unknown", "unknown")
