"""The mailbox's own ways: a folder any mail reader opens, written whole or not at all."""

from __future__ import annotations

import mailbox as stdlib_mailbox
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from connectors import build
from core.errors import Misconfigured, NotFound, Unavailable
from core.ports import Invitation, Outcome, Sent, capabilities
from tests.conformance.survey_sender import ADA, BO, CLEO, send
from tests.connectors.harness_mailbox import MailboxHarness


def connector_of(harness: MailboxHarness) -> Any:
    return harness.connector


def test_sends_looks_up_and_never_leaves_this_machine(mailbox: MailboxHarness) -> None:
    assert capabilities(type(mailbox.connector)) == ("SurveySender", "SendLookup")
    assert not mailbox.connector.reaches_outside()


def test_any_mail_reader_opens_the_folder(mailbox: MailboxHarness) -> None:
    send(mailbox.connector, ADA, BO)
    with_stdlib = stdlib_mailbox.Maildir(mailbox.path, create=False)
    assert sorted(message["To"] for message in with_stdlib) == [
        "Ada Lovelace <ada@client.example>",
        "Bo <bo@client.example>",
    ]


def test_a_message_a_reader_has_moved_is_still_found(mailbox: MailboxHarness) -> None:
    send(mailbox.connector, ADA, BO)
    connector = connector_of(mailbox)
    assert connector.find_sent([ADA.key]) == {ADA.key: Sent.SENT}
    name = "nps.7zk2m4q8x1ndv0ha.invite.eml"
    (mailbox.path / "new" / name).rename(mailbox.path / "cur" / f"{name}:2,S")
    assert connector.find_sent([ADA.key]) == {ADA.key: Sent.SENT}
    send(connector, ADA)
    assert len(connector.list_messages()) == 2
    assert connector.read_message("nps.7zk2m4q8x1ndv0ha.invite").letter.address == ADA.email


def test_links_to_surveys_are_nobody_elses_business(mailbox: MailboxHarness) -> None:
    send(mailbox.connector, ADA)
    (file,) = (mailbox.path / "new").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((mailbox.path / "new").stat().st_mode) == 0o700


def test_nothing_half_written_is_ever_in_the_folder(mailbox: MailboxHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    mailbox.connector.check()
    monkeypatch.setattr(os, "fsync", _full_disk)
    with pytest.raises(Unavailable, match="no space left"):
        send(mailbox.connector, ADA)
    assert [file for part in ("tmp", "new", "cur") for file in (mailbox.path / part).iterdir()] == []


def test_a_disk_that_fills_up_leaves_the_earlier_ones_sent(
    mailbox: MailboxHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailbox.connector.check()
    real, calls = os.fsync, iter([None, OSError(28, "No space left on device")])

    def fills_up(descriptor: int) -> None:
        problem = next(calls, None)
        if problem:
            raise problem
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fills_up)
    results = []
    with pytest.raises(Unavailable):
        for result in connector_of(mailbox).send_surveys([ADA, BO, CLEO]):
            results.append(result)
    assert [(result.key, result.outcome) for result in results] == [(ADA.key, Outcome.DONE)]
    assert [one.recipient for one in mailbox.delivered()] == [ADA.email]
    assert connector_of(mailbox).find_sent([BO.key]) == {BO.key: Sent.NOT_SENT}


def _full_disk(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_what_a_killed_process_left_is_removed_when_it_is_old(mailbox: MailboxHarness) -> None:
    mailbox.connector.check()
    for name, age in (("old", 40 * 3600), ("young", 0)):
        file = mailbox.path / "tmp" / name
        file.write_bytes(b"half a mess")
        os.utime(file, (file.stat().st_mtime - age,) * 2)
    mailbox.restart().check()
    assert [file.name for file in (mailbox.path / "tmp").iterdir()] == ["young"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    connector: Any = build("mailbox", {"path": str(tmp_path / "file" / "box"), "sender": "a@acme.example"})
    with pytest.raises(Unavailable, match=r"the mailbox .*file/box cannot be used: not a directory"):
        connector.check()
    with pytest.raises(Unavailable, match="not a directory"):
        send(connector, ADA)
    with pytest.raises(Misconfigured, match="sender: is no address"):
        build("mailbox", {"path": "box", "sender": "nobody"})


def test_a_folder_that_was_deleted_is_made_again(mailbox: MailboxHarness) -> None:
    send(mailbox.connector, ADA)
    for part in ("new", "cur", "tmp"):
        for file in (mailbox.path / part).iterdir():
            file.unlink()
        (mailbox.path / part).rmdir()
    assert send(mailbox.connector, BO)[BO.key].outcome is Outcome.DONE


# --- what the start page reads ------------------------------------------------------------------------------------


def test_the_newest_messages_come_first(mailbox: MailboxHarness) -> None:
    connector = connector_of(mailbox)
    assert connector.list_messages() == []
    for number in range(5):
        send(connector, replace(BO, key=f"touch{number}:invite", subject=f"Numéro {number}"))
        os.utime(mailbox.path / "new" / f"nps.touch{number}.invite.eml", (number, number))
    listed = connector.list_messages(3)
    assert [letter.subject for letter in listed] == ["Numéro 4", "Numéro 3", "Numéro 2"]
    assert (listed[0].id, listed[0].name, listed[0].address) == ("nps.touch4.invite", "Bo", BO.email)
    assert listed[0].written_at.timestamp() == 4
    assert connector.check().note == "5 messages"


def test_a_message_can_be_read(mailbox: MailboxHarness) -> None:
    connector = connector_of(mailbox)
    send(connector, ADA)
    letter = connector.read_message(connector.list_messages()[0].id)
    assert letter.sender == "Acme <surveys@acme.example>"
    assert letter.text.split() == ADA.text.split()
    assert letter.html.strip() == ADA.html
    assert ("Auto-Submitted", "auto-generated") in letter.headers


@pytest.mark.parametrize(
    "letter_id",
    ["", "nps.nobody.invite", "../secret", "nps./../../secret", "nps.a/../../secret", "secret", "nps.x\0", "x" * 5000],
)
def test_no_id_leads_out_of_the_folder(mailbox: MailboxHarness, letter_id: str) -> None:
    mailbox.connector.check()
    (mailbox.path / "secret.eml").write_text("From: x\n\nsecret")
    (mailbox.path.parent / "secret.eml").write_text("From: x\n\nsecret")
    with pytest.raises(NotFound):
        connector_of(mailbox).read_message(letter_id)


def test_mails_of_other_programs_are_left_alone(mailbox: MailboxHarness) -> None:
    connector = connector_of(mailbox)
    send(connector, ADA)
    (mailbox.path / "new" / "1700000000.M1P2.host").write_text("Subject: private\n\nx")
    assert [letter.address for letter in connector.list_messages()] == [ADA.email]


def test_two_workers_writing_one_message_write_it_once(mailbox: MailboxHarness) -> None:
    import threading

    connectors = [mailbox.restart() for _ in range(4)]
    many = [replace(ADA, key=f"touch{number}:invite") for number in range(25)]

    def work(connector: Any, invitations: list[Invitation]) -> None:
        outcomes.extend(result.outcome for result in connector.send_surveys(invitations))

    outcomes: list[Outcome] = []
    threads = [threading.Thread(target=work, args=(connector, many)) for connector in connectors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [Outcome.DONE] * 100
    assert len(list((mailbox.path / "new").iterdir())) == 25
    assert list((mailbox.path / "tmp").iterdir()) == []
