"""What depends on the others of a wave: whose turn it is in a company, the day's places, and the pace of the sender."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Connection, insert, select

from core.clock import DAY_MS, HOUR_MS, FixedClock
from core.frequency import limits
from core.storage import ledger, pacing, planning, schema
from core.storage.store import Store
from core.touches import TouchState
from core.workspace import Brakes, Campaign, Quarantine
from tests.ledger import add_campaign, add_company, add_connection, add_person, add_touch

CAMPAIGN = Campaign(name="relationship", source=("crm",), sender="mail", every_days=90)
PACED = Quarantine(
    any_survey_days=0, same_type_days=0, after_answer_days=0, after_decline_days=0, after_silence_days=0,
    touches_per_365_days=365,
)  # fmt: skip


def scope(now: int, rules: Quarantine = PACED, **values: Any) -> planning.Scope:
    campaign = CAMPAIGN.model_copy(update={"every_days": values.pop("every_days", 1)})
    rest = {"sources": [1], "audience": campaign.who, "now": now, "zone": ZoneInfo("UTC"), **values}
    return planning.Scope(limits(rules, campaign, 1), **rest)


def paced(tx: Connection, plan: planning.Scope, limit: int | None = None) -> dict[int, tuple[str | None, int | None]]:
    planning.decide(tx, plan)
    pacing.pace(tx, plan, limit, plan.now + DAY_MS)
    d = planning.decided.c
    return {person: (rule, until) for person, rule, until in tx.execute(select(d.person_id, d.rule, d.until))}


def asked(tx: Connection, plan: planning.Scope, limit: int | None = None) -> list[int]:
    """Person ids in the order they are asked."""
    paced(tx, plan, limit)
    return list(tx.scalars(select(pacing.chosen.c.person_id).order_by(pacing.chosen.c.place)))


def start(tx: Connection) -> None:
    add_connection(tx)
    add_campaign(tx)


@pytest.mark.parametrize(("days_ago", "free"), [(29.999, False), (30, True)])
def test_an_ask_leaves_the_companys_share_after_30_days(
    store: Store, clock: FixedClock, days_ago: float, free: bool
) -> None:
    now = clock.now_ms()
    with store.write() as tx:
        start(tx)
        company = add_company(tx, "Acme")
        ada, _ = add_person(tx, company_id=company)
        bo, _ = add_person(tx, company_id=company)
        at = now - round(days_ago * DAY_MS)
        add_touch(tx, ada, TouchState.ANSWERED, at, company_id=company, answered_at=at)
        found = paced(tx, scope(now, every_days=200))
    assert found[bo] == ((None, None) if free else ("company_share", at + 30 * DAY_MS))


def test_the_share_counts_people_not_asks_whoever_asked_and_whoever_left_since(store: Store, clock: FixedClock) -> None:
    now = clock.now_ms()
    with store.write() as tx:
        start(tx)
        company = add_company(tx, "Acme")
        people = [add_person(tx, company_id=company)[0] for _ in range(10)]  # k = 2
        for days in (3, 5):
            add_touch(tx, people[0], TouchState.HANDED_OVER, now - days * DAY_MS, company_id=company, source="outside")
        add_touch(tx, people[1], TouchState.RETURNED, now - DAY_MS, company_id=company)
        found = paced(tx, scope(now, every_days=200))
        tx.execute(schema.people.update().where(schema.people.c.id == people[9]).values(opted_out_at=1))
        smaller = paced(tx, scope(now, every_days=200))  # nine are left: k = 1, and it is used up
    assert [rule for rule, _ in found.values()].count(None) == 1
    assert [rule for rule, _ in smaller.values()].count(None) == 0


def test_two_records_of_one_person_are_one_contact_of_the_company(store: Store, clock: FixedClock) -> None:
    with store.write() as tx:
        start(tx)
        add_connection(tx, "shop")
        company = add_company(tx, "Acme")
        for _ in range(5):  # five people, ten records: k = 1, not 2
            person, _ = add_person(tx, company_id=company)
            add_person(tx, connection_id=2, person_id=person, company_id=company)
        rules = [rule for rule, _ in paced(tx, scope(clock.now_ms(), sources=[1, 2])).values()]
    assert rules.count(None) == 1


def test_rotation_asks_everybody_of_a_company_in_turn_and_blocks_nobody_for_ever(
    store: Store, clock: FixedClock
) -> None:
    turns: list[int] = []
    with store.write() as tx:
        start(tx)
        company = add_company(tx, "Acme")
        people = [add_person(tx, company_id=company)[0] for _ in range(7)]  # k = 1 in 30 days
        for _ in range(21):
            now = clock.now_ms()
            for person in asked(tx, scope(now, every_days=1)):
                add_touch(tx, person, TouchState.ANSWERED, now, company_id=company, campaign_id=1, answered_at=now)
                turns.append(person)
            clock.advance(days=30)
    assert Counter(turns) == Counter(dict.fromkeys(people, 3))
    assert sorted(turns[:7]) == people  # never asked first
    assert turns[7:14] == turns[:7] == turns[14:]  # then least recently asked


def test_the_order_is_never_asked_then_least_recently_asked(store: Store, clock: FixedClock) -> None:
    now = clock.now_ms()
    with store.write() as tx:
        start(tx)
        people = [add_person(tx)[0] for _ in range(4)]
        for person, days in ((people[0], 100), (people[1], 300), (people[2], 200)):
            add_touch(tx, person, TouchState.SILENT, now - days * DAY_MS)
        order = asked(tx, scope(now))
    assert order == [people[3], people[1], people[2], people[0]]


def test_equals_are_shuffled_by_the_wave_so_that_nobody_is_always_first(store: Store, clock: FixedClock) -> None:
    with store.write() as tx:
        start(tx)
        for _ in range(30):
            add_person(tx)
        plan = scope(clock.now_ms())
        opened = [plan.now - DAY_MS, plan.now - 91 * DAY_MS, plan.now - DAY_MS]
        waves = [replace(plan, limits=replace(plan.limits, wave=(at, at + 90 * DAY_MS))) for at in opened]
        orders = [asked(tx, wave, 5) for wave in waves]
    assert orders[0] == orders[2] != orders[1]


def test_the_day_ends_at_its_limit_and_the_rest_waits_until_tomorrow(store: Store, clock: FixedClock) -> None:
    now = clock.now_ms()
    with store.write() as tx:
        start(tx)
        for _ in range(5):
            add_person(tx)
        found = list(paced(tx, scope(now), limit=2).values())
        none_left = list(paced(tx, scope(now), limit=0).values())
    assert found.count((None, None)) == 2
    assert found.count(("daily_limit", now + DAY_MS)) == 3
    assert none_left == [("daily_limit", now + DAY_MS)] * 5


# --- what the ledger allows -----------------------------------------------------------------------------------------


def test_the_first_wave_of_a_workspace_sends_its_share_then_waits(store: Store, clock: FixedClock) -> None:
    now = clock.now_ms()
    brakes = Brakes(first_wave=3, first_wave_minutes=60)
    with store.write() as tx:
        start(tx)
        assert ledger.first_wave_left(tx, brakes, now) == 3
        for number in range(2):
            add_touch(tx, number, TouchState.RESERVED, now - number)
        add_touch(tx, 8, TouchState.RETURNED, now)
        add_touch(tx, 9, TouchState.HANDED_OVER, now, source="outside")
        assert ledger.first_wave_left(tx, brakes, now) == 1
        add_touch(tx, 2, TouchState.HANDED_OVER, now)
        assert ledger.first_wave_left(tx, brakes, now + HOUR_MS - 1) == 0
        assert ledger.first_wave_left(tx, brakes, now + HOUR_MS) is None
        assert ledger.first_wave_left(tx, Brakes(first_wave=0), now) is None


def test_only_what_can_leave_in_24_hours_may_be_reserved_beside_what_waits(store: Store) -> None:
    with store.write() as tx:
        start(tx)
        mail = add_connection(tx, "mail", "mailbox")
        assert ledger.sending_capacity(tx, mail, None) is None
        assert ledger.sending_capacity(tx, mail, 0.01) == 864
        for number, state in enumerate(("ready", "sending", "done", "failed", "cancelled", "unknown")):
            tx.execute(
                insert(schema.deliveries).values(
                    key=f"k{number}", kind="send", connection_id=mail, state=state, due_at=0, created_at=0
                )
            )
        assert ledger.sending_capacity(tx, mail, 0.01) == 862
        assert ledger.sending_capacity(tx, mail, 0.00001) == 0


def test_the_days_places_count_what_was_reserved_today_and_not_returned(store: Store, clock: FixedClock) -> None:
    now = clock.now_ms()
    with store.write() as tx:
        start(tx)
        add_campaign(tx, "other")
        for number, state in enumerate(TouchState):
            add_touch(tx, number, state, now, campaign_id=1)
        add_touch(tx, 20, TouchState.RESERVED, now - 1, campaign_id=1)
        add_touch(tx, 21, TouchState.RESERVED, now, campaign_id=2)
        assert ledger.reserved_since(tx, 1, now) == len(TouchState) - 1
        answered, finished = ledger.answer_history(tx, 1)
    assert (answered, finished) == (1, 3)
