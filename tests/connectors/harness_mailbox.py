"""The local mailbox in the conformance suites: a real folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from connectors import build
from connectors.base import Connector
from tests.conformance.survey_sender import Delivered, NotApplicable


class MailboxHarness:
    """See `tests.conformance.survey_sender.SenderHarness`."""

    secret = ""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "mailbox"
        self.connector = self.restart()

    def restart(self) -> Connector[Any]:
        return build("mailbox", {"path": str(self.path), "sender": "surveys@acme.example"})

    def delivered(self) -> Sequence[Delivered]:
        new = self.path / "new"
        files = sorted(new.iterdir(), key=lambda file: file.stat().st_mtime_ns) if new.exists() else []
        found = [Delivered("", file.read_bytes()) for file in files]
        return [Delivered(one.message["To"].addresses[0].addr_spec, one.content) for one in found]

    def with_wrong_secret(self) -> Connector[Any]:
        raise NotApplicable("a folder asks nobody who they are")

    def refuse(self, email: str) -> None:
        raise NotApplicable("a folder refuses nobody")

    def put_off(self, email: str) -> None:
        raise NotApplicable("a folder takes a message or is full for all")

    def accept_and_fall_silent(self) -> None:
        raise NotApplicable("a folder answers at once")


@contextmanager
def survey_sender(folder: Path) -> Iterator[MailboxHarness]:
    yield MailboxHarness(folder)


send_lookup = survey_sender
