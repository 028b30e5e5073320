"""What the core asks of the world outside: one small protocol per capability, and the dataclasses they exchange.

A connector implements a protocol by having its method; `capabilities()` computes the list, so none can disagree.
Every effect carries its idempotency key, which belongs to the effect and never to the attempt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Account:
    """Who a connection speaks for. `id` names the rate bucket that all its workers share; `note` is shown to admins."""

    id: str
    name: str = ""
    note: str = ""


# --- reading contacts ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bookmark:
    """How far a read came: `watermark` the newest change wholly stored, `cursor` the source's own page token.

    An empty bookmark means from the beginning. Sources may put anything into the two texts; the core only stores them.
    """

    watermark: str = ""
    cursor: str = ""


@dataclass(slots=True)
class Contact:
    """One record as its source shows it. Texts are stripped; missing values are None (or empty in `attributes`).

    `last_surveyed` is the text the source shows (a date or a moment); `hold_until` likewise. `nps` are the values of
    our own nps_* fields as the source shows them now, by field name. `line` is the line of a file, 0 elsewhere.
    Not frozen: a million of them are made in a sync, and frozen dataclasses cost three times as much to make.
    """

    external_id: str
    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    company: str | None = None
    language: str | None = None
    country: str | None = None
    time_zone: str | None = None
    phone: str | None = None
    owner: str | None = None
    customer_since: date | None = None
    opted_out: bool = False
    last_surveyed_at: str | None = None
    hold_until: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    nps: dict[str, str] = field(default_factory=dict)
    company_external_id: str | None = None
    digest: bytes = b""
    line: int = 0


@dataclass(frozen=True, slots=True)
class ContactDeleted:
    """The source says the record is gone."""

    external_id: str


@dataclass(frozen=True, slots=True)
class ContactMerged:
    """The source says `losers` are now `winner`."""

    winner: str
    losers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Company:
    """A company as its source shows it."""

    external_id: str
    name: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


ContactRecord = Contact | ContactDeleted | ContactMerged | Company


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that cannot be used: where it stands and why, in words for its owner. It stops nobody else.

    `external_id`, where it can be told: the record is there, so what is known of it stays and does not count as gone.
    """

    where: str
    reason: str
    external_id: str = ""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Items, and the bookmark to resume after them. A job stores both in one transaction.

    `last`: nothing more for now. `full`: this read began at the beginning and saw every record, so that records not
    seen may count as gone; set on the last page of such a read. `bad` are records left out, each with its reason.
    """

    items: Sequence[T]
    bookmark: Bookmark
    last: bool = False
    full: bool = False
    bad: Sequence[BadRecord] = ()


@runtime_checkable
class ContactSource(Protocol):
    """Reads contacts, page by page, oldest change first."""

    def read_contacts(self, start: Bookmark) -> Iterator[Page[ContactRecord]]:
        """Pages after `start`. Raises Unauthorized, RateLimited, Unavailable, Misconfigured."""


@runtime_checkable
class ContactLookup(Protocol):
    """Reads named contacts: webhooks often carry ids only."""

    def read_by_ids(self, ids: Sequence[str]) -> Iterator[ContactRecord]:
        """The records of these external ids; one that is gone comes as ContactDeleted."""


# --- outcomes -----------------------------------------------------------------------------------------------------


class Outcome(StrEnum):
    """What became of one item handed to a vendor."""

    DONE = "done"
    REJECTED = "rejected"
    RETRY = "retry"
    UNCERTAIN = "uncertain"


@dataclass(frozen=True, slots=True)
class WriteResult:
    """The outcome of one item, by its idempotency key.

    `vendor_ref` is the vendor's own name for what was done. For `rejected`: `reason` in the vendor's words, `suppress`
    if the address itself is dead. For `retry`: `retry_after` seconds if the vendor said. An item without a result is
    uncertain if its request may have left, else retry.
    """

    key: str
    outcome: Outcome
    vendor_ref: str = ""
    reason: str = ""
    suppress: bool = False
    retry_after: float | None = None

    @classmethod
    def done(cls, key: str, vendor_ref: str = "") -> WriteResult:
        return cls(key, Outcome.DONE, vendor_ref)

    @classmethod
    def rejected(cls, key: str, reason: str, *, suppress: bool = False) -> WriteResult:
        return cls(key, Outcome.REJECTED, reason=reason, suppress=suppress)

    @classmethod
    def retry(cls, key: str, reason: str, retry_after: float | None = None) -> WriteResult:
        return cls(key, Outcome.RETRY, reason=reason, retry_after=retry_after)

    @classmethod
    def uncertain(cls, key: str, reason: str) -> WriteResult:
        return cls(key, Outcome.UNCERTAIN, reason=reason)


# --- sending surveys ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Invitation:
    """One survey message, composed, to one person. `key` is `<touch public id>:invite`, `:reminder:1` or `:recheck`.

    `html` and `text` are complete; a sender that renders at the vendor uses `variables` (survey_url, brand, ...).
    `unsubscribe_url` answers RFC 8058 posts. `sender_name` and `reply_to` may be empty: the sender's own apply.
    """

    key: str
    external_id: str
    email: str
    name: str
    language: str
    subject: str
    html: str
    text: str
    survey_url: str
    unsubscribe_url: str
    sender_name: str = ""
    reply_to: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class SurveySender(Protocol):
    """Sends survey invitations. `send_batch_size` is how many may be in doubt at once."""

    send_batch_size: int

    def send_surveys(self, invitations: Sequence[Invitation]) -> Iterator[WriteResult]:
        """One result per invitation, as they come. Raises Unauthorized or Unavailable only when nothing has left."""


class Sent(StrEnum):
    """What a vendor knows of one of our keys."""

    SENT = "sent"
    NOT_SENT = "not_sent"
    CANNOT_SAY = "cannot_say"


@runtime_checkable
class SendLookup(Protocol):
    """Asks the vendor what became of our keys. NOT_SENT only after the vendor's own settling time."""

    def find_sent(self, keys: Sequence[str]) -> Mapping[str, Sent]:
        """An answer per key."""


# --- writing back -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScoreUpdate:
    """What one record must show, by NPS field name. Only fields present are written; None clears one.

    Dates are aware datetimes in the workspace's zone: a connector that keeps dates alone writes the day they have
    there, one whose account has a zone of its own converts them first. `expected` are the values we last saw or wrote
    there: a connector that can compare keeps a newer edit instead of overwriting it.
    """

    key: str
    external_id: str
    fields: Mapping[str, str | int | datetime | None]
    expected: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class ContactSink(Protocol):
    """Writes NPS fields to records that were read from this connection; never creates a contact."""

    write_batch_size: int

    def write_scores(self, updates: Sequence[ScoreUpdate]) -> Iterator[WriteResult]:
        """One result per update. One bad row stops nobody."""


@dataclass(frozen=True, slots=True)
class FieldState:
    """A field of the source: its name there, what it is mapped to (ours) and whether that was guessed."""

    name: str
    mapped_to: str = ""
    guessed: bool = False
    exists: bool = True
    type: str = "text"


@runtime_checkable
class FieldAdmin(Protocol):
    """Shows and creates fields."""

    def read_fields(self) -> Sequence[FieldState]:
        """Every field of the source, with its mapping, and every NPS field, existing or not."""

    def create_fields(self, names: Sequence[str]) -> Sequence[FieldState]:
        """Create the missing ones of `names`; returns their state after."""


@dataclass(frozen=True, slots=True)
class ConsentChange:
    """Somebody opted out (or, by an admin's act, in again)."""

    key: str
    external_id: str
    email: str
    opted_out: bool
    at: datetime


@runtime_checkable
class ConsentSink(Protocol):
    """Tells the vendor who opted out."""

    def write_consent(self, changes: Sequence[ConsentChange]) -> Iterator[WriteResult]:
        """One result per change."""


@dataclass(frozen=True, slots=True)
class SegmentChange:
    """One record enters (`member`) or leaves a segment."""

    key: str
    external_id: str
    email: str
    member: bool


@runtime_checkable
class SegmentSink(Protocol):
    """Keeps a list, tag or segment at the vendor in step."""

    def sync_segment(self, segment: str, changes: Sequence[SegmentChange]) -> Iterator[WriteResult]:
        """One result per change."""


@dataclass(frozen=True, slots=True)
class Task:
    """A call to make, with its due moment."""

    key: str
    external_id: str
    title: str
    body: str
    due_at: datetime
    owner: str = ""


@dataclass(frozen=True, slots=True)
class TaskState:
    """A task as the vendor shows it."""

    key: str
    vendor_ref: str
    state: str
    changed_at: datetime


@runtime_checkable
class TaskSink(Protocol):
    """Opens follow-up tasks and reads their state back."""

    def open_task(self, task: Task) -> WriteResult:
        """Open it once, by its key."""

    def read_tasks(self, start: Bookmark) -> Iterator[Page[TaskState]]:
        """Changes since `start`."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A message to colleagues."""

    key: str
    title: str
    body: str
    url: str = ""


@runtime_checkable
class Notifier(Protocol):
    """Tells colleagues."""

    def notify(self, notice: Notice) -> WriteResult:
        """Post it once, by its key."""

    def update(self, ref: str, notice: Notice) -> WriteResult:
        """Change what was posted under `ref`."""


@dataclass(frozen=True, slots=True)
class SourceResponse:
    """A response read from a survey tool of the customer's."""

    external_id: str
    email: str
    score: int
    comment: str
    answered_at: datetime


@runtime_checkable
class ResponseSource(Protocol):
    """Reads responses given elsewhere."""

    def read_responses(self, start: Bookmark) -> Iterator[Page[SourceResponse]]:
        """Pages after `start`."""


@runtime_checkable
class EventSource(Protocol):
    """Polls what other vendors push: bounces, opt-outs, delivery reports."""

    def read_events(self, start: Bookmark) -> Iterator[Page[Any]]:
        """Pages of `core.events.Event` after `start`."""


PROTOCOLS: Mapping[str, type] = {
    "ContactSource": ContactSource,
    "ContactLookup": ContactLookup,
    "ResponseSource": ResponseSource,
    "EventSource": EventSource,
    "ContactSink": ContactSink,
    "FieldAdmin": FieldAdmin,
    "ConsentSink": ConsentSink,
    "SegmentSink": SegmentSink,
    "SurveySender": SurveySender,
    "SendLookup": SendLookup,
    "TaskSink": TaskSink,
    "Notifier": Notifier,
}

_METHODS: Mapping[str, tuple[str, ...]] = {
    "ContactSource": ("read_contacts",),
    "ContactLookup": ("read_by_ids",),
    "ResponseSource": ("read_responses",),
    "EventSource": ("read_events",),
    "ContactSink": ("write_scores",),
    "FieldAdmin": ("read_fields", "create_fields"),
    "ConsentSink": ("write_consent",),
    "SegmentSink": ("sync_segment",),
    "SurveySender": ("send_surveys",),
    "SendLookup": ("find_sent",),
    "TaskSink": ("open_task", "read_tasks"),
    "Notifier": ("notify", "update"),
}


def capabilities(connector_class: type) -> tuple[str, ...]:
    """The protocols a connector class implements, computed from the methods it has."""
    return tuple(
        name for name, methods in _METHODS.items() if all(callable(getattr(connector_class, m, None)) for m in methods)
    )


# --- what the jobs are given --------------------------------------------------------------------------------------


class Checkable(Protocol):
    """Any connector: one cheap signed-in call."""

    def check(self) -> Account:
        """Who this connection speaks for. Raises Unauthorized, Misconfigured, Unavailable."""


class ConnectionOpener(Protocol):
    """Builds the connector of a configured connection; the wiring implements it over the connector registry."""

    def open(self, connection_name: str) -> Any:
        """The connector, ready to use and safe for one thread. Raises Misconfigured."""

    def close(self) -> None:
        """Give back what is open (sockets, files)."""


@dataclass(frozen=True, slots=True)
class InvitationRequest:
    """What the composer needs to write one survey message."""

    key: str
    kind: str  # "invite" | "reminder"
    token: str
    campaign: str
    survey: Mapping[str, Any]
    languages: Sequence[str]
    external_id: str
    email: str
    first_name: str | None
    last_name: str | None
    company: str | None
    language: str | None
    shared_mailbox: bool = False


class Composer(Protocol):
    """Writes survey messages in the recipient's language; the web part implements it beside the survey page."""

    def compose(self, request: InvitationRequest) -> Invitation:
        """The message, complete. Pure: no I/O."""


class Engine(Protocol):
    """What wakes the jobs. Rows are the truth: a lost or doubled wake-up is harmless."""

    def wake(self, job: str, argument: str = "") -> None:
        """Something is due for `job`: run it soon, once however often it is called meanwhile."""

    def cron(self, job: str, every_seconds: float) -> None:
        """Run `job` at least this often."""

    def run(self) -> None:
        """Work until stopped."""

    def inspect(self) -> Mapping[str, Any]:
        """What runs, what waits, when each job last ended."""
