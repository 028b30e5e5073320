"""Bare floors of the planner: what SQLite needs for the same rules over the same rows, in one statement each.

Written by hand and run by the driver alone, they share no code with `core`. They keep no promise beside the result:
the first locks every writer out for as long as it runs if its table is a main one, and nothing re-checks anything.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

DAY = 86_400_000


def connect(path: Path) -> sqlite3.Connection:
    """A connection as the service opens it: WAL, every commit on disk, temporary tables in files."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=FILE", "cache_size=-16000"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


#: Every clock with its reason and date, company shares in rotation: {now}, {wave_opened}, {wave_ends}, {local_date},
#: {next_day}, {table} are filled in. The rules are the defaults of FREQUENCY.md for a campaign of every 90 days.
EVERY_RULE = f"""
    INSERT INTO {{table}}
    WITH recent AS (
        SELECT company_id, count(DISTINCT person_id) AS number, min(asked_at) + 30 * {DAY} AS next FROM touches
        WHERE asked_at > {{now}} - 30 * {DAY} AND state <> 'returned' GROUP BY company_id
    ), facts AS (
        SELECT i.person_id, i.id AS identity_id, i.company_id, max(t.asked_at) AS last_asked,
            i.address_hash IS NOT NULL AND p.opted_out_at IS NULL AND NOT p.source_opted_out AS contact,
            r.number AS recent, r.next,
            CASE WHEN i.address_hash IS NULL THEN 'no_address'
                 WHEN p.opted_out_at IS NOT NULL OR p.source_opted_out THEN 'opted_out'
                 WHEN max(ifnull(p.hold_until, 0), ifnull(p.quarantine_until, 0)) > {{now}} THEN 'hold' END AS fixed,
            max(ifnull(p.hold_until, 0), ifnull(p.quarantine_until, 0)) AS held,
            max(
                max(ifnull((SELECT last_message_at FROM message_guard g WHERE g.identity_id = i.id) + {DAY}, 0),
                    iif(max(iif(t.asked_at > {{now}} - 3 * {DAY}, t.asked_local_date, NULL)) >= '{{local_date}}',
                        {{next_day}}, 0)) * 16 + 8,
                ifnull(max(t.asked_at) + 30 * {DAY}, 0) * 16 + 7,
                iif(max(iif(t.type = 'nps' AND (t.state IN ('reserved', 'unknown') OR t.state = 'handed_over'
                            AND ifnull(t.window_closes_at > {{now}}, 1)), t.asked_at, NULL))
                    >= max(iif(t.type = 'nps', t.asked_at, NULL)),
                    max(iif(t.type = 'nps', t.asked_at, NULL)) + 90 * {DAY}, 0) * 16 + 6,
                ifnull(max(iif(t.type = 'nps' AND t.state = 'answered',
                    coalesce(t.answered_at, t.window_closes_at, t.asked_at), NULL)) + 90 * {DAY}, 0) * 16 + 5,
                ifnull(max(iif(t.type = 'nps' AND t.state = 'declined',
                    ifnull(t.declined_at, t.asked_at), NULL)) + 180 * {DAY}, 0) * 16 + 4,
                ifnull(max(iif(t.type = 'nps' AND (t.state = 'silent' OR t.state = 'handed_over'
                    AND t.window_closes_at <= {{now}}),
                    max(t.asked_at + 60 * {DAY}, ifnull(t.window_closes_at, 0)), NULL)), 0) * 16 + 3,
                max(ifnull(max(iif(t.campaign_id = 1, t.asked_at, NULL)) + 90 * {DAY}, 0),
                    iif(max(iif(t.campaign_id = 1, t.asked_at, NULL)) >= {{wave_opened}}, {{wave_ends}}, 0)) * 16 + 2,
                iif(count(iif(t.asked_at > {{now}} - 365 * {DAY}, 1, NULL)) >= 4, 365 * {DAY} + (
                    SELECT asked_at FROM touches y WHERE y.person_id = i.person_id AND y.state <> 'returned'
                    AND y.asked_at > {{now}} - 365 * {DAY} ORDER BY asked_at DESC LIMIT 1 OFFSET 3), 0) * 16 + 1,
                ifnull(i.customer_since + 30 * {DAY}, 0) * 16
            ) AS clock
        FROM identities i JOIN people p ON p.id = i.person_id
        LEFT JOIN touches t ON t.person_id = i.person_id AND t.state <> 'returned'
        LEFT JOIN recent r ON r.company_id = i.company_id
        WHERE +i.connection_id = 1 AND i.is_primary AND i.gone_at IS NULL GROUP BY i.id
    ), decided AS (
        SELECT person_id, identity_id, company_id, last_asked, contact, recent, next,
            CASE WHEN fixed IS NOT NULL THEN fixed WHEN clock / 16 <= {{now}} THEN NULL
                ELSE CASE clock % 16 WHEN 8 THEN 'floor_24h' WHEN 7 THEN 'any_survey' WHEN 6 THEN 'same_type'
                    WHEN 5 THEN 'after_answer' WHEN 4 THEN 'after_decline' WHEN 3 THEN 'after_silence'
                    WHEN 2 THEN 'same_survey' WHEN 1 THEN 'yearly_count' ELSE 'tenure' END END AS rule,
            CASE WHEN fixed = 'hold' THEN held WHEN fixed IS NOT NULL OR clock / 16 <= {{now}} THEN NULL
                ELSE clock / 16 END AS until
        FROM facts
    ), placed AS (
        SELECT d.*, row_number() OVER (PARTITION BY company_id, rule IS NULL ORDER BY ifnull(last_asked, 0),
            person_id * 4251770438 % 4294967291) AS place,
            sum(contact) OVER (PARTITION BY company_id) AS contacts
        FROM decided d
    )
    SELECT d.person_id, d.identity_id, d.company_id, d.last_asked,
        iif(d.rule IS NULL AND d.company_id IS NOT NULL
            AND d.place > max(1, d.contacts * 200000 / 1000000) - ifnull(d.recent, 0), 'company_share', d.rule),
        iif(d.rule IS NULL AND d.company_id IS NOT NULL
            AND d.place > max(1, d.contacts * 200000 / 1000000) - ifnull(d.recent, 0), d.next, d.until)
    FROM placed d
"""

#: Gap, tenure and opt-out alone.
SIMPLE_RULES = f"""
    INSERT INTO {{table}}
    SELECT person_id, id, company_id, last_asked,
        CASE WHEN opted_out THEN 'opted_out' WHEN gap <= {{now}} AND tenure <= {{now}} THEN NULL
            WHEN gap >= tenure THEN 'any_survey' ELSE 'tenure' END,
        CASE WHEN opted_out OR gap <= {{now}} AND tenure <= {{now}} THEN NULL ELSE max(gap, tenure) END
    FROM (
        SELECT i.person_id, i.id, i.company_id, max(t.asked_at) AS last_asked,
            p.opted_out_at IS NOT NULL OR p.source_opted_out AS opted_out,
            ifnull(max(t.asked_at) + 30 * {DAY}, 0) AS gap, ifnull(i.customer_since + 30 * {DAY}, 0) AS tenure
        FROM identities i JOIN people p ON p.id = i.person_id
        LEFT JOIN touches t ON t.person_id = i.person_id AND t.state <> 'returned'
        WHERE +i.connection_id = 1 AND i.is_primary AND i.gone_at IS NULL GROUP BY i.id
    )
"""

TEMPORARY_TABLE = """
    CREATE TEMP TABLE floor_decided (
        person_id INTEGER PRIMARY KEY, identity_id INTEGER, company_id INTEGER, last_asked INTEGER, rule TEXT,
        until INTEGER
    )
"""

#: Ten thousand people of the rotation as rows that wait to be taken: in the ledger itself, with all its indexes.
WAITING = """
    INSERT INTO touches (public_id, person_id, identity_id, company_id, campaign_id, wave_id, type, state, address_hash,
        asked_at)
    SELECT 'waiting' || i.id, i.person_id, i.id, i.company_id, 1, 1, 'nps', 'planned', i.address_hash, 0
    FROM floor_decided d JOIN identities i ON i.id = d.identity_id
    WHERE d.rule IS NULL ORDER BY d.last_asked LIMIT {number}
"""
RESERVE = """
    UPDATE touches SET state = 'reserved', reserved_at = {now}, asked_at = {now}, asked_local_date = '{local_date}',
        window_closes_at = {now} + 21 * 86400000
    WHERE wave_id = 1 AND state = 'planned' RETURNING id, public_id, identity_id
"""

#: The same over a table of the decisions that has no index and nothing else to keep.
BARE_TABLE = "CREATE TABLE bare AS SELECT *, NULL AS reserved_at FROM floor_decided"
RESERVE_BARE = """
    UPDATE bare SET rule = 'reserved', reserved_at = {now} WHERE rowid IN (
        SELECT rowid FROM bare WHERE rule IS NULL ORDER BY last_asked LIMIT {number}
    ) RETURNING person_id
"""
