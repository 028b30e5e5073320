"""What every SurveySender promises: a method per promise.

How a kind takes part: `tests/connectors/harness_<kind>.py` has a function named after the capability (`survey_sender`)
that takes a folder and is a context manager giving a harness; a test class inherits from the suite and gives it as the
fixture `harness`. What a kind has no way to do raises `NotApplicable` in its harness, and the promise is skipped with
that reason.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, NoReturn, Protocol

import pytest

from connectors.base import Connector
from core.errors import Unauthorized
from core.ports import Invitation, Outcome, SurveySender, WriteResult

ADA = Invitation(
    key="7zk2m4q8x1ndv0ha:invite",
    external_id="1",
    email="ada@client.example",
    name="Ada Lovelace",
    language="en",
    subject="How likely are you to recommend Acme?",
    html='<p>Hello Ada, <a href="https://nps.acme.example/s/T0kenOfAda_0123456789">answer here</a>.</p>',
    text="Hello Ada,\n\nanswer here: https://nps.acme.example/s/T0kenOfAda_0123456789\n",
    survey_url="https://nps.acme.example/s/T0kenOfAda_0123456789",
    # longer than the 77 characters after which header folding would destroy it
    unsubscribe_url="https://nps.acme.example/u/" + "T0kenOfAda_0123456789" * 4,
    sender_name="Acme",
    reply_to="care@acme.example",
    variables={"campaign": "relationship"},
)
BO = replace(ADA, key="81c9s3b5w7ktyrgm:invite", external_id="2", email="bo@client.example", name="Bo")
CLEO = replace(ADA, key="9q5e2j6p0fzxh4nd:reminder:1", external_id="3", email="cleo@client.example", name="Cleo")


class NotApplicable(Exception):
    """This kind has no such thing; the text says why."""


@dataclass(frozen=True)
class Delivered:
    """A message as it arrived: to whom, and its bytes."""

    recipient: str
    content: bytes

    @property
    def message(self) -> EmailMessage:
        return message_from_bytes(self.content, policy=policy.default)

    @property
    def message_id(self) -> str:
        return str(self.message["Message-ID"])


class SenderHarness(Protocol):
    """A connector and the vendor it talks to."""

    connector: Connector[Any]
    #: A secret of its configuration, as plain text; empty if there is none.
    secret: str

    def delivered(self) -> Sequence[Delivered]:
        """What the vendor took, in order."""

    def with_wrong_secret(self) -> Connector[Any]:
        """The same connection with credentials that are not accepted."""

    def refuse(self, email: str) -> None:
        """The vendor refuses the next message to this address for good."""

    def put_off(self, email: str) -> None:
        """The vendor cannot take the next message to this address now."""

    def accept_and_fall_silent(self) -> None:
        """The vendor takes the next message and its answer never arrives."""

    def restart(self) -> Connector[Any]:
        """The same connection in a new process."""


def send(connector: Any, *invitations: Invitation) -> dict[str, WriteResult]:
    """Hand over and collect by key; no key has two results."""
    results = list(connector.send_surveys(invitations))
    by_key = {result.key: result for result in results}
    assert len(by_key) == len(results)
    return by_key


def applicable(fn: Any, *arguments: Any) -> Any:
    """Call the harness, or skip the promise."""
    try:
        return fn(*arguments)
    except NotApplicable as why:
        pytest.skip(str(why))


class SurveySenderConformance:
    """Inherit, and give the fixture `harness`."""

    @pytest.fixture
    def harness(self) -> NoReturn:
        raise NotImplementedError("give the harness of this kind")

    def test_is_a_survey_sender(self, harness: SenderHarness) -> None:
        connector: Any = harness.connector
        assert isinstance(connector, SurveySender)
        assert connector.send_batch_size >= 1

    def test_check_tells_the_account_and_sends_nothing(self, harness: SenderHarness) -> None:
        account = harness.connector.check()
        assert account.id.startswith(harness.connector.kind)
        assert harness.delivered() == []

    def test_every_invitation_is_delivered_once_and_reported_once(self, harness: SenderHarness) -> None:
        results = send(harness.connector, ADA, BO, CLEO)
        assert {key: result.outcome for key, result in results.items()} == {
            one.key: Outcome.DONE for one in (ADA, BO, CLEO)
        }
        assert [one.recipient for one in harness.delivered()] == [ADA.email, BO.email, CLEO.email]
        assert all(result.vendor_ref for result in results.values())

    def test_results_come_one_by_one_and_what_was_not_asked_for_has_not_left(self, harness: SenderHarness) -> None:
        connector: Any = harness.connector
        first = next(iter(connector.send_surveys([ADA, BO, CLEO])))
        assert first.key == ADA.key
        assert 1 <= len(harness.delivered()) <= connector.send_batch_size

    def test_wrong_credentials_are_unauthorized_and_nothing_leaves(self, harness: SenderHarness) -> None:
        connector = applicable(harness.with_wrong_secret)
        with pytest.raises(Unauthorized):
            connector.check()
        with pytest.raises(Unauthorized):
            send(connector, ADA)
        assert harness.delivered() == []

    def test_one_refused_leaves_the_others_sent(self, harness: SenderHarness) -> None:
        applicable(harness.refuse, BO.email)
        results = send(harness.connector, ADA, BO, CLEO)
        assert results[BO.key].outcome is Outcome.REJECTED
        assert results[BO.key].reason
        assert [one.recipient for one in harness.delivered()] == [ADA.email, CLEO.email]

    def test_an_address_nothing_can_be_sent_to_is_rejected_alone(self, harness: SenderHarness) -> None:
        impossible = [
            replace(BO, key=f"impossible{number}:invite", email=email)
            for number, email in enumerate(
                ["", "no-at.example", "zoé@client.example", "a@b.example\r\nBcc: x@y.example"]
            )
        ]
        results = send(harness.connector, ADA, *impossible, CLEO)
        assert {results[one.key].outcome for one in impossible} == {Outcome.REJECTED}
        assert [one.recipient for one in harness.delivered()] == [ADA.email, CLEO.email]

    def test_put_off_means_later_and_leaves_the_others_sent(self, harness: SenderHarness) -> None:
        applicable(harness.put_off, BO.email)
        results = send(harness.connector, ADA, BO, CLEO)
        assert results[BO.key].outcome is Outcome.RETRY
        assert [one.recipient for one in harness.delivered()] == [ADA.email, CLEO.email]
        assert send(harness.connector, BO)[BO.key].outcome is Outcome.DONE

    def test_silence_after_acceptance_is_uncertain_and_not_repeated(self, harness: SenderHarness) -> None:
        applicable(harness.accept_and_fall_silent)
        results = send(harness.connector, ADA)
        assert results[ADA.key].outcome is Outcome.UNCERTAIN
        assert send(harness.connector, BO)[BO.key].outcome is Outcome.DONE
        assert [one.recipient for one in harness.delivered()] == [ADA.email, BO.email]

    def test_the_key_alone_makes_the_message_id(self, harness: SenderHarness) -> None:
        send(harness.connector, ADA, BO)
        first = {one.recipient: one.message_id for one in harness.delivered()}
        again = harness.restart()
        send(again, replace(ADA, subject="Another subject", html="<p>x</p>"), replace(ADA, key=CLEO.key))
        ids = [one.message_id for one in harness.delivered() if one.recipient == ADA.email]
        assert set(ids) == {first[ADA.email], ids[-1]}
        assert ids[-1] != first[ADA.email] != first[BO.email]

    def test_one_click_unsubscribe_arrives_unharmed(self, harness: SenderHarness) -> None:
        send(harness.connector, ADA)
        (arrived,) = harness.delivered()
        lines = arrived.content.split(b"\r\n")
        assert b"List-Unsubscribe: <%s>" % ADA.unsubscribe_url.encode() in lines
        assert b"List-Unsubscribe-Post: List-Unsubscribe=One-Click" in lines

    def test_both_parts_arrive_as_written(self, harness: SenderHarness) -> None:
        send(harness.connector, ADA)
        (arrived,) = harness.delivered()
        text, html = arrived.message.iter_parts()
        assert (text.get_content_type(), html.get_content_type()) == ("text/plain", "text/html")
        assert text.get_content().splitlines() == ADA.text.splitlines()
        assert html.get_content().splitlines() == ADA.html.splitlines()

    @pytest.mark.parametrize(
        ("name", "subject"),
        [
            ("Zoé O’Brien-Łukasiewicz", "Recommanderiez-vous Acmé à un ami ?"),
            ("王小明 🌻", "ご意見をお聞かせください"),
            ('Ada "the Countess" \\ Lovelace, PhD <ada>', "100 % honest: =?utf-8?q?no?= trick, (really)"),
            ("", ""),
            ("A" * 300, "long " * 150),
        ],
    )
    def test_any_name_and_subject_arrive_as_written(self, harness: SenderHarness, name: str, subject: str) -> None:
        send(harness.connector, replace(ADA, name=name, subject=subject, sender_name=name))
        (arrived,) = harness.delivered()
        assert str(arrived.message["Subject"]) == subject.strip()
        for header in ("To", "From"):
            (mailbox,) = arrived.message[header].addresses
            assert mailbox.display_name == name
        assert arrived.message["To"].addresses[0].addr_spec == ADA.email

    def test_a_name_cannot_add_a_header(self, harness: SenderHarness) -> None:
        trap = "Ada\r\nBcc: eve@evil.example\r\n\r\nhello\x00"
        send(harness.connector, replace(ADA, name=trap, subject=trap, sender_name=trap))
        (arrived,) = harness.delivered()
        assert "Bcc" not in arrived.message
        assert str(arrived.message["Subject"]) == "Ada Bcc: eve@evil.example hello"
        assert arrived.message["Message-ID"]

    def test_a_domain_outside_ascii_is_written_to_in_its_ascii_form(self, harness: SenderHarness) -> None:
        send(harness.connector, replace(ADA, email="ada@bücher.example"))
        assert [one.recipient for one in harness.delivered()] == ["ada@xn--bcher-kva.example"]

    def test_no_secret_in_a_log_or_a_repr(self, harness: SenderHarness, caplog: pytest.LogCaptureFixture) -> None:
        if not harness.secret:
            pytest.skip("this kind has no secret")
        caplog.set_level(logging.DEBUG)
        send(harness.connector, ADA)
        connector = applicable(harness.with_wrong_secret)
        with pytest.raises(Unauthorized) as refused:
            connector.check()
        said = [
            caplog.text,
            repr(harness.connector),
            repr(harness.connector.config),
            str(refused.value),
            repr(refused.value),
            refused.value.body,
            repr(refused.value.__context__),
        ]
        assert not [text for text in said if harness.secret in text or connector_secret(connector) in text]


def connector_secret(connector: Connector[Any]) -> str:
    """The plain text of the password in a connector's configuration."""
    return str(connector.config.password.get_secret_value())
