"""What the start page shows, gathered from the store, the mailboxes and the customer file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from connectors import load
from connectors.mailbox import Letter, Mailbox, OpenLetter
from core.errors import BoucleError, NotFound
from core.jobs.context import Context
from core.ports import Bookmark, Contact, capabilities
from core.storage import status
from core.storage.responses import latest_scores
from core.storage.settings import ConnectionRow, read_connections, read_workspace

MAILS = 60
ANSWERS = 10
ROWS = 12
#: What of the customer file is worth a look, the score first: a phone shows no more.
FILE_FIELDS = ("nps_score", "nps_category", "nps_comment", "last_surveyed", "nps_responded_at", "nps_may_be_asked_at")


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail of a local mailbox, and the connection it belongs to."""

    connection: str
    letter: Letter


@dataclass(frozen=True, slots=True)
class FileRow:
    """A row of a customer file; `values` by the names of FILE_FIELDS."""

    external_id: str
    name: str
    email: str
    values: dict[str, str]


@dataclass(slots=True)
class Page:
    """Everything the start page shows."""

    name: str = ""
    live: bool = True
    numbers: dict[str, Any] = field(default_factory=dict)
    campaigns: list[status.CampaignNumbers] = field(default_factory=list)
    sweep_age: float | None = None
    mails: list[Mail] = field(default_factory=list)
    more_mails: int = 0
    answers: list[Any] = field(default_factory=list)
    file_name: str = ""
    file_rows: list[FileRow] = field(default_factory=list)
    written_back: int = 0

    @property
    def asked(self) -> int:
        return sum(one.asked for one in self.campaigns)

    @property
    def answered(self) -> int:
        return sum(one.touches.get("answered", 0) for one in self.campaigns)

    @property
    def records(self) -> int:
        return sum(one["records"] for one in self.numbers["connections"])

    @property
    def broken(self) -> str:
        """The name of a connection that does not work, or nothing."""
        return next((one["name"] for one in self.numbers["connections"] if one["state"] == "broken"), "")


def gather(context: Context) -> Page:
    """The page as of now. What cannot be read is left out: its connection says why."""
    page = Page()
    with context.store.read() as tx:
        now = context.clock.now_ms()
        workspace = read_workspace(tx)
        if workspace is not None:
            page.name, page.live = workspace.name, workspace.live
        page.numbers = status.status(tx, now, context.clock.offset_seconds)
        page.campaigns = status.campaign_numbers(tx)
        page.written_back = status.written_back(tx)
        swept_at = status.last_sweep_at(tx)
        page.sweep_age = None if swept_at is None else max(0.0, (now - swept_at) / 1000)
        page.answers = latest_scores(tx, context.keyring, ANSWERS)
        rows = read_connections(tx)
    _add_mails(context, page, rows)
    _add_file(context, page, rows)
    return page


def read_mail(context: Context, connection: str, letter_id: str) -> OpenLetter:
    """One mail of a local mailbox. Raises NotFound."""
    connector = context.opener.open(connection)
    if not isinstance(connector, Mailbox):
        raise NotFound(f"{connection} is no local mailbox")
    return connector.read_message(letter_id)


def _add_mails(context: Context, page: Page, rows: list[ConnectionRow]) -> None:
    for row in rows:
        if load(row.kind) is Mailbox:
            try:
                letters = context.opener.open(row.name).list_messages(MAILS + 1)
            except BoucleError:
                continue
            page.more_mails += len(letters) > MAILS
            page.mails += [Mail(row.name, letter) for letter in letters[:MAILS]]
    page.mails.sort(key=lambda mail: mail.letter.written_at, reverse=True)


def _add_file(context: Context, page: Page, rows: list[ConnectionRow]) -> None:
    """The first source of this machine that can be read: its first contacts, those with an answer first."""
    for row in rows:
        if "ContactSource" not in capabilities(load(row.kind)):
            continue
        try:
            connector = context.opener.open(row.name)
            if connector.reaches_outside():
                continue
            page.file_name = str(row.config.get("path", row.name)).rpartition("/")[2]
            first = next(iter(connector.read_contacts(Bookmark())), None)
        except BoucleError:
            continue
        contacts = [item for item in first.items if isinstance(item, Contact)] if first else []
        rows_read = [_file_row(one) for one in contacts]
        # two sorts, each stable: answered first, then those asked last, then as in the file
        rows_read.sort(key=lambda one: one.values["last_surveyed"], reverse=True)
        page.file_rows = sorted(rows_read, key=lambda one: not one.values.get("nps_score"))[:ROWS]
        return


def _file_row(contact: Contact) -> FileRow:
    name = " ".join(part for part in (contact.first_name, contact.last_name) if part)
    surveyed = contact.last_surveyed_at or contact.nps.get("nps_last_surveyed_at", "")
    return FileRow(contact.external_id, name, contact.email or "", {**contact.nps, "last_surveyed": surveyed})
