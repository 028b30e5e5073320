"""Between reserve and send: what changed meanwhile is looked at again at the claim, and an opt-out always wins."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pytest

from core.clock import DAY_MS, HOUR_MS, FixedClock, to_ms
from core.jobs import close_windows, deliver
from core.jobs.context import Context
from core.ports import WriteResult
from core.storage import incidents, people, schema, suppressions, touches
from core.storage.incidents import IncidentKind
from core.storage.store import Store
from core.storage.suppressions import SuppressionReason
from tests.jobs.mailing import ADA, BO, CAMPAIGN, CONFIG, Asked, Composer, Sender, Town
from tests.ledger import add_company
from tests.world import make_context, set_workspace


@pytest.fixture
def town(store: Store, clock: FixedClock) -> Town:
    return Town(store, clock)


@pytest.fixture
def sender() -> Sender:
    return Sender()


@pytest.fixture
def context(town: Town, store: Store, clock: FixedClock, sender: Sender) -> Context:
    return make_context(store, clock, {"mail": sender, "crm": None}, composer=Composer())


# --- what ends an invitation ------------------------------------------------------------------------------------------


def opts_out(town: Town, ada: Asked, now: int) -> None:
    town.change(schema.people, ada.person_id, opted_out_at=now)


def source_says_opted_out(town: Town, ada: Asked, now: int) -> None:
    town.change(schema.people, ada.person_id, source_opted_out=True)


def address_is_suppressed(town: Town, ada: Asked, now: int) -> None:
    with town.store.write() as tx:
        hashed = town.touch(ada).address_hash
        suppressions.suppress(tx, hashed, SuppressionReason.COMPLAINT, "", "mail", now)


def address_changes(town: Town, ada: Asked, now: int) -> None:
    town.change(schema.identities, ada.identity_id, email="ada@new.example", address_hash=b"another")


def address_is_taken_away(town: Town, ada: Asked, now: int) -> None:
    town.change(schema.identities, ada.identity_id, email=None, address_hash=None)


def record_is_deleted(town: Town, ada: Asked, now: int) -> None:
    town.change(schema.identities, ada.identity_id, gone_at=now)


def incident_for_everybody(town: Town, ada: Asked, now: int) -> None:
    with town.store.write() as tx:
        incidents.open_incident(tx, IncidentKind.DECLARED, "outage", now)


def is_held(town: Town, ada: Asked, now: int) -> None:
    town.change(schema.people, ada.person_id, hold_until=now + HOUR_MS)


def campaign_is_stopped(town: Town, ada: Asked, now: int) -> None:
    town.change(schema.campaigns, CAMPAIGN, state="stopped")


def campaign_is_removed(town: Town, ada: Asked, now: int) -> None:
    town.change(schema.campaigns, CAMPAIGN, state="removed")


def workspace_goes_quiet(town: Town, ada: Asked, now: int) -> None:
    set_workspace(town.store, live=False, test_recipients=("me@acme.example",))


ENDS: list[tuple[Callable[[Town, Asked, int], None], str, str]] = [
    (opts_out, "cancelled", "opted out"),
    (source_says_opted_out, "cancelled", "opted out"),
    (address_is_suppressed, "suppressed", "the address is on the suppression list"),
    (address_changes, "cancelled", "the address changed"),
    (address_is_taken_away, "cancelled", "the record has no address any more"),
    (record_is_deleted, "cancelled", "the record is gone"),
    (incident_for_everybody, "cancelled", "an incident is open"),
    (is_held, "cancelled", "on hold"),
    (campaign_is_stopped, "cancelled", "the campaign was stopped"),
    (campaign_is_removed, "cancelled", "the campaign was stopped"),
    (workspace_goes_quiet, "cancelled", "the workspace is not live"),
]


@pytest.mark.parametrize(("happens", "reason", "why"), ENDS, ids=[case[0].__name__ for case in ENDS])
def test_what_happens_between_reserve_and_send_wins(
    context: Context, town: Town, sender: Sender, happens: Callable[..., None], reason: str, why: str
) -> None:
    ada = town.invite(ADA)
    happens(town, ada, context.clock.now_ms())
    deliver.run(context)
    assert sender.reached == []
    delivery, touch = town.delivery(ada), town.touch(ada)
    assert (delivery.state, delivery.payload, delivery.error) == ("cancelled", None, why)
    assert (touch.state, touch.reason, touch.detail) == ("returned", reason, why)
    assert town.rows(schema.message_guard) == []  # nothing left: the floor was not taken


@pytest.mark.parametrize(("happens", "reason", "why"), ENDS, ids=[case[0].__name__ for case in ENDS])
def test_what_happens_before_a_reminder_stops_it_and_leaves_the_touch(
    context: Context, town: Town, sender: Sender, clock: FixedClock, happens: Callable[..., None], reason: str, why: str
) -> None:
    ada = town.invite(ADA)
    deliver.run(context)
    clock.advance(days=6)
    reminder = town.remind(ada)
    before = town.touch(ada)
    happens(town, ada, clock.now_ms())
    deliver.run(context)
    assert sender.reached == [ADA]
    assert town.delivery(reminder).state == "cancelled"
    assert town.touch(ada) == before


def test_an_opt_out_while_others_are_sent_still_wins(context: Context, town: Town, sender: Sender) -> None:
    town.invite(ADA)
    bo = town.invite(BO)

    def bo_opts_out(_: Any) -> None:
        with town.store.write() as tx:
            people.opt_out(tx, bo.person_id, "link", context.clock.now_ms())

    sender.will(ADA, bo_opts_out)
    deliver.run(context)
    assert sender.reached == [ADA]
    assert town.states(bo) == ("cancelled", "returned")


def test_an_opt_out_while_the_message_is_leaving_cannot_call_it_back(
    context: Context, town: Town, sender: Sender
) -> None:
    """What the sender says decides; the person is not asked again, nor reminded."""
    ada = town.invite(ADA)

    def opt_out(_: Any) -> None:
        with town.store.write() as tx:
            people.opt_out(tx, ada.person_id, "link", context.clock.now_ms())

    sender.will(ADA, opt_out)
    deliver.run(context)
    assert town.states(ada) == ("done", "handed_over")
    assert town.row(schema.people, ada.person_id).opted_out_at is not None


def test_an_incident_of_one_company_stops_its_people_alone(context: Context, town: Town, sender: Sender) -> None:
    with town.store.write() as tx:
        acme, bolt = add_company(tx, "Acme"), add_company(tx, "Bolt")
        incidents.open_incident(tx, IncidentKind.DECLARED, "outage", 1, company_id=acme)
    ada, bo = town.invite(ADA, company_id=acme), town.invite(BO, company_id=bolt)
    deliver.run(context)
    assert sender.reached == [BO]
    assert (town.states(ada), town.states(bo)) == (("cancelled", "returned"), ("done", "handed_over"))


def test_a_hold_that_has_passed_stops_nobody(context: Context, town: Town, sender: Sender) -> None:
    town.invite(ADA, hold_until=context.clock.now_ms())
    deliver.run(context)
    assert sender.reached == [ADA]


def test_an_answer_before_the_invitation_left_makes_it_needless(context: Context, town: Town, sender: Sender) -> None:
    """A link seen in a preview: the touch is answered, and its message stays here."""
    ada = town.invite(ADA)
    with town.store.write() as tx:
        touches.mark_answered(tx, ada.touch_id, context.clock.now_ms())
    deliver.run(context)
    assert sender.reached == []
    assert town.states(ada) == ("cancelled", "answered")


# --- what makes it wait -----------------------------------------------------------------------------------------------


def test_a_paused_campaign_waits_and_nothing_is_lost(context: Context, town: Town, sender: Sender) -> None:
    ada = town.invite(ADA)
    town.change(schema.campaigns, CAMPAIGN, state="paused")
    deliver.run(context)
    assert sender.reached == []
    assert town.states(ada) == ("ready", "reserved")
    town.change(schema.campaigns, CAMPAIGN, state="active")
    deliver.run(context)
    assert sender.reached == [ADA]


def test_a_campaign_paused_in_the_middle_sends_nothing_more(context: Context, town: Town, sender: Sender) -> None:
    town.invite(ADA)
    bo = town.invite(BO)
    sender.will(ADA, lambda _: town.change(schema.campaigns, CAMPAIGN, state="paused"))
    deliver.run(context)
    assert sender.reached == [ADA]
    assert town.states(bo) == ("ready", "reserved")


def test_nothing_leaves_in_a_quiet_period(context: Context, town: Town, sender: Sender, clock: FixedClock) -> None:
    today = date(2026, 12, 1)
    set_workspace(town.store, quiet_periods=[{"name": "launch", "from": today, "to": today}])
    ada = town.invite(ADA)
    deliver.run(context)
    delivery = town.delivery(ada)
    assert (sender.reached, delivery.state, delivery.error) == ([], "ready", "quiet period")
    assert delivery.due_at == to_ms(datetime(2026, 12, 2, tzinfo=UTC))


def test_a_send_window_is_kept_in_the_recipients_time_zone(store: Store, clock: FixedClock, sender: Sender) -> None:
    """9:00 UTC on a Tuesday: noon in Nairobi, one in the morning in Los Angeles."""
    window = {"from": "09:00", "to": "17:00", "days": "mon-fri"}
    town = Town(store, clock, {**CONFIG, "send_window": window})
    context = make_context(store, clock, {"mail": sender, "crm": None}, composer=Composer())
    town.invite(ADA, time_zone="Africa/Nairobi")
    bo = town.invite(BO, time_zone="America/Los_Angeles")
    deliver.run(context)
    assert sender.reached == [ADA]
    opens = datetime(2026, 12, 1, 17, tzinfo=UTC)
    assert (town.delivery(bo).due_at, town.delivery(bo).error) == (to_ms(opens), "outside the send window")
    clock.at = opens
    deliver.run(context)
    assert sender.reached == [ADA, BO]
    assert town.touch(bo).asked_local_date == "2026-12-01"


def test_the_date_asked_is_the_recipients(context: Context, town: Town, clock: FixedClock) -> None:
    clock.at = datetime(2026, 12, 1, 23, tzinfo=UTC)
    ada, bo = town.invite(ADA, time_zone="Asia/Tokyo"), town.invite(BO, time_zone="America/Los_Angeles")
    deliver.run(context)
    assert (town.touch(ada).asked_local_date, town.touch(bo).asked_local_date) == ("2026-12-02", "2026-12-01")


def test_settings_that_change_while_a_long_send_goes_on_hold_for_what_is_left(
    context: Context, town: Town, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver, "FRESH_SECONDS", 0.0)
    town.invite(ADA)
    bo = town.invite(BO)
    sender.will(ADA, lambda _: set_workspace(town.store, live=False, test_recipients=("me@acme.example",)))
    deliver.run(context)
    assert sender.reached == [ADA]
    assert town.states(bo) == ("cancelled", "returned")


# --- reservations that ran out ----------------------------------------------------------------------------------------


def test_a_reservation_not_handed_over_in_time_is_returned(
    context: Context, town: Town, sender: Sender, clock: FixedClock
) -> None:
    ada = town.invite(ADA)
    clock.advance(hours=24)
    deliver.run(context)
    assert sender.reached == []
    assert town.states(ada) == ("cancelled", "returned")
    assert town.touch(ada).reason == "expired"


def test_a_reservation_of_a_sender_that_does_not_work_is_returned_too(
    context: Context, town: Town, clock: FixedClock
) -> None:
    ada = town.invite(ADA)
    town.change(schema.deliveries, ada.delivery_id, error="451 try again")
    clock.advance(hours=24)
    close_windows.run(context)
    assert town.states(ada) == ("cancelled", "returned")
    touch = town.touch(ada)
    assert (touch.reason, touch.detail) == ("expired", "not handed over in time; last: 451 try again")


def test_a_message_put_off_beyond_its_time_is_returned_when_that_is_over(
    context: Context, town: Town, sender: Sender, clock: FixedClock
) -> None:
    ada = town.invite(ADA)
    clock.advance(hours=23)
    sender.will(ADA, WriteResult.retry(ada.key, "451 try again"))
    deliver.run(context)
    assert town.states(ada) == ("ready", "reserved")
    clock.advance(hours=1)
    close_windows.run(context)
    assert town.states(ada) == ("cancelled", "returned")


def test_what_is_leaving_does_not_expire_under_the_sender(
    context: Context, town: Town, sender: Sender, clock: FixedClock
) -> None:
    ada = town.invite(ADA)
    clock.at += (DAY_MS - 1) * (datetime.resolution * 1000)

    def late(_: Any) -> None:
        clock.advance(seconds=5)
        close_windows.run(context)

    sender.will(ADA, late)
    deliver.run(context)
    assert town.states(ada) == ("done", "handed_over")
