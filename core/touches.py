"""A touch: one ask to one person for one survey in one wave. Its reminder belongs to it (FREQUENCY.md)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from core.errors import IllegalTransition


class TouchState(StrEnum):
    """Where an ask stands. `planned` touches are rows of `decisions`, all others rows of `touches`."""

    PLANNED = "planned"
    RESERVED = "reserved"
    HANDED_OVER = "handed_over"
    UNKNOWN = "unknown"
    ANSWERED = "answered"
    DECLINED = "declined"
    SILENT = "silent"
    RETURNED = "returned"


class ReturnReason(StrEnum):
    """Why a quota was given back."""

    BOUNCED = "bounced"
    REFUSED = "refused"
    SUPPRESSED = "suppressed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


S = TouchState

TRANSITIONS: Mapping[TouchState, frozenset[TouchState]] = {
    S.PLANNED: frozenset({S.RESERVED}),
    S.RESERVED: frozenset({S.HANDED_OVER, S.UNKNOWN, S.RETURNED}),
    S.HANDED_OVER: frozenset({S.ANSWERED, S.DECLINED, S.SILENT, S.RETURNED}),
    # an unsubscribe from a mail in doubt proves its arrival as an answer does, so `unknown` may end declined
    S.UNKNOWN: frozenset({S.HANDED_OVER, S.RETURNED, S.ANSWERED, S.DECLINED}),
    S.SILENT: frozenset({S.ANSWERED, S.DECLINED}),
    S.RETURNED: frozenset({S.ANSWERED}),
    S.ANSWERED: frozenset(),
    S.DECLINED: frozenset({S.ANSWERED}),  # who declined and then answers has answered
}

#: A touch in one of these states counts for the clocks: all but `returned` (and `planned`, which has no quota yet).
COUNTING: frozenset[TouchState] = frozenset({S.RESERVED, S.HANDED_OVER, S.UNKNOWN, S.ANSWERED, S.DECLINED, S.SILENT})


def move(state: TouchState, to: TouchState) -> TouchState:
    """The new state. Raises IllegalTransition."""
    if to not in TRANSITIONS[state]:
        raise IllegalTransition(f"a touch cannot go from {state} to {to}")
    return to


def sources_of(to: TouchState) -> tuple[TouchState, ...]:
    """The states a touch may come from: for `UPDATE .. WHERE state IN (..)`."""
    return tuple(state for state, targets in TRANSITIONS.items() if to in targets)
