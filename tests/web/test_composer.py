"""The mail that asks: complete, small, escaped, in the recipient's language, with every link in both parts."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from core.ports import InvitationRequest
from core.workspace import Survey
from web.survey.colour import contrast, readable_on, text_on
from web.survey.composer import SurveyComposer
from web.survey.texts import ENGLISH, FRENCH, language_of

TOKEN = "T0ken-of-one_012345678"
ADA = InvitationRequest(
    key="7zk2m4q8x1ndv0ha:invite",
    kind="invite",
    token=TOKEN,
    campaign="relationship",
    survey={**Survey().model_dump(mode="json"), "brand": "Acme", "reply_to": "care@acme.example"},
    languages=("en", "fr"),
    external_id="1",
    email="ada@acme.example",
    first_name="Ada",
    last_name="Promoter",
    company="Acme",
    language="en",
)
COMPOSER = SurveyComposer("https://nps.acme.example/")


def survey(**values: object) -> dict[str, object]:
    return {**ADA.survey, **values}


class Links(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("href", "src")]


def test_both_parts_carry_the_scale_and_the_way_out() -> None:
    mail = COMPOSER.compose(ADA)
    links = Links(mail.html).found
    base = f"https://nps.acme.example/s/{TOKEN}"
    for score in range(11):
        assert f"{base}/{score}" in links
        assert f"{base}/{score}\n" in mail.text
    assert (mail.survey_url, mail.unsubscribe_url) == (base, base.replace("/s/", "/u/"))
    assert mail.unsubscribe_url in links
    assert mail.unsubscribe_url in mail.text


def test_no_link_leads_elsewhere_and_nothing_is_fetched() -> None:
    mail = COMPOSER.compose(ADA)
    assert all(link.startswith("https://nps.acme.example/") for link in Links(mail.html).found)
    assert "<img" not in mail.html


def test_it_stays_far_under_the_size_at_which_mails_are_cut() -> None:
    assert len(COMPOSER.compose(ADA).html.encode()) < 20_000


def test_styles_are_inlined() -> None:
    assert re.search(r'<a class="score"[^>]*style="[^"]*line-height', COMPOSER.compose(ADA).html)


def test_who_sends_and_who_is_answered() -> None:
    mail = COMPOSER.compose(ADA)
    assert (mail.sender_name, mail.reply_to, mail.name) == ("Acme", "care@acme.example", "Ada Promoter")


@pytest.mark.parametrize(("written", "language"), [("fr", "fr"), ("FR-be", "fr"), ("de", "en"), (None, "en")])
def test_the_language_is_the_persons_or_the_first(written: str | None, language: str) -> None:
    mail = COMPOSER.compose(replace(ADA, language=written))
    assert mail.language == language
    assert f'<html lang="{language}">' in mail.html
    assert (mail.subject == "Recommanderiez-vous Acme\u202f?") is (language == "fr")


def test_names_and_brands_are_escaped_in_html_and_left_alone_in_text() -> None:
    mail = COMPOSER.compose(replace(ADA, first_name="<b>Ada</b>", survey=survey(brand="Müller & <Sons>")))
    assert "<b>Ada" not in mail.html
    assert "&lt;b&gt;Ada" in mail.html
    assert "Müller &amp; &lt;Sons&gt;" in mail.html
    assert "Hello <b>Ada</b>," in mail.text
    assert "recommend Müller & <Sons> to" in mail.text


@pytest.mark.parametrize("name", [None, "", "  ", "x" * 61, "see https://spam.example", "[[boucle:url]]"])
def test_a_name_that_is_none_is_left_out(name: str | None) -> None:
    mail = COMPOSER.compose(replace(ADA, first_name=name))
    assert mail.text.startswith("Hello,\n")


def test_a_shared_mailbox_is_addressed_as_one() -> None:
    mail = COMPOSER.compose(replace(ADA, shared_mailbox=True))
    assert mail.name == "Acme"
    assert "Ada" not in mail.html + mail.text
    assert "everybody who reads this mailbox" in mail.text


def test_a_reminder_says_so() -> None:
    mail = COMPOSER.compose(replace(ADA, kind="reminder", key="7zk2m4q8x1ndv0ha:reminder:1"))
    assert mail.subject.startswith("A reminder")
    assert "A few days ago" in mail.text


def test_an_anonymous_survey_says_so() -> None:
    assert "anonymous" not in COMPOSER.compose(ADA).text
    mail = COMPOSER.compose(replace(ADA, survey=survey(anonymous=True)))
    assert "anonymous" in mail.text and "anonymous" in mail.html


def test_the_postal_address_stands_at_the_foot() -> None:
    mail = COMPOSER.compose(replace(ADA, survey=survey(address="1 Rue du Port, Nantes")))
    assert mail.text.rstrip().endswith("1 Rue du Port, Nantes")
    assert "1 Rue du Port, Nantes" in mail.html


def test_a_logo_is_shown_only_where_mail_programs_can_fetch_it_safely() -> None:
    with_logo = replace(ADA, survey=survey(logo="/srv/Logo.PNG"))
    assert "https://nps.acme.example/survey/logo/relationship" in COMPOSER.compose(with_logo).html
    assert "<img" not in SurveyComposer("http://127.0.0.1:8000").compose(with_logo).html
    assert "<img" not in COMPOSER.compose(replace(ADA, survey=survey(logo="/srv/logo.svg"))).html


@pytest.mark.parametrize("texts", [ENGLISH, FRENCH], ids=lambda texts: texts.language)
def test_no_wording_sets_a_deadline_or_begs_for_a_score(texts: object) -> None:
    wording = " ".join(str(getattr(texts, name)) for name in texts.__slots__).lower()  # type: ignore[attr-defined]
    for word in ("before", "until the", "within", "avant le", "d’ici", "please give", "a 10, please", "urgent"):
        assert word not in wording.replace("nothing is sent before you press", "").replace("until the survey ends", "")


def test_french_has_its_no_break_spaces() -> None:
    wording = " ".join(str(getattr(FRENCH, name)) for name in FRENCH.__slots__)
    assert not re.search(r" [?!;:]", wording)
    assert "'" not in wording


@pytest.mark.parametrize("colour", ["#1450d2", "#ffd400", "#0b6e5f", "#808080", "#ffffff", "#000000", "#ff0000"])
def test_any_colour_carries_readable_text(colour: str) -> None:
    assert contrast(colour, text_on(colour)) >= 4.5
    assert contrast(readable_on(colour, "#ffffff", "#1c2430"), "#ffffff") >= 4.5


def test_a_language_nobody_offers_is_the_first() -> None:
    assert language_of("pt-BR", ("fr", "en")) == "fr"
