"""Brakes: a campaign whose mail goes wrong pauses itself, once, with a reason, and goes on when an admin says so."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, select

from core.clock import FixedClock
from core.contacts import address_hash
from core.events import EmailBounced, EmailComplained
from core.jobs import brakes, deliver, plan_waves
from core.jobs.apply_events import apply_event
from core.jobs.brakes import why_stop
from core.jobs.context import Context
from core.ports import WriteResult
from core.storage import schema
from core.storage.brakes import Record
from core.storage.incidents import open_incidents
from core.storage.store import Store
from core.storage.suppressions import SuppressionReason, suppress
from core.touches import ReturnReason, TouchState
from core.workspace import Brakes
from tests.jobs.mailing import CAMPAIGN, MAIL, Asked, Composer, Sender, Town
from tests.ledger import add_person, add_touch
from tests.world import PEPPER, make_context, set_workspace


@pytest.fixture
def town(store: Store, clock: FixedClock) -> Town:
    return Town(store, clock)


@pytest.fixture
def sender() -> Sender:
    return Sender()


@pytest.fixture
def context(town: Town, store: Store, clock: FixedClock, sender: Sender) -> Context:
    return make_context(store, clock, {"mail": sender, "crm": None}, composer=Composer())


# --- the rule ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "limits", "stops"),
    [
        (Record(500, 25, 0, 0), Brakes(), False),  # exactly 5 %
        (Record(500, 26, 0, 0), Brakes(), True),
        (Record(49, 49, 0, 0), Brakes(), False),  # too few to speak of a share
        (Record(50, 3, 0, 0), Brakes(), True),
        (Record(500, 500, 0, 0), Brakes(bounce_share=0), False),
        (Record(500, 0, 1, 0), Brakes(), True),  # 0.2 %
        (Record(500, 0, 0, 0), Brakes(), False),
        (Record(500, 0, 500, 0), Brakes(complaint_share=0), False),
        (Record(19, 0, 0, 19), Brakes(), False),
        (Record(20, 0, 0, 20), Brakes(), True),
        (Record(20, 0, 0, 20), Brakes(refusals=0, bounce_share=0), False),
    ],
)
def test_when_a_campaign_stops(record: Record, limits: Brakes, stops: bool) -> None:
    assert (why_stop(record, limits) is not None) == stops


def test_the_reason_says_what_and_how_much() -> None:
    assert why_stop(Record(500, 30, 0, 0), Brakes()) == (
        "Paused: 30 of the last 500 messages bounced (6.0%, the limit is 5.0%); check the list of addresses before"
        " resuming."
    )


# --- what pulls it ----------------------------------------------------------------------------------------------------


def handed_over(town: Town, number: int) -> list[Asked]:
    """So many who have their invitation."""
    now = town.clock.now_ms()
    found = []
    with town.store.write() as tx:
        for index in range(number):
            email = f"sent{index}@acme.example"
            hashed = address_hash(PEPPER, email)
            person_id, identity_id = add_person(tx, email=email, address_hash=hashed)
            touch_id = add_touch(
                tx, person_id, TouchState.HANDED_OVER, now, identity_id=identity_id, campaign_id=CAMPAIGN,
                wave_id=town.wave, address_hash=hashed, claimed_at=now, handed_over_at=now,
            )  # fmt: skip
            found.append(Asked(person_id, identity_id, touch_id, 0, f"touch{touch_id}:invite"))
    return found


def bounce(town: Town, asked: Asked) -> None:
    with town.store.write() as tx:
        key, at, email = (
            f"bounce {asked.touch_id}",
            town.clock.now(),
            town.row(schema.identities, asked.identity_id).email,
        )
        event = EmailBounced(key=key, at=at, email=email, hard=True, reason="550 5.1.1")
        apply_event(tx, MAIL, "mail", event, PEPPER, town.clock.now_ms())


def campaign(town: Town) -> Any:
    return town.row(schema.campaigns, CAMPAIGN)


def test_twenty_refusals_in_a_row_pause_the_campaign_and_tell_an_admin(
    context: Context, town: Town, sender: Sender
) -> None:
    asked = [town.invite(f"person{number}@acme.example") for number in range(25)]
    for number, one in enumerate(asked):
        sender.will(f"person{number}@acme.example", WriteResult.rejected(one.key, "554 5.7.1 policy"))
    report = deliver.run(context)
    reason = "Paused: the sender refused 20 messages in a row; read their errors before resuming."
    assert (campaign(town).state, campaign(town).reason) == ("paused", reason)
    assert [town.states(one) for one in asked[20:]] == [("ready", "reserved")] * 5  # they wait, nothing is lost
    assert reason in report.messages
    with context.store.read() as tx:
        (incident,) = open_incidents(tx)
    assert (incident.kind, incident.campaign_id, incident.reason) == ("brake", CAMPAIGN, reason)


def test_one_that_is_taken_in_between_begins_the_count_anew(context: Context, town: Town, sender: Sender) -> None:
    asked = [town.invite(f"person{number}@acme.example") for number in range(30)]
    for number, one in enumerate(asked):
        if number != 15:
            sender.will(f"person{number}@acme.example", WriteResult.rejected(one.key, "554 5.7.1 policy"))
    deliver.run(context)
    assert campaign(town).state == "active"


def test_an_admin_resumes_and_what_was_is_not_held_against_it_but_what_comes_is(
    context: Context, town: Town, sender: Sender, clock: FixedClock
) -> None:
    """Also for invitations that were reserved before the brake was pulled."""
    asked = [town.invite(f"person{number}@acme.example") for number in range(60)]
    for number, one in enumerate(asked):
        sender.will(f"person{number}@acme.example", WriteResult.rejected(one.key, "554 5.7.1 policy"))
    deliver.run(context)
    assert sum(town.states(one)[0] == "failed" for one in asked) == 20
    clock.advance(minutes=10)
    with context.store.write() as tx:
        brakes.release(tx, CAMPAIGN, clock.now_ms())
        tx.execute(schema.campaigns.update().values(state="active", reason=""))
    clock.advance(minutes=1)
    deliver.run(context)
    assert campaign(town).state == "paused"
    assert sum(town.states(one)[0] == "failed" for one in asked) == 40
    assert [row.closed_at is None for row in town.rows(schema.incidents)] == [False, True]


def test_bounces_over_the_share_pause_the_campaign(context: Context, town: Town) -> None:
    asked = handed_over(town, 60)
    for one in asked[:3]:
        bounce(town, one)
    assert campaign(town).state == "active"  # 3 of 60 are the limit itself
    bounce(town, asked[3])
    assert campaign(town).state == "paused"
    assert "4 of the last 60 messages bounced" in campaign(town).reason


def test_a_bounce_returns_the_quota_and_is_counted_all_the_same(context: Context, town: Town) -> None:
    asked = handed_over(town, 10)
    bounce(town, asked[0])
    assert (town.touch(asked[0]).state, town.touch(asked[0]).reason) == ("returned", "bounced")


def test_a_complaint_pauses_the_campaign(context: Context, town: Town) -> None:
    asked = handed_over(town, 60)
    with town.store.write() as tx:
        email = town.row(schema.identities, asked[0].identity_id).email
        event = EmailComplained(key="complaint", at=town.clock.now(), email=email)
        apply_event(tx, MAIL, "mail", event, PEPPER, town.clock.now_ms())
    assert campaign(town).state == "paused"
    assert "1 of the last 60 messages were reported as spam" in campaign(town).reason


def test_only_the_last_500_count(context: Context, town: Town) -> None:
    asked = handed_over(town, 520)
    with town.store.write() as tx:
        for one in asked[:20]:  # the oldest: before the last 500
            tx.execute(
                schema.touches.update()
                .where(schema.touches.c.id == one.touch_id)
                .values(state=TouchState.RETURNED, reason=ReturnReason.BOUNCED)
            )
        assert brakes.check(tx, [CAMPAIGN], Brakes(), town.clock.now_ms()) == []


def test_an_old_complaint_of_the_address_is_not_this_campaigns(context: Context, town: Town) -> None:
    asked = handed_over(town, 60)
    with town.store.write() as tx:
        hashed = town.touch(asked[0]).address_hash
        suppress(tx, hashed, SuppressionReason.COMPLAINT, "", "mail", town.clock.now_ms() - 1)
        assert brakes.check(tx, [CAMPAIGN], Brakes(), town.clock.now_ms()) == []


def test_a_campaign_that_is_stopped_already_is_not_paused(context: Context, town: Town) -> None:
    asked = handed_over(town, 60)
    town.change(schema.campaigns, CAMPAIGN, state="stopped")
    for one in asked[:5]:
        bounce(town, one)
    assert campaign(town).state == "stopped"
    assert town.rows(schema.incidents) == []


# --- the first wave ---------------------------------------------------------------------------------------------------


def reservations(store: Store) -> int:
    with store.read() as tx:
        return tx.scalar(select(func.count()).select_from(schema.touches)) or 0


@pytest.fixture
def newcomers(town: Town, clock: FixedClock) -> None:
    clock.at = datetime(2026, 12, 1, 9, tzinfo=UTC)
    with town.store.write() as tx:
        for number in range(130):
            email = f"new{number}@company{number}.example"
            add_person(tx, email=email, address_hash=address_hash(PEPPER, email))


def test_the_first_live_wave_sends_50_then_waits_an_hour(
    context: Context, town: Town, clock: FixedClock, newcomers: None
) -> None:
    plan_waves.run(context)
    assert reservations(town.store) == 50
    deliver.run(context)
    clock.advance(minutes=59)
    plan_waves.run(context)
    assert reservations(town.store) == 50
    clock.advance(minutes=1)
    plan_waves.run(context)
    assert reservations(town.store) == 130


def test_0_switches_the_first_wave_off(context: Context, town: Town, newcomers: None) -> None:
    set_workspace(town.store, brakes={"first_wave": 0})
    plan_waves.run(context)
    assert reservations(town.store) == 130
