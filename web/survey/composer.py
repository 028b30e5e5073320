"""Writes the mail that asks: `core.ports.Composer`.

A mail is made of a frame per campaign, language and kind, rendered and its CSS inlined once; what differs from person
to person is put into that frame. So a thousand mails a second are possible, and nothing of a person enters a template.
"""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import css_inline
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from core.ports import Invitation, InvitationRequest
from web.survey.colour import readable_on, text_on
from web.survey.texts import language_of, texts_in

TEMPLATES = Path(__file__).parent / "templates"
#: Stand for what is put in per person; no template or text holds them otherwise.
URL, STOP_URL, HELLO = "[[boucle:url]]", "[[boucle:stop]]", "[[boucle:hello]]"
PAPER, INK = "#ffffff", "#1c2430"
LONGEST_NAME = 60


@dataclass(frozen=True, slots=True)
class Frame:
    """A mail without the person."""

    subject: str
    html: str
    text: str
    hello: str
    hello_name: str


class SurveyComposer:
    """Composes in the recipient's language. `base_url` is where the survey page answers, without a slash at its end."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._frame = lru_cache(maxsize=256)(self._make_frame)

    def compose(self, request: InvitationRequest) -> Invitation:
        """The message, complete."""
        language = language_of(request.language, request.languages)
        settings = json.dumps(dict(request.survey), sort_keys=True)
        frame = self._frame(settings, language, request.kind, request.shared_mailbox, request.campaign)
        url, stop_url = f"{self._base_url}/s/{request.token}", f"{self._base_url}/u/{request.token}"
        name = "" if request.shared_mailbox else _first_name(request.first_name)
        hello = frame.hello_name.replace("{name}", name) if name else frame.hello
        survey: dict[str, Any] = dict(request.survey)
        return Invitation(
            key=request.key,
            external_id=request.external_id,
            email=request.email,
            name=_recipient(request),
            language=language,
            subject=frame.subject,
            html=_fill(frame.html, url, stop_url, html.escape(hello)),
            text=_fill(frame.text, url, stop_url, hello),
            survey_url=url,
            unsubscribe_url=stop_url,
            sender_name=survey.get("sender_name") or survey.get("brand") or "",
            reply_to=survey.get("reply_to") or "",
            variables={"survey_url": url, "brand": survey.get("brand") or "", "campaign": request.campaign},
        )

    def _make_frame(self, settings: str, language: str, kind: str, shared: bool, campaign: str) -> Frame:
        survey = json.loads(settings)
        brand, colour = survey.get("brand") or "", survey["colour"]
        texts = texts_in(language, brand)
        reminder = kind == "reminder"
        values = {
            "t": texts, "brand": brand, "url": URL, "stop_url": STOP_URL, "hello": HELLO, "reminder": reminder,
            "shared": shared, "anonymous": bool(survey.get("anonymous")), "address": survey.get("address") or "",
            "accent": colour, "on_accent": text_on(colour), "accent_ink": readable_on(colour, PAPER, INK),
            "logo_url": self._logo_url(survey, campaign),
        }  # fmt: skip
        return Frame(
            subject=texts.subject_reminder if reminder else texts.subject,
            html=_inliner().inline(_templates(escape=True).get_template("survey/mail.html").render(values)),
            text=_templates(escape=False).get_template("survey/mail.txt").render(values),
            hello=texts.hello,
            hello_name=texts.hello_name,
        )

    def _logo_url(self, survey: dict[str, Any], campaign: str) -> str:
        """Only an address that a mail program can reach without being warned of, and a picture that it can show.

        Hardly any shows an SVG: those who have one get the brand in letters.
        """
        shown = str(survey.get("logo") or "").lower().endswith((".png", ".jpg", ".jpeg"))
        return f"{self._base_url}/survey/logo/{campaign}" if shown and self._base_url.startswith("https://") else ""


def _fill(frame: str, url: str, stop_url: str, hello: str) -> str:
    return frame.replace(URL, url).replace(STOP_URL, stop_url).replace(HELLO, hello)


def _first_name(name: str | None) -> str:
    """Fit for a greeting: one line, not a whole paragraph that somebody typed into the wrong field."""
    name = " ".join((name or "").split())
    return name if len(name) <= LONGEST_NAME and "://" not in name and "[[" not in name else ""


def _recipient(request: InvitationRequest) -> str:
    """The name beside the address: of a mailbox of several people the company's."""
    if request.shared_mailbox:
        return request.company or ""
    return " ".join(part for part in (request.first_name, request.last_name) if part)


@lru_cache(maxsize=2)
def _templates(escape: bool) -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=escape,  # noqa: S701  # the text part is no HTML
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@lru_cache(maxsize=1)
def _inliner() -> css_inline.CSSInliner:
    return css_inline.CSSInliner(load_remote_stylesheets=False, keep_style_tags=True)
