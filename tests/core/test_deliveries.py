"""The states of a delivery: the diagram of FREQUENCY.md, and what a replay and a newer version need beyond it."""

from __future__ import annotations

from itertools import product

import pytest

from core.deliveries import TRANSITIONS, DeliveryState, invite_key, is_reminder, move, reminder_key
from core.errors import IllegalTransition

S = DeliveryState

DIAGRAM = {
    (S.READY, S.SENDING),
    (S.SENDING, S.DONE),
    (S.SENDING, S.READY),
    (S.SENDING, S.FAILED),
    (S.SENDING, S.UNKNOWN),
    (S.SENDING, S.CANCELLED),
}
BEYOND = {
    (S.READY, S.CANCELLED): "an opt-out, a stop or an expiry before anybody took it",
    (S.READY, S.SUPERSEDED): "another effect says the same",
    (S.READY, S.FAILED): "given up after its retries",
    (S.UNKNOWN, S.DONE): "the vendor, asked by the key, has it",
    (S.UNKNOWN, S.READY): "the vendor, asked by the key, never had it",
    (S.FAILED, S.READY): "replayed by an admin",
    (S.DONE, S.READY): "write-backs: a newer version is wanted",
}


@pytest.mark.parametrize(("state", "to"), list(product(S, S)))
def test_a_delivery_moves_as_the_diagram_says(state: DeliveryState, to: DeliveryState) -> None:
    if (state, to) in DIAGRAM or (state, to) in BEYOND:
        assert move(state, to) is to
    else:
        with pytest.raises(IllegalTransition, match=f"from {state} to {to}"):
            move(state, to)


def test_every_move_of_the_table_is_looked_at_here() -> None:
    assert {(state, to) for state, targets in TRANSITIONS.items() for to in targets} == DIAGRAM | set(BEYOND)


def test_what_is_in_doubt_is_never_sent_again_by_itself() -> None:
    assert TRANSITIONS[S.UNKNOWN] == {S.DONE, S.READY}
    assert not TRANSITIONS[S.CANCELLED] and not TRANSITIONS[S.SUPERSEDED]


def test_keys_belong_to_the_touch_and_the_effect() -> None:
    assert invite_key("0abc") == "0abc:invite"
    assert reminder_key("0abc") == "0abc:reminder:1"
    assert is_reminder("0abc:reminder:1") and not is_reminder("0abc:invite")
