"""Bring a database up to date: the same migrations on SQLite and PostgreSQL, safe when two processes start at once."""

from __future__ import annotations

import io
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection

from core.errors import BoucleError
from core.storage.store import Store

MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(store: Store) -> list[str]:
    """Run what is missing; returns the revisions that were run.

    One transaction that begins by taking a lock every process takes, so that of two that start at once one migrates
    and the other finds nothing left to do. Killed anywhere, nothing has happened.
    """
    with store.reservation() as connection:
        before = current(connection)
        if before == newest():
            return []
        _refuse_newer(before)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        return _between(before, newest())


def current(connection: Connection) -> str | None:
    """The revision a database has; None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def newest() -> str:
    """The revision this release needs."""
    head = _scripts().get_current_head()
    if head is None:
        raise BoucleError("this release has no migrations; the checkout is not whole")
    return head


def is_current(connection: Connection) -> bool:
    """Whether nothing is left to migrate."""
    return current(connection) == newest()


def _refuse_newer(revision: str | None) -> None:
    """A database of a later release is not touched."""
    if revision is None:
        return
    try:
        known = _scripts().get_revision(revision)
    except CommandError:
        known = None
    if known is None:
        raise BoucleError(
            f"the database is at revision {revision}, which this release does not know: it belongs to a later one"
        )


def _between(before: str | None, after: str) -> list[str]:
    scripts = list(_scripts().iterate_revisions(after, before or "base"))
    return [script.revision for script in reversed(scripts)]


def _config() -> Config:
    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())
