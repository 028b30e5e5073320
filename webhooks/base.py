"""What every receiver is: it verifies a request on its raw bytes, names it, and parses it into events of the core.

A receiver calls nobody and stores nothing. `routes` asks it while the vendor waits, until the request is in the
inbox; `parse` runs afterwards, in a job, as often as it takes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from core.errors import BoucleError
from core.events import Event, UnknownEvent

JSON_TYPES = ("application/json",)
LARGEST_BODY = 1024 * 1024


class BadSignature(BoucleError):
    """The request does not prove that the vendor sent it; the message says why, and is logged, never answered."""


class Malformed(BoucleError):
    """The vendor sent it, and it cannot be read."""


@dataclass(frozen=True, slots=True)
class InboundRequest:
    """One request. `headers` by their names in small letters; `url` as the vendor called it, with its query.

    In `parse` the method is POST, the URL is empty, and only the headers of `Receiver.kept_headers` are left.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    received_at: datetime

    def header(self, name: str) -> str | None:
        """A header by its name, however that is written."""
        return self.headers.get(name.lower())

    @property
    def content_type(self) -> str:
        """Without its parameters, in small letters."""
        return (self.header("content-type") or "").partition(";")[0].strip().lower()

    def json(self) -> Any:
        """The body as JSON. Raises Malformed."""
        try:
            return json.loads(self.body.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise Malformed(f"the body is no JSON in UTF-8: {type(error).__name__}") from None


@dataclass(frozen=True, slots=True)
class Reply:
    """What the vendor is answered."""

    status: int = 200
    body: str = ""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


#: From one thing the vendor tells, and the request it came in, to our events: usually one, none if it is no news.
EventParser = Callable[[Any, InboundRequest], Iterable[Event]]


class Receiver:
    """What a vendor says to us. Made anew for each request; subclasses set `kind` and `EVENTS`, and have `verify`."""

    kind: ClassVar[str]
    #: From the vendor's name of an event to the function that reads it. What is not in it becomes an UnknownEvent.
    EVENTS: ClassVar[Mapping[str, EventParser]] = {}
    #: The settings of the connector that verify its requests; what is not set is left out.
    secret_fields: ClassVar[tuple[str, ...]] = ("webhook_secret",)
    content_types: ClassVar[tuple[str, ...]] = JSON_TYPES
    largest_body: ClassVar[int] = LARGEST_BODY
    #: The headers `parse` needs: nothing else of them is stored, since some are secrets.
    kept_headers: ClassVar[tuple[str, ...]] = ("content-type",)

    def secrets(self, config: Any) -> tuple[str, ...]:
        """The secrets that are valid now. While one is rotated a setting holds both, separated by a space."""
        return tuple(secret for name in self.secret_fields for secret in _texts(getattr(config, name, None)))

    def handshake(self, request: InboundRequest, secrets: Sequence[str]) -> Reply | None:
        """The answer to a vendor that only tries whether somebody is there; None for everything else.

        Asked first, for every request, so whatever it gives away it must verify by itself.
        """
        return None

    def verify(self, request: InboundRequest, secrets: Sequence[str], now: datetime) -> None:
        """Raise BadSignature unless the vendor sent exactly this, lately. `secrets` has at least one."""
        raise NotImplementedError

    def check(self, request: InboundRequest) -> None:
        """Raise Malformed if `parse` could never read it. The request is verified."""
        if request.content_type in JSON_TYPES:
            request.json()

    def delivery_id(self, request: InboundRequest) -> str:
        """The same for the same delivery, however often it is repeated."""
        return hashlib.sha256(request.body).hexdigest()

    def parse(self, request: InboundRequest) -> Iterable[Event]:
        """What the request tells, in the core's words. Raises Malformed."""
        for number, (name, item) in enumerate(self.items(request)):
            parser = self.EVENTS.get(name)
            if parser is None:
                yield UnknownEvent(key=f"{self.delivery_id(request)}:{number}", at=request.received_at, name=name)
            else:
                yield from parser(item, request)

    def items(self, request: InboundRequest) -> Iterable[tuple[str, Any]]:
        """The things one request tells, each as (the vendor's name of the event, what `EVENTS[name]` reads)."""
        raise NotImplementedError

    def reply(self, request: InboundRequest) -> Reply:
        """The answer to a request that is stored, now or before."""
        return Reply()


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    return str(value.get_secret_value() if hasattr(value, "get_secret_value") else value).split()
