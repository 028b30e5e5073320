"""The survey page and the unsubscribe page. Fetching them changes nothing; a form that is sent does.

A vendor's link scanner may fetch every link, in any order, run scripts and even send forms it finds: GET and HEAD leave
one row of `hits` and nothing else, and what a form brings is judged by `core.answers` (vendors' scanners: see there).
An answer that looks like a machine's is stored as suspect, and the page asks whether it is the reader's own
(`survey.confirm`).
"""

from __future__ import annotations

import sys
from typing import Any

from flask import Blueprint, Response, abort, current_app, request, url_for

from core.answers import STRONG, Given, Signal, Verdict, clean_comment, verdict
from core.scores import category
from core.storage import hits, responses, survey_page
from core.storage.store import Transaction
from core.storage.survey_page import SurveyLink
from web.survey import pages
from web.survey.fetches import Fetch, FetchLog
from web.survey.form import Posted, network_of, read_form, score_in, token_in
from web.survey.pages import context, page, say, texts_for_anybody, texts_of
from web.survey.tokens import Nonce, Step, issue_nonce, read_nonce

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
QUICK_MS = 1_000
ONE_CLICK = ("List-Unsubscribe", "One-Click")

blueprint = Blueprint(
    "survey", __name__, template_folder="templates", static_folder="static", static_url_path="/survey/static"
)
blueprint.add_url_rule("/survey/theme/<colour>.css", view_func=pages.theme)
blueprint.add_url_rule("/survey/logo/<campaign>", view_func=pages.logo)


@blueprint.after_request
def _private(response: Response) -> Response:
    """No cache, no index, nothing from elsewhere. The style sheets and logos are the same for everybody."""
    headers = response.headers
    headers.setdefault("Content-Security-Policy", POLICY)
    headers.setdefault("X-Robots-Tag", "noindex, nofollow")
    headers.setdefault("Cache-Control", "no-store, private")
    return response


@blueprint.before_app_request
def _lead_nowhere() -> None:
    """A doubled slash is redirected to the single one, but an address with a line end fits into no header."""
    if request.routing_exception is not None and any(end in request.path for end in "\r\n"):
        abort(404)


# --- the survey -----------------------------------------------------------------------------------------------------


@blueprint.get("/s/<token>")
@blueprint.get("/s/<token>/")
@blueprint.get("/s/<token>/<path:rest>")
def ask(token: str, rest: str = "") -> Response:
    """The page. The score in the address is only preselected."""
    token = token_in(token)
    score = score_in(rest, request.query_string)
    built = context()
    with built.store.read() as tx:
        link = survey_page.read_link(tx, token)
        answer = responses.find_answer(tx, link.touch, token, built.keyring) if link else None
    if link is None:
        return say(texts_for_anybody(), "unknown", 404)
    now = built.clock.now_ms()
    _note_fetch(token, score, now)
    if link.has_expired(now):
        return say(texts_of(link), "expired", 410, link)
    answered = answer is not None and answer.verdict is Verdict.CONFIRMED
    if link.touch.answered and not answered and link.touch.anonymous:
        return say(texts_of(link), "other_link", 200, link)
    if answered and not responses.may_edit(link.touch, now):
        return say(texts_of(link), "closed", 200, link)
    chosen = score if score is not None or answer is None or not answered else answer.score
    comment = answer.comment if answer is not None and answered else None
    return _form(link, token, chosen, comment or "", notice="answered_before" if answered else "")


@blueprint.post("/s/<token>")
@blueprint.post("/s/<token>/")
@blueprint.post("/s/<token>/<path:rest>")
def answer(token: str, rest: str = "") -> Response:
    """Take an answer, or a "rather not"."""
    token = token_in(token)
    built = context()
    posted = read_form(request.form)
    with built.store.read() as tx:
        link = survey_page.read_link(tx, token)
    if link is None:
        return say(texts_for_anybody(), "unknown", 404)
    now = built.clock.now_ms()
    if link.has_expired(now):
        return say(texts_of(link), "expired", 410, link)
    nonce = read_nonce(built.keyring, token, posted.nonce, now)
    comment = clean_comment(posted.comment)
    if nonce is None and (posted.nonce or posted.declines):
        return _form(link, token, posted.score, comment or "", notice="reload")
    if posted.score is None and not posted.declines:
        return _form(link, token, None, comment or "", notice="choose_score", status=422)
    try:
        return _decline(link, token) if posted.declines else _record(link, token, posted, comment, nonce)
    except Exception:  # a full disk, a database that is busy for long: what was typed is not lost
        current_app.log_exception(sys.exc_info())
        return _form(link, token, posted.score, comment or "", notice="not_stored", status=503)


def _record(link: SurveyLink, token: str, posted: Posted, comment: str | None, nonce: Nonce | None) -> Response:
    built = context()
    texts = texts_of(link)
    band = category(posted.score or 0)
    with built.store.write() as tx:
        now = built.clock.now_ms()
        _note_post(tx, token, now, trapped=posted.trapped)
        given = Given(
            score=posted.score or 0,
            # a field that was there and is empty takes back what stood in it
            comment=comment if comment or posted.comment is None else "",
            language=texts.language,
            question=texts.follow_up(band),
            signals=_signals(tx, link, token, posted, nonce, now),
        )
        recorded = responses.record_answer(tx, link.touch, token, given, built.keyring, now)
    if recorded.edit_refused:
        return say(texts, "other_link" if recorded.response_id is None else "closed", 200, link)
    if verdict(given.signals) is Verdict.SUSPECT and link.campaign.survey.confirm != "never":
        nonce_text = issue_nonce(built.keyring, token, given.score, now, Step.CONFIRM)
        return page("survey/confirm.html", link, texts, given=given, nonce=nonce_text, token=token)
    _wake()
    step = Step.CONFIRMED if recorded.verdict is Verdict.CONFIRMED else Step.ASK
    return page(
        "survey/thanks.html", link, texts,
        score=given.score, question=given.question, partial=recorded.partial, token=token,
        may_change=responses.may_edit(link.touch, now),
        nonce=issue_nonce(built.keyring, token, given.score, now, step),
    )  # fmt: skip


def _signals(
    tx: Transaction, link: SurveyLink, token: str, posted: Posted, nonce: Nonce | None, now: int
) -> tuple[Signal, ...]:
    """What the link's fetches and the request itself tell, the strong ones first."""
    confirmed = _has_confirmed(nonce, now)
    noticed = {
        Signal.HONEYPOT: posted.trapped,
        Signal.NO_NONCE: nonce is None,
        Signal.UNCONFIRMED: link.campaign.survey.confirm == "always" and not confirmed,
        Signal.QUICK: nonce is not None and now - nonce.issued_at < QUICK_MS,
        Signal.NO_LANGUAGE: not request.headers.get("Accept-Language"),
    }
    fetched = hits.signals_for(tx, token, link.touch.asked_at, now)
    # whoever said that the answer is theirs is not doubted for what came by before them
    told = {signal for signal in fetched if not (confirmed and signal in STRONG)}
    told |= {signal for signal, speaks in noticed.items() if speaks}
    return tuple(signal for signal in Signal if signal in told)


def _has_confirmed(nonce: Nonce | None, now: int) -> bool:
    """Whether somebody read the question "is this your answer?" and said yes: at once, nobody has read it."""
    if nonce is None or nonce.step is Step.ASK:
        return False
    return nonce.step is Step.CONFIRMED or now - nonce.issued_at >= QUICK_MS


def _decline(link: SurveyLink, token: str) -> Response:
    built = context()
    with built.store.write() as tx:
        now = built.clock.now_ms()
        _note_post(tx, token, now)
        declined = responses.decline(tx, link.touch, now)
    _wake()
    return say(texts_of(link), "declined" if declined else "closed", 200, link)


def _form(link: SurveyLink, token: str, score: int | None, comment: str, *, notice: str, status: int = 200) -> Response:
    built = context()
    texts = texts_of(link)
    response = page(
        "survey/ask.html", link, texts,
        score=score, comment=comment, token=token, notice=getattr(texts, notice) if notice else "",
        is_error=notice not in ("", "answered_before"),
        question=texts.follow_up(None if score is None else category(score)),
        nonce=issue_nonce(built.keyring, token, score, built.clock.now_ms()),
    )  # fmt: skip
    response.status_code = status
    return response


# --- no more surveys ------------------------------------------------------------------------------------------------


@blueprint.get("/u/<token>")
@blueprint.get("/u/<token>/")
def stop(token: str) -> Response:
    """Asks. Changes nothing: scanners fetch this, too."""
    return _stop_page(token_in(token))


@blueprint.post("/u/<token>")
@blueprint.post("/u/<token>/")
def stopped(token: str) -> Response:
    """RFC 8058: a mail program's one click acts at once, without a nonce; the page's button brings one."""
    token = token_in(token)
    built = context()
    one_click = request.form.get(ONE_CLICK[0]) == ONE_CLICK[1]
    if not one_click:
        now = built.clock.now_ms()
        if read_nonce(built.keyring, token, request.form.get("nonce", ""), now, stops=True) is None:
            return _stop_page(token)
    with built.store.write() as tx:
        link = survey_page.read_link(tx, token)
        if link is not None:
            by = "one_click" if one_click else "link"
            survey_page.opt_out_by_link(tx, link.touch.touch_id, by, built.clock.now_ms())
    if link is None:
        return say(texts_for_anybody(), "unknown", 404)
    _wake()
    return say(texts_of(link), "stopped", 200, link)


def _stop_page(token: str) -> Response:
    built = context()
    with built.store.read() as tx:
        link = survey_page.read_link(tx, token)
    if link is None:
        return say(texts_for_anybody(), "unknown", 404)
    nonce = issue_nonce(built.keyring, token, None, built.clock.now_ms(), Step.STOP)
    action = url_for("survey.stopped", token=token)
    return page("survey/stop.html", link, texts_of(link), nonce=nonce, action=action)


# --- around ---------------------------------------------------------------------------------------------------------


def _note_fetch(token: str, score: int | None, now: int) -> None:
    """The page is shown whether or not its fetching can be written down."""
    log: FetchLog = current_app.extensions.setdefault("boucle_fetches", FetchLog(context().store))
    agent = request.headers.get("User-Agent", "")
    log.note(Fetch(token, request.method, score, agent, network_of(request.remote_addr), now))


def _note_post(tx: Transaction, token: str, now: int, *, trapped: bool = False) -> None:
    hits.note_hit(
        tx, token,
        method="POST", score=None, honeypot=trapped, agent=request.headers.get("User-Agent", ""),
        network=network_of(request.remote_addr), now=now,
    )  # fmt: skip


def _wake() -> None:
    """Scores are written back within seconds where a worker runs here; elsewhere the sweep finds them."""
    worker: Any = current_app.extensions.get("boucle_worker")
    if worker is not None:
        worker.wake("push_scores")
