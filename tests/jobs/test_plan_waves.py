"""Planning whole campaigns over days: cadence, drip, hours, holds, priorities, the first wave, and who is forgotten."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select, update

from core.clock import DAY_MS, FixedClock, from_ms, to_ms
from core.errors import Misconfigured
from core.jobs import plan_waves
from core.jobs.context import Context
from core.storage import leases, schema, waves
from core.storage.store import Store
from core.touches import TouchState
from core.workspace import Campaign
from tests.ledger import add_campaign, add_company, add_connection, add_person, add_touch
from tests.world import make_context, set_workspace

OPEN = {"brakes": {"first_wave": 0}, "time_zone": "Europe/Paris", "quarantine": {"tenure_days": 0}}


class Mail:
    """A sender with a pace of its own."""

    def __init__(self, per_second: float | None = None) -> None:
        self.per_second = per_second

    def rate_per_second(self) -> float | None:
        return self.per_second


class Broken:
    """A connection whose settings cannot work."""

    def open(self, connection_name: str) -> Any:
        raise Misconfigured("there is no password")

    def close(self) -> None:
        return None


@pytest.fixture
def context(store: Store, clock: FixedClock) -> Context:
    with store.write() as tx:
        add_connection(tx)
        add_connection(tx, "mail", "mailbox")
    set_workspace(store, **OPEN)
    return make_context(store, clock, {"mail": Mail()})


def campaign(context: Context, name: str = "relationship", **values: Any) -> int:
    cadence = {} if "once" in values else {"every_days": 90}
    settings = Campaign.model_validate({"name": name, "source": "crm", "sender": "mail", **cadence, **values})
    config = settings.model_dump(mode="json", by_alias=True, exclude_unset=True)
    with context.store.write() as tx:
        return add_campaign(tx, name, config, created_at=context.clock.now_ms())


def people(context: Context, number: int, **values: Any) -> list[int]:
    with context.store.write() as tx:
        return [add_person(tx, **values)[0] for _ in range(number)]


def asked(context: Context) -> list[tuple[int, int]]:
    """(campaign, person) of every reservation, in order."""
    t = schema.touches.c
    with context.store.read() as tx:
        rows = tx.execute(select(t.campaign_id, t.person_id).where(t.source == "boucle").order_by(t.id))
        return [(campaign_id, person_id) for campaign_id, person_id in rows]


def hand_over(context: Context, **values: Any) -> None:
    """Everything reserved leaves at this moment."""
    now = context.clock.now_ms()
    row = {"state": TouchState.HANDED_OVER, "handed_over_at": now, "asked_at": now, **values}
    with context.store.write() as tx:
        tx.execute(update(schema.touches).where(schema.touches.c.state == TouchState.RESERVED).values(**row))
        tx.execute(update(schema.deliveries).values(state="done"))


def decision(context: Context, person: int) -> tuple[str, str | None, int | None]:
    d = schema.decisions.c
    with context.store.read() as tx:
        return tuple(tx.execute(select(d.state, d.rule, d.until).where(d.person_id == person)).one())


def counts(context: Context) -> dict[str, Any]:
    with context.store.read() as tx:
        found = select(schema.waves.c.counts).where(schema.waves.c.state == "open").order_by(schema.waves.c.id)
        return dict(tx.scalars(found).first() or {})


def daily(
    context: Context, clock: FixedClock, times: int, each: Callable[[], None] = lambda: None, days: int = 1
) -> list[int]:
    """Plan once in `days` and let everything leave; how many were reserved each time."""
    done = []
    for _ in range(times):
        done.append(plan_waves.run(context).done)
        hand_over(context)
        each()
        clock.advance(days=days)
    return done


# --- cadence --------------------------------------------------------------------------------------------------------


def test_everybody_who_may_be_asked_is_reserved_once(context: Context) -> None:
    campaign(context)
    ids = people(context, 5)
    people(context, 1, opted_out_at=1)
    assert plan_waves.run(context).done == 5
    assert sorted(asked(context)) == [(1, person) for person in ids]
    assert plan_waves.run(context).done == 0
    assert counts(context)["not_asked"]["opted_out"] == 1


def test_a_cadence_of_90_days_does_not_drift_to_180(context: Context, clock: FixedClock) -> None:
    campaign(context)
    ada, *_ = people(context, 3)
    moments: list[int] = []

    def answer() -> None:
        with context.store.write() as tx:
            now = clock.now_ms()
            touched = tx.scalars(select(schema.touches.c.person_id).where(schema.touches.c.handed_over_at == now))
            moments.extend(now for person in touched.all() if person == ada)
            # they answer twelve days after they were asked, so that the clock of the answer ends inside the next wave
            late = schema.touches.c.handed_over_at == now - 12 * DAY_MS
            tx.execute(update(schema.touches).where(late).values(state=TouchState.ANSWERED, answered_at=now))

    daily(context, clock, 28, answer, days=12)
    assert [(later - earlier) / DAY_MS for earlier, later in pairwise(moments)] == [108, 108, 108]


def test_with_wait_who_is_blocked_is_asked_in_the_same_wave_as_soon_as_free(
    context: Context, clock: FixedClock
) -> None:
    campaign(context)
    ada, bo = people(context, 2)
    with context.store.write() as tx:
        add_touch(tx, bo, TouchState.SILENT, clock.now_ms() - 20 * DAY_MS, campaign_id=None, source="outside")
    assert plan_waves.run(context).done == 1
    until = clock.now_ms() + 40 * DAY_MS
    assert decision(context, bo) == ("planned", "after_silence", until)
    clock.at = from_ms(until - 1)
    assert plan_waves.run(context).done == 0
    clock.at = from_ms(until)
    assert plan_waves.run(context, due_only=True).done == 1
    assert asked(context) == [(1, ada), (1, bo)]


def test_with_skip_who_is_blocked_is_dropped_for_this_wave_and_asked_in_the_next(
    context: Context, clock: FixedClock
) -> None:
    campaign(context, blocked="skip")
    ada, bo = people(context, 2)
    with context.store.write() as tx:
        add_touch(tx, bo, TouchState.SILENT, clock.now_ms() - 20 * DAY_MS, campaign_id=None, source="outside")
    plan_waves.run(context)
    assert decision(context, bo)[:2] == ("dropped", "after_silence")
    clock.advance(days=41)
    assert plan_waves.run(context).done == 0
    assert counts(context)["not_asked"]["after_silence"] == 1  # still told, though no longer looked at
    hand_over(context)
    clock.advance(days=50)
    assert plan_waves.run(context).done == 1
    assert asked(context) == [(1, ada), (1, bo)]


def test_a_quiet_period_stops_the_wave_and_skips_nobody(context: Context, clock: FixedClock) -> None:
    periods = [{"name": "price rise", "from": "2026-12-01", "to": "2026-12-02"}]
    set_workspace(context.store, **OPEN, quiet_periods=periods)
    campaign(context, blocked="skip")
    people(context, 2)
    assert plan_waves.run(context).done == 0
    assert counts(context)["not_asked"] == {"quiet_period": 2}
    clock.at = datetime(2026, 12, 2, 22, 59, tzinfo=UTC)
    assert plan_waves.run(context).done == 0
    clock.at = datetime(2026, 12, 2, 23, 0, tzinfo=UTC)
    assert plan_waves.run(context, due_only=True).done == 2


def test_a_campaign_that_runs_once_asks_nobody_twice_however_long_it_lasts(context: Context, clock: FixedClock) -> None:
    quick = {"any_survey_days": 0, "same_type_days": 1, "after_silence_days": 0, "tenure_days": 0}
    set_workspace(context.store, **{**OPEN, "quarantine": quick})
    campaign(context, once="2026-12-01", end="2027-12-01", window_days=1)
    people(context, 3)
    assert sum(daily(context, clock, 5)) == 3


def test_start_and_end_are_obeyed(context: Context, clock: FixedClock) -> None:
    campaign(context, start="2026-12-03", end="2026-12-04")
    people(context, 1)
    assert daily(context, clock, 2) == [0, 0]
    assert plan_waves.run(context).done == 1
    people(context, 1)
    clock.at = datetime(2026, 12, 4, 23, 0, tzinfo=UTC)  # midnight in Paris
    assert plan_waves.run(context).done == 0
    with context.store.read() as tx:
        assert waves.open_campaigns(tx) == set()


def test_a_start_that_is_moved_after_a_wave_begins_a_wave_of_its_own(context: Context, clock: FixedClock) -> None:
    campaign(context)
    people(context, 2)
    plan_waves.run(context)
    hand_over(context)
    clock.advance(days=100)
    config = {"name": "relationship", "source": ["crm"], "sender": "mail", "every_days": 90, "start": "2027-03-10"}
    with context.store.write() as tx:
        tx.execute(update(schema.campaigns).values(config=config))
    assert plan_waves.run(context).done == 2
    with context.store.read() as tx:
        numbers = tx.scalars(select(schema.waves.c.number).order_by(schema.waves.c.id)).all()
    assert numbers == [1, 2]


# --- drip and hours -------------------------------------------------------------------------------------------------


def test_a_daily_limit_drips_over_days_until_everybody_was_asked(context: Context, clock: FixedClock) -> None:
    campaign(context, daily_limit=4)
    ids = people(context, 10)
    assert daily(context, clock, 4) == [4, 4, 2, 0]
    assert sorted(person for _, person in asked(context)) == ids


def test_a_day_is_the_workspaces_and_its_limit_holds_over_many_plans(context: Context, clock: FixedClock) -> None:
    campaign(context, daily_limit=3)
    people(context, 10)
    clock.at = datetime(2026, 12, 1, 22, 59, tzinfo=UTC)  # one minute before midnight in Paris
    assert [plan_waves.run(context).done for _ in range(3)] == [3, 0, 0]
    with context.store.write() as tx:  # a place that was given back is free again
        tx.execute(update(schema.touches).where(schema.touches.c.id == 1).values(state="returned", reason="cancelled"))
    assert plan_waves.run(context).done == 1
    clock.advance(minutes=1)
    assert plan_waves.run(context, due_only=True).done == 3


def test_the_send_window_is_the_recipients(context: Context, clock: FixedClock) -> None:
    campaign(context, send_window={"from": "09:00", "to": "17:00", "days": "mon-fri"})
    (tokyo,) = people(context, 1, time_zone="Asia/Tokyo")
    (paris,) = people(context, 1)
    (angeles,) = people(context, 1, time_zone="America/Los_Angeles")
    for hour in range(24):  # from 09:00 UTC on a Tuesday
        clock.at = datetime(2026, 12, 1, 9, tzinfo=UTC) + timedelta(hours=hour)
        plan_waves.run(context, due_only=True)
    t = schema.touches.c
    with context.store.read() as tx:
        reserved = {person: from_ms(at) for person, at in tx.execute(select(t.person_id, t.reserved_at))}
    assert reserved == {
        paris: datetime(2026, 12, 1, 9, tzinfo=UTC),
        angeles: datetime(2026, 12, 1, 17, tzinfo=UTC),
        tokyo: datetime(2026, 12, 2, 0, tzinfo=UTC),
    }


# --- what stops people ----------------------------------------------------------------------------------------------


def stop_with(context: Context, rule: str, person: int, identity: int) -> None:
    now = context.clock.now_ms()
    with context.store.write() as tx:
        if rule == "hold":
            tx.execute(update(schema.people).where(schema.people.c.id == person).values(hold_until=now + DAY_MS))
        elif rule == "incident":
            tx.execute(insert(schema.incidents).values(kind="declared", reason="outage", opened_at=now))
        elif rule == "suppressed":
            address = tx.scalar(select(schema.identities.c.address_hash).where(schema.identities.c.id == identity))
            tx.execute(insert(schema.suppressions).values(address_hash=address, reason="hard_bounce", created_at=now))
        else:
            tx.execute(insert(schema.responses).values(id=5, campaign_id=1, verdict="confirmed", signals={}))
            tx.execute(
                insert(schema.follow_ups).values(
                    public_id="f", response_id=5, person_id=person, state="open", created_at=now, changed_at=now
                )
            )


LIFT: dict[str, Callable[[Connection], Any]] = {
    "hold": lambda tx: tx.execute(update(schema.people).values(hold_until=None)),
    "incident": lambda tx: tx.execute(update(schema.incidents).values(closed_at=1)),
    "suppressed": lambda tx: tx.execute(schema.suppressions.delete()),
    "open_follow_up": lambda tx: tx.execute(update(schema.follow_ups).values(closed_at=1)),
}


@pytest.mark.parametrize("rule", list(LIFT))
def test_who_is_stopped_is_asked_once_it_is_lifted(context: Context, rule: str) -> None:
    campaign(context)
    with context.store.write() as tx:
        person, identity = add_person(tx)
    stop_with(context, rule, person, identity)
    assert plan_waves.run(context).done == 0
    assert decision(context, person)[1] == rule
    with context.store.write() as tx:
        LIFT[rule](tx)
    assert plan_waves.run(context).done == 1


def test_an_incident_of_one_company_stops_its_people_alone(context: Context) -> None:
    campaign(context)
    with context.store.write() as tx:
        companies = [add_company(tx, name) for name in ("Acme", "Other")]
        ids = [add_person(tx, company_id=company)[0] for company in companies]
        tx.execute(insert(schema.incidents).values(kind="declared", reason="x", opened_at=1, company_id=companies[0]))
    assert plan_waves.run(context).done == 1
    assert asked(context) == [(1, ids[1])]


def test_no_first_wave_before_each_source_was_read_whole(context: Context) -> None:
    with context.store.write() as tx:
        add_connection(tx, "shop", full_read_at=None)
    campaign(context, source=["crm", "shop"])
    people(context, 2)
    assert plan_waves.run(context).done == 0
    with context.store.write() as tx:
        assert tx.scalar(select(func.count()).select_from(schema.waves)) == 0
        tx.execute(update(schema.connections).values(full_read_at=1))
    assert plan_waves.run(context).done == 2


def test_dates_imported_from_a_crm_bind_the_first_wave(context: Context, clock: FixedClock) -> None:
    campaign(context)
    _, bo = people(context, 2)
    with context.store.write() as tx:
        at = clock.now_ms() - 10 * DAY_MS
        add_touch(tx, bo, TouchState.HANDED_OVER, at, source="outside", reserved_at=None, origin="crm")
    assert plan_waves.run(context).done == 1
    assert decision(context, bo) == ("planned", "same_type", at + 90 * DAY_MS)


def test_rules_tightened_mid_wave_keep_the_reservations_already_made(context: Context) -> None:
    campaign(context, daily_limit=2)
    people(context, 4, customer_since=to_ms(datetime(2026, 11, 1, tzinfo=UTC)))
    assert plan_waves.run(context).done == 2
    set_workspace(context.store, **{**OPEN, "quarantine": {"tenure_days": 300}})
    plan_waves.run(context)
    with context.store.read() as tx:
        states = tx.scalars(select(schema.touches.c.state)).all()
    assert states == ["reserved", "reserved"]
    assert counts(context)["not_asked"]["tenure"] == 4


# --- competing campaigns --------------------------------------------------------------------------------------------


def test_of_two_campaigns_at_the_same_second_priority_wins_and_the_loser_is_told_the_rule(context: Context) -> None:
    low = campaign(context, "low")
    high = campaign(context, "high", priority=5)
    ids = people(context, 3)
    plan_waves.run(context)
    assert sorted(asked(context)) == [(high, person) for person in ids]
    d = schema.decisions.c
    with context.store.read() as tx:
        rules = tx.scalars(select(d.rule).where(d.campaign_id == low)).all()
    assert rules == ["same_type"] * 3


def test_of_equal_campaigns_the_earlier_one_goes_first(context: Context, clock: FixedClock) -> None:
    first = campaign(context, "zebra")
    clock.advance(seconds=1)
    campaign(context, "aardvark")
    people(context, 2)
    plan_waves.run(context)
    assert {campaign_id for campaign_id, _ in asked(context)} == {first}


def test_many_planners_at_once_still_decide_by_priority(context: Context, clock: FixedClock) -> None:
    for name in ("low", "lower"):
        campaign(context, name)
    high = campaign(context, "high", priority=5)
    ids = people(context, 60)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        mine = make_context(context.store, clock, {"mail": Mail()}, owner=f"worker {number}")
        try:
            plan_waves.run(mine)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    assert sorted(asked(context)) == [(high, person) for person in ids]


def test_while_another_process_plans_nobody_else_does(context: Context, clock: FixedClock) -> None:
    campaign(context)
    people(context, 1)
    with context.store.write() as tx:
        fence = leases.acquire(tx, plan_waves.NAME, "another", clock.now_ms(), plan_waves.LEASE_MS)
    assert fence is not None
    assert plan_waves.run(context).done == 0
    clock.advance(milliseconds=plan_waves.LEASE_MS)  # it died
    assert plan_waves.run(context).done == 1


# --- pace and brakes ------------------------------------------------------------------------------------------------


def test_no_more_is_reserved_than_the_sender_declares_it_can_hand_over_in_24_hours(
    context: Context, clock: FixedClock
) -> None:
    context.opener.connectors["mail"] = Mail(per_second=3.5 / 86_400)  # type: ignore[attr-defined]
    campaign(context)
    people(context, 8)
    assert plan_waves.run(context).done == 3
    assert decision(context, 8) == ("planned", None, None)
    clock.advance(minutes=1)
    assert plan_waves.run(context, due_only=True).done == 0
    hand_over(context)
    clock.advance(minutes=1)
    assert plan_waves.run(context, due_only=True).done == 3


def test_a_sender_that_cannot_be_opened_has_no_pace_and_stops_no_plan(context: Context) -> None:
    campaign(context)
    people(context, 2)
    context.opener = Broken()
    assert plan_waves.run(context).done == 2


def test_the_first_wave_of_a_workspace_asks_a_few_and_waits_an_hour(context: Context, clock: FixedClock) -> None:
    set_workspace(context.store, **{**OPEN, "brakes": {"first_wave": 3, "first_wave_minutes": 60}})
    campaign(context)
    people(context, 7)
    assert plan_waves.run(context).done == 3
    clock.advance(minutes=59)
    assert plan_waves.run(context, due_only=True).done == 0
    clock.advance(minutes=1)
    assert plan_waves.run(context, due_only=True).done == 4


def test_a_plan_is_not_made_again_before_it_is_due(context: Context, clock: FixedClock) -> None:
    campaign(context)
    people(context, 1)
    plan_waves.run(context)
    people(context, 1)
    clock.advance(milliseconds=plan_waves.REPLAN_MS - 1)
    assert plan_waves.run(context, due_only=True).done == 0
    clock.advance(milliseconds=1)
    assert plan_waves.run(context, due_only=True).done == 1
    people(context, 1)
    with context.store.write() as tx:
        waves.replan(tx)
    assert plan_waves.run(context, due_only=True).done == 1


@pytest.mark.parametrize("state", ["stopped", "paused", "removed"])
def test_a_campaign_that_does_not_run_asks_nobody(context: Context, state: str) -> None:
    campaign(context)
    people(context, 2)
    with context.store.write() as tx:
        tx.execute(update(schema.campaigns).values(state=state))
    assert plan_waves.run(context).done == 0


def test_before_a_workspace_is_applied_nothing_is_planned(store: Store, clock: FixedClock) -> None:
    assert plan_waves.run(make_context(store, clock)).done == 0


def test_a_killed_plan_leaves_nothing_that_the_next_one_needs(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign(context)
    ids = people(context, 6)

    class Killed(BaseException):
        pass

    def die(*_: Any) -> None:
        raise Killed

    for name in ("decide", "store_decisions", "_reserve_all"):
        with monkeypatch.context() as patch:
            patch.setattr(plan_waves, name, die)
            with pytest.raises(Killed):
                plan_waves.run(context)
    assert plan_waves.run(context).done == 6
    assert Counter(person for _, person in asked(context)) == Counter(ids)
