"""Opens the database, or says in one sentence why that is impossible."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from core.clock import Clock
from core.errors import Invalid
from core.storage.store import Store

_HOW = "check DATABASE_URL and BOUCLE_INSTANCE"


def open_checked(url: str, clock: Clock) -> Store:
    """A store that has answered once. Raises Invalid; no password of the URL is ever repeated."""
    try:
        store = Store(url, clock)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError, ValueError) as error:
        raise Invalid(f"DATABASE_URL cannot be used: {_first_line(error, url)}") from None
    problem = problem_of(store)
    if problem:
        store.close()
        raise Invalid(f"the database cannot be opened: {problem}; {_HOW}")
    return store


def problem_of(store: Store) -> str:
    """Why the database does not answer, or nothing."""
    try:
        with store.read() as tx:
            tx.execute(text("SELECT 1"))
    except DBAPIError as error:
        return _first_line(error.orig, store.url)
    except SQLAlchemyError as error:
        return _first_line(error, store.url)
    return ""


def told_by_database(error: BaseException, url: str) -> str:
    """What the database said while it was used (full disk, read-only, locked, damaged), as a sentence; else nothing."""
    if not isinstance(error, DBAPIError):
        return ""
    return f"the database could not do it: {_first_line(error.orig, url)}; {_HOW}, the free space and who owns the file"


def _first_line(error: BaseException | None, url: str) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0].replace(url, "the address")
