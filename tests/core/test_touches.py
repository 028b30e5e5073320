"""The states of a touch: the diagram of FREQUENCY.md, and three moves beyond it, each with its reason."""

from __future__ import annotations

from itertools import product

import pytest

from core.errors import IllegalTransition
from core.touches import COUNTING, TRANSITIONS, ReturnReason, TouchState, move, sources_of

S = TouchState

DIAGRAM = {
    (S.PLANNED, S.RESERVED),
    (S.RESERVED, S.HANDED_OVER),
    (S.RESERVED, S.UNKNOWN),
    (S.RESERVED, S.RETURNED),
    (S.HANDED_OVER, S.ANSWERED),
    (S.HANDED_OVER, S.DECLINED),
    (S.HANDED_OVER, S.SILENT),
    (S.HANDED_OVER, S.RETURNED),
    (S.UNKNOWN, S.HANDED_OVER),
    (S.UNKNOWN, S.RETURNED),
    (S.UNKNOWN, S.ANSWERED),
    (S.SILENT, S.ANSWERED),
    (S.RETURNED, S.ANSWERED),
}
#: What a person says outweighs what was believed of the message.
BEYOND = {
    (S.UNKNOWN, S.DECLINED): "opting out by a link proves arrival as an answer does",
    (S.SILENT, S.DECLINED): "a no after the window is a no: who says it waits 180 days, not the 60 of silence",
    (
        S.DECLINED,
        S.ANSWERED,
    ): "who declined and then answers has answered; the answer is stored and must be in the figure",
}


@pytest.mark.parametrize(("state", "to"), list(product(S, S)))
def test_a_touch_moves_as_the_diagram_says(state: TouchState, to: TouchState) -> None:
    if (state, to) in DIAGRAM or (state, to) in BEYOND:
        assert move(state, to) is to
    else:
        with pytest.raises(IllegalTransition, match=f"from {state} to {to}"):
            move(state, to)


def test_every_move_of_the_table_is_looked_at_here() -> None:
    assert {(state, to) for state, targets in TRANSITIONS.items() for to in targets} == DIAGRAM | set(BEYOND)


def test_an_update_finds_the_states_a_touch_may_come_from() -> None:
    assert set(sources_of(S.ANSWERED)) == {S.HANDED_OVER, S.UNKNOWN, S.SILENT, S.RETURNED, S.DECLINED}
    assert sources_of(S.PLANNED) == ()


def test_all_but_planned_and_returned_touches_take_quota() -> None:
    assert set(S) - COUNTING == {S.PLANNED, S.RETURNED}


def test_a_quota_is_returned_for_five_reasons() -> None:
    assert [str(reason) for reason in ReturnReason] == ["bounced", "refused", "suppressed", "cancelled", "expired"]
