"""SMTP in the conformance suites: the connector, with STARTTLS and a login, against the simulator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from connectors import build
from connectors.base import Connector
from tests.conformance.survey_sender import Delivered
from tests.simulators.smtp import Authority, SmtpSimulator, make_authority

SECRET = "correct horse battery staple"


class SmtpHarness:
    """See `tests.conformance.survey_sender.SenderHarness`."""

    secret = SECRET

    def __init__(self, sim: SmtpSimulator, authority: Authority) -> None:
        self.sim = sim
        self.values: dict[str, Any] = {
            "host": "localhost",
            "port": sim.port,
            "security": "starttls",
            "username": "acme",
            "password": SECRET,
            "sender": "surveys@acme.example",
            "ca_file": str(authority.ca_file),
            "timeout_seconds": 5,
        }
        self._made: list[Connector[Any]] = []
        self.connector = self.make()

    def make(self, **changes: Any) -> Connector[Any]:
        """A connector of these settings; closed with the harness."""
        connector = build("smtp", {**self.values, **changes})
        self._made.append(connector)
        return connector

    def delivered(self) -> Sequence[Delivered]:
        return [Delivered(one.recipient, one.content) for one in self.sim.accepted]

    def with_wrong_secret(self) -> Connector[Any]:
        return self.make(password="no horse at all")

    def refuse(self, email: str) -> None:
        self.sim.refuse("rcpt", f"550 5.1.1 <{email}> unknown", recipient=email)

    def put_off(self, email: str) -> None:
        self.sim.refuse("rcpt", f"450 4.2.1 <{email}> busy", recipient=email)

    def accept_and_fall_silent(self) -> None:
        self.sim.drop("accepted")

    def restart(self) -> Connector[Any]:
        return self.make()

    def close(self) -> None:
        for connector in self._made:
            connector.close()


@contextmanager
def survey_sender(folder: Path) -> Iterator[SmtpHarness]:
    authority = make_authority(folder)
    with SmtpSimulator(users={"acme": SECRET}, tls=authority.context) as sim:
        harness = SmtpHarness(sim, authority)
        try:
            yield harness
        finally:
            harness.close()
