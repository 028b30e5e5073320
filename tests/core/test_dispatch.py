"""What is looked at again when a message is about to leave: an opt-out wins, a reminder never moves its touch."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest

from core.clock import DAY_MS, MINUTE_MS, to_ms
from core.dispatch import BACKOFF_MS, Leave, Message, Never, Wait, may_leave, retry_at
from core.touches import ReturnReason, TouchState
from core.workspace import Campaign, SendWindow, Workspace

NOW = to_ms(datetime(2026, 12, 1, 9, tzinfo=UTC))
S = TouchState
CAMPAIGN = Campaign(name="relationship", source=("crm",), sender="mail", every_days=90)
WORKSPACE = Workspace(name="Acme", time_zone="Europe/Paris")

INVITE = Message(
    delivery_id=1, key="0abc:invite", fence=0, attempts=0, payload={}, expires_at=NOW + DAY_MS, created_at=NOW,
    touch_id=1, touch_state=S.RESERVED, answered=False, asked_address=b"a", asked_at=NOW,
    window_closes_at=NOW + 21 * DAY_MS, person_id=1, campaign_id=1, campaign="relationship", campaign_state="active",
    identity_id=1, external_id="7", email="ada@acme.example", address_hash=b"a", shared=False, first_name="Ada",
    last_name=None, company=None, language=None, time_zone=None, gone=False, opted_out=False, hold_until=None,
    suppressed=False, incident=False,
)  # fmt: skip
REMINDER = replace(INVITE, key="0abc:reminder:1", touch_state=S.HANDED_OVER)


def decided(message: Message, now: int = NOW, **workspace: Any) -> Leave | Wait | Never:
    return may_leave(message, CAMPAIGN, WORKSPACE.model_copy(update=workspace), now)


def test_a_message_nothing_speaks_against_leaves_on_the_recipients_day() -> None:
    assert decided(INVITE) == Leave("2026-12-01")
    assert decided(replace(INVITE, time_zone="Pacific/Kiritimati")) == Leave("2026-12-01")
    assert decided(replace(INVITE, time_zone="Pacific/Kiritimati"), NOW + 6 * 3_600_000) == Leave("2026-12-02")
    assert decided(replace(INVITE, time_zone="Europe")) == Leave("2026-12-01")  # no zone: the workspace's
    assert decided(REMINDER) == Leave("2026-12-01")


CHANGED: dict[str, tuple[dict[str, Any], ReturnReason]] = {
    "opted out": ({"opted_out": True}, ReturnReason.CANCELLED),
    "the address is on the suppression list": ({"suppressed": True}, ReturnReason.SUPPRESSED),
    "an incident is open": ({"incident": True}, ReturnReason.CANCELLED),
    "on hold": ({"hold_until": NOW + 1}, ReturnReason.CANCELLED),
    "the record is gone": ({"gone": True}, ReturnReason.CANCELLED),
    "the record has no address any more": ({"email": None}, ReturnReason.CANCELLED),
    "the address changed": ({"address_hash": b"b"}, ReturnReason.CANCELLED),
    "the campaign was stopped": ({"campaign_state": "stopped"}, ReturnReason.CANCELLED),
    "not handed over in time": ({"expires_at": NOW}, ReturnReason.EXPIRED),
}


@pytest.mark.parametrize("why", list(CHANGED))
def test_what_changed_since_the_reservation_returns_the_quota_and_says_why(why: str) -> None:
    values, reason = CHANGED[why]
    assert decided(replace(INVITE, **values)) == Never(reason, why)


@pytest.mark.parametrize("why", list(CHANGED))
def test_a_reminder_that_may_not_leave_never_moves_its_touch(why: str) -> None:
    values, _ = CHANGED[why]
    assert decided(replace(REMINDER, **values)) == Never(None, why)


def test_an_opt_out_wins_whatever_else_holds() -> None:
    for (values, _), state in product(CHANGED.values(), ("active", "paused")):
        found = decided(replace(INVITE, **{"campaign_state": state, **values, "opted_out": True}))
        assert isinstance(found, Never)


def test_a_hold_that_is_over_and_one_that_is_not() -> None:
    assert decided(replace(INVITE, hold_until=NOW)) == Leave("2026-12-01")
    assert isinstance(decided(replace(INVITE, hold_until=NOW + 1)), Never)


@pytest.mark.parametrize("state", list(S))
def test_an_invitation_leaves_only_while_its_quota_is_taken_and_it_has_not_arrived(state: TouchState) -> None:
    found = decided(replace(INVITE, touch_state=state))
    if state in (S.RESERVED, S.UNKNOWN):  # unknown: the vendor was asked and never had it
        assert found == Leave("2026-12-01")
    else:
        assert found == Never(None, f"the invitation is {state.value}")


@pytest.mark.parametrize("state", list(S))
def test_a_reminder_leaves_only_while_the_invitation_stands_unanswered(state: TouchState) -> None:
    found = decided(replace(REMINDER, touch_state=state))
    assert isinstance(found, Leave) is (state is S.HANDED_OVER)
    assert decided(replace(REMINDER, answered=True)) == Never(None, "the invitation is answered")
    closed = replace(REMINDER, window_closes_at=NOW)
    assert decided(closed) == Never(None, "the survey window has closed")


def test_a_paused_campaign_waits_for_somebody_to_resume_it() -> None:
    assert decided(replace(INVITE, campaign_state="paused")) == Wait(None, "the campaign is paused")


def test_quiet_periods_and_hours_postpone() -> None:
    quiet = Workspace.model_validate(
        {
            "name": "Acme",
            "time_zone": "Europe/Paris",
            "quiet_periods": [{"name": "q", "from": "2026-12-01", "to": "2026-12-02"}],
        }
    )
    until = to_ms(datetime(2026, 12, 2, 23, tzinfo=UTC))
    assert may_leave(INVITE, CAMPAIGN, quiet, NOW) == Wait(until, "quiet period")
    hours = CAMPAIGN.model_copy(update={"send_window": SendWindow.model_validate({"from": "09:00", "to": "17:00"})})
    tokyo = replace(INVITE, time_zone="Asia/Tokyo")  # 18:00 there
    assert may_leave(INVITE, hours, WORKSPACE, NOW) == Leave("2026-12-01")
    assert may_leave(tokyo, hours, WORKSPACE, NOW) == Wait(NOW + 15 * 3_600_000, "outside the send window")


def test_a_workspace_that_is_not_live_sends_only_trials_to_its_test_recipients() -> None:
    trying: dict[str, Any] = {"live": False, "test_recipients": ("Me@acme.example",)}
    assert decided(INVITE, **trying) == Never(ReturnReason.CANCELLED, "the workspace is not live")
    trial = replace(INVITE, trial=True, email="me@ACME.example", opted_out=True)
    assert decided(trial, **trying) == Leave("2026-12-01")
    assert isinstance(decided(replace(trial, email="ada@acme.example"), **trying), Never)
    assert isinstance(decided(trial), Never)


def test_what_could_not_be_sent_is_tried_again_ever_more_rarely() -> None:
    assert [retry_at(attempts, None, 0) for attempts in (1, 2, 3, 4, 9)] == [*BACKOFF_MS, BACKOFF_MS[-1]]
    assert retry_at(0, None, 0) == 5 * MINUTE_MS
    assert retry_at(1, 90, NOW) == NOW + 90_000
    assert retry_at(1, 0, NOW) == NOW + 1_000
