"""No more surveys: a page that asks, a button and a mail program's one click that do; and they always win."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask

from core.storage import schema, touches
from core.touches import ReturnReason
from tests.web.app import Installation
from tests.web.survey import READY, Respondent, answers, asked, form_of, link_of, rows, touch_states

ADA = "ada@acme.example"


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    return asked(tmp_path)


@pytest.fixture
def app(installed: Installation) -> Flask:
    return installed.app()


@pytest.fixture
def ada(installed: Installation, app: Flask) -> Respondent:
    return Respondent(app, link_of(installed, ADA))


def opted_out(installed: Installation) -> list[str]:
    """The ways in which people left by their links; Dot did before."""
    return sorted(
        row.opted_out_by for row in rows(installed, schema.people) if row.opted_out_by in ("link", "one_click")
    )


def one_click(installed: Installation, link: str) -> None:
    response = installed.app().test_client().post(link.replace("/s/", "/u/"), data={"List-Unsubscribe": "One-Click"})
    assert response.status_code == 200


def test_fetching_the_unsubscribe_link_changes_nothing(installed: Installation, ada: Respondent) -> None:
    assert ada.client.get(ada.link.replace("/s/", "/u/")).status_code == 200
    assert all(row.opted_out_at is None for row in rows(installed, schema.people))


@pytest.mark.parametrize("multipart", [False, True])
def test_one_click_acts_at_once_and_twice_is_once(installed: Installation, ada: Respondent, multipart: bool) -> None:
    kind = "multipart/form-data" if multipart else "application/x-www-form-urlencoded"
    path = ada.link.replace("/s/", "/u/")
    for _ in range(2):
        response = ada.client.post(path, data={"List-Unsubscribe": "One-Click"}, content_type=kind)
        assert (response.status_code, response.headers.getlist("Set-Cookie")) == (200, [])
    person = next(row for row in rows(installed, schema.people) if row.opted_out_at is not None)
    assert person.opted_out_by == "one_click"
    assert touch_states(installed) == {"declined": 1, "handed_over": 2}
    assert installed.moved(400).flask("tick").code == 0
    assert [row.state for row in rows(installed, schema.touches) if row.person_id == person.id] == ["declined"]


def test_the_button_of_the_page_needs_its_nonce(installed: Installation, ada: Respondent) -> None:
    path = ada.link.replace("/s/", "/u/")
    ada.client.post(path, data={})
    assert all(row.opted_out_at is None for row in rows(installed, schema.people))
    page = form_of(ada.client.get(path))
    assert "no more surveys" in form_of(ada.client.post(path, data=page.fields)).text
    assert sum(row.opted_out_at is not None for row in rows(installed, schema.people)) == 1


def test_the_form_of_the_survey_stops_nothing(installed: Installation, ada: Respondent) -> None:
    form = ada.open("/9")
    form.action = ada.link.replace("/s/", "/u/")
    assert "Shall we stop" in form_of(ada.send(form)).text
    assert opted_out(installed) == []


def test_an_answer_does_not_undo_an_opt_out(installed: Installation, ada: Respondent) -> None:
    ada.client.post(ada.link.replace("/s/", "/u/"), data={"List-Unsubscribe": "One-Click"})
    ada.answer(10)
    assert rows(installed, schema.people)[0].opted_out_at is not None
    assert [row.score for row in answers(installed)] == [10]


def test_the_link_of_an_erased_person_still_gets_a_friendly_page(installed: Installation, ada: Respondent) -> None:
    assert installed.flask("people", "erase", ADA).code == 0
    for path in (ada.link, ada.link.replace("/s/", "/u/")):
        response = ada.client.get(path)
        assert response.status_code in (200, 404)
        assert "Traceback" not in response.get_data(as_text=True)


@pytest.mark.parametrize("path", ["", "/", "?utm_source=mail", "%3E", ".", "%20"])
def test_a_damaged_unsubscribe_address_still_works(installed: Installation, ada: Respondent, path: str) -> None:
    address = ada.link.replace("/s/", "/u/") + path
    page = form_of(ada.client.get(address))
    assert ada.client.post(address, data=page.fields).status_code == 200
    assert opted_out(installed) == ["link"]


def test_the_link_of_a_silent_survey_still_opts_out(installed: Installation, ada: Respondent) -> None:
    later = installed.moved(30)
    assert later.flask("tick").code == 0
    assert touch_states(installed)["silent"] == 3
    one_click(later, ada.link)
    assert opted_out(installed) == ["one_click"]


def test_the_link_of_a_returned_survey_still_opts_out(installed: Installation, ada: Respondent) -> None:
    with installed.context() as context, context.store.write() as tx:
        ids = [row.id for row in tx.execute(schema.touches.select())]
        touches.give_back(tx, ids, ReturnReason.BOUNCED, "no such mailbox", context.clock.now_ms())
    one_click(installed, ada.link)
    assert opted_out(installed) == ["one_click"]


def test_the_link_of_an_answered_survey_opts_out_and_the_answer_stays(installed: Installation, ada: Respondent) -> None:
    ada.answer(9, "Kind")
    one_click(installed, ada.link)
    assert opted_out(installed) == ["one_click"]
    assert [(row.score, row.verdict) for row in answers(installed)] == [(9, "confirmed")]
    assert touch_states(installed) == {"answered": 1, "handed_over": 2}


def test_a_link_older_than_any_survey_still_opts_out(installed: Installation, ada: Respondent) -> None:
    one_click(installed.moved(800), ada.link)
    assert opted_out(installed) == ["one_click"]


def test_the_link_of_an_anonymous_survey_opts_out_after_the_answer_too(tmp_path: Path) -> None:
    installed = asked(tmp_path, READY.replace('write_back = ["crm"]\n', "") + "survey = { anonymous = true }\n")
    ada = Respondent(installed.app(), link_of(installed, ADA))
    ada.answer(3, "Honest")
    one_click(installed, ada.link)
    assert opted_out(installed) == ["one_click"]
    assert len(answers(installed)) == 1
