"""A real SQLite file per test, and a clock that stands still."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.clock import FixedClock
from core.storage import schema
from core.storage.store import Store


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(datetime(2026, 12, 1, 9, tzinfo=UTC))


@pytest.fixture
def store(tmp_path: Path, clock: FixedClock) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'boucle.db'}", clock)
    schema.metadata.create_all(store.engine)
    yield store
    store.close()
