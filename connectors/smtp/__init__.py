"""Mail by any SMTP server (RFC 5321): sends surveys. https://www.rfc-editor.org/rfc/rfc5321

One recipient per transaction, one message in doubt at most, one connection kept while there is work.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from connectors.base import Connector, Credentials
from connectors.config import is_loopback
from connectors.http import HttpClient
from connectors.message import Mail, MailWriter
from connectors.smtp.config import SmtpConfig
from connectors.smtp.session import DEADLINE_SECONDS, PAUSE_SECONDS, Door, InDoubt, Lost, Reply, Session
from core.errors import ConnectorError, Invalid, Misconfigured, RateLimited, Unavailable
from core.ports import Account, Invitation, WriteResult

#: A connection unused for longer is not trusted; one unused for a moment is asked whether it still stands.
IDLE_SECONDS = 60.0
ASK_SECONDS = 10.0
#: So many messages put off in a row, each for a reason of the server's own, mean the server and not the messages.
PUT_OFF_IN_A_ROW = 10
#: Only these say that the address itself is dead (RFC 3463); policy (5.7.x) and a full mailbox (5.2.2) do not.
DEAD_ADDRESS = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"})
GO_AHEAD = 354
TOO_LARGE = 552
LONGEST_REFERENCE = 200
NOT_SIGNED_IN = frozenset({530, 535, 538})


class Smtp(Connector[SmtpConfig]):
    """Sends surveys by one mail server. The connection stays open from call to call; `close` ends it."""

    kind = "smtp"
    title = "SMTP"
    docs_url = "https://www.rfc-editor.org/rfc/rfc5321"
    proved_against = "a simulator over real sockets, written from RFC 5321, 3207 and 4954; no provider was reached"
    config_class = SmtpConfig
    send_batch_size = 1

    def __init__(self, config: SmtpConfig, http: HttpClient, credentials: Credentials) -> None:
        super().__init__(config, http, credentials)
        self._writer = MailWriter(config.sender, config.sender_name, config.reply_to)
        self._session: Session | None = None
        self._door: Door | None = None
        self._in_a_row = 0

    def check(self) -> Account:
        """Connect, sign in, and hear whether the sender is accepted. Nothing is sent."""
        self.close()
        session = self._open(time.monotonic() + DEADLINE_SECONDS)
        try:
            self._begin(session, 0)
            session.reset()
        except Lost as lost:
            raise Unavailable(f"{self.config.host} cannot take mail now: {lost}", kind=self.kind) from None
        finally:
            about = Account(self._account_id, session.name, self._note(session))
            self.close()
        return about

    def send_surveys(self, invitations: Sequence[Invitation]) -> Iterator[WriteResult]:
        """One after the other, each result before the next message leaves.

        Raises Unauthorized, Misconfigured (the sender is refused), RateLimited or Unavailable when the server, and not
        a message, is the reason; the message it happened at has not left, and neither have those after it.
        """
        for invitation in invitations:
            yield self._result(invitation)

    def rate_per_second(self) -> float | None:
        """As configured; the worker spaces the messages by the account's rate bucket."""
        return self.config.per_second

    def reaches_outside(self) -> bool:
        """A server on this machine does not count."""
        return not is_loopback(self.config.host)

    def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.quit()

    # --- one message --------------------------------------------------------------------------------------------

    def _result(self, invitation: Invitation) -> WriteResult:
        try:
            mail = self._writer.write(invitation, datetime.now(UTC))
        except Invalid as error:
            return WriteResult.rejected(invitation.key, str(error))
        try:
            return self._send(invitation.key, mail, time.monotonic() + DEADLINE_SECONDS)
        except ConnectorError:
            self.close()
            raise

    def _send(self, key: str, mail: Mail, deadline: float) -> WriteResult:
        """On the connection that is open; on a new one if that turns out to be gone before the content left."""
        kept = self._kept(deadline)
        if kept is not None:
            try:
                return self._transact(kept, key, mail)
            except Lost:
                self._drop()
        try:
            return self._transact(self._open(deadline), key, mail)
        except Lost as lost:
            self._drop()
            return self._put_off(key, str(lost), server=True, pauses=lost.pauses)

    def _transact(self, session: Session, key: str, mail: Mail) -> WriteResult:
        """MAIL, RCPT, DATA, and what the answers mean. Raises Lost as long as no content left."""
        refused = self._too_large(session, mail) or self._begin(session, len(mail.content))
        if refused:
            return WriteResult.rejected(key, refused)
        reply = session.name_recipient(mail.recipient)
        if reply.accepted:
            reply = session.announce_content()
            if reply.code == GO_AHEAD:
                return self._hand_over(session, key, mail)
        return self._refused(session, key, reply)

    def _hand_over(self, session: Session, key: str, mail: Mail) -> WriteResult:
        """The content. From here on only the server's answer tells; without one, nobody knows."""
        try:
            reply = session.send_content(mail.content)
        except InDoubt as doubt:
            self._drop()
            return WriteResult.uncertain(key, str(doubt))
        if not reply.accepted:
            return self._refused(session, key, reply)
        self._in_a_row = 0
        return WriteResult.done(key, reply.text[:LONGEST_REFERENCE])

    def _too_large(self, session: Session, mail: Mail) -> str:
        if 0 < session.largest < len(mail.content):
            return f"the server takes messages of up to {session.largest} bytes, this one has {len(mail.content)}"
        return ""

    def _begin(self, session: Session, size: int) -> str:
        """MAIL FROM. Why the message is refused, if for its size; anything else is no recipient's fault and raises."""
        reply = session.begin(self.config.sender, size)
        if reply.accepted:
            return ""
        if reply.code in NOT_SIGNED_IN:
            raise session.unauthorized(reply)
        if reply.never and size and (reply.code == TOO_LARGE or reply.enhanced == "5.3.4"):
            session.reset()
            return str(reply)
        if reply.never:
            raise Misconfigured(
                f"{self.config.host} refuses the sender {self.config.sender}: {reply}", field="sender", kind=self.kind
            )
        raise session.not_now(reply)

    def _refused(self, session: Session, key: str, reply: Reply) -> WriteResult:
        """The recipient or the message, not taken: now, or for good."""
        if reply.code in NOT_SIGNED_IN:
            raise session.unauthorized(reply)
        if not session.reset():
            self._drop()
        if reply.never:
            self._in_a_row = 0
            return WriteResult.rejected(key, str(reply), suppress=reply.enhanced in DEAD_ADDRESS)
        return self._put_off(key, str(reply), server=reply.pauses, pauses=reply.pauses)

    def _put_off(self, key: str, why: str, *, server: bool, pauses: bool) -> WriteResult:
        """Later. `server`: for a reason of the server's own; many of those in a row, and everybody waits."""
        self._in_a_row += server
        if self._in_a_row < PUT_OFF_IN_A_ROW:
            return WriteResult.retry(key, why, PAUSE_SECONDS if pauses else None)
        self._in_a_row = 0
        message = f"{self.config.host} put off {PUT_OFF_IN_A_ROW} messages in a row: {why}"
        if pauses:
            raise RateLimited(message, retry_after=PAUSE_SECONDS, kind=self.kind)
        raise Unavailable(message, kind=self.kind)

    # --- the connection -----------------------------------------------------------------------------------------

    def _kept(self, deadline: float) -> Session | None:
        """The open connection, if it may be used once more and still stands."""
        session = self._session
        if session is None:
            return None
        idle = time.monotonic() - session.used_at
        if session.sent >= self.config.per_connection or idle > IDLE_SECONDS:
            self.close()
            return None
        session.finish_by(deadline)
        if idle > ASK_SECONDS and not session.alive():
            self._drop()
            return None
        return session

    def _open(self, deadline: float) -> Session:
        if self._door is None:
            self._door = self._make_door()
        self._session = Session(self._door, deadline)
        return self._session

    def _make_door(self) -> Door:
        config = self.config
        return Door(
            host=config.host,
            port=config.port,
            security=config.security,
            username=config.username,
            password=config.password.get_secret_value() if config.password else "",
            hello_name=config.hello_name or our_name(config.sender),
            timeout=config.timeout_seconds,
            context=self._trust(),
        )

    def _trust(self) -> ssl.SSLContext:
        path = self.config.ca_file
        try:
            return ssl.create_default_context(cafile=str(path) if path else None)
        except OSError as error:
            why = "no certificate in PEM form" if isinstance(error, ssl.SSLError) else error.strerror
            raise Misconfigured(f"{path} cannot be used: {why}", field="ca_file", kind=self.kind) from None

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.drop()

    @property
    def _account_id(self) -> str:
        return f"smtp:{self.config.host.casefold()}:{self.config.port}:{self.config.username or self.config.sender}"

    def _note(self, session: Session) -> str:
        facts = (
            session.cipher or "not encrypted",
            f"signed in as {self.config.username}" if self.config.username else "not signed in",
            f"messages of up to {session.largest:,} bytes" if session.largest else "",
        )
        return ", ".join(fact for fact in facts if fact)


def our_name(sender: str) -> str:
    """What to say in EHLO: this machine's full name, or the sender's domain. `localhost` is taken for spam."""
    name = socket.gethostname()
    usable = name.isascii() and "." in name.strip(".") and not name.startswith("localhost")
    return name if usable else sender.rpartition("@")[2]
