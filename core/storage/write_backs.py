"""Write-backs: records of a source that must show the ledger. Level-triggered: what is written is read at the claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, bindparam, case, func, null, or_, select, text, update

from core.clock import DAY_MS
from core.deliveries import DeliveryState
from core.frequency import Limits
from core.storage.deliveries import ERROR_LENGTH
from core.storage.planning import free_at
from core.storage.schema import connections, deliveries, identities, responses, touches
from core.touches import TouchState
from core.writeback import Answer, Ledger, Shown, Written

CHUNK = 500
#: Asks that count: those that left, or may have.
_ASKED = (TouchState.HANDED_OVER, TouchState.UNKNOWN, TouchState.ANSWERED, TouchState.DECLINED, TouchState.SILENT)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A record to be brought up to date. `version` is what `wanted_version` was when its values were read."""

    delivery_id: int
    key: str
    fence: int
    attempts: int
    version: int
    external_id: str | None
    person_id: int | None
    gone: bool
    written: Written
    shown: Shown


def claim(tx: Connection, connection_id: int, owner: str, now: int, lease_until: int, limit: int) -> list[Claimed]:
    """Take records that are behind, the longest due first."""
    ids = list(tx.scalars(_DUE, {"connection": connection_id, "now": now, "limit": limit}))
    if not ids:
        return []
    tx.execute(
        update(deliveries)
        .where(deliveries.c.id.in_(ids), deliveries.c.state == DeliveryState.READY)
        .values(
            state=DeliveryState.SENDING,
            owner=owner,
            lease_until=lease_until,
            fence=deliveries.c.fence + 1,
            attempts=deliveries.c.attempts + 1,
        )
    )
    return _read(tx, ids, owner)


# the condition of the partial index of unfinished rows, word for word: SQLite does not see it in anything else
_DUE = text(
    "SELECT id FROM deliveries WHERE connection_id = :connection AND kind = 'write_back'"
    " AND state IN ('ready', 'sending') AND state = 'ready' AND due_at <= :now ORDER BY due_at, id LIMIT :limit"
)


def _read(tx: Connection, ids: Sequence[int], owner: str) -> list[Claimed]:
    d, i = deliveries.c, identities.c
    rows = tx.execute(
        select(
            d.id, d.key, d.fence, d.attempts, d.wanted_version, d.payload, i.external_id, i.person_id,
            or_(i.id.is_(null()), i.gone_at.is_not(null())).label("gone"), i.last_surveyed_seen,
            connections.c.synced_at,
        )
        .join(connections, connections.c.id == d.connection_id)
        .outerjoin(identities, i.id == d.identity_id)
        .where(d.id.in_(ids), d.state == DeliveryState.SENDING, d.owner == owner)
        .order_by(d.id)
    )  # fmt: skip
    return [
        Claimed(
            row.id,
            row.key,
            row.fence,
            row.attempts,
            row.wanted_version,
            row.external_id,
            row.person_id,
            bool(row.gone),
            Written.from_payload(row.payload),
            Shown(row.last_surveyed_seen, row.synced_at),
        )
        for row in rows
    ]


# --- the values ---------------------------------------------------------------------------------------------------


def read_ledger(
    tx: Connection, person_ids: Sequence[int], rules: Sequence[Limits], zone: ZoneInfo, now: int
) -> dict[int, Ledger]:
    """What is known of these people now. `rules`: of the campaigns that may ask them; the earliest date is shown."""
    people = sorted(set(person_ids))
    answers = _answers(tx, people)
    asked = _last_asked(tx, people)
    free: dict[int, int] = {}
    for limits in rules if people else ():
        for person_id, at in free_at(tx, people, limits, zone, now).items():
            if at is not None:
                free[person_id] = min(at, free.get(person_id, at))
    return {one: Ledger(answers.get(one), asked.get(one), free.get(one)) for one in people}


def _answers(tx: Connection, people: Sequence[int]) -> dict[int, Answer]:
    r = responses.c
    rows = tx.execute(
        select(r.person_id, r.score, r.comment, r.answered_at)
        .where(
            r.person_id.in_(people),
            r.verdict == "confirmed",
            r.score.is_not(null()),
            r.answered_at.is_not(null()),
        )
        .order_by(r.answered_at, r.id)
    )
    return {row.person_id: Answer(row.score, row.comment, row.answered_at) for row in rows}


def _last_asked(tx: Connection, people: Sequence[int]) -> dict[int, int]:
    rows = tx.execute(
        select(touches.c.person_id, func.max(touches.c.asked_at))
        .where(touches.c.person_id.in_(people), touches.c.state.in_(_ASKED))
        .group_by(touches.c.person_id)
    )
    return {row[0]: row[1] for row in rows}


# --- outcomes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finished:
    """An outcome to write down: `written` if the record was brought up to date, else `error` in the vendor's words."""

    claimed: Claimed
    written: Written | None
    error: str = ""


def finish(tx: Connection, finished: Sequence[Finished], now: int) -> None:
    """Done or failed; ready again if somebody wanted a newer state meanwhile. Claims taken over are left alone."""
    done = [_row(one, now) | {"b_payload": one.written.payload()} for one in finished if one.written is not None]
    failed = [_row(one, now) | {"b_error": one.error[:ERROR_LENGTH]} for one in finished if one.written is None]
    if done:
        tx.execute(
            _finish(DeliveryState.DONE, done_version=bindparam("b_version"), payload=bindparam("b_payload")), done
        )
    if failed:
        tx.execute(_finish(DeliveryState.FAILED, error=bindparam("b_error")), failed)


def _row(one: Finished, now: int) -> dict[str, Any]:
    claimed = one.claimed
    return {"b_id": claimed.delivery_id, "b_fence": claimed.fence, "b_version": claimed.version, "b_now": now}


def _finish(state: DeliveryState, **values: Any) -> Any:
    d = deliveries.c
    newer = d.wanted_version > bindparam("b_version")
    return (
        update(deliveries)
        .where(d.id == bindparam("b_id"), d.fence == bindparam("b_fence"), d.state == DeliveryState.SENDING)
        .values(
            {
                "state": case((newer, DeliveryState.READY.value), else_=state.value),
                "due_at": case((newer, bindparam("b_now")), else_=d.due_at),
                "done_at": bindparam("b_now"),
                "lease_until": None,
                "attempts": 0,
                "error": "",
                **values,
            }
        )
    )


@dataclass(frozen=True, slots=True)
class Postponed:
    """A claim given back at `due_at`. `tried=False`: it was not this record's fault."""

    delivery_id: int
    fence: int
    due_at: int
    error: str = ""
    tried: bool = True


def put_back(tx: Connection, postponed: Sequence[Postponed]) -> None:
    """Ready again. Claims taken over are left alone."""
    rows = [
        {
            "b_id": one.delivery_id,
            "b_fence": one.fence,
            "b_due": one.due_at,
            "b_error": one.error[:ERROR_LENGTH],
            "b_untried": int(not one.tried),
        }
        for one in postponed
    ]
    if rows:
        tx.execute(_PUT_BACK, rows)


_PUT_BACK = (
    update(deliveries)
    .where(
        deliveries.c.id == bindparam("b_id"),
        deliveries.c.fence == bindparam("b_fence"),
        deliveries.c.state == DeliveryState.SENDING,
    )
    .values(
        state=DeliveryState.READY,
        lease_until=null(),
        due_at=bindparam("b_due"),
        error=bindparam("b_error"),
        attempts=deliveries.c.attempts - bindparam("b_untried"),
    )
)


def behind(tx: Connection) -> Mapping[int, int]:
    """How many records of each connection do not show the ledger yet: "n contacts whose CRM date is behind"."""
    rows = tx.execute(
        select(deliveries.c.connection_id, func.count())
        .where(deliveries.c.kind == "write_back", deliveries.c.wanted_version > deliveries.c.done_version)
        .group_by(deliveries.c.connection_id)
    )
    return {row[0]: row[1] for row in rows}


def refused_long_ago(tx: Connection, now: int, limit: int) -> list[int]:
    """Write-backs refused a day ago: perhaps somebody mended the record."""
    d = deliveries.c
    long_ago = d.done_at <= now - DAY_MS
    return list(
        tx.scalars(select(d.id).where(d.kind == "write_back", d.state == DeliveryState.FAILED, long_ago).limit(limit))
    )


def retry_failed(tx: Connection, delivery_ids: Sequence[int], now: int) -> int:
    """These are ready again; returns how many."""
    return tx.execute(
        update(deliveries)
        .where(deliveries.c.id.in_(delivery_ids), deliveries.c.state == DeliveryState.FAILED)
        .values(state=DeliveryState.READY, due_at=now)
    ).rowcount
