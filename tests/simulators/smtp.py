"""A mail server on loopback, written from RFC 5321, 4954 and 3207 and not from the connector that is tried against it.

It is stricter than most: commands out of order, bare line feeds, bytes above 127 and lines over 998 are refused, and
with users configured nobody sends without signing in, nor signs in in clear. What it accepts is written to a file
before the 250 leaves, so that a drill that kills the client can compare afterwards. It fails where it is told to:

    sim.refuse("rcpt", "550 5.1.1 no such user", recipient="cleo@client.example")
    sim.drop("accepted")            # recorded, and the connection gone before the 250
    sim.delay("accepted", 30)       # recorded, and the 250 late
    sim.per_connection = 20         # 421 after so many messages
    sim.offer_starttls = False      # somebody on the way removed it

Stages, in order: connect, hello, auth, mail, rcpt, data, half (in the middle of the content), content (all of it came,
nothing is recorded), accepted (recorded). As a program, for drills: `python -m tests.simulators.smtp --record FILE`
prints its port and serves until it is terminated.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import contextlib
import json
import os
import random
import re
import signal
import socket
import socketserver
import ssl
import struct
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

STAGES = ("connect", "hello", "auth", "mail", "rcpt", "data", "half", "content", "accepted")
FIRST_BYTES = 4000  # of a body: the text part, where the link stands
_PATH = re.compile(r"(?:FROM|TO):<([^<>\s]*)>((?: [A-Z0-9-]+(?:=[\x21-\x3c\x3e-\x7e]+)?)*)", re.IGNORECASE)
_HEADER = re.compile(rb"^(message-id|x-boucle-key):\s*(.*?)\r$", re.IGNORECASE | re.MULTILINE)
_LINK = re.compile(rb"https?://[^\s\"'<>]+/s/[A-Za-z0-9_.~-]+")


@dataclass(frozen=True)
class Accepted:
    """A message the server took responsibility for."""

    sender: str
    recipient: str
    content: bytes
    connection: int

    @property
    def message(self) -> EmailMessage:
        return message_from_bytes(self.content, policy=policy.default)

    def summary(self) -> dict[str, str]:
        """What the record file keeps."""
        head, _, body = self.content.partition(b"\r\n\r\n")
        headers = {name.lower().decode(): value.decode() for name, value in _HEADER.findall(head + b"\r\n")}
        link = _LINK.search(binascii.a2b_qp(body[:FIRST_BYTES])) or _LINK.search(binascii.a2b_qp(body))
        return {
            "recipient": self.recipient,
            "message_id": headers.get("message-id", ""),
            "key": headers.get("x-boucle-key", ""),
            "link": link.group().decode() if link else "",
        }


@dataclass(frozen=True)
class Fault:
    """What goes wrong at a stage, so many times; only for one recipient if it is named (from rcpt on)."""

    stage: str
    reply: str = ""
    drop: bool = False
    delay: float = 0.0
    times: int = 1
    recipient: str = ""


class Dropped(Exception):
    """The connection is to be closed without another word."""


class SmtpSimulator:
    """A server on `port`, from `with` to its end. `accepted` is what it took, `commands` what it was told."""

    def __init__(
        self,
        *,
        users: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        record: Path | None = None,
        durable: bool = True,
        keep: bool = True,
        port: int = 0,
    ) -> None:
        self.users = dict(users or {})
        self.tls = tls
        self.implicit_tls = implicit_tls
        self.offer_starttls = tls is not None and not implicit_tls
        self.mechanisms = "PLAIN LOGIN"
        self.auth_in_clear = False
        self.per_connection = 0
        self.size = 35_000_000
        self.slow_bytes = 0.0
        self.chaos: Chaos | None = None
        self.accepted: list[Accepted] = []
        self.commands: list[str] = []
        self.connections = 0
        self.count = 0
        self._keep = keep
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._durable = durable
        self._record = None if record is None else os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._server = _Server(self, port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    # --- what tests say -----------------------------------------------------------------------------------------

    def refuse(self, stage: str, reply: str, times: int = 1, recipient: str = "") -> None:
        """Answer with `reply` at a stage. 421 also closes, as RFC 5321 says."""
        self._plan(Fault(stage, reply=reply, times=times, recipient=recipient))

    def drop(self, stage: str, times: int = 1) -> None:
        """Close the connection at a stage, without an answer."""
        self._plan(Fault(stage, drop=True, times=times))

    def delay(self, stage: str, seconds: float, times: int = 1) -> None:
        """Answer late at a stage."""
        self._plan(Fault(stage, delay=seconds, times=times))

    def _plan(self, fault: Fault) -> None:
        assert fault.stage in STAGES, fault.stage
        with self._lock:
            self._faults.append(fault)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    # --- what the conversation asks -----------------------------------------------------------------------------

    def fault_at(self, stage: str, recipient: str = "") -> Fault | None:
        """The next thing to go wrong here, counted down."""
        with self._lock:
            for index, fault in enumerate(self._faults):
                if fault.stage == stage and fault.recipient in ("", recipient):
                    self._faults[index] = replace(fault, times=fault.times - 1)
                    self._faults = [one for one in self._faults if one.times > 0]
                    return fault
            return self.chaos.fault_at(stage) if self.chaos else None

    def take(self, accepted: Accepted) -> None:
        """Take responsibility: on the disk before the answer."""
        with self._lock:
            self.count += 1
            if self._keep:
                self.accepted.append(accepted)
            if self._record is not None:
                os.write(self._record, json.dumps(accepted.summary()).encode() + b"\n")
                if self._durable:
                    os.fsync(self._record)

    def heard(self, command: str) -> None:
        if self._keep:
            self.commands.append(command)

    def sleep(self, seconds: float) -> None:
        if seconds:
            self._ended.wait(seconds)

    def opened(self) -> int:
        with self._lock:
            self.connections += 1
            return self.connections

    def __enter__(self) -> SmtpSimulator:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.close_all()
        self._thread.join()
        if self._record is not None:
            os.close(self._record)


@dataclass
class Chaos:
    """For drills: a share of stages goes wrong, each in a way of its own, the same for the same seed."""

    share: float
    random: random.Random
    delay: float = 0.0

    def fault_at(self, stage: str) -> Fault | None:
        if stage == "accepted" and self.delay:
            return Fault(stage, delay=self.random.uniform(0, self.delay))
        if self.random.random() >= self.share:
            return None
        if stage in ("half", "content", "accepted"):
            return Fault(stage, drop=True)
        replies = {"mail": "421 4.3.2 restarting", "rcpt": "451 4.3.0 try again", "data": "451 4.3.0 try again"}
        reply = replies.get(stage)
        return Fault(stage, reply=reply) if reply and self.random.random() < 0.5 else Fault(stage, drop=True)


# --- one conversation ---------------------------------------------------------------------------------------------


class _Conversation(socketserver.BaseRequestHandler):
    server: _Server

    def setup(self) -> None:
        self.sim = self.server.simulator
        self.number = self.sim.opened()
        self.server.remember(self.request)
        self.secure = False
        self.kept = b""
        self.sent = 0
        self.user = ""
        self.greeted = False
        self._forget()

    def _forget(self) -> None:
        self.sender: str | None = None
        self.recipients: list[str] = []

    def handle(self) -> None:
        with contextlib.suppress(OSError, Dropped):
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.sim.implicit_tls:
                self._encrypt()
            if self._stage("connect"):
                self._say("220 sim.example ESMTP simulator")
            for line in self._lines():
                self._obey(line)

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            self.request.close()

    def _obey(self, line: bytes) -> None:
        text = line.decode("ascii", errors="replace")
        verb, _, rest = text.partition(" ")
        verb = verb.upper()
        self.sim.heard(f"{verb} {'***' if verb == 'AUTH' else rest}".strip())
        action = getattr(self, f"_on_{verb.lower()}", None)
        if action is None or not verb.isalpha():
            self._say("500 5.5.2 unknown command")
        else:
            action(rest)

    # --- commands -----------------------------------------------------------------------------------------------

    def _on_ehlo(self, rest: str) -> None:
        if not self._stage("hello"):
            return
        if not rest or rest.lower().startswith("localhost"):
            return self._say("501 5.5.4 EHLO wants your name")
        self.greeted = True
        self._forget()
        offers = ["sim.example greets you", f"SIZE {self.sim.size}", "ENHANCEDSTATUSCODES"]
        if self.sim.offer_starttls and not self.secure:
            offers.append("STARTTLS")
        if self.sim.users and (self.secure or self.sim.auth_in_clear):
            offers.append(f"AUTH {self.sim.mechanisms}")
        for offer in offers[:-1]:
            self._say(f"250-{offer}")
        self._say(f"250 {offers[-1]}")

    def _on_helo(self, rest: str) -> None:
        self.greeted = True
        self._say("250 sim.example")

    def _on_starttls(self, rest: str) -> None:
        if not self.sim.offer_starttls or self.secure:
            return self._say("502 5.5.1 not offered")
        self._say("220 2.0.0 go ahead")
        self.kept = b""  # what came in clear before the handshake is not to be trusted
        self._encrypt()
        self.greeted = False

    def _on_auth(self, rest: str) -> None:
        if not self._stage("auth"):
            return
        if not self.secure and not self.sim.auth_in_clear:
            return self._say("538 5.7.11 encryption required")
        mechanism, _, initial = rest.partition(" ")
        mechanism = mechanism.upper()
        if mechanism not in self.sim.mechanisms.split():
            return self._say("504 5.5.4 unknown mechanism")
        name, password = self._plain(initial) if mechanism == "PLAIN" else self._login(initial)
        if name and self.sim.users.get(name) == password:
            self.user = name
            self._say("235 2.7.0 welcome")
        else:
            self._say("535 5.7.8 user name or password wrong")

    def _plain(self, initial: str) -> tuple[str, str]:
        parts = (_unbase64(initial) if initial else self._ask("")).split("\0")
        return (parts[1], parts[2]) if len(parts) == 3 else ("", "")

    def _login(self, initial: str) -> tuple[str, str]:
        name = _unbase64(initial) if initial else self._ask("Username:")
        return name, self._ask("Password:")

    def _ask(self, question: str) -> str:
        self._say(f"334 {base64.b64encode(question.encode()).decode()}")
        return _unbase64(next(self._lines(), b"").decode("ascii", errors="replace"))

    def _on_mail(self, rest: str) -> None:
        if self.sim.per_connection and self.sent >= self.sim.per_connection:
            self._say("421 4.7.0 that is enough for one connection")
            raise Dropped
        if not self._stage("mail"):
            return
        found = _PATH.fullmatch(rest)
        if not self.greeted or self.sender is not None:
            return self._say("503 5.5.1 not now")
        if self.sim.users and not self.user:
            return self._say("530 5.7.0 sign in first")
        if found is None:
            return self._say("501 5.5.4 not understood")
        size = re.search(r"SIZE=(\d+)", found.group(2), re.IGNORECASE)
        if size and int(size.group(1)) > self.sim.size:
            return self._say("552 5.3.4 too large")
        self.sender = found.group(1)
        self._say("250 2.1.0 ok")

    def _on_rcpt(self, rest: str) -> None:
        found = _PATH.fullmatch(rest)
        if self.sender is None:
            return self._say("503 5.5.1 MAIL first")
        if found is None or "@" not in found.group(1):
            return self._say("501 5.1.3 bad address")
        if self._stage("rcpt", found.group(1)):
            self.recipients.append(found.group(1))
            self._say("250 2.1.5 ok")

    def _on_data(self, rest: str) -> None:
        if not self.recipients:
            return self._say("503 5.5.1 RCPT first")
        if not self._stage("data", self.recipients[0]):
            return
        self._say("354 end with a dot")
        content, complaint = self._content()
        sender, recipients = self.sender or "", self.recipients
        self._forget()
        if complaint:
            return self._say(complaint)
        if not self._stage("content", recipients[0]):
            return
        self.sent += 1
        for recipient in recipients:
            self.sim.take(Accepted(sender, recipient, content, self.number))
        if self._stage("accepted", recipients[0]):
            self._say(f"250 2.0.0 ok queued as S{self.sim.count}")

    def _on_rset(self, rest: str) -> None:
        self._forget()
        self._say("250 2.0.0 forgotten")

    def _on_noop(self, rest: str) -> None:
        self._say("250 2.0.0 here")

    def _on_quit(self, rest: str) -> None:
        self._say("221 2.0.0 bye")
        raise Dropped

    # --- bytes --------------------------------------------------------------------------------------------------

    def _stage(self, stage: str, recipient: str = "") -> bool:
        """Whether this goes well; if not, it has been answered."""
        fault = self.sim.fault_at(stage, recipient)
        if fault is None:
            return True
        self.sim.sleep(fault.delay)
        if fault.drop:
            self._reset()
        if fault.reply:
            self._say(fault.reply)
            if fault.reply.startswith("421"):
                raise Dropped
            return False
        return True

    def _reset(self) -> None:
        """RST, as a machine does that has gone down."""
        with contextlib.suppress(OSError):
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Dropped

    def _content(self) -> tuple[bytes, str]:
        """The content without the dots that were added, and what is wrong with it."""
        fault = self.sim.fault_at("half", self.recipients[0])
        while not (self.kept.startswith(b".\r\n") or b"\r\n.\r\n" in self.kept):
            self._receive()
            if fault is not None:
                self._reset()
        content, _, self.kept = (b"\r\n" + self.kept).partition(b"\r\n.\r\n")
        content = (content + b"\r\n").replace(b"\r\n.", b"\r\n")[2:]
        return content, _complaint(content)

    def _lines(self) -> Iterator[bytes]:
        while True:
            while b"\r\n" not in self.kept:
                try:
                    self._receive()
                except Dropped:
                    return
            line, _, self.kept = self.kept.partition(b"\r\n")
            yield line

    def _receive(self) -> None:
        received = self.request.recv(65536)
        if not received:
            raise Dropped
        self.kept += received

    def _say(self, reply: str) -> None:
        content = reply.encode("utf-8") + b"\r\n"
        if not self.sim.slow_bytes:
            self.request.sendall(content)
            return
        for byte in content:
            self.request.sendall(bytes([byte]))
            self.sim.sleep(self.sim.slow_bytes)

    def _encrypt(self) -> None:
        assert self.sim.tls is not None
        self.request = self.sim.tls.wrap_socket(self.request, server_side=True)
        self.server.remember(self.request)
        self.secure = True


def _complaint(content: bytes) -> str:
    if not content.count(b"\r\n") == content.count(b"\n") == content.count(b"\r"):
        return "554 5.6.0 bare CR or LF"
    if not content.isascii():
        return "554 5.6.1 bytes above 127 without 8BITMIME"
    if max(map(len, content.split(b"\r\n"))) > 998:
        return "554 5.6.0 a line over 998 characters"
    head = b"\r\n" + content.partition(b"\r\n\r\n")[0]
    if not (b"\r\nFrom:" in head and b"\r\nDate:" in head):
        return "554 5.6.0 From and Date are required"
    return ""


def _unbase64(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except (ValueError, UnicodeDecodeError):
        return ""


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, simulator: SmtpSimulator, port: int) -> None:
        self.simulator = simulator
        self._open: list[socket.socket] = []
        super().__init__(("127.0.0.1", port), _Conversation)

    def remember(self, connection: socket.socket) -> None:
        self._open = [one for one in self._open if one.fileno() != -1] + [connection]

    def close_all(self) -> None:
        self.server_close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away in the middle, or did not like the certificate, is what many tests are about."""


# --- certificates -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Authority:
    """A certificate authority of our own, and the context of a server it vouches for."""

    ca_file: Path
    context: ssl.SSLContext


def make_authority(folder: Path, host: str = "localhost") -> Authority:
    """A fresh authority, and a certificate for `host` (and 127.0.0.1 if that is localhost)."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Simulator CA")])
    names: list[x509.GeneralName] = [x509.DNSName(host)]
    if host == "localhost":
        names.append(x509.IPAddress(ip_address("127.0.0.1")))
    ca = (
        _certificate(ca_name, ca_name, ca_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    certificate = (
        _certificate(subject, ca_name, key)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    ca_file, chain, key_file = folder / "ca.pem", folder / "server.pem", folder / "server.key"
    ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key_file)
    return Authority(ca_file, context)


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
    )


# --- as a program -------------------------------------------------------------------------------------------------


def read_record(path: Path) -> list[dict[str, str]]:
    """What a simulator accepted, in order: recipient, message_id, key, link."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description="A mail server on loopback that records what it accepts.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--fast", action="store_true", help="do not wait for the disk after each message")
    parser.add_argument("--per-connection", type=int, default=0)
    parser.add_argument("--chaos", type=float, default=0.0, help="share of stages that go wrong")
    parser.add_argument("--late", type=float, default=0.0, help="answer up to so many seconds after acceptance")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with SmtpSimulator(record=options.record, durable=not options.fast, keep=False, port=options.port) as simulator:
        simulator.per_connection = options.per_connection
        if options.chaos or options.late:
            simulator.chaos = Chaos(options.chaos, random.Random(options.seed), options.late)
        print(simulator.port, flush=True)
        while not ended.wait(0.2):
            pass
    print(f"{simulator.count} messages", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
