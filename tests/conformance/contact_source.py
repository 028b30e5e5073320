"""What every ContactSource promises: a method per promise.

How a kind takes part: see `tests.conformance.survey_sender`; the function of its harness is `contact_source`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from typing import Any, NoReturn, Protocol

import pytest

from connectors.base import Connector
from core.errors import ConnectorError, Misconfigured, Unauthorized, Unavailable
from core.ports import Bookmark, Contact, ContactDeleted, ContactRecord, ContactSource, Page
from tests.conformance.survey_sender import applicable, connector_secret

ADA = Contact(
    "1", "ada@client.example", "Ada", "Lovelace", "Client", "en", "GB", "Europe/London", "+44 20 7946 0001", "Olga",
    date(2020, 2, 29), attributes={"plan": "business"},
)  # fmt: skip
BO = Contact("2", "bo@client.example", "Bo", "Martin", "Client", "fr", "FR", customer_since=date(2021, 12, 31),
             last_surveyed_at="2026-03-04", attributes={"plan": "trial"})  # fmt: skip
CLEO = Contact("3", "cleo@other.example", "Cléo", "Dubois", attributes={"plan": "team"})
DOT = Contact("4", "dot@other.example", "Dot", "Weaver", opted_out=True, hold_until="2027-01-31",
              attributes={"plan": "team"})  # fmt: skip
FOUR = (ADA, BO, CLEO, DOT)
ODD_TEXTS = (
    "Zoé Łukasiewicz-O’Brien", "王小明 🌻", 'the "Countess", née Byron; 1815', "a\tb", "x" * 5000, "=1+1", "'", "0",
)  # fmt: skip


class SourceHarness(Protocol):
    """A connector and the source it reads. The attribute `plan` is mapped."""

    connector: Connector[Any]
    #: A secret of its configuration, as plain text; empty if there is none.
    secret: str
    #: As many records as fill several pages.
    several_pages: int

    def put(self, contacts: Sequence[Contact]) -> None:
        """The source shows these from now on, beside those it had; one with the same id is changed."""

    def remove(self, external_id: str) -> None:
        """The record is deleted in the source."""

    def put_at_one_moment(self, contacts: Sequence[Contact]) -> None:
        """As `put`, all changed at the same moment, more of them than a page holds."""

    def put_bad(self, contacts: Sequence[Contact]) -> str:
        """A record that cannot be used stands before these; returns what its `where` must name."""

    def with_wrong_secret(self) -> Connector[Any]:
        """The same connection with credentials that are not accepted."""

    def take_away(self) -> None:
        """The source is not there any more."""

    def restart(self) -> Connector[Any]:
        """The same connection in a new process."""


def read(connector: Any, start: Bookmark | None = None) -> list[Page[ContactRecord]]:
    """All pages after `start`, which end with the one that says so."""
    pages = list(connector.read_contacts(start or Bookmark()))
    assert [page.last for page in pages] == [False] * (len(pages) - 1) + [True]
    assert not any(page.full for page in pages[:-1])
    return pages


def contacts_of(pages: Sequence[Page[ContactRecord]]) -> dict[str, Contact]:
    """The contacts by id; none came twice."""
    found = [item for page in pages for item in page.items if isinstance(item, Contact)]
    by_id = {contact.external_id: contact for contact in found}
    assert len(by_id) == len(found)
    return by_id


def said(contact: Contact) -> Contact:
    """What a contact says, without where it stood."""
    return replace(contact, digest=b"", line=0, nps={})


def crowd(number: int) -> list[Contact]:
    """Many people."""
    return [Contact(str(n), f"p{n}@client.example", f"P{n}", attributes={"plan": "team"}) for n in range(1, number + 1)]


class ContactSourceConformance:
    """Inherit, and give the fixture `harness`."""

    @pytest.fixture
    def harness(self) -> NoReturn:
        raise NotImplementedError("give the harness of this kind")

    def test_is_a_contact_source(self, harness: SourceHarness) -> None:
        assert isinstance(harness.connector, ContactSource)

    def test_check_tells_the_account(self, harness: SourceHarness) -> None:
        harness.put(FOUR)
        assert harness.connector.check().id.startswith(harness.connector.kind)

    def test_every_record_comes_once_with_what_it_says(self, harness: SourceHarness) -> None:
        harness.put(FOUR)
        pages = read(harness.connector)
        assert {key: said(one) for key, one in contacts_of(pages).items()} == {one.external_id: one for one in FOUR}
        assert not [bad for page in pages for bad in page.bad]

    def test_every_record_of_many_pages_comes_once(self, harness: SourceHarness) -> None:
        harness.put(crowd(harness.several_pages))
        pages = read(harness.connector)
        assert len(pages) > 1
        assert len(contacts_of(pages)) == harness.several_pages

    def test_a_read_from_the_beginning_says_that_it_saw_all(self, harness: SourceHarness) -> None:
        harness.put(FOUR)
        assert read(harness.connector)[-1].full

    def test_after_a_crash_the_rest_comes_once(self, harness: SourceHarness) -> None:
        harness.put(crowd(harness.several_pages))
        everything = set(contacts_of(read(harness.connector)))
        for stored in range(1, len(read(harness.connector))):
            before = _take(harness.connector.read_contacts(Bookmark()), stored)  # type: ignore[attr-defined]
            after = read(harness.restart(), before[-1].bookmark)
            assert {*contacts_of(before), *contacts_of(after)} == everything
            assert len(contacts_of(before)) + len(contacts_of(after)) == len(everything)
            assert not after[-1].full, "it did not see the first pages"

    def test_after_a_crash_and_a_change_nothing_is_missed(self, harness: SourceHarness) -> None:
        harness.put(crowd(harness.several_pages))
        before = _take(harness.connector.read_contacts(Bookmark()), 1)  # type: ignore[attr-defined]
        changed = replace(crowd(1)[0], first_name="Changed")
        new = Contact("new", "new@client.example", attributes={"plan": "team"})
        harness.put([changed, new])
        after = contacts_of(read(harness.restart(), before[-1].bookmark))
        assert said(after["new"]) == new
        assert said(after["1"]) == changed
        assert {*contacts_of(before), *after} == {"new", *map(str, range(1, harness.several_pages + 1))}

    def test_nothing_changed_gives_nothing_and_the_same_bookmark(self, harness: SourceHarness) -> None:
        harness.put(FOUR)
        bookmark = read(harness.connector)[-1].bookmark
        (page,) = read(harness.restart(), bookmark)
        assert (list(page.items), page.bookmark, page.full) == ([], bookmark, False)

    def test_a_change_comes_with_another_digest_and_the_others_with_the_same(self, harness: SourceHarness) -> None:
        harness.put(FOUR)
        pages = read(harness.connector)
        before = contacts_of(pages)
        harness.put([replace(BO, company="Another", attributes={"plan": "business"})])
        after = contacts_of(read(harness.restart(), pages[-1].bookmark))
        assert after["2"].company == "Another"
        assert after["2"].attributes == {"plan": "business"}
        assert after["2"].digest != before["2"].digest
        assert all(after[key].digest == before[key].digest for key in after if key != "2")

    def test_a_record_that_is_gone_is_told_or_missing_in_a_full_read(self, harness: SourceHarness) -> None:
        harness.put(FOUR)
        bookmark = read(harness.connector)[-1].bookmark
        harness.remove(CLEO.external_id)
        pages = read(harness.restart(), bookmark)
        told = [item for page in pages for item in page.items if item == ContactDeleted(CLEO.external_id)]
        assert told or (pages[-1].full and set(contacts_of(pages)) == {"1", "2", "4"})

    def test_records_changed_at_one_moment_all_come(self, harness: SourceHarness) -> None:
        many = crowd(harness.several_pages)
        applicable(harness.put_at_one_moment, many)
        assert len(contacts_of(read(harness.connector))) == len(many)

    def test_one_bad_record_is_told_and_stops_nobody(self, harness: SourceHarness) -> None:
        where = applicable(harness.put_bad, FOUR)
        pages = read(harness.connector)
        assert set(contacts_of(pages)) == {one.external_id for one in FOUR}
        (bad,) = [bad for page in pages for bad in page.bad]
        assert where in bad.where
        assert bad.reason

    @pytest.mark.parametrize(
        "text",
        [
            "Zoé Łukasiewicz-O’Brien",
            "王小明 🌻",
            'the "Countess", née Byron; 1815',
            "a\tb",
            "x" * 5000,
            "=1+1",
            "'",
            "0",
        ],
        ids=lambda text: text[:12],
    )
    def test_any_text_comes_as_it_is(self, harness: SourceHarness, text: str) -> None:
        odd = replace(BO, last_name=text, company=text, attributes={"plan": text})
        harness.put([ADA, odd, CLEO])
        assert said(contacts_of(read(harness.connector))["2"]) == odd

    def test_a_record_with_next_to_nothing_in_it_comes(self, harness: SourceHarness) -> None:
        bare = Contact("9", "bare@client.example", attributes={"plan": ""})
        harness.put([bare, ADA])
        found = said(contacts_of(read(harness.connector))["9"])
        assert replace(found, attributes={}) == replace(bare, attributes={})
        assert not found.attributes.get("plan")

    def test_no_records_at_all_is_no_error(self, harness: SourceHarness) -> None:
        harness.put([])
        assert contacts_of(read(harness.connector)) == {}

    def test_wrong_credentials_are_unauthorized(self, harness: SourceHarness) -> None:
        harness.put(FOUR)
        connector: Any = applicable(harness.with_wrong_secret)
        with pytest.raises(Unauthorized):
            read(connector)

    def test_a_source_that_is_gone_is_told_in_a_sentence(self, harness: SourceHarness) -> None:
        harness.put(FOUR)
        bookmark = read(harness.connector)[-1].bookmark
        harness.take_away()
        for start in (Bookmark(), bookmark):
            with pytest.raises((Unavailable, Misconfigured)) as told:
                read(harness.restart(), start)
            assert len(str(told.value).split()) > 3

    def test_a_bookmark_of_another_time_or_kind_reads_everything(self, harness: SourceHarness) -> None:
        harness.put(FOUR)
        for strange in (Bookmark("what is this", ""), Bookmark("", "0"), Bookmark("1", "1 2 3")):
            try:
                assert len(contacts_of(read(harness.restart(), strange))) == len(FOUR)
            except ConnectorError as told:  # a vendor may refuse it; in words
                assert str(told)

    def test_no_secret_in_a_log_or_a_repr(self, harness: SourceHarness, caplog: pytest.LogCaptureFixture) -> None:
        if not harness.secret:
            pytest.skip("this kind has no secret")
        caplog.set_level(logging.DEBUG)
        harness.put(FOUR)
        read(harness.connector)
        texts = [caplog.text, repr(harness.connector), repr(harness.connector.config)]
        assert not [text for text in texts if harness.secret in text or connector_secret(harness.connector) in text]


def _take(pages: Iterator[Page[ContactRecord]], number: int) -> list[Page[ContactRecord]]:
    """The first pages only: then the process is gone."""
    return [next(pages) for _ in range(number)]
