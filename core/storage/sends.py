"""Messages that are due, the facts that decide whether each may still leave, and the 24 h floor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, bindparam, exists, false, func, null, or_, select, text, update

from core.clock import DAY_MS
from core.deliveries import DeliveryKind, DeliveryState
from core.dispatch import Message
from core.ids import survey_token, token_hash
from core.storage.deliveries import ERROR_LENGTH, Stranded
from core.storage.schema import (
    campaigns,
    companies,
    deliveries,
    identities,
    incidents,
    leases,
    message_guard,
    people,
    suppressions,
    survey_links,
    touches,
)
from core.storage.trials import SOURCE as TRIAL
from core.touches import TouchState

FLOOR_MS = DAY_MS  # the last message of any kind from us: fixed, cannot be switched off


# the condition of the partial index of unfinished rows, word for word: SQLite does not see it in anything else
_DUE = text(
    "SELECT d.id FROM deliveries AS d"
    " JOIN touches AS t ON t.id = d.touch_id JOIN campaigns AS c ON c.id = t.campaign_id"
    " WHERE d.connection_id = :connection AND d.kind = 'send' AND d.state IN ('ready', 'sending') AND d.state = 'ready'"
    " AND d.due_at <= :now AND c.state <> 'paused' ORDER BY d.due_at, d.id LIMIT :limit"
)


def due_sends(tx: Connection, connection_id: int, now: int, limit: int = 500) -> list[int]:
    """Messages that want to leave, the longest due first. Those of a paused campaign wait."""
    return list(tx.scalars(_DUE, {"connection": connection_id, "now": now, "limit": limit}))


def read_facts(tx: Connection, delivery_ids: Sequence[int]) -> list[Message]:
    """The facts of these messages as far as they are still ready, in the order given."""
    rows = tx.execute(_FACTS, {"ids": list(delivery_ids)}).all()
    facts = {row.delivery_id: _facts_of(row) for row in rows}
    return [facts[delivery_id] for delivery_id in delivery_ids if delivery_id in facts]


def _facts_of(row: Row[Any]) -> Message:
    values = dict(row._mapping)
    values["touch_state"] = TouchState(values["touch_state"])
    values["payload"] = values["payload"] or {}
    if values["trial"]:  # there is no record: whom it goes to stands in the message itself
        values |= {"gone": False, **values["payload"].get("to", {})}
    return Message(**values)


def _facts() -> Select[Any]:
    d, t, c, i, p = deliveries.c, touches.c, campaigns.c, identities.c, people.c
    suppressed = exists().where(suppressions.c.address_hash == i.address_hash)
    incident = exists().where(
        incidents.c.kind == "declared",
        incidents.c.closed_at.is_(null()),
        or_(incidents.c.company_id.is_(null()), incidents.c.company_id == i.company_id),
    )
    columns = {
        "delivery_id": d.id, "key": d.key, "fence": d.fence, "attempts": d.attempts, "payload": d.payload,
        "expires_at": d.expires_at, "created_at": d.created_at,
        "touch_id": t.id, "touch_state": t.state, "answered": t.answered, "asked_address": t.address_hash,
        "asked_at": t.asked_at, "window_closes_at": t.window_closes_at, "person_id": t.person_id,
        "campaign_id": c.id, "campaign": c.name, "campaign_state": c.state,
        "identity_id": i.id, "external_id": i.external_id, "email": i.email, "address_hash": i.address_hash,
        "shared": func.coalesce(i.shared, false()), "first_name": i.first_name, "last_name": i.last_name,
        "company": companies.c.name, "language": i.language, "time_zone": i.time_zone,
        "gone": or_(i.id.is_(null()), i.gone_at.is_not(null())),
        "opted_out": or_(p.opted_out_at.is_not(null()), func.coalesce(p.source_opted_out, false())),
        "hold_until": p.hold_until, "suppressed": suppressed, "incident": incident, "trial": t.source == TRIAL,
    }  # fmt: skip
    return (
        select(*(column.label(name) for name, column in columns.items()))
        .select_from(deliveries)
        .join(touches, t.id == d.touch_id)
        .join(campaigns, c.id == t.campaign_id)
        .outerjoin(identities, i.id == t.identity_id)
        .outerjoin(people, p.id == t.person_id)
        .outerjoin(companies, companies.c.id == i.company_id)
        .where(d.id.in_(bindparam("ids", expanding=True)), d.state == DeliveryState.READY)
    )


_FACTS = _facts()


# --- the claim ------------------------------------------------------------------------------------------------------


def take(tx: Connection, message: Message, owner: str, now: int, lease_until: int) -> Message | None:
    """Claim a message: `sending`, under a lease. None if somebody else did. The answer carries fence and token."""
    payload = {**message.payload, "kind": message.kind, "guarded_at": now}
    if not payload.get("token"):
        payload["token"] = _new_link(tx, message.touch_id, message.kind)
    row = {"b_id": message.delivery_id, "b_fence": message.fence, "b_owner": owner, "b_until": lease_until}
    taken = tx.execute(_TAKE, {**row, "b_payload": payload})
    if not taken.rowcount:
        return None
    return replace(message, fence=message.fence + 1, attempts=message.attempts + 1, payload=payload)


_TAKE = (  # made once, as all that is done for each message: making a statement takes longer than running it
    update(deliveries)
    .where(
        deliveries.c.id == bindparam("b_id"),
        deliveries.c.state == DeliveryState.READY,
        deliveries.c.fence == bindparam("b_fence"),
    )
    .values(
        state=DeliveryState.SENDING,
        owner=bindparam("b_owner"),
        lease_until=bindparam("b_until"),
        fence=deliveries.c.fence + 1,
        attempts=deliveries.c.attempts + 1,
        payload=bindparam("b_payload"),
    )
)


def _new_link(tx: Connection, touch_id: int, kind: str) -> str:
    token = survey_token()
    tx.execute(_NEW_LINK, {"token_hash": token_hash("touch", token), "touch_id": touch_id, "kind": kind})
    return token


_NEW_LINK = survey_links.insert()


def postpone(tx: Connection, message: Message, until: int, error: str) -> None:
    """Not now: ready again at `until`, which lies ahead."""
    tx.execute(_still_ready(message).values(due_at=until, error=error[:ERROR_LENGTH]))


def withdraw(tx: Connection, message: Message, error: str, now: int) -> bool:
    """Never: cancelled, with the reason. False if it is no longer ready."""
    withdrawn = tx.execute(
        _still_ready(message).values(
            state=DeliveryState.CANCELLED, payload=null(), done_at=now, error=error[:ERROR_LENGTH]
        )
    )
    return bool(withdrawn.rowcount)


def _still_ready(message: Message) -> Any:
    return update(deliveries).where(deliveries.c.id == message.delivery_id, deliveries.c.state == DeliveryState.READY)


# --- the 24 h floor -------------------------------------------------------------------------------------------------


def take_guard(tx: Connection, message: Message, now: int) -> int | None:
    """Take the floor for every record of the person, in sorted order. Returns when it is free instead, if it is taken.

    A message is not blocked by its own earlier attempt: what it took then stands in its payload.
    """
    guards = tx.execute(_GUARDS, {"person": message.person_id, "identity": message.identity_id}).all()
    own = message.guarded_at
    blocking = [at for _, at in guards if at is not None and at > now - FLOOR_MS and at != own]
    if blocking:
        return int(max(blocking)) + FLOOR_MS
    rows = [
        {"identity": identity_id, "now": now, "floor": now - FLOOR_MS, "own": own or 0} for identity_id, _ in guards
    ]
    taken = sum(tx.execute(_TAKE_GUARD, row).rowcount for row in rows)
    # fewer: another message to the same person was claimed between the two statements (never under SQLite)
    return None if taken == len(rows) else now + FLOOR_MS


_GUARDS = (
    select(identities.c.id, message_guard.c.last_message_at)
    .outerjoin(message_guard, message_guard.c.identity_id == identities.c.id)
    .where(or_(identities.c.person_id == bindparam("person"), identities.c.id == bindparam("identity")))
    .order_by(identities.c.id)
)

_TAKE_GUARD = text(
    "INSERT INTO message_guard (identity_id, last_message_at) VALUES (:identity, :now)"
    " ON CONFLICT (identity_id) DO UPDATE SET last_message_at = excluded.last_message_at"
    " WHERE message_guard.last_message_at <= :floor OR message_guard.last_message_at = :own"
)


# --- reminders and reservations that ran out ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A touch whose reminder is due."""

    touch_id: int
    public_id: str
    time_zone: str | None
    window_closes_at: int | None


def due_reminders(
    tx: Connection, campaign_id: int, asked_before: int, reserved_after: int, now: int, limit: int = 500
) -> list[Unanswered]:
    """Handed over before `asked_before`, without an answer, not reminded, the window still open, not opted out."""
    rows = tx.execute(
        select(touches.c.id, touches.c.public_id, identities.c.time_zone, touches.c.window_closes_at)
        .join(people, people.c.id == touches.c.person_id)
        .join(identities, identities.c.id == touches.c.identity_id)
        .where(
            touches.c.campaign_id == campaign_id,
            touches.c.reserved_at.between(reserved_after, asked_before),
            touches.c.state == TouchState.HANDED_OVER,
            touches.c.answered.is_(False),
            touches.c.asked_at <= asked_before,
            touches.c.reminded_at.is_(null()),
            or_(touches.c.window_closes_at.is_(null()), touches.c.window_closes_at > now),
            people.c.opted_out_at.is_(null()),
            people.c.source_opted_out.is_(False),
            identities.c.gone_at.is_(null()),
        )
        .order_by(touches.c.id)
        .limit(limit)
    )
    return [Unanswered(*row) for row in rows]


def add_reminder(
    tx: Connection, touch: Unanswered, key: str, connection_id: int, due_at: int, expires_at: int, now: int
) -> bool:
    """Write a reminder down, with a token of its own, once per key. Its touch notes the moment. False: there is one."""
    tx.execute(update(touches).where(touches.c.id == touch.touch_id).values(reminded_at=now))
    if tx.scalar(select(deliveries.c.id).where(deliveries.c.key == key)) is not None:
        return False
    tx.execute(
        deliveries.insert().values(
            key=key, kind=DeliveryKind.SEND, connection_id=connection_id, touch_id=touch.touch_id,
            state=DeliveryState.READY, due_at=due_at, expires_at=expires_at, created_at=now,
            payload={"token": _new_link(tx, touch.touch_id, "reminder"), "kind": "reminder"},
        )
    )  # fmt: skip
    return True


@dataclass(frozen=True, slots=True)
class Overdue:
    """A message that did not leave in time."""

    delivery_id: int
    touch_id: int
    key: str
    error: str


_OVERDUE = text(
    "SELECT id, touch_id, key, error FROM deliveries WHERE kind = 'send' AND state IN ('ready', 'sending')"
    " AND state = 'ready' AND expires_at <= :now AND connection_id IN (SELECT id FROM connections)"
    " ORDER BY id LIMIT :limit"
)


def overdue_sends(tx: Connection, now: int, limit: int = 200) -> list[Overdue]:
    """Messages whose permitted time is over, wherever they wait."""
    return [Overdue(*row) for row in tx.execute(_OVERDUE, {"now": now, "limit": limit})]


_PAUSED_OR_NOT = and_(deliveries.c.kind == DeliveryKind.SEND, deliveries.c.state == DeliveryState.READY)


def has_ready_sends(tx: Connection, connection_id: int) -> bool:
    """Whether anything waits to leave by this connection, now or later."""
    query = select(exists().where(_PAUSED_OR_NOT, deliveries.c.connection_id == connection_id))
    return bool(tx.scalar(query))


def expire(tx: Connection, delivery_ids: Sequence[int], now: int) -> None:
    """Cancel ready messages that ran out of time."""
    tx.execute(
        update(deliveries)
        .where(deliveries.c.id.in_(delivery_ids), deliveries.c.state == DeliveryState.READY)
        .values(state=DeliveryState.CANCELLED, payload=null(), done_at=now)
    )


# --- in doubt -------------------------------------------------------------------------------------------------------


def doubtful_sends(tx: Connection, connection_id: int, since: int, limit: int = 500) -> list[Stranded]:
    """Messages in doubt since `since` at most: for vendors that can be asked."""
    rows = tx.execute(
        select(
            deliveries.c.id, deliveries.c.key, deliveries.c.fence, deliveries.c.touch_id, touches.c.person_id,
            deliveries.c.payload,
        )
        .join(touches, touches.c.id == deliveries.c.touch_id)
        .where(
            deliveries.c.connection_id == connection_id,
            deliveries.c.kind == DeliveryKind.SEND,
            deliveries.c.state == DeliveryState.UNKNOWN,
            deliveries.c.done_at >= since,
        )
        .order_by(deliveries.c.done_at.desc(), deliveries.c.id)
        .limit(limit)
    )  # fmt: skip
    return [Stranded(*row[:5], row[5] or {}) for row in rows]


def ask_at(tx: Connection, connection_id: int, at: int | None) -> None:
    """When the vendor is asked about what is in doubt: a row of `leases` that nobody holds. None: there is no need."""
    tx.execute(_ASK_AT, {"name": f"find_sent:{connection_id}", "at": at or 0})


def is_time_to_ask(tx: Connection, connection_id: int, now: int) -> bool:
    """Whether something was in doubt, and the vendor was not asked a moment ago."""
    at = tx.scalar(select(leases.c.due_at).where(leases.c.name == f"find_sent:{connection_id}")) or 0
    return at > 0 and not now < at <= now + DAY_MS  # further off: the clock was set back


_ASK_AT = text(
    "INSERT INTO leases (name, owner, lease_until, fence, due_at) VALUES (:name, '', 0, 0, :at)"
    " ON CONFLICT (name) DO UPDATE SET due_at = excluded.due_at"
)


def send_again(tx: Connection, delivery_id: int, fence: int, now: int) -> bool:
    """The vendor says it never had it: ready again, under the same key."""
    again = tx.execute(
        update(deliveries)
        .where(
            deliveries.c.id == delivery_id,
            deliveries.c.fence == fence,
            deliveries.c.state.in_((DeliveryState.SENDING, DeliveryState.UNKNOWN)),
        )
        .values(state=DeliveryState.READY, due_at=now, lease_until=None, done_at=None)
    )
    return bool(again.rowcount)
