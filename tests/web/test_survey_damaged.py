"""Whatever is sent to the survey pages, some page comes back and no answer comes of it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from core.storage import schema
from tests.web.app import Installation
from tests.web.survey import Respondent, answers, asked, link_of, rows

METHODS = ("GET", "GET", "POST", "POST", "HEAD", "OPTIONS", "PUT", "DELETE")
TYPES = ("application/x-www-form-urlencoded", "multipart/form-data; boundary=b", "application/json", "", "\xff/\x01")
PART = b'--b\r\nContent-Disposition: form-data; name="score"\r\n\r\n%b\r\n--b--'
CHECKED = ("utm=\xe9t\xe9&score=9", "score=9&score=9", "amp;score=9", "score=9;&x")
UNCHECKED = ("score=9\xe9", "\xff\xfe", "score=%FF", "&&&=;")


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    return asked(tmp_path)


@pytest.fixture
def ada(installed: Installation) -> Respondent:
    return Respondent(installed.app(), link_of(installed, "ada@acme.example"))


def request_at_random(chosen: random.Random, link: str, nonce: bytes) -> dict[str, Any]:
    """A request that starts like one of ours and goes on as it likes, as `FlaskClient.open` takes it."""

    def junk(length: int) -> bytes:
        return bytes(chosen.randrange(256) for _ in range(chosen.randrange(length)))

    def header(length: int) -> str:
        return junk(length).translate(None, b"\r\n").decode("latin-1")  # no server lets these in

    start = chosen.choice((link, link.replace("/s/", "/u/"), "/s/", "/u/", "/survey/theme/", "/survey/logo/"))
    bodies = (
        junk(50),
        b"score=" + junk(3) + b"&nonce=" + nonce,
        b"score=9&nonce=" + junk(40),
        b"comment=%ed%a0%80%00" + junk(30) + b"&nonce=" + nonce,
        b"decline=1&nonce=" + junk(3),
        PART % junk(4),
    )
    return {
        "method": chosen.choice(METHODS),
        "data": chosen.choice(bodies),
        "content_type": chosen.choice(TYPES),
        "headers": {"Accept-Language": chosen.choice(("fr", "en;q=x", header(9)))},
        "environ_overrides": {
            "PATH_INFO": start + chosen.choice(("", "/", "/9", "//9", "///")) + junk(8).decode("latin-1"),
            "QUERY_STRING": chosen.choice(("", "score=" + header(6), "amp;score=9", header(12))),
            "REMOTE_ADDR": chosen.choice(("127.0.0.1", "", "::1", "fe80::1%eth0", "junk")),
        },
    }


@pytest.mark.parametrize("seed", range(3))
def test_bytes_at_random_are_answered_by_a_page(installed: Installation, ada: Respondent, seed: int) -> None:
    chosen = random.Random(seed)
    nonce = ada.open().fields["nonce"].encode()
    for _ in range(400):
        request = request_at_random(chosen, ada.link, nonce)
        response = ada.client.open(**request)
        assert response.status_code < 500, request
        assert "Traceback" not in response.get_data(as_text=True)
    assert all(row.verdict == "suspect" for row in answers(installed))
    assert all(row.opted_out_by not in ("link", "one_click") for row in rows(installed, schema.people))


@pytest.mark.parametrize("query", CHECKED + UNCHECKED)
def test_a_query_in_another_encoding_still_shows_the_page(ada: Respondent, query: str) -> None:
    response = ada.client.get(ada.link, environ_overrides={"QUERY_STRING": query})
    assert response.status_code == 200
    assert ("checked" in response.get_data(as_text=True)) is (query in CHECKED)


def test_a_line_end_after_a_doubled_slash_is_no_redirect(ada: Respondent) -> None:
    response = ada.client.get("/", environ_overrides={"PATH_INFO": ada.link + "//9\n"})
    assert response.status_code == 404
