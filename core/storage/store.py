"""The database: one snapshot per reader, one short turn per writer.

SQLite in WAL with `synchronous=FULL`. Readers begin DEFERRED; only writers begin IMMEDIATE, because a global begin hook
would make every page view take the write lock. Writers of one process queue up in order before they ask SQLite, whose
own waiting is a lottery that lets a busy batch job starve a page.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from typing import Any, TypeAlias

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text

from core.clock import Clock
from core.storage import folding

#: How jobs name the `tx` they pass on: SQLAlchemy itself stays in this package.
Transaction: TypeAlias = Connection

BUSY_TIMEOUT_MS = 30_000
POLL_SECONDS = 0.0005
# An arbitrary constant: every process that reserves takes this advisory lock on PostgreSQL.
RESERVATION_LOCK = 0x626F75636C65


class Turnstile(AbstractContextManager[None]):
    """A lock that serves in order of arrival."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._taken = False

    def __enter__(self) -> None:
        with self._mutex:
            if not self._taken:
                self._taken = True
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()

    def __exit__(self, *exc: object) -> None:
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False


class Session:
    """One connection through several transactions: what it puts into temporary tables stays until it is closed."""

    def __init__(self, store: Store, connection: Connection) -> None:
        self._store = store
        self._connection = connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent snapshot."""
        connection = self._connection.execution_options(boucle_write=False)
        with connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One short write transaction. Many follow each other here: between two, other processes get their turn."""
        if self._store.is_sqlite:
            time.sleep(2 * POLL_SECONDS)
        with self._store.turn(), self._connection.execution_options(boucle_write=True).begin():
            yield self._connection

    @contextmanager
    def reservation(self) -> Iterator[Connection]:
        """One write transaction under the reservation lock."""
        with self.write() as connection:
            self._store.lock_reservations(connection)
            yield connection


class Store:
    """Opens transactions. Functions in this package take the `Connection` they are to work in."""

    def __init__(self, url: str, clock: Clock) -> None:
        self.url = url
        self.clock = clock
        self.engine = _engine(url)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self._turn = Turnstile()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent snapshot; writes nothing to main tables (temporary tables are free)."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One write transaction, committed at the end, rolled back by any exception. Keep it under 50 ms."""
        with self.turn(), self.engine.connect() as connection:
            connection = connection.execution_options(boucle_write=True)
            with connection.begin():
                yield connection

    @contextmanager
    def reservation(self) -> Iterator[Connection]:
        """A write transaction whose first statement takes the workspace's reservation lock (FREQUENCY.md).

        SQLite: BEGIN IMMEDIATE is that lock. PostgreSQL: an advisory lock under READ COMMITTED, so that the next
        statement sees everything committed before the lock was granted.
        """
        with self.write() as connection:
            self.lock_reservations(connection)
            yield connection

    @contextmanager
    def session(self, *, repeatable: bool = False) -> Iterator[Session]:
        """One connection for several transactions; its temporary tables are gone with it.

        `repeatable`: what is written can be read again where it came from, so no commit waits for the disk. A power cut
        may take the last ones with it, but none that a later commit of others rests on: the log is one, in order.
        """
        with self.engine.connect() as connection:
            if self.is_sqlite:  # what sorts a million rows may hold as much again
                connection.connection.dbapi_connection.execute("PRAGMA cache_size=-6000")  # type: ignore[union-attr]
                if repeatable:
                    connection.connection.dbapi_connection.execute("PRAGMA synchronous=NORMAL")  # type: ignore[union-attr]
            try:
                yield Session(self, connection)
            finally:
                connection.invalidate()

    def turn(self) -> AbstractContextManager[None]:
        """This process's place in the queue of writers."""
        return self._turn if self.is_sqlite else nullcontext()

    def lock_reservations(self, connection: Connection) -> None:
        """Take the workspace's reservation lock until the transaction ends."""
        if not self.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": RESERVATION_LOCK})

    def checkpoint(self) -> None:
        """Move what was written into the database file and empty SQLite's log, as far as readers let it."""
        if self.is_sqlite:
            with self.turn(), closing(self.engine.raw_connection()) as connection:  # outside of any transaction
                connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self.engine.dispose()


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, isolation_level="READ COMMITTED", hide_parameters=True)
    _create_private(parsed.database)
    # hide_parameters: an error's text goes into logs, and the values are people's
    connect_args = {"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False}
    engine = create_engine(parsed, connect_args=connect_args, hide_parameters=True)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _create_private(path: str | None) -> None:
    """A new file that only its owner may read: it holds people. SQLite gives its log the same mode."""
    if path and not path.startswith((":", "file:")):
        with suppress(OSError):  # it is there, or cannot be: SQLite itself says so better
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _prepare_sqlite(dbapi_connection: Any, _record: object) -> None:
    dbapi_connection.isolation_level = None  # the driver's own transactions off: _begin_sqlite begins them
    cursor = dbapi_connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "temp_store=FILE",  # temporary tables of a million people must not live in memory
        "cache_size=-16000",
        "journal_size_limit=67108864",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
    folding.register(dbapi_connection)


def _begin_sqlite(connection: Connection) -> None:
    if not connection.get_execution_options().get("boucle_write", False):
        connection.exec_driver_sql("BEGIN DEFERRED")
    elif not _begin_immediate(connection.connection.dbapi_connection):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_immediate(dbapi_connection: Any) -> bool:
    """Ask for the write lock every half millisecond. SQLite itself soon asks every 100 ms and misses the gaps between.

    False after BUSY_TIMEOUT_MS.
    """
    cursor = dbapi_connection.cursor()
    cursor.execute("PRAGMA busy_timeout=0")
    try:
        until = time.monotonic() + BUSY_TIMEOUT_MS / 1000
        while True:
            try:
                cursor.execute("BEGIN IMMEDIATE")
                return True
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
            if time.monotonic() >= until:
                return False
            time.sleep(POLL_SECONDS)
    finally:
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        cursor.close()
