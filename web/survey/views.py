"""The survey page and the unsubscribe page. Fetching them changes nothing; a form that is sent does.

A vendor's link scanner may fetch every link, in any order, run scripts and even send forms it finds: GET and HEAD leave
one row of `hits` and nothing else, and what a form brings is judged by `core.answers` (vendors' scanners: see there).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import Blueprint, Response, abort, current_app, make_response, render_template, request, url_for

from core.answers import Given, Signal, Verdict, clean_comment
from core.jobs.context import Context
from core.scores import category
from core.storage import hits, responses, survey_page
from core.storage.survey_page import SurveyLink
from web.survey.colour import readable_on, text_on
from web.survey.form import HONEYPOT, Posted, network_of, read_form, score_in, token_in
from web.survey.texts import Texts, language_of, texts_in
from web.survey.tokens import Nonce, issue_nonce, read_nonce

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
QUICK_MS = 1_000
LARGEST_LOGO = 512 * 1024
LOGO_TYPES = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
ONE_CLICK = ("List-Unsubscribe", "One-Click")

blueprint = Blueprint(
    "survey", __name__, template_folder="templates", static_folder="static", static_url_path="/survey/static"
)


@blueprint.after_request
def _private(response: Response) -> Response:
    """No cache, no index, nothing from elsewhere. The style sheets and logos are the same for everybody."""
    headers = response.headers
    headers.setdefault("Content-Security-Policy", POLICY)
    headers.setdefault("X-Robots-Tag", "noindex, nofollow")
    headers.setdefault("Cache-Control", "no-store, private")
    return response


# --- the survey -----------------------------------------------------------------------------------------------------


@blueprint.get("/s/<token>")
@blueprint.get("/s/<token>/")
@blueprint.get("/s/<token>/<path:rest>")
def ask(token: str, rest: str = "") -> Response:
    """The page. The score in the address is only preselected."""
    token = token_in(token)
    score = score_in(rest, request.args)
    context = _context()
    with context.store.read() as tx:
        link = survey_page.read_link(tx, token)
        answer = responses.find_answer(tx, link.touch, token, context.keyring) if link else None
    if link is None:
        return _say(_anybody(), "unknown", 404)
    _note_fetch(token, score)
    now = context.clock.now_ms()
    if link.has_expired(now):
        return _say(_texts(link), "expired", 410, link)
    answered = answer is not None and answer.verdict is Verdict.CONFIRMED
    if link.touch.answered and not answered and link.touch.anonymous:
        return _say(_texts(link), "other_link", 200, link)
    if answered and not responses.may_edit(link.touch, now):
        return _say(_texts(link), "closed", 200, link)
    chosen = score if score is not None or answer is None or not answered else answer.score
    comment = answer.comment if answer is not None and answered else None
    return _form(link, token, chosen, comment or "", notice="answered_before" if answered else "")


@blueprint.post("/s/<token>")
@blueprint.post("/s/<token>/")
@blueprint.post("/s/<token>/<path:rest>")
def answer(token: str, rest: str = "") -> Response:
    """Take an answer, or a "rather not"."""
    token = token_in(token)
    context = _context()
    posted = read_form(request.form)
    with context.store.read() as tx:
        link = survey_page.read_link(tx, token)
    if link is None:
        return _say(_anybody(), "unknown", 404)
    now = context.clock.now_ms()
    if link.has_expired(now):
        return _say(_texts(link), "expired", 410, link)
    nonce = read_nonce(context.keyring, token, posted.nonce, now)
    comment = clean_comment(posted.comment)
    if nonce is None and (posted.nonce or posted.declines):
        return _form(link, token, posted.score, comment or "", notice="reload")
    if posted.declines:
        return _decline(link, token)
    if posted.score is None:
        return _form(link, token, None, comment or "", notice="choose_score", status=422)
    return _record(link, token, posted, comment, nonce)


def _record(link: SurveyLink, token: str, posted: Posted, comment: str | None, nonce: Nonce | None) -> Response:
    context = _context()
    texts = _texts(link)
    band = category(posted.score or 0)
    with context.store.write() as tx:
        now = context.clock.now_ms()
        _note_hit(tx, token, "POST", None, trapped=posted.trapped, now=now)
        given = Given(
            score=posted.score or 0,
            # a field that was there and is empty takes back what stood in it
            comment=comment if comment or posted.comment is None else "",
            language=texts.language,
            question=texts.follow_up(band),
            signals=(*hits.signals_for(tx, token, link.touch.asked_at, now), *_signals(nonce, now)),
        )
        recorded = responses.record_answer(tx, link.touch, token, given, context.keyring, now)
    if recorded.edit_refused:
        return _say(texts, "other_link" if recorded.response_id is None else "closed", 200, link)
    _wake()
    return _page(
        "survey/thanks.html", link, texts,
        score=posted.score, question=texts.follow_up(band), partial=recorded.partial,
        nonce=issue_nonce(context.keyring, token, posted.score, now), token=token,
    )  # fmt: skip


def _signals(nonce: Nonce | None, now: int) -> list[Signal]:
    """What the request itself tells."""
    noticed = {
        Signal.NO_NONCE: nonce is None,
        Signal.QUICK: nonce is not None and now - nonce.issued_at < QUICK_MS,
        Signal.NO_LANGUAGE: not request.headers.get("Accept-Language"),
    }
    return [signal for signal, speaks in noticed.items() if speaks]


def _decline(link: SurveyLink, token: str) -> Response:
    context = _context()
    with context.store.write() as tx:
        now = context.clock.now_ms()
        _note_hit(tx, token, "POST", None, now=now)
        declined = responses.decline(tx, link.touch, now)
    _wake()
    return _say(_texts(link), "declined" if declined else "closed", 200, link)


def _form(link: SurveyLink, token: str, score: int | None, comment: str, *, notice: str, status: int = 200) -> Response:
    context = _context()
    texts = _texts(link)
    page = _page(
        "survey/ask.html", link, texts,
        score=score, comment=comment, token=token, notice=getattr(texts, notice) if notice else "",
        is_error=notice in ("choose_score", "reload"),
        question=texts.follow_up(None if score is None else category(score)),
        nonce=issue_nonce(context.keyring, token, score, context.clock.now_ms()),
    )  # fmt: skip
    page.status_code = status
    return page


# --- no more surveys ------------------------------------------------------------------------------------------------


@blueprint.get("/u/<token>")
def stop(token: str) -> Response:
    """Asks. Changes nothing: scanners fetch this, too."""
    return _stop_page(token_in(token))


@blueprint.post("/u/<token>")
def stopped(token: str) -> Response:
    """RFC 8058: a mail program's one click acts at once, without a nonce; the page's button brings one."""
    token = token_in(token)
    context = _context()
    one_click = request.form.get(ONE_CLICK[0]) == ONE_CLICK[1]
    if not one_click:
        now = context.clock.now_ms()
        if read_nonce(context.keyring, token, request.form.get("nonce", ""), now) is None:
            return _stop_page(token)
    with context.store.write() as tx:
        link = survey_page.read_link(tx, token)
        if link is not None:
            by = "one_click" if one_click else "link"
            survey_page.opt_out_by_link(tx, link.touch.touch_id, by, context.clock.now_ms())
    if link is None:
        return _say(_anybody(), "unknown", 404)
    _wake()
    return _say(_texts(link), "stopped", 200, link)


def _stop_page(token: str) -> Response:
    context = _context()
    with context.store.read() as tx:
        link = survey_page.read_link(tx, token)
    if link is None:
        return _say(_anybody(), "unknown", 404)
    nonce = issue_nonce(context.keyring, token, None, context.clock.now_ms())
    return _page("survey/stop.html", link, _texts(link), nonce=nonce, token=token)


# --- what pages are made of -----------------------------------------------------------------------------------------


@blueprint.get("/survey/theme/<colour>.css")
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


@blueprint.get("/survey/logo/<campaign>")
def logo(campaign: str) -> Response:
    """The logo of a campaign, a picture and nothing else."""
    with _context().store.read() as tx:
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


def _page(template: str, link: SurveyLink | None, texts: Texts, **values: Any) -> Response:
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


def _say(texts: Texts, message: str, status: int, link: SurveyLink | None = None) -> Response:
    """A page that only says something."""
    title, more = getattr(texts, message), getattr(texts, f"{message}_more")
    response = _page("survey/message.html", link, texts, title=title, more=more)
    response.status_code = status
    return response


def _texts(link: SurveyLink) -> Texts:
    """In the language the mail had; where nobody knows the person's, in the reader's."""
    offered = link.workspace.languages
    written = link.language or request.accept_languages.best_match(offered)
    return texts_in(language_of(written, offered), _brand(link))


def _anybody() -> Texts:
    return texts_in(request.accept_languages.best_match(("en", "fr")) or "en", "")


def _brand(link: SurveyLink | None) -> str:
    return "" if link is None else link.campaign.survey.brand or link.workspace.name


# --- around ---------------------------------------------------------------------------------------------------------


def _note_fetch(token: str, score: int | None) -> None:
    """The page is shown whether or not its fetching can be written down."""
    context = _context()
    try:
        with context.store.write() as tx:
            _note_hit(tx, token, request.method, score, now=context.clock.now_ms())
    except Exception as error:
        context.log.warning("a fetched survey page was not noted: %s", type(error).__name__)


def _note_hit(tx: Any, token: str, method: str, score: int | None, *, now: int, trapped: bool = False) -> None:
    hits.note_hit(
        tx, token,
        method=method, score=score, honeypot=trapped, agent=request.headers.get("User-Agent", ""),
        network=network_of(request.remote_addr), now=now,
    )  # fmt: skip


def _wake() -> None:
    """Scores are written back within seconds where a worker runs here; elsewhere the sweep finds them."""
    worker = current_app.extensions.get("boucle_worker")
    if worker is not None:
        worker.wake("push_scores")


def _context() -> Context:
    found: Context = current_app.extensions["boucle"]
    return found
