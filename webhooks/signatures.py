"""Signatures of requests: compared in constant time, under every secret that is valid, and not older than allowed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from core.clock import from_ms
from webhooks.base import BadSignature

TOLERANCE = timedelta(minutes=5)
Encoding = Literal["hex", "base64"]


def verify_hmac(
    message: bytes,
    signature: str | None,
    secrets: Sequence[str],
    *,
    digest: str = "sha256",
    encoding: Encoding = "hex",
    prefix: str = "",
) -> None:
    """Raise BadSignature unless `signature` is the HMAC of `message` under one of `secrets`.

    `prefix` is what the vendor writes before it, such as `sha256=`.
    """
    given = _decoded(signature, encoding, prefix)
    # every secret is tried, so that the time taken does not tell which one is meant
    matches = [hmac.compare_digest(_hmac(secret, message, digest), given) for secret in secrets]
    if not any(matches):
        raise BadSignature("the signature does not match: the secret is another one, or the request was changed")


def verify_secret(given: str | None, secrets: Sequence[str]) -> None:
    """Raise BadSignature unless `given` is one of `secrets`: for vendors that send a secret instead of signing."""
    if not given:
        raise BadSignature("there is no secret in the request")
    # hashed first: compare_digest tells the length of what it compares
    hashed = hashlib.sha256(given.encode()).digest()
    matches = [hmac.compare_digest(hashlib.sha256(secret.encode()).digest(), hashed) for secret in secrets]
    if not any(matches):
        raise BadSignature("the secret in the request is another one")


def verify_age(sent_at: datetime, now: datetime, tolerance: timedelta = TOLERANCE) -> None:
    """Raise BadSignature for a request signed too long ago, or in the future: somebody may be repeating it."""
    if abs(now - sent_at) > tolerance:
        raise BadSignature(f"the request was signed at {sent_at:%Y-%m-%d %H:%M:%S} UTC, too far from now")


def read_timestamp(text: str | None, unit: Literal["s", "ms"] = "s") -> datetime:
    """The moment a vendor writes as a number. Raises BadSignature if there is none."""
    if text is None or not (text.isascii() and text.isdecimal() and len(text) <= 14):
        raise BadSignature("the request says not when it was signed")
    number = int(text)
    try:
        return from_ms(number if unit == "ms" else number * 1000)
    except OverflowError:
        raise BadSignature("the request was signed at a moment that does not exist") from None


def sign(message: bytes, secret: str, *, digest: str = "sha256", encoding: Encoding = "hex") -> str:
    """The signature a vendor would send: for tests and simulators."""
    made = _hmac(secret, message, digest)
    return made.hex() if encoding == "hex" else base64.b64encode(made).decode()


def _hmac(secret: str, message: bytes, digest: str) -> bytes:
    return hmac.new(secret.encode(), message, digest).digest()


def _decoded(signature: str | None, encoding: Encoding, prefix: str) -> bytes:
    if not signature:
        raise BadSignature("the request carries no signature")
    if not signature.startswith(prefix):
        raise BadSignature("the signature is written in another way than this vendor's")
    text = signature[len(prefix) :].strip()
    try:
        return bytes.fromhex(text) if encoding == "hex" else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise BadSignature(f"the signature is no {encoding}") from None
