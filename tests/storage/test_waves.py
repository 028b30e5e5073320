"""Waves as rows, and what is kept of their plans: counts per rule, and changes of a person's decision."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from sqlalchemy import Connection, select

from core.clock import DAY_MS, FixedClock
from core.frequency import Rule
from core.storage import planning, schema, waves
from core.storage.store import Store
from core.waves import WavePlan
from tests.ledger import add_campaign

PLAN = WavePlan(1, 1000, 1000 + 90 * DAY_MS)
NEXT = WavePlan(2, PLAN.ends_at, PLAN.ends_at + 90 * DAY_MS)


def rows_of(tx: Connection) -> list[tuple[int, str, int]]:
    w = schema.waves.c
    return [tuple(row) for row in tx.execute(select(w.number, w.state, w.opens_at).order_by(w.id))]


def test_the_next_wave_closes_the_one_before(store: Store) -> None:
    with store.write() as tx:
        campaign = add_campaign(tx)
        first = waves.open_wave(tx, campaign, PLAN)
        assert waves.open_wave(tx, campaign, PLAN) == first
        assert waves.open_wave(tx, campaign, NEXT).number == 2
        assert rows_of(tx) == [(1, "closed", 1000), (2, "open", NEXT.opens_at)]
        assert waves.open_campaigns(tx) == {campaign}
        waves.close_waves(tx, campaign)
        assert waves.open_campaigns(tx) == set()


def test_a_wave_that_is_resumed_is_the_same_wave_and_is_planned_at_once(store: Store) -> None:
    with store.write() as tx:
        campaign = add_campaign(tx)
        first = waves.open_wave(tx, campaign, PLAN)
        waves.remember_plan(tx, first.id, Counter(asked=1), 5, 2**50)
        waves.close_waves(tx, campaign)
        again = waves.open_wave(tx, campaign, PLAN)
    assert (again.id, again.state, again.next_plan_at) == (first.id, "open", None)


def test_a_changed_end_keeps_the_wave(store: Store) -> None:
    with store.write() as tx:
        campaign = add_campaign(tx)
        first = waves.open_wave(tx, campaign, PLAN)
        shorter = waves.open_wave(tx, campaign, WavePlan(1, PLAN.opens_at, PLAN.opens_at + DAY_MS))
    assert (shorter.id, shorter.ends_at) == (first.id, PLAN.opens_at + DAY_MS)


def test_a_changed_start_makes_another_wave_though_it_counts_from_one_again(store: Store) -> None:
    with store.write() as tx:
        campaign = add_campaign(tx)
        first = waves.open_wave(tx, campaign, PLAN)
        moved = waves.open_wave(tx, campaign, WavePlan(1, 500 * DAY_MS, 590 * DAY_MS))
        assert moved.id != first.id
        assert rows_of(tx) == [(1, "closed", 1000), (2, "open", 500 * DAY_MS)]


def test_a_wave_whose_anonymous_answers_were_read_is_not_opened_again(store: Store) -> None:
    with store.write() as tx:
        campaign = add_campaign(tx)
        first = waves.open_wave(tx, campaign, PLAN)
        waves.close_waves(tx, campaign)
        tx.execute(schema.waves.update().values(unsealed_at=1))
        assert waves.open_wave(tx, campaign, PLAN).id != first.id


# --- decisions ------------------------------------------------------------------------------------------------------


def decide(tx: Connection, decisions: dict[int, tuple[Rule | None, int | None]]) -> None:
    planning.decided.drop(tx, checkfirst=True)
    planning.decided.create(tx)
    for person, (rule, until) in decisions.items():
        tx.execute(
            planning.decided.insert().values(
                person_id=person, identity_id=person, rule=None if rule is None else rule.value, until=until
            )
        )


def stored(tx: Connection) -> dict[int, tuple[str, str | None, int | None, int]]:
    d = schema.decisions.c
    rows = tx.execute(select(d.person_id, d.state, d.rule, d.until, d.wave_id).order_by(d.person_id))
    return {row[0]: tuple(row[1:]) for row in rows}


def keep(tx: Connection, wave_id: int = 7, waits: bool = True, ends_at: int = 100, now: int = 1) -> int:
    statement = waves.changes(tx, 1, wave_id, ends_at, waits, now)
    return waves.store_changes(tx, statement, range(1, 100))


BLOCKED: dict[int, tuple[Rule | None, int | None]] = {
    1: (None, None),
    2: (Rule.ANY_SURVEY, 99),
    3: (Rule.ANY_SURVEY, 100),
    4: (Rule.OPTED_OUT, None),
    5: (Rule.COMPANY_SHARE, 50),
    6: (Rule.DAILY_LIMIT, 50),
    7: (Rule.SEND_WINDOW, 50),
    8: (Rule.NOT_IN_AUDIENCE, None),
    9: (Rule.QUIET_PERIOD, 60),
}


def test_who_is_free_before_the_wave_ends_stays_planned_and_the_others_are_dropped(store: Store) -> None:
    with store.write() as tx:
        decide(tx, BLOCKED)
        keep(tx)
        assert stored(tx) == {
            1: ("planned", None, None, 7),
            2: ("planned", "any_survey", 99, 7),
            3: ("dropped", "any_survey", 100, 7),
            4: ("dropped", "opted_out", None, 7),
            5: ("planned", None, None, 7),
            6: ("planned", None, None, 7),
            7: ("planned", None, None, 7),
            9: ("planned", "quiet_period", 60, 7),
        }


def test_with_skip_who_is_blocked_is_dropped_with_the_rule(store: Store) -> None:
    with store.write() as tx:
        decide(tx, BLOCKED)
        keep(tx, waits=False)
        states = {person: row[0] for person, row in stored(tx).items()}
        counted = waves.dropped(tx, 1, 7)
    dropped = {person for person, state in states.items() if state == "dropped"}
    assert dropped == {2, 3, 4, 5}  # hours, limits and quiet periods stop the wave, not the person
    assert counted == Counter({"any_survey": 2, "opted_out": 1})


def test_a_row_is_written_only_when_the_decision_changed(store: Store) -> None:
    with store.write() as tx:
        decide(tx, BLOCKED)
        assert keep(tx) == 8
        assert keep(tx, now=2) == 0
        decide(tx, {**BLOCKED, 2: (None, None), 6: (Rule.COMPANY_SHARE, 70)})
        assert keep(tx, now=3) == 1  # that a person waits for another pacing rule is no change
        assert stored(tx)[2] == ("planned", None, None, 7)
        changed = tx.scalar(select(schema.decisions.c.changed_at).where(schema.decisions.c.person_id == 2))
    assert changed == 3


def test_in_the_next_wave_the_planned_are_planned_anew_and_the_dropped_rows_stay(store: Store) -> None:
    with store.write() as tx:
        decide(tx, BLOCKED)
        keep(tx)
        assert keep(tx, wave_id=8) == 6
        waves_of = {person: row[3] for person, row in stored(tx).items()}
    assert {person for person, wave in waves_of.items() if wave == 7} == {3, 4}


def test_people_who_leave_the_audience_are_told_from_those_never_in_it(store: Store) -> None:
    with store.write() as tx:
        decide(tx, {1: (None, None), 2: (Rule.NOT_IN_AUDIENCE, None)})
        keep(tx)
        decide(tx, {1: (Rule.NOT_IN_AUDIENCE, None), 2: (Rule.NOT_IN_AUDIENCE, None)})
        keep(tx)
        assert stored(tx) == {1: ("dropped", "not_in_audience", None, 7)}


def test_refusals_are_kept_as_counts_per_rule(store: Store, clock: FixedClock) -> None:
    with store.write() as tx:
        wave = waves.open_wave(tx, add_campaign(tx), PLAN)
        decide(tx, {**BLOCKED, 10: (None, None)})
        counted = waves.counts(tx)
        waves.remember_plan(tx, wave.id, counted, clock.now_ms(), clock.now_ms() + 1)
        kept: Any = tx.scalar(select(schema.waves.c.counts))
        assert waves.people_range(tx) == (1, 10)
        assert waves.earliest_free(tx, 40) == 50
    assert kept["asked"] == 2
    assert kept["not_asked"]["any_survey"] == 2
    assert sum(kept["not_asked"].values()) == 8


@pytest.mark.parametrize("waits", [True, False])
def test_a_plan_of_nobody_stores_nothing(store: Store, waits: bool) -> None:
    with store.write() as tx:
        decide(tx, {})
        assert waves.people_range(tx) == (0, -1)
        assert waves.earliest_free(tx, 0) is None
        assert keep(tx, waits=waits) == 0
