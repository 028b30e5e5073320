"""A database that is busy, or cannot take more: pages are shown, and nothing that was typed is lost."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from flask import Flask

from core.clock import Clock
from core.storage import schema
from core.storage.store import Store
from tests.web.app import Installation, wait_until
from tests.web.survey import Respondent, answers, asked, form_of, link_of, rows
from web.survey.fetches import MOST_WAITING, Fetch, FetchLog

LONGEST_WAIT = 2.0  # a page takes milliseconds; on a busy machine, some more


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    return asked(tmp_path)


@pytest.fixture
def app(installed: Installation) -> Flask:
    return installed.app()


@pytest.fixture
def ada(installed: Installation, app: Flask) -> Respondent:
    return Respondent(app, link_of(installed, "ada@acme.example"))


def database(installed: Installation) -> str:
    return installed.settings.database_url.removeprefix("sqlite:///")


@contextmanager
def another_process_writes(installed: Installation) -> Iterator[None]:
    """What a batch job of another process does to us."""
    with closing(sqlite3.connect(database(installed), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def fetched(installed: Installation) -> int:
    return len(rows(installed, schema.hits))


def test_a_page_does_not_wait_for_another_process_that_writes(installed: Installation, ada: Respondent) -> None:
    with another_process_writes(installed):
        began = time.monotonic()
        for score in range(3):
            ada.open(f"/{score}")
        assert time.monotonic() - began < 3 * LONGEST_WAIT
        assert fetched(installed) == 0
    wait_until(lambda: fetched(installed) == 3)


def test_a_page_does_not_wait_for_a_job_of_this_process_that_writes(
    installed: Installation, app: Flask, ada: Respondent
) -> None:
    with app.extensions["boucle"].store.write():
        began = time.monotonic()
        ada.open("/9")
        assert time.monotonic() - began < LONGEST_WAIT
    wait_until(lambda: fetched(installed) == 1)


def test_a_fetch_is_written_down_before_its_page_is_shown(installed: Installation, ada: Respondent) -> None:
    ada.open("/9")
    assert fetched(installed) == 1


def test_a_page_is_shown_where_nothing_can_be_written(installed: Installation, ada: Respondent) -> None:
    with closing(sqlite3.connect(database(installed))) as other:
        other.execute("CREATE TRIGGER full BEFORE INSERT ON hits BEGIN SELECT RAISE(ABORT, 'full'); END")
    assert ada.open("/9").fields["score"] == "9"


def test_an_answer_that_cannot_be_stored_is_asked_for_again_with_its_text(
    installed: Installation, ada: Respondent
) -> None:
    form = ada.open()
    with closing(sqlite3.connect(database(installed))) as other:
        other.execute("CREATE TRIGGER full BEFORE INSERT ON responses BEGIN SELECT RAISE(ABORT, 'full'); END")
        response = ada.send(form, score="6", comment="Kept")
        assert response.status_code == 503
        again = form_of(response)
        assert "could not be stored" in again.text
        assert (again.fields["score"], again.fields["comment"].strip()) == ("6", "Kept")
        assert answers(installed) == []
        other.execute("DROP TRIGGER full")
    assert ada.send(again).status_code == 200
    assert [(row.score, row.comment) for row in answers(installed)] == [(6, "Kept")]


def test_fetches_beyond_measure_are_dropped_and_hold_nobody_up(installed: Installation) -> None:
    with closing(Store(installed.settings.database_url, Clock())) as store:
        log = FetchLog(store)
        fetches = [Fetch("T" * 22, "GET", 9, "", "", number) for number in range(MOST_WAITING + 500)]
        for fetch in fetches:
            fetch.written.wait = lambda _seconds=0: True  # type: ignore[method-assign,assignment]
        with store.write():
            taken = sum(log.note(fetch) for fetch in fetches)
        assert MOST_WAITING <= taken <= MOST_WAITING + 100
        wait_until(lambda: fetched(installed) == taken)
