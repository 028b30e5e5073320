"""The nonce of a page: proof that a form was fetched for its link, lately. Signed, kept nowhere.

It holds the moment it was issued, the score then preselected, and how far its reader had come. Bound to the link, it
may be used again for changes of the same answer.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import struct
from dataclasses import dataclass
from enum import IntEnum

from core.ids import token_hash
from core.keyring import Keyring

VALID_MS = 30 * 60_000
#: Clocks of two servers may differ by so much.
SKEW_MS = 60_000
_PURPOSE = "survey nonce"
_PAYLOAD = struct.Struct(">qbB7s")  # issued at (ms), score or -1, step, random
_SIGNATURE_BYTES = 16


class Step(IntEnum):
    """Which page a nonce was issued for."""

    ASK = 0
    CONFIRM = 1  # "is this your answer?"
    CONFIRMED = 2  # whoever reads it has said that it is
    STOP = 3  # "no more surveys?": no answer comes of it, and no other page stops anything


@dataclass(frozen=True, slots=True)
class Nonce:
    """What a valid nonce says."""

    issued_at: int
    score: int | None
    step: Step = Step.ASK


def issue_nonce(keyring: Keyring, token: str, score: int | None, now: int, step: Step = Step.ASK) -> str:
    """A nonce for a page of this link, safe in a form."""
    payload = _PAYLOAD.pack(now, -1 if score is None else score, step, secrets.token_bytes(7))
    signature = _signature(keyring.derive(_PURPOSE), token, payload)
    return base64.urlsafe_b64encode(payload + signature).decode().rstrip("=")


def read_nonce(keyring: Keyring, token: str, text: str, now: int, *, stops: bool = False) -> Nonce | None:
    """What it says; None if it is not ours, of another link, too old, or of the other kind of page."""
    try:
        raw = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return None
    payload, signature = raw[: _PAYLOAD.size], raw[_PAYLOAD.size :]
    if len(payload) != _PAYLOAD.size or len(signature) != _SIGNATURE_BYTES:
        return None
    keys = keyring.derive_all(_PURPOSE)
    if not any(hmac.compare_digest(_signature(key, token, payload), signature) for key in keys):
        return None
    issued_at, score, step, _ = _PAYLOAD.unpack(payload)
    if not -SKEW_MS <= now - issued_at < VALID_MS:
        return None
    if step not in set(Step) or (step == Step.STOP) is not stops:
        return None
    return Nonce(issued_at, None if score < 0 else score, Step(step))


def _signature(key: bytes, token: str, payload: bytes) -> bytes:
    return hmac.digest(key, token_hash("nonce", token) + payload, "sha256")[:_SIGNATURE_BYTES]
