"""Headers of every answer, who sees the pages that show people, and logs without secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, Response

from web.security import Boucle, add_headers, is_local, set_up_logging, without_links

TOKEN = "q8Zc2xUq3T0aWb7VnR5mKg"


@pytest.fixture
def app() -> Flask:
    """An application with one page that tells whether its reader sits here."""
    app = Boucle("web")
    app.after_request(add_headers)
    app.add_url_rule("/", "start", lambda: "here" if is_local() else "elsewhere")
    app.add_url_rule("/own", "own", lambda: Response("x", headers={"Content-Security-Policy": "sandbox"}))

    def broken(token: str) -> str:
        raise RuntimeError(f"no row for /s/{token}")

    app.add_url_rule("/s/<token>", "survey", broken)
    return app


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    root = logging.getLogger("boucle")
    before = root.handlers, root.level, root.propagate
    stream = io.StringIO()
    set_up_logging(stream)
    yield stream
    root.handlers, root.level, root.propagate = before


def test_every_answer_forbids_what_it_does_not_need(app: Flask) -> None:
    for address in ("/", "/nowhere"):
        headers = app.test_client().get(address).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"  # a survey link never reaches another site
        assert headers["Cache-Control"] == "no-store"


def test_page_with_a_policy_of_its_own_keeps_it(app: Flask) -> None:
    assert app.test_client().get("/own").headers["Content-Security-Policy"] == "sandbox"


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "localhost", "localhost:8000", "[::1]:8000", "127.0.0.1", "127.9.9.9"]
)
def test_reader_at_this_machine_is_here(app: Flask, host: str) -> None:
    assert app.test_client().get("/", headers={"Host": host}).text == "here"


@pytest.mark.parametrize(
    ("address", "headers"),
    [
        ("192.168.1.20", {"Host": "127.0.0.1:8000"}),
        ("203.0.113.9", {"Host": "localhost"}),
        ("127.0.0.1", {"Host": "nps.example.com"}),
        ("127.0.0.1", {"Host": "rebound.example:8000"}),  # a foreign name that leads to this machine
        ("127.0.0.1", {"Host": "localhost.example.com"}),
        ("127.0.0.1", {"Host": "127.0.0.1", "X-Forwarded-For": "203.0.113.9"}),
        ("127.0.0.1", {"Host": "127.0.0.1", "X-Forwarded-For": "127.0.0.1"}),  # anybody can write that
        ("127.0.0.1", {"Host": "127.0.0.1", "Forwarded": "for=203.0.113.9"}),
        ("127.0.0.1", {"Host": "127.0.0.1", "Via": "1.1 proxy"}),
        ("127.0.0.1", {"Host": "127.0.0.1", "X-Real-IP": "203.0.113.9"}),
        ("", {"Host": "127.0.0.1"}),  # a socket file: the proxy's
    ],
)
def test_everybody_else_is_elsewhere(app: Flask, address: str, headers: dict[str, str]) -> None:
    answer = app.test_client().get("/", headers=headers, environ_base={"REMOTE_ADDR": address})
    assert answer.text == "elsewhere"


@pytest.mark.parametrize("host", ["::::", "[", "127.0.0.1.", "0x7f.1"])
def test_strange_host_is_no_error_and_never_here(app: Flask, host: str) -> None:
    answer = app.test_client().get("/", headers={"Host": host})
    assert answer.status_code in (200, 400)
    assert answer.text != "here"


def test_survey_link_never_stands_in_a_log(app: Flask, log: io.StringIO) -> None:
    app.config["PROPAGATE_EXCEPTIONS"] = False
    assert app.test_client().get(f"/s/{TOKEN}").status_code == 500
    written = log.getvalue()
    assert "GET /s/<token> failed" in written
    assert "RuntimeError" in written
    assert TOKEN not in written


@pytest.mark.parametrize(
    "text",
    [f"GET /s/{TOKEN}?score=9 HTTP/1.1", f"https://nps.example.com/u/{TOKEN}", f"/s/{TOKEN}/9"],
)
def test_secret_part_of_a_link_is_taken_out(text: str) -> None:
    assert TOKEN not in without_links(text)


@pytest.mark.parametrize(
    ("fields", "secret"),
    [
        ({"password": "hunter2"}, "hunter2"),
        ({"access_token": "pat-1"}, "pat-1"),
        ({"link": f"/s/{TOKEN}"}, TOKEN),
        ({"trace": f"first line\n  /u/{TOKEN}\nlast"}, TOKEN),
    ],
)
def test_secrets_are_masked_whoever_writes_the_line(log: io.StringIO, fields: dict[str, Any], secret: str) -> None:
    logging.getLogger("boucle.anything").warning("it happened", extra=fields)
    assert secret not in log.getvalue()
    assert json.loads(log.getvalue())["event"] == "it happened"


def test_log_that_no_person_reads_is_a_document_per_line(log: io.StringIO) -> None:
    logging.getLogger("boucle.jobs").error("two\nlines %s", "é")
    (line,) = log.getvalue().splitlines()
    document = json.loads(line)
    assert (document["level"], document["logger"]) == ("error", "boucle.jobs")
    assert document["event"] == "two\nlines é"
    assert document["timestamp"].endswith("Z")
