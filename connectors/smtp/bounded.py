"""`smtplib`, with an end to all waiting: its own time-out starts anew with every byte the server sends."""

from __future__ import annotations

import smtplib
import socket
import time
from typing import Any


class _Lines:
    """What `smtplib` reads replies from: lines of a socket, until a deadline and not just until the next byte."""

    def __init__(self, smtp: BoundedSmtp) -> None:
        self._smtp = smtp
        self._kept = b""

    def readline(self, limit: int) -> bytes:
        """A line, or what came before the end of the connection. Raises TimeoutError."""
        while (end := self._kept.find(b"\n")) < 0 and len(self._kept) < limit:
            sock = self._smtp.bounded_socket()
            received = sock.recv(4096)
            if not received:
                end = len(self._kept) - 1
                break
            self._kept += received
        size = limit if end < 0 and len(self._kept) >= limit else end + 1
        line, self._kept = self._kept[:size], self._kept[size:]
        return line

    def close(self) -> None:
        self._kept = b""


class BoundedSmtp(smtplib.SMTP):
    """All waiting ends at `deadline` (`time.monotonic`)."""

    def __init__(self, host: str, port: int, hello_name: str, *, timeout: float, deadline: float, **more: Any) -> None:
        self.deadline = deadline
        self._longest = timeout
        left = max(0.1, min(timeout, deadline - time.monotonic()))
        super().__init__(host, port, hello_name, timeout=left, **more)

    def bounded_socket(self) -> socket.socket:
        """The socket, which now waits no longer than is left. Raises TimeoutError."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the server took too long")
        sock = self.sock
        if sock is None:
            raise smtplib.SMTPServerDisconnected("not connected")
        sock.settimeout(min(left, self._longest))
        return sock

    def send(self, s: Any) -> None:
        if self.sock is not None:
            self.bounded_socket()
        super().send(s)

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self.file = _Lines(self)
        return super().getreply()


class BoundedSmtpTls(BoundedSmtp, smtplib.SMTP_SSL):
    """The same, encrypted from the first byte."""
