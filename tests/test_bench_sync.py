"""The measurement of the sync measures what it says: its floor leaves the same rows behind."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from bench import sync as bench

ROWS = 600
LEFT = {
    "people": "SELECT id FROM people",
    "companies": "SELECT key, name FROM companies",
    "identities": """SELECT external_id, email, first_name, last_name, language, country, customer_since,
        last_surveyed_seen, (SELECT name FROM companies WHERE companies.id = company_id), address_hash IS NULL,
        shared FROM identities""",
    "touches": """SELECT type, source, origin, state, asked_local_date,
        (SELECT external_id FROM identities WHERE identities.id = identity_id) FROM touches""",
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "customers.csv"
    bench.write_file(path, ROWS)
    return path


def left(database: Path, name: str) -> list[Any]:
    with sqlite3.connect(database) as connection:
        return sorted(connection.execute(LEFT[name]), key=repr)


@pytest.mark.parametrize("floor", ["floor", "short"])
def test_floor_leaves_the_same_rows_as_the_sync(file: Path, tmp_path: Path, floor: str) -> None:
    bench.sync(file, tmp_path / "sync.db")
    bench.MEASURED[floor](file, tmp_path / "floor.db")
    for name in LEFT:
        assert left(tmp_path / "sync.db", name) == left(tmp_path / "floor.db", name), name
    assert len(left(tmp_path / "sync.db", "identities")) == ROWS
    assert left(tmp_path / "sync.db", "touches")


def test_second_sync_changes_no_table_of_people(file: Path, tmp_path: Path) -> None:
    found = bench.sync(file, tmp_path / "sync.db")
    assert found["sync"]["rows"] == ROWS
    assert found["again"]["rows"] == 0
    assert set(found["again"]["written"]) <= {"leases", "connections"}


def test_each_measurement_runs_in_a_process_of_its_own(file: Path, tmp_path: Path) -> None:
    found = bench.in_a_process("sync", file, tmp_path)
    assert found["sync"]["rows"] == ROWS
    assert found["sync"]["peak_mb"] > 0
