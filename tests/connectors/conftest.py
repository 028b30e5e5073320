"""Servers on loopback for the connectors under test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.connectors import harness_mailbox, harness_smtp
from tests.connectors.harness_mailbox import MailboxHarness
from tests.connectors.harness_smtp import SmtpHarness
from tests.simulators.base import HttpSimulator
from tests.simulators.smtp import SmtpSimulator


@pytest.fixture
def smtp(tmp_path: Path) -> Iterator[SmtpHarness]:
    """The SMTP connector, with STARTTLS and a login, and its server."""
    with harness_smtp.survey_sender(tmp_path) as harness:
        yield harness


@pytest.fixture
def sink() -> Iterator[SmtpSimulator]:
    """A mail server in clear, without users."""
    with SmtpSimulator() as simulator:
        yield simulator


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[MailboxHarness]:
    """The mailbox connector and its folder."""
    with harness_mailbox.survey_sender(tmp_path) as harness:
        yield harness


@pytest.fixture
def vendor() -> Iterator[HttpSimulator]:
    """An HTTP server that answers everything with 200 until it is told to fail."""
    with HttpSimulator() as simulator:
        yield simulator
