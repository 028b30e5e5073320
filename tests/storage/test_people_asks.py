"""The `last surveyed` that a source shows: other tools' asks, people's edits, our own echo. The ledger is the truth."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from core.clock import DAY_MS, FixedClock, to_ms
from core.dates import end_of_day
from core.storage import schema
from core.storage.people_clocks import strictest_free
from core.storage.store import Store
from core.touches import TouchState
from tests.sources import World

ADA = "ada@acme.example"
PARIS = ZoneInfo("Europe/Paris")


@pytest.fixture
def world(store: Store, clock: FixedClock) -> World:
    """Ada, asked by us on 2026-08-23, 100 days ago; her source shows that day."""
    world = World(store, clock)
    world.crm.put("1", ADA)
    world.sync()
    world.ask("crm:1", TouchState.SILENT, days_ago=100, asked_local_date="2026-08-23")
    world.crm.change("1", last_surveyed_at="2026-08-23")
    world.sync()
    world.clock.advance(minutes=5)
    return world


def shows(world: World, text: str | None) -> None:
    """Somebody types this into Ada's record, and the source is read."""
    world.crm.change("1", last_surveyed_at=text)
    world.sync()


# --- our own date ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["2026-08-23", "23/08/2026", "2026-08-23T23:30:00+02:00", "2026-08-23 00:10"])
def test_the_day_of_a_touch_we_know_is_our_own_echo(world: World, text: str) -> None:
    shows(world, text)
    assert world.asked_days("crm:1") == ["2026-08-23"]
    assert world.behind() == set()


def test_the_day_is_that_of_the_workspace_zone(world: World) -> None:
    """23:30 UTC is the next day in Paris: a date-only field shows that one."""
    late = to_ms(datetime(2026, 11, 9, 23, 30, tzinfo=UTC))
    world.ask("crm:1", days_ago=(world.now - late) / DAY_MS)
    shows(world, "2026-11-10")
    assert len(world.touches("crm:1")) == 2
    assert world.behind() == set()


# --- a later date ---------------------------------------------------------------------------------------------------


def test_a_later_date_is_an_outside_ask_of_that_source(world: World) -> None:
    shows(world, "2026-11-20")
    touch = world.touches("crm:1")[-1]
    assert (touch.source, touch.origin, touch.type, touch.state) == ("outside", "crm", "nps", "handed_over")
    assert (touch.campaign_id, touch.wave_id, touch.window_closes_at, touch.clamped) == (None, None, None, False)
    assert (touch.identity_id, touch.address_hash) == (world.record("crm:1").id, world.record("crm:1").address_hash)


def test_a_date_without_a_time_counts_to_the_end_of_its_day_in_the_workspace_zone(world: World) -> None:
    shows(world, "2026-11-20")
    assert world.touches("crm:1")[-1].asked_at == to_ms(end_of_day(datetime(2026, 11, 20).date(), PARIS))
    assert world.touches("crm:1")[-1].asked_local_date == "2026-11-20"


def test_a_later_moment_counts_from_that_moment(world: World) -> None:
    shows(world, "2026-11-20T10:00:00Z")
    assert world.touches("crm:1")[-1].asked_at == to_ms(datetime(2026, 11, 20, 10, tzinfo=UTC))


def test_a_later_date_is_told_to_the_other_source(world: World) -> None:
    world.hub.put("7", ADA)
    world.sync()
    world.push()
    world.clock.advance(minutes=5)
    shows(world, "2026-11-20")
    world.push()
    assert world.hub.contacts["7"].last_surveyed_at == world.crm.contacts["1"].last_surveyed_at == "2026-11-20"


def test_what_waits_to_leave_stays_here_when_somebody_else_has_just_asked(world: World) -> None:
    pending = world.ask("crm:1", TouchState.RESERVED)
    shows(world, "2026-11-30")
    assert (world.touch(pending).state, world.touch(pending).reason) == (TouchState.RETURNED, "cancelled")
    assert world.message(pending) == "cancelled"


def test_what_waits_leaves_all_the_same_if_the_later_date_binds_no_more(world: World) -> None:
    pending = world.ask("crm:1", TouchState.RESERVED)
    shows(world, "2026-08-25")
    assert len(world.asked_days("crm:1")) == 3
    assert world.touch(pending).state == TouchState.RESERVED


def test_a_reservation_is_no_ask_yet(world: World) -> None:
    """A date of the day on which we reserved is somebody else's: nothing of ours has left."""
    world.ask("crm:1", TouchState.RESERVED)
    shows(world, "2026-12-01")
    assert world.touches("crm:1")[-1].source == "outside"


# --- a future date --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["2027-03-01", "2026-12-01T09:11:00Z"])
def test_a_future_date_is_clamped_to_now_and_flagged(world: World, text: str) -> None:
    shows(world, text)
    touch = world.touches("crm:1")[-1]
    assert (touch.asked_at, touch.clamped) == (world.now, True)


def test_clocks_may_differ_by_five_minutes(world: World) -> None:
    shows(world, "2026-12-01T09:09:00Z")
    touch = world.touches("crm:1")[-1]
    assert (touch.asked_at - world.now, touch.clamped) == (4 * 60_000, False)


def test_today_without_a_time_is_not_the_future(world: World) -> None:
    shows(world, "2026-12-01")
    assert not world.touches("crm:1")[-1].clamped


def test_a_future_date_counts_once_however_often_it_is_read(world: World) -> None:
    shows(world, "2027-03-01")
    world.clock.advance(days=1)
    world.crm.change("1", first_name="Ada")
    world.sync()
    assert len(world.touches("crm:1")) == 2


# --- an earlier one, or none ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["2026-08-22", "2020-01-01", None, "soon"])
def test_an_earlier_or_cleared_date_leaves_the_ledger_and_is_restored(world: World, text: str | None) -> None:
    before = [tuple(row) for row in world.touches("crm:1")]
    shows(world, text)
    assert [tuple(row) for row in world.touches("crm:1")] == before
    assert world.behind() == {"crm:1"}
    world.push()
    assert world.crm.contacts["1"].last_surveyed_at == "2026-08-23"
    world.clock.advance(minutes=5)
    world.sync()
    assert world.behind() == set(), "restored once"


def test_a_date_restored_and_cleared_again_is_restored_again(world: World) -> None:
    for _ in range(2):
        shows(world, None)
        world.push()
        world.clock.advance(minutes=5)
        world.sync()
        assert world.crm.contacts["1"].last_surveyed_at == "2026-08-23"


def test_a_returned_touch_is_no_reason_to_restore_its_date(world: World) -> None:
    """It bounced: a date before it is later than the last ask that counts."""
    world.ask("crm:1", TouchState.RETURNED, days_ago=1)
    shows(world, "2026-10-01")
    assert world.asked_days("crm:1") == ["2026-08-23", "2026-10-01"]


# --- history --------------------------------------------------------------------------------------------------------


def test_a_new_record_brings_its_history(world: World) -> None:
    world.crm.put("2", "bo@acme.example", last_surveyed_at="2024-02-29", company="Acme")
    world.sync()
    (touch,) = world.touches("crm:2")
    assert (touch.asked_local_date, touch.source) == ("2024-02-29", "outside")
    assert touch.company_id == world.record("crm:2").company_id is not None
    assert world.behind() == set(), "the source shows it already"


def test_history_of_a_record_joined_to_somebody_who_was_asked_is_kept_even_if_older(world: World) -> None:
    world.hub.put("7", ADA, last_surveyed_at="2026-02-14")
    world.sync()
    assert world.asked_days("crm:1") == ["2026-02-14", "2026-08-23"]
    world.push()
    assert world.hub.contacts["7"].last_surveyed_at == "2026-08-23"


def test_the_same_day_in_two_sources_is_one_ask(world: World) -> None:
    world.crm.put("2", "bo@acme.example", last_surveyed_at="2026-05-04")
    world.hub.put("8", "bo@acme.example", last_surveyed_at="04/05/2026")
    world.sync()
    assert world.asked_days("crm:2") == ["2026-05-04"]


def test_the_same_day_on_two_records_of_one_page_is_one_ask(world: World) -> None:
    world.crm.put("2", "bo@acme.example", first_name="Bo", last_surveyed_at="2026-05-04")
    world.crm.put("3", "bo@acme.example", first_name="Bo", last_surveyed_at="2026-05-04")
    world.sync()
    assert world.person("crm:2") == world.person("crm:3")
    assert world.asked_days("crm:2") == ["2026-05-04"]


def test_a_senseless_text_of_somebody_never_asked_is_told_and_asks_nobody(world: World) -> None:
    world.crm.put("2", "bo@acme.example", last_surveyed_at="next week")
    (message,) = world.sync().messages
    assert '"next week" is no date of a last survey' in message
    assert world.touches("crm:2") == []
    (bad,) = world.rows(schema.bad_records.select())
    assert bad.place == "record 2"


def test_an_outside_ask_counts_for_the_clocks_from_the_end_of_its_day(world: World) -> None:
    world.crm.put("2", "bo@acme.example", last_surveyed_at="2026-11-20")
    world.sync()
    with world.store.read() as tx:
        free = strictest_free(tx, world.person("crm:2"), world.now)
    assert free == world.touches("crm:2")[0].asked_at + 90 * DAY_MS


# --- hold and opting out --------------------------------------------------------------------------------------------


def test_a_hold_set_by_a_crm_user_is_obeyed_to_the_end_of_its_day(world: World) -> None:
    world.crm.change("1", hold_until="2027-01-31")
    world.sync()
    assert world.person_row("crm:1").hold_until == to_ms(end_of_day(datetime(2027, 1, 31).date(), PARIS))
    world.crm.change("1", hold_until=None)
    world.sync()
    assert world.person_row("crm:1").hold_until is None


def test_an_opt_out_that_arrives_between_reserve_and_send_returns_the_reservation(world: World) -> None:
    pending = world.ask("crm:1", TouchState.RESERVED)
    world.crm.change("1", opted_out=True)
    world.sync()
    assert (world.touch(pending).state, world.message(pending)) == (TouchState.RETURNED, "cancelled")
    assert world.person_row("crm:1").source_opted_out


def test_an_opt_out_after_the_message_left_ends_the_ask_as_declined(world: World) -> None:
    asked = world.ask("crm:1", days_ago=1)
    world.crm.change("1", opted_out=True)
    world.sync()
    assert (world.touch(asked).state, world.touch(asked).declined_at) == (TouchState.DECLINED, world.now)
