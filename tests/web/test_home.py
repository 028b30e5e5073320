"""The start page: what a newcomer sees, and that nobody else sees it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from core.ports import Invitation
from core.storage.status import CampaignNumbers
from tests.web.app import WORKSPACE, Installation
from web.home.language import ENGLISH, FRENCH
from web.home.page import Page
from web.home.views import ago, next_step, worker_text

STRANGER = {"Host": "nps.example.com"}
EVIL = '<script>document.title = "taken"</script><img src="https://tracker.example/x.png">'


@pytest.fixture
def site(tmp_path: Path) -> Installation:
    return Installation(tmp_path).set_up()


@pytest.fixture
def client(site: Installation) -> Iterator[FlaskClient]:
    app = site.app()
    yield app.test_client()
    app.extensions["boucle"].store.close()


def write_mail(client: FlaskClient, key: str = "a1:invite", html: str = "<p>Hello</p>", **values: str) -> str:
    """A mail in the local mailbox; returns its address on the start page."""
    words: dict[str, Any] = {
        "key": key, "external_id": "1", "email": "ada@acme.example", "name": "Ada Promoter", "language": "en",
        "subject": "How likely are you to recommend Acme?", "html": html, "text": "Hello in text",
        "survey_url": "http://127.0.0.1/s/tokentokentoken", "unsubscribe_url": "http://127.0.0.1/u/tokentokentoken",
    }  # fmt: skip
    mailbox: Any = client.application.extensions["boucle"].opener.open("mail")
    list(mailbox.send_surveys([Invitation(**{**words, **values})]))
    return f"/home/mails/mail/nps.{key.replace(':', '.')}"


def get(client: FlaskClient, path: str, **headers: str) -> TestResponse:
    return client.get(path, headers={"Host": "127.0.0.1:8000", **headers})


# --- who sees it ----------------------------------------------------------------------------------------------------


def test_reader_from_elsewhere_sees_a_neutral_page(client: FlaskClient) -> None:
    mail = write_mail(client)
    page = client.get("/", headers=STRANGER)
    assert page.status_code == 200
    assert "Boucle is running" in page.text
    for secret in ("Acme", "Ada", "customers.csv", "relationship"):
        assert secret not in page.text
    for path in ("/home/live", mail, f"{mail}/body"):
        assert client.get(path, headers=STRANGER).status_code == 404


def test_reader_behind_a_proxy_sees_the_neutral_page(client: FlaskClient) -> None:
    assert "Acme" not in get(client, "/", **{"X-Forwarded-For": "127.0.0.1"}).text
    assert get(client, "/home/live", **{"X-Forwarded-For": "127.0.0.1"}).status_code == 404


# --- what it shows --------------------------------------------------------------------------------------------------


def test_newcomer_sees_workspace_connections_and_what_to_do(client: FlaskClient) -> None:
    page = get(client, "/").text
    assert "<title>Acme · Boucle</title>" in page
    for word in ("crm", "mail", "relationship", "customers.csv", "ada@acme.example"):
        assert word in page
    assert "./run flask tick" in page  # this process has no worker


def test_page_speaks_the_language_of_its_reader(client: FlaskClient) -> None:
    french = get(client, "/", **{"Accept-Language": "fr-BE,fr;q=0.9,en;q=0.5"}).text
    assert '<html lang="fr">' in french
    assert "Le fichier clients tel qu’il est maintenant" in french
    assert '<html lang="en">' in get(client, "/", **{"Accept-Language": "de"}).text
    assert ENGLISH.keys() == FRENCH.keys()


def test_trademark_notice_stands_in_every_footer(client: FlaskClient) -> None:
    for page in (get(client, "/"), client.get("/", headers=STRANGER), get(client, "/nowhere")):
        assert "Bain &amp; Company" in page.text


def test_mails_are_listed_the_newest_first(client: FlaskClient) -> None:
    write_mail(client, "a1:invite", name="Ada")
    write_mail(client, "b2:invite", name="Bo")
    page = get(client, "/").text
    assert page.index(">Bo<") < page.index(">Ada<")
    assert "just now" in page


def test_mail_is_shown_in_a_frame_that_can_do_nothing(client: FlaskClient) -> None:
    path = write_mail(client, html=f"<html><head></head><body>{EVIL}<a href='http://127.0.0.1/s/x'>9</a></body></html>")
    page = get(client, path)
    assert page.status_code == 200
    assert EVIL not in page.text
    assert "Hello in text" in page.text
    (frame,) = re.findall(r"<iframe[^>]*>", page.text)
    assert 'sandbox="allow-popups allow-popups-to-escape-sandbox"' in frame
    body = get(client, f"{path}/body")
    policy = body.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert re.search(r"sandbox allow-popups", policy)
    assert "allow-scripts" not in policy
    assert '<head><base target="_blank">' in body.text


def test_words_of_a_mail_are_text_in_the_page(client: FlaskClient) -> None:
    write_mail(client, name='<b onclick="x">Ada</b>', subject="<script>1</script>")
    page = get(client, "/").text
    assert "<script>1" not in page
    assert "<b onclick" not in page


@pytest.mark.parametrize(
    "path",
    [
        "/home/mails/mail/nps.absent",
        "/home/mails/mail/..%2f..%2fworkspace.toml",
        "/home/mails/mail/nps...%2f..%2fworkspace",
        "/home/mails/crm/nps.a1.invite",
        "/home/mails/absent/nps.a1.invite",
        "/home/mails/mail/%00",
    ],
)
def test_mail_that_is_none_is_not_found(client: FlaskClient, path: str) -> None:
    for where in (path, f"{path}/body"):
        answer = get(client, where)
        assert answer.status_code == 404
        assert "workspace]" not in answer.text


def test_file_that_is_gone_is_named_and_the_page_stands(client: FlaskClient, site: Installation) -> None:
    (site.folder / "customers.csv").unlink()
    page = get(client, "/")
    assert page.status_code == 200
    assert "customers.csv has no customers to show, or cannot be read now" in page.text


def test_answered_rows_of_the_file_come_first(client: FlaskClient, site: Installation) -> None:
    lines = (site.folder / "customers.csv").read_text(encoding="utf-8").splitlines()
    lines = [lines[0] + ",nps_score,nps_comment", *(f"{line},," for line in lines[1:-1]), lines[-1] + ",7,<i>fine</i>"]
    (site.folder / "customers.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    page = get(client, "/").text
    table = page[page.index('id="file"') :]
    assert table.index("dot@dash.example") < table.index("ada@acme.example")
    assert "&lt;i&gt;fine" in table
    assert "<i>fine" not in page


def test_workspace_that_is_not_live_says_so(tmp_path: Path) -> None:
    trial = WORKSPACE.replace('name = "Acme"', 'name = "Acme"\nlive = false\ntest_recipients = ["me@acme.example"]')
    app = Installation(tmp_path).set_up(trial).app()
    assert "The workspace is not live" in get(app.test_client(), "/").text
    app.extensions["boucle"].store.close()


def test_moved_clock_is_shown(site: Installation) -> None:
    app = site.moved(91).app()
    assert "The clock is moved by 91 days" in get(app.test_client(), "/").text
    app.extensions["boucle"].store.close()


# --- its refresh ----------------------------------------------------------------------------------------------------


def test_refresh_sends_nothing_while_nothing_has_changed(client: FlaskClient) -> None:
    (shown,) = re.findall(r'name="shown" value="(\w+)"', get(client, "/").text)
    same = get(client, f"/home/live?shown={shown}")
    assert (same.status_code, same.data) == (204, b"")
    write_mail(client)
    changed = get(client, f"/home/live?shown={shown}")
    assert changed.status_code == 200
    assert "Ada Promoter" in changed.text
    (now,) = re.findall(r'name="shown" value="(\w+)"', changed.text)
    assert get(client, f"/home/live?shown={now}").status_code == 204


def numbers(**values: Any) -> dict[str, Any]:
    return {"connections": [{"name": "crm", "state": values.get("state", "ok"), "records": 3}]}


def campaign(asked: int = 0, answered: int = 0, planned_at: int | None = None) -> CampaignNumbers:
    touches = {"handed_over": asked - answered, "answered": answered}
    return CampaignNumbers("relationship", "active", "", 1, planned_at, {}, touches, asked)


@pytest.mark.parametrize(
    ("page", "has_worker", "step"),
    [
        (Page(numbers=numbers()), True, ("next_apply", "./run flask apply workspace.toml")),
        (Page("Acme", numbers=numbers(state="broken")), True, ("next_broken", "./run flask connections check crm")),
        (Page("Acme", numbers=numbers()), False, ("next_tick", "./run flask tick")),
        (Page("Acme", numbers=numbers()), True, ("next_wait", "")),
        (
            Page("Acme", numbers=numbers(), campaigns=[campaign(planned_at=5)]),
            True,
            ("next_nobody", "./run flask preview relationship"),
        ),
        (Page("Acme", numbers=numbers(), campaigns=[campaign(3)], mails=["one"]), True, ("next_open", "")),  # type: ignore[list-item]
        (
            Page("Acme", numbers=numbers(), campaigns=[campaign(3, 1)]),
            True,
            ("next_answered", "./run flask why ADDRESS"),
        ),
    ],
)
def test_what_to_do_next(page: Page, has_worker: bool, step: tuple[str, str]) -> None:
    assert next_step(page, has_worker) == step


def test_worker_is_only_spoken_of_in_numbers_when_it_is_late() -> None:
    assert worker_text(3.0, True, ENGLISH) == ENGLISH["worker_on"]
    assert "120 s ago" in worker_text(120.4, True, ENGLISH)
    assert worker_text(None, True, ENGLISH) == ENGLISH["worker_starting"]
    assert worker_text(3.0, False, ENGLISH) == ENGLISH["worker_off"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "just now"), (59, "just now"), (60, "1 min ago"), (7199, "1 h ago"), (86_400 * 3, "3 d ago")],
)
def test_how_long_ago(seconds: int, text: str) -> None:
    now = datetime(2026, 12, 1, tzinfo=UTC)
    assert ago(ENGLISH, now, now - timedelta(seconds=seconds)) == text


# --- errors ---------------------------------------------------------------------------------------------------------


def test_address_that_is_none_gets_a_friendly_page(client: FlaskClient) -> None:
    page = get(client, "/nowhere")
    assert page.status_code == 404
    assert "There is nothing at this address" in page.text
    assert get(client, "/nowhere", **{"Accept-Language": "fr"}).text.count("Il n’y a rien à cette adresse") >= 1


def test_wrong_method_is_told_with_the_right_ones(client: FlaskClient) -> None:
    answer = client.post("/", headers={"Host": "127.0.0.1"})
    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]


def test_page_that_fails_says_so_without_a_stack_trace(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret inside")

    monkeypatch.setattr("web.home.views.gather", fail)
    client.application.config["PROPAGATE_EXCEPTIONS"] = False
    answer = get(client, "/")
    assert answer.status_code == 500
    assert "Something went wrong on our side" in answer.text
    assert "secret inside" not in answer.text


@pytest.mark.parametrize(
    ("path", "type_"),
    [
        ("/static/tokens.css", "text/css"),
        ("/static/icon.svg", "image/svg+xml"),
        ("/static/vendor/bootstrap.min.css", "text/css"),
        ("/static/vendor/htmx.min.js", "javascript"),
    ],
)
def test_assets_come_from_here(client: FlaskClient, path: str, type_: str) -> None:
    answer = get(client, path)
    assert answer.status_code == 200
    assert type_ in answer.headers["Content-Type"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_unknown_asset_is_not_found(client: FlaskClient) -> None:
    for name in ("x.js", "..%2f__init__.py", "bootstrap.css"):
        assert get(client, f"/static/vendor/{name}").status_code == 404
