"""What becomes of a message: claimed under lease and fence, handed over once, its outcome written down by the claim."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import select

from core.clock import DAY_MS, HOUR_MS, FixedClock
from core.ids import token_hash
from core.jobs import deliver
from core.jobs.context import Context
from core.jobs.outlet import LEASE_MS
from core.ports import Invitation, WriteResult
from core.storage import deliveries, schema, suppressions
from core.storage.store import Store
from tests.jobs.mailing import ADA, BO, CLEO, WINDOW_MS, Composer, Sender, Town
from tests.world import make_context

MINUTE_MS = 60_000


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
def context(store: Store, clock: FixedClock, sender: Sender, composer: Composer) -> Context:
    return make_context(store, clock, {"mail": sender, "crm": None}, composer=composer)


# --- the claim --------------------------------------------------------------------------------------------------------


def test_a_message_leaves_under_a_lease_a_fence_and_the_floor(
    context: Context, town: Town, sender: Sender, clock: FixedClock
) -> None:
    ada = town.invite(ADA)
    seen: list[Any] = []

    def look(_: Invitation) -> None:
        with context.store.read() as tx:
            guard = tx.execute(select(schema.message_guard)).one()
        seen.append((town.delivery(ada), town.touch(ada), guard))

    sender.will(ADA, look)
    deliver.run(context)
    ((delivery, touch, guard),) = seen
    now = clock.now_ms()
    assert (delivery.state, delivery.owner, delivery.fence, delivery.attempts) == ("sending", "this process", 1, 1)
    assert delivery.lease_until == now + LEASE_MS
    assert (guard.identity_id, guard.last_message_at) == (ada.identity_id, now)
    assert (touch.state, touch.claimed_at, touch.asked_at, touch.asked_local_date) == (
        "reserved", now, now, "2026-12-01",
    )  # fmt: skip


def test_what_the_sender_took_is_handed_over_and_written_back(
    context: Context, town: Town, sender: Sender, clock: FixedClock
) -> None:
    ada = town.invite(ADA)
    clock.advance(hours=2)
    report = deliver.run(context)
    assert (report.done, report.failed, report.messages) == (1, 0, [])
    delivery, touch = town.delivery(ada), town.touch(ada)
    assert (delivery.state, delivery.vendor_ref, delivery.lease_until) == ("done", "ref-1", None)
    assert (touch.state, touch.handed_over_at, touch.asked_at) == ("handed_over", clock.now_ms(), clock.now_ms())
    assert touch.window_closes_at == clock.now_ms() + WINDOW_MS  # the window keeps its length
    with context.store.read() as tx:
        assert deliveries.connections_with_work(tx, "write_back", clock.now_ms()) == [1]


def test_the_token_is_in_the_link_and_nowhere_else_once_it_has_left(
    context: Context, town: Town, sender: Sender
) -> None:
    ada = town.invite(ADA)
    deliver.run(context)
    token = sender.sent[0].survey_url.rpartition("/")[2]
    (link,) = town.rows(schema.survey_links)
    assert (link.token_hash, link.touch_id, link.kind) == (token_hash("touch", token), ada.touch_id, "invite")
    assert town.delivery(ada).payload is None


def test_messages_leave_in_the_order_they_are_due(context: Context, town: Town, sender: Sender) -> None:
    for address in (ADA, BO, CLEO):
        town.invite(address)
    late = town.invite("eve@east.example")
    town.change(schema.deliveries, late.delivery_id, due_at=context.clock.now_ms() - 1)
    deliver.run(context)
    assert sender.reached == ["eve@east.example", ADA, BO, CLEO]


def test_what_is_due_later_stays(context: Context, town: Town, sender: Sender, clock: FixedClock) -> None:
    ada = town.invite(ADA)
    town.change(schema.deliveries, ada.delivery_id, due_at=clock.now_ms() + 1)
    deliver.run(context)
    assert sender.reached == []
    clock.advance(milliseconds=1)
    deliver.run(context)
    assert sender.reached == [ADA]


def test_no_more_are_claimed_than_the_sender_takes_at_once(context: Context, town: Town, sender: Sender) -> None:
    sender.send_batch_size = 2
    for number in range(5):
        town.invite(f"person{number}@acme.example")
    claimed: list[int] = []

    def count(_: Invitation) -> None:
        claimed.append(sum(row.state == "sending" for row in town.rows(schema.deliveries)))

    for number in range(5):
        sender.will(f"person{number}@acme.example", count)
    deliver.run(context)
    assert claimed == [2, 2, 2, 2, 1]


# --- outcomes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attempt", "minutes"), [(1, 5), (2, 15), (3, 60), (4, 240), (5, 240)], ids=lambda value: str(value)
)
def test_a_message_put_off_is_tried_after_5_minutes_15_minutes_1_hour_then_every_4_hours(
    context: Context, town: Town, sender: Sender, clock: FixedClock, attempt: int, minutes: int
) -> None:
    ada = town.invite(ADA)
    town.change(schema.deliveries, ada.delivery_id, attempts=attempt - 1)
    sender.will(ADA, WriteResult.retry("touch1:invite", "451 try again"))
    report = deliver.run(context)
    delivery = town.delivery(ada)
    assert (delivery.state, delivery.attempts, delivery.error) == ("ready", attempt, "451 try again")
    assert delivery.due_at == clock.now_ms() + minutes * MINUTE_MS
    assert (report.done, report.failed) == (0, 0)


def test_a_sender_that_says_when_is_obeyed(context: Context, town: Town, sender: Sender, clock: FixedClock) -> None:
    ada = town.invite(ADA)
    sender.will(ADA, WriteResult.retry("touch1:invite", "421 later", 300.0))
    deliver.run(context)
    assert town.delivery(ada).due_at == clock.now_ms() + 300_000


def test_a_retry_carries_the_same_key_and_the_same_link_and_is_not_stopped_by_its_own_floor(
    context: Context, town: Town, sender: Sender, clock: FixedClock
) -> None:
    ada = town.invite(ADA)
    tried: list[Invitation] = []

    def put_off(invitation: Invitation) -> WriteResult:
        tried.append(invitation)
        return WriteResult.retry(invitation.key, "451 try again")

    sender.will(ADA, put_off)
    deliver.run(context)
    clock.advance(minutes=5)
    deliver.run(context)
    assert [(one.key, one.survey_url) for one in sender.sent] == [(one.key, one.survey_url) for one in tried]
    assert town.delivery(ada).attempts == 2
    assert town.states(ada) == ("done", "handed_over")


def test_a_message_put_off_for_48_hours_is_given_up_and_its_quota_returned(
    context: Context, town: Town, sender: Sender, clock: FixedClock
) -> None:
    ada = town.invite(ADA)
    town.change(schema.deliveries, ada.delivery_id, expires_at=None)
    clock.advance(hours=48)
    sender.will(ADA, WriteResult.retry(ada.key, "451 try again"))
    report = deliver.run(context)
    assert town.states(ada) == ("failed", "returned")
    assert (town.touch(ada).reason, town.touch(ada).detail) == ("refused", "451 try again")
    assert report.messages == [f"{ada.key}: 451 try again"]


def test_a_message_refused_returns_the_quota_and_says_nothing_of_the_address(
    context: Context, town: Town, sender: Sender
) -> None:
    ada, bo = town.invite(ADA), town.invite(BO)
    sender.will(ADA, WriteResult.rejected(ada.key, "554 5.7.1 policy"))
    report = deliver.run(context)
    assert town.states(ada) == ("failed", "returned")
    assert town.touch(ada).reason == "refused"
    assert town.rows(schema.suppressions) == []
    assert town.states(bo) == ("done", "handed_over")
    assert (report.done, report.failed, report.messages) == (1, 1, [f"{ada.key}: 554 5.7.1 policy"])


def test_a_dead_address_returns_the_quota_and_is_never_mailed_again(
    context: Context, town: Town, sender: Sender
) -> None:
    ada = town.invite(ADA)
    sender.will(ADA, WriteResult.rejected(ada.key, "550 5.1.1 no such user", suppress=True))
    deliver.run(context)
    touch = town.touch(ada)
    assert (touch.state, touch.reason, touch.detail) == ("returned", "bounced", "550 5.1.1 no such user")
    with context.store.read() as tx:
        assert suppressions.is_suppressed(tx, touch.address_hash)
    (row,) = town.rows(schema.suppressions)
    assert (row.reason, row.detail, row.source) == ("hard_bounce", "550 5.1.1 no such user", "mail")


def test_a_returned_quota_leaves_the_floor_standing(
    context: Context, town: Town, sender: Sender, clock: FixedClock
) -> None:
    ada = town.invite(ADA)
    sender.will(ADA, WriteResult.rejected(ada.key, "554 refused"))
    deliver.run(context)
    (guard,) = town.rows(schema.message_guard)
    assert guard.last_message_at == clock.now_ms()


def test_a_message_that_cannot_be_written_stops_nobody(
    context: Context, town: Town, sender: Sender, composer: Composer
) -> None:
    ada, bo = town.invite(ADA), town.invite(BO)

    def fail(request: Any) -> None:
        if request.email == ADA:
            raise ValueError("no template")

    composer.before = fail
    deliver.run(context)
    delivery = town.delivery(ada)
    assert (delivery.state, delivery.error) == ("ready", "could not be written: no template")
    assert town.states(bo) == ("done", "handed_over")


# --- the 24 h floor ---------------------------------------------------------------------------------------------------


def test_a_message_within_24_hours_of_another_to_the_same_person_is_postponed(
    context: Context, town: Town, sender: Sender, clock: FixedClock
) -> None:
    ada = town.invite(ADA)
    left_at = clock.now_ms() - 5 * HOUR_MS
    with context.store.write() as tx:
        tx.execute(schema.message_guard.insert().values(identity_id=ada.identity_id, last_message_at=left_at))
    deliver.run(context)
    delivery = town.delivery(ada)
    assert sender.reached == []
    assert (delivery.state, delivery.due_at, delivery.attempts) == ("ready", left_at + DAY_MS, 0)
    assert "24 h" in delivery.error
    clock.advance(hours=19)
    town.change(schema.deliveries, ada.delivery_id, expires_at=clock.now_ms() + DAY_MS)
    deliver.run(context)
    assert sender.reached == [ADA]


def test_the_floor_stands_on_every_record_of_the_person(
    context: Context, town: Town, sender: Sender, clock: FixedClock
) -> None:
    ada = town.invite(ADA)
    town.new_wave()
    other = town.invite("ada@home.example", person_id=ada.person_id)
    deliver.run(context)
    assert sender.reached == [ADA]
    assert town.states(other) == ("ready", "reserved")
    assert town.delivery(other).due_at == clock.now_ms() + DAY_MS
    assert {row.identity_id for row in town.rows(schema.message_guard)} == {ada.identity_id, other.identity_id}


def test_a_claim_that_loses_the_floor_leaves_the_touch_as_it_was(
    context: Context, town: Town, clock: FixedClock
) -> None:
    ada = town.invite(ADA)
    with context.store.write() as tx:
        tx.execute(
            schema.message_guard.insert().values(identity_id=ada.identity_id, last_message_at=clock.now_ms() - 1)
        )
    before = town.touch(ada)
    deliver.run(context)
    assert town.touch(ada) == before


# --- several at once --------------------------------------------------------------------------------------------------


def test_two_workers_at_once_send_nothing_twice(store: Store, clock: FixedClock, town: Town) -> None:
    senders = [Sender(), Sender()]
    for number in range(60):
        town.invite(f"person{number}@acme.example")
    contexts = [
        make_context(store, clock, {"mail": sender}, composer=Composer(), owner=f"worker {number}")
        for number, sender in enumerate(senders)
    ]
    start = threading.Barrier(2)

    def work(context: Context) -> None:
        start.wait()
        deliver.run(context)
        deliver.run(context)

    threads = [threading.Thread(target=work, args=(context,)) for context in contexts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reached = senders[0].reached + senders[1].reached
    assert len(reached) == len(set(reached)) == 60


def test_while_one_worker_has_the_sender_the_other_leaves_it_alone(
    context: Context, town: Town, sender: Sender, store: Store, clock: FixedClock
) -> None:
    town.invite(ADA)
    town.invite(BO)
    other = Sender()
    beside = make_context(store, clock, {"mail": other}, composer=Composer(), owner="another")

    def run_beside(_: Invitation) -> None:
        deliver.run(beside)

    sender.will(ADA, run_beside)
    deliver.run(context)
    assert (sender.reached, other.reached) == ([ADA, BO], [])


def test_senders_are_served_side_by_side(context: Context, town: Town, sender: Sender, store: Store) -> None:
    """Each waits for the other: one after the other, neither would end."""
    with store.write() as tx:
        second = tx.execute(
            schema.connections.insert().values(name="second", kind="smtp", config={}, changed_at=0, state="ok")
        ).inserted_primary_key
    assert second is not None
    town.invite(ADA)
    town.invite(BO, sender=second[0])
    other = Sender()
    context.opener.connectors["second"] = other  # type: ignore[attr-defined]
    meet = threading.Barrier(2, timeout=10)

    def wait(_: Invitation) -> None:
        meet.wait()

    sender.will(ADA, wait)
    other.will(BO, wait)
    deliver.run(context)
    assert (sender.reached, other.reached) == ([ADA], [BO])


def test_one_sender_is_spoken_to_by_the_thread_that_runs_the_job(context: Context, town: Town, sender: Sender) -> None:
    """So that the connector of a worker's thread, and its conversation with the server, last from run to run."""
    town.invite(ADA)
    spoke: list[int] = []
    sender.will(ADA, lambda _: spoke.append(threading.get_ident()))
    deliver.run(context)
    assert spoke == [threading.get_ident()]


def test_a_worker_that_is_asked_to_end_claims_nothing_more(context: Context, town: Town, sender: Sender) -> None:
    ada, bo = town.invite(ADA), town.invite(BO)
    sender.will(ADA, lambda _: context.stopping.set())
    deliver.run(context)
    assert town.states(ada) == ("done", "handed_over")
    assert town.states(bo) == ("ready", "reserved")
