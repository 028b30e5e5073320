"""Identified answers: taken, changed, suspected, released, and what becomes of the touch and the records."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Connection, Row, insert, select, update

from core.answers import FINISH_MS, Given, Signal, Verdict
from core.clock import DAY_MS
from core.errors import NotFound
from core.ids import token_hash
from core.keyring import Keyring
from core.storage import schema
from core.storage.people_gone import erase_people, forget
from core.storage.responses import (
    Recorded,
    StoredAnswer,
    decline,
    dismiss,
    find_answer,
    latest_scores,
    may_edit,
    record_answer,
    release,
)
from core.storage.store import Store
from core.storage.touches import touch_for_link
from core.storage.write_backs import read_ledger
from core.touches import TouchState
from tests.ledger import add_campaign, add_connection, add_person, add_touch, add_wave

ASKED = 1_700_000_000_000
NOW = ASKED + 3_600_000
CLOSES = ASKED + 21 * DAY_MS
KEYS = Keyring({"k1": bytes(32)})
ROBOT = (Signal.SEVERAL_SCORES, Signal.NO_LANGUAGE)
PARIS = ZoneInfo("Europe/Paris")


class World:
    """Ada has two records in two connections that scores are written back to, and one open ask with two links."""

    def __init__(self, store: Store) -> None:
        self.store = store
        with store.write() as tx:
            crm, hub = add_connection(tx), add_connection(tx, "hub")
            self.person, self.record = add_person(tx, crm, "ada@acme.example", first_name="Ada", last_name="Day")
            add_person(tx, hub, "ada@acme.example", person_id=self.person)
            config = {"name": "relationship", "source": ["crm"], "sender": "mail", "every_days": 90}
            self.campaign = add_campaign(tx, config={**config, "write_back": ["crm", "hub"]})
            self.wave = add_wave(tx, self.campaign)
            self.touch = self.ask(tx, self.person, self.record, "tok", "again")

    def ask(self, tx: Connection, person: int | None, record: int | None, *tokens: str, **values: Any) -> int:
        values = {"state": TouchState.HANDED_OVER, "asked_at": ASKED, "window_closes_at": CLOSES, **values}
        touch_id = add_touch(
            tx, person, identity_id=record, campaign_id=self.campaign, wave_id=self.wave, handed_over_at=ASKED, **values
        )
        for token, kind in zip(tokens, ("invite", "reminder"), strict=False):
            row = {"token_hash": token_hash("touch", token), "touch_id": touch_id, "kind": kind}
            tx.execute(insert(schema.survey_links).values(row))
        return touch_id

    def answer(
        self, score: int, comment: str | None = None, at: int = NOW, *, token: str = "tok",
        signals: Sequence[Signal] = (), forwarded: bool = False,
    ) -> Recorded:  # fmt: skip
        given = Given(score, comment, "fr", "Pourquoi ?", tuple(signals), forwarded)
        with self.store.write() as tx:
            touch = touch_for_link(tx, token)
            assert touch is not None
            return record_answer(tx, touch, token, given, KEYS, at)

    def found(self, token: str = "tok") -> StoredAnswer | None:
        with self.store.read() as tx:
            touch = touch_for_link(tx, token)
            assert touch is not None
            return find_answer(tx, touch, token, KEYS)

    def rows(self, table: Any, *order: Any) -> Sequence[Row[Any]]:
        with self.store.read() as tx:
            return tx.execute(select(table).order_by(*order)).all()

    def response(self) -> Any:
        (row,) = self.rows(schema.responses)
        return row

    def versions(self) -> list[tuple[int, int, str | None, str]]:
        rows: Any = self.rows(schema.response_versions, schema.response_versions.c.version)
        return [(row.version, row.score, row.comment, row.verdict) for row in rows]

    def touched(self, touch_id: int | None = None) -> Any:
        with self.store.read() as tx:
            return tx.execute(select(schema.touches).where(schema.touches.c.id == (touch_id or self.touch))).one()

    def write_backs(self) -> int:
        """How often the records of anybody were asked to be brought up to date."""
        return sum(row.wanted_version for row in self.rows(schema.deliveries) if row.kind == "write_back")

    def written_score(self, person: int) -> int | None:
        with self.store.read() as tx:
            answer = read_ledger(tx, [person], (), PARIS, NOW)[person].answer
        return None if answer is None else answer.score


@pytest.fixture
def world(store: Store) -> World:
    return World(store)


def test_what_a_test_recipient_answers_has_a_channel_of_its_own(world: World) -> None:
    with world.store.write() as tx:
        tx.execute(update(schema.touches).values(source="test", person_id=None, identity_id=None, wave_id=None))
    world.answer(9)
    assert (world.response().channel, world.response().wave_id, world.write_backs()) == ("test", None, 0)


# --- taking and changing --------------------------------------------------------------------------------------------


def test_the_score_is_stored_at_its_first_post(world: World) -> None:
    recorded = world.answer(9)
    assert recorded == Recorded(world.response().id, 1, Verdict.CONFIRMED, False, True, False)
    row = world.response()
    assert (row.score, row.comment, row.partial, row.late, row.mismatch) == (9, None, True, False, False)
    assert (row.person_id, row.identity_id, row.touch_id) == (world.person, world.record, world.touch)
    assert (row.campaign_id, row.wave_id, row.language, row.reason) == (world.campaign, world.wave, "fr", "Pourquoi ?")
    assert (row.channel, row.answered_at, row.answer_hash, row.sealed) == ("web", NOW, None, None)
    assert world.versions() == [(1, 9, None, "confirmed")]


def test_a_confirmed_answer_moves_the_touch_and_brings_every_record_up_to_date(world: World) -> None:
    world.answer(9)
    touch = world.touched()
    assert (touch.state, touch.answered, touch.answered_at) == ("answered", True, NOW)
    assert [row.kind for row in world.rows(schema.deliveries)] == ["write_back", "write_back"]
    assert world.written_score(world.person) == 9


def test_a_reminder_that_has_not_left_stays_when_an_answer_comes(world: World) -> None:
    with world.store.write() as tx:
        tx.execute(
            insert(schema.deliveries).values(
                key="t:reminder:1", kind="send", connection_id=1, touch_id=world.touch, due_at=NOW, created_at=NOW,
                payload={"token": "again"},
            )
        )  # fmt: skip
    world.answer(9)
    sent = next(row for row in world.rows(schema.deliveries) if row.kind == "send")
    assert (sent.state, sent.payload) == ("cancelled", None)


def test_a_second_answer_updates_the_first_and_keeps_every_version(world: World) -> None:
    world.answer(9)
    recorded = world.answer(9, "Good people", NOW + 1_000)
    assert (recorded.version, recorded.partial) == (2, False)
    world.answer(3, "Not any more", NOW + 2_000)
    row = world.response()
    assert (row.score, row.comment, row.version, row.partial) == (3, "Not any more", 3, False)
    assert (row.answered_at, row.updated_at) == (NOW, NOW + 2_000)
    assert world.versions() == [
        (1, 9, None, "confirmed"),
        (2, 9, "Good people", "confirmed"),
        (3, 3, "Not any more", "confirmed"),
    ]
    assert world.touched().answered_at == NOW
    assert world.write_backs() == 6  # two records, three times


def test_a_reminder_s_link_updates_the_same_answer(world: World) -> None:
    world.answer(9)
    world.answer(7, "Hm", token="again")
    assert (world.response().score, len(world.versions())) == (7, 2)
    assert world.found("tok") == world.found("again")


def test_the_same_post_again_changes_nothing(world: World) -> None:
    first = world.answer(9, "Good")
    before = world.rows(schema.responses), world.rows(schema.deliveries), world.rows(schema.touches)
    assert world.answer(9, "Good", NOW + 5_000) == first
    assert (world.rows(schema.responses), world.rows(schema.deliveries), world.rows(schema.touches)) == before
    assert len(world.versions()) == 1


def test_a_post_that_says_nothing_of_the_comment_keeps_it_and_an_empty_one_takes_it_back(world: World) -> None:
    world.answer(9, "Good")
    assert world.answer(8).partial is False
    assert world.response().comment == "Good"
    assert world.answer(8, "").partial is True
    assert world.response().comment is None


def test_what_was_answered_is_found_again_and_nothing_before(world: World) -> None:
    assert world.found() is None
    recorded = world.answer(9, "Good")
    assert world.found() == StoredAnswer(recorded.response_id or 0, 9, "Good", Verdict.CONFIRMED, 1)


def test_answers_are_numbered_at_random(world: World) -> None:
    world.answer(9)
    assert world.response().id > 2**32  # one in a billion fails


# --- the window -----------------------------------------------------------------------------------------------------


def test_an_answer_may_be_changed_until_the_window_closes(world: World) -> None:
    world.answer(9)
    assert not world.answer(8, at=CLOSES - 1).edit_refused
    refused = world.answer(2, at=CLOSES)
    assert (refused.edit_refused, refused.version, refused.verdict) == (True, 2, Verdict.CONFIRMED)
    assert (world.response().score, len(world.versions())) == (8, 2)
    with world.store.read() as tx:
        touch = touch_for_link(tx, "tok")
    assert touch is not None and may_edit(touch, CLOSES - 1) and not may_edit(touch, CLOSES)


def test_an_answer_after_the_window_is_stored_as_late_and_starts_the_clock(world: World) -> None:
    with world.store.write() as tx:
        tx.execute(update(schema.touches).values(state=TouchState.SILENT))
    assert world.answer(4, at=CLOSES).late
    assert (world.response().late, world.response().score) == (True, 4)
    assert (world.touched().state, world.touched().answered_at) == ("answered", CLOSES)
    assert world.written_score(world.person) == 4


def test_an_answer_begun_in_the_window_may_be_finished_after_it(world: World) -> None:
    world.answer(4, at=CLOSES - 1)
    recorded = world.answer(4, "It broke", at=CLOSES + 60_000)
    assert (recorded.edit_refused, recorded.late) == (False, False)
    assert world.answer(4, "It broke again", at=CLOSES - 1 + FINISH_MS).edit_refused
    assert world.response().comment == "It broke"


def test_a_retried_post_after_the_window_is_not_refused(world: World) -> None:
    world.answer(4, "It broke")
    assert not world.answer(4, "It broke", at=CLOSES + DAY_MS).edit_refused


@pytest.mark.parametrize("state", [TouchState.UNKNOWN, TouchState.SILENT, TouchState.RETURNED, TouchState.DECLINED])
def test_an_answer_proves_arrival_whatever_was_believed(world: World, state: TouchState) -> None:
    with world.store.write() as tx:
        tx.execute(update(schema.touches).values(state=state, reason="bounced"))
    world.answer(9)
    assert (world.touched().state, world.touched().reason) == ("answered", "")


# --- suspect --------------------------------------------------------------------------------------------------------


def test_a_suspect_answer_moves_no_touch_and_is_not_written_back(world: World) -> None:
    recorded = world.answer(0, signals=ROBOT)
    assert recorded.verdict is Verdict.SUSPECT
    assert world.response().signals == ["several_scores", "no_language"]
    assert (world.touched().state, world.touched().answered) == ("handed_over", False)
    assert (world.write_backs(), world.written_score(world.person)) == (0, None)


def test_weak_signals_are_stored_and_do_not_decide(world: World) -> None:
    assert world.answer(9, signals=(Signal.SOON_AFTER_SEND, Signal.BOT_AGENT)).verdict is Verdict.CONFIRMED
    assert world.response().signals == ["soon_after_send", "bot_agent"]


def test_a_person_after_a_machine_is_believed(world: World) -> None:
    world.answer(0, signals=ROBOT)
    recorded = world.answer(9, "Good", NOW + DAY_MS)
    assert (recorded.verdict, recorded.version) == (Verdict.CONFIRMED, 2)
    assert (world.response().score, world.response().answered_at) == (9, NOW + DAY_MS)
    assert (world.touched().answered_at, world.written_score(world.person)) == (NOW + DAY_MS, 9)


def test_the_same_score_posted_by_a_person_confirms_the_machine_s(world: World) -> None:
    world.answer(9, signals=ROBOT)
    assert world.answer(9).verdict is Verdict.CONFIRMED
    assert world.versions() == [(1, 9, None, "suspect"), (2, 9, None, "confirmed")]


def test_a_machine_that_posts_all_scores_keeps_only_suspects(world: World) -> None:
    for score in range(11):
        assert world.answer(score, signals=ROBOT).verdict is Verdict.SUSPECT
    assert (world.response().score, world.response().verdict, len(world.versions())) == (10, "suspect", 11)
    assert world.touched().answered is False


def test_a_suspect_post_after_a_confirmed_answer_is_kept_apart(world: World) -> None:
    world.answer(9, "Good")
    written = world.write_backs()
    for _ in range(2):  # also when it comes twice
        assert world.answer(0, "", NOW + 1, signals=ROBOT).verdict is Verdict.CONFIRMED
    row = world.response()
    assert (row.score, row.comment, row.verdict, row.partial, row.signals) == (9, "Good", "confirmed", False, [])
    assert world.versions() == [(1, 9, "Good", "confirmed"), (2, 0, None, "suspect")]
    assert world.write_backs() == written
    world.answer(8, "Good", NOW + 2)
    assert world.versions()[2] == (3, 8, "Good", "confirmed")


def test_a_released_answer_counts_from_when_it_was_given(world: World) -> None:
    recorded = world.answer(3, signals=ROBOT)
    for _ in range(2):
        with world.store.write() as tx:
            release(tx, recorded.response_id or 0, NOW + DAY_MS)
    assert (world.response().verdict, world.touched().state, world.touched().answered_at) == (
        "confirmed", "answered", NOW,
    )  # fmt: skip
    assert (world.written_score(world.person), world.write_backs()) == (3, 2)


def test_a_dismissed_answer_counts_no_more_and_leaves_the_records(world: World) -> None:
    recorded = world.answer(3)
    with world.store.write() as tx:
        dismiss(tx, recorded.response_id or 0, NOW + 1)
    assert (world.response().verdict, world.written_score(world.person)) == ("dismissed", None)
    assert (world.touched().state, world.write_backs()) == ("answered", 4)  # the clock stays
    assert world.answer(3).verdict is Verdict.CONFIRMED  # and a person may say it again


def test_a_suspect_answer_is_dismissed_without_a_trace_outside(world: World) -> None:
    recorded = world.answer(3, signals=ROBOT)
    with world.store.write() as tx:
        dismiss(tx, recorded.response_id or 0, NOW + 1)
    assert (world.response().verdict, world.touched().state, world.write_backs()) == ("dismissed", "handed_over", 0)


@pytest.mark.parametrize("act", [release, dismiss])
def test_an_answer_that_is_not_there_gets_a_sentence(world: World, act: Any) -> None:
    with pytest.raises(NotFound, match="there is no answer 17"), world.store.write() as tx:
        act(tx, 17, NOW)


# --- whose answer it is ---------------------------------------------------------------------------------------------


def test_an_answer_from_a_shared_mailbox_is_the_company_s(world: World) -> None:
    with world.store.write() as tx:
        crm = 1
        first, record = add_person(tx, crm, "info@bakery.example", shared=True, first_name="Bo")
        second, _ = add_person(tx, crm, "info@bakery.example", shared=True, first_name="Cleo")
        touch_id = world.ask(tx, first, record, "shared")
    world.answer(2, "Cold bread", token="shared")
    row = world.response()
    assert (row.person_id, row.identity_id, row.touch_id, row.score) == (None, None, touch_id, 2)
    assert world.written_score(first) is None and world.written_score(second) is None
    assert world.touched(touch_id).state == "answered"  # the address was asked and has answered
    assert world.write_backs() == 1  # the record asked shows when it may be asked again
    with world.store.read() as tx:
        (latest,) = latest_scores(tx, KEYS, 10)
    assert (latest.name, latest.email, latest.score) == (None, "info@bakery.example", 2)


def test_an_answer_from_a_forwarded_link_is_flagged_and_starts_nobody_s_clock(world: World) -> None:
    world.answer(2, "Not for me", forwarded=True)
    row = world.response()
    assert (row.mismatch, row.person_id, row.touch_id, row.verdict) == (True, None, world.touch, "confirmed")
    assert (world.touched().state, world.write_backs()) == ("handed_over", 0)
    assert world.found() is None  # it is not shown as the invited person's
    world.answer(10, "Mine")
    assert sorted((one.score, one.mismatch, one.person_id) for one in world.rows(schema.responses)) == [
        (2, True, None),
        (10, False, world.person),
    ]
    assert world.written_score(world.person) == 10
    with world.store.read() as tx:
        shown = {one.score: (one.name, one.email) for one in latest_scores(tx, KEYS, 10)}
    assert shown == {2: (None, None), 10: ("Ada Day", "ada@acme.example")}


def test_a_person_deleted_meanwhile_is_not_brought_back_by_an_answer(world: World) -> None:
    with world.store.write() as tx:
        touch_id = world.ask(tx, None, None, "gone")
    assert world.answer(9, "Still here", token="gone").verdict is Verdict.CONFIRMED
    row = world.response()
    assert (row.person_id, row.identity_id, row.score, row.touch_id) == (None, None, 9, touch_id)
    assert (world.touched(touch_id).state, world.write_backs()) == ("answered", 0)


def test_an_answer_follows_the_person_as_merged_since_the_link_was_looked_up(world: World) -> None:
    with world.store.write() as tx:
        stale = touch_for_link(tx, "tok")
        other, _ = add_person(tx, 1)
        tx.execute(update(schema.touches).values(person_id=other))
    assert stale is not None
    with world.store.write() as tx:
        record_answer(tx, stale, "tok", Given(9, None, "fr"), KEYS, NOW)
    assert world.response().person_id == other


@pytest.mark.parametrize("deleted_before", [False, True])
def test_erasing_an_address_erases_what_was_said_from_it(world: World, deleted_before: bool) -> None:
    hashed = b"h" * 16
    with world.store.write() as tx:
        person, record = add_person(tx, 1, "info@bakery.example", shared=True, address_hash=hashed)
        # who is still known is found whatever address was asked, who is not only by the address
        world.ask(tx, person, record, "shared", address_hash=hashed if deleted_before else b"o" * 16)
    world.answer(2, "I am Bo and your bread is cold", token="shared")
    world.answer(9, "Ada's own")
    with world.store.write() as tx:
        if deleted_before:
            forget(tx, [person], NOW)
        known = [] if deleted_before else [person]
        erase_people(tx, known, "info@bakery.example", hashed, NOW, "cli")
        assert touch_for_link(tx, "shared") is None
    said = {row.score: row.comment for row in world.rows(schema.responses)}
    assert said == {2: None, 9: "Ada's own"}
    assert {row.comment for row in world.rows(schema.response_versions)} == {None, "Ada's own"}


# --- declining ------------------------------------------------------------------------------------------------------


def test_who_would_rather_not_answer_has_declined(world: World) -> None:
    with world.store.write() as tx:
        touch = touch_for_link(tx, "tok")
        assert touch is not None and decline(tx, touch, NOW)
    assert (world.touched().state, world.touched().declined_at) == ("declined", NOW)
    assert (world.write_backs(), world.rows(schema.responses)) == (2, [])
    world.answer(9)  # and may think better of it
    assert world.touched().state == "answered"


def test_who_has_answered_does_not_decline(world: World) -> None:
    world.answer(9)
    with world.store.write() as tx:
        touch = touch_for_link(tx, "again")
        assert touch is not None and not decline(tx, touch, NOW + 1)
    assert (world.touched().state, world.touched().declined_at, world.response().score) == ("answered", None, 9)


# --- the latest -----------------------------------------------------------------------------------------------------


def test_the_latest_scores_come_first_and_suspect_ones_not_at_all(world: World) -> None:
    with world.store.write() as tx:
        for number in range(3):
            person, record = add_person(tx, 1, f"p{number}@acme.example", first_name=f"P{number}")
            world.ask(tx, person, record, f"t{number}")
    world.answer(10, "first", NOW, token="t0")
    world.answer(0, None, NOW + 1, token="t1", signals=ROBOT)
    world.answer(7, None, NOW + 2, token="t2")
    with world.store.read() as tx:
        rows = latest_scores(tx, KEYS, 10)
        assert [one.score for one in latest_scores(tx, KEYS, 1)] == [7]
    assert [astuple(one) for one in rows] == [
        ("passive", 7, "P2", "p2@acme.example", "relationship", None, NOW + 2),
        ("promoter", 10, "P0", "p0@acme.example", "relationship", "first", NOW),
    ]  # fmt: skip


# --- at once --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scores", "versions"), [((3, 9), 2), ((9, 9), 1)])
def test_two_posts_at_once_yield_one_answer(world: World, scores: tuple[int, int], versions: int) -> None:
    barrier = threading.Barrier(2)
    failed: list[BaseException] = []

    def post(score: int, token: str) -> None:
        try:
            barrier.wait(5)
            world.answer(score, token=token)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=post, args=pair) for pair in zip(scores, ("tok", "again"), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failed == []
    assert len(world.rows(schema.responses)) == 1
    assert [version for version, *_ in world.versions()] == list(range(1, versions + 1))
    assert world.response().score == world.versions()[-1][1]
