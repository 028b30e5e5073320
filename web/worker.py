"""The worker of this process: the local engine in a thread beside the web, or alone for `flask worker`."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

import requests

from core.engines.local import LocalEngine
from core.errors import BoucleError
from core.jobs.context import Context

#: Less than a server gives its processes to end before it kills them (gunicorn: 30 s).
STOP_SECONDS = 20.0
HEARTBEAT_SECONDS = 60.0
HEARTBEAT_TIMEOUT = 10.0


class Worker:
    """Runs the jobs until `context.stopping` is set."""

    def __init__(self, context: Context, heartbeat_url: str = "") -> None:
        self.context = context
        self.heartbeat = Heartbeat(context, heartbeat_url)
        self.engine = LocalEngine(context, after_sweep=self.heartbeat.swept)
        self._thread: threading.Thread | None = None

    def run(self) -> None:
        """Work until `context.stopping` is set and what was being done has ended. Raises BoucleError if it dies."""
        # not in this thread: a signal handler that sets an event its own thread waits for may wait for itself
        self._begin().join()
        if not self.context.stopping.is_set():
            raise BoucleError("the worker ended by itself, which it should not; its log says more")

    def start(self) -> None:
        """Work beside a server, until that ends."""
        _on_end_of_server(self.context.stopping.set)
        self._begin()

    def stop(self) -> None:
        """End after what is being done; a job that takes longer is cut, which is safe."""
        self.context.stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def wake(self, job: str) -> None:
        """Something is due for `job`: run it now rather than at the next sweep."""
        self.engine.wake(job)

    def _begin(self) -> threading.Thread:
        self._thread = threading.Thread(target=self.engine.run, name="boucle-worker", daemon=True)
        self._thread.start()
        return self._thread


def _on_end_of_server(tell: Callable[[], None]) -> None:
    """Call `tell` as soon as the server is asked to end: at exit Python waits for threads before it asks anybody."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        before = signal.getsignal(number)
        if callable(before):  # the server's own, which goes on to do what it did
            signal.signal(number, _both(tell, before))


def _both(tell: Callable[[], None], before: Callable[[int, FrameType | None], object]) -> Callable[..., None]:
    def handle(number: int, frame: FrameType | None) -> None:
        tell()
        before(number, frame)

    return handle


class Heartbeat:
    """Calls BOUCLE_HEARTBEAT_URL after a sweep, at most once a minute: whoever watches it notices when it stays away.

    The call has a thread of its own, since looking a name up may take longer than any time-out. A failure is logged
    once, without the address, whose path is a secret of the monitor.
    """

    def __init__(self, context: Context, url: str) -> None:
        self._context = context
        self._url = url
        self._called_at = -HEARTBEAT_SECONDS
        self._calling: threading.Thread | None = None
        self._fails = False

    def swept(self) -> None:
        """A sweep has ended."""
        busy = self._calling is not None and self._calling.is_alive()
        if not self._url or busy or time.monotonic() - self._called_at < HEARTBEAT_SECONDS:
            return
        self._called_at = time.monotonic()
        self._calling = threading.Thread(target=self._call, name="boucle-heartbeat", daemon=True)
        self._calling.start()

    def _call(self) -> None:
        try:
            answer = requests.get(self._url, timeout=HEARTBEAT_TIMEOUT)
            problem = "" if answer.ok else f"it answered {answer.status_code}"
        except requests.RequestException as error:
            problem = type(error).__name__
        if problem and not self._fails:
            self._context.log.warning("BOUCLE_HEARTBEAT_URL could not be called: %s", problem)
        elif self._fails and not problem:
            self._context.log.info("BOUCLE_HEARTBEAT_URL is called again")
        self._fails = bool(problem)
