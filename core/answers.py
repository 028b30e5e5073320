"""What an answer is, how it is cleaned, and whether a person gave it: the verdict rules. Pure.

Weak signals are stored and never decide; a strong one makes an answer suspect (vendors' link scanners open and
sometimes submit what they find in a mail).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

#: A comment is cut at this many characters: some two pages, and what every CRM's text field can hold in part.
MOST_COMMENT = 5_000

#: An answer begun before the window closed, or after it, may be finished within this time: the life of a page.
FINISH_MS = 30 * 60_000


class Verdict(StrEnum):
    """Whether an answer counts. `dismissed`: a human said it does not."""

    CONFIRMED = "confirmed"
    SUSPECT = "suspect"
    DISMISSED = "dismissed"


class Signal(StrEnum):
    """What was noticed about an answer."""

    HONEYPOT = "honeypot"  # strong: a link or field nobody can see was used
    SEVERAL_SCORES = "several_scores"  # strong: two scores were fetched within a minute
    NO_NONCE = "no_nonce"  # strong: the page was never asked for
    UNCONFIRMED = "unconfirmed"  # strong: the campaign asks everybody to confirm, and nobody has yet
    HEAD_BEFORE_GET = "head_before_get"
    SOON_AFTER_SEND = "soon_after_send"
    QUICK = "quick"  # under a second from page to answer
    BOT_AGENT = "bot_agent"
    NO_LANGUAGE = "no_language"
    OTHER_NETWORK = "other_network"


STRONG = frozenset({Signal.HONEYPOT, Signal.SEVERAL_SCORES, Signal.NO_NONCE, Signal.UNCONFIRMED})


def verdict(signals: Iterable[Signal]) -> Verdict:
    """Confirmed unless a strong signal speaks."""
    return Verdict.SUSPECT if STRONG & set(signals) else Verdict.CONFIRMED


@dataclass(frozen=True, slots=True)
class Given:
    """What somebody answered, cleaned. `question` is the follow-up question as shown to them.

    `comment`: None says nothing about it (one that was given before stays), "" takes it back. `forwarded`: the
    respondent said that the mail was meant for somebody else.
    """

    score: int
    comment: str | None
    language: str
    question: str | None = None
    signals: tuple[Signal, ...] = ()
    forwarded: bool = False


_SCORES = {str(score): score for score in range(11)}


def parse_score(text: str | None) -> int | None:
    """0 to 10, written exactly "0" .. "10"; None for anything else (` 9`, `09`, `11`, `９`)."""
    return _SCORES.get(text or "")


def clean_comment(text: str | None) -> str | None:
    """A comment as it is kept, None if nothing is left.

    Line ends become newlines, control characters other than newline and tab go (a NUL would stop PostgreSQL, an
    escape would speak to a terminal), likewise halves of surrogate pairs and the characters that turn the direction
    of other people's text; it is trimmed and cut at MOST_COMMENT.
    """
    if not text:
        return None
    # more than enough to cut from, so that a megabyte costs nothing
    kept = text[: 4 * MOST_COMMENT].replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n")
    kept = "".join(char for char in kept if char in "\n\t" or not _is_unwanted(char)).strip()
    return kept[:MOST_COMMENT].rstrip() or None


#: Marks that override or isolate direction; plain left-to-right and right-to-left marks are part of good spelling.
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


def _is_unwanted(char: str) -> bool:
    return char in _TURNS or unicodedata.category(char) in ("Cc", "Cs")


_BOT_AGENT = re.compile(
    r"bot\b|bot/|crawl|spider|scan|preview|prefetch|headless|monitor|curl|wget|python|java/|go-http|okhttp|libwww"
    r"|facebookexternalhit|whatsapp|slack|skype|teams|barracuda|mimecast|proofpoint|urldefense|safelinks",
    re.IGNORECASE,
)


def is_bot_agent(agent: str) -> bool:
    """Whether a browser name says of itself that it is a machine: the honest ones do. A weak signal."""
    return bool(_BOT_AGENT.search(agent))
