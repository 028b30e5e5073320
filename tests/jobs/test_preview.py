"""The dry run: who would be asked now, who not and by which rule, and what holds even those back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, select, update

from core.clock import DAY_MS, FixedClock, to_ms
from core.errors import Invalid, NotFound
from core.jobs import plan_waves
from core.jobs.context import Context
from core.jobs.preview import preview
from core.storage import schema
from core.storage.store import Store
from core.touches import TouchState
from tests.ledger import add_campaign, add_connection, add_person, add_touch
from tests.world import make_context, set_workspace


class Mail:
    """A sender."""


CONFIG: dict[str, Any] = {"name": "relationship", "source": ["crm"], "sender": "mail", "every_days": 90}


@pytest.fixture
def context(store: Store, clock: FixedClock) -> Context:
    """Ada may be asked, Bo was asked ten days ago, Cleo is new, Dot is unsubscribed, Eve is outside the audience."""
    now = clock.now_ms()
    set_workspace(store, time_zone="Europe/Paris")
    with store.write() as tx:
        add_connection(tx)
        add_connection(tx, "mail", "mailbox")
        add_campaign(tx, config={**CONFIG, "audience": {"plan": {"not": ["trial"]}}}, created_at=now - DAY_MS)
        add_person(tx, email="ada@acme.example")
        bo, _ = add_person(tx, email="bo@acme.example")
        add_person(tx, email="cleo@acme.example", customer_since=now - 10 * DAY_MS)
        add_person(tx, email="dot@acme.example", opted_out_at=1)
        add_person(tx, email="eve@acme.example", attributes={"plan": "Trial"})
        add_touch(tx, bo, TouchState.HANDED_OVER, now - 10 * DAY_MS, source="outside")
    return make_context(store, clock, {"mail": Mail()})


def test_the_document_names_everybody_with_the_rule_and_the_date(context: Context) -> None:
    found = preview(context, "relationship")
    assert found["campaign"] == "relationship"
    assert found["at"] == "2026-12-01T09:00:00Z"
    assert found["wave"] == 1
    assert found["counts"] == {
        "asked": 1,
        "not_asked": {"not_in_audience": 1, "opted_out": 1, "same_type": 1, "tenure": 1},
    }
    assert found["asked"] == [{"person": 1, "email": "ada@acme.example"}]
    assert found["not_asked"] == [
        {"person": 2, "email": "bo@acme.example", "rule": "same_type", "until": "2027-02-19T09:00:00Z"},
        {"person": 3, "email": "cleo@acme.example", "rule": "tenure", "until": "2026-12-21T09:00:00Z"},
        {"person": 4, "email": "dot@acme.example", "rule": "opted_out", "until": None},
        {"person": 5, "email": "eve@acme.example", "rule": "not_in_audience", "until": None},
    ]
    assert found["held_back"] == []


def test_a_dry_run_writes_nothing(context: Context) -> None:
    preview(context, "relationship")
    with context.store.read() as tx:
        for table in (schema.waves, schema.decisions, schema.deliveries):
            assert tx.scalar(select(func.count()).select_from(table)) == 0
        assert tx.scalar(select(func.count()).select_from(schema.touches)) == 1


def test_the_limit_cuts_the_lists_never_the_counts(context: Context) -> None:
    found = preview(context, "relationship", limit=2)
    assert len(found["not_asked"]) == 2
    assert sum(found["counts"]["not_asked"].values()) == 4


def test_another_moment_is_decided_with_the_ledger_as_it_is(context: Context) -> None:
    later = preview(context, "relationship", at=datetime(2027, 2, 19, 9, tzinfo=UTC))
    assert [one["email"] for one in later["asked"]] == ["ada@acme.example", "bo@acme.example", "cleo@acme.example"]
    a_moment_before = preview(context, "relationship", at=datetime(2027, 2, 19, 8, 59, tzinfo=UTC))
    assert a_moment_before["counts"]["not_asked"]["same_type"] == 1


def test_it_says_what_the_plan_then_does(context: Context) -> None:
    said = preview(context, "relationship")
    assert plan_waves.run(context).done == said["counts"]["asked"]
    with context.store.read() as tx:
        stored = tx.scalar(select(schema.waves.c.counts))
    assert stored == said["counts"]
    after = preview(context, "relationship")
    assert after["counts"]["asked"] == 0
    assert after["not_asked"][0]["rule"] == "same_type"


def test_what_was_dropped_in_this_wave_stays_dropped_in_the_dry_run(context: Context, clock: FixedClock) -> None:
    with context.store.write() as tx:
        tx.execute(update(schema.campaigns).values(config={**CONFIG, "blocked": "skip"}))
    plan_waves.run(context)
    clock.advance(days=25)  # Cleo has been a customer for 35 days by now
    assert preview(context, "relationship")["counts"]["asked"] == 0


def test_answers_and_margin_are_expected_by_the_settings_until_there_is_history(context: Context) -> None:
    with context.store.write() as tx:
        for _ in range(99):
            add_person(tx)
    found = preview(context, "relationship", limit=0)
    assert found["expected_answers"] == 15  # 100 x 0.15
    assert 30 < found["expected_margin"] < 45
    with context.store.write() as tx:
        for number in range(120):
            state = TouchState.ANSWERED if number < 60 else TouchState.SILENT
            add_touch(tx, 9000 + number, state, 0, campaign_id=1)
    assert preview(context, "relationship")["expected_answers"] == 50


def test_nobody_to_ask_is_no_margin(context: Context) -> None:
    with context.store.write() as tx:
        tx.execute(update(schema.people).values(opted_out_at=1))
    found = preview(context, "relationship")
    assert (found["expected_answers"], found["expected_margin"], found["asked"]) == (0, None, [])


def test_what_holds_the_campaign_back_is_said_in_words(context: Context, clock: FixedClock) -> None:
    brakes = {"first_wave": 1, "first_wave_minutes": 60}
    set_workspace(context.store, live=False, test_recipients=["me@acme.example"], brakes=brakes)
    with context.store.write() as tx:
        add_person(tx)
        tx.execute(update(schema.campaigns).values(state="paused", reason="too many bounces"))
        tx.execute(update(schema.connections).values(full_read_at=None))
    early = to_ms(datetime(2026, 11, 30, tzinfo=UTC))
    said = preview(context, "relationship", at=datetime(2026, 11, 30, tzinfo=UTC))["held_back"]
    assert early < clock.now_ms()
    assert said == [
        "the campaign is paused: too many bounces",
        "the workspace is not live: only test recipients receive anything",
        "no wave is open at this moment",
        "a source has not been read whole yet",
        "the first wave lets 1 leave now (brakes.first_wave)",
    ]


def test_an_unknown_campaign_is_told_in_a_sentence(context: Context) -> None:
    with pytest.raises(NotFound, match=r"there is no campaign nps; .*relationship"):
        preview(context, "nps")


def test_a_sender_that_is_no_more_is_told_in_a_sentence(context: Context) -> None:
    with context.store.write() as tx:
        tx.execute(update(schema.connections).where(schema.connections.c.name == "mail").values(state="removed"))
    with pytest.raises(Invalid, match="sends through mail, which is no connection any more"):
        preview(context, "relationship")


def test_before_the_first_apply_it_says_what_to_do(store: Store, clock: FixedClock) -> None:
    with pytest.raises(NotFound, match="apply a workspace file first"):
        preview(make_context(store, clock), "relationship")
