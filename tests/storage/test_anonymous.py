"""Anonymous answers: what a reader of every table, without tokens and keys, can and cannot tell.

The proof is by dumps: every column of every row of every table. Two runs in which different people gave the answers, or
gave them in another order, must leave the same dump, apart from what is random by design (numbers of answers, hashes of
tokens, ciphertexts), whose values must stand nowhere else.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as with_values
from hypothesis import strategies as st
from sqlalchemy import insert, select, update

from core.answers import FINISH_MS, Given, Signal, Verdict
from core.clock import DAY_MS, FixedClock, from_ms
from core.deliveries import DeliveryState
from core.ids import token_hash
from core.keyring import Keyring, UnknownKey
from core.storage import deliveries, schema, sends
from core.storage.anonymous import AT_ONCE, FLOOR, SIZES, sealed_with, shared_by_enough, unseal_due
from core.storage.hits import note_hit, signals_for
from core.storage.responses import Recorded, decline, dismiss, find_answer, latest_scores, record_answer, release
from core.storage.settings import keys_in_use
from core.storage.store import Store
from core.storage.touches import touch_for_link
from core.touches import TouchState
from tests.ledger import add_campaign, add_connection, add_person, add_touch, add_wave

ASKED = 1_700_000_000_000
CLOSES = ASKED + 21 * DAY_MS
ENDS = ASKED + 10 * DAY_MS
OVER = CLOSES + FINISH_MS
#: A moment that no other row holds, so that it is noticed wherever it stands.
NOW = ASKED + 123_456_789
KEYS = Keyring({"k1": bytes(32)})
ROBOT = (Signal.HONEYPOT, Signal.QUICK)
PEOPLE = ("ada", "bo", "cleo", "dot", "eve", "finn", "gil")

Dump = dict[str, list[tuple[Any, ...]]]


class World:
    """Some people who were asked in one wave of an anonymous campaign. Their records are written back to for others."""

    def __init__(self, path: Path, names: Sequence[str] = PEOPLE, countries: Sequence[str] = ("FR",)) -> None:
        self.path = path
        self.store = Store(f"sqlite:///{path}", FixedClock(from_ms(NOW)))
        schema.metadata.create_all(self.store.engine)
        self.touches: dict[str, int] = {}
        with self.store.write() as tx:
            crm = add_connection(tx)
            config = {"name": "staff", "source": ["crm"], "sender": "mail", "every_days": 90}
            asking = {**config, "audience": {"plan": ["pro", "free"]}, "survey": {"anonymous": True}}
            self.campaign = add_campaign(tx, "staff", asking, anonymous=True)
            add_campaign(tx, "relationship", {**config, "name": "relationship", "write_back": ["crm"]})
            self.wave = add_wave(tx, self.campaign, ends_at=ENDS)
            for number, name in enumerate(names):
                person, record = add_person(
                    tx, crm, f"{name}@acme.example", first_name=name, country=countries[number % len(countries)],
                    attributes={"plan": "pro", "shoe": str(number)},
                )  # fmt: skip
                self.touches[name] = add_touch(
                    tx, person, TouchState.HANDED_OVER, ASKED + number, identity_id=record, campaign_id=self.campaign,
                    wave_id=self.wave, window_closes_at=CLOSES, handed_over_at=ASKED + number,
                )  # fmt: skip
                self.link(tx, name, f"{name}-token")

    def link(self, tx: Any, name: str, token: str, kind: str = "invite") -> None:
        row = {"token_hash": token_hash("touch", token), "touch_id": self.touches[name], "kind": kind}
        tx.execute(insert(schema.survey_links).values(row))

    def answer(
        self, name: str, score: int, comment: str | None = None, at: int = NOW, *, token: str = "",
        signals: Sequence[Signal] = (), language: str = "fr", keys: Keyring = KEYS,
    ) -> Recorded:  # fmt: skip
        token = token or f"{name}-token"
        with self.store.write() as tx:
            touch = touch_for_link(tx, token)
            assert touch is not None
            given = Given(score, comment, language, f"Why {score}?", tuple(signals))
            return record_answer(tx, touch, token, given, keys, at)

    def unseal(self, now: int = OVER, keys: Keyring = KEYS) -> int:
        with self.store.write() as tx:
            return unseal_due(tx, keys, now)

    def responses(self) -> Sequence[Any]:
        with self.store.read() as tx:
            return tx.execute(select(schema.responses).order_by(schema.responses.c.score)).all()

    def touched(self, name: str) -> Any:
        with self.store.read() as tx:
            return tx.execute(select(schema.touches).where(schema.touches.c.id == self.touches[name])).one()

    def dump(self) -> Dump:
        """Every column of every row of every table, as SQLite itself lists them, its own tables included."""
        with sqlite3.connect(self.path) as db:
            names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {name: db.execute(f'SELECT * FROM "{name}"').fetchall() for name in sorted(names)}


@pytest.fixture
def new_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    opened: list[World] = []

    def make(*args: Any, **values: Any) -> World:
        opened.append(World(tmp_path / f"boucle{len(opened)}.db", *args, **values))
        return opened[-1]

    yield make
    for world in opened:
        world.store.close()


@pytest.fixture
def world(new_world: Callable[..., World]) -> World:
    return new_world()


def column(table: Any, name: str) -> int:
    return [one.name for one in table.columns].index(name)


def without_the_random(dump: Dump) -> Dump:
    """The dump with what is random by design named by its first appearance, and answers in no order.

    An answer's number, the hash of its token and its ciphertext are new in every run; hits are told apart by link and,
    within a link, by value.
    """
    masked = dict(dump)
    random = {column(schema.responses, name) for name in ("id", "answer_hash", "sealed")}
    answers = (enumerate(row) for row in dump["responses"])
    masked["responses"] = sorted(
        (tuple(_kind(value) if place in random else value for place, value in row) for row in answers), key=repr
    )
    link, blinded = column(schema.hits, "link_hash"), {column(schema.hits, name) for name in ("score", "network")}
    names: dict[Any, int] = {}

    def named(*what: Any) -> str:
        return f"random {names.setdefault(what, len(names))}"

    masked["hits"] = [
        tuple(
            named(value) if place == link else named(row[link], place, value) if place in blinded and value else value
            for place, value in enumerate(row)
        )
        for row in dump["hits"]
    ]
    return masked


def _kind(value: Any) -> str:
    return f"{len(value)} random bytes" if isinstance(value, bytes) else type(value).__name__


def values_of(dump: Dump, *tables: str) -> set[Any]:
    return {value for name in tables for row in dump[name] for value in row}


# --- one answer -----------------------------------------------------------------------------------------------------


def test_the_only_answer_of_a_wave_says_nothing(new_world: Callable[..., World]) -> None:
    """Everybody can see whose touch was answered: so the answer itself must not differ, whatever was said."""
    dumps = []
    for score, comment, language in ((10, None, "fr"), (0, "It broke. " * 300, "en"), (7, "é" * 5_000, "fr")):
        world = new_world()
        world.answer("ada", score, comment, language=language)
        dumps.append(without_the_random(world.dump()))
    assert dumps[0] == dumps[1] == dumps[2]
    assert len(dumps[0]["responses"]) == 1


def test_an_answer_row_does_not_depend_on_who_gave_it(new_world: Callable[..., World]) -> None:
    rows = []
    for name, at in (("ada", NOW), ("bo", NOW + 1), ("cleo", NOW + DAY_MS)):
        world = new_world(countries=("FR", "DE", "IT"))
        world.answer(name, 9, "Good", at)
        rows.append(without_the_random(world.dump())["responses"])
    assert rows[0] == rows[1] == rows[2]


def test_an_answer_changes_the_flag_of_its_touch_and_adds_a_row_and_nothing_else(world: World) -> None:
    before = world.dump()
    world.answer("bo", 9, "Good")
    after = world.dump()
    assert [name for name in after if after[name] != before[name]] == ["responses", "touches"]
    changed = [
        {column.name for column, old, new in zip(schema.touches.columns, *pair, strict=True) if old != new}
        for pair in zip(before["touches"], after["touches"], strict=True)
        if pair[0] != pair[1]
    ]
    assert changed == [{"state", "answered"}]
    assert NOW not in values_of(after, *after)  # no moment anywhere
    assert (world.touched("bo").answered, world.touched("bo").answered_at) == (True, None)


def test_the_answer_shares_no_value_with_anybody(world: World) -> None:
    world.answer("bo", 9, "Good")
    dump = world.dump()
    (row,) = world.responses()
    assert row.person_id is row.identity_id is row.touch_id is row.answered_at is row.updated_at is None
    assert row.score is row.comment is row.reason is row.language is row.attributes is None
    assert (row.partial, row.late, row.version, row.signals) == (False, False, 1, [])
    elsewhere = [name for name in dump if name != "responses"]
    # what it shares: the campaign, the wave, and constants
    constants = {None, 0, 1, "web", "confirmed", "[]", world.campaign, world.wave}
    assert values_of(dump, "responses") & values_of(dump, *elsewhere) <= constants


def test_score_comment_and_question_stand_in_no_file_of_the_database(world: World) -> None:
    world.answer("ada", 9, "A very telling remark")
    for file in world.path.parent.glob(f"{world.path.name}*"):
        content = file.read_bytes()
        assert b"telling remark" not in content and b"Why 9?" not in content, file


def test_no_row_is_asked_to_be_written_back_at_the_moment_of_an_answer(world: World) -> None:
    world.answer("ada", 9)
    assert world.dump()["deliveries"] == []


# --- several answers ------------------------------------------------------------------------------------------------

SAID = ((9, "Good", NOW), (3, None, NOW + 60_000), (10, "Best " * 200, NOW + DAY_MS))


def visit(world: World, name: str, score: int, comment: str | None, at: int) -> None:
    """As the page does it: the link is opened, the score posted, then the comment."""
    token = f"{name}-token"
    with world.store.write() as tx:
        note_hit(tx, token, method="GET", score=score, agent=f"Browser of {name}", network="192.0.2.0/24", now=at)
        note_hit(tx, token, method="POST", score=score, network="192.0.2.0/24", now=at + 500)
        assert signals_for(tx, token, ASKED, at + 500) == ()
    world.answer(name, score, None, at + 500)
    if comment:
        world.answer(name, score, comment, at + 900)


def test_whoever_of_those_who_answered_said_what_the_dump_is_the_same(new_world: Callable[..., World]) -> None:
    dumps = []
    for who in itertools.permutations(("ada", "bo", "cleo")):
        world = new_world(countries=("FR", "DE", "IT"))
        for name, (score, comment, at) in zip(who, SAID, strict=True):
            visit(world, name, score, comment, at)
        dumps.append(without_the_random(world.dump()))
    assert all(dump == dumps[0] for dump in dumps)
    assert len(dumps) == 6


def test_the_order_of_answers_is_not_kept(new_world: Callable[..., World]) -> None:
    orders = []
    for _ in range(12):  # that all twelve runs list the answers alike by chance: 6^-11
        world = new_world()
        answers = [world.answer(name, score) for name, score in (("ada", 1), ("bo", 5), ("cleo", 9))]
        listed = [row[0] for row in world.dump()["responses"]]
        orders.append(tuple(listed.index(answer.response_id) for answer in answers))
    assert len(set(orders)) > 1


def test_the_token_leaves_the_delivery_once_it_was_handed_over(world: World) -> None:
    with world.store.write() as tx:
        touch = sends.Unanswered(world.touches["ada"], "touch1", None, CLOSES)
        assert sends.add_reminder(tx, touch, "touch1:reminder:1", 1, NOW, CLOSES, NOW)
        token = tx.execute(select(schema.deliveries.c.payload)).scalar_one()["token"]
    assert token in repr(world.dump()["deliveries"])
    with world.store.write() as tx:
        tx.execute(update(schema.deliveries).values(state=DeliveryState.SENDING, fence=1))
        assert deliveries.settle(tx, 1, 1, DeliveryState.DONE, NOW)
    assert token not in repr(world.dump())
    world.answer("ada", 9, token=token)  # it works all the same
    assert token not in repr(world.dump())


def test_a_reminder_cancelled_by_an_answer_keeps_no_moment(world: World) -> None:
    with world.store.write() as tx:
        touch = sends.Unanswered(world.touches["ada"], "touch1", None, CLOSES)
        sends.add_reminder(tx, touch, "touch1:reminder:1", 1, ASKED + 1, CLOSES, ASKED + 1)
    world.answer("ada", 9)
    (row,) = world.dump()["deliveries"]
    assert "cancelled" in row and NOW not in row
    assert "token" not in repr(row)


# --- editing --------------------------------------------------------------------------------------------------------


def test_only_the_token_that_answered_may_edit(world: World) -> None:
    with world.store.write() as tx:
        world.link(tx, "ada", "ada-again", "reminder")
    first = world.answer("ada", 9)
    other = world.answer("ada", 1, "Somebody else", token="ada-again")
    assert (other.edit_refused, other.response_id) == (True, None)
    second = world.answer("ada", 8, "Good")
    assert (second.edit_refused, second.response_id, second.version) == (False, first.response_id, 2)
    assert len(world.responses()) == 1
    with world.store.read() as tx:
        for token, expected in (("ada-token", (8, "Good", 2)), ("ada-again", None), ("bo-token", None)):
            link = touch_for_link(tx, token)
            assert link is not None
            found = find_answer(tx, link, token, KEYS)
            assert (found and (found.score, found.comment, found.version)) == expected, token


def test_no_version_of_an_anonymous_answer_is_kept(world: World) -> None:
    for score in (1, 5, 9):
        world.answer("ada", score)
    assert world.dump()["response_versions"] == []


def test_the_same_post_again_changes_no_byte(world: World) -> None:
    world.answer("ada", 9, "Good")
    before = world.dump()
    assert world.answer("ada", 9, "Good").version == 1
    assert world.dump() == before


def test_an_anonymous_answer_may_be_edited_until_the_window_closes(world: World) -> None:
    world.answer("ada", 9)
    assert not world.answer("ada", 8, at=CLOSES - 1).edit_refused
    assert world.answer("ada", 8, "finished", at=OVER - 1).late is False
    assert world.answer("ada", 2, at=OVER).edit_refused
    late = world.answer("bo", 5, at=CLOSES)
    assert late.late and not late.edit_refused
    assert not world.answer("bo", 5, "and why", at=CLOSES + 60_000).edit_refused


def test_a_declined_anonymous_touch_has_no_answer_and_may_get_one(world: World) -> None:
    with world.store.write() as tx:
        touch = touch_for_link(tx, "ada-token")
        assert touch is not None and decline(tx, touch, NOW)
    assert (world.touched("ada").state, world.touched("ada").declined_at) == ("declined", NOW)
    assert world.responses() == []
    world.answer("ada", 9)
    assert world.touched("ada").state == "answered"
    with world.store.write() as tx:
        touch = touch_for_link(tx, "ada-token")
        assert touch is not None and not decline(tx, touch, NOW)


# --- suspect --------------------------------------------------------------------------------------------------------


def test_a_suspect_anonymous_answer_moves_no_touch_until_a_person_answers(world: World) -> None:
    before = world.dump()["touches"]
    assert world.answer("ada", 0, signals=ROBOT).verdict is Verdict.SUSPECT
    assert world.dump()["touches"] == before
    assert world.responses()[0].signals == ["honeypot"]  # what a human decides by; weak ones would only tell who
    recorded = world.answer("ada", 9)
    assert (recorded.verdict, recorded.version, world.touched("ada").answered) == (Verdict.CONFIRMED, 2, True)
    assert world.responses()[0].signals == []


def test_a_suspect_post_after_a_confirmed_anonymous_answer_leaves_no_trace(world: World) -> None:
    world.answer("ada", 9)
    before = world.dump()
    assert world.answer("ada", 0, signals=ROBOT).verdict is Verdict.CONFIRMED
    assert world.dump() == before


def test_a_released_anonymous_answer_counts_and_still_names_nobody(world: World) -> None:
    recorded = world.answer("ada", 0, signals=ROBOT)
    before = world.dump()["touches"]
    with world.store.write() as tx:
        release(tx, recorded.response_id or 0, NOW)
    assert (world.responses()[0].verdict, world.responses()[0].signals) == ("confirmed", [])
    assert world.dump()["touches"] == before


# --- opening --------------------------------------------------------------------------------------------------------


def answer_all(world: World, names: Sequence[str] = PEOPLE[:FLOOR]) -> None:
    for number, name in enumerate(names):
        world.answer(name, 5 + number, f"Said {number}")


def test_fewer_than_five_answers_are_never_opened(world: World) -> None:
    answer_all(world, PEOPLE[: FLOOR - 1])
    assert world.unseal(CLOSES + 1000 * DAY_MS) == 0
    assert {row.score for row in world.responses()} == {None}


def test_nothing_is_opened_while_somebody_may_still_answer(world: World) -> None:
    answer_all(world)
    assert [world.unseal(at) for at in (NOW, ENDS - 1, ENDS, CLOSES - 1, OVER - 1)] == [0, 0, 0, 0, 0]
    assert world.unseal(OVER) == FLOOR
    assert world.unseal(OVER) == 0


def test_nothing_is_opened_while_somebody_may_still_be_asked(world: World) -> None:
    answer_all(world)
    with world.store.write() as tx:
        tx.execute(update(schema.waves).values(ends_at=OVER + DAY_MS))
    assert [world.unseal(OVER), world.unseal(OVER + DAY_MS)] == [0, FLOOR]


def test_opened_answers_say_what_was_said_and_nothing_of_when_or_who(world: World) -> None:
    answer_all(world)
    old = {row.id for row in world.responses()}
    assert world.unseal() == FLOOR
    rows = world.responses()
    assert [(row.score, row.comment, row.reason) for row in rows] == [
        (5 + number, f"Said {number}", f"Why {5 + number}?") for number in range(FLOOR)
    ]
    assert {(row.answered_at, row.answer_hash, row.sealed, row.touch_id, row.person_id) for row in rows} == {
        (OVER, None, None, None, None)
    }
    assert {(row.language, row.late, row.partial, row.version) for row in rows} == {("fr", False, False, 1)}
    assert all(row.attributes == {"country": "FR", "plan": "pro"} for row in rows)  # the shoe size is nobody's business
    assert not old & {row.id for row in rows}  # a dump of before cannot be laid beside this one
    with world.store.read() as tx:
        assert tx.scalar(select(schema.waves.c.unsealed_at)) == OVER


def test_opened_answers_are_not_in_the_order_of_the_sealed_ones(new_world: Callable[..., World]) -> None:
    moved = []
    for _ in range(6):  # that six runs keep the order of five answers by chance: 120^-6
        world = new_world()
        given = {world.answer(name, score).response_id or 0: score for score, name in enumerate(PEOPLE[:FLOOR])}
        world.unseal()
        opened = sorted(world.responses(), key=lambda row: row.id)
        moved.append([row.score for row in opened] != [given[response_id] for response_id in sorted(given)])
    assert any(moved)


def test_whoever_said_what_the_opened_dump_is_the_same(new_world: Callable[..., World]) -> None:
    said = [(number, f"Said {number}") for number in range(len(PEOPLE))]
    dumps = []
    for turn in range(len(PEOPLE)):
        world = new_world(countries=("FR", "FR", "DE"))
        for name, (score, comment) in zip(PEOPLE, said[turn:] + said[:turn], strict=True):
            world.answer(name, score, comment)
        assert world.unseal() == len(PEOPLE)
        dumps.append(without_the_random(world.dump()))
    assert all(dump == dumps[0] for dump in dumps)
    # five French and two German ones: saying which are French would say which are not
    assert {row.attributes.get("country") for row in world.responses()} == {None}


def test_once_opened_no_token_finds_or_changes_an_answer(world: World) -> None:
    answer_all(world)
    world.unseal()
    before = world.dump()
    assert world.answer("ada", 0, at=OVER + 1).edit_refused
    assert world.dump() == before


def test_late_answers_wait_until_they_are_five_themselves(new_world: Callable[..., World]) -> None:
    names = [f"p{number}" for number in range(10)]
    world = new_world(names)
    answer_all(world, names[:5])
    world.unseal()
    for name in names[5:9]:
        assert world.answer(name, 0, at=OVER + 2).late
    assert world.unseal(OVER + 3) == 0
    world.answer(names[9], 0, at=OVER + 4)
    assert world.unseal(OVER + 5) == 5
    assert [(row.score, row.late) for row in world.responses()][:5] == [(0, True)] * 5
    with world.store.read() as tx:
        assert tx.scalar(select(schema.waves.c.unsealed_at)) == OVER  # of the first opening


def test_a_single_late_answer_is_opened_with_the_others_and_not_told_apart(world: World) -> None:
    answer_all(world)
    world.answer(PEOPLE[5], 0, at=CLOSES + 1)
    assert world.unseal() == FLOOR + 1
    assert {row.late for row in world.responses()} == {False}


def test_suspect_and_dismissed_answers_stay_sealed(world: World) -> None:
    answer_all(world)
    for name in PEOPLE[5:]:
        world.answer(name, 0, signals=ROBOT)
    with world.store.write() as tx:
        suspects = list(tx.scalars(select(schema.responses.c.id).where(schema.responses.c.verdict == "suspect")))
        dismiss(tx, suspects[0], NOW)
    assert world.unseal() == FLOOR
    assert sorted((row.verdict, row.sealed is None) for row in world.responses() if row.verdict != "confirmed") == [
        ("dismissed", False),
        ("suspect", False),
    ]


def test_many_answers_are_opened_in_turns_that_leave_nobody_behind(new_world: Callable[..., World]) -> None:
    names = [f"p{number}" for number in range(AT_ONCE + FLOOR + 1)]
    world = new_world(names)
    with world.store.write() as tx:
        for number, name in enumerate(names):
            touch = touch_for_link(tx, f"{name}-token")
            assert touch is not None
            record_answer(tx, touch, f"{name}-token", Given(number % 11, None, "fr"), KEYS, NOW)
    assert [world.unseal() for _ in range(3)] == [AT_ONCE, FLOOR + 1, 0]
    assert {row.sealed for row in world.responses()} == {None}


def test_the_start_page_shows_a_score_only_once_opened_and_never_a_name(world: World) -> None:
    answer_all(world)
    with world.store.read() as tx:
        sealed = latest_scores(tx, KEYS, 10)
    assert {(one.campaign, one.score, one.category, one.name, one.email, one.comment) for one in sealed} == {
        ("staff", None, None, None, None, None)
    }
    world.unseal()
    with world.store.read() as tx:
        opened = latest_scores(tx, KEYS, 10)
    assert sorted(one.score or 0 for one in opened) == [5, 6, 7, 8, 9]
    assert {(one.name, one.email, one.comment) for one in opened} == {(None, None, None)}


# --- keys -----------------------------------------------------------------------------------------------------------


def test_answers_sealed_with_an_older_key_are_opened_while_it_is_kept(world: World) -> None:
    answer_all(world, PEOPLE[:3])
    rotated = Keyring({"k2": bytes([2]) * 32, "k1": bytes(32)})
    for name in PEOPLE[3:FLOOR]:
        world.answer(name, 9, keys=rotated)
    with world.store.read() as tx:
        assert sealed_with(tx) == ["k1", "k2"]
        assert {key_id for key_id, _ in keys_in_use(tx)} == {"k1", "k2"}
    with pytest.raises(UnknownKey, match="k1"):
        world.unseal(keys=Keyring({"k2": bytes([2]) * 32}))
    assert world.unseal(keys=rotated) == FLOOR
    with world.store.read() as tx:
        assert sealed_with(tx) == []


def test_a_ciphertext_is_bound_to_its_answer(world: World) -> None:
    answer_all(world)
    with world.store.write() as tx:
        ids = list(tx.scalars(select(schema.responses.c.id)))
        one = tx.scalar(select(schema.responses.c.sealed).where(schema.responses.c.id == ids[0]))
        tx.execute(update(schema.responses).where(schema.responses.c.id == ids[1]).values(sealed=one))
    with pytest.raises(Exception, match="cannot be decrypted"):
        world.unseal()


def test_only_comments_that_hardly_compress_have_another_length(world: World) -> None:
    world.answer("ada", 9)
    world.answer("bo", 9, "".join(chr(0x4E00 + 7919 * place % 20_000) for place in range(5_000)))
    lengths = sorted(len(row.sealed) for row in world.responses())
    assert lengths[1] - lengths[0] == SIZES[1] - SIZES[0]


# --- what is shared by enough ---------------------------------------------------------------------------------------


def test_a_value_shared_by_five_is_shown_if_the_others_are_five_too() -> None:
    rows = [{"country": "FR"}] * 5 + [{"country": "DE"}] * 3 + [{"country": "IT"}] * 2
    assert shared_by_enough(rows, ["country"]) == [{"country": "FR"}] * 5 + [{}] * 5


def test_a_rare_value_takes_the_rarest_of_the_others_with_it() -> None:
    rows = [{"country": "FR"}] * 7 + [{"country": "DE"}] * 5 + [{"country": "IT"}]
    assert shared_by_enough(rows, ["country"]) == [{"country": "FR"}] * 7 + [{}] * 6


def test_it_is_the_combination_that_must_be_shared() -> None:
    german = [{"country": "DE", "plan": "pro"}] * 4 + [{"country": "DE", "plan": "free"}]
    rows = [{"country": "FR", "plan": "pro"}] * 5 + german
    shown = shared_by_enough(rows, ["country", "plan"])
    assert shown == [{"country": "FR", "plan": "pro"}] * 5 + [{"country": "DE"}] * 5


ROWS = st.fixed_dictionaries({}, optional={name: st.sampled_from("abc") for name in ("x", "y", "z")})


@with_values(st.lists(ROWS, min_size=5, max_size=60))
def test_whatever_is_shown_is_shown_by_five_and_true(rows: list[dict[str, str]]) -> None:
    shown = shared_by_enough(rows, ["x", "y", "z"])
    for row, part in zip(rows, shown, strict=True):
        assert part.items() <= row.items()
        assert shown.count(part) >= FLOOR
