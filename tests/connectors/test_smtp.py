"""SMTP's own ways: TLS and signing in, which answers mean what, and what happens when the connection goes."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from connectors import build
from connectors.smtp import PUT_OFF_IN_A_ROW, our_name
from connectors.smtp.session import PAUSE_SECONDS, Reply
from core.errors import ConnectorError, Misconfigured, RateLimited, Unauthorized, Unavailable
from core.ports import Invitation, Outcome, WriteResult, capabilities
from tests.conformance.survey_sender import ADA, BO, CLEO, send
from tests.connectors.harness_smtp import SECRET, SmtpHarness
from tests.simulators.smtp import SmtpSimulator, make_authority, read_record


@pytest.fixture
def plain(sink: SmtpSimulator) -> Iterator[Any]:
    """A connector to a relay in clear, without a login."""
    connector = build("smtp", in_clear(sink))
    yield connector
    connector.close()


def in_clear(sink: SmtpSimulator, **changes: Any) -> dict[str, Any]:
    values = {"host": "127.0.0.1", "port": sink.port, "security": "none", "sender": "surveys@acme.example"}
    return {**values, "timeout_seconds": 5, **changes}


def numbered(count: int) -> list[Invitation]:
    return [replace(ADA, key=f"touch{number}:invite", email=f"p{number}@client.example") for number in range(count)]


def send_one(connector: Any, invitation: Invitation = ADA) -> WriteResult:
    (result,) = connector.send_surveys([invitation])
    assert isinstance(result, WriteResult)
    return result


def test_sends_surveys_and_claims_nothing_else(plain: Any) -> None:
    assert capabilities(type(plain)) == ("SurveySender",)
    assert plain.send_batch_size == 1


# --- TLS and signing in -------------------------------------------------------------------------------------------


def test_starttls_then_login_then_the_message(smtp: SmtpHarness) -> None:
    account = smtp.connector.check()
    assert account.id == f"smtp:localhost:{smtp.sim.port}:acme"
    assert account.name == "sim.example"
    assert account.note == "TLSv1.3, signed in as acme, messages of up to 35,000,000 bytes"
    verbs = [command.split()[0] for command in smtp.sim.commands]
    assert verbs == ["EHLO", "STARTTLS", "EHLO", "AUTH", "MAIL", "RSET", "QUIT"]


def test_implicit_tls(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    with SmtpSimulator(users={"acme": SECRET}, tls=authority.context, implicit_tls=True) as sim:
        harness = SmtpHarness(sim, authority)
        connector = harness.make(security="tls")
        assert send_one(connector).outcome is Outcome.DONE
        assert "STARTTLS" not in sim.commands
        harness.close()


def test_without_the_offer_of_starttls_nothing_is_sent_in_clear(smtp: SmtpHarness) -> None:
    smtp.sim.offer_starttls = False
    with pytest.raises(Misconfigured, match="does not offer STARTTLS") as refused:
        send(smtp.connector, ADA)
    assert refused.value.field == "security"
    assert {command.split()[0] for command in smtp.sim.commands} <= {"EHLO", "QUIT"}


def test_a_certificate_nobody_vouches_for_is_refused(smtp: SmtpHarness) -> None:
    with pytest.raises(Misconfigured, match=r"certificate .* is not accepted: self-signed|unable to get local issuer"):
        send(smtp.make(ca_file=None), ADA)
    assert "AUTH ***" not in smtp.sim.commands


def test_a_certificate_of_another_host_is_refused(tmp_path: Path) -> None:
    authority = make_authority(tmp_path, host="other.example")
    with SmtpSimulator(users={"acme": SECRET}, tls=authority.context) as sim:
        harness = SmtpHarness(sim, authority)
        with pytest.raises(Misconfigured, match="Hostname mismatch"):
            harness.connector.check()
        harness.close()


def test_a_password_is_never_sent_in_clear_beyond_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with SmtpSimulator(users={"acme": SECRET}) as sim:
        sim.auth_in_clear = True
        values = in_clear(sim, username="acme", password=SECRET)
        local = build("smtp", values)
        assert "signed in as acme" in local.check().note
        monkeypatch.setattr("connectors.smtp.session.is_loopback", lambda host: False)
        with pytest.raises(Misconfigured, match=r"not sent to .* in clear"):
            build("smtp", values).check()
        assert sim.commands.count("AUTH ***") == 1


@pytest.mark.parametrize("mechanisms", ["PLAIN", "LOGIN"])
def test_signs_in_by_what_the_server_offers(smtp: SmtpHarness, mechanisms: str) -> None:
    smtp.sim.mechanisms = mechanisms
    assert send_one(smtp.connector).outcome is Outcome.DONE


def test_a_password_outside_ascii_works(smtp: SmtpHarness) -> None:
    smtp.sim.users["acme"] = "pässwörd €"
    assert send_one(smtp.make(password="pässwörd €")).outcome is Outcome.DONE


def test_a_server_that_offers_no_login_says_so(smtp: SmtpHarness) -> None:
    smtp.sim.users.clear()
    with pytest.raises(Misconfigured, match="offers no way to sign in"):
        smtp.connector.check()


def test_a_login_refused_for_now_is_not_a_wrong_password(smtp: SmtpHarness) -> None:
    smtp.sim.refuse("auth", "454 4.3.0 directory is down")
    with pytest.raises(Unavailable, match="directory is down"):
        smtp.connector.check()


def test_sending_without_a_login_the_server_wants_is_unauthorized(tmp_path: Path) -> None:
    with SmtpSimulator(users={"acme": SECRET}) as sim:
        connector = build("smtp", in_clear(sim))
        with pytest.raises(Unauthorized, match="530"):
            send(connector, ADA)
        assert sim.accepted == []
        assert sim.commands[-1] == "QUIT"


def test_tls_to_a_port_that_speaks_clear_is_explained(sink: SmtpSimulator) -> None:
    with pytest.raises(Misconfigured, match="is security or port wrong"):
        build("smtp", in_clear(sink, security="tls")).check()


# --- what an answer means -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"])
def test_a_dead_address_is_suppressed(plain: Any, sink: SmtpSimulator, code: str) -> None:
    sink.refuse("rcpt", f"550 {code} gone")
    assert send_one(plain) == WriteResult.rejected(ADA.key, f"550 {code} gone", suppress=True)


@pytest.mark.parametrize(
    "reply", ["550 5.7.1 policy", "552 5.2.2 mailbox full", "550 no such user", "553 5.1.8 x", "550 5.1.11 x", "554 no"]
)
@pytest.mark.parametrize("stage", ["rcpt", "content"])
def test_any_other_refusal_says_nothing_about_the_person(
    plain: Any, sink: SmtpSimulator, reply: str, stage: str
) -> None:
    sink.refuse(stage, reply)
    assert send_one(plain) == WriteResult.rejected(ADA.key, reply, suppress=False)
    assert send_one(plain, BO).outcome is Outcome.DONE
    assert sink.connections == 1


def test_a_dead_address_found_after_the_content_is_suppressed_too(plain: Any, sink: SmtpSimulator) -> None:
    sink.refuse("content", "550 5.1.1 gone")
    assert send_one(plain).suppress


@pytest.mark.parametrize("stage", ["rcpt", "data", "content"])
@pytest.mark.parametrize(
    ("reply", "retry_after"),
    [
        ("451 4.3.0 try again", None),
        ("452 4.2.2 full", None),
        ("450 4.7.1 greylisted", PAUSE_SECONDS),
        ("421 4.7.28 too fast", PAUSE_SECONDS),
    ],
)
def test_4xx_means_later_and_the_next_message_goes_on(
    plain: Any, sink: SmtpSimulator, stage: str, reply: str, retry_after: float | None
) -> None:
    sink.refuse(stage, reply, recipient=ADA.email)
    assert send_one(plain) == WriteResult.retry(ADA.key, reply, retry_after)
    assert send_one(plain, BO).outcome is Outcome.DONE
    assert [one.recipient for one in sink.accepted] == [BO.email]


def test_a_refused_sender_is_no_recipients_fault(plain: Any, sink: SmtpSimulator) -> None:
    sink.refuse("mail", "550 5.1.8 not your domain", times=2)
    with pytest.raises(Misconfigured, match=r"refuses the sender .*not your domain") as refused:
        send(plain, ADA)
    assert refused.value.field == "sender"
    with pytest.raises(Misconfigured, match="refuses the sender"):
        plain.check()
    assert send_one(plain).outcome is Outcome.DONE
    assert sink.connections == 3  # none is kept that the server was unhappy with


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ("451 4.3.0 queue is full", Unavailable),
        ("450 4.7.0 slow down", RateLimited),
        ("535 5.7.8 session expired", Unauthorized),
    ],
)
def test_what_is_said_to_mail_from_is_about_the_account(
    plain: Any, sink: SmtpSimulator, reply: str, error: type[ConnectorError]
) -> None:
    sink.refuse("mail", reply)
    with pytest.raises(error):
        send(plain, ADA)
    assert sink.accepted == []


@pytest.mark.parametrize(("reply", "error"), [("421 4.7.0 come back", RateLimited), ("554 no service", Unavailable)])
def test_a_server_that_greets_with_a_refusal(
    plain: Any, sink: SmtpSimulator, reply: str, error: type[ConnectorError]
) -> None:
    sink.refuse("connect", reply)
    with pytest.raises(error, match=reply.partition(" ")[2]) as refused:
        send(plain, ADA)
    if isinstance(refused.value, RateLimited):
        assert refused.value.retry_after == PAUSE_SECONDS


def test_too_large_for_the_server_is_rejected_alone(plain: Any, sink: SmtpSimulator) -> None:
    sink.size = 5_000
    large = replace(ADA, html="x" * 6_000)
    assert send_one(plain, large).outcome is Outcome.REJECTED
    assert send_one(plain, BO).outcome is Outcome.DONE


def test_many_put_off_in_a_row_pause_the_account(plain: Any, sink: SmtpSimulator) -> None:
    sink.refuse("rcpt", "451 4.7.1 too many messages", times=PUT_OFF_IN_A_ROW)
    results = []
    with pytest.raises(RateLimited, match=f"put off {PUT_OFF_IN_A_ROW} messages in a row"):
        results.extend(plain.send_surveys(numbered(PUT_OFF_IN_A_ROW)[:-1]))
        results.extend(plain.send_surveys([ADA]))
    assert {result.outcome for result in results} == {Outcome.RETRY}
    assert len(results) == PUT_OFF_IN_A_ROW - 1
    assert send_one(plain, BO).outcome is Outcome.DONE


def test_busy_mailboxes_never_pause_the_account(plain: Any, sink: SmtpSimulator) -> None:
    sink.refuse("rcpt", "450 4.2.1 busy", times=3 * PUT_OFF_IN_A_ROW)
    results = list(plain.send_surveys(numbered(3 * PUT_OFF_IN_A_ROW)))
    assert {result.outcome for result in results} == {Outcome.RETRY}


def test_the_servers_name_for_the_message_is_kept(plain: Any, sink: SmtpSimulator) -> None:
    assert send_one(plain).vendor_ref == "2.0.0 ok queued as S1"


def test_addresses_do_not_stand_in_reasons(plain: Any, sink: SmtpSimulator) -> None:
    sink.refuse("rcpt", "550 5.1.1 <ada@client.example> unknown")
    assert send_one(plain).reason == "550 5.1.1 <***@client.example> unknown"


# --- the connection -----------------------------------------------------------------------------------------------


def test_one_connection_is_kept_from_call_to_call(plain: Any, sink: SmtpSimulator) -> None:
    for invitation in numbered(5):
        send_one(plain, invitation)
    assert (sink.connections, len(sink.accepted)) == (1, 5)


def test_a_new_connection_after_so_many_messages(sink: SmtpSimulator) -> None:
    connector = build("smtp", in_clear(sink, per_connection=2))
    send(connector, *numbered(5))
    assert [one.connection for one in sink.accepted] == [1, 1, 2, 2, 3]
    connector.close()


def test_a_servers_own_limit_per_connection_costs_no_message(plain: Any, sink: SmtpSimulator) -> None:
    sink.per_connection = 3
    results = send(plain, *numbered(10))
    assert {result.outcome for result in results.values()} == {Outcome.DONE}
    assert (sink.connections, len(sink.accepted)) == (4, 10)


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data"])
def test_a_kept_connection_that_dies_before_the_content_is_replaced_at_once(
    plain: Any, sink: SmtpSimulator, stage: str
) -> None:
    send_one(plain)
    sink.drop(stage)
    assert send_one(plain, BO).outcome is Outcome.DONE
    assert (sink.connections, len(sink.accepted)) == (2, 2)


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data"])
def test_a_new_connection_that_dies_before_the_content_means_later(plain: Any, sink: SmtpSimulator, stage: str) -> None:
    sink.drop(stage)
    assert send_one(plain).outcome is Outcome.RETRY
    assert sink.connections == 1
    assert send_one(plain).outcome is Outcome.DONE


@pytest.mark.parametrize(("stage", "taken"), [("half", 0), ("content", 0), ("accepted", 1)])
def test_a_connection_that_dies_after_the_content_began_leaves_a_doubt(
    plain: Any, sink: SmtpSimulator, stage: str, taken: int
) -> None:
    send_one(plain, BO)
    sink.drop(stage)
    large = replace(ADA, html="<p>x</p>\n" * 100_000)  # more than the socket's buffers hold
    assert send_one(plain, large).outcome is Outcome.UNCERTAIN
    assert send_one(plain, CLEO).outcome is Outcome.DONE
    assert len(sink.accepted) == 2 + taken


def test_a_server_that_dies_for_every_message_is_unavailable(plain: Any, sink: SmtpSimulator) -> None:
    sink.drop("rcpt", times=PUT_OFF_IN_A_ROW)
    with pytest.raises(Unavailable, match="in a row"):
        list(plain.send_surveys(numbered(PUT_OFF_IN_A_ROW)))


def test_an_answer_that_comes_too_late_leaves_a_doubt(sink: SmtpSimulator) -> None:
    connector: Any = build("smtp", in_clear(sink, timeout_seconds=0.3))
    sink.delay("accepted", 5)
    started = time.monotonic()
    assert send_one(connector).outcome is Outcome.UNCERTAIN
    assert time.monotonic() - started < 2
    assert len(sink.accepted) == 1


def test_a_server_that_does_not_answer_rcpt_in_time_means_later(sink: SmtpSimulator) -> None:
    connector: Any = build("smtp", in_clear(sink, timeout_seconds=0.3))
    sink.delay("rcpt", 5)
    assert send_one(connector).outcome is Outcome.RETRY


def test_silence_holds_a_message_no_longer_than_its_deadline(
    plain: Any, sink: SmtpSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.smtp.DEADLINE_SECONDS", 0.5)
    sink.delay("rcpt", 4)
    started = time.monotonic()
    assert send_one(plain).outcome is Outcome.RETRY
    assert time.monotonic() - started < 2


def test_a_byte_now_and_then_does_not_hold_a_message_for_ever(
    plain: Any, sink: SmtpSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.smtp.DEADLINE_SECONDS", 1.0)
    send_one(plain, BO)
    sink.slow_bytes = 0.2
    started = time.monotonic()
    with pytest.raises(Unavailable, match=r"no answer in time|closed the connection"):
        send_one(plain)
    assert time.monotonic() - started < 3


def test_a_connection_unused_for_a_while_is_asked_first_and_later_replaced(
    plain: Any, sink: SmtpSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_one(plain)
    monkeypatch.setattr("connectors.smtp.ASK_SECONDS", 0.0)
    send_one(plain, BO)
    assert "NOOP" in sink.commands
    assert sink.connections == 1
    monkeypatch.setattr("connectors.smtp.IDLE_SECONDS", 0.0)
    send_one(plain, CLEO)
    assert sink.connections == 2


def test_nobody_listening_is_unavailable() -> None:
    with SmtpSimulator() as gone:
        values = in_clear(gone)
    with pytest.raises(Unavailable, match="refused"):
        build("smtp", values).check()


def test_a_closed_connector_may_be_used_again(plain: Any, sink: SmtpSimulator) -> None:
    send_one(plain)
    plain.close()
    assert send_one(plain, BO).outcome is Outcome.DONE
    assert sink.connections == 2


def test_the_server_is_told_a_name_that_is_not_localhost(
    plain: Any, sink: SmtpSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "localhost.localdomain")
    assert our_name("surveys@acme.example") == "acme.example"
    monkeypatch.setattr("socket.gethostname", lambda: "worker-7")
    assert our_name("surveys@acme.example") == "acme.example"
    monkeypatch.setattr("socket.gethostname", lambda: "worker-7.acme.example")
    assert our_name("surveys@acme.example") == "worker-7.acme.example"
    plain.check()
    assert sink.commands[0] == "EHLO worker-7.acme.example"


# --- content on the wire ------------------------------------------------------------------------------------------


def test_lines_of_dots_arrive_as_written(plain: Any, sink: SmtpSimulator) -> None:
    text = "first\n.\n..\n.hidden\nlast\n"
    send_one(plain, replace(ADA, text=text))
    part = sink.accepted[0].message.get_body(("plain",))
    assert part is not None
    assert part.get_content().splitlines() == text.splitlines()


def test_envelope_and_one_recipient_per_transaction(plain: Any, sink: SmtpSimulator) -> None:
    send(plain, ADA, BO)
    told = [command for command in sink.commands if command.startswith(("MAIL", "RCPT"))]
    sizes = [len(one.content) for one in sink.accepted]
    assert told == [
        f"MAIL FROM:<surveys@acme.example> SIZE={sizes[0]}",
        "RCPT TO:<ada@client.example>",
        f"MAIL FROM:<surveys@acme.example> SIZE={sizes[1]}",
        "RCPT TO:<bo@client.example>",
    ]


# --- the configuration --------------------------------------------------------------------------------------------


def test_implicit_tls_has_a_port_of_its_own() -> None:
    smtp: Any = build("smtp", {"host": "mail.acme.example", "security": "tls", "sender": "a@acme.example"})
    assert smtp.config.port == 465
    smtp = build("smtp", {"host": "mail.acme.example", "sender": "a@acme.example"})
    assert (smtp.config.port, smtp.config.security) == (587, "starttls")


def test_a_sender_may_carry_its_name() -> None:
    smtp: Any = build("smtp", {"host": "mail.acme.example", "sender": "Acme Surveys <a@acme.example>"})
    assert (smtp.config.sender, smtp.config.sender_name) == ("a@acme.example", "Acme Surveys")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sender": "nobody"}, "sender: is no address mail can be sent to"),
        ({"username": "acme"}, "username and password belong together"),
        ({"port": 0}, "port: should be greater than or equal to 1"),
        ({"security": "ssl"}, "security: must be one of 'starttls', 'tls' or 'none'"),
        ({"per_second": 0}, "per_second: should be greater than 0"),
        ({"host": "smtp://mail.acme.example"}, "host: holds a character that cannot stand there"),
        ({"host": ""}, "host: holds a character that cannot stand there, or is empty"),
        ({"hello_name": "été"}, "hello_name: holds a character"),
        ({"hots": "x"}, "hots: there is no such setting"),
    ],
)
def test_wrong_settings_are_explained(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Misconfigured, match=message):
        build("smtp", {"host": "mail.acme.example", "sender": "a@acme.example", **changes})


def test_a_file_that_is_no_certificate_is_explained(sink: SmtpSimulator, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    for name, why in (("ca.pem", "no certificate in PEM form"), ("none.pem", "No such file")):
        with pytest.raises(Misconfigured, match=why) as refused:
            build("smtp", in_clear(sink, ca_file=str(tmp_path / name))).check()
        assert refused.value.field == "ca_file"


def test_the_rate_is_told_to_the_worker_and_loopback_is_not_outside(sink: SmtpSimulator) -> None:
    assert build("smtp", in_clear(sink)).rate_per_second() is None
    assert build("smtp", in_clear(sink, per_second=2.5)).rate_per_second() == 2.5
    assert not build("smtp", in_clear(sink)).reaches_outside()
    assert build("smtp", in_clear(sink, host="192.0.2.1")).reaches_outside()
    assert build("smtp", in_clear(sink, host="nowhere.invalid")).reaches_outside()


def test_the_password_is_in_no_log_and_no_repr_when_all_goes_wrong(
    smtp: SmtpHarness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for stage in ("hello", "auth"):
        smtp.sim.drop(stage)
        with pytest.raises(ConnectorError) as failed:
            smtp.connector.check()
        assert SECRET not in repr(failed.value) + str(failed.value) + caplog.text


@pytest.mark.parametrize(
    ("text", "code"), [("5.1.1 gone", "5.1.1"), ("5.1.10", "5.1.10"), ("5.1.1gone", ""), ("gone 5.1.1", "")]
)
def test_enhanced_codes_stand_first(text: str, code: str) -> None:
    assert Reply(550, text).enhanced == code


# --- the simulator's record, which drills rely on -----------------------------------------------------------------


def test_what_the_simulator_accepted_is_on_the_disk_before_it_says_so(tmp_path: Path) -> None:
    record = tmp_path / "accepted.jsonl"
    with SmtpSimulator(record=record) as sim:
        connector: Any = build("smtp", in_clear(sim))
        sim.drop("accepted")
        assert send_one(connector).outcome is Outcome.UNCERTAIN
        assert [(one["recipient"], one["key"], one["link"]) for one in read_record(record)] == [
            (ADA.email, ADA.key, ADA.survey_url)
        ]
        assert read_record(record)[0]["message_id"] == "<nps.7zk2m4q8x1ndv0ha.invite@acme.example>"


def test_outcomes_agree_with_what_a_server_in_trouble_accepted(tmp_path: Path) -> None:
    record = tmp_path / "accepted.jsonl"
    command = [sys.executable, "-m", "tests.simulators.smtp", "--record", str(record)]
    options = ["--chaos", "0.1", "--seed", "7", "--per-connection", "9"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            values = {"host": "127.0.0.1", "port": int(server.stdout.readline()), "security": "none"}
            connector: Any = build("smtp", {**values, "sender": "surveys@acme.example", "timeout_seconds": 5})
            outcomes = {}
            for invitation in numbered(300):
                try:
                    outcomes[invitation.key] = send_one(connector, invitation).outcome
                except ConnectorError:  # the server, not the message: nothing has left
                    outcomes[invitation.key] = Outcome.RETRY
            connector.close()
        finally:
            server.terminate()
    accepted = [one["key"] for one in read_record(record)]
    of = {kind: {key for key, outcome in outcomes.items() if outcome is kind} for kind in Outcome}
    assert len(accepted) == len(set(accepted))
    assert of[Outcome.DONE] <= set(accepted) <= of[Outcome.DONE] | of[Outcome.UNCERTAIN]
    assert min(len(of[Outcome.DONE]), len(of[Outcome.UNCERTAIN]), len(of[Outcome.RETRY])) > 0
    assert set(accepted) & of[Outcome.UNCERTAIN]
