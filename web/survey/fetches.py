"""Fetched pages, written down beside the page: whoever opens a link never waits for a busy database.

A fetch is handed to a short-lived thread that writes down all that wait in one transaction. The page waits for it a
moment, so that what a person posts next finds it there; then it is shown all the same. Where the database is busy for
long, some are dropped: they are signals for a verdict, and no answer hangs on one.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass, field

from core.storage.hits import note_hit
from core.storage.store import Store

#: A page is held up by its own fetch for at most so long.
PATIENCE_SECONDS = 0.2
#: Fetches that wait to be written; more are dropped.
MOST_WAITING = 1_000
#: Fetches in one transaction: some milliseconds.
BATCH = 100

log = logging.getLogger("boucle.web")


@dataclass(frozen=True, slots=True)
class Fetch:
    """Somebody fetched a link, or a machine did."""

    token: str
    method: str
    score: int | None
    agent: str
    network: str
    at: int  # ms
    written: threading.Event = field(default_factory=threading.Event, compare=False)


class FetchLog:
    """Writes fetches down. One per process; its thread lives while there is something to write."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._waiting: deque[Fetch] = deque()
        self._writing = False

    def note(self, fetch: Fetch) -> bool:
        """Have it written; whether that was done or given up by the time the page has to be shown."""
        with self._lock:
            if len(self._waiting) >= MOST_WAITING:
                return False
            self._waiting.append(fetch)
            starts = not self._writing
            self._writing = True
        return (not starts or self._start()) and fetch.written.wait(PATIENCE_SECONDS)

    def _start(self) -> bool:
        try:
            threading.Thread(target=self._write_all, name="survey-fetches", daemon=True).start()
        except RuntimeError:  # no thread to be had: the next fetch tries again
            with self._lock:
                self._writing = False
        return self._writing

    def _write_all(self) -> None:
        while batch := self._next():
            try:
                with self._store.write() as tx:
                    for one in batch:
                        note_hit(
                            tx, one.token,
                            method=one.method, score=one.score, agent=one.agent, network=one.network, now=one.at,
                        )  # fmt: skip
            except Exception as error:  # whatever it is, pages are shown
                log.warning("%d fetched survey pages were not noted: %s", len(batch), type(error).__name__)
            for one in batch:
                one.written.set()

    def _next(self) -> list[Fetch]:
        with self._lock:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            self._writing = bool(batch)
        return batch
