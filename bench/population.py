"""A made-up population in a fresh database: people, companies, a history of asks. Seeded, so that runs compare."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

from core.clock import DAY_MS
from core.storage import schema
from core.storage.store import Store

CHUNK = 20_000
_PEOPLE = "INSERT INTO people (id, opted_out_at, source_opted_out) VALUES (?, ?, 0)"
_IDENTITIES = """INSERT INTO identities (id, person_id, connection_id, external_id, is_primary, email, address_hash,
    shared, company_id, first_name, last_name, language, country, customer_since, opted_out, attributes, digest)
    VALUES (?, ?, 1, ?, 1, ?, ?, 0, ?, ?, ?, ?, ?, ?, 0, ?, ?)"""
_GUARDS = "INSERT INTO message_guard (identity_id, last_message_at) VALUES (?, ?)"
_TOUCHES = """INSERT INTO touches (public_id, person_id, identity_id, company_id, campaign_id, wave_id, type, source,
    state, reserved_at, handed_over_at, asked_at, window_closes_at, answered_at, answered, asked_local_date)
    VALUES (?, ?, ?, ?, 1, NULL, 'nps', 'boucle', ?, ?, ?, ?, ?, ?, ?, ?)"""


def populate(store: Store, people: int, now: int, *, seed: int = 1, per_company: int = 20) -> None:
    """`people` persons with one record each: 3 % without address, 4 % opted out, 8 % too new, 60 % asked before."""
    schema.metadata.create_all(store.engine)
    choose = random.Random(seed)
    with store.write() as tx:
        tx.exec_driver_sql(
            "INSERT INTO connections (id, name, kind, config, changed_at) VALUES (1, 'crm', 'csv', '{}', 0)"
        )
        tx.exec_driver_sql(
            "INSERT INTO campaigns (id, name, type, config, created_at, changed_at) VALUES (1, 'r', 'nps', '{}', 0, 0)"
        )
        tx.exec_driver_sql(
            "INSERT INTO waves (id, campaign_id, number, state, opens_at, ends_at, counts)"
            " VALUES (1, 1, 1, 'closed', 0, 0, '{}')"
        )
        for start in range(1, people // per_company + 2, CHUNK):
            ids = range(start, min(start + CHUNK, people // per_company + 2))
            tx.exec_driver_sql(
                "INSERT INTO companies (id, key, name) VALUES (?, ?, ?)", [(i, f"c{i}", f"C{i}") for i in ids]
            )
    rows = _rows(people, now, choose, per_company)
    while chunk := list(islice(rows, CHUNK)):
        with store.write() as tx:
            tx.exec_driver_sql(_PEOPLE, [row[0] for row in chunk])
            tx.exec_driver_sql(_IDENTITIES, [row[1] for row in chunk])
            history = [touch for row in chunk for touch in row[2]]
            if history:
                tx.exec_driver_sql(_TOUCHES, history)
                last: dict[int, int] = {}
                for touch in history:
                    last[touch[2]] = max(last.get(touch[2], 0), touch[6])
                tx.exec_driver_sql(_GUARDS, list(last.items()))
    with store.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.exec_driver_sql("ANALYZE")


def _rows(people: int, now: int, choose: random.Random, per_company: int) -> Iterator[tuple[Any, Any, list[Any]]]:
    for i in range(1, people + 1):
        company = i // per_company + 1
        opted_out = now - 5 * DAY_MS if choose.random() < 0.04 else None
        address = None if choose.random() < 0.03 else i.to_bytes(16, "big")
        since = now - int((10 if choose.random() < 0.08 else 400) * DAY_MS * choose.random()) - DAY_MS
        plan = choose.choice(("free", "pro", "team", "trial"))
        record = (
            i, i, f"id-{i}", f"person{i}@company{company}.example", address, company,
            f"First{i % 900}", f"Last{i % 7000}",
            choose.choice(("fr", "en")), choose.choice(("FR", "BE", "DE", "US")), since,
            f'{{"plan": "{plan}"}}', i.to_bytes(16, "big"),
        )  # fmt: skip
        yield (i, opted_out), record, list(_history(i, company, now, choose))


def _history(person: int, company: int, now: int, choose: random.Random) -> Iterator[Any]:
    for number in range(choose.choice((0, 0, 1, 1, 2, 3))):
        asked = now - int(DAY_MS * (15 + 120 * number + 300 * choose.random()))
        closes = asked + 21 * DAY_MS
        answered = asked + DAY_MS if choose.random() < 0.2 else None
        state = "answered" if answered else ("silent" if closes <= now else "handed_over")
        day = "2026-01-01"
        yield (
            f"t{person}-{number}", person, person, company, state, asked, asked, asked, closes, answered,
            1 if answered else 0, day,
        )  # fmt: skip
