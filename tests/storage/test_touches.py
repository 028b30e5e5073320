"""The ledger in the database: every move of the state machine, and none that it does not have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from core.clock import FixedClock
from core.storage import schema, sends, touches
from core.storage.store import Store
from core.storage.touches import touch_for_link
from core.touches import TRANSITIONS, ReturnReason, TouchState
from tests.jobs.mailing import ADA, BO, CAMPAIGN, WINDOW_MS, Asked, Town

S = TouchState
MOVES: dict[TouchState, Callable[[Any, list[int], int], object]] = {
    S.HANDED_OVER: touches.hand_over,
    S.UNKNOWN: touches.mark_unknown,
    S.RETURNED: lambda tx, ids, now: touches.give_back(tx, ids, ReturnReason.REFUSED, "554", now),
    S.SILENT: lambda tx, ids, now: touches.mark_silent(tx, ids),
}
STORED = [state for state in S if state is not S.PLANNED]


@pytest.fixture
def town(store: Store, clock: FixedClock) -> Town:
    return Town(store, clock)


@pytest.fixture
def ada(town: Town) -> Asked:
    return town.invite(ADA)


def write_backs(town: Town) -> int:
    return sum(row.kind == "write_back" for row in town.rows(schema.deliveries))


@pytest.mark.parametrize("to", MOVES, ids=str)
@pytest.mark.parametrize("state", STORED, ids=str)
def test_a_touch_moves_where_the_state_machine_lets_it_and_stays_otherwise(
    town: Town, ada: Asked, state: TouchState, to: TouchState
) -> None:
    town.change(schema.touches, ada.touch_id, state=state)
    before = town.touch(ada)
    with town.store.write() as tx:
        MOVES[to](tx, [ada.touch_id], town.clock.now_ms())
    after = town.touch(ada)
    if to in TRANSITIONS[state]:
        assert after.state == to
    else:
        assert after == before


# --- moments ----------------------------------------------------------------------------------------------------------


def test_the_claim_sets_the_moment_asked_and_the_window_moves_with_it(
    town: Town, ada: Asked, clock: FixedClock
) -> None:
    clock.advance(hours=7)
    now = clock.now_ms()
    with town.store.write() as tx:
        touches.claim(tx, [(ada.touch_id, "2026-12-01")], now)
    touch = town.touch(ada)
    assert (touch.state, touch.claimed_at, touch.asked_at) == ("reserved", now, now)
    assert (touch.window_closes_at, touch.asked_local_date) == (now + WINDOW_MS, "2026-12-01")


def test_the_moment_asked_is_the_hand_over_or_the_claim_of_what_was_in_doubt(
    town: Town, ada: Asked, clock: FixedClock
) -> None:
    bo = town.invite(BO)
    claimed_at = clock.now_ms()
    with town.store.write() as tx:
        touches.claim(tx, [(ada.touch_id, "2026-12-01"), (bo.touch_id, "2026-12-01")], claimed_at)
        touches.mark_unknown(tx, [bo.touch_id], claimed_at + 50)
        touches.hand_over(tx, [ada.touch_id, bo.touch_id], claimed_at + 100)
    assert (town.touch(ada).handed_over_at, town.touch(ada).asked_at) == (claimed_at + 100, claimed_at + 100)
    assert (town.touch(bo).handed_over_at, town.touch(bo).asked_at) == (claimed_at, claimed_at)


def test_a_returned_quota_keeps_reason_and_words_and_asks_for_the_previous_date(town: Town, ada: Asked) -> None:
    with town.store.write() as tx:
        touches.give_back(tx, [ada.touch_id], ReturnReason.BOUNCED, "550 " + "x" * 900, 77)
    touch = town.touch(ada)
    assert (touch.state, touch.reason, touch.returned_at, len(touch.detail)) == ("returned", "bounced", 77, 500)
    assert write_backs(town) == 1


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STORED, ids=str)
def test_an_answer_proves_arrival_whatever_was_believed_before(town: Town, ada: Asked, state: TouchState) -> None:
    town.change(schema.touches, ada.touch_id, state=state, reason="bounced" if state is S.RETURNED else "")
    with town.store.write() as tx:
        touches.mark_answered(tx, ada.touch_id, 123)
    touch = town.touch(ada)
    assert (touch.state, touch.reason) == ("answered", "")
    assert touch.answered_at == (None if state is S.ANSWERED else 123)


@pytest.mark.parametrize(("delivery", "after"), [("sending", "done"), ("unknown", "done"), ("ready", "cancelled")])
def test_an_answer_settles_what_carried_the_question(town: Town, ada: Asked, delivery: str, after: str) -> None:
    town.change(schema.deliveries, ada.delivery_id, state=delivery)
    with town.store.write() as tx:
        touches.mark_answered(tx, ada.touch_id, 123)
    assert town.delivery(ada).state == after


def test_an_anonymous_answer_leaves_a_flag_without_a_time(town: Town, ada: Asked) -> None:
    town.change(schema.touches, ada.touch_id, state=S.HANDED_OVER)
    with town.store.write() as tx:
        touches.mark_answered(tx, ada.touch_id, None)
    assert (town.touch(ada).state, town.touch(ada).answered, town.touch(ada).answered_at) == ("answered", True, None)


def test_the_link_leads_to_its_touch_and_no_other_does(town: Town, ada: Asked) -> None:
    with town.store.write() as tx:
        (message,) = sends.read_facts(tx, [ada.delivery_id])
        taken = sends.take(tx, message, "me", 1, 2)
    assert taken is not None
    token = str(taken.payload["token"])
    with town.store.read() as tx:
        found = touch_for_link(tx, token)
        assert touch_for_link(tx, token[:-1]) is None
        assert touch_for_link(tx, "") is None
    assert found is not None
    assert (found.touch_id, found.kind, found.state, found.campaign_id) == (
        ada.touch_id,
        "invite",
        S.RESERVED,
        CAMPAIGN,
    )


# --- opting out, stopping ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "after"),
    [
        (S.RESERVED, "returned"),
        (S.HANDED_OVER, "declined"),
        (S.UNKNOWN, "declined"),
        (S.ANSWERED, "answered"),
        (S.DECLINED, "declined"),
        (S.SILENT, "silent"),
        (S.RETURNED, "returned"),
    ],
    ids=str,
)
def test_opting_out_ends_a_touch_declined_after_hand_over_and_returned_before(
    town: Town, ada: Asked, state: TouchState, after: str
) -> None:
    town.change(schema.touches, ada.touch_id, state=state)
    with town.store.write() as tx:
        touches.end_open_touches(tx, [ada.person_id], town.clock.now_ms())
    assert town.touch(ada).state == after
    if state is S.RESERVED:
        assert (town.touch(ada).reason, town.touch(ada).detail) == ("cancelled", "opted out")
        assert town.delivery(ada).state == "cancelled"


def test_opting_out_after_the_window_declines_nothing(town: Town, ada: Asked, clock: FixedClock) -> None:
    town.change(schema.touches, ada.touch_id, state=S.HANDED_OVER)
    with town.store.write() as tx:
        touches.end_open_touches(tx, [ada.person_id], clock.now_ms() + WINDOW_MS)
    assert town.touch(ada).state == "handed_over"


def test_asks_of_other_tools_are_not_declined(town: Town, ada: Asked) -> None:
    town.change(schema.touches, ada.touch_id, state=S.HANDED_OVER, source="outside", window_closes_at=None)
    with town.store.write() as tx:
        touches.end_open_touches(tx, [ada.person_id], 1)
    assert town.touch(ada).state == "handed_over"


def test_a_send_stopped_half_way_returns_what_has_not_left_and_keeps_the_rest(town: Town) -> None:
    asked = {state: town.invite(f"{state}@acme.example") for state in (S.RESERVED, S.HANDED_OVER, S.UNKNOWN)}
    leaving = town.invite("leaving@acme.example")
    for state, one in asked.items():
        town.change(schema.touches, one.touch_id, state=state)
    town.change(schema.deliveries, leaving.delivery_id, state="sending")
    with town.store.write() as tx:
        assert touches.cancel_for_campaign(tx, CAMPAIGN, 5) == 1
    assert [town.touch(one).state for one in asked.values()] == ["returned", "handed_over", "unknown"]
    assert town.states(asked[S.RESERVED]) == ("cancelled", "returned")
    assert town.states(leaving) == ("sending", "reserved")  # its own outcome decides


def test_more_than_a_chunk_at_once(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(touches, "CHUNK", 2)
    asked = [town.invite(f"person{number}@acme.example") for number in range(5)]
    with town.store.write() as tx:
        assert touches.cancel_for_people(tx, [one.person_id for one in asked], 5) == 5
    assert {town.states(one) for one in asked} == {("cancelled", "returned")}


def test_windows_that_closed_without_an_answer_are_silent(town: Town, ada: Asked, clock: FixedClock) -> None:
    bo = town.invite(BO)
    town.change(schema.touches, ada.touch_id, state=S.HANDED_OVER)
    town.change(schema.touches, bo.touch_id, state=S.UNKNOWN)
    with town.store.write() as tx:
        assert touches.closed_windows(tx, clock.now_ms() + WINDOW_MS - 1, 10) == []
        found = touches.closed_windows(tx, clock.now_ms() + WINDOW_MS, 10)
        assert found == [ada.touch_id]  # what is in doubt stays in doubt
        assert touches.mark_silent(tx, [*found, bo.touch_id]) == 1
