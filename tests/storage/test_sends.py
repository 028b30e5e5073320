"""Messages in the database: which are due, the claim, the 24 h floor, reminders, what ran out of time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from core.clock import DAY_MS, HOUR_MS, FixedClock
from core.dispatch import Message
from core.storage import deliveries, schema, sends
from core.storage.store import Store
from core.touches import TouchState
from tests.jobs.mailing import ADA, BO, CAMPAIGN, MAIL, Asked, Town

OWNER = "this process"


@pytest.fixture
def town(store: Store, clock: FixedClock) -> Town:
    return Town(store, clock)


def facts(town: Town, asked: Asked) -> Message:
    with town.store.read() as tx:
        (message,) = sends.read_facts(tx, [asked.delivery_id])
    return message


def take(town: Town, message: Message) -> Message | None:
    now = town.clock.now_ms()
    with town.store.write() as tx:
        return sends.take(tx, message, OWNER, now, now + 60_000)


def guard(town: Town, message: Message, now: int | None = None) -> int | None:
    with town.store.write() as tx:
        return sends.take_guard(tx, message, now or town.clock.now_ms())


# --- what is due ------------------------------------------------------------------------------------------------------


def test_what_is_due_is_found_in_order_and_no_more_than_asked_for(town: Town) -> None:
    asked = [town.invite(f"person{number}@acme.example") for number in range(4)]
    now = town.clock.now_ms()
    town.change(schema.deliveries, asked[2].delivery_id, due_at=now - 5)
    town.change(schema.deliveries, asked[0].delivery_id, due_at=now + 1)
    with town.store.read() as tx:
        assert sends.due_sends(tx, MAIL, now) == [asked[number].delivery_id for number in (2, 1, 3)]
        assert sends.due_sends(tx, MAIL, now, limit=1) == [asked[2].delivery_id]
        assert sends.due_sends(tx, 1, now) == []


@pytest.mark.parametrize("state", ["sending", "done", "failed", "unknown", "cancelled"])
def test_only_ready_messages_are_due(town: Town, state: str) -> None:
    ada = town.invite(ADA)
    town.change(schema.deliveries, ada.delivery_id, state=state)
    with town.store.read() as tx:
        assert sends.due_sends(tx, MAIL, town.clock.now_ms()) == []
        assert sends.read_facts(tx, [ada.delivery_id]) == []


def test_messages_of_a_paused_campaign_are_not_due(town: Town) -> None:
    town.invite(ADA)
    town.change(schema.campaigns, CAMPAIGN, state="paused")
    with town.store.read() as tx:
        assert sends.due_sends(tx, MAIL, town.clock.now_ms()) == []


def test_looking_for_what_is_due_uses_the_index_of_unfinished_rows(town: Town) -> None:
    with town.store.read() as tx:
        query = f"EXPLAIN QUERY PLAN {sends._DUE.text}"
        plan = " ".join(row[3] for row in tx.exec_driver_sql(query, {"connection": 1, "now": 1, "limit": 1}))
    assert "ix_deliveries_due" in plan


def test_facts_are_those_of_the_moment_in_the_order_asked_for(town: Town) -> None:
    ada, bo = town.invite(ADA, first_name="Ada"), town.invite(BO)
    town.change(schema.people, ada.person_id, opted_out_at=1)
    with town.store.read() as tx:
        first, second = sends.read_facts(tx, [bo.delivery_id, ada.delivery_id])
    assert (first.email, first.opted_out, second.email, second.opted_out) == (BO, False, ADA, True)
    assert (second.first_name, second.key, second.kind, second.guarded_at) == ("Ada", ada.key, "invite", None)


# --- the claim --------------------------------------------------------------------------------------------------------


def test_a_message_is_taken_once(town: Town) -> None:
    ada = town.invite(ADA)
    seen_by_two = facts(town, ada)
    first, second = take(town, seen_by_two), take(town, seen_by_two)
    assert first is not None
    assert second is None
    assert (first.fence, first.attempts) == (1, 1)
    assert town.delivery(ada).payload == first.payload


def test_a_message_put_back_meanwhile_is_not_taken_by_whoever_read_it_before(town: Town) -> None:
    ada = town.invite(ADA)
    old = facts(town, ada)
    taken = take(town, old)
    assert taken is not None
    with town.store.write() as tx:
        assert deliveries.put_back(tx, taken.delivery_id, taken.fence, town.clock.now_ms())
    assert take(town, old) is None
    assert take(town, facts(town, ada)) is not None


def test_a_retry_keeps_its_link(town: Town) -> None:
    ada = town.invite(ADA)
    first = take(town, facts(town, ada))
    assert first is not None
    with town.store.write() as tx:
        deliveries.put_back(tx, first.delivery_id, first.fence, town.clock.now_ms())
    second = take(town, facts(town, ada))
    assert second is not None
    assert second.payload["token"] == first.payload["token"]
    assert len(town.rows(schema.survey_links)) == 1


def test_what_is_not_ready_any_more_is_neither_postponed_nor_withdrawn(town: Town) -> None:
    ada = town.invite(ADA)
    message = facts(town, ada)
    take(town, message)
    with town.store.write() as tx:
        sends.postpone(tx, message, 5, "later")
        assert not sends.withdraw(tx, message, "never", 5)
    assert (town.delivery(ada).state, town.delivery(ada).error) == ("sending", "")


# --- the 24 h floor ---------------------------------------------------------------------------------------------------


def test_the_floor_is_taken_for_every_record_of_the_person_or_for_none(town: Town) -> None:
    ada = town.invite(ADA)
    town.new_wave()
    other = town.invite("ada@home.example", person_id=ada.person_id)
    now = town.clock.now_ms()
    with town.store.write() as tx:
        tx.execute(schema.message_guard.insert().values(identity_id=other.identity_id, last_message_at=now - HOUR_MS))
    assert guard(town, facts(town, ada)) == now - HOUR_MS + DAY_MS
    assert {row.identity_id: row.last_message_at for row in town.rows(schema.message_guard)} == {
        other.identity_id: now - HOUR_MS
    }


def test_the_floor_is_free_after_exactly_24_hours(town: Town) -> None:
    ada = town.invite(ADA)
    now = town.clock.now_ms()
    assert guard(town, facts(town, ada)) is None
    assert guard(town, facts(town, ada), now + DAY_MS - 1) == now + DAY_MS
    assert guard(town, facts(town, ada), now + DAY_MS) is None


def test_a_message_is_not_stopped_by_its_own_earlier_attempt_but_by_any_other(town: Town) -> None:
    ada = town.invite(ADA)
    now = town.clock.now_ms()
    message = facts(town, ada)
    assert guard(town, message) is None
    again = replace(message, payload={"guarded_at": now})
    assert guard(town, again, now + HOUR_MS) is None
    assert guard(town, again, now + 2 * HOUR_MS) == now + HOUR_MS + DAY_MS


def test_people_do_not_share_a_floor(town: Town) -> None:
    ada, bo = town.invite(ADA), town.invite(BO)
    assert guard(town, facts(town, ada)) is None
    assert guard(town, facts(town, bo)) is None


# --- reminders --------------------------------------------------------------------------------------------------------


def due_reminders(town: Town) -> list[int]:
    now = town.clock.now_ms()
    with town.store.read() as tx:
        return [one.touch_id for one in sends.due_reminders(tx, CAMPAIGN, now, 0, now)]


@pytest.fixture
def handed_over(town: Town) -> Asked:
    ada = town.invite(ADA)
    town.change(schema.touches, ada.touch_id, state=TouchState.HANDED_OVER)
    return ada


def test_an_unanswered_invitation_is_reminded_of_once(town: Town, handed_over: Asked) -> None:
    assert due_reminders(town) == [handed_over.touch_id]
    now = town.clock.now_ms()
    with town.store.write() as tx:
        (due,) = sends.due_reminders(tx, CAMPAIGN, now, 0, now)
        assert sends.add_reminder(tx, due, "key:reminder:1", MAIL, now, now + DAY_MS, now)
        assert not sends.add_reminder(tx, due, "key:reminder:1", MAIL, now, now + DAY_MS, now)
    assert due_reminders(town) == []


@pytest.mark.parametrize(
    ("table", "values"),
    [
        (schema.touches, {"state": TouchState.UNKNOWN}),
        (schema.touches, {"state": TouchState.SILENT}),
        (schema.touches, {"answered": True}),
        (schema.touches, {"reminded_at": 1}),
        (schema.touches, {"window_closes_at": 1}),
        (schema.people, {"opted_out_at": 1}),
        (schema.people, {"source_opted_out": True}),
        (schema.identities, {"gone_at": 1}),
    ],
    ids=lambda value: value.name if hasattr(value, "name") else "-".join(value),
)
def test_who_is_not_reminded(town: Town, handed_over: Asked, table: Any, values: dict[str, Any]) -> None:
    ids = {"touches": handed_over.touch_id, "people": handed_over.person_id, "identities": handed_over.identity_id}
    town.change(table, ids[table.name], **values)
    assert due_reminders(town) == []


# --- out of time ------------------------------------------------------------------------------------------------------


def test_what_is_being_sent_is_not_overdue(town: Town) -> None:
    ada, bo = town.invite(ADA), town.invite(BO)
    take(town, facts(town, bo))
    with town.store.write() as tx:
        later = town.clock.now_ms() + DAY_MS
        assert [one.key for one in sends.overdue_sends(tx, later)] == [ada.key]
        sends.expire(tx, [ada.delivery_id, bo.delivery_id], later)
    assert (town.delivery(ada).state, town.delivery(bo).state) == ("cancelled", "sending")


def test_messages_in_doubt_are_those_of_this_sender_and_not_older_than_asked_for(town: Town) -> None:
    ada, bo = town.invite(ADA), town.invite(BO)
    town.change(schema.deliveries, ada.delivery_id, state="unknown", done_at=100)
    town.change(schema.deliveries, bo.delivery_id, state="unknown", done_at=99)
    with town.store.read() as tx:
        assert [one.key for one in sends.doubtful_sends(tx, MAIL, 100)] == [ada.key]
        assert sends.doubtful_sends(tx, 1, 0) == []


@pytest.mark.parametrize(("state", "again"), [("sending", True), ("unknown", True), ("done", False), ("ready", False)])
def test_only_what_is_in_doubt_is_made_ready_again(town: Town, state: str, again: bool) -> None:
    ada = town.invite(ADA)
    town.change(schema.deliveries, ada.delivery_id, state=state, fence=3)
    with town.store.write() as tx:
        assert sends.send_again(tx, ada.delivery_id, 3, town.clock.now_ms()) == again
        assert not sends.send_again(tx, ada.delivery_id, 2, town.clock.now_ms())  # somebody took it meanwhile
    with town.store.read() as tx:
        assert tx.scalar(select(schema.deliveries.c.state)) == ("ready" if again else state)
