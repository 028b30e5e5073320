"""Which records are one person: over several sources, in shared mailboxes, and after somebody was wrong."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from sqlalchemy import select

from core.clock import DAY_MS, FixedClock
from core.ports import ContactDeleted, ContactMerged
from core.storage import schema
from core.storage.people_links import link, split
from core.storage.store import Store
from core.touches import TouchState
from tests.shown import Shown, contact, hashed

ADA = "ada@acme.example"


@pytest.fixture
def shown(store: Store, clock: FixedClock) -> Shown:
    return Shown(store, clock)


def same(shown: Shown, one: tuple[int, str], other: tuple[int, str]) -> bool:
    return bool(shown.person(*one).id == shown.person(*other).id)


# --- over several sources -------------------------------------------------------------------------------------------


def test_same_address_in_two_sources_is_one_person_with_one_clock(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", ADA, "Ada Lovelace"))
    touch = shown.ask(shown.crm, "1", TouchState.HANDED_OVER)
    shown.show(shown.hub, contact("A", ADA, "Ada King"))
    assert same(shown, (shown.crm, "1"), (shown.hub, "A"))
    assert [row.id for row in shown.touches(shown.hub, "A")] == [touch]
    assert shown.count(schema.people) == 1
    assert shown.wanted(shown.hub, "A") == 1  # both sources are to show the date


def test_one_person_is_asked_through_one_record_of_each_source(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", ADA, "Ada"), contact("2", ADA, "Ada"))
    shown.show(shown.hub, contact("A", ADA, "Ada"))
    primary = [shown.record(*one).is_primary for one in ((shown.crm, "1"), (shown.crm, "2"), (shown.hub, "A"))]
    assert primary == [True, False, True]


@pytest.mark.parametrize(
    ("email", "linked"),
    [
        ("ADA@Acme.Example", True),
        ("ada+news@acme.example", True),
        ("a.da@acme.example", False),  # dots mean something to most providers
        ("ada@acme.test", False),
    ],
)
def test_case_and_plus_tags_are_folded_and_dots_are_not(shown: Shown, email: str, linked: bool) -> None:
    shown.show(shown.crm, contact("1", ADA, "Ada"))
    shown.show(shown.hub, contact("A", email, "Ada"))
    assert same(shown, (shown.crm, "1"), (shown.hub, "A")) is linked
    assert shown.record(shown.hub, "A").email == email  # sending keeps what was written


def test_without_a_usable_address_nobody_is_linked(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", "ada at acme", "Ada"), contact("2", None, "Ada"))
    shown.show(shown.hub, contact("A", "ada at acme", "Ada"))
    assert shown.count(schema.people) == 3
    assert shown.record(shown.crm, "1").email is None


def test_the_order_in_which_sources_are_read_does_not_matter(shown: Shown) -> None:
    shown.show(shown.hub, contact("A", ADA, "Ada"))
    shown.show(shown.crm, contact("1", ADA, "Ada"), contact("2", "bo@acme.example", "Bo"))
    shown.show(shown.hub, contact("B", "bo@acme.example", "Bo"))
    assert same(shown, (shown.crm, "1"), (shown.hub, "A"))
    assert same(shown, (shown.crm, "2"), (shown.hub, "B"))
    assert shown.count(schema.people) == 2


def test_record_that_gets_the_address_of_another_source_is_linked(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", ADA, "Ada"))
    shown.show(shown.hub, contact("A", None, "Ada"))
    touch = shown.ask(shown.hub, "A", TouchState.HANDED_OVER)
    shown.show(shown.hub, contact("A", ADA, "Ada"))
    assert same(shown, (shown.crm, "1"), (shown.hub, "A"))
    assert [row.id for row in shown.touches(shown.crm, "1")] == [touch]
    assert shown.touch(touch).identity_id == shown.record(shown.hub, "A").id  # the record it was sent from


def test_two_pending_invitations_of_one_person_become_one(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", ADA, "Ada"))
    shown.show(shown.hub, contact("A", None, "Ada"))
    first = shown.ask(shown.crm, "1", TouchState.RESERVED)
    second = shown.ask(shown.hub, "A", TouchState.RESERVED)
    shown.show(shown.hub, contact("A", ADA, "Ada"))
    assert shown.touch(first).state == "reserved"
    assert (shown.touch(second).state, shown.touch(second).reason) == ("returned", "cancelled")
    assert shown.one(select(schema.deliveries.c.state).where(schema.deliveries.c.touch_id == second)) == ("cancelled",)


def test_opt_out_in_either_source_is_one_of_the_person(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", ADA, "Ada"), contact("2", "bo@acme.example", "Bo"))
    waiting = shown.ask(shown.crm, "1", TouchState.RESERVED)
    asked = shown.ask(shown.crm, "2", TouchState.HANDED_OVER)
    shown.show(shown.hub, contact("A", ADA, opted_out=True), contact("B", "bo@acme.example", opted_out=True))
    assert shown.person(shown.crm, "1").source_opted_out
    assert shown.touch(waiting).state == "returned"
    assert shown.touch(asked).state == "declined"


def test_many_people_of_two_sources_are_linked_in_a_moment(shown: Shown) -> None:
    number = 1000
    shown.show(shown.crm, *(contact(f"{i}", f"p{i}@acme.example", f"P{i} Q") for i in range(number)))
    started = time.process_time()
    shown.show(shown.hub, *(contact(f"{i}", f"p{i}@acme.example", f"P{i} Q") for i in range(number)))
    assert shown.count(schema.people) == number
    assert time.process_time() - started < 1.5  # one by one they take three times that, under the lock


# --- shared mailboxes -----------------------------------------------------------------------------------------------


def test_differing_names_on_one_address_share_a_mailbox_and_are_not_linked(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", "team.x@acme.example", "Ada L"), contact("2", "team.x@acme.example", "Bo M"))
    assert shown.count(schema.people) == 2
    assert shown.record(shown.crm, "1").shared and shown.record(shown.crm, "2").shared


def test_role_address_is_shared_even_if_one_record_has_it(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", "info@acme.example", "Ada"), contact("2", "compta2+a.b@acme.example", "Bo"))
    assert shown.record(shown.crm, "1").shared and shown.record(shown.crm, "2").shared


def test_role_address_in_two_sources_is_not_linked(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", "info@acme.example", "Ada"))
    shown.show(shown.hub, contact("A", "info@acme.example", "Bo"))
    assert not same(shown, (shown.crm, "1"), (shown.hub, "A"))


@pytest.mark.parametrize("name", ["Zoé Faure", "FAURE Zoe", "", "zoe-faure"])
def test_same_name_on_one_address_is_a_duplicate_and_one_person(shown: Shown, name: str) -> None:
    shown.show(shown.crm, contact("1", ADA, "Zoé Faure"), contact("2", ADA, name))
    assert same(shown, (shown.crm, "1"), (shown.crm, "2"))
    assert not shown.record(shown.crm, "1").shared


def test_third_name_makes_an_address_shared_and_leaves_a_linked_pair_linked(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", ADA, "Ada"))
    shown.show(shown.hub, contact("A", ADA, "Ada"))
    shown.show(shown.crm, contact("2", ADA, "Bo"))
    assert same(shown, (shown.crm, "1"), (shown.hub, "A"))
    assert not same(shown, (shown.crm, "1"), (shown.crm, "2"))
    assert all(shown.record(*one).shared for one in ((shown.crm, "1"), (shown.hub, "A"), (shown.crm, "2")))


Leaving = Callable[[Shown], object]


def _deleted(shown: Shown) -> None:
    shown.show(shown.crm, ContactDeleted("2"))


def _readdressed(shown: Shown) -> None:
    shown.show(shown.crm, contact("2", "bo@acme.example", "Bo"))


def _renamed(shown: Shown) -> None:
    shown.show(shown.crm, contact("2", ADA, "Ada"))


def _merged(shown: Shown) -> None:
    shown.show(shown.crm, ContactMerged("1", ("2",)))


@pytest.mark.parametrize("leave", [_deleted, _readdressed, _renamed, _merged])
def test_mailbox_is_one_persons_again_when_the_other_is_gone(shown: Shown, leave: Leaving) -> None:
    shown.show(shown.hub, contact("A", ADA, "Ada"))
    shown.show(shown.crm, contact("1", ADA, "Ada"), contact("2", ADA, "Bo"))
    assert shown.record(shown.hub, "A").shared
    leave(shown)
    assert not shown.record(shown.crm, "1").shared and not shown.record(shown.hub, "A").shared
    assert same(shown, (shown.crm, "1"), (shown.hub, "A"))


def test_role_address_stays_shared_when_others_leave(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", "info@acme.example", "Ada"), contact("2", "info@acme.example", "Bo"))
    shown.show(shown.crm, contact("2", "bo@acme.example", "Bo"))
    assert shown.record(shown.crm, "1").shared
    assert not shown.record(shown.crm, "2").shared


def test_one_name_of_two_sources_in_a_shared_mailbox_waits_for_a_human(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", "info@acme.example", "Ada L"), contact("2", "info@acme.example", "Bo M"))
    shown.show(shown.hub, contact("A", "info@acme.example", "Ada L"))
    candidate = shown.one(select(schema.link_candidates))
    assert (candidate.identity_id, candidate.other_identity_id, candidate.state) == (
        shown.record(shown.crm, "1").id, shown.record(shown.hub, "A").id, "open",
    )  # fmt: skip
    shown.show(shown.hub, contact("A", "info@acme.example", "Ada L", country="FR"))
    assert shown.count(schema.link_candidates) == 1
    assert shown.count(schema.people) == 3


def test_mailbox_of_a_thousand_nameless_records_is_one_person_soon(shown: Shown) -> None:
    started = time.process_time()
    shown.show(shown.crm, *(contact(f"{i}", ADA) for i in range(1000)))
    assert shown.count(schema.people) == 1
    assert time.process_time() - started < 2


# --- undone ---------------------------------------------------------------------------------------------------------


def test_wrong_link_is_split_and_touches_follow_the_record_they_were_sent_from(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", ADA, "Ada"))
    shown.show(shown.hub, contact("A", ADA, "Ada"))
    mine = shown.ask(shown.crm, "1", TouchState.SILENT, 200, wave_id=None)
    theirs = shown.ask(shown.hub, "A", TouchState.HANDED_OVER, 10)
    with shown.store.reservation() as tx:
        split(tx, shown.record(shown.hub, "A").id, shown.now)
    assert [row.id for row in shown.touches(shown.crm, "1")] == [mine]
    assert [row.id for row in shown.touches(shown.hub, "A")] == [theirs]
    kept = {shown.person(*one).quarantine_until for one in ((shown.crm, "1"), (shown.hub, "A"))}
    assert kept == {shown.now + 80 * DAY_MS}  # both as long as the one they were taken for


def test_split_records_are_not_linked_again_by_themselves(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", ADA, "Ada"))
    shown.show(shown.hub, contact("A", ADA, "Ada"))
    with shown.store.reservation() as tx:
        split(tx, shown.record(shown.hub, "A").id, shown.now)
    shown.show(shown.hub, contact("A", ADA, "Ada", country="FR"))
    shown.show(shown.crm, contact("1", ADA, "Ada", country="FR"))
    assert not same(shown, (shown.crm, "1"), (shown.hub, "A"))


def test_people_kept_apart_are_not_linked_through_a_third_record(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", ADA, "Ada"))
    shown.show(shown.hub, contact("A", ADA, "Ada"), contact("B", "bo@acme.example", "Ada"))
    with shown.store.reservation() as tx:
        link(tx, shown.person(shown.crm, "1").id, shown.person(shown.hub, "B").id, shown.now)
        split(tx, shown.record(shown.hub, "B").id, shown.now)
    shown.show(shown.hub, contact("A", "bo@acme.example", "Ada"))  # a record of the one gets the other's address
    assert not same(shown, (shown.hub, "A"), (shown.hub, "B"))


def test_address_is_kept_as_a_hash_under_the_pepper(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", "Ada+x@ACME.example", "Ada"))
    assert shown.record(shown.crm, "1").address_hash == hashed(ADA)


def test_who_inherits_from_a_tombstone_and_is_linked_in_the_same_page_keeps_the_clock(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", ADA, "Ada"), contact("9", "old@acme.example", "Ada"))
    touch = shown.ask(shown.crm, "1", TouchState.HANDED_OVER)
    shown.show(shown.crm, ContactDeleted("1"))
    assert shown.touch(touch).person_id is None
    shown.show(shown.crm, contact("9", ADA, "Ada"), contact("2", ADA, "Ada"))
    assert same(shown, (shown.crm, "9"), (shown.crm, "2"))
    assert [row.id for row in shown.touches(shown.crm, "9")] == [touch]
