"""What was fetched of a link, and what it says about an answer."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, insert, select

from core.answers import Signal
from core.ids import token_hash
from core.storage import schema
from core.storage.hits import VISIT_MS, forget, note_hit, signals_for
from core.storage.store import Store
from core.touches import TouchState
from tests.ledger import add_campaign, add_connection, add_person, add_touch, add_wave

ASKED = 1_000_000_000
NOW = ASKED + 3_600_000


def hit(tx: Connection, at: int, method: str = "GET", score: int | None = None, **values: Any) -> None:
    note_hit(tx, values.pop("token", "tok"), method=method, score=score, now=at, **values)


def test_a_person_who_opens_and_answers_shows_no_signal(store: Store) -> None:
    with store.write() as tx:
        hit(tx, NOW, score=9, agent="Mozilla/5.0", network="192.0.2.0/24")
        hit(tx, NOW + 5_000, "POST", score=8, agent="Mozilla/5.0", network="192.0.2.0/24")
        assert signals_for(tx, "tok", ASKED, NOW + 5_000) == ()


def test_two_different_scores_fetched_within_a_minute_are_a_strong_signal(store: Store) -> None:
    with store.write() as tx:
        hit(tx, NOW, score=9)
        hit(tx, NOW + 60_000, "HEAD", score=3)
        assert signals_for(tx, "tok", ASKED, NOW + 70_000) == (Signal.SEVERAL_SCORES,)


def test_the_same_score_twice_or_scores_far_apart_are_none(store: Store) -> None:
    with store.write() as tx:
        hit(tx, NOW, score=9)
        hit(tx, NOW + 1_000, score=9)
        hit(tx, NOW + 2_000)  # without a score in the address
        hit(tx, NOW + 61_001, score=4)
        hit(tx, NOW + 62_000, "POST", score=2)  # posting another score than the one shown is no fetch
        hit(tx, NOW, score=1, token="another link")
        assert signals_for(tx, "tok", ASKED, NOW + 63_000) == ()


def test_a_scanner_that_came_by_long_before_speaks_not_against_the_person(store: Store) -> None:
    with store.write() as tx:
        for score in range(11):
            hit(tx, ASKED + 20_000 + score, score=score)
        hit(tx, ASKED + 20_000, honeypot=True)
        assert set(signals_for(tx, "tok", ASKED, ASKED + VISIT_MS)) == {Signal.HONEYPOT, Signal.SEVERAL_SCORES}
        assert signals_for(tx, "tok", ASKED, ASKED + 20_011 + VISIT_MS) == ()


def test_a_hit_on_what_nobody_can_see_is_a_strong_signal(store: Store) -> None:
    with store.write() as tx:
        hit(tx, NOW, "POST", honeypot=True)
        assert signals_for(tx, "tok", ASKED, NOW) == (Signal.HONEYPOT,)


def test_weak_signals_are_noticed(store: Store) -> None:
    with store.write() as tx:
        hit(tx, ASKED + 1_000, "HEAD", agent="Slackbot 1.0", network="192.0.2.0/24")
        hit(tx, ASKED + 2_000, agent="Mozilla/5.0", network="192.0.2.0/24")
        hit(tx, ASKED + 9_000, "POST", agent="Mozilla/5.0", network="198.51.100.0/24")
        assert signals_for(tx, "tok", ASKED, ASKED + 9_000) == (
            Signal.HEAD_BEFORE_GET,
            Signal.SOON_AFTER_SEND,
            Signal.BOT_AGENT,
            Signal.OTHER_NETWORK,
        )


def test_a_hit_shows_neither_link_nor_score(store: Store) -> None:
    with store.write() as tx:
        for number in range(40):
            hit(tx, NOW, score=9, token=f"token {number}")
        rows = tx.execute(select(schema.hits.c.link_hash, schema.hits.c.score)).all()
    assert token_hash("touch", "token 0") not in {row.link_hash for row in rows}
    assert len({row.score for row in rows}) > 35  # the same score, another number at every link


def test_links_of_an_anonymous_campaign_keep_no_network_and_no_browser(store: Store) -> None:
    with store.write() as tx:
        person_id, identity_id = add_person(tx, add_connection(tx))
        campaign_id = add_campaign(tx, anonymous=True)
        touch_id = add_touch(
            tx, person_id, TouchState.HANDED_OVER, ASKED, identity_id=identity_id, campaign_id=campaign_id,
            wave_id=add_wave(tx, campaign_id),
        )  # fmt: skip
        tx.execute(
            insert(schema.survey_links).values(token_hash=token_hash("touch", "tok"), touch_id=touch_id, kind="invite")
        )
        hit(tx, NOW, agent="Mozilla/5.0 (Ada's own)", network="192.0.2.0/24")
        hit(tx, NOW + 1, "POST", agent="Googlebot/2.1", network="192.0.2.0/24")
        rows = tx.execute(select(schema.hits.c.agent, schema.hits.c.network)).all()
        assert [row.agent for row in rows] == ["", "bot"]
        assert "192" not in "".join(row.network for row in rows)
        assert signals_for(tx, "tok", ASKED, NOW + 1) == (Signal.BOT_AGENT,)
        hit(tx, NOW + 2, "POST", network="198.51.100.0/24")
        assert Signal.OTHER_NETWORK in signals_for(tx, "tok", ASKED, NOW + 2)


def test_old_hits_are_forgotten_in_batches(store: Store) -> None:
    with store.write() as tx:
        for at in range(10):
            hit(tx, at)
        assert forget(tx, 7, 5) == 5
        assert forget(tx, 7, 5) == 2
        assert forget(tx, 7, 5) == 0
        assert tx.scalar(select(func.count()).select_from(schema.hits)) == 3
