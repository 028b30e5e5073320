"""The loop as a newcomer sees it, in a browser: open a mail, answer it, see the score arrive in the customer file."""

from __future__ import annotations

import csv
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.web.app import Installation, answer_of, served, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow]

EVIL_MAIL = """From: a@acme.example\r
To: Eve <eve@acme.example>\r
Subject: evil\r
MIME-Version: 1.0\r
Content-Type: text/html; charset=utf-8\r
\r
<html><head></head><body><script>parent.document.title = "taken"</script>
<img src="http://127.0.0.1:{port}/seen.png"><p id="done">done</p></body></html>\r
"""
SECONDS = 20_000  # until what the worker does must be seen, in the unit of Playwright


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("site")).set_up()


@pytest.fixture(scope="module")
def url(site: Installation) -> Iterator[str]:
    """A service at work, three mails written."""
    with served(site) as (address, process):
        wait_until(lambda: "Open one of the mails" in answer_of(address)[1] or process.poll() is not None)
        yield address


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(chromium), args=["--no-sandbox"])
        yield started
        started.close()


def open_page(browser: Browser, **options: Any) -> tuple[Page, list[str]]:
    """A page, and what its browser complains about: a policy that is broken, a script that fails."""
    page = browser.new_context(**{"locale": "en-GB", **options}).new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return page, complaints


def score_of(site: Installation, customer: str) -> str:
    with (site.folder / "customers.csv").open(encoding="utf-8", newline="") as file:
        return {row["id"]: row.get("nps_score", "") for row in csv.DictReader(file)}[customer]


def test_newcomer_answers_a_mail_and_sees_the_score_arrive(browser: Browser, url: str, site: Installation) -> None:
    page, complaints = open_page(browser)
    page.goto(url)
    expect(page.get_by_role("status")).to_contain_text("Open one of the mails")
    page.get_by_role("link", name="Ada Promoter").click()
    mail = page.frame_locator("iframe")
    with page.context.expect_page() as opened:
        mail.get_by_role("link", name="9", exact=True).click()
    survey = opened.value
    expect(survey.locator("input[name=score][value='9']")).to_be_checked()
    survey.locator("textarea[name=comment]").fill("Quick, friendly.")
    survey.locator("form button[type=submit], form input[type=submit]").first.click()
    survey.wait_for_load_state()
    page.get_by_role("link", name="Back to the start page").click()
    row = page.locator("tr.is-answered", has_text="ada@acme.example")
    expect(row).to_contain_text("promoter", timeout=SECONDS)  # no reload: the page refreshes itself
    expect(row).to_contain_text("Quick, friendly.")
    assert score_of(site, "1") == "9"
    expect(
        page.get_by_role("region", name="Latest answers").or_(page.locator("section[aria-labelledby=scores]"))
    ).to_contain_text("Ada Promoter")
    expect(page.get_by_role("status")).to_contain_text("./run flask why ada@acme.example")
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1360, 390])
@pytest.mark.parametrize("locale", ["en-GB", "fr-FR"])
def test_pages_are_usable_by_everybody(browser: Browser, url: str, scheme: Any, width: int, locale: str) -> None:
    options = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme, "locale": locale}
    page, complaints = open_page(browser, bypass_csp=True, **options)  # the checker is a script of its own
    page.goto(url)
    mail = page.locator(".mails a").first.get_attribute("href")
    for path in ("/", str(mail), "/home/nowhere"):
        page.goto(url + path)
        found = Axe().run(page).response["violations"]
        assert [(one["id"], [node["target"] for node in one["nodes"]]) for one in found] == [], path
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} scrolls sideways"
    assert [one for one in complaints if "404" not in one] == []


def test_keyboard_keeps_its_place_when_the_page_refreshes(browser: Browser, url: str, site: Installation) -> None:
    page, _ = open_page(browser)
    page.goto(url)
    link = page.locator(".mails a").last
    link.focus()
    held = page.evaluate("document.activeElement.id")
    assert held.startswith("mail-")
    with page.expect_response("**/home/live?*") as refresh:
        pass
    assert refresh.value.status == 204
    site.flask("campaigns", "stop", "relationship")  # something to see
    expect(page.locator("[role=region][aria-labelledby=campaigns]")).to_contain_text("stopped", timeout=SECONDS)
    assert page.evaluate("document.activeElement.id") == held
    site.flask("campaigns", "resume", "relationship")


def test_mail_cannot_run_scripts_or_fetch_anything(browser: Browser, url: str, site: Installation) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tracker:
        tracker.settimeout(0.5)
        evil = site.folder / "mailbox" / "new" / "nps.evil.invite.eml"
        evil.write_text(EVIL_MAIL.format(port=tracker.getsockname()[1]), encoding="utf-8", newline="")
        page, _ = open_page(browser)
        page.goto(f"{url}/home/mails/mail/nps.evil.invite")
        expect(page.frame_locator("iframe").locator("#done")).to_have_text("done")
        assert page.title() == "evil · Boucle"
        with pytest.raises(TimeoutError):
            tracker.accept()  # nobody came
        evil.unlink()
