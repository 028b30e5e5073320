"""Write-backs in the database: level-triggered rows, claimed in heaps, ended by whoever holds the fence."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import pytest

from core.clock import DAY_MS, FixedClock
from core.storage import deliveries, schema, write_backs
from core.storage.store import Store
from core.storage.write_backs import Claimed, Finished, Postponed
from core.touches import TouchState
from core.writeback import Written
from tests.jobs.mailing import ADA, BO, CLEO, CRM, MAIL, Asked, Town

NOW = 1_000
UTC = ZoneInfo("UTC")


@pytest.fixture
def town(store: Store, clock: FixedClock) -> Town:
    return Town(store, clock)


def behind(town: Town, *people: Asked, now: int = NOW) -> None:
    with town.store.write() as tx:
        deliveries.request_write_back(tx, [one.person_id for one in people], now)


def claim(town: Town, owner: str = "me", now: int = NOW, limit: int = 100) -> list[Claimed]:
    with town.store.write() as tx:
        return write_backs.claim(tx, CRM, owner, now, now + 60_000, limit)


def finish(town: Town, *finished: Finished, now: int = NOW) -> None:
    with town.store.write() as tx:
        write_backs.finish(tx, finished, now)


def row_of(town: Town, claimed: Claimed) -> Any:
    return town.row(schema.deliveries, claimed.delivery_id)


# --- the claim --------------------------------------------------------------------------------------------------------


def test_records_behind_are_claimed_once_the_longest_due_first(town: Town) -> None:
    ada, bo, cleo = town.invite(ADA), town.invite(BO), town.invite(CLEO)
    behind(town, bo, now=NOW - 2)
    behind(town, ada, now=NOW - 1)
    behind(town, cleo, now=NOW + 1)
    assert [one.person_id for one in claim(town, limit=1)] == [bo.person_id]
    (second,) = claim(town, "another")
    assert (second.person_id, second.fence, second.attempts, second.version) == (ada.person_id, 1, 1, 1)
    assert claim(town) == []


def test_messages_and_other_connections_are_left_alone(town: Town) -> None:
    town.invite(ADA)
    with town.store.write() as tx:
        assert write_backs.claim(tx, CRM, "me", 2**50, 2**51, 10) == []
        assert write_backs.claim(tx, MAIL, "me", 2**50, 2**51, 10) == []


def test_what_was_written_last_and_what_the_source_showed_come_with_the_claim(town: Town) -> None:
    ada = town.invite(ADA, last_surveyed_seen="2026-11-01")
    town.change(schema.connections, CRM, synced_at=77)
    behind(town, ada)
    (claimed,) = claim(town)
    assert (claimed.written, claimed.shown.last_surveyed_at, claimed.shown.read_at) == (Written(), "2026-11-01", 77)
    written = Written(5, 4, ("nps_score",))
    finish(town, Finished(claimed, written))
    behind(town, ada)
    assert claim(town)[0].written == written


# --- outcomes ---------------------------------------------------------------------------------------------------------


def test_done_when_nothing_newer_is_wanted(town: Town) -> None:
    behind(town, town.invite(ADA))
    (claimed,) = claim(town)
    finish(town, Finished(claimed, Written(NOW)))
    row = row_of(town, claimed)
    assert (row.state, row.done_version, row.wanted_version, row.attempts, row.done_at) == ("done", 1, 1, 0, NOW)
    with town.store.read() as tx:
        assert write_backs.behind(tx) == {}


@pytest.mark.parametrize("written", [Written(NOW), None], ids=["written", "refused"])
def test_ready_again_when_something_newer_was_asked_for_meanwhile(town: Town, written: Written | None) -> None:
    ada = town.invite(ADA)
    behind(town, ada)
    (claimed,) = claim(town)
    behind(town, ada)
    finish(town, Finished(claimed, written, "" if written else "refused"), now=NOW + 5)
    row = row_of(town, claimed)
    assert (row.state, row.due_at, row.done_version) == ("ready", NOW + 5, 1 if written else 0)
    with town.store.read() as tx:
        assert write_backs.behind(tx) == {CRM: 1}


def test_refused_is_failed_in_the_vendors_words_and_shown_as_behind(town: Town) -> None:
    behind(town, town.invite(ADA))
    (claimed,) = claim(town)
    finish(town, Finished(claimed, None, "no such field " + "x" * 900))
    row = row_of(town, claimed)
    assert (row.state, len(row.error)) == ("failed", deliveries.ERROR_LENGTH)
    with town.store.read() as tx:
        assert write_backs.behind(tx) == {CRM: 1}


def test_an_outcome_under_an_old_fence_says_nothing(town: Town) -> None:
    behind(town, town.invite(ADA))
    (old,) = claim(town)
    with town.store.write() as tx:
        write_backs.put_back(tx, [Postponed(old.delivery_id, old.fence, NOW)])
    (new,) = claim(town, "successor")
    finish(town, Finished(old, Written(NOW)))
    with town.store.write() as tx:
        write_backs.put_back(tx, [Postponed(old.delivery_id, old.fence, NOW, "late")])
    row = row_of(town, new)
    assert (row.state, row.owner, row.fence, row.error) == ("sending", "successor", 2, "")


@pytest.mark.parametrize(("tried", "attempts"), [(True, 1), (False, 0)])
def test_put_back_it_is_due_when_said(town: Town, tried: bool, attempts: int) -> None:
    behind(town, town.invite(ADA))
    (claimed,) = claim(town)
    with town.store.write() as tx:
        write_backs.put_back(tx, [Postponed(claimed.delivery_id, claimed.fence, NOW + 9, "later", tried)])
    row = row_of(town, claimed)
    assert (row.state, row.due_at, row.error, row.attempts, row.lease_until) == (
        "ready", NOW + 9, "later", attempts, None,
    )  # fmt: skip


def test_refused_ones_are_found_after_a_day_and_ready_again(town: Town) -> None:
    behind(town, town.invite(ADA))
    (claimed,) = claim(town)
    finish(town, Finished(claimed, None, "refused"))
    with town.store.write() as tx:
        assert write_backs.refused_long_ago(tx, NOW + DAY_MS - 1, 10) == []
        found = write_backs.refused_long_ago(tx, NOW + DAY_MS, 10)
        assert found == [claimed.delivery_id]
        assert write_backs.retry_failed(tx, found, NOW + DAY_MS) == 1
        assert write_backs.retry_failed(tx, found, NOW + DAY_MS) == 0
    assert len(claim(town, now=NOW + DAY_MS)) == 1


# --- the values -------------------------------------------------------------------------------------------------------


def read(town: Town, asked: Asked) -> Any:
    with town.store.read() as tx:
        return write_backs.read_ledger(tx, [asked.person_id], (), UTC, town.clock.now_ms())[asked.person_id]


def add_answer(town: Town, asked: Asked, number: int, **values: Any) -> None:
    row = {"id": number, "campaign_id": 1, "person_id": asked.person_id, "verdict": "confirmed", "signals": []}
    with town.store.write() as tx:
        tx.execute(schema.responses.insert().values({**row, "score": 9, "answered_at": number, **values}))


def test_the_latest_confirmed_answer_is_shown(town: Town) -> None:
    ada = town.invite(ADA)
    assert read(town, ada).answer is None
    add_answer(town, ada, 5, score=3, comment="slow")
    add_answer(town, ada, 9, score=9)
    add_answer(town, ada, 10, score=0, verdict="suspect")
    add_answer(town, ada, 11, score=1, verdict="dismissed")
    add_answer(town, ada, 12, score=None)
    answer = read(town, ada).answer
    assert (answer.score, answer.comment, answer.answered_at) == (9, None, 9)


@pytest.mark.parametrize("state", [state for state in TouchState if state is not TouchState.PLANNED], ids=str)
def test_the_date_is_that_of_the_last_ask_that_left_or_may_have(town: Town, state: TouchState) -> None:
    ada = town.invite(ADA)
    town.change(schema.touches, ada.touch_id, state=state)
    left = state not in (TouchState.RESERVED, TouchState.RETURNED)
    assert read(town, ada).last_surveyed_at == (town.clock.now_ms() if left else None)
