"""The one way in for machines: /webhooks/<kind>/<connection>.

Find the connection, verify the raw bytes, store the request under (connection, delivery id), answer. A job parses and
applies it later, so the vendor never waits for us and nothing it said is lost once it was answered.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from flask import Blueprint, Response, current_app, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

import webhooks
from core.errors import NotFound
from core.jobs.context import Context
from core.storage import inbox, settings
from core.storage.settings import ConnectionRow
from webhooks.base import BadSignature, InboundRequest, Malformed, Receiver, Reply

blueprint = Blueprint("webhooks", __name__)
log = logging.getLogger("boucle.webhooks")

LONGEST_DELIVERY_ID = 200
#: The vendor's own words for "try again": whatever goes wrong on our side is not its fault.
OURS = Reply(500, "not stored; please send it again\n")


@blueprint.route("/webhooks/<kind>/<connection>", methods=["GET", "POST"])
def receive(kind: str, connection: str) -> Response:
    """One request of a vendor. Answers 200 once it is stored, whether now or before."""
    try:
        return _response(_receive(current_app.extensions["boucle"], kind, connection))
    except HTTPException:
        raise
    except Exception:
        log.exception("a request of %s was not stored", kind)
        return _response(OURS)


def _receive(context: Context, kind: str, name: str) -> Reply:
    try:
        receiver = webhooks.load(kind)()
        connection = _connection(context, kind, name)
    except NotFound:
        return Reply(404, "there is no such connection\n")
    body = _body(receiver)
    if isinstance(body, Reply):
        return body
    asked = InboundRequest(request.method, _url(), _headers(), body, context.clock.now())
    secrets = receiver.secrets(context.opener.open(connection.name).config)
    greeting = receiver.handshake(asked, secrets)
    if greeting is not None:
        return greeting
    if request.method != "POST":
        return Reply(405, "only POST tells anything\n", headers={"Allow": "POST"})
    if not secrets:
        log.error("%s has no webhook secret: whatever calls in its name is refused until it is set", name)
        return OURS
    return _verify_and_store(context, receiver, connection, asked, secrets)


def _verify_and_store(
    context: Context, receiver: Receiver, connection: ConnectionRow, asked: InboundRequest, secrets: tuple[str, ...]
) -> Reply:
    refused = _wrong_type(receiver, asked)
    if refused is not None:
        return refused
    try:
        receiver.verify(asked, secrets, context.clock.now())
        receiver.check(asked)
    except BadSignature as error:
        log.warning("a request in the name of %s was refused: %s", connection.name, error)
        return Reply(401, "the signature does not match\n")
    except Malformed as error:
        log.warning("a request of %s cannot be read: %s", connection.name, error)
        return Reply(400, f"{error}\n")
    _store(context, receiver, connection, asked)
    return receiver.reply(asked)


def _store(context: Context, receiver: Receiver, connection: ConnectionRow, asked: InboundRequest) -> None:
    delivery_id = receiver.delivery_id(asked)
    if not 0 < len(delivery_id) <= LONGEST_DELIVERY_ID:
        delivery_id = hashlib.sha256(delivery_id.encode() or asked.body).hexdigest()
    kept = {name: asked.headers[name] for name in receiver.kept_headers if name in asked.headers}
    with context.store.write() as tx:
        inbox.receive(tx, connection.id, delivery_id, kept, asked.body, context.clock.now_ms())


# --- the request ----------------------------------------------------------------------------------------------------


def _connection(context: Context, kind: str, name: str) -> ConnectionRow:
    with context.store.read() as tx:
        found = settings.connection_named(tx, name)
    if found.kind != kind:
        raise NotFound(name)
    return found


def _body(receiver: Receiver) -> bytes | Reply:
    """The raw bytes, or what to answer if they are too many or packed in a way that hides how many they are."""
    if request.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        return Reply(415, "the body must not be compressed\n")
    request.max_content_length = receiver.largest_body
    try:
        return request.get_data(cache=False, parse_form_data=False)
    except RequestEntityTooLarge:
        return Reply(413, f"the body is larger than {receiver.largest_body} bytes\n")


def _wrong_type(receiver: Receiver, asked: InboundRequest) -> Reply | None:
    if asked.content_type in receiver.content_types:
        charset = request.mimetype_params.get("charset", "utf-8").lower().replace("_", "-")
        return None if charset in ("utf-8", "utf8", "us-ascii") else Reply(415, "the charset must be utf-8\n")
    return Reply(415, f"the body must be {' or '.join(receiver.content_types)}\n")


def _headers() -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _url() -> str:
    """The address as the vendor called it, which some sign: what a proxy in between made of it is of no use."""
    raw: str = request.environ.get("REQUEST_URI") or request.environ.get("RAW_URI") or request.full_path.rstrip("?")
    path = raw if raw.startswith("/") else "/" + raw.partition("://")[2].partition("/")[2]
    base: str = current_app.config["BOUCLE"].base_url
    return base + path


def _response(reply: Reply) -> Response:
    headers: dict[str, Any] = dict(reply.headers)
    return Response(reply.body, reply.status, headers=headers, content_type=reply.content_type)
