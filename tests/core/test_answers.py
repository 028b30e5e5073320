"""What an answer is: its score, its comment, and whether a person gave it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.answers import MOST_COMMENT, STRONG, Signal, Verdict, clean_comment, is_bot_agent, parse_score, verdict


@pytest.mark.parametrize("score", range(11))
def test_every_score_is_read(score: int) -> None:
    assert parse_score(str(score)) == score


@pytest.mark.parametrize(
    "text", ["", None, "11", "-1", "09", "9 ", " 9", "9.0", "+9", "1e1", "９", "٩", "9; DROP", "9\n", "nine", "9" * 99]
)
def test_anything_else_is_no_score(text: str | None) -> None:
    assert parse_score(text) is None


def test_a_comment_keeps_its_lines_and_letters() -> None:
    assert clean_comment("  Très bien,\r\nmerci\t!\rAu revoir 😀  ") == "Très bien,\nmerci\t!\nAu revoir 😀"


@pytest.mark.parametrize("text", [None, "", "   ", "\r\n\t ", "\x00\x07", "\x1b"])
def test_nothing_left_is_no_comment(text: str | None) -> None:
    assert clean_comment(text) is None


def test_control_characters_go() -> None:
    assert clean_comment("a\x00b\x1b[31mc\x7fd\x85e\ud800f") == "ab[31mcdef"


def test_marks_that_turn_the_text_around_go_and_those_of_good_spelling_stay() -> None:
    assert clean_comment("a\u202eb\u2066c\ufeffd") == "abcd"
    assert clean_comment("a\u200fb\u200dc") == "a\u200fb\u200dc"


def test_a_comment_is_cut_at_the_documented_length() -> None:
    assert MOST_COMMENT == 5_000
    assert clean_comment("x" * 5_000) == "x" * 5_000
    assert clean_comment("x" * 5_001) == "x" * 5_000


def test_a_megabyte_costs_nothing() -> None:
    started = time.monotonic()
    assert clean_comment("é\r\n" * 350_000) is not None
    assert time.monotonic() - started < 0.2


@given(st.text(alphabet=st.characters(), max_size=200))
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    once = clean_comment(text)
    assert clean_comment(once) == once
    if once is not None:
        once.encode()  # can be stored
        assert "\x00" not in once and "\r" not in once


def test_weak_signals_never_decide_and_a_strong_one_does() -> None:
    weak = [signal for signal in Signal if signal not in STRONG]
    assert verdict(weak) is Verdict.CONFIRMED
    assert verdict([]) is Verdict.CONFIRMED
    for strong in STRONG:
        assert verdict([*weak, strong]) is Verdict.SUSPECT


def test_honest_machines_are_known_and_people_are_not() -> None:
    chrome = (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0 Safari/537.36"
    )
    assert not is_bot_agent(chrome)
    assert not is_bot_agent("")
    for machine in ("Slackbot-LinkExpanding 1.0", "curl/8.5", "WhatsApp/2.23", "Googlebot/2.1", "HeadlessChrome/120"):
        assert is_bot_agent(machine), machine
