"""Names for rows that leave the database: unguessable, short, safe in a URL, a header and a file name."""

from __future__ import annotations

import hashlib
import secrets
from base64 import b32encode

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u to misread
_CROCKFORD = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", _ALPHABET)


def public_id() -> str:
    """A random name of 80 bits, 16 characters: for touches, waves, people. Not a secret, only not countable."""
    value = secrets.randbits(80)
    return "".join(_ALPHABET[(value >> shift) & 31] for shift in range(75, -1, -5))


def public_ids(number: int) -> list[str]:
    """As many names as `public_id` would make, much faster: for those read from a source by the thousand."""
    text = b32encode(secrets.token_bytes(10 * number)).decode().translate(_CROCKFORD)
    return [text[start : start + 16] for start in range(0, 16 * number, 16)]


def survey_token() -> str:
    """A secret of 128 bits for a survey link, 22 URL-safe characters. Only its hashes are kept once it has left."""
    return secrets.token_urlsafe(16)


def token_hash(purpose: str, token: str) -> bytes:
    """H(purpose, token) of FREQUENCY.md: 32 bytes. Two purposes of one token cannot be joined without the token."""
    return hashlib.sha256(purpose.encode() + b"\0" + token.encode()).digest()


def random_rowid() -> int:
    """A primary key that tells nothing of the order of arrival: for rows of anonymous answers."""
    return secrets.randbelow(2**62) + 1
