"""Keeping house: what is old goes, what is needed stays, and a tick does not do it twice."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select

from core.clock import DAY_MS, FixedClock
from core.jobs import prune
from core.jobs.context import Context
from core.keyring import Keyring, UnknownKey
from core.storage import anonymous, leases, schema
from core.storage.anonymous import Sealed
from core.storage.store import Store
from tests.ledger import add_campaign, add_connection, add_person, add_wave
from tests.world import set_workspace


@pytest.fixture(autouse=True)
def workspace(store: Store) -> None:
    set_workspace(store, retention_days={"inbox": 10, "payloads": 20, "hits": 5})
    with store.write() as tx:
        add_connection(tx)


def add_request(store: Store, name: str, state: str, received_at: int) -> None:
    row = {"connection_id": 1, "delivery_id": name, "headers": {}, "body": b"{}", "due_at": 0, "state": state}
    with store.write() as tx:
        tx.execute(schema.inbox.insert().values(received_at=received_at, **row))


def add_delivery(store: Store, key: str, **values: Any) -> None:
    row = {"key": key, "kind": "send", "connection_id": 1, "due_at": 0, "created_at": 0, **values}
    with store.write() as tx:
        tx.execute(schema.deliveries.insert().values(**row))


def kept(store: Store, column: Any) -> set[Any]:
    with store.read() as tx:
        return set(tx.scalars(select(column)))


def test_requests_go_after_their_days_unless_they_are_still_to_be_applied(context: Context, clock: FixedClock) -> None:
    now = clock.now_ms()
    for state in ("done", "failed", "ready", "applying"):
        add_request(context.store, f"old {state}", state, now - 11 * DAY_MS)
        add_request(context.store, f"new {state}", state, now - 9 * DAY_MS)
    assert prune.run(context).done == 2
    gone = {"old done", "old failed"}
    names = {f"{age} {state}" for age in ("old", "new") for state in ("done", "failed", "ready", "applying")}
    assert kept(context.store, schema.inbox.c.delivery_id) == names - gone


def test_names_of_events_outlive_their_requests(context: Context, clock: FixedClock) -> None:
    now = clock.now_ms()
    with context.store.write() as tx:
        for days in (11, 89, 91):
            row = {"connection_id": 1, "key": f"{days}", "kind": "EmailBounced", "applied_at": now - days * DAY_MS}
            tx.execute(schema.events.insert().values(**row))
    assert prune.run(context).done == 1
    assert kept(context.store, schema.events.c.key) == {"11", "89"}


def test_finished_deliveries_forget_what_they_carried(context: Context, clock: FixedClock) -> None:
    now = clock.now_ms()
    old = now - 21 * DAY_MS
    for state in ("done", "failed", "unknown", "cancelled"):
        add_delivery(context.store, f"old {state}", state=state, payload={"token": "t"}, done_at=old)
    add_delivery(context.store, "new", state="done", payload={"token": "t"}, done_at=now - 19 * DAY_MS)
    add_delivery(context.store, "waiting", state="ready", payload={"token": "t"}, created_at=old)
    assert prune.run(context).done == 4
    with context.store.read() as tx:
        d = schema.deliveries.c
        assert set(tx.scalars(select(d.key).where(func.json_type(d.payload) == "object"))) == {"new", "waiting"}


def test_write_backs_of_records_that_are_no_more_go(context: Context, clock: FixedClock) -> None:
    with context.store.write() as tx:
        _, identity_id = add_person(tx)
    add_delivery(context.store, "kept", kind="write_back", identity_id=identity_id)
    add_delivery(context.store, "orphan", kind="write_back", identity_id=identity_id + 1)
    assert prune.run(context).done == 1
    assert kept(context.store, schema.deliveries.c.key) == {"kept"}


def test_hits_go_after_their_days(context: Context, clock: FixedClock) -> None:
    now = clock.now_ms()
    with context.store.write() as tx:
        for days in (4, 6):
            row = {"link_hash": bytes(32), "at": now - days * DAY_MS, "method": "GET"}
            tx.execute(schema.hits.insert().values(**row))
    assert prune.run(context).done == 1
    assert kept(context.store, schema.hits.c.at) == {now - 4 * DAY_MS}


def test_a_refused_write_back_is_tried_again_after_a_day(context: Context, clock: FixedClock) -> None:
    with context.store.write() as tx:
        _, identity_id = add_person(tx)
    values = {"kind": "write_back", "identity_id": identity_id, "state": "failed"}
    add_delivery(context.store, "refused", **values, done_at=clock.now_ms() - DAY_MS)
    add_delivery(context.store, "lately", **values, done_at=clock.now_ms() - DAY_MS + 1)
    assert prune.run(context).done == 1
    with context.store.read() as tx:
        ready = set(tx.scalars(select(schema.deliveries.c.key).where(schema.deliveries.c.state == "ready")))
    assert ready == {"refused"}


def seal_answers(context: Context, wave_state: str) -> None:
    said = Sealed(9, "Fast", None, "en", False, 1, {})
    with context.store.write() as tx:
        campaign = add_campaign(tx, anonymous=True)
        wave = add_wave(tx, campaign)
        tx.execute(schema.waves.update().values(state=wave_state))
        for number in range(1, anonymous.FLOOR + 1):
            row = {"id": number, "campaign_id": campaign, "wave_id": wave, "answer_hash": bytes([number]) * 32}
            sealed = anonymous._seal(context.keyring, number, said)
            tx.execute(schema.responses.insert().values(sealed=sealed, verdict="confirmed", signals={}, **row))


def test_anonymous_answers_are_opened_once_their_wave_is_over(context: Context, clock: FixedClock) -> None:
    seal_answers(context, "open")
    assert prune.run(context).done == 0
    with context.store.write() as tx:
        tx.execute(schema.waves.update().values(state="closed"))
    clock.advance(hours=1)
    assert prune.run(context).done == anonymous.FLOOR
    assert kept(context.store, schema.responses.c.score) == {9}


def test_a_lost_key_keeps_answers_closed_and_stops_nothing_else(context: Context, clock: FixedClock) -> None:
    seal_answers(context, "closed")
    add_request(context.store, "old", "done", clock.now_ms() - 11 * DAY_MS)
    context.keyring = Keyring({"k2": bytes(32)})
    with pytest.raises(UnknownKey, match="k1"):
        prune.run(context)
    assert kept(context.store, schema.inbox.c.id) == set()


def test_many_rows_go_in_small_transactions(context: Context, clock: FixedClock) -> None:
    old = clock.now_ms() - 11 * DAY_MS
    row = {"connection_id": 1, "headers": {}, "body": b"{}", "due_at": 0, "state": "done", "received_at": old}
    with context.store.write() as tx:
        tx.execute(schema.inbox.insert(), [row | {"delivery_id": str(number)} for number in range(1201)])
    assert prune.run(context).done == 1201
    assert kept(context.store, schema.inbox.c.id) == set()


def test_nothing_is_done_twice_within_an_hour(context: Context, clock: FixedClock) -> None:
    assert prune.run(context).done == 0
    add_request(context.store, "old", "done", clock.now_ms() - 11 * DAY_MS)
    assert prune.run(context).done == 0
    clock.advance(hours=1)
    assert prune.run(context).done == 1
    assert prune.run(context).done == 0


def test_it_leaves_the_work_to_a_process_that_is_at_it(context: Context, clock: FixedClock) -> None:
    add_request(context.store, "old", "done", clock.now_ms() - 11 * DAY_MS)
    with context.store.write() as tx:
        leases.acquire(tx, prune.NAME, "somebody", clock.now_ms(), 60_000)
    assert prune.run(context).done == 0
    clock.advance(minutes=1)
    assert prune.run(context).done == 1


def test_after_a_failure_it_comes_round_again_within_minutes(context: Context, clock: FixedClock) -> None:
    add_request(context.store, "old", "done", clock.now_ms() - 11 * DAY_MS)
    with context.store.write() as tx:
        tx.exec_driver_sql("ALTER TABLE events RENAME TO away")
    with pytest.raises(Exception, match="events"):
        prune.run(context)
    with context.store.write() as tx:
        tx.exec_driver_sql("ALTER TABLE away RENAME TO events")
    assert prune.run(context).done == 0  # not at once
    add_request(context.store, "older", "done", clock.now_ms() - 12 * DAY_MS)
    clock.advance(minutes=1)
    assert prune.run(context).done == 1


def test_without_a_workspace_the_usual_days_hold(context: Context, clock: FixedClock) -> None:
    with context.store.write() as tx:
        tx.execute(schema.workspace.delete())
    add_request(context.store, "old", "done", clock.now_ms() - 31 * DAY_MS)
    add_request(context.store, "new", "done", clock.now_ms() - 29 * DAY_MS)
    assert prune.run(context).done == 1
