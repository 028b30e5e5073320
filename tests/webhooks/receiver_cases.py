"""What is asked of every receiver. A kind subclasses `ReceiverCases` with its `vendor`: how that one signs."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any, ClassVar, Protocol

import pytest

import webhooks
from core.events import UnknownEvent
from tests.webhooks.conftest import Door, as_json, fixtures
from webhooks.base import InboundRequest


class Vendor(Protocol):
    kind: str
    secret: str
    #: A body that tells something which is in no table.
    unknown: bytes
    unknown_name: str

    def headers(self, body: bytes, secret: str, at: datetime) -> dict[str, str]:
        """The headers of a request that the vendor sends at this moment."""

    def unsigned(self, headers: dict[str, str]) -> dict[str, str]:
        """The same without the signature."""


class ReceiverCases:
    vendor: ClassVar[Vendor]

    def bodies(self) -> list[bytes]:
        found = [path.read_bytes() for path in fixtures(self.vendor.kind)]
        assert found, f"tests/webhooks/fixtures/{self.vendor.kind} holds no captured body"
        return found

    def path(self) -> str:
        return f"/webhooks/{self.vendor.kind}/{self.vendor.kind}"

    def signed(self, door: Door, body: bytes, secret: str = "", late: float = 0) -> dict[str, str]:
        at = door.clock.now() - timedelta(seconds=late)
        return self.vendor.headers(body, secret or self.vendor.secret, at)

    def test_what_the_vendor_signed_is_stored_byte_for_byte(self, door: Door) -> None:
        for body in self.bodies():
            assert door.knock(body, self.signed(door, body), self.path()).status_code == 200
        assert [row.body for row in door.stored()] == self.bodies()
        assert {row.state for row in door.stored()} == {"ready"}

    def test_another_secret_is_refused(self, door: Door) -> None:
        body = self.bodies()[0]
        assert door.knock(body, self.signed(door, body, "somebody-elses"), self.path()).status_code == 401
        assert door.stored() == []

    def test_no_signature_is_refused(self, door: Door) -> None:
        body = self.bodies()[0]
        headers = self.vendor.unsigned(self.signed(door, body))
        assert door.knock(body, headers, self.path()).status_code == 401
        assert door.stored() == []

    def test_a_signature_that_is_no_signature_is_refused(self, door: Door) -> None:
        body = self.bodies()[0]
        headers = self.signed(door, body)
        names = set(headers) - set(self.vendor.unsigned(headers))
        for nonsense in ("", "é", "v1=", "v1=zz", "=" * 5000):
            spoilt = headers | dict.fromkeys(names, nonsense)
            assert door.knock(body, spoilt, self.path()).status_code == 401
        assert door.stored() == []

    def test_a_stale_signature_is_refused(self, door: Door) -> None:
        body = self.bodies()[0]
        for late in (3600, -3600):
            assert door.knock(body, self.signed(door, body, late=late), self.path()).status_code == 401
        assert door.stored() == []

    def test_both_secrets_are_good_while_one_is_rotated(self, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PROBE_SECRET", f"secret-of-tomorrow {self.vendor.secret}")
        first, *_, last = [*self.bodies(), self.vendor.unknown]
        assert door.knock(first, self.signed(door, first), self.path()).status_code == 200
        assert door.knock(last, self.signed(door, last, "secret-of-tomorrow"), self.path()).status_code == 200
        assert len(door.stored()) == 2

    def test_a_changed_body_is_refused(self, door: Door) -> None:
        body = self.bodies()[0]
        changed = body.replace(b"ada@", b"bo@") + b" "
        assert door.knock(changed, self.signed(door, body), self.path()).status_code == 401
        assert door.stored() == []

    def test_a_repeated_delivery_is_answered_well_and_stored_once(self, door: Door) -> None:
        body = self.bodies()[0]
        for late in (0, 30):
            assert door.knock(body, self.signed(door, body, late=late), self.path()).status_code == 200
        assert len(door.stored()) == 1

    def test_an_event_nobody_knows_is_kept_and_harms_nothing(self, door: Door) -> None:
        body = self.vendor.unknown
        assert door.knock(body, self.signed(door, body), self.path()).status_code == 200
        (event,) = self.parsed(door, body)
        assert isinstance(event, UnknownEvent)
        assert event.name == self.vendor.unknown_name

    def test_captured_bodies_become_the_events_beside_them(self, door: Door) -> None:
        for path in fixtures(self.vendor.kind):
            expected = json.loads(path.with_suffix(".expected.json").read_text(encoding="utf-8"))
            assert [as_json(event) for event in self.parsed(door, path.read_bytes())] == expected

    def test_every_event_of_the_table_is_captured(self, door: Door) -> None:
        told = {name for body in self.bodies() for name, _ in self.receiver().items(self.request(door, body))}
        assert told == set(self.receiver().EVENTS)

    def test_no_secret_of_the_request_is_kept(self, door: Door) -> None:
        body = self.bodies()[0]
        headers = self.signed(door, body)
        door.knock(body, headers | {"Authorization": "Bearer abc", "Cookie": "abc"}, self.path())
        (row,) = door.stored()
        given = set(headers) - set(self.vendor.unsigned(headers))
        assert not {name.lower() for name in [*given, "Authorization", "Cookie"]} & set(row.headers)

    def receiver(self) -> Any:
        return webhooks.load(self.vendor.kind)()

    def request(self, door: Door, body: bytes) -> InboundRequest:
        return InboundRequest("POST", "", {"content-type": "application/json"}, body, door.clock.now())

    def parsed(self, door: Door, body: bytes) -> list[Any]:
        return list(self.receiver().parse(self.request(door, body)))
