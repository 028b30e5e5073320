"""What others tell us, and what it brings about, once however often it is told."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, select

from core.clock import DAY_MS, FixedClock
from core.contacts import address_hash
from core.errors import Unsupported
from core.events import (
    ContactChanged,
    EmailBounced,
    EmailComplained,
    EmailDelivered,
    Event,
    ResponseReceived,
    UnknownEvent,
    Unsubscribed,
)
from core.jobs.apply_events import apply_event
from core.storage import schema
from core.storage.store import Store
from core.touches import TouchState
from tests.ledger import add_campaign, add_connection, add_person, add_touch, add_wave
from tests.world import PEPPER, set_workspace

AT = datetime(2026, 12, 1, 8, 59, tzinfo=UTC)
ADA = "ada@acme.example"
Facts = dict[str, Any]


class Asked:
    """Ada, asked an hour ago by mail."""

    def __init__(self, store: Store, now: int) -> None:
        self.store, self.now = store, now
        set_workspace(store)
        with store.write() as tx:
            self.crm = add_connection(tx)
            self.mail = add_connection(tx, "mail", "smtp")
            config = {"name": "relationship", "source": ["crm"], "sender": "mail", "every_days": 90}
            self.campaign = add_campaign(tx, config=config | {"write_back": ["crm"]})
            self.wave = add_wave(tx, self.campaign)
            self.person, self.identity = add_person(tx, self.crm, ADA, address_hash=self.hash(ADA))
            self.touch = self.ask(tx, TouchState.HANDED_OVER, now - 3_600_000)

    def hash(self, email: str) -> bytes:
        return address_hash(PEPPER, email)

    def ask(self, tx: Any, state: TouchState, at: int, delivery: str = "done", **values: Any) -> int:
        sent = {"handed_over_at": at} if state is TouchState.HANDED_OVER else {}
        values = {"campaign_id": self.campaign, "wave_id": self.wave, "identity_id": self.identity, **sent, **values}
        touch = add_touch(
            tx, self.person, state, at, claimed_at=at, window_closes_at=at + 21 * DAY_MS,
            address_hash=self.hash(ADA), **values,
        )  # fmt: skip
        row = {"key": f"touch{touch}:invite", "kind": "send", "connection_id": self.mail, "touch_id": touch}
        tx.execute(schema.deliveries.insert().values(state=delivery, due_at=at, created_at=at, done_at=at, **row))
        return touch

    def tell(self, event: Event) -> bool:
        with self.store.write() as tx:
            return apply_event(tx, self.mail, "mail", event, PEPPER, self.now)

    def state(self, touch: int | None = None) -> tuple[str, str]:
        with self.store.read() as tx:
            t = schema.touches.c
            row = tx.execute(select(t.state, t.reason).where(t.id == (touch or self.touch))).one()
            return row.state, row.reason

    def suppressed(self) -> dict[bytes, str]:
        with self.store.read() as tx:
            s = schema.suppressions.c
            return {row[0]: row[1] for row in tx.execute(select(s.address_hash, s.reason))}

    def one(self, query: Any) -> Any:
        with self.store.read() as tx:
            return tx.scalar(query)


@pytest.fixture
def asked(store: Store, clock: FixedClock) -> Asked:
    return Asked(store, clock.now_ms())


BY: dict[str, Facts] = {
    "our key": {"effect_key": "touch1:invite"},
    "address": {"email": "  ADA@Acme.Example "},
}


@pytest.mark.parametrize("about", BY.values(), ids=BY)
def test_a_hard_bounce_gives_the_quota_back_and_marks_the_address(asked: Asked, about: Facts) -> None:
    assert asked.tell(EmailBounced(key="b1", at=AT, hard=True, reason="550 no such user", **about))
    assert asked.state() == ("returned", "bounced")
    assert asked.suppressed() == {asked.hash(ADA): "hard_bounce"}
    # the record shows the previous date again
    assert asked.one(select(schema.deliveries.c.state).where(schema.deliveries.c.kind == "write_back")) == "ready"


def test_a_soft_bounce_keeps_the_quota_until_the_platform_gives_up(asked: Asked) -> None:
    soft = EmailBounced(key="b1", at=AT, hard=False, effect_key="touch1:invite")
    asked.tell(soft)
    assert asked.state() == ("handed_over", "")
    asked.tell(EmailBounced(key="b2", at=AT, hard=False, gave_up=True, effect_key="touch1:invite"))
    assert asked.state() == ("returned", "bounced")
    assert asked.suppressed() == {}  # the mailbox was full, not gone


def test_a_bounce_of_a_reminder_never_moves_its_touch(asked: Asked) -> None:
    with asked.store.write() as tx:
        row = {"key": "touch1:reminder:1", "kind": "send", "connection_id": asked.mail, "touch_id": asked.touch}
        tx.execute(schema.deliveries.insert().values(state="done", due_at=0, created_at=0, **row))
    asked.tell(EmailBounced(key="b1", at=AT, hard=True, effect_key="touch1:reminder:1"))
    assert asked.state() == ("handed_over", "")
    assert asked.suppressed() == {asked.hash(ADA): "hard_bounce"}


def test_a_bounce_cancels_what_waits_to_leave_to_that_person(asked: Asked) -> None:
    with asked.store.write() as tx:
        other = add_wave(tx, asked.campaign, 2)
        waiting = asked.ask(tx, TouchState.RESERVED, asked.now, "ready", wave_id=other)
    asked.tell(EmailBounced(key="b1", at=AT, hard=True, effect_key="touch1:invite"))
    assert asked.state(waiting) == ("returned", "suppressed")


def test_an_answer_outlives_a_late_bounce(asked: Asked) -> None:
    with asked.store.write() as tx:
        tx.execute(schema.touches.update().values(state="answered", answered=True, answered_at=asked.now))
    asked.tell(EmailBounced(key="b1", at=AT, hard=True, effect_key="touch1:invite"))
    assert asked.state() == ("answered", "")


def test_a_complaint_ends_everything(asked: Asked) -> None:
    asked.tell(EmailComplained(key="c1", at=AT, email=ADA))
    assert asked.state() == ("declined", "")
    assert asked.suppressed() == {asked.hash(ADA): "complaint"}


def test_an_opt_out_at_the_vendor_is_a_fact_of_the_person(asked: Asked) -> None:
    asked.tell(Unsubscribed(key="u1", at=AT, email=ADA))
    assert asked.state() == ("declined", "")
    assert asked.one(select(schema.people.c.opted_out_by)) == "mail"


def test_an_opt_out_of_somebody_unknown_waits_for_them(asked: Asked) -> None:
    for key in ("u1", "u2"):
        asked.tell(Unsubscribed(key=key, at=AT, email="dot@acme.example"))
    t = schema.tombstones.c
    at = asked.one(select(t.opted_out_at).where(t.address_hash == asked.hash("dot@acme.example")))
    assert at == asked.now
    assert asked.state() == ("handed_over", "")


def test_a_delivery_report_is_a_fact_and_no_state(asked: Asked, clock: FixedClock) -> None:
    asked.tell(EmailDelivered(key="d1", at=AT, effect_key="touch1:invite"))
    asked.tell(EmailDelivered(key="d2", at=clock.now(), effect_key="touch1:invite"))
    assert asked.state() == ("handed_over", "")
    assert asked.one(select(schema.touches.c.delivered_at)) == asked.now - 60_000  # the first report stands


def test_a_claim_from_the_future_is_not_believed(asked: Asked) -> None:
    asked.tell(EmailDelivered(key="d1", at=datetime(2030, 1, 1, tzinfo=UTC), effect_key="touch1:invite"))
    assert asked.one(select(schema.touches.c.delivered_at)) == asked.now


def test_a_delivery_report_settles_a_message_in_doubt(asked: Asked) -> None:
    with asked.store.write() as tx:
        other = add_wave(tx, asked.campaign, 2)
        touch = asked.ask(tx, TouchState.UNKNOWN, asked.now - 1000, "unknown", wave_id=other)
    asked.tell(EmailDelivered(key="d1", at=AT, effect_key=f"touch{touch}:invite"))
    assert asked.state(touch) == ("handed_over", "")
    d = schema.deliveries.c
    assert asked.one(select(d.state).where(d.touch_id == touch)) == "done"


EVENTS = (
    EmailBounced(key="same", at=AT, hard=False, gave_up=True, email=ADA),
    EmailComplained(key="same", at=AT, email=ADA),
    Unsubscribed(key="same", at=AT, email=ADA),
    EmailDelivered(key="same", at=AT, email=ADA),
    UnknownEvent(key="same", at=AT, name="anniversary"),
)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_the_same_event_is_applied_once(asked: Asked, event: Event) -> None:
    assert asked.tell(event)
    assert not asked.tell(event)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_about_nobody_we_know_harms_nobody(asked: Asked, event: Event) -> None:
    for about in ({"email": "stranger@elsewhere.example"}, {"effect_key": "touch99:invite"}, {"external_id": "x"}):
        values = {name: getattr(event, name) for name in event.__dataclass_fields__}
        blank = {"email": "", "effect_key": "", "external_id": "", "key": str(about)}
        assert asked.tell(type(event)(**values | blank | about))
    assert asked.state() == ("handed_over", "")
    assert asked.one(select(func.count()).where(schema.people.c.opted_out_at.is_not(None))) == 0


def test_what_has_no_word_is_counted_under_the_vendors_own(asked: Asked) -> None:
    asked.tell(UnknownEvent(key="x", at=AT, name="anniversary"))
    assert asked.one(select(schema.events.c.kind)) == "unknown:anniversary"


def test_what_is_read_from_its_source_is_not_pretended_to_be_applied(asked: Asked) -> None:
    for event in (ContactChanged(key="x", at=AT), ResponseReceived(key="x", at=AT, score=9)):
        with pytest.raises(Unsupported):
            asked.tell(event)
    assert asked.one(select(func.count()).select_from(schema.events)) == 0
