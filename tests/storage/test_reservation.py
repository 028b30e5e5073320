"""Reservations: what one writes, and what it looks at again. Many at once: tests/storage/test_concurrency.py."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select

from core.clock import DAY_MS, HOUR_MS, FixedClock, to_ms
from core.frequency import limits
from core.ids import token_hash
from core.storage import planning, reservation, schema
from core.storage.store import Store
from core.storage.touches import cancel_for_campaign, hand_over
from core.touches import TouchState
from core.workspace import Campaign, Quarantine, SendWindow
from tests.ledger import add_campaign, add_company, add_connection, add_person, add_touch, add_wave

PEOPLE, COMPANIES, DAY_LIMIT = 2000, 60, 700
CAMPAIGN = Campaign(name="relationship", source=("crm",), sender="mail", every_days=90)


def scope_and_quota(
    campaign_id: int, wave_id: int, now: int, daily_limit: int | None = DAY_LIMIT
) -> tuple[planning.Scope, reservation.Quota]:
    scope = planning.Scope(
        limits=limits(Quarantine(), CAMPAIGN, campaign_id),
        sources=[1],
        audience=CAMPAIGN.who,
        now=now,
        zone=ZoneInfo("Europe/Paris"),
        wave_id=wave_id,
        wave_ends_at=now + 90 * DAY_MS,
    )
    quota = reservation.Quota(
        wave_id=wave_id,
        campaign_id=campaign_id,
        type="nps",
        sender_id=2,
        window_ms=21 * DAY_MS,
        daily_limit=daily_limit,
        day_began_at=now - DAY_MS // 3,
    )
    return scope, quota


def seed(store: Store, people: int = PEOPLE, companies: int = COMPANIES) -> None:
    with store.write() as tx:
        add_connection(tx)
        add_connection(tx, "mail", "mailbox")
        for number in range(1, 4):
            add_wave(tx, add_campaign(tx, f"campaign{number}"))
        ids = [add_company(tx, f"Company {number}") for number in range(companies)]
        for number in range(people):
            add_person(tx, company_id=ids[number % companies] if number % 3 else None)


def test_a_reservation_writes_touch_link_and_message_together(store: Store, clock: FixedClock) -> None:
    now = clock.now_ms()
    seed(store, people=3, companies=1)
    scope, quota = scope_and_quota(1, 1, now)
    with store.session() as session, session.reservation() as tx:
        recheck = reservation.prepare(tx, scope)
        assert reservation.reserve(tx, recheck, quota, [1], now).touches == 1
        touch = tx.execute(select(schema.touches)).one()
        delivery = tx.execute(select(schema.deliveries)).one()
        link = tx.execute(select(schema.survey_links)).one()
    assert (touch.state, touch.person_id, touch.asked_at, touch.asked_local_date) == ("reserved", 1, now, "2026-12-01")
    assert touch.window_closes_at == now + 21 * DAY_MS
    assert delivery.key == f"{touch.public_id}:invite"
    assert (delivery.touch_id, delivery.state, delivery.expires_at) == (touch.id, "ready", now + DAY_MS)
    assert link.token_hash == token_hash("touch", delivery.payload["token"])


def test_the_recheck_sees_what_happened_since_the_plan(store: Store, clock: FixedClock) -> None:
    now = clock.now_ms()
    seed(store, people=3, companies=1)
    scope, quota = scope_and_quota(1, 1, now)
    with store.session() as session:
        with session.read() as tx:
            planning.decide(tx, scope)
            recheck = reservation.prepare(tx, scope)
        with store.write() as other:  # another wave was faster, and somebody opted out meanwhile
            add_touch(other, 1, TouchState.RESERVED, now, campaign_id=2, wave_id=2, window_closes_at=now + DAY_MS)
            other.execute(schema.people.update().where(schema.people.c.id == 2).values(opted_out_at=now))
        with session.reservation() as tx:
            done = reservation.reserve(tx, recheck, quota, [1, 2, 3], now)
    assert done.touches == 1
    assert done.refused == Counter({"same_type": 1, "opted_out": 1})


@pytest.mark.parametrize(("limit", "at_most", "expected"), [(2, None, 2), (None, 1, 1), (2, 1, 1), (None, None, 3)])
def test_a_day_and_a_brake_both_limit(
    store: Store, clock: FixedClock, limit: int | None, at_most: int | None, expected: int
) -> None:
    seed(store, people=3, companies=3)
    now = clock.now_ms()
    scope, quota = scope_and_quota(1, 1, now, limit)
    with store.session() as session, session.reservation() as tx:
        recheck = reservation.prepare(tx, scope)
        done = reservation.reserve(tx, recheck, replace(quota, at_most=at_most), [1, 2, 3], now)
        again = reservation.reserve(tx, recheck, replace(quota, at_most=0), [1, 2, 3], now)
    assert (done.touches, again.touches) == (expected, 0)


def test_a_send_stopped_half_way_returns_what_has_not_left_and_keeps_the_rest(store: Store, clock: FixedClock) -> None:
    now = clock.now_ms()
    seed(store, people=4, companies=4)
    scope, quota = scope_and_quota(1, 1, now)
    with store.session() as session, session.reservation() as tx:
        recheck = reservation.prepare(tx, scope)
        reservation.reserve(tx, recheck, quota, [1, 2, 3], now)
        hand_over(tx, [1], now)
        tx.execute(schema.deliveries.update().where(schema.deliveries.c.touch_id == 2).values(state="sending"))
        assert cancel_for_campaign(tx, 1, now) == 1
        states = tx.scalars(select(schema.touches.c.state).order_by(schema.touches.c.id)).all()
        again = reservation.reserve(tx, recheck, quota, [1, 2, 3, 4], now + DAY_MS)
    assert states == ["handed_over", "reserved", "returned"]  # what is leaving at this moment decides by its outcome
    assert again.touches == 2


def test_a_batch_has_an_upper_end(store: Store, clock: FixedClock) -> None:
    now = clock.now_ms()
    seed(store, people=1, companies=1)
    scope, quota = scope_and_quota(1, 1, now)
    with store.session() as session, session.reservation() as tx:
        recheck = reservation.prepare(tx, scope)
        with pytest.raises(ValueError, match="at most"):
            reservation.reserve(tx, recheck, quota, list(range(reservation.BATCH + 1)), now)


def test_a_reservation_counts_on_the_recipients_day_and_expires_by_their_hours(store: Store, clock: FixedClock) -> None:
    now = clock.now_ms()
    window = SendWindow.model_validate({"from": "09:00", "to": "21:00", "days": "mon-sun"})
    seed(store, people=2, companies=2)
    scope, quota = scope_and_quota(1, 1, now)
    with store.session() as session, session.reservation() as tx:
        tx.execute(schema.identities.update().where(schema.identities.c.id == 1).values(time_zone="Pacific/Kiritimati"))
        tx.execute(schema.identities.update().where(schema.identities.c.id == 2).values(time_zone="No/Where"))
        recheck = reservation.prepare(tx, replace(scope, window=window))
        assert reservation.reserve(tx, recheck, quota, [1, 2], now + 3 * HOUR_MS).touches == 2
        dates = tx.scalars(select(schema.touches.c.asked_local_date).order_by(schema.touches.c.id)).all()
        expiries = tx.scalars(select(schema.deliveries.c.expires_at).order_by(schema.deliveries.c.id)).all()
    # 12:00 UTC: 02:00 on 2 December in Kiritimati, 13:00 on 1 December in Paris, the workspace's zone
    assert dates == ["2026-12-02", "2026-12-01"]
    in_kiritimati = datetime(2026, 12, 3, 21, tzinfo=ZoneInfo("Pacific/Kiritimati"))  # two days of twelve hours
    in_paris = datetime(2026, 12, 3, 13, tzinfo=ZoneInfo("Europe/Paris"))
    assert expiries == [to_ms(in_kiritimati), to_ms(in_paris)]
