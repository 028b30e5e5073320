"""What every ContactSink promises: a method per promise.

How a kind takes part: see `tests.conformance.survey_sender`; the function of its harness is `contact_sink`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NoReturn, Protocol
from zoneinfo import ZoneInfo

import pytest

from connectors.base import Connector
from core.errors import Misconfigured, Unauthorized, Unavailable
from core.ports import Contact, ContactSink, Outcome, ScoreUpdate, WriteResult
from tests.conformance.contact_source import ADA, BO, CLEO, DOT, FOUR, contacts_of, read
from tests.conformance.survey_sender import applicable, connector_secret

PARIS = ZoneInfo("Europe/Paris")
#: In UTC it is still the 24th.
ANSWERED = datetime(2026, 11, 25, 0, 30, tzinfo=PARIS)
OF_ADA = ScoreUpdate(
    "write-back:1",
    ADA.external_id,
    {
        "nps_score": 10,
        "nps_category": "promoter",
        "nps_comment": "The “best”, by far;\nthank you, Bo",
        "nps_last_surveyed_at": datetime(2026, 11, 20, 9, tzinfo=PARIS),
        "nps_responded_at": ANSWERED,
        "nps_may_be_asked_at": datetime(2027, 2, 23, 9, tzinfo=PARIS),
    },
)
OF_BO = ScoreUpdate("write-back:2", BO.external_id, {"nps_score": 7, "nps_category": "passive", "nps_comment": None})
OF_CLEO = ScoreUpdate("write-back:3", CLEO.external_id, {"nps_score": 0, "nps_category": "detractor"})
ASKED = "nps_last_surveyed_at"


class SinkHarness(Protocol):
    """A connector and the source it writes to, which keeps dates without times."""

    connector: Connector[Any]
    secret: str

    def put(self, contacts: Sequence[Contact]) -> None:
        """The source shows these records."""

    def shown(self, external_id: str) -> Mapping[str, str]:
        """Our NPS fields as the source shows them to its users, empty ones left out; dates as 2026-12-31."""

    def rest(self) -> object:
        """All else that the source holds, to be compared: every record, every field that is not ours."""

    def edit(self, external_id: str, field: str, text: str) -> None:
        """A user of the source changes one of our fields."""

    def with_wrong_secret(self) -> Connector[Any]:
        """The same connection with credentials that are not accepted."""

    def take_away(self) -> None:
        """The source is not there any more."""

    def restart(self) -> Connector[Any]:
        """The same connection in a new process."""


def write(connector: Any, *updates: ScoreUpdate) -> dict[str, WriteResult]:
    """Write and collect by key; no key has two results, and none is missing."""
    results = list(connector.write_scores(updates))
    by_key = {result.key: result for result in results}
    assert len(by_key) == len(results) == len(updates)
    return by_key


def outcomes(results: Mapping[str, WriteResult]) -> dict[str, Outcome]:
    return {key: result.outcome for key, result in results.items()}


def asked(day: datetime | None, expected: str | None = None) -> ScoreUpdate:
    """Ada's date of the last survey."""
    return ScoreUpdate("write-back:1", ADA.external_id, {ASKED: day}, {} if expected is None else {ASKED: expected})


class ContactSinkConformance:
    """Inherit, and give the fixture `harness`."""

    @pytest.fixture
    def harness(self) -> NoReturn:
        raise NotImplementedError("give the harness of this kind")

    def test_is_a_contact_sink(self, harness: SinkHarness) -> None:
        connector: Any = harness.connector
        assert isinstance(connector, ContactSink)
        assert connector.write_batch_size >= 1

    def test_every_update_is_written_and_reported(self, harness: SinkHarness) -> None:
        harness.put(FOUR)
        results = write(harness.connector, OF_ADA, OF_BO, OF_CLEO)
        assert set(outcomes(results).values()) == {Outcome.DONE}
        assert harness.shown(ADA.external_id) == {
            "nps_score": "10",
            "nps_category": "promoter",
            "nps_comment": "The “best”, by far;\nthank you, Bo",
            "nps_last_surveyed_at": "2026-11-20",
            "nps_responded_at": "2026-11-25",
            "nps_may_be_asked_at": "2027-02-23",
        }
        assert harness.shown(BO.external_id) == {"nps_score": "7", "nps_category": "passive"}
        assert harness.shown(CLEO.external_id) == {"nps_score": "0", "nps_category": "detractor"}
        assert harness.shown(DOT.external_id) == {}

    def test_nothing_else_is_changed(self, harness: SinkHarness) -> None:
        harness.put(FOUR)
        before = harness.rest()
        write(harness.connector, OF_ADA, OF_BO)
        assert harness.rest() == before

    def test_twice_is_as_good_as_once(self, harness: SinkHarness) -> None:
        harness.put(FOUR)
        write(harness.connector, OF_ADA, OF_BO)
        before = (harness.shown(ADA.external_id), harness.rest())
        assert outcomes(write(harness.restart(), OF_ADA)) == {OF_ADA.key: Outcome.DONE}
        assert (harness.shown(ADA.external_id), harness.rest()) == before

    def test_only_the_fields_present_are_written_and_none_clears_one(self, harness: SinkHarness) -> None:
        harness.put(FOUR)
        write(harness.connector, OF_ADA)
        write(harness.connector, replace(OF_ADA, fields={"nps_score": 3, "nps_comment": None}))
        shown = harness.shown(ADA.external_id)
        assert (shown["nps_score"], shown.get("nps_comment"), shown["nps_category"]) == ("3", None, "promoter")

    def test_one_that_is_gone_is_rejected_alone_and_never_created(self, harness: SinkHarness) -> None:
        harness.put(FOUR)
        before = harness.rest()
        gone = ScoreUpdate("write-back:9", "999", OF_ADA.fields)
        results = write(harness.connector, OF_ADA, gone, OF_CLEO)
        assert outcomes(results) == {
            OF_ADA.key: Outcome.DONE, gone.key: Outcome.REJECTED, OF_CLEO.key: Outcome.DONE,
        }  # fmt: skip
        assert "999" in results[gone.key].reason
        assert harness.shown(CLEO.external_id)["nps_score"] == "0"
        assert harness.rest() == before

    def test_a_date_is_the_day_of_the_zone_it_comes_in(self, harness: SinkHarness) -> None:
        harness.put(FOUR)
        write(harness.connector, asked(ANSWERED))
        assert harness.shown(ADA.external_id)[ASKED] == "2026-11-25"
        write(harness.connector, asked(ANSWERED.astimezone(UTC), "2026-11-25"))
        assert harness.shown(ADA.external_id)[ASKED] == "2026-11-24"

    def test_a_date_is_taken_back_if_nobody_edited_it(self, harness: SinkHarness) -> None:
        harness.put(FOUR)
        write(harness.connector, asked(ANSWERED))
        write(harness.connector, asked(datetime(2026, 3, 4, 12, tzinfo=PARIS), ANSWERED.isoformat()))
        assert harness.shown(ADA.external_id)[ASKED] == "2026-03-04"
        write(harness.connector, asked(None, "2026-03-04"))
        assert ASKED not in harness.shown(ADA.external_id)

    @pytest.mark.parametrize("back_to", [datetime(2026, 3, 4, 12, tzinfo=PARIS), None])
    def test_a_date_that_somebody_edited_is_not_taken_back(
        self, harness: SinkHarness, back_to: datetime | None
    ) -> None:
        harness.put(FOUR)
        write(harness.connector, asked(ANSWERED))
        harness.edit(ADA.external_id, ASKED, "2026-11-24")
        results = write(harness.restart(), asked(back_to, ANSWERED.isoformat()), OF_BO)
        assert set(outcomes(results).values()) == {Outcome.DONE}
        assert harness.shown(ADA.external_id)[ASKED] == "2026-11-24"
        assert harness.shown(BO.external_id)["nps_score"] == "7"

    @pytest.mark.parametrize(
        "comment",
        [
            "Zoé dit : « très bien » — Łódź",
            "王小明 says 🌻👍🏽",
            'He said "no", twice; then\tleft\nand came back',
            "x" * 20_000,
            'ends with a quote"',
            '"',
            ",;\t.",
            "0",
        ],
        ids=lambda text: text[:12],
    )
    def test_any_comment_is_shown_as_it_was_written(self, harness: SinkHarness, comment: str) -> None:
        harness.put(FOUR)
        before = harness.rest()
        write(harness.connector, replace(OF_BO, fields={"nps_comment": comment}))
        assert harness.shown(BO.external_id) == {"nps_comment": comment}
        assert harness.rest() == before

    def test_what_no_source_can_hold_stops_nobody(self, harness: SinkHarness) -> None:
        harness.put(FOUR)
        nasty = replace(OF_BO, fields={"nps_comment": "a\x00b\x1b\ud800 " + "long " * 200_000, "nps_score": 7})
        results = write(harness.connector, nasty, OF_CLEO)
        assert outcomes(results)[OF_CLEO.key] is Outcome.DONE
        assert harness.shown(CLEO.external_id)["nps_score"] == "0"
        if outcomes(results)[nasty.key] is Outcome.DONE:
            assert harness.shown(BO.external_id)["nps_score"] == "7"
            assert harness.shown(BO.external_id)["nps_comment"].startswith("ab")

    def test_nothing_to_write_is_no_error(self, harness: SinkHarness) -> None:
        harness.put(FOUR)
        before = harness.rest()
        assert write(harness.connector) == {}
        assert harness.rest() == before

    def test_what_was_written_is_read_back(self, harness: SinkHarness) -> None:
        connector: Any = harness.connector
        if not hasattr(connector, "read_contacts"):
            pytest.skip("this kind does not read contacts")
        harness.put(FOUR)
        write(connector, OF_ADA, OF_BO)
        found = contacts_of(read(connector))
        assert found["1"].nps["nps_score"] == "10"
        assert found["1"].nps["nps_comment"] == OF_ADA.fields["nps_comment"]
        assert found["1"].last_surveyed_at == "2026-11-20"
        assert found["2"].nps["nps_category"] == "passive"

    def test_wrong_credentials_are_unauthorized_and_nothing_is_written(self, harness: SinkHarness) -> None:
        harness.put(FOUR)
        connector = applicable(harness.with_wrong_secret)
        with pytest.raises(Unauthorized):
            write(connector, OF_ADA)
        assert harness.shown(ADA.external_id) == {}

    def test_a_source_that_is_gone_is_told_in_a_sentence(self, harness: SinkHarness) -> None:
        harness.put(FOUR)
        harness.take_away()
        with pytest.raises((Unavailable, Misconfigured)) as told:
            write(harness.connector, OF_ADA)
        assert len(str(told.value).split()) > 3

    def test_no_secret_in_a_log_or_a_repr(self, harness: SinkHarness, caplog: pytest.LogCaptureFixture) -> None:
        if not harness.secret:
            pytest.skip("this kind has no secret")
        caplog.set_level(logging.DEBUG)
        harness.put(FOUR)
        write(harness.connector, OF_ADA)
        texts = [caplog.text, repr(harness.connector), repr(harness.connector.config)]
        assert not [text for text in texts if harness.secret in text or connector_secret(harness.connector) in text]
