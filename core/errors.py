"""Errors by what the caller does next. Connectors translate every vendor's exception into one of these."""

from __future__ import annotations


class BoucleError(Exception):
    """Anything that is told to a person as one sentence instead of a stack trace."""


class ConnectorError(BoucleError):
    """Something a vendor said, or failed to say.

    `kind` is the connector's slug, `status` the vendor's code if it gave one, `request_id` the vendor's own name for
    the call, `body` a short redacted extract of its answer.
    """

    def __init__(
        self, message: str, *, kind: str = "", status: int | None = None, request_id: str = "", body: str = ""
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
        self.request_id = request_id
        self.body = body[:500]


class Unauthorized(ConnectorError):
    """The credentials are not accepted (any more): pause the connection and tell an admin."""


class RateLimited(ConnectorError):
    """Too much for this account: everybody on it waits `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: float | None = None, kind: str = "", **details: object) -> None:
        super().__init__(message, kind=kind, **details)  # type: ignore[arg-type]
        self.retry_after = retry_after


class Unavailable(ConnectorError):
    """Not now, and nothing was done: try again later."""


class Rejected(ConnectorError):
    """This item, never. `suppress` says the address itself is dead."""

    def __init__(self, message: str, *, suppress: bool = False, kind: str = "", **details: object) -> None:
        super().__init__(message, kind=kind, **details)  # type: ignore[arg-type]
        self.suppress = suppress


class Uncertain(ConnectorError):
    """Perhaps done: look before repeating."""


class Misconfigured(ConnectorError):
    """The configuration cannot work; `field` is where to show it."""

    def __init__(self, message: str, *, field: str = "", kind: str = "", **details: object) -> None:
        super().__init__(message, kind=kind, **details)  # type: ignore[arg-type]
        self.field = field


class Unsupported(ConnectorError):
    """The vendor has no way to express this."""


class IllegalTransition(BoucleError):
    """A state machine was asked for a move it does not have."""


class NotFound(BoucleError):
    """The thing a person named does not exist."""


class Invalid(BoucleError):
    """What a person wrote cannot be accepted; the message says what, where and what to do."""
