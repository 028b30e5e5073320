"""Rate buckets: calls of one account evenly spaced over all workers, and a "too much" that stops everybody on it."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from core.clock import DAY_MS, HOUR_MS, Clock, FixedClock
from core.storage import rates, schema
from core.storage.store import Store


def test_calls_are_spaced_evenly_and_do_not_burst(store: Store, clock: FixedClock) -> None:
    waits = [rates.take(store, "hub", 10, 0.5, clock) for _ in range(4)]
    assert waits == [0.0, 0.2, 0.4, 0.6]


def test_unused_time_is_not_saved_up(store: Store, clock: FixedClock) -> None:
    rates.take(store, "hub", 10, 1.0, clock)
    clock.advance(minutes=10)
    assert [rates.take(store, "hub", 10, 1.0, clock) for _ in range(3)] == [0.0, 0.1, 0.2]


def test_several_tokens_at_once_take_their_time(store: Store, clock: FixedClock) -> None:
    assert rates.take(store, "hub", 10, 1.0, clock, count=5) == 0.0
    assert rates.take(store, "hub", 10, 1.0, clock) == 0.5


def test_accounts_do_not_wait_for_each_other(store: Store, clock: FixedClock) -> None:
    assert [rates.take(store, account, 1, 1.0, clock) for account in ("a", "b")] == [0.0, 0.0]


def test_a_block_stops_everybody_on_the_account_and_nobody_else(store: Store, clock: FixedClock) -> None:
    now = clock.now_ms()
    with store.write() as tx:
        rates.block(tx, "a", now + 5_000)
        rates.block(tx, "a", now + 3_000)  # a shorter one takes nothing back
        assert (rates.blocked_for(tx, "a", now), rates.blocked_for(tx, "b", now)) == (5.0, 0.0)
    assert rates.take(store, "a", 10, 1.0, clock) == 5.0
    clock.advance(seconds=5)
    with store.read() as tx:
        assert rates.blocked_for(tx, "a", clock.now_ms()) == 0.0


def test_a_pace_of_a_call_every_few_hours_holds(store: Store, clock: FixedClock) -> None:
    per_second = 1 / (5 * 3600)
    assert [rates.take(store, "slow", per_second, 1.0, clock) for _ in range(3)] == [0.0, 18_000.0, 36_000.0]


def test_a_clock_that_was_set_back_stops_nobody(store: Store, clock: FixedClock) -> None:
    clock.advance(days=400)
    rates.take(store, "hub", 10, 1.0, clock)
    with store.write() as tx:
        rates.block(tx, "hub", clock.now_ms() + HOUR_MS)
    clock.advance(days=-400)
    assert rates.take(store, "hub", 10, 1.0, clock) == 0.0
    with store.read() as tx:
        assert rates.blocked_for(tx, "hub", clock.now_ms()) == 0.0


def test_a_block_of_more_than_a_day_is_taken_for_a_clock_that_was_set_back(store: Store, clock: FixedClock) -> None:
    with store.write() as tx:
        rates.block(tx, "hub", clock.now_ms() + 2 * DAY_MS)
        assert rates.blocked_for(tx, "hub", clock.now_ms()) == 0.0


@pytest.mark.parametrize("per_second", [0, -1])
def test_a_rate_of_nothing_is_refused(store: Store, clock: FixedClock, per_second: float) -> None:
    with pytest.raises(ValueError, match="more than nothing"):
        rates.take(store, "hub", per_second, 1.0, clock)


def _take_many(url: str, at: FixedClock, number: int, results: multiprocessing.Queue[list[float]]) -> None:
    store = Store(url, at)
    results.put([rates.take(store, "hub", 50, 1.0, at) for _ in range(number)])
    store.close()


def test_two_processes_share_the_pace_of_an_account(tmp_path: Path, clock: FixedClock) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    store = Store(url, Clock())
    schema.metadata.create_all(store.engine)
    store.close()
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    processes = [spawn.Process(target=_take_many, args=(url, clock, 40, results)) for _ in range(2)]
    for process in processes:
        process.start()
    waits = sorted([wait for _ in processes for wait in results.get(timeout=60)])
    for process in processes:
        process.join()
    assert waits == [number * 20 / 1000 for number in range(80)]  # each moment once, none left out
