"""Keys that encrypt secrets: each ciphertext belongs to its place, each error names the key and holds no key."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from core.errors import BoucleError, Invalid
from core.keyring import Keyring, UnknownKey, read_key_file

OLD = "old:" + base64.b64encode(bytes(range(32))).decode()
NEW = "new:" + base64.b64encode(bytes(range(100, 132))).decode()
PLACE = "credentials:7:ciphertext"


def test_what_was_encrypted_can_be_read_again() -> None:
    keyring = Keyring.from_text(OLD)
    ciphertext, key_id = keyring.encrypt("café".encode(), PLACE)
    assert key_id == "old"
    assert b"caf" not in ciphertext
    assert keyring.decrypt(ciphertext, key_id, PLACE) == "café".encode()


def test_the_same_text_is_never_encrypted_alike() -> None:
    keyring = Keyring.from_text(OLD)
    assert keyring.encrypt(b"x", PLACE) != keyring.encrypt(b"x", PLACE)


def test_a_new_key_in_front_encrypts_and_the_old_one_still_decrypts() -> None:
    ciphertext, key_id = Keyring.from_text(OLD).encrypt(b"secret", PLACE)
    both = Keyring.from_text(f"{NEW},{OLD}")
    assert both.encrypt(b"x", PLACE)[1] == "new"
    assert both.decrypt(ciphertext, key_id, PLACE) == b"secret"


def test_a_lost_key_is_named() -> None:
    ciphertext, key_id = Keyring.from_text(OLD).encrypt(b"secret", PLACE)
    with pytest.raises(UnknownKey, match="key old") as caught:
        Keyring.from_text(NEW).decrypt(ciphertext, key_id, PLACE)
    assert caught.value.key_id == "old"


@pytest.mark.parametrize("place", ["credentials:8:ciphertext", "secrets:7:ciphertext", ""])
def test_a_ciphertext_moved_elsewhere_cannot_be_read(place: str) -> None:
    keyring = Keyring.from_text(OLD)
    ciphertext, key_id = keyring.encrypt(b"secret", PLACE)
    with pytest.raises(BoucleError, match="cannot be decrypted"):
        keyring.decrypt(ciphertext, key_id, place)


@pytest.mark.parametrize("change", [lambda c: c[:-1] + bytes([c[-1] ^ 1]), lambda c: c[:5], lambda c: b""])
def test_a_changed_ciphertext_is_refused_in_a_sentence(change: object) -> None:
    keyring = Keyring.from_text(OLD)
    ciphertext, key_id = keyring.encrypt(b"secret", PLACE)
    with pytest.raises(BoucleError):
        keyring.decrypt(change(ciphertext), key_id, PLACE)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no secret key"),
        ("c2hvcnQ=", "has no id"),
        ("a:c2hvcnQ=", "has 5 bytes instead of 32"),
        ("a:not base64!", "is not base64"),
        (f"{OLD},{OLD}", "used twice"),
    ],
)
def test_bad_keys_are_refused_without_repeating_them(text: str, said: str) -> None:
    with pytest.raises(Invalid, match=said) as caught:
        Keyring.from_text(text)
    assert not text or text.partition(":")[2] not in str(caught.value) or not text.partition(":")[2]


def test_keys_may_stand_in_lines_with_comments() -> None:
    assert Keyring.from_text(f"# made in 2026\n{NEW}\n{OLD}  # until March\n").ids == {"new", "old"}


def test_derived_keys_differ_by_purpose_and_by_key_and_are_not_the_key() -> None:
    both = Keyring.from_text(f"{NEW},{OLD}")
    assert both.derive("nonce") == both.derive("nonce") == both.derive_all("nonce")[0]
    assert len({both.derive("nonce"), both.derive("link"), *both.derive_all("nonce"), bytes(range(32))}) == 4


def test_nothing_secret_shows_in_the_repr() -> None:
    assert repr(Keyring.from_text(OLD)) == "Keyring(old)"


def test_a_key_file_open_to_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret_keys"
    path.write_text(OLD)
    path.chmod(0o644)
    with pytest.raises(Invalid, match="chmod 600"):
        read_key_file(path)
    path.chmod(0o600)
    assert read_key_file(path) == OLD


def test_a_missing_key_file_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=f"secret_keys cannot be read \\({os.strerror(2)}\\)"):
        read_key_file(tmp_path / "secret_keys")
