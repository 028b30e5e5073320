"""What changed records mean for their people."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from sqlalchemy import select

from core.clock import DAY_MS, FixedClock, to_ms
from core.dates import end_of_day
from core.ports import Company, Contact, ContactDeleted
from core.storage import schema
from core.storage.people import find_people, opt_out
from core.storage.people_store import Batch
from core.storage.store import Store
from core.touches import TouchState
from tests.shown import Shown, contact, contents
from tests.world import PEPPER

ADA = "ada@acme.example"


@pytest.fixture
def shown(store: Store, clock: FixedClock) -> Shown:
    return Shown(store, clock)


def test_everything_a_record_says_is_kept(shown: Shown) -> None:
    ada = Contact(
        "1", ADA, "Ada", "Lovelace", "Acme", "fr", "FR", "Europe/Paris", "+33 1", "Eve", date(2020, 2, 29), True,
        None, "2026-12-24", {"plan": "pro", "seats": 3}, {"nps_score": "9"},
    )  # fmt: skip
    shown.show(shown.crm, ada)
    row = shown.record(shown.crm, "1")
    kept = (row.email, row.first_name, row.last_name, row.language, row.country, row.time_zone, row.phone, row.owner)
    assert kept == (ADA, "Ada", "Lovelace", "fr", "FR", "Europe/Paris", "+33 1", "Eve")
    assert row.customer_since == to_ms(datetime(2020, 2, 29, tzinfo=UTC))
    assert (row.opted_out, row.attributes, row.nps_seen) == (True, {"plan": "pro", "seats": 3}, {"nps_score": "9"})
    assert row.hold_until == to_ms(end_of_day(date(2026, 12, 24), shown.origins[shown.crm].zone))
    person = shown.person(shown.crm, "1")
    assert (person.hold_until, person.source_opted_out) == (row.hold_until, True)


def test_unchanged_records_are_seen_and_write_nothing(shown: Shown) -> None:
    people = [contact(f"{i}", f"p{i}@acme.example", f"P{i}", last_surveyed_at="2026-01-01") for i in range(30)]
    shown.show(shown.crm, *people)
    before = contents(shown.store)
    stored = shown.show(shown.crm, *(replace(one, digest=b"") for one in people))
    assert (stored.changed, len(stored.seen)) == (0, 30)
    assert contents(shown.store) == before


def test_contacts_that_are_stored_as_they_are_are_left_out_before_the_lock(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", ADA), contact("2", "bo@acme.example"))
    batch = Batch(shown.origins[shown.crm], [contact("1", ADA), contact("2", "cleo@acme.example"), contact("3")])
    with shown.store.read() as tx:
        assert batch.leave_out_known(tx) == [shown.record(shown.crm, "1").id]
    assert [one.external_id for one in batch.records if isinstance(one, Contact)] == ["2", "3"]


def test_a_batch_in_which_records_are_deleted_stays_whole(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", ADA))
    batch = Batch(shown.origins[shown.crm], [ContactDeleted("1"), contact("1", ADA)])
    with shown.store.read() as tx:
        assert batch.leave_out_known(tx) == []
    assert shown.show(shown.crm, *batch.records).changed == 2
    assert shown.record(shown.crm, "1").gone_at is None


def test_of_a_record_that_comes_twice_the_last_counts(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", ADA, "Ada"), contact("2", "bo@acme.example"), contact("1", ADA, "Augusta"))
    assert shown.record(shown.crm, "1").first_name == "Augusta"
    assert shown.count(schema.people) == 2
    shown.show(shown.crm, contact("1", ADA, "Ada"), contact("1", ADA, "Byron"))
    assert shown.record(shown.crm, "1").first_name == "Byron"


def test_changed_address_keeps_the_clock_and_cancels_the_pending_invitation(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", ADA, "Ada"))
    person = shown.person(shown.crm, "1").id
    asked = shown.ask(shown.crm, "1", TouchState.SILENT, 100, wave_id=None)
    waiting = shown.ask(shown.crm, "1", TouchState.RESERVED, 0)
    shown.show(shown.crm, contact("1", "ada@new.example", "Ada"))
    assert shown.person(shown.crm, "1").id == person
    assert [row.id for row in shown.touches(shown.crm, "1")] == [asked, waiting]
    returned = shown.touch(waiting)
    assert (returned.state, returned.reason, returned.detail) == ("returned", "cancelled", "the address changed")
    assert shown.one(select(schema.deliveries.c.state).where(schema.deliveries.c.touch_id == waiting)) == ("cancelled",)


def test_another_spelling_of_the_address_cancels_nothing(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", ADA, "Ada"))
    waiting = shown.ask(shown.crm, "1", TouchState.RESERVED, 0)
    shown.show(shown.crm, contact("1", "Ada@Acme.example", "Ada"))
    assert shown.touch(waiting).state == "reserved"


def test_companies_are_one_by_their_case_folded_name(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", company="Straße  AG"), contact("2", company="STRASSE AG"))
    shown.show(shown.hub, contact("A", company="strasse ag"), Company("c1", "Straße AG"))
    assert shown.count(schema.companies) == 1
    assert shown.record(shown.hub, "A").company_id == shown.record(shown.crm, "2").company_id is not None


def test_changed_company_moves_the_record(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", company="Acme"))
    shown.show(shown.crm, contact("1", company="Bolt"))
    assert shown.one(
        select(schema.companies.c.name).where(schema.companies.c.id == shown.record(shown.crm, "1").company_id)
    ) == ("Bolt",)
    shown.show(shown.crm, contact("1"))
    assert shown.record(shown.crm, "1").company_id is None


# --- opting out -----------------------------------------------------------------------------------------------------


def test_opt_out_told_by_a_source_ends_open_touches(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", ADA), contact("2", "dot@acme.example"))
    waiting = shown.ask(shown.crm, "1", TouchState.RESERVED, 0)
    asked = shown.ask(shown.crm, "2", TouchState.HANDED_OVER, 1)
    shown.show(shown.crm, contact("1", ADA, opted_out=True), contact("2", "dot@acme.example", opted_out=True))
    assert (shown.touch(waiting).state, shown.touch(asked).state) == ("returned", "declined")
    assert shown.person(shown.crm, "1").source_opted_out
    assert shown.person(shown.crm, "1").opted_out_at is None


def test_source_takes_back_its_own_opt_out_and_nobody_elses(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", ADA, opted_out=True), contact("2", "dot@acme.example", opted_out=True))
    with shown.store.write() as tx:
        opt_out(tx, shown.record(shown.crm, "2").person_id, "link", shown.now)
    shown.show(shown.crm, contact("1", ADA), contact("2", "dot@acme.example"))
    ada, dot = shown.person(shown.crm, "1"), shown.person(shown.crm, "2")
    assert (ada.source_opted_out, ada.opted_out_at) == (False, None)
    assert (dot.source_opted_out, dot.opted_out_at, dot.opted_out_by) == (False, shown.now, "link")


def test_own_opt_out_ends_touches_is_written_back_and_keeps_its_first_moment(shown: Shown, clock: FixedClock) -> None:
    shown.show(shown.crm, contact("1", ADA))
    asked = shown.ask(shown.crm, "1", TouchState.HANDED_OVER, 1)
    waiting = shown.ask(shown.crm, "1", TouchState.RESERVED, 0, wave_id=None)
    first = shown.now
    for by in ("link", "one_click"):
        with shown.store.write() as tx:
            opt_out(tx, shown.record(shown.crm, "1").person_id, by, shown.now)
        clock.advance(days=1)
    person = shown.person(shown.crm, "1")
    assert (person.opted_out_at, person.opted_out_by) == (first, "link")
    assert (shown.touch(asked).state, shown.touch(waiting).state) == ("declined", "returned")
    assert shown.wanted(shown.crm, "1") > 0


def test_hold_of_any_record_is_one_of_the_person(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", ADA, hold_until="2026-12-24"))
    shown.show(shown.hub, contact("A", ADA, hold_until="31/01/2027"))
    assert shown.person(shown.crm, "1").hold_until == to_ms(
        end_of_day(date(2027, 1, 31), shown.origins[shown.hub].zone)
    )
    shown.show(shown.hub, contact("A", ADA))
    assert shown.person(shown.crm, "1").hold_until == shown.record(shown.crm, "1").hold_until
    assert shown.person(shown.crm, "1").hold_until < shown.now + 24 * DAY_MS


# --- found by address -----------------------------------------------------------------------------------------------


def test_people_are_found_by_any_spelling_of_their_address(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", ADA), contact("2", "info@acme.example", "Bo"), contact("3", "info@acme.example"))
    with shown.store.read() as tx:
        assert find_people(tx, PEPPER, " Ada+x@ACME.example ") == [shown.person(shown.crm, "1").id]
        assert len(find_people(tx, PEPPER, "info@acme.example")) == 2
        assert find_people(tx, PEPPER, "cleo@acme.example") == []
        assert find_people(tx, PEPPER, "no address") == []


def test_record_that_is_gone_is_not_found(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", ADA))
    shown.show(shown.crm, ContactDeleted("1"))
    with shown.store.read() as tx:
        assert find_people(tx, PEPPER, ADA) == []
