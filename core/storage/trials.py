"""Test sends of a workspace that is not live: asks that count for nobody.

A trial is a touch of source `test` without a person, a record, a company or an address, so that no clock, no share, no
figure and no write-back can see it. Whom its message goes to stands in the delivery until it has left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from core.deliveries import DeliveryKind, DeliveryState, invite_key
from core.ids import survey_token, token_hash
from core.storage.schema import companies, deliveries, identities, survey_links, touches
from core.touches import TouchState

#: `touches.source` of a trial.
SOURCE = "test"


@dataclass(frozen=True, slots=True)
class Recipient:
    """Whom a test message is written to, as the source knows them; of somebody it does not know only the address."""

    email: str
    first_name: str | None = None
    last_name: str | None = None
    company: str | None = None
    language: str | None = None

    def payload(self) -> Mapping[str, str | None]:
        """As the delivery keeps it until the message has left."""
        return {
            "email": self.email,
            "first_name": self.first_name,
            "last_name": self.last_name,
            "company": self.company,
            "language": self.language,
        }


@dataclass(frozen=True, slots=True)
class Trial:
    """One test message. `public_id` is made from what is tried, so that it is written down once."""

    public_id: str
    campaign_id: int
    type: str
    sender_id: int
    recipient: Recipient
    asked_at: int
    window_closes_at: int
    expires_at: int


def recipient_of(tx: Connection, email: str, address_hash: bytes | None, sources: Sequence[int]) -> Recipient:
    """The first record of these connections with the address, else the address alone."""
    row = tx.execute(
        select(identities.c.first_name, identities.c.last_name, companies.c.name, identities.c.language)
        .outerjoin(companies, companies.c.id == identities.c.company_id)
        .where(
            identities.c.address_hash == address_hash,
            identities.c.connection_id.in_(sources),
            identities.c.gone_at.is_(None),
        )
        .order_by(identities.c.id)
        .limit(1)
    ).first()
    return Recipient(email) if row is None else Recipient(email, *row)


def add_trial(tx: Connection, trial: Trial) -> bool:
    """Write a test message down, ready to leave. False if it was before."""
    key = invite_key(trial.public_id)
    if tx.scalar(select(deliveries.c.id).where(deliveries.c.key == key)) is not None:
        return False
    touch_id = tx.execute(
        insert(touches)
        .values(
            public_id=trial.public_id, campaign_id=trial.campaign_id, type=trial.type, source=SOURCE,
            state=TouchState.RESERVED, reserved_at=trial.asked_at, asked_at=trial.asked_at,
            window_closes_at=trial.window_closes_at,
        )
        .returning(touches.c.id)
    ).scalar_one()  # fmt: skip
    token = survey_token()
    tx.execute(insert(survey_links).values(token_hash=token_hash("touch", token), touch_id=touch_id, kind="invite"))
    tx.execute(
        insert(deliveries).values(
            key=key, kind=DeliveryKind.SEND, connection_id=trial.sender_id, touch_id=touch_id,
            state=DeliveryState.READY, due_at=trial.asked_at, created_at=trial.asked_at, expires_at=trial.expires_at,
            payload={"token": token, "kind": "invite", "to": dict(trial.recipient.payload())},
        )
    )  # fmt: skip
    return True
