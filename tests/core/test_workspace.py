"""What the keys of a workspace file mean, and what those mean that are left out."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from core.clock import DAY_MS, to_ms
from core.waves import wave_at, zone_now
from core.workspace import Brakes, Campaign, Quarantine, Retention, SendWindow, Workspace, weekdays
from core.workspace_file import stored

LEAST: dict[str, Any] = {"name": "relationship", "source": "crm", "sender": "mail", "every_days": 90}


def campaign(**keys: Any) -> Campaign:
    return Campaign.model_validate({**LEAST, **keys})


def test_quarantine_that_is_left_out_is_the_rule_as_published() -> None:
    assert Quarantine().model_dump() == {
        "any_survey_days": 30,
        "same_type_days": 90,
        "after_answer_days": 90,
        "after_decline_days": 180,
        "after_silence_days": 60,
        "touches_per_365_days": 4,
        "company_share": 0.2,
        "tenure_days": 30,
    }


def test_brakes_and_retention_that_are_left_out() -> None:
    assert Brakes() == Brakes(
        bounce_share=0.05, complaint_share=0.001, refusals=20, first_wave=50, first_wave_minutes=60
    )
    assert Retention() == Retention(inbox=30, payloads=30, hits=30)


def test_workspace_needs_a_name_alone() -> None:
    found = Workspace.model_validate({"name": "Acme"})
    assert (found.languages, found.time_zone, found.live, found.test_recipients) == (("en",), "UTC", True, ())
    assert found.quiet_periods == ()


def test_campaign_that_names_least_sends_at_any_hour_without_limit() -> None:
    found = campaign()
    assert found.type == "nps"
    assert found.send_window is None
    assert found.daily_limit is None
    assert found.reminds_after_days == 6
    assert found.write_back == ()
    assert (found.priority, found.purpose) == (0, "")
    assert (found.window_days, found.expected_response_rate) == (21, 0.15)
    assert found.who.conditions == ()
    survey = found.survey
    assert (survey.template, survey.colour, survey.progress) == ("relationship", "#1450d2", True)
    assert (survey.anonymous, survey.confirm) == (False, "suspect")


def test_blocked_people_of_a_cadence_wait() -> None:
    assert campaign().waits
    assert campaign(blocked="wait").waits
    assert not campaign(blocked="skip").waits


@pytest.mark.parametrize(("written", "sources"), [("crm", ("crm",)), (["crm", "shop"], ("crm", "shop"))])
def test_one_source_or_several(written: Any, sources: tuple[str, ...]) -> None:
    assert campaign(source=written).source == sources


def test_once_is_one_wave_on_its_day_in_the_zone_of_the_workspace() -> None:
    found = Campaign.model_validate({**LEAST, "every_days": None, "once": date(2026, 12, 1)})
    paris = ZoneInfo("Europe/Paris")
    midnight = to_ms(datetime(2026, 11, 30, 23, tzinfo=UTC))
    assert wave_at(found, 0, paris, midnight - 1) is None
    wave = wave_at(found, 0, paris, midnight)
    assert wave is not None
    assert (wave.number, wave.opens_at) == (1, midnight)


def test_every_n_days_counts_from_start() -> None:
    found = campaign(start=date(2026, 12, 1), end=date(2027, 3, 31))
    begins = to_ms(datetime(2026, 12, 1, tzinfo=UTC))
    utc = ZoneInfo("UTC")
    assert wave_at(found, 0, utc, begins - 1) is None
    second = wave_at(found, 0, utc, begins + 91 * DAY_MS)
    assert second is not None
    assert second.number == 2
    assert second.ends_at == to_ms(datetime(2027, 4, 1, tzinfo=UTC))  # the last day is included
    assert wave_at(found, 0, utc, second.ends_at) is None


def test_send_window_is_read_as_written() -> None:
    window = SendWindow.model_validate({"from": "09:00", "to": "17:00", "days": "mon-fri"})
    assert (window.from_, window.to, window.weekdays) == (time(9), time(17), frozenset(range(5)))
    assert stored(window) == {"from": "09:00", "to": "17:00", "days": "mon-fri"}


def test_send_window_that_names_days_alone_is_open_all_day() -> None:
    window = SendWindow.model_validate({"days": "sat,sun"})
    saturday = to_ms(datetime(2026, 12, 5, 23, 59, tzinfo=UTC))
    assert zone_now(ZoneInfo("UTC"), window, saturday).opens_at is None
    assert SendWindow.model_validate({"to": "24:00"}).to == time(0)


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("mon-fri", {0, 1, 2, 3, 4}),
        ("Mon, Wed, Sat-Sun", {0, 2, 5, 6}),
        ("fri-mon", {4, 5, 6, 0}),
        ("sun", {6}),
    ],
)
def test_days_of_the_week(text: str, days: set[int]) -> None:
    assert weekdays(text) == days


@pytest.mark.parametrize("text", ["", "monday", "mon-fry", "mon;tue", "1-5"])
def test_what_names_no_day_of_the_week_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="mon-fri"):
        weekdays(text)


def test_settings_survive_the_database() -> None:
    """What is stored as JSON reads back as what was validated."""
    written = campaign(
        write_back=["crm"],
        start=date(2026, 12, 1),
        audience={"customer_since": {"before": date(2026, 1, 1)}, "seats": {"min": 5}, "country": ["FR"]},
        send_window={"from": "09:00", "to": "17:00"},
        survey={"anonymous": False, "reply_to": "help@acme.example"},
    )
    again = Campaign.model_validate(stored(written))
    assert again.who == written.who
    assert again.send_window == written.send_window
    assert stored(again) == stored(written)


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError):
        campaign().sender = "other"


@pytest.mark.parametrize(
    ("keys", "days"),
    [({}, 6), ({"reminder_days": 5}, 5), ({"reminder_days": 0}, None), ({"window_days": 6}, None)],
)
def test_there_is_one_reminder_unless_it_is_switched_off_or_would_come_too_late(
    keys: dict[str, int], days: int | None
) -> None:
    found = Campaign.model_validate({"name": "r", "source": "crm", "sender": "mail", "every_days": 90, **keys})
    assert found.reminds_after_days == days
