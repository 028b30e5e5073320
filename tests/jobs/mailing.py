"""A sender that does what a test tells it, and invitations that wait for it: for tests of what becomes of a message."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, select

from core.clock import DAY_MS, FixedClock
from core.contacts import address_hash
from core.deliveries import invite_key, reminder_key
from core.ports import Invitation, InvitationRequest, Sent, WriteResult
from core.storage import schema
from core.storage.store import Store
from core.touches import TouchState
from tests.ledger import add_campaign, add_connection, add_person, add_touch, add_wave
from tests.world import PEPPER, set_workspace

ADA, BO, CLEO, DOT = "ada@acme.example", "bo@bolt.example", "cleo@corp.example", "dot@dash.example"
CRM, MAIL, CAMPAIGN = 1, 2, 1
CONFIG = {"name": "relationship", "source": ["crm"], "sender": "mail", "write_back": ["crm"], "every_days": 90}
WINDOW_MS = 21 * DAY_MS

#: What happens to a message: a result, an error that is raised, or something that is done before it is taken.
Happening = WriteResult | Exception | Callable[[Invitation], WriteResult | None]


class Sender:
    """Takes every message, unless told otherwise by address; each happening is used once."""

    send_batch_size = 1

    def __init__(self) -> None:
        self.sent: list[Invitation] = []
        self.told: dict[str, deque[Happening]] = {}

    def will(self, address: str, *happenings: Happening) -> None:
        """What happens to the next messages to this address, in order."""
        self.told.setdefault(address, deque()).extend(happenings)

    def send_surveys(self, invitations: Sequence[Invitation]) -> Iterator[WriteResult]:
        for invitation in invitations:
            waiting = self.told.get(invitation.email)
            happening = waiting.popleft() if waiting else None
            if isinstance(happening, Exception):
                raise happening
            result = happening(invitation) if callable(happening) else happening
            if result is None:
                self.sent.append(invitation)
                result = WriteResult.done(invitation.key, f"ref-{len(self.sent)}")
            yield result

    @property
    def reached(self) -> list[str]:
        """The addresses that have a message, in order."""
        return [invitation.email for invitation in self.sent]


class PacedSender(Sender):
    """Takes so many messages a second."""

    def __init__(self, per_second: float) -> None:
        super().__init__()
        self.per_second = per_second

    def rate_per_second(self) -> float | None:
        return self.per_second


class RecordingSender(Sender):
    """Keeps record by key: says `answer` of the keys it is asked about, unless told otherwise."""

    def __init__(self, answer: Sent = Sent.CANNOT_SAY) -> None:
        super().__init__()
        self.answer = answer
        self.answers: dict[str, Sent] = {}
        self.asked: list[list[str]] = []
        self.problem: Exception | None = None

    def find_sent(self, keys: Sequence[str]) -> Mapping[str, Sent]:
        self.asked.append(list(keys))
        if self.problem is not None:
            raise self.problem
        return {key: self.answers.get(key, self.answer) for key in keys}


class Composer:
    """Writes nothing but the link; `before` runs first, as if the worker were held up there."""

    def __init__(self) -> None:
        self.before: Callable[[InvitationRequest], None] = lambda request: None

    def compose(self, request: InvitationRequest) -> Invitation:
        self.before(request)
        url = f"https://nps.example/s/{request.token}"
        return Invitation(
            request.key, request.external_id, request.email, request.first_name or "", request.language or "en",
            "subject", "<p></p>", "", url, url,
        )  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """An invitation and whom it is for."""

    person_id: int
    identity_id: int
    touch_id: int
    delivery_id: int
    key: str


class Town:
    """A workspace with one campaign, and the people in it."""

    def __init__(self, store: Store, clock: FixedClock, config: Mapping[str, Any] = CONFIG) -> None:
        self.store = store
        self.clock = clock
        set_workspace(store)
        with store.write() as tx:
            add_connection(tx, "crm")
            add_connection(tx, "mail", "smtp", account="smtp:one")
            self.campaign = add_campaign(tx, config=dict(config))
            self.wave = add_wave(tx, self.campaign)

    def new_wave(self) -> None:
        """Whoever is invited from now on is so in the next wave."""
        with self.store.write() as tx:
            self.wave = add_wave(tx, self.campaign, number=self.wave + 1)

    def invite(self, address: str = ADA, *, sender: int = MAIL, **values: Any) -> Asked:
        """Somebody whose quota is taken and whose invitation is due now. `values` are of the person and record."""
        now = self.clock.now_ms()
        hashed = address_hash(PEPPER, address)
        with self.store.write() as tx:
            person_id, identity_id = add_person(tx, email=address, address_hash=hashed, **values)
            touch_id = add_touch(
                tx, person_id, TouchState.RESERVED, now, identity_id=identity_id, campaign_id=self.campaign,
                wave_id=self.wave, address_hash=hashed, company_id=values.get("company_id"),
                window_closes_at=now + WINDOW_MS,
            )  # fmt: skip
            key = invite_key(f"touch{touch_id}")
            return Asked(person_id, identity_id, touch_id, self._message(tx, key, touch_id, sender), key)

    def remind(self, asked: Asked, sender: int = MAIL) -> Asked:
        """The reminder of an invitation, due now."""
        key = reminder_key(f"touch{asked.touch_id}")
        with self.store.write() as tx:
            delivery_id = self._message(tx, key, asked.touch_id, sender)
        return Asked(asked.person_id, asked.identity_id, asked.touch_id, delivery_id, key)

    def _message(self, tx: Any, key: str, touch_id: int, sender: int) -> int:
        now = self.clock.now_ms()
        row = {"key": key, "kind": "send", "connection_id": sender, "touch_id": touch_id, "payload": {}}
        values = {**row, "due_at": now, "created_at": now, "expires_at": now + DAY_MS}
        return int(tx.execute(schema.deliveries.insert().values(values)).inserted_primary_key[0])

    # --- what is written down -------------------------------------------------------------------------------------

    def delivery(self, asked: Asked) -> Row[Any]:
        return self.row(schema.deliveries, asked.delivery_id)

    def touch(self, asked: Asked) -> Row[Any]:
        return self.row(schema.touches, asked.touch_id)

    def states(self, asked: Asked) -> tuple[str, str]:
        """(of the delivery, of the touch)."""
        return self.delivery(asked).state, self.touch(asked).state

    def row(self, table: Any, row_id: int) -> Row[Any]:
        with self.store.read() as tx:
            return tx.execute(select(table).where(table.c.id == row_id)).one()

    def rows(self, table: Any) -> list[Row[Any]]:
        with self.store.read() as tx:
            return list(tx.execute(select(table)))

    def change(self, table: Any, row_id: int, **values: Any) -> None:
        """Somebody changes a row meanwhile."""
        with self.store.write() as tx:
            tx.execute(table.update().where(table.c.id == row_id).values(**values))
