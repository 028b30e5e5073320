"""What an answer is, and whether a person gave it: the verdict rules. Pure.

Weak signals are stored and never decide; a strong one makes an answer suspect (vendors' link scanners open and sometimes
submit what they find in a mail).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


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
    HEAD_BEFORE_GET = "head_before_get"
    SOON_AFTER_SEND = "soon_after_send"
    QUICK = "quick"  # under a second from page to answer
    BOT_AGENT = "bot_agent"
    NO_LANGUAGE = "no_language"
    OTHER_NETWORK = "other_network"


STRONG = frozenset({Signal.HONEYPOT, Signal.SEVERAL_SCORES, Signal.NO_NONCE})


def verdict(signals: Iterable[Signal]) -> Verdict:
    """Confirmed unless a strong signal speaks."""
    return Verdict.SUSPECT if STRONG & set(signals) else Verdict.CONFIRMED


@dataclass(frozen=True, slots=True)
class Given:
    """What somebody answered, cleaned. `question` is the follow-up question as shown to them."""

    score: int
    comment: str | None
    language: str
    question: str | None = None
    signals: tuple[Signal, ...] = ()
