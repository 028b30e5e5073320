"""People who are gone: a tombstone keeps clocks and opt-out without keeping the person, until they come back."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac

import pytest

from core.clock import DAY_MS, FixedClock
from core.contacts import address_hash
from core.storage import schema
from core.storage.people import opt_out
from core.storage.people_gone import delete_records, erase_people, too_many
from core.storage.people_links import split
from core.storage.store import Store
from core.touches import TouchState
from tests.sources import World
from tests.world import PEPPER

ADA, BO, CLEO = "ada@acme.example", "bo@acme.example", "cleo@acme.example"


@pytest.fixture
def world(store: Store, clock: FixedClock) -> World:
    world = World(store, clock)
    world.crm.put("1", ADA, first_name="Ada", last_name="Lovelace", company="Acme", phone="+44", attributes={"a": "b"})
    world.crm.put("2", BO)
    world.sync()
    world.crm.whole = False
    return world


def delete(world: World, name: str = "crm:1") -> None:
    with world.change() as tx:
        delete_records(tx, [world.record(name).id], world.now)


def come_back(world: World, external_id: str = "9", email: str = ADA) -> str:
    """A new record with the address; returns its name."""
    world.crm.contacts.pop("1", None)
    world.crm.put(external_id, email)
    world.sync()
    return f"crm:{external_id}"


# --- deleted and re-created -----------------------------------------------------------------------------------------


def test_who_is_deleted_and_recreated_under_a_new_id_keeps_the_clocks(world: World) -> None:
    asked = world.ask("crm:1", days_ago=10)
    delete(world)
    assert world.touch(asked).person_id is None
    name = come_back(world, email="Ada+again@ACME.example")
    assert [row.id for row in world.touches(name)] == [asked]
    assert world.touch(asked).identity_id == world.record(name).id
    assert world.behind() == {name}, "the new record is to show the date"


def test_who_opted_out_and_comes_back_is_opted_out(world: World) -> None:
    with world.change() as tx:
        opt_out(tx, world.person("crm:1"), "link", world.now - DAY_MS)
    delete(world)
    name = come_back(world)
    assert world.person_row(name).opted_out_at == world.now - DAY_MS
    assert world.person_row(name).opted_out_by == "tombstone"


def test_an_opt_out_that_only_the_source_knew_is_kept_as_well(world: World) -> None:
    world.crm.change("1", opted_out=True)
    world.sync()
    delete(world)
    assert world.person_row(come_back(world)).opted_out_at == world.now


def test_the_24_h_floor_is_kept(world: World) -> None:
    with world.store.write() as tx:
        guard = {"identity_id": world.record("crm:1").id, "last_message_at": world.now - 5}
        tx.execute(schema.message_guard.insert().values(guard))
    delete(world)
    name = come_back(world)
    (row,) = world.rows(schema.message_guard.select())
    assert (row.identity_id, row.last_message_at) == (world.record(name).id, world.now - 5)


def test_a_quarantine_kept_after_a_split_is_kept(world: World) -> None:
    world.hub.put("7", ADA)
    world.sync()
    asked = world.touch(world.ask("hub:7", days_ago=10)).asked_at
    with world.change() as tx:
        split(tx, world.record("crm:1").id, world.now)
    delete(world)
    assert world.person_row(come_back(world)).quarantine_until == asked + 90 * DAY_MS


def test_clocks_of_a_former_address_are_kept(world: World) -> None:
    """She was asked at an address she had before: nothing but the tombstone joins the two."""
    asked = world.touch(world.ask("crm:1", days_ago=10)).asked_at
    world.crm.change("1", email="ada@new.example")
    world.sync()
    delete(world)
    name = come_back(world, email="ada@new.example")
    assert world.person_row(name).quarantine_until == asked + 90 * DAY_MS


def test_an_ask_imported_before_the_address_was_known_is_kept(world: World) -> None:
    world.crm.put("3", None, last_surveyed_at="2026-11-01")
    world.sync()
    assert world.touches("crm:3")[0].address_hash is None
    world.crm.change("3", email=CLEO)
    world.sync()
    delete(world, "crm:3")
    world.crm.contacts.pop("3")
    assert world.asked_days(come_back(world, email=CLEO)) == ["2026-11-01"]


def test_somebody_else_with_another_address_inherits_nothing(world: World) -> None:
    world.ask("crm:1", days_ago=10)
    delete(world)
    assert world.touches(come_back(world, email=CLEO)) == []


def test_a_known_person_who_takes_the_address_of_somebody_deleted_inherits(world: World) -> None:
    asked = world.ask("crm:1", days_ago=10)
    delete(world)
    world.crm.contacts.pop("1")
    world.crm.change("2", email=ADA)
    world.sync()
    assert [row.id for row in world.touches("crm:2")] == [asked]


def test_a_pending_reservation_of_the_heir_of_an_opt_out_is_returned(world: World) -> None:
    with world.change() as tx:
        opt_out(tx, world.person("crm:1"), "link", world.now)
    delete(world)
    world.crm.contacts.pop("1")
    pending = world.ask("crm:2", TouchState.RESERVED)
    world.crm.change("2", email=ADA)
    world.sync()
    assert world.touch(pending).state == TouchState.RETURNED


def test_asked_once_in_a_wave_before_and_after_a_deletion(world: World) -> None:
    first = world.ask("crm:1", days_ago=2, wave_id=world.wave)
    delete(world)
    name = come_back(world)
    with world.store.read() as tx:
        assert tx.execute(schema.touches.select().where(schema.touches.c.id == first)).one().wave_id == world.wave
    assert world.touches(name)[0].wave_id == world.wave


def test_deleted_twice_keeps_the_strictest_of_both(world: World) -> None:
    with world.change() as tx:
        opt_out(tx, world.person("crm:1"), "link", world.now)
    delete(world)
    first = world.now
    world.clock.advance(days=3)
    name = come_back(world)
    delete(world, name)
    (stone,) = world.rows(schema.tombstones.select())
    assert stone.opted_out_at == first


def test_a_pending_reservation_to_a_deleted_record_is_returned(world: World) -> None:
    pending = world.ask("crm:1", TouchState.RESERVED)
    delete(world)
    assert (world.touch(pending).state, world.message(pending)) == (TouchState.RETURNED, "cancelled")


# --- what is kept ---------------------------------------------------------------------------------------------------


def test_nothing_of_a_deleted_person_is_kept_in_words(world: World) -> None:
    world.ask("crm:1", days_ago=10)
    delete(world)
    for table, rows in world.contents().items():
        for secret in ("ada@", "Lovelace", "+44"):
            assert not any(secret in row for row in rows), f"{secret} stands in {table}"


def test_tombstones_hang_on_an_hmac_of_the_address_under_the_pepper(world: World) -> None:
    delete(world)
    (stone,) = world.rows(schema.tombstones.select())
    assert stone.address_hash == hmac.new(PEPPER, ADA.encode(), hashlib.sha256).digest()[:16]
    assert stone.address_hash == address_hash(PEPPER, " Ada@Acme.example".strip())
    assert stone.address_hash != hashlib.sha256(ADA.encode()).digest()[:16]


def test_under_another_pepper_nobody_would_be_recognised(world: World) -> None:
    """Why the pepper is never rotated: what was hashed is gone and cannot be hashed again."""
    world.ask("crm:1", days_ago=10)
    delete(world)
    world.context = dataclasses.replace(world.context, pepper=bytes(32))
    assert world.touches(come_back(world)) == []


def test_a_person_with_another_record_stays_and_keeps_everything(world: World) -> None:
    world.hub.put("7", ADA)
    world.sync()
    person, asked = world.person("crm:1"), world.ask("crm:1", days_ago=10)
    delete(world)
    assert world.count(schema.tombstones) == 0
    assert (world.touch(asked).person_id, world.touch(asked).identity_id) == (person, world.record("crm:1").id)
    assert world.record("crm:1").first_name is None
    assert world.record("hub:7").is_primary


def test_of_two_records_of_one_source_the_other_is_asked_when_one_is_gone(world: World) -> None:
    world.crm.put("3", ADA, first_name="Ada", last_name="Lovelace")
    world.sync()
    assert not world.record("crm:3").is_primary
    delete(world)
    assert world.record("crm:3").is_primary


def test_an_opt_out_of_a_record_that_is_gone_goes_with_it_but_ones_own_stays(world: World) -> None:
    world.hub.put("7", ADA, opted_out=True)
    world.sync()
    assert world.person_row("crm:1").source_opted_out
    delete(world, "hub:7")
    assert not world.person_row("crm:1").source_opted_out


def test_waiting_write_backs_of_a_deleted_record_are_dropped(world: World) -> None:
    world.crm.change("1", last_surveyed_at="2026-11-01")
    world.sync()
    assert world.behind() == {"crm:1"}
    delete(world)
    assert world.behind() == set()
    assert world.push().failed == 0


# --- erased at their request ----------------------------------------------------------------------------------------


def test_who_was_erased_and_is_still_shown_by_a_source_is_not_asked(world: World) -> None:
    world.ask("crm:1", days_ago=10, detail="ada@acme.example: mailbox full")
    with world.change() as tx:
        number = erase_people(tx, [world.person("crm:1")], ADA, address_hash(PEPPER, ADA), world.now, "admin")
    assert number == 1
    (stone,) = world.rows(schema.tombstones.select())
    assert stone.erased
    assert stone.opted_out_at == world.now
    assert not any("ada@" in row.lower() for rows in world.contents().values() for row in rows)
    world.crm.change("1", first_name="Ada")
    world.sync()
    assert world.person_row("crm:1").opted_out_at == world.now


# --- how many may vanish --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vanished", "known", "wrong"), [(1, 1, False), (1, 3, False), (2, 3, True), (20, 100, False), (21, 100, True)]
)
def test_a_fifth_may_vanish_and_of_very_few_one(vanished: int, known: int, wrong: bool) -> None:
    assert too_many(vanished, known) is wrong
