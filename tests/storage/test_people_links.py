"""Records merged in their source, merges undone, wrong links split: touches follow the person and can go back."""

from __future__ import annotations

import pytest

from core.clock import DAY_MS, FixedClock
from core.errors import NotFound
from core.ports import ContactMerged
from core.storage import schema
from core.storage.people import opt_out
from core.storage.people_links import link, split
from core.storage.store import Store
from core.touches import TouchState
from tests.ledger import add_touch, add_wave
from tests.sources import World

ADA, BO = "ada@acme.example", "bo@acme.example"
MERGED = ContactMerged("1", ("2",))


@pytest.fixture
def world(store: Store, clock: FixedClock) -> World:
    """Ada has two records, `crm:1` and `crm:2`, that nobody could tell to be one."""
    world = World(store, clock)
    world.crm.put("1", ADA, first_name="Ada")
    world.crm.put("2", "ada@home.example", first_name="Ada")
    world.sync()
    return world


def merge(world: World) -> None:
    """The source merges 2 into 1 and shows 1 alone from now on."""
    world.crm.whole = False
    world.crm.tell(MERGED, first=True)
    world.crm.contacts.pop("2", None)
    world.sync()


# --- merged in the source -------------------------------------------------------------------------------------------


def test_the_survivor_of_a_merge_inherits_all_touches(world: World) -> None:
    first, second = world.ask("crm:1", days_ago=200), world.ask("crm:2", days_ago=100)
    returned = world.ask("crm:2", TouchState.RETURNED, days_ago=300)
    merge(world)
    assert world.people() == [{"crm:1"}]
    assert [row.id for row in world.touches("crm:1")] == [returned, first, second]


def test_after_a_merge_the_latest_date_wins(world: World) -> None:
    world.ask("crm:1", days_ago=200)
    world.ask("crm:2", days_ago=100)
    merge(world)
    world.push()
    assert world.crm.contacts["1"].last_surveyed_at == "2026-08-23"


def test_an_opt_out_of_either_survives_a_merge(world: World) -> None:
    with world.change() as tx:
        opt_out(tx, world.person("crm:2"), "link", world.now)
    reserved = world.ask("crm:1", TouchState.RESERVED)
    merge(world)
    assert world.person_row("crm:1").opted_out_at == world.now
    assert world.person_row("crm:1").opted_out_by == "link"
    assert world.touch(reserved).state == TouchState.RETURNED


def test_a_pending_touch_for_each_becomes_one(world: World) -> None:
    kept = world.ask("crm:1", TouchState.RESERVED, wave_id=world.wave)
    other = world.ask("crm:2", TouchState.RESERVED, wave_id=world.wave)
    merge(world)
    assert [world.touch(one).state for one in (kept, other)] == [TouchState.RESERVED, TouchState.RETURNED]
    assert [world.message(one) for one in (kept, other)] == ["ready", "cancelled"]
    assert world.touch(other).reason == "cancelled"


def test_the_pending_touch_to_the_record_that_is_gone_is_the_one_returned(world: World) -> None:
    gone = world.ask("crm:2", TouchState.RESERVED, days_ago=0.5, wave_id=world.wave)
    kept = world.ask("crm:1", TouchState.RESERVED, wave_id=world.wave)
    merge(world)
    assert [world.touch(one).state for one in (kept, gone)] == [TouchState.RESERVED, TouchState.RETURNED]


def test_a_pending_touch_is_returned_if_the_other_record_was_asked_lately(world: World) -> None:
    world.ask("crm:2", days_ago=10)
    pending = world.ask("crm:1", TouchState.RESERVED)
    merge(world)
    assert world.touch(pending).state == TouchState.RETURNED
    assert world.message(pending) == "cancelled"


def test_a_pending_touch_stays_if_the_other_record_was_asked_long_ago(world: World) -> None:
    world.ask("crm:2", TouchState.SILENT, days_ago=200)
    pending = world.ask("crm:1", TouchState.RESERVED)
    merge(world)
    assert world.touch(pending).state == TouchState.RESERVED


def test_a_message_that_is_leaving_is_left_to_its_outcome(world: World) -> None:
    leaving = world.ask("crm:2", TouchState.RESERVED)
    with world.store.write() as tx:
        tx.execute(schema.deliveries.update().values(state="sending"))
    merge(world)
    assert (world.touch(leaving).state, world.message(leaving)) == (TouchState.RESERVED, "sending")


def test_a_person_asked_twice_in_one_wave_by_a_merge_has_one_standing_ask_in_it(world: World) -> None:
    first = world.ask("crm:2", days_ago=3, wave_id=world.wave)
    second = world.ask("crm:1", days_ago=2, wave_id=world.wave)
    merge(world)
    assert world.touch(first).wave_id == world.wave
    assert world.touch(second).wave_id is None
    assert world.touch(second).person_id == world.person("crm:1"), "it counts for the clocks all the same"


def test_the_24_h_floor_of_either_record_holds_after_a_merge(world: World) -> None:
    with world.store.write() as tx:
        tx.execute(
            schema.message_guard.insert().values(identity_id=world.record("crm:2").id, last_message_at=world.now)
        )
    merge(world)
    guards = {row.identity_id: row.last_message_at for row in world.rows(schema.message_guard.select())}
    assert guards[world.record("crm:1").id] == world.now


def test_a_merge_told_again_changes_nothing(world: World) -> None:
    world.ask("crm:2", days_ago=100)
    merge(world)
    before = world.contents("bookmarks")
    assert world.crm.contacts.keys() == {"1"}
    world.crm.tell(MERGED, first=True)
    assert world.sync().done == 0
    assert world.contents("bookmarks") == before


def test_a_merge_that_arrives_late_is_the_same_as_one_in_time(world: World) -> None:
    asked = world.ask("crm:2", days_ago=100)
    world.clock.advance(days=2)
    world.crm.change("1", first_name="Augusta")
    world.sync()
    world.crm.whole = False
    world.crm.tell(MERGED)
    del world.crm.contacts["2"]
    world.sync()
    assert world.people() == [{"crm:1"}]
    assert world.touch(asked).person_id == world.person("crm:1")


def test_a_merge_told_before_the_winner_was_read_keeps_clocks_and_record(world: World) -> None:
    asked = world.ask("crm:2", days_ago=100)
    world.crm.whole = False
    world.crm.tell(ContactMerged("9", ("2", "1")), first=True)
    world.crm.contacts.clear()
    world.crm.put("9", ADA, first_name="Ada")
    world.sync()
    assert world.people() == [{"crm:9"}]
    assert world.touch(asked).person_id == world.person("crm:9")
    assert world.record("crm:9").email == ADA


def test_a_merge_of_records_nobody_knows_is_no_news(world: World) -> None:
    world.crm.tell(ContactMerged("8", ("9",)))
    assert world.sync().done == 0


def test_three_records_merged_one_after_the_other_are_one_person(world: World) -> None:
    world.crm.put("3", BO)
    world.sync()
    asked = world.ask("crm:3", days_ago=5)
    world.crm.whole = False
    world.crm.tell(ContactMerged("2", ("3",)), first=True)
    world.crm.tell(ContactMerged("1", ("2",)), first=True)
    del world.crm.contacts["2"], world.crm.contacts["3"]
    world.sync()
    assert world.people() == [{"crm:1"}]
    assert world.touch(asked).person_id == world.person("crm:1")


# --- undone ---------------------------------------------------------------------------------------------------------


def test_a_merge_undone_gives_touches_back_to_their_records(world: World) -> None:
    first, second = world.ask("crm:1", days_ago=200), world.ask("crm:2", days_ago=100)
    merge(world)
    world.crm.put("2", "ada@home.example", first_name="Ada")
    world.sync()
    assert world.people() == [{"crm:1"}, {"crm:2"}]
    assert world.touch(first).person_id == world.person("crm:1")
    assert world.touch(second).person_id == world.person("crm:2")


def test_after_an_undone_merge_quarantine_stays_at_its_strictest(world: World) -> None:
    world.ask("crm:1", TouchState.SILENT, days_ago=200)
    asked = world.touch(world.ask("crm:2", days_ago=10)).asked_at
    merge(world)
    world.crm.put("2", "ada@home.example", first_name="Ada")
    world.sync()
    for name in ("crm:1", "crm:2"):
        assert world.person_row(name).quarantine_until == asked + 90 * DAY_MS
    world.clock.advance(days=30)
    world.crm.change("1", first_name="Augusta")
    world.sync()
    assert world.person_row("crm:1").quarantine_until == asked + 90 * DAY_MS, "until a human says otherwise"


def test_an_opt_out_stays_with_both_after_an_undone_merge(world: World) -> None:
    merge(world)
    with world.change() as tx:
        opt_out(tx, world.person("crm:1"), "link", world.now)
    world.crm.put("2", "ada@home.example", first_name="Ada")
    world.sync()
    assert world.person_row("crm:1").opted_out_at == world.person_row("crm:2").opted_out_at == world.now


def test_a_merge_undone_gives_touches_back_even_if_it_was_told_before_the_winner_was_read(world: World) -> None:
    asked = world.ask("crm:2", days_ago=100)
    world.crm.whole = False
    world.crm.tell(ContactMerged("9", ("2",)), first=True)
    del world.crm.contacts["2"]
    world.crm.put("9", BO, first_name="Ada")
    world.sync()
    assert world.people() == [{"crm:1"}, {"crm:9"}]
    assert world.touch(asked).person_id == world.person("crm:9")
    assert "crm:9" in world.behind()
    world.crm.put("2", "ada@home.example", first_name="Ada")
    world.sync()
    assert world.touch(asked).person_id == world.person("crm:2") != world.person("crm:9")


def test_an_opt_out_that_comes_with_an_undone_merge_is_of_the_record_restored(world: World) -> None:
    mine, theirs = world.ask("crm:1", days_ago=1), world.ask("crm:2", days_ago=1)
    merge(world)
    world.crm.put("2", "ada@home.example", first_name="Ada", opted_out=True)
    world.sync()
    assert world.person_row("crm:2").source_opted_out
    assert not world.person_row("crm:1").source_opted_out
    assert (world.touch(mine).state, world.touch(theirs).state) == (TouchState.HANDED_OVER, TouchState.DECLINED)


def test_a_record_deleted_and_restored_is_the_same_person(world: World) -> None:
    """One of two records of a person: its row stays for what was sent from it."""
    world.hub.put("7", ADA)
    world.sync()
    asked = world.ask("hub:7", days_ago=10)
    before = world.person("crm:1")
    world.hub.remove("7")
    world.sync()
    assert world.touch(asked).person_id == before
    assert world.record("hub:7").email is None, "what is gone is not kept"
    world.hub.put("7", ADA)
    world.sync()
    assert world.person("hub:7") == before
    assert world.record("hub:7").gone_at is None
    assert world.asked_days("hub:7") == world.asked_days("crm:1")


# --- splitting a wrong link -----------------------------------------------------------------------------------------


@pytest.fixture
def wrong(world: World) -> World:
    """`crm:1` and `hub:7` were taken for one person."""
    world.hub.put("7", ADA)
    world.sync()
    return world


def test_a_wrong_link_is_split_and_touches_follow_the_record_they_were_sent_from(wrong: World) -> None:
    here, there = wrong.ask("crm:1", days_ago=200), wrong.ask("hub:7", days_ago=100)
    with wrong.change() as tx:
        split(tx, wrong.record("hub:7").id, wrong.now, actor="admin")
    assert wrong.touch(here).person_id == wrong.person("crm:1") != wrong.person("hub:7") == wrong.touch(there).person_id
    assert wrong.behind() == {"crm:1", "hub:7"}


def test_a_split_record_takes_those_with_it_that_were_merged_into_it(wrong: World) -> None:
    """And no others: `crm:1` is split off, and what its source merged into it was always the same contact."""
    wrong.crm.put("3", BO)
    wrong.sync()
    third, second, hub = wrong.ask("crm:3", days_ago=300), wrong.ask("crm:2", days_ago=200), wrong.ask("hub:7")
    wrong.crm.tell(ContactMerged("2", ("3",)), first=True)
    del wrong.crm.contacts["3"]
    merge(wrong)
    with wrong.change() as tx:
        split(tx, wrong.record("crm:1").id, wrong.now, actor="admin")
    assert [row.id for row in wrong.touches("crm:1")] == [third, second]
    assert [row.id for row in wrong.touches("hub:7")] == [hub]


def test_a_split_is_written_down_with_who_did_it(wrong: World) -> None:
    with wrong.change() as tx:
        split(tx, wrong.record("hub:7").id, wrong.now, actor="admin")
    (note,) = wrong.rows(schema.audit.select())
    assert (note.actor, note.action) == ("admin", "people.split")


def test_after_a_split_each_has_its_own_place_in_the_wave_again(wrong: World) -> None:
    with wrong.change() as tx:
        split(tx, wrong.record("hub:7").id, wrong.now)
    first = wrong.ask("crm:1", days_ago=3, wave_id=wrong.wave)
    second = wrong.ask("hub:7", days_ago=2, wave_id=wrong.wave)
    with wrong.change() as tx:
        keep = link(tx, wrong.person("crm:1"), wrong.person("hub:7"), wrong.now)
    assert wrong.touch(second).wave_id is None
    assert wrong.person("hub:7") == keep
    with wrong.change() as tx:
        split(tx, wrong.record("hub:7").id, wrong.now)
    assert [wrong.touch(one).wave_id for one in (first, second)] == [wrong.wave, wrong.wave]


def test_a_person_of_one_record_stays_as_it_is(world: World) -> None:
    before = world.contents()
    with world.change() as tx:
        assert split(tx, world.record("crm:1").id, world.now) == world.person("crm:1")
    assert world.contents() == before


def test_a_record_that_is_not_there_cannot_be_split(wrong: World) -> None:
    with pytest.raises(NotFound, match="no record 999"), wrong.change() as tx:
        split(tx, 999, wrong.now)


# --- linking by hand ------------------------------------------------------------------------------------------------


def test_linking_twice_changes_nothing(world: World) -> None:
    ada, bo = world.person("crm:1"), world.person("crm:2")
    with world.change() as tx:
        assert link(tx, ada, bo, world.now) == ada
    before = world.contents()
    with world.change() as tx:
        assert link(tx, ada, bo, world.now) == ada
        assert link(tx, ada, ada, world.now) == ada
    assert world.contents() == before


def test_nobody_can_be_linked_to_a_person_who_is_not_there(world: World) -> None:
    with pytest.raises(NotFound, match="no person 999"), world.change() as tx:
        link(tx, 999, world.person("crm:1"), world.now)


def test_answers_and_follow_ups_move_with_the_person(world: World) -> None:
    other = world.person("crm:2")
    with world.store.write() as tx:
        tx.execute(
            schema.responses.insert().values(
                id=1, campaign_id=world.campaign, person_id=other, identity_id=world.record("crm:2").id, score=3,
                verdict="confirmed", signals=[], answered_at=world.now,
            )
        )  # fmt: skip
        tx.execute(
            schema.follow_ups.insert().values(
                public_id="f", response_id=1, person_id=other, state="open", created_at=0, changed_at=0
            )
        )
    with world.change() as tx:
        keep = link(tx, world.person("crm:1"), other, world.now)
    assert [row.person_id for row in world.rows(schema.responses.select())] == [keep]
    assert [row.person_id for row in world.rows(schema.follow_ups.select())] == [keep]
    with world.change() as tx:
        new = split(tx, world.record("crm:2").id, world.now)
    assert [row.person_id for row in world.rows(schema.responses.select())] == [new]
    assert [row.person_id for row in world.rows(schema.follow_ups.select())] == [new]


def test_a_returned_and_an_answered_ask_of_one_wave_do_not_stand_in_each_others_way(world: World) -> None:
    with world.store.write() as tx:
        wave = add_wave(tx, world.campaign, 2)
        for name, state in (("crm:1", TouchState.RETURNED), ("crm:2", TouchState.ANSWERED)):
            add_touch(tx, world.person(name), state, world.now, identity_id=world.record(name).id, wave_id=wave)
    with world.change() as tx:
        link(tx, world.person("crm:1"), world.person("crm:2"), world.now)
    assert [row.wave_id for row in world.touches("crm:1")] == [wave, wave]
