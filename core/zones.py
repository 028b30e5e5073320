"""Time zones of records: written by people, so not always one that exists."""

from __future__ import annotations

from functools import lru_cache
from zoneinfo import ZoneInfo


def zone_of(name: str | None, default: ZoneInfo) -> ZoneInfo:
    """The zone called `name`, or the default if there is none of that name."""
    found = _zone(name) if name else None
    return found or default


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # OSError: a name that is a folder of the database, such as Europe
        return None
