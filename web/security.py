"""What every answer carries, who may see pages that show people, and logs that hold no survey link."""

from __future__ import annotations

import ipaddress
import logging
import re
import sys
from typing import Any

import structlog
from flask import Flask, Response, request
from structlog.typing import EventDict

from connectors.errors import redact

#: Nothing but our own files; a page that needs more says so itself.
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; script-src 'self'; connect-src 'self';"
    " font-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
#: Whoever has a survey link may answer it: it never stands in a log.
_LINKS = re.compile(r"(/(?:s|u)/)[A-Za-z0-9_.~-]{6,}")
_SECRET_KEYS = re.compile(r"password|secret|token|authorization|cookie|api_?key", re.I)


def add_headers(response: Response) -> Response:
    """Headers of every answer; a view that set one of them knows better."""
    headers = response.headers
    headers.setdefault("Content-Security-Policy", POLICY)
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Referrer-Policy", "no-referrer")
    headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
    headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
    headers.setdefault("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=()")
    if request.endpoint != "static" and "Cache-Control" not in headers:
        headers["Cache-Control"] = "no-store"
    return response


def is_local() -> bool:
    """Whether the reader sits at this machine: no proxy in between, and no foreign name that leads here.

    A page that shows people without a sign-in is for them alone. The name is looked at because a web site may point
    its own name at 127.0.0.1 and let its visitors' browsers read what is there.
    """
    forwarded = ("X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Forwarded", "Via")
    if any(name in request.headers for name in forwarded):
        return False
    return _is_loopback(request.remote_addr or "") and _names_this_machine(request.host)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _names_this_machine(host: str) -> bool:
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    return name == "localhost" or _is_loopback(name.strip("[]"))


def without_links(text: str) -> str:
    """A text with the secret part of survey links taken out."""
    return _LINKS.sub(r"\1[link]", text)


# --- logs -----------------------------------------------------------------------------------------------------------


def set_up_logging(stream: Any = None) -> None:
    """Structured logs on stderr: lines for people on a terminal, JSON elsewhere; secrets and links masked."""
    stream = stream or sys.stderr
    human = bool(getattr(stream, "isatty", lambda: False)())
    renderer = structlog.dev.ConsoleRenderer() if human else structlog.processors.JSONRenderer(ensure_ascii=False)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            mask_secrets,
            renderer,
        ],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger("boucle")
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    root.propagate = False
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def mask_secrets(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Nothing secret leaves by a log, whoever wrote the line."""
    return {key: "[secret]" if _SECRET_KEYS.search(key) else _masked(value) for key, value in event.items()}


def _masked(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return "\n".join(_masked_line(line) for line in value.splitlines()) if "\n" in value else _masked_line(value)


def _masked_line(line: str) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    return indent + without_links(redact(line))


class Boucle(Flask):
    """Flask, whose own error log names the rule of a route instead of the address with its secret."""

    def log_exception(self, exc_info: Any) -> None:
        rule = request.url_rule.rule if request.url_rule else "an unknown address"
        logging.getLogger("boucle.web").error("%s %s failed", request.method, rule, exc_info=exc_info)
