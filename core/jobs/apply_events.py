"""What an event brings about: bounces, complaints, opt-outs and delivery reports, each applied once."""

from __future__ import annotations

from core.clock import to_ms
from core.contacts import address_hash, clean_address
from core.deliveries import is_reminder
from core.errors import Unsupported
from core.events import (
    ContactChanged,
    EmailBounced,
    EmailComplained,
    EmailDelivered,
    Event,
    ResponseReceived,
    Unsubscribed,
)
from core.jobs import brakes
from core.storage import deliveries, inbox, people, settings, suppressions, touches
from core.storage.inbox import Target
from core.storage.store import Transaction
from core.storage.suppressions import SuppressionReason
from core.touches import ReturnReason


def apply_event(tx: Transaction, connection_id: int, connection: str, event: Event, pepper: bytes, now: int) -> bool:
    """Apply an event of this connection. False if it was applied before. Raises Unsupported for what has no effect."""
    if isinstance(event, ResponseReceived | ContactChanged):
        raise Unsupported(
            f"{connection} reports {type(event).__name__}, which is read from its source, not applied here"
        )
    if not inbox.is_first_time(tx, connection_id, event, now):
        return False
    address = clean_address(event.email) if event.email else None
    target = inbox.find_target(tx, connection_id, event, address_hash(pepper, address) if address else None)
    match event:
        case EmailBounced():
            _bounced(tx, event, target, connection, now)
        case EmailComplained():
            _complained(tx, target, connection, now)
        case Unsubscribed():
            _opted_out(tx, target, connection, now)
        case EmailDelivered():
            _delivered(tx, event, target, now)
    return True


def _bounced(tx: Transaction, event: EmailBounced, target: Target, connection: str, now: int) -> None:
    if not event.hard and not event.gave_up:
        return  # the quota stays taken until the platform gives up
    if event.hard:
        reason = SuppressionReason.HARD_BOUNCE
        suppressions.suppress(tx, target.address_hash, reason, event.reason, connection, now)
        touches.cancel_for_people(tx, target.person_ids, now, ReturnReason.SUPPRESSED, "the address bounced")
    if target.touch_id is not None and not is_reminder(target.effect_key):
        touches.give_back(tx, [target.touch_id], ReturnReason.BOUNCED, event.reason, now)
        _check_brakes(tx, target, now)


def _complained(tx: Transaction, target: Target, connection: str, now: int) -> None:
    reason = SuppressionReason.COMPLAINT
    suppressions.suppress(tx, target.address_hash, reason, "", connection, now)
    touches.cancel_for_people(tx, target.person_ids, now, ReturnReason.SUPPRESSED, "reported as spam")
    if target.touch_id is not None:
        touches.mark_declined(tx, [target.touch_id], now)
    deliveries.request_write_back(tx, target.person_ids, now)
    _check_brakes(tx, target, now)


def _opted_out(tx: Transaction, target: Target, connection: str, now: int) -> None:
    for person_id in target.person_ids:
        people.opt_out(tx, person_id, connection, now)
    if not target.person_ids and target.address_hash is not None:
        inbox.remember_opt_out(tx, target.address_hash, now)


def _delivered(tx: Transaction, event: EmailDelivered, target: Target, now: int) -> None:
    if target.touch_id is None or is_reminder(target.effect_key):
        return
    inbox.note_delivered(tx, target.touch_id, min(to_ms(event.at), now))  # a claim; never in our future
    if target.delivery_id is not None and deliveries.settle_doubt(tx, target.delivery_id, now):
        touches.hand_over(tx, [target.touch_id], now)


def _check_brakes(tx: Transaction, target: Target, now: int) -> None:
    workspace = settings.read_workspace(tx)
    if workspace is not None and target.campaign_id is not None:
        brakes.check(tx, [target.campaign_id], workspace.brakes, now)
