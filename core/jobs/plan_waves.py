"""Plan the waves that are open and reserve the people they may ask now.

A plan reads one snapshot and writes its decisions to a temporary table; what changed is stored in short batches, and
the reservations follow in batches of their own, each re-checked under the reservation lock. Killed anywhere, the next
plan starts from the ledger again: nothing of a plan is needed to make the next one.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from core.clock import DAY_MS, MINUTE_MS, from_ms
from core.frequency import limits
from core.jobs import try_out
from core.jobs.context import Context, JobReport
from core.storage import pacing, planning, reservation
from core.storage import waves as wave_rows
from core.storage.leases import acquire, release
from core.storage.ledger import first_wave_left, reserved_since, sending_capacity
from core.storage.settings import CampaignRow, ConnectionRow, read_campaigns, read_connections, read_workspace
from core.storage.store import Session
from core.waves import WavePlan, midnight, quiet_until, wave_at
from core.workspace import Workspace

NAME = "plan_waves"
LEASE_MS = 5 * MINUTE_MS
#: A plan is made again at least this often while its wave is open, beside the changes that call for one at once.
REPLAN_MS = 5 * MINUTE_MS


@dataclass(frozen=True, slots=True)
class Planned:
    """One campaign with everything its plan needs."""

    campaign: CampaignRow
    wave: WavePlan
    scope: planning.Scope
    sender: ConnectionRow
    day_began_at: int
    next_day_at: int


def run(context: Context, *, due_only: bool = False) -> JobReport:
    """Plan every open wave (`due_only`: those whose next plan is due) and reserve; `done` counts reservations."""
    report = JobReport(NAME)
    started = time.monotonic()
    with context.store.read() as tx:
        workspace = read_workspace(tx)
        rows = read_campaigns(tx)
        connections = {connection.name: connection for connection in read_connections(tx)}
    if workspace is not None and not workspace.live:
        report.done += try_out.run(context, workspace, rows, connections)
    elif workspace is not None:
        # competing campaigns are planned in the order of their priority
        for row in sorted(rows, key=lambda row: (-row.settings.priority, row.created_at, row.id)):
            report.done += _plan_campaign(context, workspace, row, connections, due_only)
    report.seconds = time.monotonic() - started
    return report


def _plan_campaign(
    context: Context, workspace: Workspace, row: CampaignRow, connections: dict[str, ConnectionRow], due_only: bool
) -> int:
    now = context.clock.now_ms()
    wave = wave_at(row.settings, row.created_at, workspace.zone, now) if row.state == "active" else None
    if wave is None:
        with context.store.write() as tx:
            if row.state != "paused":
                wave_rows.close_waves(tx, row.id)
        return 0
    if not sources_read(row, connections):
        return 0
    planned = prepare(workspace, row, connections, wave, now)
    lease = f"{NAME}:{row.name}"
    with context.store.write() as tx:
        wave_row = wave_rows.open_wave(tx, row.id, wave)
        if due_only and wave_row.next_plan_at is not None and wave_row.next_plan_at > now:
            return 0
        fence = acquire(tx, lease, context.owner, now, LEASE_MS)
    if fence is None:
        return 0  # another process plans this campaign at this moment
    try:
        scope = replace(planned.scope, wave_id=wave_row.id, keeps_dropped=not row.settings.waits)
        return _plan_and_reserve(context, workspace, replace(planned, scope=scope), wave_row.id)
    finally:
        with context.store.write() as tx:
            release(tx, lease, context.owner, fence, context.clock.now_ms())


def sources_read(row: CampaignRow, connections: dict[str, ConnectionRow]) -> bool:
    """No first wave before each source has been read whole: its dates are asks that count."""
    return all(name in connections and connections[name].full_read_at is not None for name in row.settings.source) and (
        row.settings.sender in connections
    )


def prepare(
    workspace: Workspace, row: CampaignRow, connections: dict[str, ConnectionRow], wave: WavePlan | None, now: int
) -> Planned:
    """The rules of the workspace as they apply to a campaign at a moment."""
    zone = workspace.zone
    today = from_ms(now).astimezone(zone).date()
    scope = planning.Scope(
        limits=limits(workspace.quarantine, row.settings, row.id),
        sources=[connections[name].id for name in row.settings.source if name in connections],
        audience=row.settings.who,
        now=now,
        zone=zone,
        window=row.settings.send_window,
        quiet_until=quiet_until(workspace.quiet_periods, zone, now),
        wave_ends_at=wave.ends_at if wave else now + 90 * DAY_MS,
    )
    return Planned(
        campaign=row,
        wave=wave or WavePlan(0, now, now + 90 * DAY_MS),
        scope=scope,
        sender=connections[row.settings.sender],
        day_began_at=midnight(today, zone),
        next_day_at=midnight(today + timedelta(days=1), zone),
    )


def _plan_and_reserve(context: Context, workspace: Workspace, planned: Planned, wave_id: int) -> int:
    with context.store.session() as session:
        with session.read() as tx:
            counted = decide(tx, planned)
            next_free = wave_rows.earliest_free(tx, planned.scope.now)
        store_decisions(session, planned, wave_id)
        reserved = _reserve_all(context, session, workspace, planned, wave_id)
        with session.write() as tx:
            next_plan = _next_plan_at(planned, next_free, counted, reserved)
            wave_rows.remember_plan(tx, wave_id, counted, planned.scope.now, next_plan)
    return reserved


def decide(tx: Any, planned: Planned) -> Counter[str]:
    """Decide on everybody and pace the wave, in temporary tables of this connection; returns the counts."""
    planning.decide(tx, planned.scope)
    limit = planned.campaign.settings.daily_limit
    left = None
    if limit is not None:
        left = max(0, limit - reserved_since(tx, planned.campaign.id, planned.day_began_at))
    pacing.pace(tx, planned.scope, left, planned.next_day_at)
    return wave_rows.counts(tx)


def store_decisions(session: Session, planned: Planned, wave_id: int) -> int:
    """Store the decisions that changed, in short transactions; returns how many."""
    stored = 0
    with session.read() as tx:
        low, high = wave_rows.people_range(tx)
    for start in range(low, high + 1, wave_rows.CHUNK):
        people = range(start, min(start + wave_rows.CHUNK, high + 1))
        with session.write() as tx:
            stored += wave_rows.store_changes(
                tx,
                planned.campaign.id,
                wave_id,
                planned.wave.ends_at,
                planned.campaign.settings.waits,
                people,
                planned.scope.now,
            )
    return stored


def _reserve_all(context: Context, session: Session, workspace: Workspace, planned: Planned, wave_id: int) -> int:
    settings = planned.campaign.settings
    reserved = after = 0
    with session.read() as tx:
        reservation.prepare(tx, planned.scope)
    while not context.stopping.is_set():
        with session.reservation() as tx:
            batch = pacing.next_chosen(tx, after, reservation.BATCH)
            if not batch:
                break
            after = batch[-1][0]
            now = context.clock.now_ms()
            left = first_wave_left(tx, workspace.brakes, now)
            capacity = sending_capacity(tx, planned.sender.id, planned.sender.config.get("per_second"))
            at_most = min((n for n in (left, capacity) if n is not None), default=None)
            if at_most is not None and at_most <= 0:
                break
            quota = reservation.Quota(
                wave_id=wave_id,
                campaign_id=planned.campaign.id,
                type=settings.type,
                sender_id=planned.sender.id,
                window_ms=settings.window_days * DAY_MS,
                daily_limit=settings.daily_limit,
                day_began_at=planned.day_began_at,
                at_most=at_most,
            )
            done = reservation.reserve(tx, replace(planned.scope, now=now), quota, [row[1] for row in batch])
            reserved += done.touches
        context.progress(f"{planned.campaign.name}: {reserved} reserved")
    return reserved


def _next_plan_at(planned: Planned, next_free: int | None, counted: Counter[str], reserved: int) -> int:
    now = planned.scope.now
    if reserved < counted["asked"]:
        return now + MINUTE_MS  # a brake or the sender's pace holds some back
    candidates = [now + REPLAN_MS, planned.next_day_at, planned.wave.ends_at]
    return min([at for at in [*candidates, next_free] if at is not None and at > now])
