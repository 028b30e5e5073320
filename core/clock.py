"""The one clock. Everything that asks for the time asks here, so that rules of 90 days can be tried in a minute.

`BOUCLE_CLOCK_OFFSET` (seconds) is added to the system clock; wiring passes it in, nothing here reads the environment.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

DAY = timedelta(days=1)
DAY_MS = 86_400_000
HOUR_MS = 3_600_000
MINUTE_MS = 60_000

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock:
    """System time plus an offset in seconds."""

    def __init__(self, offset_seconds: float = 0.0) -> None:
        self.offset_seconds = offset_seconds

    def now(self) -> datetime:
        """The present moment, aware UTC, whole milliseconds."""
        return from_ms(self.now_ms())

    def now_ms(self) -> int:
        """The present moment in milliseconds since the epoch: the form the database keeps."""
        return time.time_ns() // 1_000_000 + int(self.offset_seconds * 1000)


class FixedClock(Clock):
    """A clock that stands still until it is moved: for decisions about another moment (`preview --at`), for tests."""

    def __init__(self, at: datetime) -> None:
        super().__init__(0.0)
        self.at = at

    def now_ms(self) -> int:
        return to_ms(self.at)

    def advance(self, **duration: float) -> None:
        """Move on by a `timedelta(**duration)`."""
        self.at += timedelta(**duration)


def to_ms(moment: datetime) -> int:
    """Milliseconds since the epoch of an aware datetime. Raises ValueError for a naive one."""
    if moment.tzinfo is None:
        raise ValueError(f"a time without a zone: {moment!r}")
    return round((moment - EPOCH) / timedelta(milliseconds=1))


def from_ms(ms: int) -> datetime:
    """The aware UTC datetime of milliseconds since the epoch."""
    return EPOCH + timedelta(milliseconds=ms)
