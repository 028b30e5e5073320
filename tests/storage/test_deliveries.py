"""Deliveries in the database: outcomes by whoever holds the fence, write-backs asked for, what was left behind."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from sqlalchemy import select

from core.clock import FixedClock
from core.deliveries import TRANSITIONS, DeliveryState
from core.processes import this_process
from core.storage import deliveries, schema
from core.storage.store import Store
from tests.jobs.mailing import ADA, BO, CRM, MAIL, Asked, Town
from tests.ledger import add_campaign, add_connection, add_person

NOW = 1_000


@pytest.fixture
def town(store: Store, clock: FixedClock) -> Town:
    return Town(store, clock)


@pytest.fixture
def claimed(town: Town) -> Asked:
    """Ada's invitation, being sent under fence 4."""
    ada = town.invite(ADA)
    values = {"fence": 4, "attempts": 2, "lease_until": NOW, "payload": {"token": "t"}}
    town.change(schema.deliveries, ada.delivery_id, state="sending", **values)
    return ada


# --- outcomes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", sorted(TRANSITIONS[DeliveryState.SENDING] - {DeliveryState.READY}))
def test_the_holder_of_the_fence_ends_the_claim_and_the_token_goes(
    town: Town, claimed: Asked, state: DeliveryState
) -> None:
    with town.store.write() as tx:
        assert deliveries.settle(tx, claimed.delivery_id, 4, state, NOW, vendor_ref="r", error="x" * 900)
    row = town.delivery(claimed)
    assert (row.state, row.lease_until, row.payload, row.done_at, row.vendor_ref) == (state, None, None, NOW, "r")
    assert len(row.error) == deliveries.ERROR_LENGTH


@pytest.mark.parametrize("fence", [3, 5])
def test_nobody_else_ends_it(town: Town, claimed: Asked, fence: int) -> None:
    before = town.delivery(claimed)
    with town.store.write() as tx:
        assert not deliveries.settle(tx, claimed.delivery_id, fence, DeliveryState.DONE, NOW)
        assert not deliveries.put_back(tx, claimed.delivery_id, fence, NOW)
    assert town.delivery(claimed) == before


def test_what_has_ended_is_not_ended_again(town: Town, claimed: Asked) -> None:
    with town.store.write() as tx:
        assert deliveries.settle(tx, claimed.delivery_id, 4, DeliveryState.DONE, NOW)
        assert not deliveries.settle(tx, claimed.delivery_id, 4, DeliveryState.UNKNOWN, NOW)
        assert not deliveries.put_back(tx, claimed.delivery_id, 4, NOW)
    assert town.delivery(claimed).state == "done"


@pytest.mark.parametrize(("tried", "attempts"), [(True, 2), (False, 1)])
def test_a_claim_put_back_is_ready_again(town: Town, claimed: Asked, tried: bool, attempts: int) -> None:
    with town.store.write() as tx:
        assert deliveries.put_back(tx, claimed.delivery_id, 4, NOW + 5, "later", tried=tried)
    row = town.delivery(claimed)
    assert (row.state, row.due_at, row.error, row.attempts) == ("ready", NOW + 5, "later", attempts)
    assert row.payload == {"token": "t"}  # the same link next time


def test_only_what_is_in_doubt_is_settled_by_news(town: Town, claimed: Asked) -> None:
    with town.store.write() as tx:
        assert not deliveries.settle_doubt(tx, claimed.delivery_id, NOW)
        deliveries.settle(tx, claimed.delivery_id, 4, DeliveryState.UNKNOWN, NOW, payload={"guarded_at": 1})
        assert deliveries.settle_doubt(tx, claimed.delivery_id, NOW + 1, "ref")
    row = town.delivery(claimed)
    assert (row.state, row.done_at, row.vendor_ref, row.payload) == ("done", NOW + 1, "ref", None)


def test_sends_that_are_leaving_are_not_cancelled(town: Town, claimed: Asked) -> None:
    bo = town.invite(BO)
    with town.store.write() as tx:
        deliveries.cancel_ready_sends(tx, [claimed.touch_id, bo.touch_id], NOW)
    assert (town.delivery(claimed).state, town.delivery(bo).state) == ("sending", "cancelled")


# --- asking for write-backs -------------------------------------------------------------------------------------------


def write_backs(town: Town) -> list[Any]:
    return [row for row in town.rows(schema.deliveries) if row.kind == "write_back"]


def request(town: Town, *people: int, now: int = NOW) -> None:
    with town.store.write() as tx:
        deliveries.request_write_back(tx, people, now)


def test_asked_for_often_it_is_one_row_counted_up(town: Town) -> None:
    ada = town.invite(ADA)
    request(town, ada.person_id)
    request(town, ada.person_id, now=NOW + 5)
    (row,) = write_backs(town)
    assert (row.wanted_version, row.done_version, row.state, row.due_at) == (2, 0, "ready", NOW)
    assert (row.connection_id, row.identity_id, row.key) == (CRM, ada.identity_id, f"write_back:1:{ada.identity_id}")


def test_one_that_is_being_written_stays_so_and_wants_more(town: Town) -> None:
    ada = town.invite(ADA)
    request(town, ada.person_id)
    (row,) = write_backs(town)
    town.change(schema.deliveries, row.id, state="sending", attempts=3)
    request(town, ada.person_id)
    (row,) = write_backs(town)
    assert (row.state, row.wanted_version, row.attempts) == ("sending", 2, 3)


@pytest.mark.parametrize("state", ["done", "failed"])
def test_one_that_has_ended_is_ready_again_with_fresh_attempts(town: Town, state: str) -> None:
    ada = town.invite(ADA)
    request(town, ada.person_id)
    (row,) = write_backs(town)
    town.change(schema.deliveries, row.id, state=state, attempts=5, done_version=1)
    request(town, ada.person_id, now=NOW + 9)
    (row,) = write_backs(town)
    assert (row.state, row.attempts, row.due_at, row.wanted_version) == ("ready", 0, NOW + 9, 2)


def test_every_live_record_in_a_target_shows_it_and_no_other(town: Town) -> None:
    with town.store.write() as tx:
        hub, other = add_connection(tx, "hub", "hubspot"), add_connection(tx, "other")
        add_campaign(tx, "second", {"name": "second", "source": ["crm"], "sender": "mail", "write_back": "hub"})
        person_id, _ = add_person(tx, CRM)
        add_person(tx, hub, person_id=person_id)
        add_person(tx, other, person_id=person_id)
        add_person(tx, hub, person_id=person_id, gone_at=1)
        assert deliveries.write_back_targets(tx) == [CRM, hub]
    request(town, person_id)
    assert sorted(row.connection_id for row in write_backs(town)) == [CRM, hub]


def test_campaigns_and_connections_that_were_removed_are_no_targets(town: Town) -> None:
    with town.store.write() as tx:
        tx.execute(schema.connections.update().where(schema.connections.c.id == CRM).values(state="removed"))
        assert deliveries.write_back_targets(tx) == []
        tx.execute(schema.connections.update().values(state="ok"))
        tx.execute(schema.campaigns.update().values(state="removed"))
        assert deliveries.write_back_targets(tx) == []


def test_nobody_and_nowhere_ask_for_nothing(town: Town) -> None:
    ada = town.invite(ADA)
    with town.store.write() as tx:
        deliveries.request_write_back(tx, [], NOW)
        deliveries.request_write_back(tx, [ada.person_id], NOW, targets=[])
    assert write_backs(town) == []


# --- what was left behind ---------------------------------------------------------------------------------------------


def owner_that_is_gone() -> str:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        pid = process.pid
    return f"{this_process().rpartition(':')[0].rpartition(':')[0]}:{pid}:1"


@pytest.mark.parametrize(
    ("lease_until", "owner", "left"),
    [(NOW, "elsewhere:1:1", True), (NOW + 1, "elsewhere:1:1", False), (NOW + 1, this_process(), False)],
    ids=["lease over", "lease stands", "alive"],
)
def test_a_claim_is_left_behind_when_its_lease_is_over(
    town: Town, claimed: Asked, lease_until: int, owner: str, left: bool
) -> None:
    town.change(schema.deliveries, claimed.delivery_id, lease_until=lease_until, owner=owner)
    with town.store.read() as tx:
        found = deliveries.stranded(tx, MAIL, "send", NOW)
    assert [one.key for one in found] == ([claimed.key] if left else [])


def test_a_claim_of_a_process_that_is_gone_is_left_behind_at_once(town: Town, claimed: Asked) -> None:
    town.change(schema.deliveries, claimed.delivery_id, lease_until=NOW + 60_000, owner=owner_that_is_gone())
    with town.store.read() as tx:
        (found,) = deliveries.stranded(tx, MAIL, "send", NOW)
        assert (found.key, found.fence, found.touch_id, found.person_id) == (
            claimed.key, 4, claimed.touch_id, claimed.person_id,
        )  # fmt: skip
        assert deliveries.stranded(tx, CRM, "send", NOW) == []
        assert deliveries.stranded(tx, MAIL, "write_back", NOW) == []


def test_who_has_work_is_who_has_something_due_or_left_behind(town: Town, claimed: Asked) -> None:
    with town.store.write() as tx:
        assert deliveries.connections_with_work(tx, "send", 0) == [MAIL]
        tx.execute(schema.deliveries.update().values(state="done"))
        assert deliveries.connections_with_work(tx, "send", 2**50) == []


# --- for people -------------------------------------------------------------------------------------------------------


def test_failed_write_backs_are_replayed_and_messages_are_not(town: Town, claimed: Asked) -> None:
    request(town, claimed.person_id)
    with town.store.write() as tx:
        tx.execute(schema.deliveries.update().values(state="failed", attempts=9, error="no", done_at=5))
        ids = list(tx.scalars(select(schema.deliveries.c.id)))
        (row,) = (one for one in tx.execute(select(schema.deliveries)) if one.kind == "write_back")
        assert deliveries.replay(tx, ids, NOW) == [row.id]
    assert town.delivery(claimed).state == "failed"
    (row,) = write_backs(town)
    assert (row.state, row.attempts, row.error, row.done_at, row.due_at) == ("ready", 0, "", None, NOW)


def test_deliveries_are_listed_newest_first_by_state_and_counted(town: Town, claimed: Asked) -> None:
    bo = town.invite(BO)
    with town.store.read() as tx:
        assert [row.key for row in deliveries.list_deliveries(tx)] == [bo.key, claimed.key]
        assert [row.key for row in deliveries.list_deliveries(tx, DeliveryState.SENDING)] == [claimed.key]
        assert len(deliveries.list_deliveries(tx, limit=1)) == 1
        assert deliveries.counts(tx) == {"ready": 1, "sending": 1}
