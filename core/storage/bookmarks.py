"""How far each sync came. A bookmark is written in the transaction that stores its page."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select, text

from core.ports import Bookmark
from core.storage.schema import bookmarks

CONTACTS = "contacts"
#: A row of this stream stands while changes of a source wait for the plans to be made again.
UNPLANNED = "unplanned"


def read_bookmark(tx: Connection, connection_id: int, stream: str = CONTACTS) -> Bookmark:
    """Where to resume; an empty bookmark before the first read."""
    row = tx.execute(
        select(bookmarks.c.watermark, bookmarks.c.cursor).where(
            bookmarks.c.connection_id == connection_id, bookmarks.c.stream == stream
        )
    ).one_or_none()
    return Bookmark(row.watermark, row.cursor) if row else Bookmark()


def write_bookmark(
    tx: Connection, connection_id: int, bookmark: Bookmark, now: int, stream: str = CONTACTS, *, was: Bookmark
) -> bool:
    """Move on from `was`. False, and nothing written, if somebody else has moved it meanwhile."""
    if read_bookmark(tx, connection_id, stream) != was:
        return False
    if bookmark != was:
        put_bookmark(tx, connection_id, bookmark, now, stream)
    return True


def put_bookmark(tx: Connection, connection_id: int, bookmark: Bookmark, now: int, stream: str) -> None:
    """Write a bookmark, whatever stands there."""
    tx.execute(
        _UPSERT,
        {
            "connection": connection_id,
            "stream": stream,
            "watermark": bookmark.watermark,
            "cursor": bookmark.cursor,
            "now": now,
        },
    )


def has_bookmark(tx: Connection, connection_id: int, stream: str) -> bool:
    """Whether there is one, be it an empty one."""
    wanted = select(bookmarks.c.stream).where(
        bookmarks.c.connection_id == connection_id, bookmarks.c.stream == stream
    )  # fmt: skip
    return tx.scalar(wanted) is not None


def forget_bookmark(tx: Connection, connection_id: int, stream: str = CONTACTS) -> None:
    """Read this stream from its beginning next time."""
    tx.execute(delete(bookmarks).where(bookmarks.c.connection_id == connection_id, bookmarks.c.stream == stream))


_UPSERT = text(
    "INSERT INTO bookmarks (connection_id, stream, watermark, cursor, updated_at)"
    " VALUES (:connection, :stream, :watermark, :cursor, :now)"
    " ON CONFLICT (connection_id, stream) DO UPDATE SET"
    " watermark = excluded.watermark, cursor = excluded.cursor, updated_at = excluded.updated_at"
)
