"""What every survey page is made of: wording, brand, colour, and who is shown a page of whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import Response, abort, current_app, make_response, render_template, request, url_for

from core.jobs.context import Context
from core.storage import survey_page
from core.storage.survey_page import SurveyLink
from web.survey.colour import readable_on, text_on
from web.survey.form import HONEYPOT
from web.survey.texts import Texts, language_of, texts_in

LARGEST_LOGO = 512 * 1024
LOGO_TYPES = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


def page(template: str, link: SurveyLink | None, texts: Texts, **values: Any) -> Response:
    """A page of this link's campaign; of no campaign where the link is none of ours."""
    survey = link.campaign.survey if link else None
    return make_response(
        render_template(
            template,
            t=texts,
            brand=_brand(link),
            theme=url_for("survey.theme", colour=survey.colour[1:].lower()) if survey else "",
            logo=url_for("survey.logo", campaign=link.campaign.name) if link and survey and survey.logo else "",
            progress=survey.progress if survey else False,
            anonymous=survey.anonymous if survey else False,
            honeypot=HONEYPOT,
            **values,
        )
    )


def say(texts: Texts, message: str, status: int, link: SurveyLink | None = None) -> Response:
    """A page that only says something."""
    title, more = getattr(texts, message), getattr(texts, f"{message}_more")
    response = page("survey/message.html", link, texts, title=title, more=more)
    response.status_code = status
    return response


def texts_of(link: SurveyLink) -> Texts:
    """In the language the mail had; where nobody knows the person's, in the reader's."""
    offered = link.workspace.languages
    written = link.language or request.accept_languages.best_match(offered)
    return texts_in(language_of(written, offered), _brand(link))


def texts_for_anybody() -> Texts:
    """Where nobody knows whose link it was: in the reader's language."""
    return texts_in(request.accept_languages.best_match(("en", "fr")) or "en", "")


def context() -> Context:
    """The world of this application."""
    found: Context = current_app.extensions["boucle"]
    return found


def _brand(link: SurveyLink | None) -> str:
    return "" if link is None else link.campaign.survey.brand or link.workspace.name


# --- what pages and mails load --------------------------------------------------------------------------------------


def theme(colour: str) -> Response:
    """The campaign's colour as a style sheet: the policy of the pages allows no style in the page."""
    if len(colour) != 6 or any(digit not in "0123456789abcdef" for digit in colour):
        abort(404)
    accent = f"#{colour}"
    lines = (
        f":root {{ --accent: {accent}; --on-accent: {text_on(accent)};"
        f" --accent-ink: {readable_on(accent, '#ffffff', '#1c2430')};"
        f" --accent-ink-dark: {readable_on(accent, '#171b21', '#e9edf3')}; }}\n"
    )
    response = Response(lines, mimetype="text/css")
    response.headers["Cache-Control"] = "public, max-age=86400"
    return response


def logo(campaign: str) -> Response:
    """The logo of a campaign, a picture and nothing else."""
    with context().store.read() as tx:
        path = Path(survey_page.logo_of(tx, campaign) or "none")
    kind = LOGO_TYPES.get(path.suffix.lower())
    try:
        content = path.read_bytes() if kind else b""
    except OSError:
        content = b""
    if kind is None or not content or len(content) > LARGEST_LOGO:
        abort(404)
    response = Response(content, mimetype=kind)
    response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
    response.headers["Cache-Control"] = "public, max-age=3600"
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"  # mails show it, too
    return response
