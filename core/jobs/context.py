"""What every use case is given: the store, the clock, and the ports to the world outside."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from core.clock import Clock
from core.events import Event
from core.keyring import Keyring
from core.ports import Composer, ConnectionOpener
from core.storage.store import Store


@dataclass(slots=True)
class JobReport:
    """One line of `flask tick`: what a use case did."""

    job: str
    done: int = 0
    failed: int = 0
    seconds: float = 0.0
    messages: list[str] = field(default_factory=list)

    def add(self, other: JobReport) -> None:
        """Count another run of the same job in."""
        self.done += other.done
        self.failed += other.failed
        self.seconds += other.seconds
        self.messages.extend(other.messages)


@dataclass(slots=True)
class Context:
    """The world as a job sees it. `owner` names this process in leases; `stopping` asks long jobs to end early."""

    store: Store
    clock: Clock
    keyring: Keyring
    pepper: bytes
    opener: ConnectionOpener
    composer: Composer
    owner: str
    stopping: threading.Event = field(default_factory=threading.Event)
    progress: Callable[[str], None] = lambda message: None
    #: What a receiver makes of a stored request: (kind, headers, body, received_at) -> events.
    parse_inbox: Callable[[str, Mapping[str, str], bytes, datetime], Iterable[Event]] | None = None
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("boucle"))
