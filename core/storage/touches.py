"""The ledger of touches: every move of the state machine in `core.touches`, in SQL.

Each function moves only rows whose present state allows it and ignores the others, so that a late or doubled call is
harmless. Moments are milliseconds. None opens a transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, BindParameter, Connection, and_, bindparam, case, func, null, or_, select, update

from core.ids import token_hash
from core.storage.deliveries import cancel_ready_sends, request_write_back
from core.storage.schema import campaigns, deliveries, survey_links, touches
from core.touches import ReturnReason, TouchState, sources_of

CHUNK = 500


@dataclass(frozen=True, slots=True)
class LinkedTouch:
    """The touch a survey link belongs to."""

    touch_id: int
    public_id: str
    state: TouchState
    campaign_id: int
    wave_id: int
    person_id: int | None
    identity_id: int | None
    type: str
    asked_at: int
    window_closes_at: int | None
    anonymous: bool
    answered: bool
    kind: str  # invite | reminder


def touch_for_link(tx: Connection, token: str) -> LinkedTouch | None:
    """The touch whose link carries `token`, or None. The token itself is stored nowhere."""
    row: Any = tx.execute(
        select(
            touches.c.id, touches.c.public_id, touches.c.state, touches.c.campaign_id, touches.c.wave_id,
            touches.c.person_id, touches.c.identity_id, touches.c.type, touches.c.asked_at,
            touches.c.window_closes_at, campaigns.c.anonymous, touches.c.answered, survey_links.c.kind,
        )
        .join(survey_links, survey_links.c.touch_id == touches.c.id)
        .join(campaigns, campaigns.c.id == touches.c.campaign_id)
        .where(survey_links.c.token_hash == token_hash("touch", token))
    ).first()  # fmt: skip
    if row is None:
        return None
    return LinkedTouch(row[0], row[1], TouchState(row[2]), *row[3:])


def claim(tx: Connection, local_dates: Sequence[tuple[int, str]], now: int) -> None:
    """A worker is about to send these (touch id, recipient's local date): the moment asked is now.

    So it is for one in doubt of which the vendor has said that it never had it.
    """
    for touch_id, local_date in local_dates:
        tx.execute(_CLAIM, {"b_id": touch_id, "b_date": local_date, "b_now": now})


def hand_over(tx: Connection, touch_ids: Sequence[int], now: int) -> None:
    """The platform took the message. For one that was in doubt the moment of the claim stands."""
    for touch_id in touch_ids:
        tx.execute(_HAND_OVER, {"b_id": touch_id, "b_now": now})


def mark_unknown(tx: Connection, touch_ids: Sequence[int], now: int) -> None:
    """Nobody can say whether the message left: it counts as asked, from the claim on."""
    _move(tx, touch_ids, TouchState.UNKNOWN, **_asked(func.coalesce(touches.c.claimed_at, now)))


def _asked(moment: Any) -> dict[str, Any]:
    # the survey window moves with the moment asked and keeps its length
    return {
        "asked_at": moment,
        "window_closes_at": touches.c.window_closes_at - touches.c.asked_at + moment,
    }


# made once: they run for every message, and making a statement takes longer than running it
_NOW: BindParameter[int] = bindparam("b_now", type_=BigInteger)
_CLAIM = (
    update(touches)
    .where(touches.c.id == bindparam("b_id"), touches.c.state.in_((TouchState.RESERVED, TouchState.UNKNOWN)))
    .values(claimed_at=_NOW, asked_local_date=bindparam("b_date"), **_asked(_NOW))
)
_HANDED_OVER_AT = case((touches.c.state == TouchState.UNKNOWN, func.coalesce(touches.c.claimed_at, _NOW)), else_=_NOW)
_HAND_OVER = (
    update(touches)
    .where(touches.c.id == bindparam("b_id"), touches.c.state.in_(sources_of(TouchState.HANDED_OVER)))
    .values(state=TouchState.HANDED_OVER, handed_over_at=_HANDED_OVER_AT, **_asked(_HANDED_OVER_AT))
)


def give_back(tx: Connection, touch_ids: Sequence[int], reason: ReturnReason, detail: str, now: int) -> None:
    """The quota returns to the person; the 24 h floor stands. Their records show the previous date again."""
    people = _people_of(tx, touch_ids)
    _move(tx, touch_ids, TouchState.RETURNED, returned_at=now, reason=reason, detail=detail[:500])
    request_write_back(tx, people, now)


def mark_answered(tx: Connection, touch_id: int, at: int | None) -> None:
    """An answer proves arrival, whatever was believed before. `at` is None for anonymous answers: no time is kept."""
    _prove_arrival(tx, [touch_id])
    tx.execute(
        update(touches)
        .where(touches.c.id == touch_id, touches.c.state.in_(sources_of(TouchState.ANSWERED)))
        .values(
            state=TouchState.ANSWERED, answered=True, answered_at=func.coalesce(touches.c.answered_at, at), reason=""
        )
    )
    cancel_ready_sends(tx, [touch_id], at or 0)


def mark_declined(tx: Connection, touch_ids: Sequence[int], now: int) -> None:
    """The person said no, or opted out after the message had left."""
    _prove_arrival(tx, touch_ids)
    _move(tx, touch_ids, TouchState.DECLINED, declined_at=now)
    cancel_ready_sends(tx, touch_ids, now)


def closed_windows(tx: Connection, now: int, limit: int) -> list[int]:
    """Touches whose window has passed without an answer. Reads the whole ledger: not for a write transaction."""
    due = select(touches.c.id).where(touches.c.state == TouchState.HANDED_OVER, touches.c.window_closes_at <= now)
    return list(tx.scalars(due.limit(limit)))


def mark_silent(tx: Connection, touch_ids: Sequence[int]) -> int:
    """Their windows have closed; returns how many have not been answered since they were found."""
    return tx.execute(
        update(touches)
        .where(touches.c.id.in_(touch_ids), touches.c.state == TouchState.HANDED_OVER)
        .values(state=TouchState.SILENT)
    ).rowcount


def cancel_for_people(
    tx: Connection,
    person_ids: Iterable[int],
    now: int,
    reason: ReturnReason = ReturnReason.CANCELLED,
    detail: str = "",
) -> int:
    """Return the reservations of these people and cancel their unsent messages; returns how many touches."""
    cancelled = 0
    for chunk in _chunks(person_ids):
        cancelled += _cancel(tx, touches.c.person_id.in_(chunk), now, reason, detail)
    return cancelled


def cancel_for_campaign(tx: Connection, campaign_id: int, now: int, detail: str = "the campaign was stopped") -> int:
    """A send stopped half-way: reserved and unsent returned, handed-over kept."""
    return _cancel(tx, touches.c.campaign_id == campaign_id, now, ReturnReason.CANCELLED, detail)


def _cancel(tx: Connection, which: Any, now: int, reason: ReturnReason, detail: str) -> int:
    # a message being sent at this moment is not cancelled: its own outcome decides
    in_flight = select(deliveries.c.touch_id).where(
        deliveries.c.touch_id == touches.c.id, deliveries.c.kind == "send", deliveries.c.state == "sending"
    )
    ids = list(
        tx.scalars(select(touches.c.id).where(which, touches.c.state == TouchState.RESERVED, ~in_flight.exists()))
    )
    for chunk in _chunks(ids):
        cancel_ready_sends(tx, chunk, now)
        give_back(tx, chunk, reason, detail, now)
    return len(ids)


def end_open_touches(tx: Connection, person_ids: Iterable[int], now: int) -> None:
    """Opting out ends touches: declined after hand-over, returned before."""
    for chunk in _chunks(person_ids):
        cancel_for_people(tx, chunk, now, ReturnReason.CANCELLED, "opted out")
        open_states = (TouchState.HANDED_OVER, TouchState.UNKNOWN)
        ids = tx.scalars(
            select(touches.c.id).where(
                touches.c.person_id.in_(chunk),
                touches.c.state.in_(open_states),
                touches.c.source == "boucle",
                or_(touches.c.window_closes_at.is_(null()), touches.c.window_closes_at > now),
            )
        ).all()
        mark_declined(tx, ids, now)


def _prove_arrival(tx: Connection, touch_ids: Sequence[int]) -> None:
    """A message still in doubt, or whose worker died before it could say so, has arrived."""
    for chunk in _chunks(touch_ids):
        tx.execute(
            update(touches)
            .where(and_(touches.c.id.in_(chunk), touches.c.state == TouchState.RESERVED))
            .values(state=TouchState.UNKNOWN)
        )
        tx.execute(
            update(deliveries)
            .where(
                deliveries.c.touch_id.in_(chunk),
                deliveries.c.kind == "send",
                deliveries.c.state.in_(("sending", "unknown")),
            )
            .values(state="done", lease_until=None, payload=null())
        )


def _move(tx: Connection, touch_ids: Iterable[int], to: TouchState, **values: Any) -> None:
    for chunk in _chunks(touch_ids):
        tx.execute(
            update(touches)
            .where(touches.c.id.in_(chunk), touches.c.state.in_(sources_of(to)))
            .values(state=to, **values)
        )


def _people_of(tx: Connection, touch_ids: Iterable[int]) -> list[int]:
    people: set[int] = set()
    for chunk in _chunks(touch_ids):
        people.update(
            tx.scalars(select(touches.c.person_id).where(touches.c.id.in_(chunk), touches.c.person_id.is_not(null())))
        )
    return sorted(people)


def _chunks(ids: Iterable[int]) -> Iterable[list[int]]:
    items = list(ids)
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]
