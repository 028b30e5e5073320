"""A mailbox on this machine: writes surveys as .eml files into a Maildir instead of sending them. Needs no account.

https://cr.yp.to/proto/maildir.html. The name of a file comes from the message's key, so that a message is there once
however often it is handed over, and a message in doubt can be looked up. Any mail reader opens the folder; the start
page shows it, too.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from pydantic import field_validator, model_validator

from connectors.base import Connector, Credentials
from connectors.config import ConnectorConfig, setting
from connectors.http import HttpClient
from connectors.message import Mail, MailWriter, sendable, split_sender
from core.errors import Invalid, NotFound, Unavailable
from core.ports import Account, Invitation, Sent, WriteResult

SUFFIX = ".eml"
#: What a mail reader adds to the name of a message it has seen.
FLAGS = ":2,"
ABANDONED_SECONDS = 36 * 3600
HEADER_BYTES = 8192

_ID = re.compile(r"nps\.[A-Za-z0-9][A-Za-z0-9._-]{0,119}")


class MailboxConfig(ConnectorConfig):
    """Where the folder is, and who writes."""

    path: Path = setting(title="Folder", help="A Maildir; it is made if it is missing.", example="mailbox")
    sender: str = setting(title="Sender", help="The address surveys come from.", example="surveys@acme.example")
    sender_name: str = setting("", title="Sender's name", help="Used where a campaign names none.")
    reply_to: str = setting("", title="Replies to", help="Used where a campaign names none.")

    @model_validator(mode="before")
    @classmethod
    def _split(cls, values: Any) -> Any:
        return split_sender(dict(values)) if isinstance(values, dict) else values

    @field_validator("sender")
    @classmethod
    def _sendable(cls, sender: str) -> str:
        return sendable(sender)

    @field_validator("reply_to")
    @classmethod
    def _repliable(cls, reply_to: str) -> str:
        return sendable(reply_to) if reply_to else ""


@dataclass(frozen=True, slots=True)
class Letter:
    """A message of the folder as a list shows it. `id` is safe in a URL; `name` and `address` are the recipient's."""

    id: str
    name: str
    address: str
    subject: str
    written_at: datetime


@dataclass(frozen=True, slots=True)
class OpenLetter:
    """A message of the folder, opened. `html` is what a mail program would show: never put it into a page of ours."""

    letter: Letter
    sender: str
    headers: Sequence[tuple[str, str]]
    text: str
    html: str


class Mailbox(Connector[MailboxConfig]):
    """Keeps surveys in a folder of this machine."""

    kind = "mailbox"
    title = "Local mailbox"
    docs_url = "https://cr.yp.to/proto/maildir.html"
    proved_against = "real folders, read back by Python's mailbox module"
    config_class = MailboxConfig
    send_batch_size = 20

    def __init__(self, config: MailboxConfig, http: HttpClient, credentials: Credentials) -> None:
        super().__init__(config, http, credentials)
        self._writer = MailWriter(config.sender, config.sender_name, config.reply_to)
        self._folder = Folder(config.path)

    def check(self) -> Account:
        """Make the folder if it is missing, and see that it can be written to."""
        with self._problems():
            self._folder.prepare()
            self._folder.prove()
        path = str(self.config.path)
        return Account(f"mailbox:{path}", path, f"{self._folder.count()} messages")

    def send_surveys(self, invitations: Sequence[Invitation]) -> Iterator[WriteResult]:
        """All are on the disk before the first is reported. Raises Unavailable for those a full disk left out."""
        results: list[WriteResult] = []
        failed: OSError | None = None
        try:
            self._folder.prepare()
            for invitation in invitations:
                results.append(self._keep(invitation))
        except OSError as error:
            failed = error
        if any(result.vendor_ref for result in results):
            with self._problems():
                self._folder.sync()
        yield from results
        if failed is not None:
            raise self._unavailable(failed)

    def find_sent(self, keys: Sequence[str]) -> Mapping[str, Sent]:
        """A message is in the folder or it never was: one that was deleted meanwhile counts as never written."""
        with self._problems():
            there = self._folder.names()
        return {key: Sent.SENT if _id_of(key) in there else Sent.NOT_SENT for key in keys}

    def reaches_outside(self) -> bool:
        return False

    # --- for the start page -------------------------------------------------------------------------------------

    def list_messages(self, limit: int = 50) -> list[Letter]:
        """The newest messages, newest first. Raises Unavailable."""
        with self._problems():
            return self._folder.newest(limit)

    def read_message(self, letter_id: str) -> OpenLetter:
        """One message. Raises NotFound, Unavailable."""
        with self._problems():
            return self._folder.read(letter_id)

    # --- within -------------------------------------------------------------------------------------------------

    def _keep(self, invitation: Invitation) -> WriteResult:
        try:
            mail = self._writer.write(invitation, datetime.now(UTC))
        except Invalid as error:
            return WriteResult.rejected(invitation.key, str(error))
        return WriteResult.done(invitation.key, self._folder.keep(_id_of(invitation.key), mail))

    @contextlib.contextmanager
    def _problems(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: OSError) -> Unavailable:
        why = (error.strerror or str(error)).lower()
        return Unavailable(f"the mailbox {self.config.path} cannot be used: {why}", kind=self.kind)


class Folder:
    """A Maildir: a message is written in `tmp`, renamed into `new`, and moved to `cur` by whoever reads it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._prepared = False
        self._in_cur: dict[str, Path] = {}
        self._seen_at = -1.0

    def prepare(self) -> None:
        """Make what is missing; remove what a killed process left half-written."""
        if self._prepared and (self._path / "new").is_dir():
            return
        for part in ("tmp", "new", "cur"):
            (self._path / part).mkdir(mode=0o700, parents=True, exist_ok=True)
        long_ago = time.time() - ABANDONED_SECONDS
        for left in (self._path / "tmp").iterdir():
            with contextlib.suppress(FileNotFoundError):  # another worker has just finished it
                if left.stat().st_mtime < long_ago:
                    left.unlink()
        self._prepared = True

    def prove(self) -> None:
        """Write something and take it away again."""
        trial = self._path / "tmp" / f"trial.{_writer_name()}"
        try:
            _write(trial, b"Boucle was here.\r\n")
        finally:
            trial.unlink(missing_ok=True)

    def keep(self, letter_id: str, mail: Mail) -> str:
        """Store a message under its name, once; it lasts when `sync` has returned. Returns the file's name."""
        name = letter_id + SUFFIX
        if self._find(letter_id) is None:
            part = self._path / "tmp" / f"{name}.{_writer_name()}"
            try:
                _write(part, mail.content)
                part.rename(self._path / "new" / name)
            except OSError:
                part.unlink(missing_ok=True)
                raise
        return name

    def sync(self) -> None:
        """Put the names on the disk."""
        descriptor = os.open(self._path / "new", os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def names(self) -> set[str]:
        """The ids of all messages."""
        return {_id_of_file(entry.name) for entry in self._entries()}

    def count(self) -> int:
        return sum(1 for _ in self._entries())

    def newest(self, limit: int) -> list[Letter]:
        found: list[tuple[int, str]] = []
        for entry in self._entries():
            with contextlib.suppress(FileNotFoundError):  # a mail reader moved or deleted it this moment
                found.append((entry.stat().st_mtime_ns, entry.path))
        letters = (self._letter(Path(path)) for _, path in heapq.nlargest(limit, found))
        return [letter for letter in letters if letter is not None]

    def read(self, letter_id: str) -> OpenLetter:
        path = self._find(letter_id) if _ID.fullmatch(letter_id) else None
        if path is None:
            raise NotFound("there is no such message in the mailbox")
        message = _parse(path.read_bytes())
        return OpenLetter(
            letter=_describe(letter_id, message, path.stat().st_mtime),
            sender=str(message.get("From", "")),
            headers=[(name, str(value)) for name, value in message.items()],
            text=_body(message, "plain"),
            html=_body(message, "html"),
        )

    def _letter(self, path: Path) -> Letter | None:
        try:
            with path.open("rb") as file:
                message = _parse(file.read(HEADER_BYTES))
            return _describe(_id_of_file(path.name), message, path.stat().st_mtime)
        except FileNotFoundError:
            return None

    def _find(self, letter_id: str) -> Path | None:
        new = self._path / "new" / (letter_id + SUFFIX)
        return new if new.exists() else self._seen().get(letter_id)

    def _seen(self) -> Mapping[str, Path]:
        """What mail readers moved to `cur`, by id; listed again only when that folder has changed."""
        cur = self._path / "cur"
        try:
            changed_at = cur.stat().st_mtime
            if changed_at != self._seen_at:
                self._in_cur = {_id_of_file(path.name): path for path in cur.iterdir()}
                # a change within the same tick of the clock would not be told apart
                self._seen_at = changed_at if time.time() - changed_at > 2 else -1.0
        except FileNotFoundError:
            return {}
        return self._in_cur

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        for part in ("new", "cur"):
            try:
                with os.scandir(self._path / part) as entries:
                    yield from (entry for entry in entries if _ID.fullmatch(_id_of_file(entry.name)))
            except FileNotFoundError:
                continue


def _write(path: Path, content: bytes) -> None:
    """The content, on the disk. Links to surveys are nobody else's business: 0600."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _writer_name() -> str:
    return f"{os.getpid()}.{threading.get_ident()}.{time.monotonic_ns()}"


def _id_of(key: str) -> str:
    return f"nps.{key.replace(':', '.')}"


def _id_of_file(name: str) -> str:
    return name.partition(FLAGS)[0].removesuffix(SUFFIX)


def _parse(content: bytes) -> EmailMessage:
    return message_from_bytes(content, policy=policy.default)


def _describe(letter_id: str, message: EmailMessage, modified: float) -> Letter:
    addresses = getattr(message.get("To"), "addresses", None)
    recipient = addresses[0] if addresses else None
    return Letter(
        id=letter_id,
        name=recipient.display_name if recipient else "",
        address=recipient.addr_spec if recipient else "",
        subject=str(message.get("Subject", "")),
        written_at=datetime.fromtimestamp(modified, UTC),
    )


def _body(message: EmailMessage, subtype: str) -> str:
    part = message.get_body((subtype,))
    return str(part.get_content()) if part is not None else ""
