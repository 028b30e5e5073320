"""What is in doubt is asked about even when nothing else is to be sent, and what a removed sender left is not lost."""

from __future__ import annotations

from datetime import timedelta

import pytest

from core.clock import FixedClock
from core.errors import ConnectorError, Misconfigured, RateLimited, Unauthorized, Unavailable
from core.jobs import deliver, push_scores, sweep
from core.jobs.context import Context
from core.ports import Sent, WriteResult
from core.storage import deliveries, schema
from core.storage.store import Store
from core.touches import TouchState
from tests.jobs.mailing import ADA, BO, CRM, MAIL, Asked, Composer, RecordingSender, Sender, Town
from tests.world import make_context


@pytest.fixture
def town(store: Store, clock: FixedClock) -> Town:
    return Town(store, clock)


@pytest.fixture
def sender() -> RecordingSender:
    return RecordingSender()


@pytest.fixture
def context(town: Town, store: Store, clock: FixedClock, sender: RecordingSender) -> Context:
    return make_context(store, clock, {"mail": sender}, composer=Composer())


def in_doubt(context: Context, town: Town, sender: RecordingSender, address: str = ADA) -> Asked:
    """A message of which the sender gave no clear answer."""
    asked = town.invite(address)
    sender.will(address, WriteResult.uncertain(asked.key, "no answer"))
    deliver.run(context)
    assert town.states(asked) == ("unknown", "unknown")
    return asked


def is_swept(context: Context) -> bool:
    """Whether a worker would look after messages now."""
    return deliver.NAME in sweep.run(context, lambda name: None)


def test_a_vendor_that_keeps_record_is_asked_though_nothing_else_is_to_be_sent(
    context: Context, town: Town, sender: RecordingSender, clock: FixedClock
) -> None:
    ada = in_doubt(context, town, sender)
    assert not is_swept(context)
    clock.advance(minutes=5)
    assert is_swept(context)
    sender.answers[ada.key] = Sent.SENT
    assert deliver.run(context).done == 1
    assert town.states(ada) == ("done", "handed_over")
    assert not is_swept(context)  # and that was that
    clock.advance(minutes=5)
    assert not is_swept(context)


def test_it_is_asked_every_5_minutes_and_after_a_week_no_more(
    context: Context, town: Town, sender: RecordingSender, clock: FixedClock
) -> None:
    ada = in_doubt(context, town, sender)
    for times in (1, 2, 3):
        clock.advance(minutes=5)
        assert is_swept(context)
        deliver.run(context)
        assert len(sender.asked) == times
        assert not is_swept(context)
    clock.at += timedelta(days=8)
    deliver.run(context)
    assert not is_swept(context)
    assert len(sender.asked) == 3
    assert town.states(ada) == ("unknown", "unknown")


def test_what_it_never_had_is_sent_and_counts_as_asked_from_then_on(
    context: Context, town: Town, sender: RecordingSender, clock: FixedClock
) -> None:
    ada = in_doubt(context, town, sender)
    window = town.touch(ada).window_closes_at
    clock.advance(minutes=90)
    sender.answers[ada.key] = Sent.NOT_SENT
    deliver.run(context)
    touch = town.touch(ada)
    assert touch.state == TouchState.HANDED_OVER
    assert touch.asked_at == touch.handed_over_at == touch.claimed_at == clock.now_ms()
    assert touch.window_closes_at == window + 90 * 60_000


def test_what_it_never_had_is_not_sent_to_somebody_who_opted_out_meanwhile(
    context: Context, town: Town, sender: RecordingSender, clock: FixedClock
) -> None:
    ada = in_doubt(context, town, sender)
    town.change(schema.people, ada.person_id, opted_out_at=1)
    clock.advance(minutes=5)
    sender.answers[ada.key] = Sent.NOT_SENT
    deliver.run(context)
    assert (sender.sent, town.states(ada)) == ([], ("cancelled", "returned"))


def test_a_sender_that_keeps_no_record_is_not_opened_for_what_is_in_doubt(
    store: Store, clock: FixedClock, town: Town
) -> None:
    sender = Sender()
    context = make_context(store, clock, {"mail": sender}, composer=Composer())
    ada = town.invite(ADA)
    sender.will(ADA, WriteResult.uncertain(ada.key, "no answer"))
    deliver.run(context)
    clock.advance(minutes=30)
    assert not is_swept(context)


@pytest.mark.parametrize("error", [Unauthorized("revoked"), Misconfigured("no such list"), Unavailable("away")])
def test_a_vendor_that_cannot_be_asked_is_broken_like_one_that_takes_nothing(
    context: Context, town: Town, sender: RecordingSender, clock: FixedClock, error: ConnectorError
) -> None:
    ada = in_doubt(context, town, sender)
    bo = town.invite(BO)
    clock.advance(minutes=5)
    sender.problem = error
    report = deliver.run(context)
    assert (report.failed, report.messages) == (1, [f"mail: {error}"])
    assert town.row(schema.connections, MAIL).state == "broken"
    assert town.states(bo) == ("ready", "reserved")
    sender.problem = None
    sender.answers[ada.key] = Sent.SENT
    deliver.run(context)
    assert [town.states(one) for one in (ada, bo)] == [("done", "handed_over")] * 2
    assert town.row(schema.connections, MAIL).state == "ok"


def test_a_vendor_that_is_asked_too_often_is_left_alone(
    context: Context, town: Town, sender: RecordingSender, clock: FixedClock
) -> None:
    in_doubt(context, town, sender)
    town.invite(BO)
    clock.advance(minutes=5)
    sender.problem = RateLimited("too much", retry_after=600)
    report = deliver.run(context)
    assert report.messages == ["mail: the vendor asked to be left alone until 09:15 UTC"]
    assert sender.reached == []


# --- a sender that was removed ----------------------------------------------------------------------------------------


def remove(town: Town, connection_id: int) -> None:
    town.change(schema.connections, connection_id, state="removed")


def test_what_was_leaving_by_a_sender_that_was_removed_is_in_doubt(context: Context, town: Town) -> None:
    ada, bo = town.invite(ADA), town.invite(BO)
    town.change(schema.deliveries, ada.delivery_id, state="sending", owner="a dead worker", lease_until=0, fence=1)
    remove(town, MAIL)
    report = deliver.run(context)
    assert report.messages == [f"{ada.key}: in doubt, the process that sent it ended before it knew the outcome"]
    assert town.states(ada) == ("unknown", "unknown")
    assert town.states(bo) == ("ready", "reserved")  # until its time is over
    with town.store.read() as tx:
        assert deliveries.connections_with_work(tx, "write_back", context.clock.now_ms()) == [CRM]
    assert not is_swept_for_messages(town, context)


def is_swept_for_messages(town: Town, context: Context) -> bool:
    with town.store.read() as tx:
        return bool(deliveries.connections_with_work(tx, "send", context.clock.now_ms()))


def test_a_live_claim_of_a_removed_sender_is_left_to_its_worker(
    context: Context, town: Town, clock: FixedClock
) -> None:
    ada = town.invite(ADA)
    lease = clock.now_ms() + 1000
    town.change(schema.deliveries, ada.delivery_id, state="sending", owner="a worker", lease_until=lease, fence=1)
    remove(town, MAIL)
    deliver.run(context)
    assert town.states(ada) == ("sending", "reserved")
    clock.advance(seconds=1)
    deliver.run(context)
    assert town.states(ada) == ("unknown", "unknown")


def test_write_backs_into_a_source_that_was_removed_wake_nobody(context: Context, town: Town) -> None:
    ada = town.invite(ADA)
    with town.store.write() as tx:
        deliveries.request_write_back(tx, [ada.person_id], context.clock.now_ms())
    remove(town, CRM)
    with town.store.read() as tx:
        assert deliveries.connections_with_work(tx, "write_back", context.clock.now_ms()) == []
    assert push_scores.run(context).failed == 0


def test_a_write_back_that_was_going_into_it_is_simply_due_again(context: Context, town: Town) -> None:
    ada = town.invite(ADA)
    with town.store.write() as tx:
        deliveries.request_write_back(tx, [ada.person_id], context.clock.now_ms())
        tx.execute(
            schema.deliveries.update()
            .where(schema.deliveries.c.kind == "write_back")
            .values(state="sending", owner="a dead worker", lease_until=0)
        )
    remove(town, CRM)
    push_scores.run(context)
    with town.store.read() as tx:
        assert deliveries.connections_with_work(tx, "write_back", context.clock.now_ms()) == []
        assert deliveries.counts(tx)["ready"] == 2


def test_a_claim_taken_before_the_clock_was_set_back_is_not_waited_for(
    context: Context, town: Town, clock: FixedClock
) -> None:
    ada = town.invite(ADA)
    lease = clock.now_ms() + 400 * 86_400_000
    town.change(schema.deliveries, ada.delivery_id, state="sending", owner="a worker", lease_until=lease, fence=1)
    deliver.run(context)
    assert town.states(ada) == ("unknown", "unknown")
