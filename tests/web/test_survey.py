"""The survey pages through the real application: what an answer is, what none is, and what nobody may break."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flask import Flask

from core.answers import MOST_COMMENT
from core.storage import schema
from tests.web.app import Installation
from tests.web.survey import READY, Respondent, answers, asked, form_of, link_of, rows, touch_states

ADA, BO, CLEO = "ada@acme.example", "bo@bolt.example", "cleo@corp.example"


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    return asked(tmp_path)


@pytest.fixture
def app(installed: Installation) -> Flask:
    return installed.app()


@pytest.fixture
def ada(installed: Installation, app: Flask) -> Respondent:
    return Respondent(app, link_of(installed, ADA))


def csv_row(installed: Installation, address: str) -> str:
    text = (installed.folder / "customers.csv").read_text(encoding="utf-8")
    return next(line for line in text.splitlines() if address in line)


# --- answering ------------------------------------------------------------------------------------------------------


def test_the_score_is_stored_at_the_first_post_and_a_comment_completes_it(
    installed: Installation, ada: Respondent
) -> None:
    thanks = form_of(ada.answer(9))
    (row,) = answers(installed)
    assert (row.score, row.comment, row.partial, row.verdict) == (9, None, True, "confirmed")
    assert "What do you value most" in thanks.text
    ada.send(thanks, comment="The people")
    (row,) = answers(installed)
    assert (row.score, row.comment, row.partial, row.version) == (9, "The people", False, 2)
    installed.flask("tick")
    assert ",9,promoter,The people," in csv_row(installed, ADA)


@pytest.mark.parametrize(
    ("score", "question"), [(10, "value most"), (7, "a 9 or a 10"), (0, "What went wrong"), (None, "main reason")]
)
def test_the_follow_up_question_fits_the_score_without_script(
    ada: Respondent, score: int | None, question: str
) -> None:
    assert question in ada.open("" if score is None else f"/{score}").text


def test_a_second_answer_updates_the_first_and_both_are_kept(installed: Installation, ada: Respondent) -> None:
    one, other = ada.open(), ada.open()  # two tabs
    ada.send(one, score="3", comment="Slow")
    ada.send(other, score="8", comment="Better")
    (row,) = answers(installed)
    assert (row.score, row.comment) == (8, "Better")
    assert [(version.score, version.comment) for version in rows(installed, schema.response_versions)] == [
        (3, "Slow"),
        (8, "Better"),
    ]


def test_the_page_shows_what_was_answered(ada: Respondent) -> None:
    ada.answer(6, "Late")
    again = ada.open()
    assert (again.fields["score"], again.fields["comment"].strip()) == ("6", "Late")
    assert "answered already" in again.text


def test_the_address_only_preselects(installed: Installation, ada: Respondent) -> None:
    assert ada.open("/9").fields["score"] == "9"
    assert ada.open("?score=4").fields["score"] == "4"
    assert answers(installed) == []


def test_nobody_is_asked_who_they_are(ada: Respondent) -> None:
    assert set(ada.open("/9").fields) == {"score", "comment", "nonce", "website"}


def test_rather_not_is_a_decline(installed: Installation, ada: Respondent) -> None:
    assert "no answer needed" in form_of(ada.send(ada.open(), decline="1")).text
    assert touch_states(installed)["declined"] == 1
    assert answers(installed) == []


def test_a_person_is_addressed_in_their_language(installed: Installation, app: Flask) -> None:
    workspace = READY.replace('name = "Acme"', 'name = "Acme"\nlanguages = ["en", "fr"]', 1)
    assert installed.flask("apply", str(installed.write(workspace))).code == 0
    page = Respondent(app, link_of(installed, BO)).open().text
    assert "Quelle est la probabilité que vous recommandiez Acme" in page
    assert "un collègue\u202f?" in page


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", ["11", "-1", "9; DROP", "", "nine", "9" * 4000, "\x00", "９"])
def test_a_score_that_is_none_gets_the_form_again_with_the_text_kept(
    installed: Installation, ada: Respondent, score: str
) -> None:
    response = ada.send(ada.open(), score=score, comment="Kept")
    assert response.status_code == 422
    again = form_of(response)
    assert "choose a number" in again.text
    assert again.fields["comment"].strip() == "Kept"
    assert answers(installed) == []


def test_a_long_comment_is_cut_and_control_characters_go(installed: Installation, ada: Respondent) -> None:
    assert ada.answer(5, "a\x00b\x1b[31m" + "x" * 1_000_000).status_code == 200
    (row,) = answers(installed)
    assert row.comment.startswith("ab[31mxx")
    assert len(row.comment) == MOST_COMMENT


def test_a_body_beyond_all_measure_is_refused_on_a_friendly_page(installed: Installation, ada: Respondent) -> None:
    response = ada.send(ada.open(), score="5", comment="x" * 3_000_000)
    assert response.status_code == 413
    assert "too long" in response.get_data(as_text=True)
    assert answers(installed) == []


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: t[:10], lambda t: "A" + t[1:], lambda t: t + "A"])
def test_a_forged_or_truncated_link_gets_a_friendly_page(installed: Installation, app: Flask, change: object) -> None:
    token = link_of(installed, ADA).removeprefix("/s/")
    forged = change(token)  # type: ignore[operator]
    client = app.test_client()
    for path in (f"/s/{forged}", f"/s/{forged}/9", f"/u/{forged}"):
        for response in (client.get(path), client.post(path, data={"score": "9", "List-Unsubscribe": "One-Click"})):
            assert response.status_code == 404
            assert "does not lead to a survey" in response.get_data(as_text=True)
            assert "Traceback" not in response.get_data(as_text=True)
    assert answers(installed) == []
    assert touch_states(installed) == {"handed_over": 3}


def test_an_answer_after_the_window_is_taken_and_marked_late(installed: Installation, ada: Respondent) -> None:
    late = Respondent(installed.moved(30).app(), ada.link)
    assert late.answer(7, "Was on holiday").status_code == 200
    (row,) = answers(installed)
    assert (row.score, row.late) == (7, True)


def test_a_link_that_expired_long_ago_records_nothing(installed: Installation, ada: Respondent) -> None:
    much_later = installed.moved(300).app().test_client()
    for response in (much_later.get(ada.link + "/9"), much_later.post(ada.link, data={"score": "9"})):
        assert response.status_code == 410
        assert "ended a long time ago" in response.get_data(as_text=True)
    assert answers(installed) == []


def test_a_late_answer_is_thanked_for_without_an_offer_to_change_it(installed: Installation, ada: Respondent) -> None:
    late = Respondent(installed.moved(30).app(), ada.link)
    assert "change your answer" in form_of(ada.send(ada.open(), score="7", comment="In time")).text
    bo = Respondent(late.client.application, link_of(installed, BO))
    thanks = form_of(bo.answer(7, "Was on holiday")).text
    assert "Thank you" in thanks or "Merci" in thanks
    assert "change" not in thanks


def test_the_link_of_a_campaign_that_was_removed_is_still_answered(installed: Installation, ada: Respondent) -> None:
    workspace = READY.replace("[campaigns.relationship]", "[campaigns.next]")
    assert installed.flask("apply", str(installed.write(workspace)), "--prune").code == 0
    ada.answer(9, "Still here")
    assert [(row.score, row.verdict) for row in answers(installed)] == [(9, "confirmed")]


def test_a_used_link_after_the_window_changes_nothing(installed: Installation, ada: Respondent) -> None:
    ada.answer(9)
    later = Respondent(installed.moved(30).app(), ada.link)
    assert "has ended" in later.open().text
    form = ada.open()
    nonce = form.fields["nonce"]
    later.client.post(ada.link, data={"score": "0", "comment": "", "nonce": nonce})
    later.client.post(ada.link, data={"score": "0", "comment": ""})
    (row,) = answers(installed)
    assert row.score == 9


# --- scanners -------------------------------------------------------------------------------------------------------


def test_a_thousand_random_fetches_leave_no_answer(installed: Installation, app: Flask) -> None:
    choose = random.Random(11)
    links = [link_of(installed, address) for address in (ADA, BO, CLEO)]
    before = touch_states(installed)

    def fetch(number: int) -> int:
        client = app.test_client()
        link = choose.choice(links)
        path = choose.choice((link, f"{link}/{choose.randrange(11)}", f"{link}?score={choose.randrange(13)}&utm=1"))
        path = path.replace("/s/", "/u/") if choose.random() < 0.1 else path
        method = choose.choice((client.get, client.get, client.head, client.options))
        headers = choose.choice(({}, {"Sec-Purpose": "prefetch"}, {"User-Agent": "Mozilla/5.0 Chrome/120"}))
        return method(path, headers=headers).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(fetch, range(1_000))) <= {200, 404}
    assert answers(installed) == []
    assert touch_states(installed) == before
    kinds = {row.key for row in rows(installed, schema.deliveries) if row.kind == "write_back" and row.state == "ready"}
    assert kinds == set()


@pytest.mark.parametrize(
    "path", ["/9&amp;x=1", "?score=9%3B", "?amp;score=9", "/9.", "//9", "/%39", "/9/", "?utm_source=a&score=99", "/x/y"]
)
def test_a_damaged_address_still_shows_the_page(ada: Respondent, path: str) -> None:
    response = ada.client.get(ada.link + path, headers=ada.headers, follow_redirects=True)
    assert response.status_code == 200
    assert "How likely are you" in response.get_data(as_text=True)


def test_head_and_options_have_no_body(ada: Respondent) -> None:
    for method in (ada.client.head, ada.client.options):
        response = method(ada.link)
        assert (response.status_code, response.data) == (200, b"")


def test_two_scores_fetched_within_a_minute_make_the_answer_suspect(installed: Installation, ada: Respondent) -> None:
    ada.open("/0")
    ada.open("/10")
    ada.answer(10)
    (row,) = answers(installed)
    assert (row.verdict, "several_scores" in row.signals) == ("suspect", True)
    assert touch_states(installed) == {"handed_over": 3}
    installed.flask("tick")
    assert csv_row(installed, ADA).count("promoter") == 0


def test_the_honeypot_and_a_missing_nonce_make_it_suspect(installed: Installation, app: Flask, ada: Respondent) -> None:
    ada.send(ada.open(), score="9", website="https://spam.example")
    bo = Respondent(app, link_of(installed, BO))
    bo.client.post(bo.link, data={"score": "9"})
    assert [row.verdict for row in answers(installed)] == ["suspect", "suspect"]


def test_a_person_after_a_scanner_can_still_answer_change_comment_and_leave(
    installed: Installation, ada: Respondent
) -> None:
    for score in range(11):
        ada.client.get(f"{ada.link}/{score}", headers={"User-Agent": "SafeLinks scanner"})
    ada.client.post(ada.link, data={"score": "10"})  # a sandbox that sends what it finds
    later = Respondent(installed.moved(0.1).app(), ada.link)
    later.answer(2, "Broken twice")
    (row,) = answers(installed)
    assert (row.score, row.comment, row.verdict) == (2, "Broken twice", "confirmed")
    later.client.post(ada.link.replace("/s/", "/u/"), data={"List-Unsubscribe": "One-Click"})
    assert rows(installed, schema.people)[0].opted_out_at is not None


def test_an_expired_or_forged_nonce_gets_the_form_again_and_records_nothing(
    installed: Installation, ada: Respondent
) -> None:
    form = ada.open()
    hour_later = Respondent(installed.moved(1 / 24).app(), ada.link)
    for respondent, nonce in ((hour_later, form.fields["nonce"]), (ada, "forged"), (ada, "A" * 44)):
        again = form_of(respondent.send(form, score="9", comment="Kept", nonce=nonce))
        assert (again.fields["score"], again.fields["comment"].strip()) == ("9", "Kept")
        assert "once more" in again.text
    assert answers(installed) == []
    hour_later.send(form_of(hour_later.send(form, score="9")))
    assert [row.verdict for row in answers(installed)] == ["confirmed"]


def test_a_nonce_is_good_for_its_own_link_alone(installed: Installation, app: Flask, ada: Respondent) -> None:
    bo = Respondent(app, link_of(installed, BO))
    form = bo.open()
    form.action = ada.link
    assert "once more" in form_of(bo.send(form, score="9")).text
    assert answers(installed) == []


# --- headers --------------------------------------------------------------------------------------------------------


def test_pages_are_private_and_can_load_nothing_from_elsewhere(ada: Respondent) -> None:
    response = ada.client.get(ada.link)
    headers = response.headers
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store, private"
    assert headers["X-Robots-Tag"] == "noindex, nofollow"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "Set-Cookie" not in headers


def test_the_colour_is_a_style_sheet_and_nothing_else_is(ada: Respondent) -> None:
    assert b"--accent: #0b6e5f" in ada.client.get("/survey/theme/0b6e5f.css").data
    for colour in ("0b6e5", "0B6E5F", "zzzzzz", "fff;}b"):
        assert ada.client.get(f"/survey/theme/{colour}.css").status_code == 404


def with_logo(folder: Path, name: str, content: bytes) -> Respondent:
    (folder / name).write_bytes(content)
    installed = asked(folder, READY + f'survey = {{ logo = "{name}" }}\n')
    return Respondent(installed.app(), link_of(installed, ADA))


def test_a_logo_is_shown_and_can_do_nothing_but_be_seen(tmp_path: Path) -> None:
    drawing = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    ada = with_logo(tmp_path, "logo.svg", drawing)
    page = ada.client.get(ada.link).get_data(as_text=True)
    assert '<img class="logo" src="/survey/logo/relationship" alt="Acme">' in page
    response = ada.client.get("/survey/logo/relationship")
    assert (response.data, response.mimetype) == (drawing, "image/svg+xml")
    assert "sandbox" in response.headers["Content-Security-Policy"]
    assert "script-src" not in response.headers["Content-Security-Policy"]
    assert ada.client.get("/survey/logo/nothing").status_code == 404


def test_a_logo_that_is_gone_or_grew_beyond_measure_is_left_out(tmp_path: Path) -> None:
    ada = with_logo(tmp_path, "logo.png", b"\x89PNG")
    assert ada.client.get("/survey/logo/relationship").mimetype == "image/png"
    (tmp_path / "logo.png").write_bytes(b"\x89PNG" + b"x" * 600_000)
    assert ada.client.get("/survey/logo/relationship").status_code == 404
    (tmp_path / "logo.png").unlink()
    assert ada.client.get("/survey/logo/relationship").status_code == 404
    assert ada.client.get(ada.link).status_code == 200


# --- anonymous ------------------------------------------------------------------------------------------------------


def test_an_anonymous_answer_is_changed_by_its_own_link_alone(tmp_path: Path) -> None:
    workspace = READY.replace('write_back = ["crm"]\n', "") + "reminder_days = 6\nsurvey = { anonymous = true }\n"
    installed = asked(tmp_path, workspace)
    first = link_of(installed, ADA)
    app = installed.moved(7).app()
    assert installed.moved(7).flask("tick").code == 0
    second = link_of(installed, ADA)
    assert first != second
    reminded = Respondent(app, second)
    assert "anonymous" in reminded.open().text
    reminded.answer(4, "Honest")
    other = Respondent(app, first)
    assert "another link" in other.open().text
    other.client.post(first, data={"score": "10"})
    reminded.answer(5, "Still honest")
    (row,) = answers(installed)
    assert (row.person_id, row.touch_id, row.score, row.version) == (None, None, None, 1)
    assert reminded.open().fields["score"] == "5"
