"""The planner in SQL says what `core.frequency` says in Python, for any history; and what only SQL decides."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, insert, select

from core.audience import parse_audience
from core.clock import DAY_MS, FixedClock
from core.frequency import Limits, Rule, company_quota, decide, limits
from core.storage import pacing, planning, schema, write_backs
from core.storage.people_facts import load_facts
from core.storage.store import Store
from core.touches import TouchState
from core.workspace import Campaign, Quarantine, SendWindow
from tests.ledger import add_campaign, add_company, add_connection, add_person, add_touch

PARIS = ZoneInfo("Europe/Paris")
CAMPAIGN = Campaign(name="relationship", source=("crm",), sender="mail", every_days=90)
HOUR = DAY_MS // 24


def scope(now: int, limit: Limits | None = None, **values: object) -> planning.Scope:
    limit = limit or limits(Quarantine(), CAMPAIGN, 1)
    defaults: dict[str, object] = {"sources": [1], "audience": CAMPAIGN.who, "zone": PARIS}
    return planning.Scope(limits=limit, now=now, **{**defaults, **values})  # type: ignore[arg-type]


def decisions_of(tx: Connection, plan: planning.Scope) -> dict[int, tuple[str | None, int | None]]:
    planning.decide(tx, plan)
    rows = tx.execute(select(planning.decided.c.person_id, planning.decided.c.rule, planning.decided.c.until))
    return {person: (rule, until) for person, rule, until in rows}


offsets = st.one_of(st.integers(-100 * 24, 0), st.integers(-400 * 24, 0)).map(lambda hours: hours * HOUR)


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, object]]:
    touches = []
    for _ in range(draw(st.integers(0, 6))):
        asked = draw(offsets)
        state = draw(st.sampled_from([state for state in TouchState if state is not TouchState.PLANNED]))
        outside = draw(st.booleans()) and state is TouchState.HANDED_OVER
        touch: dict[str, object] = {
            "state": state,
            "asked": asked,
            "campaign_id": None if outside else draw(st.sampled_from([1, 2])),
            "source": "outside" if outside else "boucle",
            "window": None if outside else draw(st.sampled_from([7, 21, 100])) * DAY_MS,
            "local_date": None if outside else draw(st.sampled_from([None, "2026-11-30", "2026-12-01", "2026-12-02"])),
        }
        if state is TouchState.ANSWERED:
            touch["answered"] = draw(st.one_of(st.none(), st.integers(0, 30).map(lambda d: d * DAY_MS)))
        if state is TouchState.DECLINED:
            touch["declined"] = draw(st.integers(0, 30)) * DAY_MS
        touches.append(touch)
    return touches


SELDOM = [False] * 9 + [True]  # most people must get as far as the clocks
people = st.fixed_dictionaries(
    {
        "touches": histories(),
        "opted_out_at": st.sampled_from([None] * 9 + [5]),
        "source_opted_out": st.sampled_from(SELDOM),
        "hold": st.one_of(st.none(), st.none(), st.integers(-5, 5)),
        "since": st.one_of(st.none(), st.integers(0, 60)),
        "email": st.sampled_from([""] * 9 + [None]),
        "time_zone": st.sampled_from([None, "Asia/Tokyo", "America/Los_Angeles", "Nowhere/Land"]),
        "guard": st.one_of(st.none(), st.integers(0, 48)),
        "plan": st.sampled_from(["pro", "trial", None]),
        "suppressed": st.sampled_from(SELDOM),
        "follow_up": st.sampled_from(SELDOM),
        # an ask to the mailbox this person shares with somebody who is no longer known: (hours ago, campaign, type)
        "mailbox": st.one_of(
            st.none(),
            st.none(),
            st.tuples(st.integers(0, 130 * 24), st.sampled_from([1, 2, None]), st.sampled_from(["nps", "csat"])),
        ),
    }
)
waves_of = st.one_of(st.none(), st.tuples(st.integers(-300, 0), st.integers(1, 300)))
rules = st.builds(
    Quarantine,
    any_survey_days=st.integers(0, 60),
    same_type_days=st.integers(0, 120),
    after_answer_days=st.integers(0, 120),
    after_decline_days=st.integers(0, 200),
    after_silence_days=st.integers(0, 90),
    touches_per_365_days=st.integers(1, 4),
    tenure_days=st.integers(0, 40),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(people, min_size=1, max_size=6), rules, st.booleans(), st.booleans(), waves_of)
def test_the_planner_decides_as_the_rule_says(
    store: Store,
    clock: FixedClock,
    persons: list[dict[str, Any]],
    quarantine: Quarantine,
    with_audience: bool,
    in_incident: bool,
    days: tuple[int, int] | None,
) -> None:
    now = clock.now_ms()
    wave = None if days is None else (now + days[0] * DAY_MS, now + days[1] * DAY_MS)
    limit = limits(quarantine, CAMPAIGN, 1, wave)
    audience = parse_audience({"plan": {"not": ["trial"]}} if with_audience else {})
    plan = scope(now, limit, audience=audience)
    with store.write() as tx:
        for table in reversed(schema.metadata.sorted_tables):
            tx.execute(delete(table))
        add_connection(tx)
        add_campaign(tx)
        add_campaign(tx, "other")
        ids = [_store_person(tx, person, now) for person in persons]
        if in_incident:
            add_company(tx, "Acme")
            tx.execute(schema.identities.update().where(schema.identities.c.id % 2 == 0).values(company_id=1))
            tx.execute(insert(schema.incidents).values(kind="declared", reason="x", company_id=1, opened_at=now))
        found = decisions_of(tx, plan)
        for person_id, identity_id in ids:
            facts = load_facts(tx, person_id, identity_id, limit, audience, PARIS, now)
            expected = decide(facts, limit, now)
            assert found[person_id] == (expected.rule, expected.until), facts


def _store_person(tx: Connection, person: dict[str, Any], now: int) -> tuple[int, int]:
    person_id, identity_id = add_person(
        tx,
        email=person["email"],
        opted_out_at=person["opted_out_at"],
        source_opted_out=person["source_opted_out"],
        hold_until=None if person["hold"] is None else now + person["hold"] * DAY_MS,
        customer_since=None if person["since"] is None else now - person["since"] * DAY_MS,
        time_zone=person["time_zone"],
        attributes={} if person["plan"] is None else {"plan": person["plan"]},
    )
    for touch in person["touches"]:
        asked = now + touch["asked"]
        add_touch(
            tx,
            person_id,
            touch["state"],
            asked,
            identity_id=identity_id,
            campaign_id=touch["campaign_id"],
            source=touch["source"],
            window_closes_at=None if touch["window"] is None else asked + touch["window"],
            answered_at=asked + touch["answered"] if touch.get("answered") is not None else None,
            declined_at=asked + touch["declined"] if "declined" in touch else None,
            asked_local_date=touch["local_date"],
        )
    if person["mailbox"] is not None and person["email"] is not None:
        hours, campaign_id, type_ = person["mailbox"]
        record = schema.identities.c.id == identity_id
        tx.execute(schema.identities.update().where(record).values(shared=True))
        address = tx.scalar(select(schema.identities.c.address_hash).where(record))
        add_touch(
            tx, None, TouchState.HANDED_OVER, now - hours * HOUR, campaign_id=campaign_id, type=type_,
            address_hash=address,
        )  # fmt: skip
    if person["guard"] is not None:
        tx.execute(
            insert(schema.message_guard).values(identity_id=identity_id, last_message_at=now - person["guard"] * HOUR)
        )
    if person["suppressed"] and person["email"] is not None:
        address = tx.scalar(select(schema.identities.c.address_hash).where(schema.identities.c.id == identity_id))
        tx.execute(insert(schema.suppressions).values(address_hash=address, reason="manual", created_at=now))
    if person["follow_up"]:
        response_id = identity_id
        tx.execute(insert(schema.responses).values(id=response_id, campaign_id=1, verdict="confirmed", signals={}))
        tx.execute(
            insert(schema.follow_ups).values(
                public_id=f"f{person_id}", response_id=response_id, person_id=person_id, state="open",
                created_at=now, changed_at=now,
            )
        )  # fmt: skip
    return person_id, identity_id


def paced(tx: Connection, plan: planning.Scope, day_limit: int | None = None) -> dict[int, str | None]:
    planning.decide(tx, plan)
    pacing.pace(tx, plan, day_limit, plan.now + DAY_MS)
    return {key: value for key, value in tx.execute(select(planning.decided.c.person_id, planning.decided.c.rule))}


@pytest.mark.parametrize(
    ("contacts", "already", "expected"), [(1, 0, 1), (4, 0, 1), (10, 0, 2), (10, 1, 1), (10, 2, 0), (25, 0, 5)]
)
def test_a_company_is_asked_up_to_its_share(
    store: Store, clock: FixedClock, contacts: int, already: int, expected: int
) -> None:
    now = clock.now_ms()
    with store.write() as tx:
        add_connection(tx)
        add_campaign(tx)
        company = add_company(tx, "Acme")
        for number in range(contacts):
            person, _ = add_person(tx, company_id=company)
            if number < already:
                add_touch(tx, person, TouchState.HANDED_OVER, now - 20 * DAY_MS, company_id=company, source="outside")
        rules = list(paced(tx, scope(now)).values())
    assert rules.count(None) == expected
    assert rules.count(Rule.COMPANY_SHARE) == contacts - expected - already


def test_company_share_counts_only_contacts_that_can_be_asked(store: Store, clock: FixedClock) -> None:
    with store.write() as tx:
        add_connection(tx)
        add_campaign(tx)
        company = add_company(tx, "Acme")
        for number in range(15):
            values: dict[str, Any] = {}
            if number >= 9:
                values = {"email": None} if number % 2 else {"opted_out_at": 1}
            add_person(tx, company_id=company, **values)
        rules = list(paced(tx, scope(clock.now_ms())).values())
    assert rules.count(None) == company_quota(9, 0.2) == 1


def test_company_share_rotates_to_those_never_asked_then_least_recently(store: Store, clock: FixedClock) -> None:
    now = clock.now_ms()
    with store.write() as tx:
        add_connection(tx)
        add_campaign(tx)
        company = add_company(tx, "Acme")
        ada, _ = add_person(tx, company_id=company)
        bo, _ = add_person(tx, company_id=company)
        cleo, _ = add_person(tx, company_id=company)
        add_touch(tx, ada, TouchState.SILENT, now - 300 * DAY_MS, window_closes_at=now - 200 * DAY_MS)
        add_touch(tx, bo, TouchState.SILENT, now - 200 * DAY_MS, window_closes_at=now - 100 * DAY_MS)
        first = paced(tx, scope(now))
        tx.execute(delete(schema.identities).where(schema.identities.c.person_id == cleo))
        second = paced(tx, scope(now))
    assert [first[ada], first[bo], first[cleo]] == ["company_share", "company_share", None]
    assert [second[ada], second[bo]] == [None, "company_share"]


def test_the_day_limit_asks_the_first_of_the_rotation_and_holds_the_others(store: Store, clock: FixedClock) -> None:
    with store.write() as tx:
        add_connection(tx)
        add_campaign(tx)
        for _ in range(10):
            add_person(tx)
        rules = list(paced(tx, scope(clock.now_ms()), day_limit=3).values())
    assert rules.count(None) == 3
    assert rules.count(Rule.DAILY_LIMIT) == 7


def test_the_send_window_is_the_recipients_and_a_sleeping_town_takes_no_place_of_the_day(
    store: Store, clock: FixedClock
) -> None:
    window = SendWindow.model_validate({"from": "09:00", "to": "17:00", "days": "mon-fri"})
    with store.write() as tx:  # Tuesday 09:00 UTC: 10:00 in Paris, 18:00 in Tokyo, 01:00 in Los Angeles
        add_connection(tx)
        add_campaign(tx)
        tokyo, _ = add_person(tx, time_zone="Asia/Tokyo")
        here, _ = add_person(tx)
        paris, _ = add_person(tx, time_zone="Europe/Paris")
        angeles, _ = add_person(tx, time_zone="America/Los_Angeles")
        plan = scope(clock.now_ms(), window=window)
        rules = paced(tx, plan, day_limit=2)
        until = tx.scalar(select(planning.decided.c.until).where(planning.decided.c.person_id == tokyo))
        unlimited = paced(tx, plan)
        opens = tx.scalar(select(planning.decided.c.until).where(planning.decided.c.person_id == tokyo))
    assert [rules[here], rules[paris]] == [None, None]
    assert rules[tokyo] == rules[angeles] == "daily_limit"
    assert until == clock.now_ms() + DAY_MS
    assert unlimited[tokyo] == unlimited[angeles] == "send_window"
    assert opens == clock.now_ms() + 15 * HOUR  # 09:00 of the next day in Tokyo is 00:00 UTC


def test_a_record_that_cannot_be_asked_gives_way_to_another_source(store: Store, clock: FixedClock) -> None:
    with store.write() as tx:
        add_connection(tx)
        add_connection(tx, "shop")
        add_campaign(tx)
        ada, _ = add_person(tx, email=None)
        _, in_shop = add_person(tx, connection_id=2, person_id=ada)
        bo, in_crm = add_person(tx)
        add_person(tx, connection_id=2, person_id=bo)
        planning.decide(tx, scope(clock.now_ms(), sources=[1, 2]))
        asked = {
            key: value
            for key, value in tx.execute(select(planning.decided.c.person_id, planning.decided.c.identity_id))
        }
    assert asked == {ada: in_shop, bo: in_crm}


def test_of_two_people_behind_one_mailbox_one_is_asked_per_period(store: Store, clock: FixedClock) -> None:
    now = clock.now_ms()
    with store.write() as tx:
        add_connection(tx)
        add_campaign(tx)
        ada, _ = add_person(tx, email="info@acme.example", shared=True)
        bo, _ = add_person(tx, email="info@acme.example", shared=True)
        assert decisions_of(tx, scope(now)) == {ada: (None, None), bo: ("shared_mailbox", now + 90 * DAY_MS)}
        address = b"info@acme.exampl"
        add_touch(
            tx, ada, TouchState.HANDED_OVER, now - 40 * DAY_MS, campaign_id=1, address_hash=address,
            window_closes_at=now,
        )  # fmt: skip
        later = decisions_of(tx, scope(now))
    assert later[bo] == ("shared_mailbox", now + 50 * DAY_MS)
    assert later[ada][0] == "same_survey"


def test_who_bounced_in_a_wave_is_not_asked_again_in_it(store: Store, clock: FixedClock) -> None:
    now = clock.now_ms()
    with store.write() as tx:
        add_connection(tx)
        add_campaign(tx)
        tx.execute(insert(schema.waves).values(id=7, campaign_id=1, number=1, opens_at=0, ends_at=now + 1, counts={}))
        ada, _ = add_person(tx)
        bo, _ = add_person(tx)
        add_touch(tx, ada, TouchState.RETURNED, now - 2 * DAY_MS, wave_id=7, campaign_id=1, reason="refused")
        add_touch(tx, bo, TouchState.RETURNED, now - 2 * DAY_MS, wave_id=7, campaign_id=1, reason="expired")
        found = decisions_of(tx, scope(now, wave_id=7, wave_ends_at=now + DAY_MS))
    assert found == {ada: ("same_survey", now + DAY_MS), bo: (None, None)}


def test_free_at_is_the_latest_clock_and_none_for_who_opted_out(store: Store, clock: FixedClock) -> None:
    now = clock.now_ms()
    with store.write() as tx:
        add_connection(tx)
        add_campaign(tx)
        ada, _ = add_person(tx)
        dot, _ = add_person(tx, opted_out_at=1)
        new, _ = add_person(tx)
        for person in (ada, dot):
            add_touch(tx, person, TouchState.HANDED_OVER, now - DAY_MS, window_closes_at=now + 20 * DAY_MS)
        free = planning.free_at(tx, [ada, dot, new], limits(Quarantine(), CAMPAIGN, 0), PARIS, now)
    assert free == {ada: now + 89 * DAY_MS, dot: None, new: None}


def test_a_date_the_crm_does_not_show_yet_or_never_will_binds_all_the_same(store: Store, clock: FixedClock) -> None:
    now = clock.now_ms()
    with store.write() as tx:
        connection = add_connection(tx)
        add_campaign(tx)
        for state in ("ready", "sending", "failed"):
            person, identity = add_person(tx)
            add_touch(tx, person, TouchState.HANDED_OVER, now - DAY_MS, window_closes_at=now + DAY_MS, campaign_id=1)
            tx.execute(
                insert(schema.deliveries).values(
                    key=f"w{identity}", kind="write_back", connection_id=connection, identity_id=identity, state=state,
                    due_at=0, created_at=0,
                )
            )  # fmt: skip
        found = decisions_of(tx, scope(now))
        behind = write_backs.behind(tx)
    assert set(found.values()) == {("same_type", now + 89 * DAY_MS)}
    assert behind == {connection: 3}


def test_a_person_who_moved_west_since_waits_for_the_next_local_day(store: Store, clock: FixedClock) -> None:
    now = clock.now_ms()  # 09:00 UTC on 1 December: 23:00 on 30 November in Honolulu
    none = Quarantine(
        any_survey_days=0, same_type_days=0, after_answer_days=0, after_decline_days=0, after_silence_days=0,
    )  # fmt: skip
    with store.write() as tx:
        add_connection(tx)
        add_connection(tx, "shop")
        add_campaign(tx)
        add_campaign(tx, "other")
        ada, _ = add_person(tx, email=None)  # asked as a record that has no address any more
        add_person(tx, connection_id=2, person_id=ada, time_zone="Pacific/Honolulu")
        add_touch(
            tx, ada, TouchState.ANSWERED, now - 25 * HOUR, identity_id=1, campaign_id=2, answered_at=now - 2 * DAY_MS,
            asked_local_date="2026-11-30",
        )  # fmt: skip
        found = decisions_of(tx, scope(now, limits(none, CAMPAIGN, 1), sources=[1, 2]))
        later = decisions_of(tx, scope(now + HOUR, limits(none, CAMPAIGN, 1), sources=[1, 2]))
    assert found == {ada: ("floor_24h", now + HOUR)}
    assert later == {ada: (None, None)}


@pytest.mark.parametrize("wave", [None, (0, 10**15)])
def test_clocks_of_no_length_stop_nobody_but_a_wave_still_asks_once(
    store: Store, clock: FixedClock, wave: tuple[int, int] | None
) -> None:
    now = clock.now_ms()
    none = Limits(1, "nps", 0, 0, 0, 0, 0, 0, 365, 0, None, 1.0, wave)
    with store.write() as tx:
        add_connection(tx)
        add_campaign(tx)
        ada, _ = add_person(tx, customer_since=now)
        for state in (TouchState.HANDED_OVER, TouchState.ANSWERED, TouchState.DECLINED, TouchState.SILENT):
            add_touch(tx, ada, state, now - HOUR, campaign_id=1, answered_at=now, declined_at=now)
        found = decisions_of(tx, scope(now, none))
    assert found == {ada: (None, None) if wave is None else ("same_survey", 10**15)}
