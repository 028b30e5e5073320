"""A vendor of these tests alone: the smallest receiver that has everything, and its connector's settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from pydantic import SecretStr

from connectors.base import Connector
from connectors.config import ConnectorConfig, setting
from core.clock import to_ms
from core.events import EmailBounced, EmailDelivered, Event, Unsubscribed
from webhooks.base import EventParser, InboundRequest, Malformed, Receiver, Reply
from webhooks.signatures import read_timestamp, sign, verify_age, verify_hmac

SECRET = "probe-secret-of-today"


class ProbeConfig(ConnectorConfig):
    webhook_secret: SecretStr | None = setting(None, title="Webhook secret")


class Probe(Connector[ProbeConfig]):
    kind = "probe"
    title = "Probe"
    config_class = ProbeConfig


def _about(item: Mapping[str, Any]) -> dict[str, Any]:
    return {"key": item["id"], "at": datetime.fromisoformat(item["at"]), "email": item["email"]}


def _bounce(item: Any, request: InboundRequest) -> Iterable[Event]:
    yield EmailBounced(**_about(item), hard=True, reason=item["reason"])


def _unsubscribe(item: Any, request: InboundRequest) -> Iterable[Event]:
    yield Unsubscribed(**_about(item))


def _delivered(item: Any, request: InboundRequest) -> Iterable[Event]:
    yield EmailDelivered(**_about(item))


class ProbeReceiver(Receiver):
    """Signs `<timestamp>.<body>`, numbers its deliveries, and greets with a challenge."""

    kind = "probe"
    EVENTS: ClassVar[Mapping[str, EventParser]] = {
        "bounce": _bounce,
        "unsubscribe": _unsubscribe,
        "delivered": _delivered,
    }
    largest_body = 20_000

    def handshake(self, request: InboundRequest, secrets: Sequence[str]) -> Reply | None:
        return Reply(200, "still here") if request.method == "GET" and request.url.endswith("?hello=1") else None

    def verify(self, request: InboundRequest, secrets: Sequence[str], now: datetime) -> None:
        timestamp = request.header("X-Probe-Timestamp") or ""
        message = timestamp.encode() + b"." + request.body
        verify_hmac(message, request.header("X-Probe-Signature"), secrets, prefix="v1=")
        verify_age(read_timestamp(timestamp), now)

    def delivery_id(self, request: InboundRequest) -> str:
        return request.header("X-Probe-Delivery") or super().delivery_id(request)

    def items(self, request: InboundRequest) -> Iterable[tuple[str, Any]]:
        told = request.json()
        if not isinstance(told, dict):
            raise Malformed("the body is no object")
        for item in told["events"]:
            yield item["type"], item


class ProbeVendor:
    """How the vendor calls: what `receiver_cases` needs to know of a kind."""

    kind = "probe"
    secret = SECRET
    unknown = b'{"events": [{"type": "anniversary", "id": "e9"}]}'
    unknown_name = "anniversary"

    def headers(self, body: bytes, secret: str, at: datetime) -> dict[str, str]:
        timestamp = str(to_ms(at) // 1000)
        signature = sign(timestamp.encode() + b"." + body, secret)
        return {
            "Content-Type": "application/json",
            "X-Probe-Timestamp": timestamp,
            "X-Probe-Signature": f"v1={signature}",
        }

    def unsigned(self, headers: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in headers.items() if name != "X-Probe-Signature"}
