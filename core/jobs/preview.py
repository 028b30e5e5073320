"""The dry run of a campaign: who would be asked now, who not and by which rule. Writes nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from core.clock import from_ms, to_ms
from core.errors import Invalid
from core.forecast import expected_margin
from core.jobs.context import Context
from core.jobs.plan_waves import Planned, decide, prepare, sources_read
from core.storage import waves as wave_rows
from core.storage.ledger import answer_history, first_wave_left
from core.storage.settings import applied_workspace, campaign_named, read_connections
from core.storage.store import Transaction
from core.waves import wave_at


def preview(context: Context, name: str, at: datetime | None = None, limit: int | None = None) -> dict[str, Any]:
    """The JSON document of `flask preview` (DESIGN). Raises NotFound for an unknown campaign.

    `at` decides as of another moment, with the ledger as it is now. `limit` cuts the lists, never the counts.
    `held_back` says what keeps even those from leaving at once: brakes, a stopped campaign, an unread source.
    """
    now = context.clock.now_ms() if at is None else to_ms(at)
    with context.store.session() as session, session.read() as tx:
        workspace = applied_workspace(tx)
        row = campaign_named(tx, name)
        connections = {connection.name: connection for connection in read_connections(tx)}
        if row.settings.sender not in connections:
            raise Invalid(f"campaign {name} sends through {row.settings.sender}, which is no connection any more")
        wave = wave_at(row.settings, row.created_at, workspace.zone, now)
        planned = prepare(workspace, row, connections, wave, now)
        wave_row = None if wave is None else wave_rows.find_wave(tx, row.id, wave)
        if wave_row is not None:
            scope = replace(planned.scope, wave_id=wave_row.id, keeps_dropped=not row.settings.waits)
            planned = replace(planned, scope=scope)
        counted = decide(tx, planned)
        held_back = []
        if row.state != "active":
            held_back.append(f"the campaign is {row.state}{': ' + row.reason if row.reason else ''}")
        if not workspace.live:
            held_back.append("the workspace is not live: only test recipients receive anything")
        if wave is None:
            held_back.append("no wave is open at this moment")
        if not sources_read(row, connections):
            held_back.append("a source has not been read whole yet")
        left = first_wave_left(tx, workspace.brakes, now)
        if left is not None and left < counted["asked"]:
            held_back.append(f"the first wave lets {left} leave now (brakes.first_wave)")
        number = None if wave is None else wave.number if wave_row is None else wave_row.number
        answered, finished = answer_history(tx, row.id)
        rate = answered / finished if finished >= 100 else row.settings.expected_response_rate
        expected = round(counted["asked"] * rate)
        population = sum(counted.values()) - counted["not_in_audience"]
        return {
            "campaign": name,
            "at": _iso(now),
            "wave": number,
            "counts": {
                "asked": counted["asked"],
                "not_asked": {rule: n for rule, n in sorted(counted.items()) if rule != "asked"},
            },
            "asked": [{"person": one.person_id, "email": one.email} for one in wave_rows.asked(tx, limit)],
            "not_asked": [
                {"person": one.person_id, "email": one.email, "rule": one.rule, "until": _iso(one.until)}
                for one in _not_asked(tx, planned, limit)
            ],
            "expected_answers": expected,
            "expected_margin": expected_margin(expected, population),
            "held_back": held_back,
        }


def _not_asked(tx: Transaction, planned: Planned, limit: int | None) -> list[Any]:
    """Those the plan did not choose, then those an earlier plan of this wave dropped for good."""
    found = list(wave_rows.not_asked(tx, limit))
    if planned.scope.keeps_dropped and planned.scope.wave_id is not None:
        found += wave_rows.dropped_people(tx, planned.campaign.id, planned.scope.wave_id, limit)
    return found[:limit]


def _iso(ms: int | None) -> str | None:
    return None if ms is None else from_ms(ms).isoformat().replace("+00:00", "Z")
