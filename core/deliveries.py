"""A delivery: one effect outside. It is written in the transaction that decides it and carried out after."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from core.errors import IllegalTransition


class DeliveryKind(StrEnum):
    """What is done outside. `write_back` is level-triggered, one row per record; the others are a row per effect."""

    SEND = "send"
    WRITE_BACK = "write_back"
    TASK = "task"
    NOTE = "note"
    NOTICE = "notice"
    SEGMENT = "segment"


class DeliveryState(StrEnum):
    """Where an effect stands."""

    READY = "ready"
    SENDING = "sending"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


S = DeliveryState

TRANSITIONS: Mapping[DeliveryState, frozenset[DeliveryState]] = {
    S.READY: frozenset({S.SENDING, S.CANCELLED, S.SUPERSEDED, S.FAILED}),
    S.SENDING: frozenset({S.DONE, S.READY, S.FAILED, S.UNKNOWN, S.CANCELLED}),
    S.UNKNOWN: frozenset({S.DONE, S.READY}),  # when the vendor could be asked; READY only for NOT_SENT
    S.FAILED: frozenset({S.READY}),  # replay
    S.DONE: frozenset({S.READY}),  # level-triggered: a newer version is wanted
    S.CANCELLED: frozenset(),
    S.SUPERSEDED: frozenset(),
}


def move(state: DeliveryState, to: DeliveryState) -> DeliveryState:
    """The new state. Raises IllegalTransition."""
    if to not in TRANSITIONS[state]:
        raise IllegalTransition(f"a delivery cannot go from {state} to {to}")
    return to


def invite_key(touch_public_id: str) -> str:
    """The key of the invitation of a touch: never changed by a merge, never by an attempt."""
    return f"{touch_public_id}:invite"


def reminder_key(touch_public_id: str, number: int = 1) -> str:
    """The key of a reminder of a touch."""
    return f"{touch_public_id}:reminder:{number}"


def is_reminder(key: str) -> bool:
    """A reminder belongs to its touch: what becomes of it never moves the touch."""
    return ":reminder:" in key
