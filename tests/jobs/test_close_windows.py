"""What the passing of time brings about: silence, reservations that ran out, and the one reminder."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from core.clock import DAY_MS, HOUR_MS, FixedClock
from core.ids import token_hash
from core.jobs import close_windows
from core.jobs.context import Context
from core.storage import schema
from core.storage.store import Store
from core.touches import TouchState
from tests.ledger import add_campaign, add_connection, add_person, add_touch, add_wave
from tests.world import set_workspace

WINDOW = 21 * DAY_MS


class Ledger:
    """A campaign that reminds after six days, and touches of it."""

    def __init__(self, store: Store, now: int, **campaign: Any) -> None:
        self.store, self.now = store, now
        set_workspace(store, time_zone="Europe/Paris")
        with store.write() as tx:
            add_connection(tx)
            self.mail = add_connection(tx, "mail", "smtp")
            config = {"name": "relationship", "source": ["crm"], "sender": "mail", "every_days": 90}
            self.campaign = add_campaign(tx, config=config | {"reminder_days": 6} | campaign)
            self.wave = add_wave(tx, self.campaign)

    def ask(self, asked_at: int, state: TouchState = TouchState.HANDED_OVER, **values: Any) -> int:
        person = {name: values.pop(name) for name in ("opted_out_at", "gone_at", "time_zone") if name in values}
        sent = {"handed_over_at": asked_at} if state is TouchState.HANDED_OVER else {}
        row = {"campaign_id": self.campaign, "wave_id": self.wave, "window_closes_at": asked_at + WINDOW}
        with self.store.write() as tx:
            person_id, identity_id = add_person(tx, **person)
            return add_touch(tx, person_id, state, asked_at, identity_id=identity_id, **{**row, **sent, **values})

    def deliver(self, touch: int, state: str, expires_at: int, key: str = "invite", **values: Any) -> None:
        row = {"key": f"touch{touch}:{key}", "kind": "send", "connection_id": self.mail, "touch_id": touch}
        with self.store.write() as tx:
            made = {"due_at": 0, "created_at": 0, "expires_at": expires_at, "payload": {"token": "t"}}
            tx.execute(schema.deliveries.insert().values(state=state, **row, **made, **values))

    def touch(self, touch: int) -> Any:
        with self.store.read() as tx:
            return tx.execute(select(schema.touches).where(schema.touches.c.id == touch)).one()

    def deliveries(self, touch: int) -> list[Any]:
        with self.store.read() as tx:
            d = schema.deliveries
            return list(tx.execute(select(d).where(d.c.touch_id == touch, d.c.kind == "send").order_by(d.c.id)))


@pytest.fixture
def ledger(store: Store, clock: FixedClock) -> Ledger:
    return Ledger(store, clock.now_ms())


# --- silence ----------------------------------------------------------------------------------------------------------


def test_a_window_that_closed_without_an_answer_is_silence(context: Context, ledger: Ledger, clock: FixedClock) -> None:
    touch = ledger.ask(clock.now_ms() - WINDOW + 1, reminded_at=1)
    assert close_windows.run(context).done == 0
    clock.advance(milliseconds=1)
    assert close_windows.run(context).done == 1
    assert ledger.touch(touch).state == "silent"
    assert close_windows.run(context).done == 0


@pytest.mark.parametrize("state", [state for state in TouchState if state is not TouchState.PLANNED])
def test_only_what_was_handed_over_falls_silent(
    context: Context, ledger: Ledger, clock: FixedClock, state: TouchState
) -> None:
    touch = ledger.ask(clock.now_ms() - WINDOW - 1, state, reminded_at=1)
    close_windows.run(context)
    silent = state in (TouchState.HANDED_OVER, TouchState.SILENT)
    assert ledger.touch(touch).state == ("silent" if silent else state)


def test_many_windows_close_in_small_transactions(context: Context, ledger: Ledger, clock: FixedClock) -> None:
    for _ in range(close_windows.BATCH + 1):
        ledger.ask(clock.now_ms() - WINDOW, reminded_at=1)
    assert close_windows.run(context).done == close_windows.BATCH + 1


# --- reservations that ran out ----------------------------------------------------------------------------------------


def test_what_did_not_leave_in_time_gives_its_quota_back(context: Context, ledger: Ledger, clock: FixedClock) -> None:
    touch = ledger.ask(clock.now_ms() - DAY_MS, TouchState.RESERVED)
    ledger.deliver(touch, "ready", clock.now_ms(), error="connection refused")
    assert close_windows.run(context).done == 1
    returned = ledger.touch(touch)
    assert (returned.state, returned.reason) == ("returned", "expired")
    assert "connection refused" in returned.detail
    (delivery,) = ledger.deliveries(touch)
    assert (delivery.state, delivery.payload) == ("cancelled", None)


def test_what_may_still_leave_or_is_leaving_keeps_it(context: Context, ledger: Ledger, clock: FixedClock) -> None:
    waiting = ledger.ask(clock.now_ms() - DAY_MS, TouchState.RESERVED)
    ledger.deliver(waiting, "ready", clock.now_ms() + 1)
    leaving = ledger.ask(clock.now_ms() - DAY_MS, TouchState.RESERVED)
    ledger.deliver(leaving, "sending", clock.now_ms() - 1)
    assert close_windows.run(context).done == 0
    assert ledger.touch(waiting).state == ledger.touch(leaving).state == "reserved"


def test_a_reminder_that_did_not_leave_in_time_moves_no_touch(
    context: Context, ledger: Ledger, clock: FixedClock
) -> None:
    touch = ledger.ask(clock.now_ms() - 7 * DAY_MS, reminded_at=1)
    ledger.deliver(touch, "ready", clock.now_ms(), key="reminder:1")
    assert close_windows.run(context).done == 1
    assert ledger.touch(touch).state == "handed_over"


# --- the reminder -----------------------------------------------------------------------------------------------------


def test_whoever_has_not_answered_is_reminded_once(context: Context, ledger: Ledger, clock: FixedClock) -> None:
    touch = ledger.ask(clock.now_ms() - 6 * DAY_MS + 1)
    assert close_windows.run(context).done == 0
    clock.advance(milliseconds=1)
    assert close_windows.run(context).done == 1
    (reminder,) = ledger.deliveries(touch)
    assert (reminder.key, reminder.state, reminder.kind) == (f"touch{touch}:reminder:1", "ready", "send")
    assert reminder.due_at == clock.now_ms()
    assert reminder.expires_at == ledger.touch(touch).window_closes_at
    clock.advance(days=6)
    assert close_windows.run(context).done == 0
    assert len(ledger.deliveries(touch)) == 1


def test_a_reminder_takes_no_quota_and_has_a_link_of_its_own(
    context: Context, ledger: Ledger, clock: FixedClock
) -> None:
    touch = ledger.ask(clock.now_ms() - 6 * DAY_MS)
    before = ledger.touch(touch)
    close_windows.run(context)
    (reminder,) = ledger.deliveries(touch)
    assert ledger.touch(touch)._mapping == {**before._mapping, "reminded_at": clock.now_ms()}
    with ledger.store.read() as tx:
        link = tx.execute(select(schema.survey_links)).one()
    assert (link.touch_id, link.kind) == (touch, "reminder")
    assert link.token_hash == token_hash("touch", reminder.payload["token"])


LEFT_ALONE: dict[str, dict[str, Any]] = {
    "answered": {"state": TouchState.ANSWERED, "answered": True},
    "anonymous answer": {"answered": True},
    "declined": {"state": TouchState.DECLINED},
    "in doubt": {"state": TouchState.UNKNOWN},
    "returned": {"state": TouchState.RETURNED},
    "opted out": {"opted_out_at": 1},
    "record gone": {"gone_at": 1},
    "window closed": {"window_closes_at": 1},
    "reminded": {"reminded_at": 1},
}


@pytest.mark.parametrize("values", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_others_are_not_reminded(context: Context, ledger: Ledger, clock: FixedClock, values: dict[str, Any]) -> None:
    touch = ledger.ask(clock.now_ms() - 7 * DAY_MS, **values)
    close_windows.run(context)
    assert ledger.deliveries(touch) == []


@pytest.mark.parametrize("state", ["paused", "stopped", "removed"])
def test_a_campaign_that_does_not_run_reminds_nobody(
    context: Context, ledger: Ledger, clock: FixedClock, state: str
) -> None:
    touch = ledger.ask(clock.now_ms() - 7 * DAY_MS)
    with ledger.store.write() as tx:
        tx.execute(schema.campaigns.update().values(state=state))
    close_windows.run(context)
    assert ledger.deliveries(touch) == []


def test_without_reminder_days_nobody_is_reminded(context: Context, store: Store, clock: FixedClock) -> None:
    ledger = Ledger(store, clock.now_ms(), reminder_days=0)
    touch = ledger.ask(clock.now_ms() - 7 * DAY_MS)
    assert close_windows.run(context).done == 0
    assert ledger.deliveries(touch) == []


def test_a_reminder_waits_for_the_recipients_hours(context: Context, store: Store, clock: FixedClock) -> None:
    window = {"from": "09:00", "to": "17:00", "days": "mon-fri"}
    ledger = Ledger(store, clock.now_ms(), send_window=window)
    # it is Tuesday 09:00 UTC: ten in Paris, one in the morning in Los Angeles
    paris = ledger.ask(clock.now_ms() - 6 * DAY_MS)
    west = ledger.ask(clock.now_ms() - 6 * DAY_MS, time_zone="America/Los_Angeles")
    assert close_windows.run(context).done == 2
    assert ledger.deliveries(paris)[0].due_at == clock.now_ms()
    assert ledger.deliveries(west)[0].due_at == clock.now_ms() + 8 * HOUR_MS


def test_reminded_twice_at_once_is_reminded_once(context: Context, ledger: Ledger, clock: FixedClock) -> None:
    touch = ledger.ask(clock.now_ms() - 6 * DAY_MS)
    ledger.deliver(touch, "done", clock.now_ms(), key="reminder:1")  # written by a process that then died
    assert close_windows.run(context).done == 0
    assert len(ledger.deliveries(touch)) == 1


def test_an_empty_workspace_has_nothing_to_close(context: Context) -> None:
    assert close_windows.run(context).done == 0
