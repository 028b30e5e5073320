"""A connection that effects leave by: held by one worker at a time, marked broken and mended again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from core.clock import from_ms
from core.errors import BoucleError, Misconfigured, Unauthorized
from core.jobs.context import Context, JobReport
from core.storage import incidents, leases, settings
from core.storage.incidents import IncidentKind
from core.storage.settings import ConnectionRow
from core.storage.store import Transaction

LEASE_MS = 60_000
#: How long a worker leaves a connection alone that does not answer, and one that refuses us. `tick` tries at once.
PAUSE_MS = 30_000
REFUSED_PAUSE_MS = 300_000
#: Connections that are served side by side.
MOST_AT_ONCE = 4


class Outlet:
    """What one worker holds: the lease `<use>:<connection id>`, and the connector once it is open."""

    def __init__(self, context: Context, connection: ConnectionRow, use: str, fence: int) -> None:
        self.context = context
        self.connection = connection
        self.name = lease_name(use, connection.id)
        self.account = connection.account or f"connection:{connection.name}"
        self.connector: Any = None
        self.problem: BoucleError | None = None
        self._fence = fence
        self._works = connection.state == "ok"
        self._renewed_at = context.clock.now_ms()

    def open(self) -> bool:
        """Build the connector. False, and the connection marked broken, if that is impossible."""
        try:
            self.connector = self.context.opener.open(self.connection.name)
        except BoucleError as error:
            with self.context.store.write() as tx:
                self.broken(tx, error)
            return False
        return True

    def renew(self, tx: Transaction) -> bool:
        """Hold on. False if somebody else took over: claim nothing more."""
        now = self.context.clock.now_ms()
        if 0 <= now - self._renewed_at < LEASE_MS // 4:
            return True
        self._renewed_at = now
        return leases.renew(tx, self.name, self.context.owner, self._fence, now, LEASE_MS)

    def broken(self, tx: Transaction, error: BoucleError) -> None:
        """The vendor cannot be reached or refuses us: say so on the connection and leave it alone for a while."""
        now = self.context.clock.now_ms()
        self.problem = error
        self._works = False
        refused = isinstance(error, Unauthorized | Misconfigured)
        settings.mark_connection(tx, self.connection.id, "broken", str(error), now)
        if refused:
            incidents.open_incident(tx, IncidentKind.CONNECTION, str(error), now, connection_id=self.connection.id)
        pause = REFUSED_PAUSE_MS if refused else PAUSE_MS
        leases.postpone(tx, self.name, self.context.owner, self._fence, now + pause)

    def works(self, tx: Transaction) -> None:
        """The vendor took something: whatever was broken is mended."""
        if self._works:
            return
        self._works = True
        now = self.context.clock.now_ms()
        settings.mark_connection(tx, self.connection.id, "ok", "", now)
        incidents.close_incidents(tx, IncidentKind.CONNECTION, now, connection_id=self.connection.id)

    def told_to_wait(self, seconds: float) -> str:
        """That the vendor wants to be left alone, in the same words until then."""
        until = from_ms(self.context.clock.now_ms() + round(seconds * 1000))
        return f"the vendor asked to be left alone until {until:%H:%M} UTC"

    def release(self) -> None:
        """Let others have it."""
        with self.context.store.write() as tx:
            now = self.context.clock.now_ms()
            if self.problem is None:
                leases.postpone(tx, self.name, self.context.owner, self._fence, 0)
            leases.release(tx, self.name, self.context.owner, self._fence, now)


@contextmanager
def held(context: Context, connection: ConnectionRow, use: str, *, patient: bool) -> Iterator[Outlet | None]:
    """The outlet, or None while somebody else works on it. `patient` respects the pause of one that is broken."""
    name = lease_name(use, connection.id)
    with context.store.write() as tx:
        now = context.clock.now_ms()
        lease = leases.read(tx, name)
        pausing = patient and connection.state == "broken" and lease is not None and now < lease.due_at
        fence = None if pausing else leases.acquire(tx, name, context.owner, now, LEASE_MS)
    if fence is None:
        yield None
        return
    outlet = Outlet(context, connection, use, fence)
    try:
        yield outlet
    finally:
        outlet.release()


def lease_name(use: str, connection_id: int) -> str:
    """One lease per connection and use: messages and write-backs of one connection may go on at once."""
    return f"{use}:{connection_id}"


def side_by_side(work: Callable[[ConnectionRow], JobReport], rows: Sequence[ConnectionRow]) -> Iterator[JobReport]:
    """Nobody waits for a slow vendor. One alone stays in this thread, which keeps its conversation from run to run."""
    if len(rows) <= 1:
        yield from map(work, rows)
        return
    with ThreadPoolExecutor(max_workers=min(MOST_AT_ONCE, len(rows))) as pool:
        yield from pool.map(work, rows)
