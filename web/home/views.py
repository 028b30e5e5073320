"""The start page on `/`, its mails, and the neutral page that everybody else gets."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

from flask import Blueprint, Response, abort, current_app, render_template, request

from core.clock import Clock
from core.errors import BoucleError
from core.jobs.context import Context
from web.home.language import texts
from web.home.page import FILE_FIELDS, Page, gather, read_mail
from web.metrics import LATE_SECONDS
from web.security import is_local

#: A mail is somebody else's HTML: no script, no form, nothing from elsewhere; links open in a tab of their own.
MAIL_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none';"
    " frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox"
)
_HEAD = re.compile(r"<head[^>]*>", re.I)

blueprint = Blueprint("home", __name__)


@blueprint.get("/")
def start() -> str:
    """The start page, or for others a neutral one."""
    if not is_local():
        return render_template("home/elsewhere.html", t=texts())
    return render_template("home/start.html", **_values())


@blueprint.get("/home/live")
def live() -> Response:
    """The parts of the start page that change, for its own refresh; nothing where they are as the page shows them.

    A part that is put in anew loses its place in a scrolled list, so it is done only when there is something to see.
    """
    _only_here()
    values = _values()
    if request.args.get("shown") == values["shown"]:
        return Response(status=204)
    return Response(render_template("home/live.html", **values), mimetype="text/html")


@blueprint.get("/home/mails/<connection>/<letter_id>")
def mail(connection: str, letter_id: str) -> str:
    """One mail of the local mailbox, in a frame that can do nothing."""
    _only_here()
    return render_template("home/mail.html", t=texts(), connection=connection, mail=_read_mail(connection, letter_id))


@blueprint.get("/home/mails/<connection>/<letter_id>/body")
def body(connection: str, letter_id: str) -> Response:
    """The HTML of one mail, for that frame alone."""
    _only_here()
    found = _read_mail(connection, letter_id)
    response = Response(_opening_elsewhere(found.html), mimetype="text/html")
    response.headers["Content-Security-Policy"] = MAIL_POLICY
    return response


def _only_here() -> None:
    if not is_local():
        abort(404)


def _read_mail(connection: str, letter_id: str) -> Any:
    try:
        return read_mail(_context(), connection, letter_id)
    except BoucleError:
        abort(404)


def _opening_elsewhere(html: str) -> str:
    base = '<base target="_blank">'
    return _HEAD.sub(lambda head: head[0] + base, html, count=1) if _HEAD.search(html) else base + html


def _values() -> dict[str, Any]:
    context, settings = _context(), current_app.config["BOUCLE"]
    page, t = gather(context), texts()
    values = {
        "t": t,
        "page": page,
        "settings": settings,
        "next": next_step(page, settings.embedded_worker),
        "worker": worker_text(page.sweep_age, settings.embedded_worker, t),
        "file_fields": FILE_FIELDS,
        # mails are dated by the system, whatever BOUCLE_CLOCK_OFFSET says
        "ago": partial(ago, t, Clock().now()),
    }
    return {**values, "shown": _digest(render_template("home/live.html", **values, shown=""))}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def worker_text(sweep_age: float | None, has_worker: bool, t: Mapping[str, str]) -> str:
    """What the worker does; its age only where that is worth a thought."""
    if not has_worker:
        return t["worker_off"]
    if sweep_age is None:
        return t["worker_starting"]
    return t["worker_on"] if sweep_age <= LATE_SECONDS else t["worker_late"].format(seconds=round(sweep_age))


def ago(t: Mapping[str, str], now: datetime, moment: datetime) -> str:
    """How long ago something was, in the coarsest unit that tells it."""
    seconds = max(0.0, (now - moment).total_seconds())
    for unit, length in (("ago_days", 86400), ("ago_hours", 3600), ("ago_minutes", 60)):
        if seconds >= length:
            return t[unit].format(count=int(seconds // length))
    return t["ago_now"]


def next_step(page: Page, has_worker: bool) -> tuple[str, str]:
    """(text, command) of what a newcomer should do now."""
    if not page.name:
        return "next_apply", "./run flask apply workspace.toml"
    if page.broken:
        return "next_broken", f"./run flask connections check {page.broken}"
    if page.answered:
        address = next((one.email for one in page.answers if one.email), "ADDRESS")
        return "next_answered", f"./run flask why {shlex.quote(address)}"
    if page.mails:
        return "next_open", ""
    if not has_worker:
        return "next_tick", "./run flask tick"
    campaign = page.campaigns[0].name if page.campaigns else "NAME"
    planned = any(one.planned_at for one in page.campaigns)
    return ("next_nobody", f"./run flask preview {campaign}") if planned and not page.asked else ("next_wait", "")


def _context() -> Context:
    found: Context = current_app.extensions["boucle"]
    return found
