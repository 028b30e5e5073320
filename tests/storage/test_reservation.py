"""Reservations: fifty threads and four processes at once, and nobody twice, no company over its share, no day over."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import func, select

from core.clock import DAY_MS, FixedClock, to_ms
from core.frequency import company_quota, limits
from core.ids import token_hash
from core.storage import planning, reservation, schema
from core.storage.store import Store
from core.touches import TouchState
from core.workspace import Campaign, Quarantine
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


def reserve_everybody(store: Store, campaign: int, now: int, order: int, people: int = PEOPLE) -> Counter[str]:
    """One worker: the whole population for one campaign, in batches, from its own end of the list."""
    scope, quota = scope_and_quota(campaign, campaign, now)
    identities = list(range(1, people + 1))
    identities = identities[order * 37 % people :] + identities[: order * 37 % people]
    refused: Counter[str] = Counter()
    with store.session() as session:
        with session.read() as tx:
            recheck = reservation.prepare(tx, scope)
        for start in range(0, people, 100):
            with session.reservation() as tx:
                done = reservation.reserve(tx, recheck, quota, identities[start : start + 100], now)
            refused["reserved"] += done.touches
            refused += done.refused
    return refused


def check_ledger(store: Store, people: int = PEOPLE) -> int:
    with store.read() as tx:
        per_person = tx.execute(select(schema.touches.c.person_id, func.count()).group_by(schema.touches.c.person_id))
        assert max(count for _, count in per_person) == 1, "somebody was reserved twice"
        contacts = {
            company: number
            for company, number in tx.execute(
                select(schema.identities.c.company_id, func.count()).group_by(schema.identities.c.company_id)
            )
        }
        for company, asked in tx.execute(
            select(schema.touches.c.company_id, func.count()).group_by(schema.touches.c.company_id)
        ):
            if company is not None:
                assert asked <= company_quota(contacts[company], 0.2), "a company is over its share"
        for campaign, asked in tx.execute(
            select(schema.touches.c.campaign_id, func.count()).group_by(schema.touches.c.campaign_id)
        ):
            assert asked <= DAY_LIMIT, f"campaign {campaign} is over its day's limit"
        total = tx.scalar(select(func.count()).select_from(schema.touches))
        assert total == tx.scalar(select(func.count()).select_from(schema.deliveries))
    return total or 0


def test_fifty_threads_reserving_three_waves_at_once_double_nobody(store: Store, clock: FixedClock) -> None:
    seed(store)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            reserve_everybody(store, number % 3 + 1, clock.now_ms(), number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    # nobody who could be asked is left: everybody without a company, and each company's share
    free = sum(1 for number in range(PEOPLE) if not number % 3)
    sizes = Counter(number % COMPANIES for number in range(PEOPLE) if number % 3)
    assert check_ledger(store) == free + sum(company_quota(size, 0.2) for size in sizes.values())


def test_four_processes_reserving_at_once_double_nobody(store: Store, clock: FixedClock, tmp_path: Path) -> None:
    seed(store)
    start = tmp_path / "go"
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.storage.test_reservation", store.url, str(number), str(start)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    start.touch()
    reserved = [int(worker.communicate(timeout=120)[0]) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0, 0]
    assert check_ledger(store) == sum(reserved) > 600


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


def _worker(url: str, number: int, start: Path) -> None:
    from datetime import UTC, datetime

    while not start.exists():
        pass
    now = datetime(2026, 12, 1, 9, tzinfo=UTC)
    store = Store(url, FixedClock(now))
    print(reserve_everybody(store, number % 3 + 1, to_ms(now), number * 13)["reserved"])


if __name__ == "__main__":
    _worker(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
