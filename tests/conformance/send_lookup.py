"""What every SendLookup promises: it says what became of a message, and NOT_SENT only when that is certain."""

from __future__ import annotations

from typing import NoReturn

import pytest

from core.ports import Outcome, SendLookup, Sent
from tests.conformance.survey_sender import ADA, BO, CLEO, SenderHarness, send


class SendLookupConformance:
    """Inherit, and give the fixture `harness`; it is the one of a SurveySender."""

    @pytest.fixture
    def harness(self) -> NoReturn:
        raise NotImplementedError("give the harness of this kind")

    def test_answers_for_every_key(self, harness: SenderHarness) -> None:
        assert isinstance(harness.connector, SendLookup)
        send(harness.connector, ADA, CLEO)
        found = harness.connector.find_sent([ADA.key, BO.key, CLEO.key])
        assert found == {ADA.key: Sent.SENT, BO.key: Sent.NOT_SENT, CLEO.key: Sent.SENT}

    def test_before_anything_was_sent_nothing_was(self, harness: SenderHarness) -> None:
        assert isinstance(harness.connector, SendLookup)
        assert harness.connector.find_sent([ADA.key]) == {ADA.key: Sent.NOT_SENT}

    def test_remembers_after_a_restart(self, harness: SenderHarness) -> None:
        send(harness.connector, ADA)
        again = harness.restart()
        assert isinstance(again, SendLookup)
        assert again.find_sent([ADA.key, BO.key]) == {ADA.key: Sent.SENT, BO.key: Sent.NOT_SENT}

    def test_what_was_sent_may_be_handed_over_again_without_a_second_message(self, harness: SenderHarness) -> None:
        send(harness.connector, ADA)
        assert send(harness.restart(), ADA)[ADA.key].outcome is Outcome.DONE
        assert len(harness.delivered()) == 1
