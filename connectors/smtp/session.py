"""One conversation with a mail server, over `smtplib`: opening it, signing in, one message to one recipient.

What matters to the caller is how far a message came. Until its content has been sent nothing can have been accepted
(`Lost`: try again on a new connection); from then on only the server's answer says what became of it (`InDoubt`).
All waiting for one message ends by one deadline, even if the server sends a byte now and then.
"""

from __future__ import annotations

import base64
import contextlib
import re
import smtplib
import socket
import ssl
import time
from dataclasses import dataclass

from connectors.config import is_loopback
from connectors.errors import redact
from connectors.smtp.bounded import BoundedSmtp, BoundedSmtpTls
from core.errors import ConnectorError, Misconfigured, RateLimited, Unauthorized, Unavailable

KIND = "smtp"
#: Everything for one message, connecting included, stays under half a worker's lease of 60 s.
DEADLINE_SECONDS = 28.0
GOODBYE_SECONDS = 2.0
#: How long to leave a server alone that says 421 or 4.7.x: a pause, not a failure.
PAUSE_SECONDS = 300.0

_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?!\S)")


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered."""

    code: int
    text: str

    @classmethod
    def of(cls, answer: tuple[int, bytes]) -> Reply:
        code, text = answer
        return cls(code, " ".join(text.decode("utf-8", errors="replace").split()))

    @property
    def accepted(self) -> bool:
        return 200 <= self.code < 300

    @property
    def later(self) -> bool:
        return 400 <= self.code < 500

    @property
    def never(self) -> bool:
        return 500 <= self.code < 600

    @property
    def enhanced(self) -> str:
        """The RFC 3463 code, such as 5.1.1, or nothing."""
        found = _ENHANCED.match(self.text)
        return found.group(1) if found else ""

    @property
    def pauses(self) -> bool:
        """The server wants less of us (421, 4.7.x); it says nothing about the message."""
        return self.code == 421 or (self.later and self.enhanced.startswith("4.7."))

    def __str__(self) -> str:
        return f"{self.code} {redact(self.text)}".strip()


class Lost(Exception):
    """The connection ended before any content left: the same message may go on another one."""

    def __init__(self, why: str, *, pauses: bool = False) -> None:
        super().__init__(why)
        self.pauses = pauses


class InDoubt(Exception):
    """The content may have arrived and the answer did not."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where and how to connect."""

    host: str
    port: int
    security: str
    username: str
    password: str
    hello_name: str
    timeout: float
    context: ssl.SSLContext

    def __repr__(self) -> str:
        return f"Door({self.host}:{self.port})"


class Session:
    """An open, signed-in connection; all waiting ends at `deadline` (`time.monotonic`).

    Making one connects. Raises Unauthorized, RateLimited, Unavailable, Misconfigured.
    """

    def __init__(self, door: Door, deadline: float) -> None:
        self._door = door
        self._deadline = deadline
        self.sent = 0
        self.used_at = time.monotonic()
        self._smtp = self._connect()
        try:
            # small commands wait for nobody's acknowledgement
            self._smtp.bounded_socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._greet()
            self._secure()
            self._sign_in()
        except smtplib.SMTPServerDisconnected:
            self.drop()
            raise self._unavailable("it closed the connection") from None
        except (OSError, smtplib.SMTPException) as error:
            self.drop()
            raise self._unavailable(_words(error)) from None
        except ConnectorError:
            self.drop()
            raise

    # --- opening ------------------------------------------------------------------------------------------------

    def _connect(self) -> BoundedSmtp:
        door = self._door
        where = (door.host, door.port, door.hello_name)
        try:
            if door.security == "tls":
                return BoundedSmtpTls(*where, timeout=door.timeout, deadline=self._deadline, context=door.context)
            return BoundedSmtp(*where, timeout=door.timeout, deadline=self._deadline)
        except smtplib.SMTPConnectError as error:
            raise self.not_now(Reply.of((error.smtp_code, _bytes(error.smtp_error)))) from None
        except ssl.SSLCertVerificationError as error:
            raise self._bad_certificate(error) from None
        except ssl.SSLError as error:
            raise Misconfigured(
                f"{self._where} does not speak TLS from the first byte ({_words(error)}): is security or port wrong?",
                field="security",
                kind=KIND,
            ) from None
        except smtplib.SMTPServerDisconnected:
            raise self._unavailable("it closed the connection without a greeting") from None
        except (OSError, UnicodeError) as error:
            raise self._unavailable(_words(error)) from None

    def _greet(self) -> None:
        reply = Reply.of(self._smtp.ehlo())
        if not reply.accepted:
            reply = Reply.of(self._smtp.helo())
        if not reply.accepted:
            raise self.not_now(reply)

    def _secure(self) -> None:
        """Encrypt what follows, or stop: somebody on the way may have removed the offer, so never in clear instead."""
        if self._door.security != "starttls":
            return
        if not self._smtp.has_extn("starttls"):
            raise Misconfigured(
                f"{self._where} does not offer STARTTLS, so nothing is sent: check the port, or what lies between",
                field="security",
                kind=KIND,
            )
        try:
            reply = Reply.of(self._smtp.starttls(context=self._door.context))
        except ssl.SSLCertVerificationError as error:
            raise self._bad_certificate(error) from None
        except smtplib.SMTPResponseException as error:
            reply = Reply.of((error.smtp_code, _bytes(error.smtp_error)))
        if reply.code != 220:
            raise self._unavailable(f"it would not start TLS: {reply}")
        self._greet()

    def _sign_in(self) -> None:
        door = self._door
        if not door.username:
            return
        if door.security == "none" and not is_loopback(door.host):
            raise Misconfigured(
                f"the password is not sent to {self._where} in clear: set security to starttls or tls",
                field="security",
                kind=KIND,
            )
        try:
            reply = self._authenticate()
        except smtplib.SMTPAuthenticationError as error:
            reply = Reply.of((error.smtp_code, _bytes(error.smtp_error)))
        except smtplib.SMTPServerDisconnected:
            raise
        except (smtplib.SMTPException, UnicodeEncodeError):
            raise Misconfigured(
                f"{self._where} offers no way to sign in with a user name and a password", field="username", kind=KIND
            ) from None
        if reply.later:
            raise self.not_now(reply)
        if not reply.accepted:
            raise self.unauthorized(reply)

    def _authenticate(self) -> Reply:
        door = self._door
        if "PLAIN" in self._smtp.esmtp_features.get("auth", "").upper().split():
            # smtplib's own PLAIN fails on a password outside ASCII; RFC 4616 says UTF-8
            response = base64.b64encode(f"\0{door.username}\0{door.password}".encode()).decode()
            return Reply.of(self._smtp.docmd("AUTH", f"PLAIN {response}"))
        return Reply.of(self._smtp.login(door.username, door.password))

    # --- sending ------------------------------------------------------------------------------------------------

    def begin(self, sender: str, size: int) -> Reply:
        """MAIL FROM. Raises Lost."""
        size_known = self._smtp.has_extn("size")
        return self._say(f"MAIL FROM:<{sender}>" + (f" SIZE={size}" if size_known and size else ""))

    def name_recipient(self, recipient: str) -> Reply:
        """RCPT TO. Raises Lost."""
        return self._say(f"RCPT TO:<{recipient}>")

    def announce_content(self) -> Reply:
        """DATA; only after 354 may `send_content` follow. Raises Lost."""
        return self._say("DATA")

    def send_content(self, content: bytes) -> Reply:
        """The content and the final dot; the answer decides. Raises InDoubt."""
        try:
            # a line of one dot ends the content, so every leading dot is doubled; the first line is a header
            self._smtp.send(content.replace(b"\r\n.", b"\r\n..") + b".\r\n")
            reply = Reply.of(self._smtp.getreply())
        except (OSError, smtplib.SMTPException):
            raise InDoubt("the connection ended after the content was sent, before the server answered") from None
        if not (reply.accepted or reply.later or reply.never):
            raise InDoubt(f"the server's answer to the content is no SMTP reply: {reply}")
        self.sent += reply.accepted
        self.used_at = time.monotonic()
        return reply

    def reset(self) -> bool:
        """Forget the transaction. False if the connection cannot be used any more."""
        return self._answers("RSET")

    def alive(self) -> bool:
        """Whether the server still answers."""
        return self._answers("NOOP")

    def finish_by(self, deadline: float) -> None:
        """A new message: all waiting for it ends then."""
        self._smtp.deadline = deadline

    def _answers(self, command: str) -> bool:
        try:
            return self._say(command).accepted
        except Lost:
            return False

    def _say(self, command: str) -> Reply:
        try:
            reply = Reply.of(self._smtp.docmd(command))
        except (OSError, smtplib.SMTPException, ValueError):
            raise Lost("the server closed the connection or did not answer in time") from None
        if reply.code == 421:
            raise Lost(str(reply), pauses=True)
        if not 200 <= reply.code < 600:
            raise Lost(f"the server's answer is no SMTP reply: {reply}")
        return reply

    # --- ending -------------------------------------------------------------------------------------------------

    def quit(self) -> None:
        """Say goodbye, without waiting long for the answer."""
        self.finish_by(time.monotonic() + GOODBYE_SECONDS)
        with contextlib.suppress(OSError, smtplib.SMTPException):
            self._smtp.docmd("QUIT")
        self.drop()

    def drop(self) -> None:
        """Close without a word."""
        with contextlib.suppress(OSError):
            self._smtp.close()

    # --- in words -----------------------------------------------------------------------------------------------

    @property
    def largest(self) -> int:
        """The most bytes a message may have here; 0 if the server does not say."""
        text = self._smtp.esmtp_features.get("size", "")
        return int(text) if text.isdigit() else 0

    @property
    def name(self) -> str:
        """What the server calls itself."""
        greeting = (self._smtp.ehlo_resp or self._smtp.helo_resp or b"").decode("utf-8", errors="replace").split()
        return redact(greeting[0])[:100] if greeting else self._door.host

    @property
    def cipher(self) -> str:
        """`TLSv1.3`, or nothing in clear."""
        sock = self._smtp.sock
        return (sock.version() or "") if isinstance(sock, ssl.SSLSocket) else ""

    @property
    def _where(self) -> str:
        return f"{self._door.host}:{self._door.port}"

    def _unavailable(self, why: str) -> Unavailable:
        return Unavailable(f"{self._where} cannot take mail now: {why}", kind=KIND)

    def not_now(self, reply: Reply) -> ConnectorError:
        if reply.pauses:
            return RateLimited(
                f"{self._where} asks to wait: {reply}", retry_after=PAUSE_SECONDS, kind=KIND, status=reply.code
            )
        return Unavailable(f"{self._where} cannot take mail now: {reply}", kind=KIND, status=reply.code)

    def unauthorized(self, reply: Reply) -> Unauthorized:
        """The server does not know us (any more)."""
        return Unauthorized(f"{self._where} refuses us: {reply}", kind=KIND, status=reply.code)

    def _bad_certificate(self, error: ssl.SSLCertVerificationError) -> Misconfigured:
        return Misconfigured(
            f"the certificate of {self._where} is not accepted: {error.verify_message}; correct host, or name the"
            " authority that signed it in ca_file",
            field="ca_file",
            kind=KIND,
        )


def _bytes(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror | UnicodeError):
        return "its name does not resolve"
    if isinstance(error, ssl.SSLError):
        return (error.reason or "TLS failed").lower().replace("_", " ")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return redact(str(error))
