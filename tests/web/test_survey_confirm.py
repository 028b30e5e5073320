"""Answers that look like a machine's: the page asks whether it is the reader's own, and a machine cannot say so."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask

from core.storage import schema
from tests.web.app import Installation
from tests.web.survey import READY, Form, Respondent, answers, asked, form_of, link_of, rows, touch_states

ADA = "ada@acme.example"
SECONDS = 1 / 86_400


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    return asked(tmp_path)


@pytest.fixture
def app(installed: Installation) -> Flask:
    return installed.app()


@pytest.fixture
def ada(installed: Installation, app: Flask) -> Respondent:
    return Respondent(app, link_of(installed, ADA))


def a_moment_later(installed: Installation, respondent: Respondent, seconds: float = 5) -> Respondent:
    """The same person, having read the page."""
    return Respondent(installed.moved(seconds * SECONDS).app(), respondent.link)


def after_a_scanner(ada: Respondent, score: int, comment: str = "") -> Form:
    """Her answer, once all eleven links have been followed within the minute."""
    for number in range(11):
        ada.open(f"/{number}")
    return form_of(ada.answer(score, comment))


def test_whoever_answers_after_a_scanner_confirms_with_one_more_press(installed: Installation, ada: Respondent) -> None:
    question = after_a_scanner(ada, 10, "Kind,\nquick & <b>good</b>")
    assert "is this your answer" in question.text
    assert [(row.verdict, row.score) for row in answers(installed)] == [("suspect", 10)]
    assert touch_states(installed) == {"handed_over": 3}
    thanks = form_of(a_moment_later(installed, ada).send(question))
    assert "Thank you" in thanks.text
    (row,) = answers(installed)
    assert (row.verdict, row.score, row.comment) == ("confirmed", 10, "Kind,\nquick & <b>good</b>")
    assert [version.verdict for version in rows(installed, schema.response_versions)] == ["suspect", "confirmed"]
    assert touch_states(installed) == {"handed_over": 2, "answered": 1}


def test_a_comment_after_the_confirmation_is_not_doubted_again(installed: Installation, ada: Respondent) -> None:
    question = after_a_scanner(ada, 2)
    later = a_moment_later(installed, ada)
    later.send(form_of(later.send(question)), comment="It broke")
    (row,) = answers(installed)
    assert (row.verdict, row.score, row.comment) == ("confirmed", 2, "It broke")


def test_a_comment_is_not_doubted_for_a_scanner_that_came_after_the_score(
    installed: Installation, ada: Respondent
) -> None:
    thanks = form_of(ada.answer(9))
    for number in range(11):
        ada.open(f"/{number}")
    ada.send(thanks, comment="The people")
    (row,) = answers(installed)
    assert (row.verdict, row.score, row.comment) == ("confirmed", 9, "The people")


def test_a_doubted_change_leaves_the_answer_as_it_was_until_it_is_confirmed(
    installed: Installation, ada: Respondent
) -> None:
    ada.answer(9, "Fine")
    question = after_a_scanner(ada, 3, "Not any more")
    assert "is this your answer" in question.text
    assert [(row.score, row.comment) for row in answers(installed)] == [(9, "Fine")]
    a_moment_later(installed, ada).send(question)
    assert [(row.score, row.comment) for row in answers(installed)] == [(3, "Not any more")]


def test_a_machine_that_sends_every_form_it_finds_at_once_confirms_nothing(
    installed: Installation, ada: Respondent
) -> None:
    forms = [ada.open(f"/{number}") for number in range(11)]
    for _ in range(4):  # and the forms these lead to
        forms = [form_of(ada.send(form)) for form in forms]
    assert {row.verdict for row in answers(installed)} == {"suspect"}
    assert touch_states(installed) == {"handed_over": 3}
    installed.flask("tick")
    assert all(not row.get("nps_score") for row in installed.rows().values())


def test_a_hidden_field_filled_in_on_the_question_keeps_the_doubt(installed: Installation, ada: Respondent) -> None:
    question = after_a_scanner(ada, 10)
    a_moment_later(installed, ada).send(question, website="https://spam.example")
    assert [row.verdict for row in answers(installed)] == ["suspect"]


def test_the_nonce_of_the_form_is_no_confirmation(installed: Installation, ada: Respondent) -> None:
    form = ada.open()
    question = after_a_scanner(ada, 10)
    question.fields["nonce"] = form.fields["nonce"]
    assert "is this your answer" in form_of(a_moment_later(installed, ada).send(question)).text
    assert [row.verdict for row in answers(installed)] == ["suspect"]


def test_a_campaign_may_leave_doubted_answers_to_its_own_people(tmp_path: Path) -> None:
    installed = asked(tmp_path, READY + 'survey = { confirm = "never" }\n')
    ada = Respondent(installed.app(), link_of(installed, ADA))
    thanks = after_a_scanner(ada, 10)
    assert "Thank you" in thanks.text
    ada.send(thanks, comment="More")
    assert [(row.verdict, row.comment) for row in answers(installed)] == [("suspect", "More")]


def test_a_campaign_may_ask_everybody_to_confirm(tmp_path: Path) -> None:
    installed = asked(tmp_path, READY + 'survey = { confirm = "always" }\n')
    ada = Respondent(installed.app(), link_of(installed, ADA))
    question = form_of(ada.answer(8))
    (row,) = answers(installed)
    assert (row.verdict, "unconfirmed" in row.signals) == ("suspect", True)
    later = a_moment_later(installed, ada)
    later.send(form_of(later.send(question)), comment="Fewer calls")
    (row,) = answers(installed)
    assert (row.verdict, row.score, row.comment) == ("confirmed", 8, "Fewer calls")


def test_an_anonymous_answer_is_confirmed_like_any_other(tmp_path: Path) -> None:
    installed = asked(tmp_path, READY.replace('write_back = ["crm"]\n', "") + "survey = { anonymous = true }\n")
    ada = Respondent(installed.app(), link_of(installed, ADA))
    question = after_a_scanner(ada, 4, "Honest")
    a_moment_later(installed, ada).send(question)
    (row,) = answers(installed)
    assert (row.verdict, row.signals, row.touch_id) == ("confirmed", [], None)
