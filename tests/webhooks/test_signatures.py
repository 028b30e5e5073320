"""Signatures: what is let through and, more important, what is not."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest

from webhooks.base import BadSignature
from webhooks.signatures import read_timestamp, sign, verify_age, verify_hmac, verify_secret

NOW = datetime(2026, 12, 1, 9, tzinfo=UTC)
# RFC 4231, test case 2
RFC_KEY, RFC_DATA = "Jefe", b"what do ya want for nothing?"
RFC_SHA256 = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


def test_the_published_example_is_good_in_every_way_of_writing_it() -> None:
    verify_hmac(RFC_DATA, RFC_SHA256, [RFC_KEY])
    verify_hmac(RFC_DATA, RFC_SHA256.upper(), [RFC_KEY])
    verify_hmac(RFC_DATA, f"sha256={RFC_SHA256}", [RFC_KEY], prefix="sha256=")
    verify_hmac(RFC_DATA, base64.b64encode(bytes.fromhex(RFC_SHA256)).decode(), [RFC_KEY], encoding="base64")
    sha1 = hmac.new(RFC_KEY.encode(), RFC_DATA, hashlib.sha1).hexdigest()
    verify_hmac(RFC_DATA, sha1, [RFC_KEY], digest="sha1")


def test_any_of_several_secrets_will_do() -> None:
    for secrets in (["new", RFC_KEY], [RFC_KEY, "old"], ["a", RFC_KEY, "b"]):
        verify_hmac(RFC_DATA, RFC_SHA256, secrets)


@pytest.mark.parametrize(
    ("signature", "secrets"),
    [
        (None, [RFC_KEY]),
        ("", [RFC_KEY]),
        (RFC_SHA256, []),
        (RFC_SHA256, ["jefe"]),
        (RFC_SHA256[:-2], [RFC_KEY]),
        (RFC_SHA256 + "00", [RFC_KEY]),
        (RFC_SHA256.replace("5", "6"), [RFC_KEY]),
        ("sha256=" + RFC_SHA256, [RFC_KEY]),
        ("é" * 64, [RFC_KEY]),
        ("zz", [RFC_KEY]),
    ],
)
def test_anything_else_is_refused(signature: str | None, secrets: list[str]) -> None:
    with pytest.raises(BadSignature):
        verify_hmac(RFC_DATA, signature, secrets)


def test_an_empty_signature_behind_the_prefix_is_refused() -> None:
    with pytest.raises(BadSignature):
        verify_hmac(RFC_DATA, "sha256=", [RFC_KEY], prefix="sha256=")
    with pytest.raises(BadSignature):
        verify_hmac(RFC_DATA, "not base64!", [RFC_KEY], encoding="base64")


def test_sign_writes_what_verify_reads() -> None:
    for encoding in ("hex", "base64"):
        verify_hmac(b"body", sign(b"body", "key", encoding=encoding), ["key"], encoding=encoding)


def test_a_secret_in_the_request_is_compared_whole() -> None:
    verify_secret("ÿoung", ["old", "ÿoung"])
    for given in (None, "", "old ", "ol"):
        with pytest.raises(BadSignature):
            verify_secret(given, ["old"])
    with pytest.raises(BadSignature):
        verify_secret("anything", [])


@pytest.mark.parametrize("seconds", [-300, -1, 0, 1, 300])
def test_a_signature_is_good_for_five_minutes(seconds: int) -> None:
    verify_age(NOW + timedelta(seconds=seconds), NOW)


@pytest.mark.parametrize("seconds", [-301, 301, 86_400])
def test_and_no_longer_neither_in_the_past_nor_in_the_future(seconds: int) -> None:
    with pytest.raises(BadSignature):
        verify_age(NOW + timedelta(seconds=seconds), NOW)


def test_a_timestamp_is_read_in_its_unit() -> None:
    assert read_timestamp("1796115600") == NOW
    assert read_timestamp("1796115600000", "ms") == NOW


@pytest.mark.parametrize("text", [None, "", "-1", "1.5", "now", "٣", "9" * 14, "9" * 40])
def test_what_is_no_timestamp_is_refused(text: str | None) -> None:
    with pytest.raises(BadSignature):
        verify_age(read_timestamp(text), NOW)
