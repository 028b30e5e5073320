"""From a vendor's answer to the error that says what to do next; what is kept of an answer carries no secret.

The errors themselves are the core's (`core.errors`): jobs decide by them and know no vendor.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from core.errors import (
    ConnectorError,
    Misconfigured,
    RateLimited,
    Rejected,
    Unauthorized,
    Unavailable,
    Uncertain,
    Unsupported,
)

__all__ = [
    "ConnectorError",
    "Misconfigured",
    "RateLimited",
    "Rejected",
    "Unauthorized",
    "Unavailable",
    "Uncertain",
    "Unsupported",
    "error_for_status",
    "redact",
    "retry_after_seconds",
]

LONGEST_EXTRACT = 300
HIDDEN = "***"

_NAMED_SECRET = re.compile(
    r"(?P<name>[\"']?\b(?:[a-z0-9]+[_-])*(?:authorization|api[_-]?key|apikey|token|secret|password|passwd|pwd|signature"
    r"|assertion|code|sig|key)\b[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic|token)\s+)?)(?P<value>[^\s\"'&,;}<>]++)",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"\b(?P<scheme>bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}+", re.IGNORECASE)
_IN_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)[^\s/@]+@", re.IGNORECASE)
_ADDRESS = re.compile(r"[A-Za-z0-9._%+'-]++@(?=[A-Za-z0-9-]+\.)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def redact(text: str) -> str:
    """An extract of what a vendor said that may be logged and shown: one line, short, no secrets, no addresses."""
    text = _CONTROL.sub(" ", text[: LONGEST_EXTRACT * 4])
    text = _IN_URL.sub(rf"\g<scheme>{HIDDEN}@", text)
    text = _NAMED_SECRET.sub(rf"\g<name>{HIDDEN}", text)
    text = _SCHEME.sub(rf"\g<scheme> {HIDDEN}", text)
    text = _ADDRESS.sub(f"{HIDDEN}@", text).strip()
    return text if len(text) <= LONGEST_EXTRACT else text[: LONGEST_EXTRACT - 1] + "…"


def retry_after_seconds(value: str | None, now: datetime | None = None) -> float | None:
    """The seconds a Retry-After header asks for, given as a number or as a date; None if it says nothing usable."""
    if not value:
        return None
    text = value.strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


def error_for_status(
    status: int,
    *,
    kind: str,
    what: str,
    safe: bool,
    retry_after: float | None = None,
    request_id: str = "",
    body: str = "",
) -> ConnectorError:
    """The error an HTTP status means. `what` is the call in words; `safe`: it did nothing, or may be done again."""
    extract = redact(body)
    message = f"{what}: {status}" + (f" {extract}" if extract else "")
    details: dict[str, Any] = {"kind": kind, "status": status, "request_id": request_id, "body": extract}
    if status in (401, 403):
        return Unauthorized(f"{message} (the credentials are not accepted)", **details)
    if status == 429 or (status == 503 and retry_after is not None):
        return RateLimited(message, retry_after=retry_after, **details)
    if status >= 500 or status in (408, 425):
        later = Unavailable if safe else Uncertain
        return later(message, **details)
    if 300 <= status < 400:
        return Misconfigured(f"{message} (it points elsewhere: correct the address)", field="base_url", **details)
    return Rejected(message, **details)
