"""Nonces: ours, of this link, and not too old."""

from __future__ import annotations

import base64

import pytest

from core.keyring import Keyring
from web.survey.tokens import SKEW_MS, VALID_MS, Nonce, Step, issue_nonce, read_nonce

OLD = "k1:" + base64.b64encode(bytes(range(32))).decode()
NEW = "k2:" + base64.b64encode(bytes(range(1, 33))).decode()
KEYS = Keyring.from_text(OLD)
TOKEN, NOW = "T0ken-of-one_012345678", 1_790_000_000_000


@pytest.mark.parametrize("step", list(Step))
@pytest.mark.parametrize("score", [None, 0, 10])
def test_it_says_what_was_put_in(score: int | None, step: Step) -> None:
    text = issue_nonce(KEYS, TOKEN, score, NOW, step)
    stops = step is Step.STOP
    assert read_nonce(KEYS, TOKEN, text, NOW + 5, stops=stops) == Nonce(NOW, score, step)
    assert read_nonce(KEYS, TOKEN, text, NOW + 5, stops=not stops) is None
    assert text != issue_nonce(KEYS, TOKEN, score, NOW, step)


@pytest.mark.parametrize(
    ("after", "valid"), [(0, True), (VALID_MS - 1, True), (VALID_MS, False), (-SKEW_MS, True), (-SKEW_MS - 1, False)]
)
def test_it_is_good_for_half_an_hour(after: int, valid: bool) -> None:
    assert (read_nonce(KEYS, TOKEN, issue_nonce(KEYS, TOKEN, 9, NOW), NOW + after) is not None) is valid


def test_another_link_another_key_and_any_changed_letter_make_it_worthless() -> None:
    text = issue_nonce(KEYS, TOKEN, 9, NOW)
    assert read_nonce(KEYS, TOKEN[:-1] + "9", text, NOW) is None
    assert read_nonce(Keyring.from_text(NEW), TOKEN, text, NOW) is None
    for place, letter in enumerate(text[:-1]):  # the last one carries bits that nobody reads
        changed = text[:place] + ("A" if letter != "A" else "B") + text[place + 1 :]
        assert read_nonce(KEYS, TOKEN, changed, NOW) is None


@pytest.mark.parametrize("text", ["", "A", "AAAA", "é" * 44, "\x00" * 44, "A" * 100_000, "===="])
def test_what_is_none_is_none(text: str) -> None:
    assert read_nonce(KEYS, TOKEN, text, NOW) is None


def test_it_survives_a_rotation_of_the_keys() -> None:
    text = issue_nonce(KEYS, TOKEN, 9, NOW)
    assert read_nonce(Keyring.from_text(f"{NEW},{OLD}"), TOKEN, text, NOW) is not None
