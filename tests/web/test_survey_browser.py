"""The survey in a real browser: by keyboard, on a phone, without script, in the dark, read out aloud."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright
from werkzeug.serving import make_server

from core.storage import schema
from core.workspace import Survey
from tests.web.app import Installation
from tests.web.survey import READY, answers, asked, link_of, rows
from tests.web.test_composer import ADA, COMPOSER

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CUSTOMERS = "id,first_name,last_name,email,language\n" + "".join(
    f"{number},Zoé,Nom{number},zoe{number}@firm{number}.example,{'fr' if number % 2 else 'en'}\n"
    for number in range(1, 41)
)
WORKSPACE = READY.replace('name = "Acme"', 'name = "Acme"\nlanguages = ["en", "fr"]', 1)


class Site:
    """A served installation, and links nobody has used yet."""

    def __init__(self, installed: Installation, url: str) -> None:
        self.installed = installed
        self.url = url
        self._free = {"fr": iter(range(1, 41, 2)), "en": iter(range(2, 41, 2))}

    def link(self, language: str = "en") -> str:
        number = next(self._free[language])
        return self.url + link_of(self.installed, f"zoe{number}@firm{number}.example")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    installed = asked(tmp_path_factory.mktemp("survey"), WORKSPACE, CUSTOMERS)
    server = make_server("127.0.0.1", 0, installed.app(), threaded=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield Site(installed, f"http://127.0.0.1:{server.port}")
    server.shutdown()
    thread.join()


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(chromium), args=["--no-sandbox"])
        yield started
        started.close()


def open_page(browser: Browser, url: str, **options: Any) -> Page:
    page = browser.new_context(**{"locale": "en-GB", **options}).new_page()
    page.goto(url)
    return page


def latest(site: Site) -> Any:
    return max(answers(site.installed), key=lambda row: row.updated_at)


def test_by_keyboard_alone(browser: Browser, site: Site) -> None:
    page = open_page(browser, site.link())
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    for _ in range(9):
        page.keyboard.press("ArrowRight")
    expect(page.locator("input[value='9']")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.type("Kind people")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Send my answer")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    assert (latest(site).score, latest(site).comment) == (9, "Kind people")


def test_without_script_the_score_first_and_the_comment_after(browser: Browser, site: Site) -> None:
    page = open_page(browser, site.link(), java_script_enabled=False, viewport={"width": 390, "height": 844})
    page.locator("label", has_text="7").first.click()
    page.get_by_role("button", name="Send my answer").click()
    page.get_by_label("What would make it a 9 or a 10?").fill("Fewer calls")
    page.get_by_role("button", name="Add this").click()
    expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    assert (latest(site).score, latest(site).comment) == (7, "Fewer calls")


def test_the_question_follows_the_score_without_leaving_the_page(browser: Browser, site: Site) -> None:
    page = open_page(browser, site.link("fr"))
    for score, question in (("10", "appréciez-vous le plus"), ("8", "un 9 ou un 10"), ("2", "n’a pas été")):
        page.locator(f"input[value='{score}']").check()
        expect(page.locator("#question")).to_contain_text(question)
    expect(page.locator("#step")).to_contain_text("Étape 2 sur 2")


def test_a_forgotten_score_is_asked_for_by_the_browser(browser: Browser, site: Site) -> None:
    page = open_page(browser, site.link())
    page.get_by_role("button", name="Send my answer").click()
    assert page.evaluate("document.querySelector('input[name=score]').validity.valueMissing")
    expect(page.get_by_role("button", name="Send my answer")).to_be_visible()


def test_rather_not_needs_no_score(browser: Browser, site: Site) -> None:
    page = open_page(browser, site.link())
    page.get_by_role("button", name="rather not").click()
    expect(page.get_by_role("heading", name="no answer needed")).to_be_visible()


def test_a_browser_that_only_looks_leaves_nothing(browser: Browser, site: Site) -> None:
    before = len(answers(site.installed))
    page = open_page(browser, site.link() + "/10")
    page.wait_for_timeout(2_500)
    page.mouse.wheel(0, 400)
    page.reload()
    page.wait_for_timeout(1_000)
    assert len(answers(site.installed)) == before


def test_a_browser_that_presses_at_once_is_noted_as_quick(browser: Browser, site: Site) -> None:
    page = open_page(browser, site.link() + "/10")
    page.evaluate("document.querySelector('button.main').click()")
    expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    assert "quick" in latest(site).signals


def test_the_unsubscribe_page_asks_and_then_does(browser: Browser, site: Site) -> None:
    page = open_page(browser, site.link("fr").replace("/s/", "/u/"))
    before = sum(row.opted_out_at is not None for row in rows(site.installed, schema.people))
    page.get_by_role("button", name="Oui, plus d’enquêtes").click()
    expect(page.get_by_role("heading", name="C’est fait")).to_be_visible()
    assert sum(row.opted_out_at is not None for row in rows(site.installed, schema.people)) == before + 1


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1360, "light")])
def test_whoever_comes_after_a_scanner_is_asked_once_more_and_counts(
    browser: Browser, site: Site, width: int, scheme: str
) -> None:
    link = site.link("fr")
    for score in (0, 10):
        browser.new_page().goto(f"{link}/{score}")
    options: dict[str, Any] = {"viewport": {"width": width, "height": 844}, "color_scheme": scheme}
    page = open_page(browser, link + "/4", **options)
    page.locator("#comment").fill("Deux lignes,\nc’est <b>assez</b>")
    page.get_by_role("button", name="Envoyer ma réponse").click()
    expect(page.get_by_role("heading", name="bien votre réponse")).to_be_visible()
    check(page, width)
    assert latest(site).verdict == "suspect"
    page.wait_for_timeout(1_100)  # to read it
    page.get_by_role("button", name="Oui, c’est ma réponse").click()
    expect(page.get_by_role("heading", name="Merci")).to_be_visible()
    assert (latest(site).verdict, latest(site).score) == ("confirmed", 4)
    assert latest(site).comment == "Deux lignes,\nc’est <b>assez</b>"


def test_two_tabs_and_two_scores_the_last_one_counts(browser: Browser, site: Site) -> None:
    link = site.link()
    one, other = open_page(browser, link), open_page(browser, link)
    for page, score in ((one, "3"), (other, "8")):
        page.locator(f"input[value='{score}']").check()
        page.get_by_role("button", name="Send my answer").click()
        expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    row = latest(site)
    assert (row.score, row.version) == (8, 2)
    kept = [one for one in rows(site.installed, schema.response_versions) if one.response_id == row.id]
    assert sorted((version.version, version.score) for version in kept) == [(1, 3), (2, 8)]


def test_the_choice_is_seen_where_colours_are_forced(browser: Browser, site: Site) -> None:
    page = open_page(browser, site.link() + "/9", forced_colors="active")
    colours = [
        page.locator(f"input[value='{score}'] + span").evaluate("one => getComputedStyle(one).backgroundColor")
        for score in (8, 9)
    ]
    assert colours[0] != colours[1]


@pytest.mark.parametrize("width", [390, 1360])
@pytest.mark.parametrize("language", ["en", "fr"])
def test_the_mail_fits_the_screen_and_breaks_no_rule_of_accessibility(
    browser: Browser, language: str, width: int
) -> None:
    settings = {**Survey().model_dump(mode="json"), "brand": "Boulangerie Müller & Fils", "colour": "#ffd400"}
    request = replace(ADA, language=language, kind="reminder", survey={**settings, "address": "1 rue du Port, Nantes"})
    page = browser.new_context(viewport={"width": width, "height": 844}).new_page()
    page.set_content(COMPOSER.compose(request).html)
    check(page, width, {"rules": {"landmark-one-main": {"enabled": False}, "region": {"enabled": False}}})  # no page
    boxes: list[Any] = [one.bounding_box() for one in page.locator("a.score").all()]
    assert len(boxes) == 11
    assert all(box["height"] >= 42 and box["width"] >= 36 for box in boxes)
    assert len({round(box["y"]) for box in boxes}) == (2 if width == 390 else 1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1360])
def test_pages_break_no_rule_of_accessibility_and_fit_the_screen(
    browser: Browser, site: Site, width: int, scheme: str
) -> None:
    options = {"viewport": {"width": width, "height": 844}, "color_scheme": scheme}
    complaints: list[str] = []
    for language in ("en", "fr"):
        link = site.link(language)
        page = open_page(browser, link + "/3", **options)
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.reload()
        check(page, width)
        page.locator("button.main").click()
        check(page, width)
        page.goto(link.replace("/s/", "/u/"))
        check(page, width)
        assert page.goto(site.url + "/s/nothing").status == 404  # type: ignore[union-attr]
        check(page, width)
    assert [one for one in complaints if "404" not in one] == []


def check(page: Page, width: int, options: dict[str, Any] | None = None) -> None:
    found = Axe().run(page, options=options)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_targets_are_large_enough_for_thumbs(browser: Browser, site: Site) -> None:
    page = open_page(browser, site.link(), viewport={"width": 390, "height": 844})
    for box in page.locator(".scale label").all():
        size = box.bounding_box()
        assert size is not None and size["width"] >= 44 and size["height"] >= 44
