"""A workspace that is not live: test recipients get one message per campaign, and nothing of it counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import select, update

from core.clock import DAY_MS, FixedClock, to_ms
from core.contacts import address_hash
from core.jobs import deliver, plan_waves
from core.jobs.context import Context
from core.ports import Invitation, InvitationRequest, WriteResult
from core.storage import ledger, schema, status
from core.storage.store import Store
from core.touches import TouchState
from tests.ledger import add_campaign, add_connection, add_person
from tests.world import PEPPER, make_context, set_workspace

ADA, BO = "ada@acme.example", "bo@bolt.example"
CAMPAIGN = {"name": "relationship", "source": ["crm"], "sender": "mail", "every_days": 90}


class Sender:
    """Takes everything."""

    send_batch_size = 10

    def __init__(self) -> None:
        self.sent: list[Invitation] = []

    def send_surveys(self, invitations: Sequence[Invitation]) -> Iterator[WriteResult]:
        for invitation in invitations:
            self.sent.append(invitation)
            yield WriteResult.done(invitation.key)


class Composer:
    """Writes who is greeted."""

    def compose(self, request: InvitationRequest) -> Invitation:
        url = f"https://nps.example/s/{request.token}"
        return Invitation(
            request.key, request.external_id, request.email, request.first_name or "", request.language or "en", "s",
            "<p></p>", "", url, url,
        )  # fmt: skip


@pytest.fixture
def sender() -> Sender:
    return Sender()


@pytest.fixture
def context(store: Store, clock: FixedClock, sender: Sender) -> Context:
    with store.write() as tx:
        add_connection(tx, "crm")
        add_connection(tx, "mail", "smtp")
        add_campaign(tx, config=_config())
        for email in (ADA, BO, "cleo@corp.example"):
            add_person(tx, email=email, address_hash=address_hash(PEPPER, email), first_name=email[:3].strip("@"))
    return make_context(store, clock, {"mail": sender, "crm": None}, composer=Composer())


def _config(**values: Any) -> dict[str, Any]:
    return {**CAMPAIGN, **values}


def not_live(store: Store, *recipients: str) -> None:
    set_workspace(store, live=False, test_recipients=recipients)


def go(context: Context) -> None:
    plan_waves.run(context)
    deliver.run(context)


def test_test_recipients_get_one_message_and_nobody_else_any(context: Context, sender: Sender) -> None:
    not_live(context.store, ADA, "me@elsewhere.example")
    go(context)
    go(context)
    assert sorted(one.email for one in sender.sent) == [ADA, "me@elsewhere.example"]
    assert {one.email: one.name for one in sender.sent} == {ADA: "ada", "me@elsewhere.example": ""}


def test_a_trial_counts_for_nobody(context: Context, sender: Sender, clock: FixedClock) -> None:
    not_live(context.store, ADA)
    go(context)
    with context.store.read() as tx:
        assert sum(status.touch_counts(tx).values()) == 0
        assert [one.touches for one in status.campaign_numbers(tx)] == [{}]
        assert ledger.reserved_since(tx, 1, to_ms(clock.now()) - DAY_MS) == 0
        assert tx.scalar(select(schema.deliveries.c.id).where(schema.deliveries.c.kind == "write_back")) is None
    set_workspace(context.store, brakes={"first_wave": 0})
    go(context)
    assert sorted(one.email for one in sender.sent) == [ADA, ADA, BO, "cleo@corp.example"]


def test_a_changed_campaign_can_be_looked_at_again(context: Context, sender: Sender) -> None:
    not_live(context.store, ADA)
    go(context)
    with context.store.write() as tx:
        tx.execute(update(schema.campaigns).values(config=_config(survey={"brand": "Acme & Co"})))
    go(context)
    assert [one.email for one in sender.sent] == [ADA, ADA]


def test_going_live_stops_trials_that_have_not_left(context: Context, sender: Sender) -> None:
    not_live(context.store, "me@elsewhere.example")
    plan_waves.run(context)
    set_workspace(context.store)
    deliver.run(context)
    assert sender.sent == []


def test_reservations_of_a_workspace_that_is_no_longer_live_are_returned(context: Context, sender: Sender) -> None:
    set_workspace(context.store, brakes={"first_wave": 0})
    plan_waves.run(context)
    not_live(context.store, ADA)
    deliver.run(context)
    assert sender.sent == []
    with context.store.read() as tx:
        states = set(tx.scalars(select(schema.touches.c.state).where(schema.touches.c.source == "boucle")))
    assert states == {TouchState.RETURNED}
