"""The one way to a vendor over HTTP: time-outs, rate tokens, retries, errors by consequence, logs without secrets.

Every call takes a token of the account's rate bucket before it leaves, each repetition too; a vendor's SDK makes its
calls inside `HttpClient.call`. There is one retry policy: an error that says that nothing was done (`Unavailable`) or
that asks to wait a little (`RateLimited`) is repeated, one that leaves a doubt never is.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import requests
import tenacity
import urllib3.connection
import urllib3.connectionpool
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3 import exceptions as urllib3_errors

from connectors.config import PRIVATE, addresses_of, is_private
from connectors.errors import error_for_status, redact, retry_after_seconds
from core.errors import ConnectorError, Misconfigured, RateLimited, Unavailable, Uncertain

T = TypeVar("T")

log = logging.getLogger("boucle.http")
# its debug lines carry whole URLs, and with them tokens of query strings
logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)

TIMEOUT_SECONDS = 20.0
#: Attempts and waits together stay under half a worker's lease of 60 s.
ATTEMPTS = 4
LONGEST_SECONDS = 25.0
LONGEST_WAIT_SECONDS = 10.0
MOST_REDIRECTS = 5
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
REQUEST_ID_HEADERS = ("X-Request-Id", "X-HubSpot-Correlation-Id", "X-Correlation-Id", "Request-Id")


class HttpClient:
    """Calls to one account. Used by one thread at a time, like the connector it belongs to.

    `bucket` waits until the account may be called once more. `authenticate` signs a prepared request; what it adds is
    never logged and never follows a redirect to another host. `secret_path`: who knows the path is let in, so that it
    is not logged either.
    """

    def __init__(
        self,
        base_url: str = "",
        *,
        kind: str = "",
        bucket: Callable[[], None] = lambda: None,
        allow_private: bool = False,
        timeout: float = TIMEOUT_SECONDS,
        authenticate: Callable[[requests.PreparedRequest], requests.PreparedRequest] | None = None,
        headers: Mapping[str, str] | None = None,
        secret_path: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.kind = kind
        self.allow_private = allow_private
        self.timeout = timeout
        self._secret_path = secret_path
        self._bucket = bucket
        self._sleep = sleep
        self._authenticate = authenticate
        self._headers = dict(headers or {})
        self._opened: requests.Session | None = None

    def at(
        self,
        base_url: str,
        *,
        authenticate: Callable[[requests.PreparedRequest], requests.PreparedRequest] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HttpClient:
        """A client of the same account for another address: the connector's own, or an upload or token host."""
        return HttpClient(
            base_url,
            kind=self.kind,
            bucket=self._bucket,
            allow_private=self.allow_private,
            timeout=self.timeout,
            authenticate=authenticate or self._authenticate,
            headers={**self._headers, **(headers or {})},
            secret_path=self._secret_path,
            sleep=self._sleep,
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        safe: bool | None = None,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """The vendor's 2xx answer. `safe`: may be repeated, as GET and PUT may, or a POST with an idempotency key.

        Raises Unauthorized, RateLimited, Unavailable (nothing was done), Uncertain, Rejected, Misconfigured.
        """
        method = method.upper()
        repeatable = method in SAFE_METHODS if safe is None else safe
        url = path if "://" in path else f"{self.base_url}/{path.lstrip('/')}"
        asked = requests.Request(method, url, params=params, json=json, data=data, headers=dict(headers or {}))
        return self.call(lambda: self._once(asked, repeatable))

    def get_json(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """The JSON of a GET. Raises as `request` does, Unavailable also for an answer that is not JSON."""
        response = self.request("GET", path, params=params)
        try:
            return response.json()
        except ValueError:
            extract = redact(response.text)
            raise Unavailable(
                f"{self._what('GET', response.url)}: no JSON in the answer", kind=self.kind, body=extract
            ) from None

    def call(self, fn: Callable[[], T]) -> T:
        """Run one call, an SDK's too: a token first, then again under the one retry policy while that is safe.

        `fn` raises the errors of `core.errors`; the SDK's own retries are off.
        """

        def once() -> T:
            self._bucket()
            return fn()

        return self._policy()(once)

    def close(self) -> None:
        """Give the sockets back; the next call opens new ones."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def __repr__(self) -> str:
        return f"<HttpClient {self.kind} {_shown(self.base_url)}>"

    # --- one attempt --------------------------------------------------------------------------------------------

    def _once(self, asked: requests.Request, safe: bool) -> requests.Response:
        what = self._what(asked.method or "", asked.url or "")
        started = time.monotonic()
        try:
            response = self._follow(asked)
        except requests.RequestException as error:
            failed = self._translate(error, what, safe)
            log.info("%s failed: %s", what, type(failed).__name__)
            raise failed from None
        log.debug("%s: %s in %.0f ms", what, response.status_code, (time.monotonic() - started) * 1000)
        if 200 <= response.status_code < 300:
            return response
        raise error_for_status(
            response.status_code,
            kind=self.kind,
            what=what,
            safe=safe,
            retry_after=retry_after_seconds(response.headers.get("Retry-After")),
            request_id=_request_id(response),
            body=response.text[:4000],
        )

    def _follow(self, asked: requests.Request) -> requests.Response:
        """The answer, after redirects of reads within the same host; elsewhere a redirect would take secrets along."""
        session = self._session()
        prepared = session.prepare_request(asked)
        for _ in range(MOST_REDIRECTS + 1):
            response = self._send(session, prepared)
            target = urljoin(prepared.url or "", response.headers.get("Location", ""))
            moved = response.is_redirect and prepared.method in ("GET", "HEAD")
            if not moved or _origin(target) != _origin(prepared.url or ""):
                return response
            prepared.url = requests.Request("GET", target).prepare().url
        raise requests.TooManyRedirects()

    def _send(self, session: requests.Session, prepared: requests.PreparedRequest) -> requests.Response:
        surroundings = session.merge_environment_settings(prepared.url or "", {}, None, None, None)
        return session.send(prepared, timeout=self.timeout, allow_redirects=False, **surroundings)

    def _session(self) -> requests.Session:
        if self._opened is None:
            session = requests.Session()
            session.headers.update({"User-Agent": "Boucle", **self._headers})
            session.auth = _Signature(self._authenticate)
            adapter = GuardedAdapter(self.allow_private)
            session.mount("http://", adapter)
            session.mount("https://", adapter)
            self._opened = session
        return self._opened

    def _what(self, method: str, url: str) -> str:
        shown = _shown(url)
        return f"{self.kind} {method} {shown.partition('/')[0] if self._secret_path else shown}".strip()

    def _translate(self, error: requests.RequestException, what: str, safe: bool) -> ConnectorError:
        """The texts of these exceptions carry whole URLs: none is passed on."""
        refused = _never_sent(error)
        if isinstance(error, requests.exceptions.SSLError):
            return Misconfigured(
                f"{what}: the certificate is not accepted ({_reason(error)})", field="base_url", kind=self.kind
            )
        if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.MissingSchema | ValueError):
            return Misconfigured(f"{what}: is no address that can be called", field="base_url", kind=self.kind)
        if isinstance(error, requests.TooManyRedirects):
            return Misconfigured(f"{what}: redirects without end", field="base_url", kind=self.kind)
        if refused or safe:
            return Unavailable(f"{what}: {_reason(error)}", kind=self.kind)
        return Uncertain(f"{what}: {_reason(error)}, perhaps after it was carried out", kind=self.kind)

    def _policy(self) -> tenacity.Retrying:
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(_worth_repeating),
            wait=_wait,
            stop=tenacity.stop_after_attempt(ATTEMPTS) | tenacity.stop_before_delay(LONGEST_SECONDS),
            sleep=self._sleep,
            reraise=True,
        )


def beat(url: str, *, allow_private: bool = False, timeout: float = 10.0) -> bool:
    """Call a watchdog's address (BOUCLE_HEARTBEAT_URL) once. False, and a warning, if it did not hear us.

    The address is itself a secret: whoever knows it can keep the watchdog quiet. Only its host is logged.
    """
    client = HttpClient(kind="heartbeat", allow_private=allow_private, timeout=timeout, secret_path=True)
    try:
        client._once(requests.Request("GET", url), True)
    except ConnectorError as error:
        log.warning("the watchdog of BOUCLE_HEARTBEAT_URL was not reached: %s", error)
        return False
    finally:
        client.close()
    return True


# --- the policy ---------------------------------------------------------------------------------------------------


def _worth_repeating(error: BaseException) -> bool:
    if isinstance(error, RateLimited):
        return (error.retry_after or 0.0) <= LONGEST_WAIT_SECONDS
    return isinstance(error, Unavailable)


_backoff = tenacity.wait_random_exponential(multiplier=0.5, max=8.0)


def _wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, RateLimited) and error.retry_after is not None:
        return error.retry_after
    return _backoff(state)


# --- what went wrong ----------------------------------------------------------------------------------------------

_BEFORE_SENDING = (urllib3_errors.NewConnectionError, urllib3_errors.ConnectTimeoutError, urllib3_errors.ProxyError)


def _never_sent(error: BaseException) -> bool:
    """Whether no byte of the request can have reached the vendor."""
    if isinstance(error, requests.ConnectTimeout | requests.exceptions.ProxyError):
        return True
    return any(isinstance(cause, _BEFORE_SENDING) for cause in _causes(error))


def _reason(error: BaseException) -> str:
    """In words, without the URL."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        if isinstance(cause, socket.gaierror):
            return "the host name does not resolve"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        if isinstance(cause, urllib3_errors.NameResolutionError):
            return "the host name does not resolve"
        if isinstance(cause, urllib3_errors.IncompleteRead):
            return "the answer broke off"
    return "the connection broke"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exceptions within an exception: the libraries nest them as cause, context, reason or argument."""
    waiting: list[BaseException] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inner = (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args)
        waiting.extend(cause for cause in inner if isinstance(cause, BaseException))


def _shown(url: str) -> str:
    """A URL as it may be logged: without query, user and fragment."""
    try:
        parts = urlsplit(url)
        return f"{parts.hostname or ''}{parts.path}" if parts.netloc else parts.path
    except ValueError:
        return "an unreadable address"


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _request_id(response: requests.Response) -> str:
    return next((response.headers[name] for name in REQUEST_ID_HEADERS if name in response.headers), "")[:100]


# --- requests, made careful ---------------------------------------------------------------------------------------


class _Signature(AuthBase):
    """Signs requests. Being set at all keeps `requests` from taking passwords out of ~/.netrc."""

    def __init__(self, sign: Callable[[requests.PreparedRequest], requests.PreparedRequest] | None) -> None:
        self._sign = sign

    def __call__(self, prepared: requests.PreparedRequest) -> requests.PreparedRequest:
        return self._sign(prepared) if self._sign else prepared


class GuardedAdapter(HTTPAdapter):
    """Refuses addresses inside our own network at the moment of connecting, whatever the name resolved to before.

    Through a proxy of the environment the proxy connects, and decides.
    """

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        if not self._allow_private:
            self.poolmanager.pool_classes_by_scheme = {"http": _GuardedHttpPool, "https": _GuardedHttpsPool}


class _GuardedHttpConnection(urllib3.connection.HTTPConnection):
    def _new_conn(self) -> socket.socket:
        _refuse_private(self.host)
        return _checked(super()._new_conn())


class _GuardedHttpsConnection(urllib3.connection.HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        _refuse_private(self.host)
        return _checked(super()._new_conn())


class _GuardedHttpPool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = _GuardedHttpConnection


class _GuardedHttpsPool(urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls = _GuardedHttpsConnection


def _refuse_private(host: str) -> None:
    """Before connecting, so that not even the difference between an open and a closed port can be told."""
    try:
        found = addresses_of(host)
    except (OSError, UnicodeError):
        return  # a name that does not resolve is the library's to report
    if any(is_private(address) for address in found):
        raise Misconfigured(PRIVATE.format(host=host), field="base_url")


def _checked(connected: socket.socket) -> socket.socket:
    if is_private(str(connected.getpeername()[0])):
        connected.close()
        raise Misconfigured(PRIVATE.format(host="this name"), field="base_url")
    return connected
