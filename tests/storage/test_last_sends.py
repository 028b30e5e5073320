"""What the brakes look at: the last messages in the order they left, which is not the order they were reserved in."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event

from core.storage import brakes
from core.storage.brakes import Record
from core.storage.store import Store
from core.touches import TouchState
from tests.ledger import add_campaign, add_touch

CAMPAIGN = 1
BOUNCED = {"state": "returned", "reason": "bounced"}
REFUSED = {"state": "returned", "reason": "refused"}
TAKEN = {"state": "handed_over"}


@pytest.fixture(autouse=True)
def campaign(store: Store) -> None:
    with store.write() as tx:
        assert add_campaign(tx) == CAMPAIGN


def leave(store: Store, claimed_at: int | None, **values: Any) -> None:
    """A message that was claimed then, and what became of it."""
    with store.write() as tx:
        row = {"campaign_id": CAMPAIGN, "claimed_at": claimed_at, "address_hash": b"ada", **values}
        add_touch(tx, 1, TouchState(row.pop("state")), 100, **row)


def last(store: Store, since: int = 0, limit: int = 500) -> Record:
    with store.read() as tx:
        return brakes.last_sends(tx, CAMPAIGN, since, limit)


def test_messages_refused_last_are_in_a_row_though_they_were_reserved_first(store: Store) -> None:
    for number in range(3):
        leave(store, 2_000 + number, **REFUSED)  # the west wakes up last
    for number in range(5):
        leave(store, 1_000 + number, **TAKEN)
    assert last(store) == Record(sends=8, bounces=0, complaints=0, refusals=3)


def test_only_the_last_to_leave_are_counted(store: Store) -> None:
    for number in range(4):
        leave(store, 2_000 + number, **TAKEN)
    for number in range(4):
        leave(store, 1_000 + number, **BOUNCED)
    assert last(store, limit=4) == Record(sends=4, bounces=0, complaints=0, refusals=0)
    assert last(store, limit=5).bounces == 1


def test_what_left_before_is_not_held_against_it(store: Store) -> None:
    leave(store, 1_000, **BOUNCED)
    leave(store, 2_000, **TAKEN)
    assert last(store, since=1_000) == Record(sends=1, bounces=0, complaints=0, refusals=0)


def test_what_has_not_left_is_not_counted(store: Store) -> None:
    leave(store, None, state="reserved")
    leave(store, 1_000, state="reserved")  # it is leaving now
    leave(store, 1_000, state="returned", reason="cancelled")
    leave(store, 1_000, source="test", **BOUNCED)
    assert last(store) == Record(0, 0, 0, 0)


def test_those_that_wait_are_not_looked_through(store: Store) -> None:
    plans: list[Any] = []

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "LIMIT" in statement:
            plans.extend(connection.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall())

    event.listen(store.engine, "before_cursor_execute", explain)
    last(store)
    assert any("ix_touches_sent" in row[-1] for row in plans), plans
