"""HttpClient against real sockets: what is repeated, what is not, and what nobody may read in a log."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import requests

from connectors.errors import error_for_status, redact, retry_after_seconds
from connectors.http import ATTEMPTS, LONGEST_WAIT_SECONDS, HttpClient, beat
from core.errors import (
    ConnectorError,
    Misconfigured,
    RateLimited,
    Rejected,
    Unauthorized,
    Unavailable,
    Uncertain,
)
from tests.simulators.base import Answer, HttpSimulator, Request

Client = Callable[..., HttpClient]


@pytest.fixture
def slept() -> list[float]:
    """How long the policy would have waited."""
    return []


@pytest.fixture
def client(vendor: HttpSimulator, slept: list[float]) -> HttpClient:
    return HttpClient(vendor.url, kind="pigeon", allow_private=True, timeout=2, sleep=slept.append)


def calls(vendor: HttpSimulator) -> list[str]:
    return [f"{one.method} {one.path}" for one in vendor.requests]


def test_an_answer_comes_back(client: HttpClient, vendor: HttpSimulator) -> None:
    assert client.get_json("contacts", {"after": "é&x"}) == {"ok": True}
    assert vendor.requests[0].query == {"after": "é&x"}
    assert client.request("POST", "contacts", json={"a": 1}).status_code == 200
    assert vendor.requests[1].json == {"a": 1}


# --- errors by consequence ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, Rejected), (401, Unauthorized), (403, Unauthorized), (404, Rejected), (409, Rejected), (422, Rejected)],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_refusal_is_final(
    client: HttpClient, vendor: HttpSimulator, status: int, error: type[ConnectorError], method: str
) -> None:
    vendor.fail_next(status, headers={"X-Request-Id": "r-1"}, body=b'{"message": "no such thing"}')
    with pytest.raises(error, match="no such thing") as refused:
        client.request(method, "contacts/1")
    assert (refused.value.status, refused.value.kind, refused.value.request_id) == (status, "pigeon", "r-1")
    assert type(refused.value) is error
    assert len(vendor.requests) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408])
def test_a_read_that_fails_for_now_is_repeated(
    client: HttpClient, vendor: HttpSimulator, status: int, slept: list[float]
) -> None:
    vendor.fail_next(status, times=ATTEMPTS - 1)
    assert client.get_json("contacts") == {"ok": True}
    assert len(vendor.requests) == ATTEMPTS
    assert len(slept) == ATTEMPTS - 1


def test_a_read_that_goes_on_failing_is_unavailable(client: HttpClient, vendor: HttpSimulator) -> None:
    vendor.fail_next(502, times=ATTEMPTS)
    with pytest.raises(Unavailable, match="502"):
        client.get_json("contacts")
    assert len(vendor.requests) == ATTEMPTS


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_post_that_may_have_been_done_is_not_repeated(client: HttpClient, vendor: HttpSimulator, status: int) -> None:
    vendor.fail_next(status)
    with pytest.raises(Uncertain):
        client.request("POST", "messages")
    assert len(vendor.requests) == 1


def test_a_post_with_a_key_of_its_own_is_repeated(client: HttpClient, vendor: HttpSimulator) -> None:
    vendor.fail_next(502)
    assert client.request("POST", "messages", safe=True).status_code == 200
    assert len(vendor.requests) == 2


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_retry_after_is_obeyed(
    client: HttpClient, vendor: HttpSimulator, status: int, method: str, slept: list[float]
) -> None:
    vendor.fail_next(status, headers={"Retry-After": "3"})
    assert client.request(method, "contacts").status_code == 200
    assert slept == [3.0]


def test_a_long_pause_is_left_to_the_rate_bucket(client: HttpClient, vendor: HttpSimulator, slept: list[float]) -> None:
    vendor.fail_next(429, headers={"Retry-After": str(LONGEST_WAIT_SECONDS + 1)})
    with pytest.raises(RateLimited) as limited:
        client.get_json("contacts")
    assert limited.value.retry_after == LONGEST_WAIT_SECONDS + 1
    assert (slept, len(vendor.requests)) == ([], 1)


# --- sockets that go ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True])
def test_a_broken_connection_is_repeated_for_reads_only(client: HttpClient, vendor: HttpSimulator, after: bool) -> None:
    vendor.reset_next(after=after)
    assert client.get_json("contacts") == {"ok": True}
    vendor.reset_next(after=after)
    with pytest.raises(Uncertain, match="perhaps after it was carried out"):
        client.request("POST", "messages")
    assert calls(vendor) == ["GET /contacts", "GET /contacts", "POST /messages"]


def test_a_time_out_after_acceptance_is_uncertain(vendor: HttpSimulator) -> None:
    client = HttpClient(vendor.url, allow_private=True, timeout=0.3)
    vendor.delay_next(5, after=True)
    with pytest.raises(Uncertain, match="no answer in time"):
        client.request("POST", "messages")
    assert [one.path for one in vendor.done] == ["/messages"]


def test_a_body_that_breaks_off_is_not_half_an_answer(client: HttpClient, vendor: HttpSimulator) -> None:
    vendor.truncate_next()
    assert client.get_json("contacts") == {"ok": True}
    vendor.truncate_next()
    with pytest.raises(Uncertain):
        client.request("POST", "messages")


def test_a_post_that_never_left_is_repeated(slept: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    client = HttpClient(f"http://127.0.0.1:{port}", allow_private=True, sleep=slept.append)
    with pytest.raises(Unavailable, match="connection refused"):
        client.request("POST", "messages")
    assert len(slept) == ATTEMPTS - 1


def test_a_host_nobody_knows_is_unavailable(slept: list[float]) -> None:
    for allow_private in (True, False):
        client = HttpClient("http://nowhere.invalid", allow_private=allow_private, sleep=slept.append)
        with pytest.raises(Unavailable, match="does not resolve"):
            client.request("POST", "messages")


def test_an_answer_that_is_no_json_is_unavailable(client: HttpClient, vendor: HttpSimulator) -> None:
    vendor.fail_next(200, body=b"<html>maintenance</html>")
    with pytest.raises(Unavailable, match="no JSON"):
        client.get_json("contacts")


# --- tokens -------------------------------------------------------------------------------------------------------


def test_every_attempt_takes_a_token_an_sdks_too(vendor: HttpSimulator) -> None:
    taken: list[str] = []
    client = HttpClient(vendor.url, allow_private=True, bucket=lambda: taken.append("token"), sleep=lambda _: None)
    vendor.fail_next(502, times=2)
    client.get_json("contacts")
    assert len(taken) == 3
    assert client.at(vendor.url).call(lambda: "from an SDK") == "from an SDK"
    assert len(taken) == 4


def test_an_sdks_call_is_repeated_by_the_same_policy(client: HttpClient) -> None:
    tries: list[int] = []

    def later() -> None:
        tries.append(1)
        raise Unavailable("busy")

    def doubtful() -> None:
        tries.append(1)
        raise Uncertain("perhaps")

    with pytest.raises(Unavailable):
        client.call(later)
    assert len(tries) == ATTEMPTS
    tries.clear()
    with pytest.raises(Uncertain):
        client.call(doubtful)
    assert len(tries) == 1


def test_attempts_end_before_half_a_lease(vendor: HttpSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.http.LONGEST_SECONDS", 0.5)
    client = HttpClient(vendor.url, allow_private=True)
    vendor.fail_next(429, times=9, headers={"Retry-After": "0.4"})
    started = time.monotonic()
    with pytest.raises(RateLimited):
        client.get_json("contacts")
    assert time.monotonic() - started < 1.5
    assert len(vendor.requests) < ATTEMPTS


# --- where a request may go ---------------------------------------------------------------------------------------


class Mover(HttpSimulator):
    """Sends everybody elsewhere."""

    target = ""

    def respond(self, request: Request) -> Answer:
        return Answer(200) if request.path == "/new" else Answer(302, headers={"Location": self.target})


def test_redirects_are_followed_within_the_host_only(vendor: HttpSimulator) -> None:
    mover = Mover()
    with mover:
        client = HttpClient(mover.url, allow_private=True, headers={"Authorization": "Bearer hush"})
        mover.target = "/new"
        assert client.request("GET", "old").status_code == 200
        assert calls(mover) == ["GET /old", "GET /new"]
        with pytest.raises(Misconfigured, match="points elsewhere"):
            client.request("POST", "old")
        mover.target = f"{vendor.url}/new"
        with pytest.raises(Misconfigured, match="points elsewhere"):
            client.request("GET", "old")
        mover.target = "/old"
        with pytest.raises(Misconfigured, match="redirects without end"):
            client.request("GET", "old")
    assert vendor.requests == []


def test_an_address_inside_this_network_is_refused_before_anything_is_sent(vendor: HttpSimulator) -> None:
    for url in (vendor.url, vendor.url.replace("127.0.0.1", "localhost")):
        with pytest.raises(Misconfigured, match="BOUCLE_ALLOW_PRIVATE_ENDPOINTS"):
            HttpClient(url).request("GET", "x")
    assert vendor.requests == []


def test_whether_a_port_inside_is_open_cannot_be_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(Misconfigured, match="inside this network"):
        HttpClient(f"http://127.0.0.1:{port}").request("GET", "x")


def test_a_name_that_changes_its_address_meanwhile_is_refused_too(
    vendor: HttpSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.http.addresses_of", lambda host: ["93.184.215.14"])
    with pytest.raises(Misconfigured, match="inside this network"):
        HttpClient(vendor.url.replace("127.0.0.1", "localhost")).request("GET", "x")
    assert vendor.requests == []


def test_passwords_of_the_home_folder_are_not_used(
    client: HttpClient, vendor: HttpSimulator, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ada password hush\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    client.get_json("contacts")
    assert "Authorization" not in vendor.requests[0].headers


# --- secrets ------------------------------------------------------------------------------------------------------


def test_no_secret_in_a_log_an_error_or_a_repr(vendor: HttpSimulator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    def sign(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
        prepared.headers["Authorization"] = "Bearer hush-hush"
        return prepared

    client = HttpClient(vendor.url, kind="pigeon", allow_private=True, timeout=0.3, authenticate=sign)
    said = [repr(client)]
    client.request("GET", "contacts", params={"api_key": "hush-hush"})
    assert vendor.requests[0].headers["Authorization"] == "Bearer hush-hush"
    vendor.fail_next(400, body=b'{"error": "bad", "access_token": "hush-hush", "echo": "Bearer hush-hush"}')
    vendor.reset_next()
    vendor.delay_next(2)
    for _ in range(3):
        with pytest.raises(ConnectorError) as failed:
            client.request("POST", "contacts", params={"api_key": "hush-hush"})
        said += [str(failed.value), repr(failed.value), failed.value.body]
    assert "pigeon GET 127.0.0.1/contacts" in caplog.text
    assert [text for text in [*said, caplog.text] if "hush" in text] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("token=abc123&x=1", "token=***&x=1"),
        ('{"refresh_token": "abc", "name": "x"}', '{"refresh_token": "***", "name": "x"}'),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("https://ada:hush@x.example/y", "https://***@x.example/y"),
        ("ada@client.example is unknown", "***@client.example is unknown"),
        ("line one\r\nline two\x00", "line one line two"),
        ("the token has expired", "the token has expired"),
        ("x" * 1000, "x" * 299 + "…"),
    ],
)
def test_extracts_are_short_one_line_and_without_secrets(text: str, expected: str) -> None:
    assert redact(text) == expected


# --- small parts --------------------------------------------------------------------------------------------------


def test_retry_after_as_number_and_as_date() -> None:
    now = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
    assert retry_after_seconds("120") == 120
    assert retry_after_seconds("1.5") == 1.5
    assert retry_after_seconds("Tue, 24 Nov 2026 12:00:30 GMT", now) == 30
    assert retry_after_seconds("Tue, 24 Nov 2026 11:00:00 GMT", now) == 0
    assert [retry_after_seconds(value) for value in (None, "", "soon", "-5", "1e9")] == [None] * 5


def test_a_pause_without_a_length_is_still_a_pause() -> None:
    error = error_for_status(429, kind="pigeon", what="GET x", safe=False)
    assert isinstance(error, RateLimited)
    assert error.retry_after is None


def test_a_watchdog_is_called_once_and_its_address_is_secret(
    vendor: HttpSimulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"{vendor.url}/ping/hush-hush"
    assert beat(url, allow_private=True)
    vendor.fail_next(500)
    assert not beat(url, allow_private=True)
    assert not beat(url)
    assert not beat("nonsense")
    assert calls(vendor) == ["GET /ping/hush-hush"] * 2
    assert "hush" not in caplog.text
    assert "the watchdog of BOUCLE_HEARTBEAT_URL was not reached: heartbeat GET 127.0.0.1: 500" in caplog.text
