"""Many reserve at once: nobody twice, no company over its share, no day over its limit (FREQUENCY.md).

What became of it is judged by `Oracle`: plain SQL over the touches in the file, which shares no code with `core`.
"""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from core.clock import DAY_MS, FixedClock, to_ms
from core.frequency import limits
from core.storage import planning, reservation
from core.storage.store import Store
from core.touches import TouchState
from core.workspace import Campaign, Quarantine
from tests.ledger import add_campaign, add_company, add_connection, add_person, add_touch, add_wave

CAMPAIGNS, PEOPLE, COMPANIES, SHARED = 3, 1200, 50, 40
DAY_LIMITS = {1: 150, 2: 1000, 3: 70}
NOW = to_ms(datetime(2026, 12, 1, 9, tzinfo=UTC))
DAY_BEGAN = NOW - DAY_MS // 3


def seed(store: Store, number: int) -> None:
    """Three campaigns that want the same people; companies of several sizes, mailboxes of two, a history, opt-outs."""
    choose = random.Random(number)
    with store.write() as tx:
        add_connection(tx)
        add_connection(tx, "mail", "mailbox")
        for campaign in range(1, CAMPAIGNS + 1):
            add_wave(tx, add_campaign(tx, f"campaign{campaign}"))
        companies = [add_company(tx, f"Company {company}") for company in range(COMPANIES)]
        for person in range(PEOPLE):
            company = companies[int(COMPANIES * choose.random() ** 2)] if choose.random() < 0.8 else None
            shared = person < SHARED
            person_id, identity_id = add_person(
                tx,
                company_id=company,
                email=f"desk{person // 2}@acme.example" if shared else "",
                shared=shared,
                opted_out_at=1 if choose.random() < 0.05 else None,
            )
            if choose.random() < 0.2:
                at = NOW - round(choose.uniform(1, 200) * DAY_MS)
                add_touch(
                    tx, person_id, choose.choice((TouchState.HANDED_OVER, TouchState.UNKNOWN, TouchState.RETURNED)), at,
                    identity_id=identity_id, company_id=company, window_closes_at=at + 21 * DAY_MS, campaign_id=1,
                )  # fmt: skip


def reserve_everybody(store: Store, campaign: int, worker: int) -> int:
    """One worker: everybody for one campaign in batches, in an order of its own."""
    settings = Campaign(name="r", source=("crm",), sender="mail", every_days=90)
    scope = planning.Scope(
        limits(Quarantine(), settings, campaign), [1], settings.who, NOW, ZoneInfo("Europe/Paris"), wave_id=campaign
    )
    quota = reservation.Quota(campaign, campaign, "nps", 2, 21 * DAY_MS, DAY_LIMITS[campaign], DAY_BEGAN)
    people = list(range(1, PEOPLE + 1))
    random.Random(worker).shuffle(people)
    reserved = 0
    with store.session() as session:
        with session.read() as tx:
            recheck = reservation.prepare(tx, scope)
        for start in range(0, PEOPLE, reservation.BATCH):
            with session.reservation() as tx:
                batch = people[start : start + reservation.BATCH]
                reserved += reservation.reserve(tx, recheck, quota, batch, NOW).touches
    return reserved


class Oracle:
    """Plain SQL over the file."""

    def __init__(self, store: Store) -> None:
        self._db = sqlite3.connect(store.url.removeprefix("sqlite:///"))

    def rows(self, statement: str) -> list[tuple[int, ...]]:
        return self._db.execute(statement).fetchall()

    def complaints(self) -> list[str]:
        found = []
        found += [f"person {p} was reserved {n} times" for p, n in self.rows(TWICE)]
        found += [f"person {p} was asked {days} days before" for p, days in self.rows(TOO_SOON)]
        found += [f"person {p} had opted out" for (p,) in self.rows(OPTED_OUT)]
        found += [f"mailbox of person {p} was asked {n} times" for p, n in self.rows(MAILBOX)]
        found += [f"company {c}: {n} asked, {k} allowed" for c, n, k in self.rows(OVER_SHARE)]
        found += [f"campaign {c}: {n} of {DAY_LIMITS[c]}" for c, n in self.rows(TODAY) if n > DAY_LIMITS[c]]
        found += [f"touch {t} has {n} messages" for t, n in self.rows(MESSAGES)]
        self._db.close()
        return found


TODAY = "SELECT campaign_id, count(*) FROM touches WHERE state = 'reserved' GROUP BY 1"
TWICE = "SELECT person_id, count(*) FROM touches WHERE state = 'reserved' GROUP BY 1 HAVING count(*) > 1"
TOO_SOON = """
    SELECT a.person_id, (b.asked_at - a.asked_at) / 86400000.0 FROM touches a JOIN touches b USING (person_id)
    WHERE b.state = 'reserved' AND a.state IN ('handed_over', 'unknown')
    AND b.asked_at - a.asked_at < 86400000 * (CASE WHEN a.state = 'unknown' OR a.campaign_id = b.campaign_id
        OR a.window_closes_at > b.asked_at THEN 90 ELSE 60 END)
"""
OPTED_OUT = """
    SELECT person_id FROM touches JOIN people p ON p.id = person_id
    WHERE state = 'reserved' AND p.opted_out_at IS NOT NULL
"""
MAILBOX = """
    SELECT min(t.person_id), count(*) FROM touches t JOIN identities i ON i.id = t.identity_id
    WHERE t.state = 'reserved' AND i.shared GROUP BY i.address_hash HAVING count(*) > 1
"""
OVER_SHARE = """
    WITH sizes AS (
        SELECT company_id, max(1, count(*) / 5) AS k FROM identities i JOIN people p ON p.id = i.person_id
        WHERE p.opted_out_at IS NULL AND i.address_hash IS NOT NULL GROUP BY 1
    ), asked AS (
        SELECT company_id, count(DISTINCT person_id) AS n, max(state = 'reserved') AS ours FROM touches
        WHERE state <> 'returned' AND asked_at > 1796115600000 - 30 * 86400000 GROUP BY 1
    ), before AS (
        SELECT company_id, count(DISTINCT person_id) AS n FROM touches
        WHERE state NOT IN ('returned', 'reserved') AND asked_at > 1796115600000 - 30 * 86400000 GROUP BY 1
    )
    SELECT company_id, asked.n, max(k, ifnull(before.n, 0)) FROM asked JOIN sizes USING (company_id)
    LEFT JOIN before USING (company_id) WHERE ours AND asked.n > max(k, ifnull(before.n, 0))
"""
MESSAGES = """
    SELECT t.id, count(d.id) FROM touches t
    LEFT JOIN deliveries d ON d.touch_id = t.id AND d.key = t.public_id || ':invite'
    WHERE t.state = 'reserved' GROUP BY t.id HAVING count(d.id) <> 1
"""


def left_over(store: Store) -> Counter[str]:
    """What one more worker per campaign gets when all are done: nothing, if nobody was forgotten."""
    return Counter({str(campaign): reserve_everybody(store, campaign, 99) for campaign in DAY_LIMITS})


@pytest.mark.parametrize("number", [1, 2])
def test_fifty_threads_double_nobody_and_overrun_no_share_and_no_day(store: Store, number: int) -> None:
    seed(store, number)
    failures: list[BaseException] = []
    reserved: list[int] = []
    gate = threading.Barrier(50)

    def work(worker: int) -> None:
        try:
            gate.wait()
            reserved.append(reserve_everybody(store, worker % CAMPAIGNS + 1, worker))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    assert +left_over(store) == Counter()
    assert Oracle(store).complaints() == []
    assert sum(reserved) > 250


def test_four_processes_double_nobody_and_overrun_no_share_and_no_day(store: Store, tmp_path: Path) -> None:
    seed(store, 3)
    start = tmp_path / "go"
    command = [sys.executable, "-m", "tests.storage.test_concurrency", store.url, str(start)]
    workers = [subprocess.Popen([*command, str(worker)], stdout=subprocess.PIPE, text=True) for worker in range(4)]
    start.touch()
    reserved = [int(worker.communicate(timeout=120)[0]) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0, 0]
    assert +left_over(store) == Counter()
    assert Oracle(store).complaints() == []
    assert sum(reserved) > 250


def test_the_oracle_sees_what_it_is_to_see(store: Store) -> None:
    seed(store, 4)
    with store.write() as tx:
        for _ in range(2):  # each person once for each of two campaigns, whatever the rules say
            for person in range(1, PEOPLE + 1):
                tx.exec_driver_sql(
                    "INSERT INTO touches (public_id, person_id, identity_id, company_id, campaign_id, state, asked_at)"
                    " SELECT 'x', person_id, id, company_id, 1, 'reserved', ? FROM identities WHERE id = ?",
                    (NOW, person),
                )
    complaints = Oracle(store).complaints()
    for kind in ("reserved 2 times", "days before", "had opted out", "mailbox of", "allowed", "of 150", "0 messages"):
        assert any(kind in complaint for complaint in complaints), kind


def _worker(url: str, start: Path, worker: int) -> None:
    store = Store(url, FixedClock(datetime(2026, 12, 1, 9, tzinfo=UTC)))
    while not start.exists():
        pass
    print(sum(reserve_everybody(store, (worker + turn) % CAMPAIGNS + 1, worker) for turn in range(CAMPAIGNS)))


if __name__ == "__main__":
    _worker(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
