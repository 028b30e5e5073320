"""What a source held that could not be used, as of its last read: for its owner to mend."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select

from core.ports import BadRecord
from core.storage.schema import bad_records

#: Kept of one source; a file that is wrong in every row says so in fewer words.
MOST = 1_000
REASON_LENGTH = 500


def replace_bad_records(tx: Connection, connection_id: int, found: Sequence[BadRecord], now: int) -> bool:
    """Keep these instead of those of the last read. False, and nothing written, if they are the same."""
    wanted = [(one.where[:REASON_LENGTH], one.reason[:REASON_LENGTH]) for one in found[:MOST]]
    if wanted == bad_records_of(tx, connection_id):
        return False
    tx.execute(delete(bad_records).where(bad_records.c.connection_id == connection_id))
    rows = [{"connection_id": connection_id, "place": p, "reason": r, "seen_at": now} for p, r in wanted]
    if rows:
        tx.execute(insert(bad_records), rows)
    return True


def bad_records_of(tx: Connection, connection_id: int, limit: int = MOST) -> list[tuple[str, str]]:
    """(place, reason) of each, in the order of the source."""
    rows = tx.execute(
        select(bad_records.c.place, bad_records.c.reason)
        .where(bad_records.c.connection_id == connection_id)
        .order_by(bad_records.c.id)
        .limit(limit)
    )
    return [(row[0], row[1]) for row in rows]
