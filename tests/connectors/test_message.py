"""The mail as bytes, read back by the standard library."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import parseaddr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.message import MailWriter, sendable
from core.errors import Invalid
from tests.conformance.survey_sender import ADA, CLEO

NOW = datetime(2026, 12, 1, 9, 30, tzinfo=UTC)
WRITER = MailWriter("surveys@acme.example", "Acme", "care@acme.example")


def read(content: bytes) -> EmailMessage:
    return message_from_bytes(content, policy=policy.default)


def written(**changes: object) -> EmailMessage:
    return read(WRITER.write(replace(ADA, **changes), NOW).content)  # type: ignore[arg-type]


def header_lines(content: bytes) -> list[bytes]:
    return content.partition(b"\r\n\r\n")[0].split(b"\r\n")


def test_every_header_a_survey_needs() -> None:
    mail = WRITER.write(ADA, NOW)
    assert header_lines(mail.content)[:-2] == [
        b"From: Acme <surveys@acme.example>",
        b"To: Ada Lovelace <ada@client.example>",
        b"Subject: How likely are you to recommend Acme?",
        b"Date: Tue, 01 Dec 2026 09:30:00 +0000",
        b"Message-ID: <nps.7zk2m4q8x1ndv0ha.invite@acme.example>",
        b"Reply-To: <care@acme.example>",
        b"Auto-Submitted: auto-generated",
        b"Feedback-ID: relationship:invite:boucle",
        b"List-Id: <surveys.acme.example>",
        b"List-Unsubscribe: <%s>" % ADA.unsubscribe_url.encode(),
        b"List-Unsubscribe-Post: List-Unsubscribe=One-Click",
        b"X-Boucle-Key: 7zk2m4q8x1ndv0ha:invite",
        b"MIME-Version: 1.0",
    ]
    assert (mail.recipient, mail.message_id) == (ADA.email, "<nps.7zk2m4q8x1ndv0ha.invite@acme.example>")


@pytest.mark.parametrize("length", [40, 77, 78, 200, 800])
def test_the_unsubscribe_link_is_one_unencoded_token_however_long(length: int) -> None:
    url = "https://nps.acme.example/u/".ljust(length, "x")
    content = WRITER.write(replace(ADA, unsubscribe_url=url), NOW).content
    assert b"\r\nList-Unsubscribe: <%s>\r\n" % url.encode() in content


@pytest.mark.parametrize(
    "url",
    [
        "https://a.example/u/x\r\nBcc: eve@evil.example",
        "https://a.example/u/x>, <mailto:y",
        "javascript:x",
        "https://é",
    ],
)
def test_a_link_a_header_cannot_carry_is_refused(url: str) -> None:
    with pytest.raises(Invalid, match="unsubscribe link"):
        WRITER.write(replace(ADA, unsubscribe_url=url), NOW)


def test_a_reminder_has_an_id_of_its_own() -> None:
    assert WRITER.write(CLEO, NOW).message_id == "<nps.9q5e2j6p0fzxh4nd.reminder.1@acme.example>"


@pytest.mark.parametrize("key", ["", "a b", "a\r\nb", "a>b", "é", ":x", "x" * 121])
def test_a_key_that_could_break_the_id_is_refused(key: str) -> None:
    with pytest.raises(Invalid, match="cannot be the key"):
        WRITER.write(replace(ADA, key=key), NOW)


def test_the_date_is_utc_whatever_the_zone_of_the_clock() -> None:
    there = NOW.astimezone(timezone(timedelta(hours=9)))
    assert WRITER.write(ADA, there) == WRITER.write(ADA, NOW)


def test_senders_own_name_and_reply_to_apply_where_the_campaign_names_none() -> None:
    message = written(sender_name="", reply_to="")
    assert (message["From"], message["Reply-To"]) == ("Acme <surveys@acme.example>", "care@acme.example")
    assert written(reply_to="me@acme.example")["Reply-To"] == "me@acme.example"
    bare = MailWriter("surveys@acme.example").write(replace(ADA, sender_name="", reply_to="", name=""), NOW)
    assert header_lines(bare.content)[:2] == [b"From: surveys@acme.example", b"To: ada@client.example"]
    assert b"Reply-To" not in bare.content


def test_a_reply_to_nobody_can_write_to_is_refused() -> None:
    with pytest.raises(Invalid, match="reply_to"):
        written(reply_to="nobody")


@pytest.mark.parametrize("email", ["zoé@client.example", "a@b", "a b@c.example", "", "x" * 65 + "@c.example"])
def test_an_address_no_mail_can_reach_is_refused(email: str) -> None:
    with pytest.raises(Invalid, match="no mail can be sent"):
        written(email=email)


def test_domains_are_written_in_ascii() -> None:
    assert written(email="ada@bücher.example")["To"].addresses[0].domain == "xn--bcher-kva.example"
    assert sendable("post@bücher.example") == "post@xn--bcher-kva.example"


def test_the_text_comes_before_the_html_and_both_survive() -> None:
    text = "é € 🌻 = trailing space \nlong " + "x" * 3000 + "\n.\nFrom here\n--=_x\n\tend"
    message = written(text=text, html=f"<p>{text}</p>\r\n")
    plain, html = message.iter_parts()
    assert plain.get_content().splitlines() == text.splitlines()
    assert html.get_content().splitlines() == f"<p>{text}</p>".splitlines()
    assert [part.get_content_subtype() for part in message.iter_parts()] == ["plain", "html"]
    assert not message.defects


def test_every_line_on_the_wire_is_short_ascii_and_ends_in_crlf() -> None:
    content = WRITER.write(replace(ADA, text="é" * 5000, html="🌻" * 5000, name="ü" * 300), NOW).content
    assert content.isascii()
    assert content.count(b"\n") == content.count(b"\r") == content.count(b"\r\n")
    assert max(len(line) for line in content.split(b"\r\n")) <= 998


def test_a_message_without_line_ends_gets_soft_breaks_with_crlf() -> None:
    content = WRITER.write(replace(ADA, text="x" * 500, html="<p>" + "y" * 500), NOW).content
    assert not re.search(rb"(?<!\r)\n", content)


def test_the_language_is_told_and_cannot_break_out() -> None:
    assert written(language="fr")["Content-Language"] == "fr"
    assert written(language="fr\r\nX: y")["Content-Language"] == "fr-X-y"
    assert "Content-Language" not in written(language="")


def test_a_message_of_ordinary_size_stays_under_100_kb() -> None:
    assert len(WRITER.write(replace(ADA, html="<p>é</p>\n" * 5000), NOW).content) < 100_000


@settings(max_examples=200, deadline=None)
@given(name=st.text(max_size=200), subject=st.text(max_size=400), sender_name=st.text(max_size=60))
def test_no_text_breaks_out_of_its_header(name: str, subject: str, sender_name: str) -> None:
    content = WRITER.write(replace(ADA, name=name, subject=subject, sender_name=sender_name), NOW).content
    names = [line.partition(b":")[0] for line in header_lines(content) if not line.startswith(b" ")]
    assert names == [line.partition(b":")[0] for line in header_lines(WRITER.write(ADA, NOW).content)]
    message = read(content)
    assert message["To"].addresses[0].addr_spec == ADA.email
    assert message["From"].addresses[0].addr_spec == "surveys@acme.example"


@pytest.mark.parametrize("trap", ["a\x00b\x1bc\x7fd", "a\ud800b", "é\x00\u2028\ud800"])
def test_control_characters_and_broken_ones_become_spaces(trap: str) -> None:
    content = WRITER.write(replace(ADA, name=trap, subject=trap, sender_name=trap), NOW).content
    assert not re.search(rb"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f]", content)
    assert not re.search(r"[\x00-\x1f\x7f\u2028\ud800]", str(read(content)["Subject"]))


@pytest.mark.parametrize("text", ["=?utf-8?q?not_encoded?=", "é =?utf-8?q?not_encoded?=", 'say "yes" \\ no'])
def test_what_looks_encoded_is_read_as_written(text: str) -> None:
    message = written(subject=text, name=text)
    assert str(message["Subject"]) == text
    assert message["To"].addresses[0].display_name == text


def test_long_texts_are_folded_between_short_words() -> None:
    content = WRITER.write(replace(ADA, subject="é" * 300, name="王" * 100), NOW).content
    assert max(len(line) for line in header_lines(content) if b"=?utf-8?" in line) <= 75 + len("Subject: ")


# the characters a name or a subject is made of; \xa0 and its like count as a space
_printable = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp", "Zs"]) | st.just(" "), max_size=120
).map(lambda text: " ".join(text.split()))


@settings(max_examples=200, deadline=None)
@given(name=_printable, subject=_printable)
def test_names_and_subjects_are_read_as_written(name: str, subject: str) -> None:
    content = WRITER.write(replace(ADA, name=name, subject=subject), NOW).content
    assert str(read(content)["Subject"]) == subject
    # email.policy puts a space between two encoded words of a name (RFC 2047, 6.2, says to drop it); this does not
    written_name, address = parseaddr(message_from_bytes(content)["To"].replace("\r\n", ""))
    assert (str(make_header(decode_header(written_name))), address) == (name, ADA.email)


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=2000))
def test_any_text_is_read_as_written(text: str) -> None:
    part = written(text=text).get_body(("plain",))
    assert part is not None
    wanted = text.replace("\r\n", "\n").replace("\r", "\n").encode("utf-8", "replace").decode()
    assert part.get_content().replace("\r\n", "\n").rstrip("\n") == wanted.rstrip("\n")


def test_a_hundred_thousand_are_written_in_a_minute() -> None:
    ordinary = replace(ADA, html="<p>Où avez-vous entendu parler d'Acmé ?</p>\n" * 250, text="Bonjour é\n" * 30)
    started = time.process_time()
    for number in range(300):
        WRITER.write(replace(ordinary, name=f"Zoé {number}"), NOW)
    assert (time.process_time() - started) / 300 < 0.0006
