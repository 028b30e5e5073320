"""The keys that encrypt secrets at rest: AES-256-GCM, each ciphertext bound to the place it belongs to.

Written `id:base64-of-32-bytes`, several separated by commas or lines. The first encrypts, all decrypt, so a new key
goes in front and the old one stays until nothing is encrypted with it any more.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from core.errors import BoucleError, Invalid

KEY_BYTES = 32
NONCE_BYTES = 12
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,40}")
_HOW = "write it as id:base64-of-32-bytes"


class UnknownKey(BoucleError):
    """Something was encrypted with a key that is not in the keyring; `key_id` names it."""

    def __init__(self, key_id: str, what: str = "a stored secret") -> None:
        super().__init__(
            f"{what} was encrypted with the key {key_id}, which is neither in BOUCLE_SECRET_KEYS nor in the file"
            " secret_keys of the instance folder; put it back behind the present keys"
        )
        self.key_id = key_id


class Keyring:
    """Several keys by their ids; immutable, safe in every thread."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys:
            raise Invalid("there is no secret key: set BOUCLE_SECRET_KEYS or let ./run make the file secret_keys")
        self._masters = dict(keys)
        self._ciphers = {key_id: AESGCM(_derive(key, "encryption")) for key_id, key in keys.items()}
        self.first = next(iter(keys))

    @classmethod
    def from_text(cls, text: str) -> Keyring:
        """The keys of BOUCLE_SECRET_KEYS or of a key file. Raises Invalid; no message ever holds key material."""
        keys: dict[str, bytes] = {}
        for number, part in enumerate(_parts(text), start=1):
            key_id, key = _key(part, number)
            if key_id in keys:
                raise Invalid(f"the key id {key_id} is used twice; every key needs an id of its own")
            keys[key_id] = key
        return cls(keys)

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(self._masters)

    def encrypt(self, plaintext: bytes, context: str) -> tuple[bytes, str]:
        """(ciphertext, key id). `context` is `table:row:column`: elsewhere the ciphertext cannot be read."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._ciphers[self.first].encrypt(nonce, plaintext, _bound(context, self.first))
        return nonce + sealed, self.first

    def decrypt(self, ciphertext: bytes, key_id: str, context: str) -> bytes:
        """The plaintext. Raises UnknownKey, or BoucleError for a ciphertext that was changed or moved."""
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise UnknownKey(key_id, context)
        nonce, sealed = ciphertext[:NONCE_BYTES], ciphertext[NONCE_BYTES:]
        try:
            return cipher.decrypt(nonce, sealed, _bound(context, key_id))
        except (InvalidTag, ValueError):
            raise BoucleError(
                f"{context} cannot be decrypted with the key {key_id}: either the database was changed by hand or"
                " that id now names another key"
            ) from None

    def derive(self, purpose: str) -> bytes:
        """32 bytes for signing, of the first key. Verify with `derive_all`, so that a new key invalidates nothing."""
        return _derive(self._masters[self.first], "derived " + purpose)

    def derive_all(self, purpose: str) -> tuple[bytes, ...]:
        """The same of every key, the first key's first."""
        return tuple(_derive(key, "derived " + purpose) for key in self._masters.values())

    def require(self, key_ids: Iterable[tuple[str, str]]) -> None:
        """Raise UnknownKey for the first of (key id, what it encrypts) that is not here."""
        for key_id, what in key_ids:
            if key_id not in self._masters:
                raise UnknownKey(key_id, what)

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._masters)})"


def read_key_file(path: Path) -> str:
    """The text of a key file. Raises Invalid if it is missing, unreadable, or open to other users."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise Invalid(
            f"the key file {path} cannot be read ({why}); put it back, or set BOUCLE_SECRET_KEYS. Without the keys the"
            " secrets in the database are lost"
        ) from None
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise Invalid(f"the key file {path} can be read by other users; run: chmod 600 {path}")
    return text


def _parts(text: str) -> list[str]:
    lines = (line.partition("#")[0] for line in text.splitlines())
    return [part.strip() for line in lines for part in line.split(",") if part.strip()]


def _key(part: str, number: int) -> tuple[str, bytes]:
    key_id, colon, encoded = part.partition(":")
    key_id = key_id.strip()
    if not colon or not _KEY_ID.fullmatch(key_id):
        raise Invalid(f"secret key number {number} has no id; {_HOW}")
    try:
        key = base64.b64decode(encoded.strip().replace("-", "+").replace("_", "/"), validate=True)
    except binascii.Error:
        raise Invalid(f"the secret key {key_id} is not base64; {_HOW}") from None
    if len(key) != KEY_BYTES:
        raise Invalid(f"the secret key {key_id} has {len(key)} bytes instead of {KEY_BYTES}; {_HOW}")
    return key_id, key


def _derive(key: bytes, purpose: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=b"boucle", info=purpose.encode()).derive(key)


def _bound(context: str, key_id: str) -> bytes:
    return f"{key_id}\0{context}".encode()
