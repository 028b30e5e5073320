"""The vocabulary of what others tell us: receivers and polled sources yield it, `core.jobs.apply_events` acts on it.

An event says whom it is about by what its vendor knows: our own idempotency key (`effect_key`) where the vendor keeps
it with the message, else the record (`external_id`), else the address. `key` is the dedupe unit: unique per
connection, the same however often the vendor tells the same thing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What all events have. `at` is the vendor's claim of when it happened."""

    key: str
    at: datetime
    effect_key: str = ""
    external_id: str = ""
    email: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactChanged(Event):
    """A record changed, was deleted, or was merged into `merged_into`: read it again, or act on its end."""

    deleted: bool = False
    merged_into: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailDelivered(Event):
    """The recipient's server took the message: a fact on the touch, never a state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailBounced(Event):
    """The message came back. `hard`: the address is dead. A soft bounce keeps the quota until the platform gives up.

    `gave_up`: soft, but the platform will not try again.
    """

    hard: bool
    gave_up: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailComplained(Event):
    """The recipient called the message spam."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsubscribed(Event):
    """The recipient opted out at the vendor's, or by a reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseReceived(Event):
    """An answer given in another survey tool."""

    score: int
    comment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownEvent(Event):
    """Something the vendor says that we have no word for: kept and counted, never guessed at."""

    name: str
