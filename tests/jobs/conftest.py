"""A real SQLite file per test, a clock that stands still, and the world of the jobs over both."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.clock import FixedClock
from core.jobs.context import Context
from core.storage import schema
from core.storage.store import Store
from tests.world import make_context


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(datetime(2026, 12, 1, 9, tzinfo=UTC))


@pytest.fixture
def store(tmp_path: Path, clock: FixedClock) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'boucle.db'}", clock)
    schema.metadata.create_all(store.engine)
    yield store
    store.close()


@pytest.fixture
def context(store: Store, clock: FixedClock) -> Context:
    return make_context(store, clock)
