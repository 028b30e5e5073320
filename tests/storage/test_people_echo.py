"""Our own fields as a source shows them: the echo of what we wrote, or somebody's edit."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import insert, update

from core.clock import FixedClock, to_ms
from core.storage import schema
from core.storage.people_echo import is_edited
from core.storage.store import Store
from core.touches import TouchState
from core.writeback import Answer, Written
from tests.shown import Shown, contact

PARIS = ZoneInfo("Europe/Paris")
AT = to_ms(datetime(2026, 11, 30, 23, 30, tzinfo=UTC))  # the 1st of December in Paris
ANSWER = Answer(9, "Très bien,\nmerci\x07 !", AT)
FIELDS = ("nps_score", "nps_category", "nps_comment", "nps_responded_at")
ECHO = {
    "nps_score": "9",
    "nps_category": "promoter",
    "nps_comment": "Très bien, merci !",
    "nps_responded_at": "01/12/2026",
}


@pytest.mark.parametrize(
    ("shown", "edited"),
    [
        ({}, False),
        ({"nps_score": "9.0"}, False),
        ({"nps_category": "Promoter"}, False),
        ({"nps_comment": "Très bien,\r\nmer…"}, False),  # cut by the source
        ({"nps_responded_at": "2026-12-01T00:30:00+01:00"}, False),
        ({"nps_follow_up_status": "open"}, False),
        ({"nps_score": "10"}, True),
        ({"nps_score": ""}, True),
        ({"nps_score": "nine"}, True),
        ({"nps_category": "detractor"}, True),
        ({"nps_comment": "Très bien"}, True),
        ({"nps_comment": ""}, True),
        ({"nps_responded_at": "30/11/2026"}, True),
        ({"nps_responded_at": "yesterday"}, True),
    ],
)
def test_what_we_wrote_is_no_edit_however_its_source_writes_it(shown: dict[str, str], edited: bool) -> None:
    assert is_edited({**ECHO, **shown}, Written(AT, None, FIELDS), ANSWER, PARIS) is edited


def test_fields_we_never_wrote_are_their_owners() -> None:
    assert not is_edited(
        {"nps_score": "3", "nps_may_be_asked_at": "2027-01-01"}, Written(AT, AT, ("nps_may_be_asked_at",)), None, PARIS
    )


def test_a_date_of_ours_that_was_cleared_is_an_edit() -> None:
    assert is_edited({}, Written(AT, AT, ("nps_may_be_asked_at",)), None, PARIS)


# --- as records are stored ------------------------------------------------------------------------------------------


@pytest.fixture
def shown(store: Store, clock: FixedClock) -> Shown:
    """Ada has answered, and her score was written into her record."""
    shown = Shown(store, clock)
    shown.show(shown.crm, contact("1", "ada@acme.example", "Ada"))
    record = shown.record(shown.crm, "1")
    touch = shown.ask(shown.crm, "1", TouchState.ANSWERED)
    with store.write() as tx:
        tx.execute(
            insert(schema.responses).values(
                id=1, campaign_id=shown.campaign, touch_id=touch, person_id=record.person_id, identity_id=record.id,
                score=9, comment=ANSWER.comment, verdict="confirmed", signals={}, answered_at=AT,
            )
        )  # fmt: skip
        tx.execute(
            insert(schema.deliveries).values(
                key=f"write_back:{shown.crm}:{record.id}", kind="write_back", connection_id=shown.crm,
                identity_id=record.id, state="done", due_at=0, created_at=0, wanted_version=1, done_version=1,
                payload=Written(AT, None, FIELDS).payload(),
            )
        )  # fmt: skip
    return shown


def test_our_own_echo_asks_for_nothing(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", "ada@acme.example", "Ada", nps=ECHO))
    assert shown.wanted(shown.crm, "1") == 1


def test_an_edited_score_is_asked_back_once(shown: Shown) -> None:
    shown.show(shown.crm, contact("1", "ada@acme.example", "Ada", nps=ECHO))
    edited = {**ECHO, "nps_score": "2"}
    shown.show(shown.crm, contact("1", "ada@acme.example", "Ada", nps=edited))
    assert shown.wanted(shown.crm, "1") == 2
    shown.show(shown.crm, contact("1", "ada@acme.example", "Ada", nps=edited, country="FR"))
    assert shown.wanted(shown.crm, "1") == 2


def test_what_is_about_to_be_written_anyway_is_not_judged(shown: Shown) -> None:
    with shown.store.write() as tx:
        tx.execute(update(schema.deliveries).values(wanted_version=5, state="ready"))
    shown.show(shown.crm, contact("1", "ada@acme.example", "Ada", nps={**ECHO, "nps_score": "2"}))
    assert shown.wanted(shown.crm, "1") == 5


def test_scores_of_a_record_nothing_was_written_into_are_its_owners(shown: Shown) -> None:
    shown.show(shown.crm, contact("2", "bo@acme.example", "Bo"))
    shown.show(shown.crm, contact("2", "bo@acme.example", "Bo", nps={"nps_score": "4"}))
    assert shown.wanted(shown.crm, "2") == 0
    assert shown.record(shown.crm, "2").nps_seen == {"nps_score": "4"}
