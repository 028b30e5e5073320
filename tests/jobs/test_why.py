"""Why is somebody asked or not: every clock with its date, every touch, the next date the person is free."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert, update

from core.clock import DAY_MS, FixedClock
from core.contacts import address_hash
from core.errors import NotFound
from core.jobs.context import Context
from core.jobs.why import explain
from core.storage import schema
from core.storage.store import Store
from core.touches import TouchState
from tests.ledger import add_campaign, add_company, add_connection, add_person, add_touch, add_wave
from tests.world import PEPPER, make_context, set_workspace


@pytest.fixture
def context(store: Store, clock: FixedClock) -> Context:
    set_workspace(store, time_zone="Europe/Paris")
    with store.write() as tx:
        add_connection(tx)
        add_connection(tx, "mail", "mailbox")
        add_wave(tx, add_campaign(tx))
        config = {"name": "monthly", "source": ["crm"], "sender": "mail", "every_days": 30}
        add_campaign(tx, "monthly", {**config, "audience": {"country": ["FR"]}})
    return make_context(store, clock)


def person(context: Context, email: str = "ada@acme.example", **values: Any) -> tuple[int, int]:
    with context.store.write() as tx:
        return add_person(tx, email=email, **{"address_hash": address_hash(PEPPER, email), **values})


def clocks(found: dict[str, Any]) -> dict[str, tuple[str | None, str | None, bool]]:
    return {one["rule"]: (one["last_at"], one["free_at"], one["blocks"]) for one in found["clocks"]}


def test_a_person_nobody_asked_is_free_now(context: Context) -> None:
    person(context)
    found = explain(context, "Ada@ACME.example")
    assert found["clocks"] == [] and found["touches"] == []
    assert (found["free"], found["free_at"], found["others"]) == (True, "2026-12-01T09:00:00Z", 0)
    assert found["campaigns"] == [
        {"campaign": "relationship", "rule": None, "until": None},
        {"campaign": "monthly", "rule": "not_in_audience", "until": None},
    ]


def test_every_clock_is_shown_with_its_dates_whether_it_blocks_or_not(context: Context, clock: FixedClock) -> None:
    now = clock.now_ms()
    ada, identity = person(context, customer_since=now - 40 * DAY_MS, country="fr")
    with context.store.write() as tx:
        add_touch(
            tx, ada, TouchState.ANSWERED, now - 20 * DAY_MS, identity_id=identity, campaign_id=1, wave_id=1,
            handed_over_at=now - 20 * DAY_MS, answered_at=now - 18 * DAY_MS, window_closes_at=now + DAY_MS,
        )  # fmt: skip
        tx.execute(insert(schema.message_guard).values(identity_id=identity, last_message_at=now - 20 * DAY_MS))
    found = explain(context, "ada@acme.example")
    assert clocks(found) == {
        "floor_24h": ("2026-11-11T09:00:00Z", "2026-11-12T09:00:00Z", False),
        "any_survey": ("2026-11-11T09:00:00Z", "2026-12-11T09:00:00Z", True),
        "after_answer": ("2026-11-13T09:00:00Z", "2027-02-11T09:00:00Z", True),
        "same_survey": ("2026-11-11T09:00:00Z", "2027-02-09T09:00:00Z", True),
        "tenure": ("2026-10-22T09:00:00Z", "2026-11-21T09:00:00Z", False),
    }
    assert next(one for one in found["clocks"] if one["rule"] == "same_survey")["campaign"] == "relationship"
    assert (found["free"], found["free_at"]) == (False, "2027-02-11T09:00:00Z")
    assert [one["rule"] for one in found["campaigns"]] == ["after_answer", "after_answer"]


def test_every_touch_is_shown_the_latest_first(context: Context, clock: FixedClock) -> None:
    now = clock.now_ms()
    ada, _ = person(context)
    with context.store.write() as tx:
        add_touch(
            tx, ada, TouchState.RETURNED, now - 50 * DAY_MS, campaign_id=1, wave_id=1, returned_at=now - 49 * DAY_MS,
            reason="bounced", detail="550 no such user",
        )  # fmt: skip
        add_touch(tx, ada, TouchState.HANDED_OVER, now - 3 * DAY_MS, source="outside", origin="crm", reserved_at=None)
    shown = explain(context, "ada@acme.example")["touches"]
    assert [(one["source"], one["state"], one["campaign"], one["wave"]) for one in shown] == [
        ("outside", "handed_over", None, None),
        ("boucle", "returned", "relationship", 1),
    ]
    assert (shown[1]["reason"], shown[1]["detail"]) == ("bounced", "550 no such user")
    assert (shown[1]["reserved_at"], shown[1]["returned_at"]) == ("2026-10-12T09:00:00Z", "2026-10-13T09:00:00Z")
    assert (shown[0]["origin"], shown[0]["reserved_at"]) == ("crm", None)


@pytest.mark.parametrize(
    ("values", "rule", "free_at"),
    [
        ({"opted_out_at": 1}, "opted_out", None),
        ({"source_opted_out": True}, "opted_out", None),
        ({"hold_until": 1_796_115_600_000 + DAY_MS}, "hold", "2026-12-02T09:00:00Z"),
        ({"quarantine_until": 1_796_115_600_000 + DAY_MS}, "hold", "2026-12-02T09:00:00Z"),
    ],
)
def test_what_stops_a_person_is_shown_before_the_clocks(
    context: Context, values: dict[str, Any], rule: str, free_at: str | None
) -> None:
    person(context, **values)
    found = explain(context, "ada@acme.example")
    assert found["clocks"][0]["rule"] == rule and found["clocks"][0]["blocks"]
    assert (found["free"], found["free_at"]) == (False, free_at)
    assert found["campaigns"][0]["rule"] == rule


def test_a_quiet_period_and_an_incident_are_shown(context: Context) -> None:
    quiet = [{"name": "price rise", "from": "2026-12-01", "to": "2026-12-04"}]
    set_workspace(context.store, time_zone="Europe/Paris", quiet_periods=quiet)
    person(context)
    found = explain(context, "ada@acme.example")
    assert (found["clocks"][0]["rule"], found["free_at"]) == ("quiet_period", "2026-12-04T23:00:00Z")
    with context.store.write() as tx:
        tx.execute(insert(schema.incidents).values(kind="declared", reason="outage", opened_at=1))
    assert [one["rule"] for one in explain(context, "ada@acme.example")["clocks"]] == ["incident", "quiet_period"]


def test_records_of_every_source_are_shown_and_the_live_one_is_asked(context: Context) -> None:
    with context.store.write() as tx:
        add_connection(tx, "shop")
        company = add_company(tx, "Acme")
    ada, _ = person(context, company_id=company, gone_at=5)
    person(context, person_id=ada, connection_id=3, opted_out=True)
    found = explain(context, "ada@acme.example")
    assert [(one["connection"], one["company"], one["gone"]) for one in found["identities"]] == [
        ("crm", "Acme", True),
        ("shop", None, False),
    ]
    assert found["campaigns"] == []  # no campaign asks people of the shop


def test_the_others_behind_a_shared_mailbox_are_counted(context: Context, clock: FixedClock) -> None:
    ada, identity = person(context, "info@acme.example", shared=True)
    person(context, "info@acme.example", shared=True)
    with context.store.write() as tx:
        hashed = address_hash(PEPPER, "info@acme.example")
        tx.execute(update(schema.people).where(schema.people.c.id == ada).values(opted_out_at=None))
        add_touch(
            tx, 2, TouchState.HANDED_OVER, clock.now_ms() - 10 * DAY_MS, identity_id=identity, address_hash=hashed
        )
    found = explain(context, "info@acme.example")
    assert (found["person"], found["others"]) == (ada, 1)
    assert clocks(found)["shared_mailbox"] == (None, "2027-02-19T09:00:00Z", True)


def test_an_address_nobody_knows_is_told_in_a_sentence(context: Context) -> None:
    with pytest.raises(NotFound, match=r"nobody with the address zoe@acme\.example is known; is the source synced"):
        explain(context, "zoe@acme.example")
