"""Addresses and names of contacts: what can be written to, and what belongs together.

Three forms of one address. As its owner writes it, it is stored and written to. `clean_address` says whether it can be:
local parts outside ASCII would need SMTPUTF8, which few receivers take, and quoted ones are typing mistakes nearly
always; both count as no usable address. `address_key` is what quarantine compares: case and Unicode forms folded,
plus-tags dropped, the domain in its ASCII form; dots are kept, because only some providers ignore them. `address_hash`
is the key under the workspace's pepper, so that a deleted person can be recognised without being kept.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable

import idna

# Atoms and labels are possessive and cannot begin with what ends them, so nothing backtracks far. Groups are not:
# Python before 3.11.5, Debian 12's among them, matches possessive groups wrongly (cpython issue 106052).
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]++"
_LABEL = r"(?!-)[A-Za-z0-9-]{1,63}+(?<!-)"
_SENDABLE = re.compile(rf"{_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)+(?![0-9]+$)(?!.$){_LABEL}")
LONGEST = 254
LONGEST_LOCAL = 64
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"))

_ROLES_ENGLISH = """
    abuse accounting accounts admin administration administrator assistance billing booking bookings careers commercial
    communication community compliance contact contacts customercare customers customerservice dpo enquiries events
    facilities feedback finance hello help helpdesk hi hostmaster hr info information invoice invoices it jobs legal
    mail mailbox marketing media news newsletter noreply no-reply office operations orders payments payroll postmaster
    press privacy procurement purchasing reception recruitment root sales security service services shop support team
    webmaster welcome
"""
_ROLES_FRENCH = """
    accueil achat achats administratif atelier bonjour boutique candidature caisse commande commandes commerciaux compta
    comptabilite comptable courrier direction documentation emploi equipe facturation factures formation gestion
    informatique magasin mairie ne-pas-repondre nepasrepondre paie presse qualite recrutement reservation reservations
    ressources-humaines rh sav secretariat service-client serviceclient siege standard technique vente ventes
"""
ROLES = frozenset(_ROLES_ENGLISH.split() + _ROLES_FRENCH.split())


def clean_address(text: str) -> str | None:
    """The address as a message can be sent to it, or None. Case and plus-tag stay as they are written."""
    address = text.strip()
    if not address.isascii():
        address = _to_ascii(address)
    if len(address) > LONGEST or _SENDABLE.fullmatch(address) is None:
        return None
    return address if address.index("@") <= LONGEST_LOCAL else None


def _to_ascii(address: str) -> str:
    local, _, domain = _normalise(address).rpartition("@")
    return f"{local}@{_ascii_domain(domain)}"


def _normalise(text: str) -> str:
    return unicodedata.normalize("NFKC", text.translate(_INVISIBLE)).strip()


def _ascii_domain(domain: str) -> str:
    if domain.isascii():
        return domain
    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except idna.IDNAError:
        return domain


def address_key(email: str) -> str:
    """What an address is compared by: two addresses with one key are one mailbox as far as quarantine goes."""
    if not email.isascii():
        email = _to_ascii(email).casefold()
    local, _, domain = email.strip().lower().rpartition("@")
    tag = local.find("+")
    return f"{local[:tag] if tag > 0 else local}@{domain}"


def address_hash(pepper: bytes, email: str) -> bytes:
    """16 bytes of HMAC-SHA256 under the pepper of the address's key."""
    return address_hasher(pepper)(email)


def address_hasher(pepper: bytes) -> Callable[[str], bytes]:
    """`address_hash` for many: the two keyed states of the HMAC are made once (half the time of `hmac.digest`)."""
    key = pepper if len(pepper) <= 64 else hashlib.sha256(pepper).digest()
    padded = key.ljust(64, b"\0")
    inner = hashlib.sha256(padded.translate(bytes(byte ^ 0x36 for byte in range(256))))
    outer = hashlib.sha256(padded.translate(bytes(byte ^ 0x5C for byte in range(256))))

    def hash_of(email: str) -> bytes:
        inside, outside = inner.copy(), outer.copy()
        inside.update(address_key(email).encode())
        outside.update(inside.digest())
        return outside.digest()[:16]

    return hash_of


def is_role_address(email: str) -> bool:
    """Whether the local part names a function (info@, comptabilite2@) and so belongs to several people."""
    local = address_key(email).rpartition("@")[0]
    return local in ROLES or local.rstrip("0123456789") in ROLES


def name_key(first_name: str | None, last_name: str | None) -> str:
    """What names are compared by: without case, accents and order. Empty if there is no name."""
    name = f"{first_name or ''} {last_name or ''}"
    if not name.isascii():
        name = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    return " ".join(sorted(name.casefold().replace("-", " ").split()))


def differ(names: Iterable[str]) -> bool:
    """Whether these name keys are of several people. A missing name differs from nobody's."""
    return len({name for name in names if name}) > 1


def company_key(name: str) -> str:
    """What companies are compared by: case-folded, spaces collapsed."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())
