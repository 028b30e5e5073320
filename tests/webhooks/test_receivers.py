"""The one way in for machines: what is let in, what is stored, and what each caller is answered."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder

import connectors
import webhooks
from core.errors import Misconfigured, NotFound
from core.jobs import apply_inbox
from tests.web.app import Installation
from tests.webhooks.conftest import FIXTURES, Door
from tests.webhooks.probe import SECRET, ProbeReceiver, ProbeVendor
from tests.webhooks.receiver_cases import ReceiverCases
from web.wiring import close_context

BODY = (FIXTURES / "probe" / "bounced.json").read_bytes()


class TestProbe(ReceiverCases):
    vendor = ProbeVendor()


def signed(door: Door, body: bytes = BODY) -> dict[str, str]:
    return ProbeVendor().headers(body, SECRET, door.clock.now())


def test_every_listed_receiver_has_a_connector_and_captured_bodies() -> None:
    for kind in webhooks.RECEIVERS:
        assert kind in connectors.CONNECTORS
        assert (FIXTURES / kind).is_dir()
        assert webhooks.load(kind).kind == kind


# --- who is let in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/webhooks/probe/nobody",  # no such connection
        "/webhooks/probe/old",  # a removed one
        "/webhooks/probe/crm",  # of another kind
        "/webhooks/csv/crm",  # a kind that is told nothing
        "/webhooks/nothing/probe",
        "/webhooks/probe/%00",
    ],
)
def test_what_is_not_there_is_not_found(door: Door, path: str) -> None:
    assert door.knock(BODY, signed(door), path).status_code == 404
    assert door.stored() == []


def test_a_body_over_the_limit_is_refused_unread(door: Door) -> None:
    body = b'{"events": []' + b" " * ProbeReceiver.largest_body + b"}"
    answer = door.knock(body, signed(door, body))
    assert answer.status_code == 413
    assert door.stored() == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": ""},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Encoding": "gzip"},
    ],
)
def test_another_type_or_encoding_is_refused(door: Door, headers: dict[str, str]) -> None:
    assert door.knock(BODY, signed(door) | headers).status_code == 415
    assert door.stored() == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"events": "\xff"}', b"[" * 19_000], ids=["empty", "cut", "bytes", "deep"]
)
def test_what_can_never_be_read_is_refused_once_its_sender_is_known(door: Door, body: bytes) -> None:
    assert door.knock(body, signed(door, body)).status_code == 400
    assert door.knock(body, signed(door)).status_code == 401  # a stranger learns nothing about our parser
    assert door.stored() == []


def test_without_a_secret_nobody_is_let_in_and_the_vendor_tries_again(door: Door) -> None:
    assert door.knock(BODY, signed(door), "/webhooks/probe/unset").status_code == 500
    assert door.stored() == []


def test_a_secret_that_cannot_be_read_is_our_failure(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROBE_SECRET")
    answer = door.knock(BODY, signed(door))
    assert answer.status_code == 500
    assert "PROBE_SECRET" not in answer.text


def test_a_database_that_fails_is_our_failure(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    with door.context.store.write() as tx:
        tx.exec_driver_sql("ALTER TABLE inbox RENAME TO lost")
    answer = door.knock(BODY, signed(door))
    assert answer.status_code == 500
    assert "lost" not in answer.text
    assert "inbox" not in answer.text


def test_a_vendor_that_only_tries_the_door_is_greeted(door: Door) -> None:
    answer = door.knock(b"", {}, "/webhooks/probe/probe?hello=1", "GET")
    assert (answer.status_code, answer.text) == (200, "still here")
    assert door.knock(b"", {}, "/webhooks/probe/probe", "GET").status_code == 405
    assert door.knock(BODY, signed(door), method="PUT").status_code == 405
    assert door.stored() == []


def test_receivers_see_the_address_the_vendor_called(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(ProbeReceiver, "verify", lambda self, request, secrets, now: seen.append(request.url))
    door.knock(BODY, signed(door), "/webhooks/probe/probe?a=%2F&b=1")
    assert seen == ["https://nps.acme.example/in/webhooks/probe/probe?a=%2F&b=1"]


def test_a_very_long_delivery_id_is_shortened_and_still_tells_deliveries_apart(door: Door) -> None:
    for name in ("a" * 5000, "a" * 4999 + "b", "a" * 5000):
        assert door.knock(BODY, signed(door) | {"X-Probe-Delivery": name}).status_code == 200
    first, second = door.stored()
    assert first.delivery_id != second.delivery_id
    assert len(first.delivery_id) < 100


def test_twenty_copies_at_once_are_stored_once(door: Door) -> None:
    headers = signed(door)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: door.knock(BODY, headers).status_code, range(20)))
    assert answers == [200] * 20
    assert len(door.stored()) == 1


def test_a_body_of_unknown_length_is_read_no_further_than_the_limit(door: Door) -> None:
    body = io.BytesIO(b" " * ProbeReceiver.largest_body * 2)
    chunked = {"wsgi.input": body, "wsgi.input_terminated": True}
    asked = (
        EnvironBuilder("/webhooks/probe/probe", method="POST", headers=Headers(signed(door))).get_environ() | chunked
    )
    answer = door.app.test_client().open(asked)
    assert answer.status_code == 413
    assert body.tell() <= ProbeReceiver.largest_body + 1
    assert door.stored() == []


# --- afterwards -------------------------------------------------------------------------------------------------------


def test_what_came_in_is_applied_by_a_job(door: Door) -> None:
    body = ProbeVendor.unknown
    door.knock(body, signed(door, body))
    report = apply_inbox.run(door.context)
    assert (report.done, report.failed) == (1, 0)
    assert [row.state for row in door.stored()] == ["done"]


# --- kinds of other people --------------------------------------------------------------------------------------------


def test_a_package_may_add_a_receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added = tmp_path / "probe_package-1.dist-info"
    added.mkdir()
    (added / "METADATA").write_text("Metadata-Version: 2.1\nName: probe-package\nVersion: 1\n")
    (added / "entry_points.txt").write_text(
        "[boucle.receivers]\nprobe = tests.webhooks.probe:ProbeReceiver\nother = tests.webhooks.probe:ProbeReceiver\n"
        "plain = tests.webhooks.probe:Probe\nmissing = tests.webhooks.nowhere:Receiver\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    _forget_added()
    try:
        assert webhooks.load("probe") is ProbeReceiver
        assert "probe" in webhooks.kinds()
        for name, said in (("other", "another kind"), ("plain", "is no"), ("missing", "cannot be loaded")):
            with pytest.raises(Misconfigured, match=said):
                webhooks.load(name)
    finally:
        _forget_added()
    with pytest.raises(NotFound):
        webhooks.load("nothing")


def _forget_added() -> None:
    cached: Any
    for cached in (webhooks._added, webhooks._load_added):
        cached.cache_clear()


def test_the_application_listens_and_its_jobs_can_read_what_came(tmp_path: Path) -> None:
    app = Installation(tmp_path).set_up().app()
    context = app.extensions["boucle"]
    try:
        answer = app.test_client().post("/webhooks/csv/crm", data=BODY)
        assert (answer.status_code, answer.text) == (404, "there is no such connection\n")
        assert context.parse_inbox is not None
        with pytest.raises(NotFound, match="csv"):
            list(context.parse_inbox("csv", {}, BODY, context.clock.now()))
    finally:
        close_context(context)
