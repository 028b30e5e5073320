"""A survey on its way: an installation whose mails have been written, and a reader of its pages, as browsers are."""

from __future__ import annotations

import email
import email.policy
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from werkzeug.test import TestResponse

from core.storage import schema
from tests.web.app import CUSTOMERS, WORKSPACE, Installation

BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0", "Accept-Language": "en"}
#: Mails leave at once, all of them.
READY = WORKSPACE.replace("[connections.crm]", "[brakes]\nfirst_wave = 0\n\n[connections.crm]")


def asked(folder: Path, workspace: str = READY, customers: str = CUSTOMERS) -> Installation:
    """Everybody who may be asked has a mail."""
    installed = Installation(folder, {"BOUCLE_BASE_URL": "http://nps.example"}).set_up(workspace, customers)
    said = installed.flask("tick")
    assert said.code == 0, said.err
    return installed


def link_of(installed: Installation, address: str) -> str:
    """The path of the survey link in the newest mail to an address."""
    found = ""
    for path in sorted((installed.folder / "mailbox").glob("*/*.eml*"), key=lambda one: one.stat().st_mtime):
        message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        if address in message["To"]:
            body = message.get_body(("plain",))
            assert body is not None
            found = re.search(r"http://nps\.example(/s/[\w-]+)", body.get_content())[1]  # type: ignore[index]
    return found


@dataclass
class Form(HTMLParser):
    """The first form of a page: its action, its fields as a browser would send them, and all text of the page."""

    text: str = ""
    action: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    _inside: bool = False
    _area: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form" and not self.action:
            self.action, self._inside = values["action"], True
        if not self._inside:
            return
        if tag == "textarea":
            self._area = values["name"]
            self.fields[self._area] = ""
        if tag == "input" and (values.get("type") != "radio" or "checked" in values):
            self.fields[values["name"]] = values.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside = False
        if tag == "textarea":
            self._area = ""

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._area:
            self.fields[self._area] += data


def form_of(response: TestResponse) -> Form:
    form = Form()
    form.feed(response.get_data(as_text=True))
    return form


class Respondent:
    """Somebody with a browser and a link."""

    def __init__(self, app: Flask, link: str, **headers: str) -> None:
        self.client: FlaskClient = app.test_client()
        self.link = link
        self.headers = {**BROWSER, **headers}

    def open(self, path: str = "") -> Form:
        response = self.client.get(self.link + path, headers=self.headers)
        assert response.status_code == 200, response.status_code
        return form_of(response)

    def send(self, form: Form, **changes: str) -> TestResponse:
        """Fill a form in and send it."""
        return self.client.post(form.action, data={**form.fields, **changes}, headers=self.headers)

    def answer(self, score: int, comment: str = "") -> TestResponse:
        return self.send(self.open(), score=str(score), comment=comment)


def rows(installed: Installation, table: Any) -> list[Any]:
    with installed.context() as context, context.store.read() as tx:
        return list(tx.execute(select(table)))


def answers(installed: Installation) -> list[Any]:
    return rows(installed, schema.responses)


def touch_states(installed: Installation) -> dict[str, int]:
    states: dict[str, int] = {}
    for row in rows(installed, schema.touches):
        states[row.state] = states.get(row.state, 0) + 1
    return states
