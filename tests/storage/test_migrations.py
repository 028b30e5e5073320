"""The migrations build what the schema says, once, whoever starts at the same moment."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text

from core.clock import Clock
from core.errors import BoucleError
from core.storage import migrate, schema
from core.storage.store import Store


@pytest.fixture
def empty(tmp_path: Path) -> Store:
    return Store(f"sqlite:///{tmp_path / 'migrated.db'}", Clock())


def statements(path: Path) -> dict[str, str]:
    """Every table and index as SQLite keeps it, without regard to white space."""
    with create_engine(f"sqlite:///{path}").connect() as connection:
        rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
        return {row.name: " ".join(row.sql.split()) for row in rows if row.name != "alembic_version"}


def test_migrated_database_equals_the_schema(empty: Store, tmp_path: Path) -> None:
    migrate.migrate(empty)
    created = tmp_path / "created.db"
    schema.metadata.create_all(create_engine(f"sqlite:///{created}"))
    assert statements(tmp_path / "migrated.db") == statements(created), "run tools/first_migration.py"
    with empty.read() as tx:
        assert compare_metadata(MigrationContext.configure(tx), schema.metadata) == []


def test_second_migration_finds_nothing_to_do(empty: Store) -> None:
    assert migrate.migrate(empty) == ["0001"]
    assert migrate.migrate(empty) == []
    with empty.read() as tx:
        assert migrate.is_current(tx)


def test_an_empty_database_is_not_current(empty: Store) -> None:
    with empty.read() as tx:
        assert not migrate.is_current(tx)


def test_stores_that_migrate_at_once_migrate_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    done: list[list[str]] = []
    barrier = threading.Barrier(4)

    def start() -> None:
        store = Store(url, Clock())
        barrier.wait()
        done.append(migrate.migrate(store))
        store.close()

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [[], [], [], ["0001"]]


def test_a_database_of_a_later_release_is_left_alone(empty: Store) -> None:
    migrate.migrate(empty)
    with empty.write() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(BoucleError, match="9999, which this release does not know"):
        migrate.migrate(empty)


def test_migration_that_fails_leaves_nothing_behind(empty: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with empty.write() as tx:
        tx.execute(text("CREATE TABLE touches (id INTEGER)"))  # in the way of the migration
    with pytest.raises(Exception, match="touches"):
        migrate.migrate(empty)
    with empty.read() as tx:
        assert inspect(tx).get_table_names() == ["touches"]
