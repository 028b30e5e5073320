"""The sweep: it finds what is due in the rows alone, and costs next to nothing when nothing is."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import event

from core.clock import FixedClock
from core.jobs import apply_inbox, close_windows, deliver, plan_waves, prune, push_scores, sweep, sync_contacts, tick
from core.jobs.context import Context
from core.storage import inbox, leases, schema, status
from core.storage.store import Store
from tests.ledger import add_connection

#: These look for themselves, at each sweep.
ALWAYS = {sync_contacts.NAME, plan_waves.NAME}


def swept(context: Context) -> set[str]:
    started: list[str] = []
    assert sweep.run(context, started.append) == started
    return set(started)


def settle(context: Context) -> None:
    """What runs by time alone has just run."""
    with context.store.write() as tx:
        for name in (prune.NAME, sweep.turn_name(close_windows.NAME)):
            leases.finish(tx, name, "somebody", context.clock.now_ms())


def add_delivery(store: Store, kind: str, **values: Any) -> None:
    row = {"key": f"{kind}:1", "kind": kind, "connection_id": 1, "due_at": 0, "created_at": 0, **values}
    with store.write() as tx:
        add_connection(tx)
        tx.execute(schema.deliveries.insert().values(**row))


def test_every_use_case_of_a_tick_is_swept_as_well() -> None:
    assert set(sweep.USE_CASES) == set(tick.JOBS)


def test_every_use_case_wakes_only_those_there_are() -> None:
    for use_case in sweep.USE_CASES.values():
        assert set(use_case.then) <= set(sweep.USE_CASES)


def test_with_nothing_due_only_those_are_started_that_look_themselves(context: Context) -> None:
    settle(context)
    assert swept(context) == ALWAYS


def test_a_request_in_the_inbox_is_due(context: Context) -> None:
    settle(context)
    with context.store.write() as tx:
        inbox.receive(tx, add_connection(tx), "d1", {}, b"{}", context.clock.now_ms())
    assert swept(context) == ALWAYS | {apply_inbox.NAME}


@pytest.mark.parametrize(("kind", "job"), [("send", deliver.NAME), ("write_back", push_scores.NAME)])
def test_a_delivery_is_due_when_its_time_has_come(context: Context, clock: FixedClock, kind: str, job: str) -> None:
    settle(context)
    add_delivery(context.store, kind, due_at=clock.now_ms() + 5_000)
    assert swept(context) == ALWAYS
    clock.advance(seconds=5)
    assert swept(context) == ALWAYS | {job}


def test_what_a_dead_worker_left_behind_is_due(context: Context) -> None:
    settle(context)
    add_delivery(context.store, "send", state="sending", owner="somebody", lease_until=context.clock.now_ms() + 60_000)
    assert swept(context) == ALWAYS | {deliver.NAME}


def test_windows_are_looked_at_once_a_minute(context: Context, clock: FixedClock) -> None:
    settle(context)
    clock.advance(seconds=59)
    assert close_windows.NAME not in swept(context)
    clock.advance(seconds=1)
    assert close_windows.NAME in swept(context)


def test_housekeeping_is_due_once_an_hour(context: Context, clock: FixedClock) -> None:
    settle(context)
    clock.advance(minutes=59)
    assert prune.NAME not in swept(context)
    clock.advance(minutes=1)
    assert prune.NAME in swept(context)


def test_a_clock_that_was_set_back_stops_nothing(context: Context, clock: FixedClock) -> None:
    clock.advance(days=91)
    settle(context)
    sweep.run(context, lambda name: None)
    clock.advance(days=-91)
    assert {prune.NAME, close_windows.NAME} <= swept(context)
    with context.store.read() as tx:
        assert status.last_sweep_at(tx) == clock.now_ms()


def test_the_end_of_a_sweep_is_written_down_often_enough(context: Context, clock: FixedClock) -> None:
    for _ in range(20):
        sweep.run(context, lambda name: None)
        with context.store.read() as tx:
            at = status.last_sweep_at(tx)
        assert at is not None
        assert clock.now_ms() - at < 20_000  # /readyz minds after 60 s
        clock.advance(seconds=5)


def test_a_sweep_that_cannot_look_is_not_written_down(context: Context) -> None:
    with context.store.write() as tx:
        tx.exec_driver_sql("ALTER TABLE inbox RENAME TO away")
    with pytest.raises(Exception, match="inbox"):
        sweep.run(context, lambda name: None)
    with context.store.read() as tx:
        assert status.last_sweep_at(tx) is None


def test_an_idle_sweep_reads_a_few_rows_and_writes_nothing(context: Context, clock: FixedClock) -> None:
    settle(context)
    swept(context)
    clock.advance(seconds=5)
    statements: Counter[str] = Counter()

    def count(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        statements[statement.split(None, 1)[0]] += 1

    event.listen(context.store.engine, "before_cursor_execute", count)
    swept(context)
    logging.getLogger("tests").info("an idle sweep: %s", dict(statements))
    assert statements["SELECT"] <= 10
    assert set(statements) <= {"SELECT", "BEGIN"}
