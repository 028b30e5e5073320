"""What a record must show: the customer's answer, the date asked, when the person is free again."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from core.clock import DAY_MS, HOUR_MS, from_ms, to_ms
from core.writeback import ANSWER_FIELDS, LAST_SURVEYED, MAY_BE_ASKED, Answer, Ledger, Shown, Written, update_for

PARIS = ZoneInfo("Europe/Paris")
NOW = to_ms(datetime(2026, 12, 1, 9, tzinfo=UTC))
ASKED = NOW - 3 * DAY_MS
BEFORE = NOW - 120 * DAY_MS
ANSWER = Answer(9, "Très bien", NOW - DAY_MS)
NOTHING = Shown(None, None)
WRITTEN = Written(ASKED + HOUR_MS, ASKED, (*ANSWER_FIELDS, MAY_BE_ASKED))


def day_of(ms: int) -> str:
    return from_ms(ms).astimezone(PARIS).date().isoformat()


def shown(text: str | None, read_at: int = NOW - HOUR_MS) -> Shown:
    return Shown(text, read_at)


def test_a_record_shows_the_answer_the_date_asked_and_when_the_person_is_free() -> None:
    free_at = ANSWER.answered_at + 90 * DAY_MS
    update = update_for(Ledger(ANSWER, ASKED, free_at), Written(), NOTHING, PARIS, NOW)
    assert update.fields == {
        "nps_score": 9,
        "nps_category": "promoter",
        "nps_comment": "Très bien",
        "nps_responded_at": from_ms(ANSWER.answered_at),
        LAST_SURVEYED: from_ms(ASKED),
        MAY_BE_ASKED: from_ms(free_at),
    }
    assert update.expected == {}
    assert update.written == Written(NOW, ASKED, (*ANSWER_FIELDS, MAY_BE_ASKED))


def test_of_a_person_nothing_is_known_of_nothing_is_written() -> None:
    update = update_for(Ledger(), Written(), NOTHING, PARIS, NOW)
    assert (update.fields, update.expected) == ({}, {})


def test_moments_are_in_the_zone_of_the_account() -> None:
    late = to_ms(datetime(2026, 11, 30, 23, 30, tzinfo=UTC))  # the next day in Paris
    update = update_for(Ledger(Answer(3, None, late), late, late), Written(), NOTHING, PARIS, NOW)
    for name in (LAST_SURVEYED, MAY_BE_ASKED, "nps_responded_at"):
        moment = update.fields[name]
        assert isinstance(moment, datetime)
        assert moment.isoformat() == "2026-12-01T00:30:00+01:00"


@pytest.mark.parametrize(("score", "category"), [(10, "promoter"), (8, "passive"), (7, "passive"), (6, "detractor")])
def test_the_category_belongs_to_the_score(score: int, category: str) -> None:
    update = update_for(Ledger(Answer(score, None, NOW)), Written(), NOTHING, PARIS, NOW)
    assert update.fields["nps_category"] == category


def test_a_score_of_zero_is_a_score() -> None:
    assert update_for(Ledger(Answer(0, "", NOW)), Written(), NOTHING, PARIS, NOW).fields["nps_score"] == 0


def test_an_answer_without_a_comment_clears_the_comment_of_the_one_before() -> None:
    update = update_for(Ledger(Answer(9, "", NOW)), WRITTEN, NOTHING, PARIS, NOW)
    assert update.fields["nps_comment"] is None
    assert "nps_comment" not in update.written.fields


def test_an_answer_that_no_longer_counts_is_cleared_where_it_was_written() -> None:
    update = update_for(Ledger(None, ASKED), WRITTEN, NOTHING, PARIS, NOW)
    assert {name: update.fields[name] for name in ANSWER_FIELDS} == dict.fromkeys(ANSWER_FIELDS)
    assert update.written.fields == ()


def test_fields_that_never_held_anything_of_ours_are_left_alone() -> None:
    update = update_for(Ledger(None, ASKED), Written(), NOTHING, PARIS, NOW)
    assert set(update.fields) == {LAST_SURVEYED}


def test_a_free_date_that_has_no_meaning_any_more_is_cleared() -> None:
    update = update_for(Ledger(ANSWER, ASKED, None), WRITTEN, NOTHING, PARIS, NOW)
    assert update.fields[MAY_BE_ASKED] is None


def test_what_was_said_is_kept_in_one_place() -> None:
    kept = update_for(Ledger(ANSWER, ASKED), Written(), NOTHING, PARIS, NOW).written.payload()
    assert "Très bien" not in str(kept)
    assert kept == {"at": NOW, "last_surveyed_at": ASKED, "fields": list(ANSWER_FIELDS)}
    assert Written.from_payload(kept) == Written(NOW, ASKED, ANSWER_FIELDS)
    assert Written.from_payload(None) == Written()


# --- the date asked, and people who edit it ---------------------------------------------------------------------------


@pytest.mark.parametrize("seen", ["", "2020-01-01", "n/a", "2027-05-01"])
def test_the_date_of_the_ledger_is_put_back_whatever_stands_there(seen: str) -> None:
    update = update_for(Ledger(None, ASKED), WRITTEN, shown(seen), PARIS, NOW)
    assert update.fields[LAST_SURVEYED] == from_ms(ASKED)
    assert update.expected == {}


def test_a_later_ask_moves_the_date_on() -> None:
    update = update_for(Ledger(None, NOW), WRITTEN, shown(day_of(ASKED)), PARIS, NOW)
    assert update.fields[LAST_SURVEYED] == from_ms(NOW)
    assert update.written.last_surveyed_at == NOW


@pytest.mark.parametrize("before", [BEFORE, None])
def test_after_a_bounce_the_date_goes_back_to_the_ask_before(before: int | None) -> None:
    update = update_for(Ledger(None, before), WRITTEN, shown(day_of(ASKED)), PARIS, NOW)
    assert update.fields[LAST_SURVEYED] == (None if before is None else from_ms(before))
    assert update.expected == {LAST_SURVEYED: day_of(ASKED)}
    assert update.written.last_surveyed_at == before


def test_after_a_bounce_a_source_not_read_since_is_told_what_we_wrote() -> None:
    update = update_for(Ledger(None, BEFORE), WRITTEN, shown("2020-01-01", read_at=ASKED), PARIS, NOW)
    assert update.fields[LAST_SURVEYED] == from_ms(BEFORE)
    assert update.expected == {LAST_SURVEYED: from_ms(ASKED).astimezone(PARIS).isoformat()}


@pytest.mark.parametrize("before", [BEFORE, None])
def test_after_a_bounce_a_date_somebody_edited_is_not_rolled_back(before: int | None) -> None:
    edited = day_of(ASKED - 10 * DAY_MS)
    update = update_for(Ledger(None, before), WRITTEN, shown(edited), PARIS, NOW)
    assert LAST_SURVEYED not in update.fields
    assert update.written.last_surveyed_at == ASKED  # what we wrote last


@pytest.mark.parametrize("edited", ["", "2020-01-01", "soon"])
def test_after_a_bounce_a_date_that_was_cleared_or_moved_back_frees_nobody(edited: str) -> None:
    update = update_for(Ledger(None, BEFORE), WRITTEN, shown(edited), PARIS, NOW)
    assert update.fields[LAST_SURVEYED] == from_ms(BEFORE)
    assert update.expected == {LAST_SURVEYED: edited}


def test_after_a_bounce_of_the_only_ask_an_edit_stays() -> None:
    update = update_for(Ledger(), WRITTEN, shown("2020-01-01"), PARIS, NOW)
    assert LAST_SURVEYED not in update.fields


@pytest.mark.parametrize("style", ["%d/%m/%Y", "%Y-%m-%d", "%Y-%m-%d %H:%M"])
def test_our_own_date_in_the_sources_way_of_writing_is_no_edit(style: str) -> None:
    text = from_ms(ASKED).astimezone(PARIS).strftime(style)
    update = update_for(Ledger(), WRITTEN, shown(text), PARIS, NOW)
    assert update.fields[LAST_SURVEYED] is None
