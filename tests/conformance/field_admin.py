"""What every FieldAdmin promises: a method per promise.

How a kind takes part: see `tests.conformance.survey_sender`; the function of its harness is `field_admin`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

import pytest

from connectors.base import Connector
from core.errors import ConnectorError, Misconfigured, Unavailable
from core.ports import Contact, FieldAdmin, FieldState
from tests.conformance.contact_source import FOUR

OURS = {
    "nps_score",
    "nps_category",
    "nps_comment",
    "nps_last_surveyed_at",
    "nps_responded_at",
    "nps_follow_up_status",
    "nps_survey_url",
    "nps_may_be_asked_at",
    "nps_hold_until",
}


class FieldHarness(Protocol):
    """A connector and its source, which has no field of ours yet. The attribute `plan` is mapped by configuration."""

    connector: Connector[Any]

    def put(self, contacts: Sequence[Contact]) -> None:
        """The source shows these records."""

    def rest(self) -> object:
        """All that the source holds and that is not ours, to be compared."""

    def take_away(self) -> None:
        """The source is not there any more."""

    def restart(self) -> Connector[Any]:
        """The same connection in a new process."""


def fields(connector: Any) -> list[FieldState]:
    return list(connector.read_fields())


def missing(connector: Any) -> set[str]:
    """Our fields that are not there."""
    return {one.mapped_to for one in fields(connector) if not one.exists}


class FieldAdminConformance:
    """Inherit, and give the fixture `harness`."""

    @pytest.fixture
    def harness(self) -> NoReturn:
        raise NotImplementedError("give the harness of this kind")

    def test_is_a_field_admin(self, harness: FieldHarness) -> None:
        assert isinstance(harness.connector, FieldAdmin)

    def test_shows_what_each_field_is_taken_for(self, harness: FieldHarness) -> None:
        harness.put(FOUR)
        states = {one.mapped_to: one for one in fields(harness.connector) if one.exists}
        assert {"external_id", "email", "plan"} <= states.keys()
        assert not states["plan"].guessed
        assert missing(harness.connector) == OURS

    def test_shows_fields_that_nothing_is_mapped_to(self, harness: FieldHarness) -> None:
        harness.put(FOUR)
        assert [one for one in fields(harness.connector) if one.exists and not one.mapped_to]

    def test_creates_the_missing_fields_and_nothing_else(self, harness: FieldHarness) -> None:
        harness.put(FOUR)
        before = harness.rest()
        connector: Any = harness.connector
        names = [one.name for one in fields(connector) if not one.exists]
        created = connector.create_fields(names)
        assert {one.mapped_to for one in created if one.exists} == OURS
        assert missing(harness.restart()) == set()
        assert harness.rest() == before

    def test_creates_only_those_named(self, harness: FieldHarness) -> None:
        harness.put(FOUR)
        connector: Any = harness.connector
        connector.create_fields(["nps_score"])
        assert missing(harness.restart()) == OURS - {"nps_score"}

    def test_creating_twice_is_as_good_as_once(self, harness: FieldHarness) -> None:
        harness.put(FOUR)
        connector: Any = harness.connector
        for _ in range(2):
            connector.create_fields(["nps_score", "nps_comment"])
        names = [one.mapped_to for one in fields(connector) if one.exists]
        assert (names.count("nps_score"), names.count("nps_comment")) == (1, 1)

    def test_reading_creates_nothing(self, harness: FieldHarness) -> None:
        harness.put(FOUR)
        harness.connector.check()
        fields(harness.connector)
        assert missing(harness.restart()) == OURS

    def test_a_field_that_is_not_ours_is_refused(self, harness: FieldHarness) -> None:
        harness.put(FOUR)
        before = harness.rest()
        connector: Any = harness.connector
        with pytest.raises(ConnectorError):
            connector.create_fields(["shoe_size"])
        assert harness.rest() == before

    def test_a_source_that_is_gone_is_told_in_a_sentence(self, harness: FieldHarness) -> None:
        harness.put(FOUR)
        harness.take_away()
        with pytest.raises((Unavailable, Misconfigured)):
            fields(harness.connector)
