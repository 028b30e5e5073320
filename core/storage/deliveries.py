"""Deliveries: effects outside, written with the decision and carried out after.

A row is claimed (`sending`, under a lease and a fence), then its outcome is recorded by whoever still holds that fence.
What concerns messages alone is in `sends`, what concerns write-backs in `write_backs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import JSON, Connection, bindparam, delete, func, null, select, text, update

from core.clock import DAY_MS
from core.deliveries import DeliveryState
from core.processes import is_gone
from core.storage.schema import campaigns, connections, deliveries

CHUNK = 500
ERROR_LENGTH = 500


# --- asking for effects ---------------------------------------------------------------------------------------------


def request_write_back(
    tx: Connection, person_ids: Iterable[int], now: int, targets: Sequence[int] | None = None
) -> None:
    """The records of these people must show the ledger as it is from now on.

    One row per live record in a connection that any campaign writes back to, counted up: however often it is asked
    for, what is written is read when the row is claimed. `targets` saves looking up those connections.
    """
    people = sorted({person_id for person_id in person_ids if person_id is not None})
    if not people:
        return
    into = write_back_targets(tx) if targets is None else targets
    for start in range(0, len(people) if into else 0, CHUNK):
        tx.execute(_REQUEST, {"people": people[start : start + CHUNK], "targets": list(into), "now": now})


_REQUEST = text(
    """
    INSERT INTO deliveries (key, kind, connection_id, identity_id, state, due_at, created_at)
    SELECT 'write_back:' || i.connection_id || ':' || i.id, 'write_back', i.connection_id, i.id, 'ready', :now, :now
    FROM identities AS i
    WHERE i.person_id IN :people AND i.connection_id IN :targets AND i.gone_at IS NULL
    ON CONFLICT (key) DO UPDATE SET
        wanted_version = deliveries.wanted_version + 1,
        attempts = CASE WHEN deliveries.state IN ('ready', 'sending') THEN deliveries.attempts ELSE 0 END,
        due_at = CASE WHEN deliveries.state IN ('ready', 'sending') THEN deliveries.due_at ELSE excluded.due_at END,
        state = CASE WHEN deliveries.state = 'sending' THEN 'sending' ELSE 'ready' END
    """
).bindparams(bindparam("people", expanding=True), bindparam("targets", expanding=True))


def write_back_targets(tx: Connection) -> list[int]:
    """The connections some campaign that was not removed writes back to."""
    configs = tx.scalars(select(campaigns.c.config).where(campaigns.c.state != "removed"))
    names = sorted({name for config in configs for name in _names(config.get("write_back"))})
    if not names:
        return []
    wanted = select(connections.c.id).where(connections.c.name.in_(names), connections.c.state != "removed")
    return list(tx.scalars(wanted.order_by(connections.c.id)))


def _names(value: Any) -> Sequence[str]:
    return [value] if isinstance(value, str) else list(value or ())


def cancel_ready_sends(tx: Connection, touch_ids: Sequence[int], now: int) -> None:
    """Messages of these touches that have not left stay here. One that is leaving now is decided by its outcome."""
    for start in range(0, len(touch_ids), CHUNK):
        tx.execute(
            update(deliveries)
            .where(
                deliveries.c.touch_id.in_(touch_ids[start : start + CHUNK]),
                deliveries.c.kind == "send",
                deliveries.c.state == DeliveryState.READY,
            )
            .values(state=DeliveryState.CANCELLED, payload=null(), done_at=now)
        )


# --- outcomes -------------------------------------------------------------------------------------------------------


def settle(
    tx: Connection,
    delivery_id: int,
    fence: int,
    state: DeliveryState,
    now: int,
    *,
    vendor_ref: str = "",
    error: str = "",
    payload: Mapping[str, Any] | None = None,
) -> bool:
    """End a claim: `done`, `failed`, `unknown` or `cancelled`. False if the claim is no longer ours.

    A token is never kept: whoever has the message has it, and who has not gets a new one.
    """
    row = {"b_id": delivery_id, "b_fence": fence, "b_state": state.value, "b_now": now, "b_payload": payload}
    settled = tx.execute(_SETTLE, {**row, "b_ref": vendor_ref, "b_error": error[:ERROR_LENGTH]})
    return bool(settled.rowcount)


_SETTLE = (  # made once: it runs for every message
    update(deliveries)
    .where(
        deliveries.c.id == bindparam("b_id"),
        deliveries.c.fence == bindparam("b_fence"),
        deliveries.c.state == DeliveryState.SENDING,
    )
    .values(
        state=bindparam("b_state"),
        lease_until=null(),
        payload=bindparam("b_payload", type_=JSON(none_as_null=True)),
        done_at=bindparam("b_now"),
        vendor_ref=bindparam("b_ref"),
        error=bindparam("b_error"),
    )
)


def put_back(tx: Connection, delivery_id: int, fence: int, due_at: int, error: str = "", *, tried: bool = True) -> bool:
    """End a claim with nothing done: ready again at `due_at`. `tried=False`: it was not this item's fault."""
    attempts = deliveries.c.attempts if tried else deliveries.c.attempts - 1
    back = tx.execute(
        _claimed(delivery_id, fence).values(
            state=DeliveryState.READY, lease_until=None, due_at=due_at, attempts=attempts, error=error[:ERROR_LENGTH]
        )
    )
    return bool(back.rowcount)


def settle_doubt(tx: Connection, delivery_id: int, now: int, vendor_ref: str = "") -> bool:
    """Somebody knows after all that an effect in doubt was done: a late worker, the vendor, an answer."""
    settled = tx.execute(
        update(deliveries)
        .where(deliveries.c.id == delivery_id, deliveries.c.state == DeliveryState.UNKNOWN)
        .values(state=DeliveryState.DONE, done_at=now, vendor_ref=vendor_ref, error="", payload=null())
    )
    return bool(settled.rowcount)


def _claimed(delivery_id: int, fence: int) -> Any:
    return update(deliveries).where(
        deliveries.c.id == delivery_id, deliveries.c.fence == fence, deliveries.c.state == DeliveryState.SENDING
    )


# --- what was left behind -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stranded:
    """A delivery whose worker did not come back, or whose outcome nobody knows."""

    id: int
    key: str
    fence: int
    touch_id: int | None
    person_id: int | None
    payload: Mapping[str, Any]


def stranded(tx: Connection, connection_id: int, kind: str, now: int) -> list[Stranded]:
    """Claims whose lease is over, or whose process is gone from this machine."""
    rows = tx.execute(_CLAIMS.columns(payload=JSON), {"connection": connection_id, "kind": kind}).all()
    gone = {owner: is_gone(owner) for owner in {row.owner for row in rows} if owner}
    return [
        Stranded(row.id, row.key, row.fence, row.touch_id, row.person_id, row.payload or {})
        for row in rows
        if _is_over(row.lease_until, now) or gone.get(row.owner, False)
    ]


def _is_over(lease_until: int | None, now: int) -> bool:
    # nobody takes a lease for a day: it was taken before the clock was set back
    return lease_until is None or lease_until <= now or lease_until > now + DAY_MS


# the condition of the partial index of unfinished rows, word for word: SQLite does not see it in anything else
_CLAIMS = text(
    "SELECT d.id, d.key, d.fence, d.touch_id, t.person_id, d.owner, d.lease_until, d.payload"
    " FROM deliveries AS d LEFT JOIN touches AS t ON t.id = d.touch_id"
    " WHERE d.connection_id = :connection AND d.kind = :kind AND d.state IN ('ready', 'sending')"
    " AND d.state = 'sending'"
)

# of each connection only the first row is looked at, however many wait
_WITH_WORK = text(
    "SELECT c.id FROM connections AS c WHERE EXISTS"
    " (SELECT 1 FROM deliveries AS d WHERE d.connection_id = c.id AND d.kind = :kind"
    "  AND d.state IN ('ready', 'sending') AND d.state = 'sending')"
    " OR c.state <> 'removed' AND EXISTS"
    " (SELECT 1 FROM deliveries AS d WHERE d.connection_id = c.id AND d.kind = :kind"
    "  AND d.state IN ('ready', 'sending') AND d.state = 'ready' AND d.due_at <= :now)"
    " OR c.state <> 'removed' AND :kind = 'send' AND EXISTS"
    " (SELECT 1 FROM leases AS l WHERE l.name = 'find_sent:' || c.id AND l.due_at BETWEEN 1 AND :now)"
    " ORDER BY c.id"
)


def connections_with_work(tx: Connection, kind: str, now: int) -> list[int]:
    """The connections that have something of this kind due, left behind by somebody, or in doubt and to be asked about.

    What is ready for a connection that was removed has nowhere to go, and is no work.
    """
    return list(tx.scalars(_WITH_WORK, {"kind": kind, "now": now}))


# --- for people -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """A delivery as `flask deliveries list` shows it. Moments are milliseconds."""

    id: int
    key: str
    kind: str
    connection: str
    state: DeliveryState
    attempts: int
    due_at: int
    created_at: int
    done_at: int | None
    vendor_ref: str
    error: str


def list_deliveries(tx: Connection, state: DeliveryState | None = None, limit: int = 1000) -> list[DeliveryRow]:
    """Deliveries, the newest first."""
    query = (
        select(
            deliveries.c.id, deliveries.c.key, deliveries.c.kind, connections.c.name, deliveries.c.state,
            deliveries.c.attempts, deliveries.c.due_at, deliveries.c.created_at, deliveries.c.done_at,
            deliveries.c.vendor_ref, deliveries.c.error,
        )
        .join(connections, connections.c.id == deliveries.c.connection_id)
        .order_by(deliveries.c.id.desc())
        .limit(limit)
    )  # fmt: skip
    if state is not None:
        query = query.where(deliveries.c.state == state)
    return [DeliveryRow(*row[:4], DeliveryState(row[4]), *row[5:]) for row in tx.execute(query)]


def replay(tx: Connection, delivery_ids: Sequence[int], now: int) -> list[int]:
    """Try failed write-backs again; returns the ids that were put back.

    A failed message is not replayed: its quota was returned, and the next wave asks the person again by the rules.
    """
    wanted = select(deliveries.c.id).where(
        deliveries.c.id.in_(delivery_ids), deliveries.c.state == DeliveryState.FAILED, deliveries.c.kind != "send"
    )
    ids = list(tx.scalars(wanted))
    tx.execute(
        update(deliveries)
        .where(deliveries.c.id.in_(ids))
        .values(state=DeliveryState.READY, due_at=now, attempts=0, error="", done_at=None)
    )
    return ids


def counts(tx: Connection) -> dict[str, int]:
    """How many deliveries stand in each state."""
    rows = tx.execute(select(deliveries.c.state, func.count()).group_by(deliveries.c.state))
    return {row[0]: row[1] for row in rows}


# --- keeping house --------------------------------------------------------------------------------------------------


def old_payloads(tx: Connection, before: int, limit: int) -> list[int]:
    """Finished deliveries that still carry something, older than `before`."""
    old = (
        select(deliveries.c.id)
        .where(
            deliveries.c.kind != "write_back",  # theirs is what the record shows: needed to notice an edit
            deliveries.c.state.in_(("done", "failed", "unknown", "cancelled", "superseded")),
            deliveries.c.payload.is_not(null()),
            func.coalesce(deliveries.c.done_at, deliveries.c.created_at) < before,
        )
        .limit(limit)
    )
    return list(tx.scalars(old))


def forget_payloads(tx: Connection, delivery_ids: Sequence[int]) -> int:
    """Erase what these finished deliveries carry; returns how many."""
    unfinished = deliveries.c.state.in_(("ready", "sending"))  # a replay since they were found
    return tx.execute(
        update(deliveries).where(deliveries.c.id.in_(delivery_ids), ~unfinished).values(payload=null())
    ).rowcount


def orphans(tx: Connection, limit: int) -> list[int]:
    """Write-backs of records that exist no more."""
    query = text(
        "SELECT d.id FROM deliveries AS d LEFT JOIN identities AS i ON i.id = d.identity_id"
        " WHERE d.kind = 'write_back' AND d.identity_id IS NOT NULL AND i.id IS NULL AND d.state <> 'sending'"
        " LIMIT :limit"
    )
    return list(tx.scalars(query, {"limit": limit}))


def forget_orphans(tx: Connection, delivery_ids: Sequence[int]) -> int:
    """Drop these; returns how many. A record that is gone never comes back under its number."""
    return tx.execute(
        delete(deliveries).where(deliveries.c.id.in_(delivery_ids), deliveries.c.state != DeliveryState.SENDING)
    ).rowcount
