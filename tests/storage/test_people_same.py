"""Which records are one person: over two sources, within one, and behind a shared mailbox."""

from __future__ import annotations

import pytest

from core.clock import FixedClock
from core.ports import ContactDeleted
from core.storage import schema
from core.storage.deliveries import request_write_back
from core.storage.people_links import split
from core.storage.store import Store
from core.touches import TouchState
from tests.sources import DATE, World

ADA = "ada@acme.example"


@pytest.fixture
def world(store: Store, clock: FixedClock) -> World:
    return World(store, clock)


# --- over two sources -----------------------------------------------------------------------------------------------


def test_one_address_in_two_sources_is_one_person(world: World) -> None:
    world.crm.put("1", ADA, first_name="Ada")
    world.hub.put("7", "Ada@ACME.example", first_name="Augusta")
    world.sync()
    assert world.people() == [{"crm:1", "hub:7"}]


def test_both_sources_receive_the_same_date(world: World) -> None:
    world.crm.put("1", ADA)
    world.hub.put("7", ADA)
    world.sync()
    world.ask("hub:7", days_ago=3)
    with world.change() as tx:
        request_write_back(tx, [world.person("crm:1")], world.now)
    assert world.push().done == 2
    assert world.crm.contacts["1"].last_surveyed_at == world.hub.contacts["7"].last_surveyed_at == "2026-11-28"


def test_a_person_of_two_sources_has_one_clock(world: World) -> None:
    world.crm.put("1", ADA)
    world.sync()
    world.ask("crm:1", days_ago=3)
    world.hub.put("7", ADA)
    world.sync()
    assert world.asked_days("hub:7") == world.asked_days("crm:1") != []
    assert world.behind() == {"crm:1", "hub:7"}, "the second source is to show the date as well"


def test_the_history_of_both_sources_is_one_ledger(world: World) -> None:
    world.crm.put("1", ADA, last_surveyed_at="2026-05-04")
    world.hub.put("7", ADA, last_surveyed_at="2026-08-20")
    world.sync()
    assert world.asked_days("crm:1") == ["2026-05-04", "2026-08-20"]
    world.push()
    assert world.crm.contacts["1"].last_surveyed_at == world.hub.contacts["7"].last_surveyed_at == "2026-08-20"


def test_a_person_known_before_is_linked_by_a_new_record_of_another_source(world: World) -> None:
    world.crm.put("1", ADA)
    world.crm.put("2", "bo@acme.example")
    world.sync()
    before = world.person("crm:1")
    world.hub.put("7", ADA)
    world.sync()
    assert world.people() == [{"crm:1", "hub:7"}, {"crm:2"}]
    assert world.person("hub:7") == before


def test_an_opt_out_in_either_source_holds_for_the_person(world: World) -> None:
    world.crm.put("1", ADA)
    world.sync()
    reserved = world.ask("crm:1", TouchState.RESERVED)
    world.hub.put("7", ADA, opted_out=True)
    world.sync()
    assert world.person_row("crm:1").source_opted_out
    assert world.touch(reserved).state == TouchState.RETURNED


def test_of_two_holds_the_later_counts(world: World) -> None:
    world.crm.put("1", ADA, hold_until="2027-03-31")
    world.hub.put("7", ADA, hold_until="2027-01-31")
    world.sync()
    assert world.person_row("hub:7").hold_until == world.record("crm:1").hold_until
    world.crm.change("1", hold_until=None)
    world.sync()
    assert world.person_row("hub:7").hold_until == world.record("hub:7").hold_until is not None


def test_an_address_of_several_people_in_one_source_links_nobody_of_another(world: World) -> None:
    world.crm.put("1", "office7@acme.example", first_name="Ada", last_name="Lovelace")
    world.crm.put("2", "office7@acme.example", first_name="Bo", last_name="Martin")
    world.hub.put("7", "office7@acme.example", first_name="Ada", last_name="Lovelace")
    world.sync()
    assert len(world.people()) == 3
    (candidate,) = world.rows(schema.link_candidates.select())
    assert {candidate.identity_id, candidate.other_identity_id} == {world.record("crm:1").id, world.record("hub:7").id}
    assert candidate.state == "open", "a human says whether they are one"


def test_a_wrong_link_that_was_split_is_not_made_again(world: World) -> None:
    world.crm.put("1", ADA)
    world.hub.put("7", ADA)
    world.sync()
    with world.change() as tx:
        split(tx, world.record("hub:7").id, world.now, actor="admin")
    world.hub.change("7", first_name="Adam")
    world.crm.change("1", first_name="Ada")
    world.sync()
    assert world.people() == [{"crm:1"}, {"hub:7"}]


def test_those_kept_apart_stay_so_when_a_third_record_joins(world: World) -> None:
    world.crm.put("1", ADA)
    world.hub.put("7", ADA)
    world.sync()
    with world.change() as tx:
        split(tx, world.record("hub:7").id, world.now)
    world.crm.put("2", ADA)
    world.sync()
    assert world.people() == [{"crm:1", "crm:2"}, {"hub:7"}]


# --- within one source ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("Zoé", "Martin"), ("ZOE", "MARTIN")),
        (("Zoé", "Martin"), ("Martin", "Zoé")),
        (("Jean-Luc", "Picard"), ("Jean Luc", "Picard")),
        (("Zoé", "Martin"), (None, None)),
    ],
)
def test_the_same_name_on_one_address_is_a_duplicate_and_one_person(
    world: World, one: tuple[str | None, str | None], other: tuple[str | None, str | None]
) -> None:
    world.crm.put("1", ADA, first_name=one[0], last_name=one[1])
    world.crm.put("2", ADA, first_name=other[0], last_name=other[1])
    world.sync()
    assert world.people() == [{"crm:1", "crm:2"}]
    assert not world.record("crm:1").shared
    assert (world.record("crm:1").is_primary, world.record("crm:2").is_primary) == (True, False), "asked once"


def test_differing_names_on_one_address_are_two_people_and_a_shared_mailbox(world: World) -> None:
    world.crm.put("1", ADA, first_name="Ada", last_name="Lovelace")
    world.crm.put("2", ADA, first_name="Bo", last_name="Martin")
    world.sync()
    assert world.people() == [{"crm:1"}, {"crm:2"}]
    assert world.record("crm:1").shared
    assert world.record("crm:2").shared


def test_a_role_address_is_a_shared_mailbox_even_of_one_record(world: World) -> None:
    world.crm.put("1", "Comptabilite+factures@acme.example", first_name="Ada")
    world.sync()
    assert world.record("crm:1").shared
    world.crm.put("2", "comptabilite@acme.example", first_name="Ada")
    world.sync()
    assert world.people() == [{"crm:1"}, {"crm:2"}], "nobody is linked by the address of an office"


def test_a_mailbox_is_one_persons_again_when_the_others_have_left(world: World) -> None:
    for number, name in enumerate(("Ada", "Bo", "Cleo", "Dot", "Eve", "Fay")):
        world.crm.put(str(number), ADA if number < 2 else f"{name}@acme.example", first_name=name)
    world.sync()
    assert world.record("crm:0").shared
    world.crm.remove("1")
    world.sync()
    assert not world.record("crm:0").shared


def test_a_mailbox_is_one_persons_again_when_the_source_says_the_other_is_gone(world: World) -> None:
    world.crm.put("1", ADA, first_name="Ada")
    world.crm.put("2", ADA, first_name="Bo")
    world.sync()
    world.crm.whole = False
    world.crm.tell(ContactDeleted("2"))
    del world.crm.contacts["2"]
    world.sync()
    assert not world.record("crm:1").shared


def test_a_mailbox_is_one_persons_again_when_the_other_has_a_new_address(world: World) -> None:
    world.crm.put("1", ADA, first_name="Ada")
    world.crm.put("2", ADA, first_name="Bo")
    world.sync()
    world.crm.change("2", email="bo@acme.example")
    world.sync()
    assert not world.record("crm:1").shared
    assert not world.record("crm:2").shared


# --- what is one address --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other", ["Qwerty@acme.example", "qwerty@ACME.example", "qwerty+shop@acme.example", "ｑwerty@acme.example"]
)
def test_case_unicode_forms_and_plus_tags_are_one_for_quarantine(world: World, other: str) -> None:
    world.crm.put("1", "qwerty@acme.example")
    world.crm.put("2", other)
    world.sync()
    assert world.people() == [{"crm:1", "crm:2"}]


def test_a_plus_tag_is_kept_for_sending(world: World) -> None:
    world.crm.put("1", "qwerty+shop@acme.example")
    world.sync()
    assert world.record("crm:1").email == "qwerty+shop@acme.example"


def test_dots_are_never_stripped(world: World) -> None:
    world.crm.put("1", "ada.lovelace@acme.example")
    world.crm.put("2", "adalovelace@acme.example")
    world.sync()
    assert world.people() == [{"crm:1"}, {"crm:2"}]


def test_records_without_a_usable_address_are_people_of_their_own(world: World) -> None:
    world.crm.put("1", None, first_name="Ada")
    world.crm.put("2", "no address", first_name="Ada")
    world.crm.put("3", None, first_name="Ada")
    world.sync()
    assert world.people() == [{"crm:1"}, {"crm:2"}, {"crm:3"}]
    assert world.record("crm:2").email is None


# --- many at once ---------------------------------------------------------------------------------------------------


def test_a_second_source_of_thousands_is_linked_one_by_one(world: World) -> None:
    for number in range(1500):
        world.crm.put(
            str(number), f"c{number}@acme.example", last_surveyed_at="2026-06-01" if number % 3 == 0 else None
        )
        world.hub.put(f"h{number}", f"c{number + 500}@acme.example", opted_out=number == 10)
    world.sync()
    people = world.people()
    assert len(people) == 2000
    assert sum(len(records) == 2 for records in people) == 1000
    assert world.person_row("crm:510").source_opted_out
    assert world.asked_days("hub:h100") == world.asked_days("crm:600") == ["2026-06-01"]
    assert {"crm:600", "hub:h100"} <= world.behind(), "the second source has not heard of the date"
    assert "crm:3" not in world.behind(), "a source shows its own history already"
    world.push()
    assert world.hub.contacts["h100"].last_surveyed_at == "2026-06-01"
    assert DATE not in world.hub.contacts["h101"].nps
