"""What somebody fetched or posted, read forgivingly: link wrappers rewrite addresses, people's thumbs slip. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from core.answers import parse_score

_TOKEN = re.compile(r"[A-Za-z0-9_-]{22}(?![A-Za-z0-9_-])")
#: What mail programs hang on to the end of an address.
_HANGERS_ON = "/.,;:)>]\"'"
#: A field nobody sees; what fills it in is no person. Its name is one that machines like.
HONEYPOT = "website"


def token_in(text: str) -> str:
    """The token of a link, without what wrappers and mail programs hang on to it."""
    found = _TOKEN.match(unquote(text))
    return found[0] if found else text


def score_in(path: str, query_string: bytes) -> int | None:
    """The score an address preselects; a damaged one is as good as none."""
    query = dict(parse_qsl(query_string.decode("latin-1"), keep_blank_values=True))
    wanted = [path.strip("/"), query.get("score", ""), query.get("amp;score", "")]
    for text in wanted:
        score = parse_score(unquote(text).strip().rstrip(_HANGERS_ON))
        if score is not None:
            return score
    return None


@dataclass(frozen=True, slots=True)
class Posted:
    """A form as it came. `comment` is None where the form had no such field."""

    score: int | None
    comment: str | None
    nonce: str
    trapped: bool
    declines: bool


def read_form(form: Mapping[str, str]) -> Posted:
    """The fields of an answer."""
    return Posted(
        score=parse_score(form.get("score", "").strip()),
        comment=form.get("comment"),
        nonce=form.get("nonce", ""),
        trapped=bool(form.get(HONEYPOT)),
        declines="decline" in form,
    )


def network_of(address: str | None) -> str:
    """An address cut to its network (/24, /48): who fetched is nobody's business, whether it was the same is."""
    try:
        parsed = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return ""
    prefix = 24 if parsed.version == 4 else 48
    return str(ipaddress.ip_network((parsed, prefix), strict=False))
