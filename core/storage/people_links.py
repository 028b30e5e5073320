"""Which records are one person: linking, merging and splitting. All of it runs in a `Store.reservation()` transaction.

Touches follow the person for the clocks (`touches.person_id`) and keep for ever the record they were sent from
(`touches.identity_id`), so that every link can be undone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, or_, select, text, update

from core.errors import NotFound
from core.storage.deliveries import cancel_ready_sends, request_write_back
from core.storage.people_clocks import recently_asked, strictest_free
from core.storage.people_rows import chunks
from core.storage.schema import audit, identities, people, responses, touches
from core.storage.touches import end_open_touches, give_back
from core.touches import ReturnReason, TouchState

#: `origin` of a touch whose wave already had a standing ask to the person it was merged into.
WAVE_NOTE = "wave:"
#: Reason of a pair of which the source merged one record into the other, whose id follows.
MERGED_INTO = "merged into "


def link(tx: Connection, keep_person_id: int, other_person_id: int, now: int) -> int:
    """Two people are one: `keep` inherits all touches, opt-outs and holds of `other`. Returns `keep`.

    Doing it again does nothing.
    """
    if keep_person_id == other_person_id or not _exists(tx, other_person_id):
        return keep_person_id
    if not _exists(tx, keep_person_id):
        raise NotFound(f"There is no person {keep_person_id} to link person {other_person_id} to.")
    both = {"keep": keep_person_id, "other": other_person_id}
    for statement in _LINK:
        tx.execute(statement, both)
    forget_people(tx, [other_person_id])
    settle_people(tx, [keep_person_id])
    _one_pending(tx, keep_person_id, now)
    opted_out = or_(people.c.opted_out_at.is_not(None), people.c.source_opted_out)
    if tx.scalar(select(people.c.id).where(people.c.id == keep_person_id, opted_out)) is not None:
        end_open_touches(tx, [keep_person_id], now)
    request_write_back(tx, [keep_person_id], now)
    return keep_person_id


def _exists(tx: Connection, person_id: int) -> bool:
    return tx.scalar(select(people.c.id).where(people.c.id == person_id)) is not None


_LINK = tuple(
    map(
        text,
        (
            # a wave has one standing ask to a person: of two the earlier keeps its place, both count for the clocks
            f"""
            UPDATE touches SET origin = '{WAVE_NOTE}' || wave_id, wave_id = NULL WHERE id IN (
                SELECT later.id FROM touches AS later JOIN touches AS earlier
                    ON earlier.wave_id = later.wave_id AND earlier.person_id IN (:keep, :other)
                    AND earlier.person_id <> later.person_id
                    AND (earlier.asked_at < later.asked_at
                         OR (earlier.asked_at = later.asked_at AND earlier.id < later.id))
                WHERE later.person_id IN (:keep, :other)
                    AND earlier.state NOT IN ('returned', 'answered') AND later.state NOT IN ('returned', 'answered')
            )
            """,
            "UPDATE touches SET person_id = :keep WHERE person_id = :other",
            "UPDATE identities SET person_id = :keep WHERE person_id = :other",
            "UPDATE responses SET person_id = :keep WHERE person_id = :other",
            "UPDATE follow_ups SET person_id = :keep WHERE person_id = :other",
            """
            UPDATE people SET
                opted_out_by = CASE WHEN opted_out_at IS NULL
                    THEN (SELECT o.opted_out_by FROM people AS o WHERE o.id = :other) ELSE opted_out_by END,
                opted_out_at = coalesce(opted_out_at, (SELECT o.opted_out_at FROM people AS o WHERE o.id = :other)),
                quarantine_until = (SELECT max(pair.quarantine_until) FROM people AS pair
                                    WHERE pair.id IN (:keep, :other))
            WHERE id = :keep
            """,
        ),
    )
)


def _one_pending(tx: Connection, person_id: int, now: int) -> None:
    """Of several reservations the first stays, and none if the person turns out to have been asked lately."""
    waiting = tx.execute(
        select(touches.c.id, touches.c.asked_at)
        .outerjoin(identities, identities.c.id == touches.c.identity_id)
        .where(touches.c.person_id == person_id, touches.c.state == TouchState.RESERVED)
        .order_by(identities.c.gone_at.is_not(None), touches.c.asked_at, touches.c.id)
    ).all()
    if not waiting:
        return
    spared = 0 if recently_asked(tx, person_id, now) else 1
    cancel_touches(tx, [row.id for row in waiting[spared:]], now, "two records turned out to be one person")


def cancel_touches(tx: Connection, touch_ids: Sequence[int], now: int, detail: str) -> None:
    """Return reservations, except those whose message is leaving at this moment: its own outcome decides."""
    for chunk in chunks(touch_ids):
        leaving = set(tx.scalars(_LEAVING, {"touches": chunk}))
        staying = [touch_id for touch_id in chunk if touch_id not in leaving]
        cancel_ready_sends(tx, staying, now)
        give_back(tx, staying, ReturnReason.CANCELLED, detail, now)


_LEAVING = text(
    "SELECT touch_id FROM deliveries WHERE touch_id IN :touches AND kind = 'send' AND state = 'sending'"
).bindparams(bindparam("touches", expanding=True))


def cancel_for_records(tx: Connection, identity_ids: Iterable[int], now: int, detail: str) -> None:
    """Return the reservations that would be sent to these records."""
    for chunk in chunks(identity_ids):
        reserved = select(touches.c.id).where(touches.c.identity_id.in_(chunk), touches.c.state == TouchState.RESERVED)
        cancel_touches(tx, tx.scalars(reserved).all(), now, detail)


# --- undoing --------------------------------------------------------------------------------------------------------


def split(tx: Connection, identity_id: int, now: int, actor: str = "boucle") -> int:
    """A record is somebody else after all: a person of its own, with the touches that were sent from it.

    Records that its source merged into it go with it.
    Both people are left alone as long as the one they were believed to be would have been, until a human says
    otherwise; they are never linked again by themselves. Returns the new person, or the old one if it has no other
    record.
    """
    record = tx.execute(select(identities.c.person_id).where(identities.c.id == identity_id)).one_or_none()
    if record is None:
        raise NotFound(f"There is no record {identity_id} to split off.")
    old = int(record.person_id)
    records = _with_merged(tx, identity_id)
    if not _has_others(tx, old, records):
        return old
    until = strictest_free(tx, old, now)
    new = _copy_person(tx, old)
    for table in (identities, touches, responses):
        column = table.c.id if table is identities else table.c.identity_id
        tx.execute(update(table).where(column.in_(records)).values(person_id=new))
    tx.execute(_FOLLOW_UPS_BACK, {"person": new, "identities": records})
    _keep_apart(tx, identity_id, old, now)
    tx.execute(_WAVES_BACK, {"old": old, "new": new})
    tx.execute(
        update(people).where(people.c.id.in_((old, new)), people.c.quarantine_until.is_distinct_from(until))
        .values(quarantine_until=until)
    )  # fmt: skip
    settle_people(tx, [old, new])
    _note(tx, now, actor, "people.split", str(identity_id), {"from": old, "to": new, "quarantine_until": until})
    request_write_back(tx, [old, new], now)
    return new


def _has_others(tx: Connection, person_id: int, identity_ids: Sequence[int]) -> bool:
    """Whether a person has a live record beside these."""
    others = select(identities.c.id).where(
        identities.c.person_id == person_id, identities.c.gone_at.is_(None), identities.c.id.not_in(identity_ids)
    )
    return tx.scalar(others.limit(1)) is not None


def _copy_person(tx: Connection, person_id: int) -> int:
    row = tx.execute(select(people).where(people.c.id == person_id)).one()._mapping
    values = {name: value for name, value in row.items() if name != "id"}
    return int(tx.execute(people.insert().values(values).returning(people.c.id)).scalar_one())


def _keep_apart(tx: Connection, identity_id: int, person_id: int, now: int) -> None:
    for other in tx.scalars(select(identities.c.id).where(identities.c.person_id == person_id)).all():
        put_candidate(tx, identity_id, other, "split", "kept_apart", now)


_FOLLOW_UPS_BACK = text(
    "UPDATE follow_ups SET person_id = :person"
    " WHERE response_id IN (SELECT id FROM responses WHERE identity_id IN :identities)"
).bindparams(bindparam("identities", expanding=True))

# the place in its wave that a touch gave up for a merge is its own again, if nobody stands there
_WAVES_BACK = text(
    f"""
    UPDATE touches SET wave_id = CAST(substr(origin, {len(WAVE_NOTE) + 1}) AS INTEGER), origin = ''
    WHERE source = 'boucle' AND id IN (
        SELECT min(t.id) FROM touches AS t
        WHERE t.person_id IN (:old, :new) AND t.origin LIKE '{WAVE_NOTE}%' AND NOT EXISTS (
            SELECT 1 FROM touches AS standing
            WHERE standing.person_id = t.person_id AND standing.state NOT IN ('returned', 'answered')
                AND standing.wave_id = CAST(substr(t.origin, {len(WAVE_NOTE) + 1}) AS INTEGER))
        GROUP BY t.person_id, t.origin)
    """
)


def put_candidate(
    tx: Connection, identity_id: int, other_id: int, reason: str, state: str, now: int, *, replace: bool = True
) -> None:
    """Note a pair of records, the lower id first. `replace=False` leaves what was noted of them before."""
    first, second = sorted((identity_id, other_id))
    conflict = "UPDATE SET reason = excluded.reason, state = excluded.state" if replace else "NOTHING"
    tx.execute(
        text(
            "INSERT INTO link_candidates (identity_id, other_identity_id, reason, state, created_at)"
            " VALUES (:first, :second, :reason, :state, :now)"
            f" ON CONFLICT (identity_id, other_identity_id) DO {conflict}"
        ),
        {"first": first, "second": second, "reason": reason, "state": state, "now": now},
    )


def _note(tx: Connection, now: int, actor: str, action: str, subject: str, detail: dict[str, Any]) -> None:
    tx.execute(audit.insert().values(at=now, actor=actor, action=action, subject=subject, detail=detail))


# --- merges told by a source ----------------------------------------------------------------------------------------


def merge_records(tx: Connection, connection_id: int, winner: str, losers: Sequence[str], now: int) -> bool:
    """The source merged `losers` into `winner`: one person from now on, and one record. Whether that was news.

    Where the winner was not read yet, it begins as a copy of a loser: its content follows with the next page. A merge
    that is told again, or late, changes nothing more.
    """
    ids = _record_ids(tx, connection_id, [winner, *losers])
    lost = [ids[loser] for loser in losers if loser in ids and loser != winner]
    if lost and winner not in ids:
        ids[winner] = _copy_record(tx, lost[0], winner, now)
    absorbed = [_absorb(tx, ids[winner], identity_id, now) for identity_id in lost]
    return any(absorbed)


def _copy_record(tx: Connection, identity_id: int, external_id: str, now: int) -> int:
    """A row of its own, and not the loser's under another name: that one is needed if the merge is undone."""
    row = tx.execute(select(identities).where(identities.c.id == identity_id)).one()._mapping
    values = {**row, "external_id": external_id, "digest": b"", "last_surveyed_seen": None, "nps_seen": None}
    del values["id"]
    copy = tx.execute(identities.insert().values(values).returning(identities.c.id)).scalar_one()
    request_write_back(tx, [row["person_id"]], now)
    return int(copy)


def _absorb(tx: Connection, winner_id: int, loser_id: int, now: int) -> bool:
    row = select(identities.c.person_id, identities.c.gone_at)
    keep = tx.execute(row.where(identities.c.id == winner_id)).one()
    other = tx.execute(row.where(identities.c.id == loser_id)).one()
    if other.gone_at is not None and other.person_id == keep.person_id:
        return False
    wipe_records(tx, [loser_id], now)
    put_candidate(tx, winner_id, loser_id, f"{MERGED_INTO}{winner_id}", "linked", now)
    link(tx, keep.person_id, other.person_id, now)
    settle_people(tx, [keep.person_id])
    cancel_for_records(tx, [loser_id], now, "the record was merged into another one")
    return True


def was_merged(tx: Connection, identity_ids: Sequence[int]) -> set[int]:
    """Those of these records that are gone because their source merged them into another one."""
    if not identity_ids:
        return set()
    rows = tx.execute(_MERGED, {"ids": list(identity_ids)})
    return {_loser_and_winner(row)[0] for row in rows} & set(identity_ids)


def _with_merged(tx: Connection, identity_id: int) -> list[int]:
    """A record, and those that were merged into it, one into the other."""
    found = [identity_id]
    for record in found:  # it grows meanwhile
        pairs = tx.execute(_MERGED, {"ids": [record]}).all()
        found += [one for one, into in map(_loser_and_winner, pairs) if into == record and one not in found]
    return found


def _loser_and_winner(row: Any) -> tuple[int, int]:
    winner = int(row.reason.removeprefix(MERGED_INTO))
    return (row.other_identity_id if row.identity_id == winner else row.identity_id), winner


_MERGED = text(
    f"SELECT identity_id, other_identity_id, reason FROM link_candidates WHERE reason LIKE '{MERGED_INTO}%'"
    " AND state = 'linked' AND (identity_id IN :ids OR other_identity_id IN :ids)"
).bindparams(bindparam("ids", expanding=True))


def _record_ids(tx: Connection, connection_id: int, external_ids: Sequence[str]) -> dict[str, int]:
    rows = tx.execute(
        select(identities.c.external_id, identities.c.id).where(
            identities.c.connection_id == connection_id, identities.c.external_id.in_(external_ids)
        )
    )
    return {external_id: identity_id for external_id, identity_id in rows}


# --- what follows from who is who -----------------------------------------------------------------------------------


def settle_people(tx: Connection, person_ids: Iterable[int]) -> None:
    """Bring up to date what is derived from people's records: the record asked, opt-out, hold and 24 h floor."""
    for chunk in chunks(sorted(set(person_ids))):
        for statement in _SETTLE:
            tx.execute(statement, {"people": chunk})


_SETTLE = tuple(
    text(statement).bindparams(bindparam("people", expanding=True))
    for statement in (
        # the record asked, one per connection: the first with an address
        """
        UPDATE identities SET is_primary = NOT is_primary
        WHERE person_id IN :people AND is_primary <> (gone_at IS NULL AND id = (
            SELECT best.id FROM identities AS best
            WHERE best.person_id = identities.person_id AND best.connection_id = identities.connection_id
                AND best.gone_at IS NULL
            ORDER BY CASE WHEN best.email IS NULL THEN 1 ELSE 0 END, best.id LIMIT 1))
        """,
        """
        UPDATE people SET
            source_opted_out = EXISTS (SELECT 1 FROM identities AS i
                WHERE i.person_id = people.id AND i.gone_at IS NULL AND i.opted_out),
            hold_until = (SELECT max(i.hold_until) FROM identities AS i
                WHERE i.person_id = people.id AND i.gone_at IS NULL)
        WHERE id IN :people
        """,
        """
        INSERT INTO message_guard (identity_id, last_message_at)
        SELECT i.id, last.at FROM identities AS i JOIN (
            SELECT r.person_id, max(g.last_message_at) AS at FROM identities AS r
            JOIN message_guard AS g ON g.identity_id = r.id WHERE r.person_id IN :people GROUP BY r.person_id
        ) AS last ON last.person_id = i.person_id
        WHERE i.person_id IN :people
        ON CONFLICT (identity_id) DO UPDATE SET last_message_at = excluded.last_message_at
        WHERE message_guard.last_message_at < excluded.last_message_at
        """,
    )
)


def wipe_records(tx: Connection, identity_ids: Iterable[int], now: int) -> None:
    """Records that are gone: their content is removed, the row stays for the touches that were sent from it."""
    for chunk in chunks(identity_ids):
        tx.execute(
            update(identities)
            .where(identities.c.id.in_(chunk))
            .values(
                gone_at=now, is_primary=False, shared=False, email=None, company_id=None, first_name=None,
                last_name=None, language=None, country=None, time_zone=None, phone=None, owner=None,
                customer_since=None, opted_out=False, hold_until=None, attributes={}, nps_seen=None, digest=b"",
            )
        )  # fmt: skip


def forget_people(tx: Connection, person_ids: Iterable[int]) -> None:
    """Drop people who have no records left, and what the planner keeps of them."""
    for chunk in chunks(person_ids):
        for table, column in (("decisions", "person_id"), ("segment_members", "person_id"), ("people", "id")):
            tx.execute(
                text(f"DELETE FROM {table} WHERE {column} IN :people").bindparams(bindparam("people", expanding=True)),
                {"people": chunk},
            )
