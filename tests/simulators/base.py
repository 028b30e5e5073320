"""What simulators of vendors share: a small stateful HTTP server on loopback that fails when it is told to.

A vendor's simulator subclasses `HttpSimulator` and answers in `respond`; it keeps its state in attributes. Sockets are
real, because vendors' libraries differ in what they make of a time-out, a reset or a body that ends early.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What to say. A `body` that is not bytes is sent as JSON."""

    status: int = 200
    body: Any = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request, before the simulator sees it or after it has done what was asked."""

    answer: Answer | None = None
    reset_before: bool = False
    reset_after: bool = False
    delay_before: float = 0.0
    delay_after: float = 0.0
    truncated: bool = False


class HttpSimulator:
    """A server on `url`, from `with` to its end. `requests` is what arrived, `done` what was carried out."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.done: list[Request] = []
        self._faults: deque[Fault] = deque()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def respond(self, request: Request) -> Answer:
        """The vendor. Called one request at a time."""
        return Answer(200, {"ok": True})

    # --- what tests say -----------------------------------------------------------------------------------------

    def fail_next(self, status: int, times: int = 1, headers: Mapping[str, str] | None = None, body: Any = b"") -> None:
        """Answer the next requests with this status; nothing is done."""
        self._faults.extend([Fault(answer=Answer(status, body, headers or {}))] * times)

    def reset_next(self, *, after: bool = False, times: int = 1) -> None:
        """Break the connection (RST) before the request is carried out, or after."""
        self._faults.extend([Fault(reset_before=not after, reset_after=after)] * times)

    def delay_next(self, seconds: float, *, after: bool = False, times: int = 1) -> None:
        """Answer late; `after`: what was asked is done at once and only the answer is late."""
        slow = Fault(delay_after=seconds) if after else Fault(delay_before=seconds)
        self._faults.extend([slow] * times)

    def truncate_next(self, times: int = 1) -> None:
        """End the body early."""
        self._faults.extend([Fault(truncated=True)] * times)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    # --- the server ---------------------------------------------------------------------------------------------

    def __enter__(self) -> HttpSimulator:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handle(self, handler: _Handler) -> None:
        request = handler.read_request()
        with self._lock:
            self.requests.append(request)
            fault = self._faults.popleft() if self._faults else Fault()
        self._ended.wait(fault.delay_before)
        if fault.reset_before:
            return handler.reset()
        answer = fault.answer
        if answer is None:
            with self._lock:
                self.done.append(request)
                answer = self.respond(request)
        self._ended.wait(fault.delay_after)
        if fault.reset_after:
            return handler.reset()
        handler.write_answer(answer, truncated=fault.truncated)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, simulator: HttpSimulator) -> None:
        self.simulator = simulator
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle is what many tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def read_request(self) -> Request:
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        return Request(self.command, parts.path, query, dict(self.headers), self.rfile.read(length))

    def write_answer(self, answer: Answer, *, truncated: bool) -> None:
        content = answer.content
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) + (100 if truncated else 0)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        if truncated:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def reset(self) -> None:
        """Close with RST, as a crashed process or a firewall does."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def do_GET(self) -> None:
        self.server.simulator._handle(self)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def wait_until(condition: Any, seconds: float = 5.0) -> bool:
    """Whether `condition()` came true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return bool(condition())
