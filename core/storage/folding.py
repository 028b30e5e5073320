"""Text rules of the audience grammar as SQL functions, so that both sides of a comparison are folded alike.

SQLite's own `lower` knows ASCII only. On PostgreSQL functions of the same names are created by the migrations.
"""

from __future__ import annotations

from datetime import date
from typing import Any

from core.audience import fold
from core.clock import from_ms


def boucle_fold(value: Any) -> str | None:
    """`core.audience.fold`, and NULL for what counts as missing."""
    return (fold(value) or None) if value is not None else None


def boucle_number(value: Any) -> float | None:
    """The number a text spells, or NULL."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def boucle_day(value: Any) -> str | None:
    """The ISO day a text begins with, or NULL."""
    try:
        return date.fromisoformat(str(value)[:10]).isoformat()
    except ValueError:
        return None


def boucle_day_of_ms(value: Any) -> str | None:
    """The UTC day of a moment in milliseconds as ISO text, or NULL."""
    return None if value is None else from_ms(value).date().isoformat()


FUNCTIONS = (boucle_fold, boucle_number, boucle_day, boucle_day_of_ms)


def register(dbapi_connection: Any) -> None:
    """Teach one SQLite connection these functions."""
    for function in FUNCTIONS:
        dbapi_connection.create_function(function.__name__, 1, function, deterministic=True)
