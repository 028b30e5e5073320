"""A reminder belongs to its touch: what becomes of it never moves the touch, and it is needless once that has moved."""

from __future__ import annotations

import pytest

from core.clock import FixedClock
from core.jobs import deliver
from core.jobs.context import Context
from core.ports import WriteResult
from core.storage import schema
from core.storage.store import Store
from core.touches import TouchState
from tests.jobs.mailing import ADA, Asked, Composer, Sender, Town
from tests.world import make_context


@pytest.fixture
def town(store: Store, clock: FixedClock) -> Town:
    return Town(store, clock)


@pytest.fixture
def sender() -> Sender:
    return Sender()


@pytest.fixture
def context(town: Town, store: Store, clock: FixedClock, sender: Sender) -> Context:
    return make_context(store, clock, {"mail": sender, "crm": None}, composer=Composer())


def reminded(town: Town, context: Context, clock: FixedClock) -> Asked:
    """Ada has her invitation; six days later her reminder is due."""
    ada = town.invite(ADA)
    deliver.run(context)
    clock.advance(days=6)
    return town.remind(ada)


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (WriteResult.done("k"), "done"),
        (WriteResult.rejected("k", "550 5.1.1 gone", suppress=True), "failed"),
        (WriteResult.uncertain("k", "no answer"), "unknown"),
        (WriteResult.retry("k", "451 later"), "ready"),
    ],
    ids=["done", "rejected", "uncertain", "retry"],
)
def test_what_becomes_of_a_reminder_never_moves_its_touch(
    context: Context, town: Town, sender: Sender, clock: FixedClock, outcome: WriteResult, state: str
) -> None:
    reminder = reminded(town, context, clock)
    before = town.touch(reminder)
    sender.will(ADA, WriteResult(reminder.key, outcome.outcome, outcome.vendor_ref, outcome.reason, outcome.suppress))
    deliver.run(context)
    assert town.delivery(reminder).state == state
    assert town.touch(reminder) == before


@pytest.mark.parametrize("state", [TouchState.ANSWERED, TouchState.DECLINED, TouchState.RETURNED, TouchState.UNKNOWN])
def test_no_reminder_once_the_touch_has_moved_on(
    context: Context, town: Town, sender: Sender, clock: FixedClock, state: TouchState
) -> None:
    reminder = reminded(town, context, clock)
    town.change(schema.touches, reminder.touch_id, state=state)
    deliver.run(context)
    assert town.states(reminder) == ("cancelled", state)
    assert sender.reached == [ADA]


def test_a_reminder_has_a_link_of_its_own(context: Context, town: Town, sender: Sender, clock: FixedClock) -> None:
    reminded(town, context, clock)
    deliver.run(context)
    first, second = (invitation.survey_url for invitation in sender.sent)
    assert first != second
    assert {row.kind for row in town.rows(schema.survey_links)} == {"invite", "reminder"}
