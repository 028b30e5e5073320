"""The worker of this process: the local engine in a thread beside the web, or alone for `flask worker`."""

from __future__ import annotations

import threading

from core.engines.local import LocalEngine
from core.jobs.context import Context

STOP_SECONDS = 30.0


class Worker:
    """Runs the jobs until it is stopped."""

    def __init__(self, context: Context, heartbeat_url: str = "") -> None:
        self.context = context
        self.engine = LocalEngine(context)
        self._thread: threading.Thread | None = None

    def run(self) -> None:
        """Work in this thread until `context.stopping` is set."""
        self.engine.run()

    def start(self) -> None:
        """Work in a thread of its own."""
        self._thread = threading.Thread(target=self.engine.run, name="boucle-worker", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after what is being done; a job that takes longer is cut, which is safe."""
        self.context.stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
