"""Plan the waves that are open and reserve the people they may ask now.

A plan reads one snapshot and writes its decisions to a temporary table; what changed is stored in short batches, and
the reservations follow in batches of their own, each re-checked under the reservation lock. Killed anywhere, the next
plan starts from the ledger again: nothing of a plan is needed to make the next one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

from core.clock import DAY_MS, MINUTE_MS, from_ms
from core.errors import BoucleError
from core.frequency import limits
from core.jobs import try_out
from core.jobs.context import Context, JobReport
from core.storage import leases, pacing, planning, reservation
from core.storage import waves as wave_rows
from core.storage.ledger import first_wave_left, reserved_since, sending_capacity
from core.storage.settings import CampaignRow, ConnectionRow, read_campaigns, read_connections, read_workspace
from core.storage.store import Session, Transaction
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

    @property
    def wave_id(self) -> int:
        """The row of the wave. Only a plan that is stored has one."""
        if self.scope.wave_id is None:
            raise ValueError("this plan is a dry run: its wave has no row")
        return self.scope.wave_id


def run(context: Context, *, due_only: bool = False) -> JobReport:
    """Plan every open wave (`due_only`: those whose next plan is due) and reserve; `done` counts reservations.

    One process plans at a time, all campaigns in the order of their priority: were two to plan at once, who gets a
    person both want would be chance.
    """
    report = JobReport(NAME)
    started = time.monotonic()
    with context.store.read() as tx:
        workspace = read_workspace(tx)
        rows = read_campaigns(tx)
        connections = {connection.name: connection for connection in read_connections(tx)}
        work = [] if workspace is None else _work(tx, workspace, rows, connections, due_only, context.clock.now_ms())
    if workspace is not None and not workspace.live:
        report.done += try_out.run(context, workspace, rows, connections)
    elif workspace is not None and work:
        with _lease(context) as lease:
            if lease is not None:
                report.done += sum(_plan_campaign(context, workspace, *one, lease, due_only) for one in work)
    report.seconds = time.monotonic() - started
    return report


def _work(
    tx: Transaction,
    workspace: Workspace,
    rows: list[CampaignRow],
    connections: dict[str, ConnectionRow],
    due_only: bool,
    now: int,
) -> list[tuple[CampaignRow, WavePlan | None]]:
    """Campaigns to plan with their wave, and those whose wave is over (None), the most important first."""
    open_ones = wave_rows.open_campaigns(tx)
    found: list[tuple[CampaignRow, WavePlan | None]] = []
    for row in sorted(rows, key=lambda row: (-row.settings.priority, row.created_at, row.id)):
        wave = wave_at(row.settings, row.created_at, workspace.zone, now) if row.state == "active" else None
        if wave is None:
            if row.id in open_ones and row.state != "paused":
                found.append((row, None))
        elif sources_read(row, connections) and not (due_only and _planned_lately(tx, row.id, wave, now)):
            found.append((row, wave))
    return found


def _planned_lately(tx: Transaction, campaign_id: int, wave: WavePlan, now: int) -> bool:
    row = wave_rows.find_wave(tx, campaign_id, wave)
    return wave_rows.is_open(row, wave) and row.next_plan_at is not None and row.next_plan_at > now


class Lease:
    """Held while planning. `fence` is None once somebody else has taken over."""

    def __init__(self, context: Context, fence: int) -> None:
        self._context = context
        self.fence: int | None = fence

    def renew(self, tx: Transaction) -> bool:
        """Hold on; False: plan nothing more."""
        if self.fence is not None:
            now = self._context.clock.now_ms()
            self.fence = self.fence if leases.renew(tx, NAME, self._context.owner, self.fence, now, LEASE_MS) else None
        return self.fence is not None


@contextmanager
def _lease(context: Context) -> Iterator[Lease | None]:
    """The right to plan, or None while another process does."""
    with context.store.write() as tx:
        fence = leases.acquire(tx, NAME, context.owner, context.clock.now_ms(), LEASE_MS)
    if fence is None:
        yield None
        return
    try:
        yield Lease(context, fence)
    finally:
        with context.store.write() as tx:
            leases.release(tx, NAME, context.owner, fence, context.clock.now_ms())


def _plan_campaign(
    context: Context, workspace: Workspace, row: CampaignRow, wave: WavePlan | None, lease: Lease, due_only: bool
) -> int:
    now = context.clock.now_ms()
    with context.store.write() as tx:
        if wave is None:
            wave_rows.close_waves(tx, row.id)
        if wave is None or not lease.renew(tx) or (due_only and _planned_lately(tx, row.id, wave, now)):
            return 0
        wave_row = wave_rows.open_wave(tx, row.id, wave)
        connections = {connection.name: connection for connection in read_connections(tx)}
    planned = prepare(workspace, row, connections, wave, now)
    scope = replace(planned.scope, wave_id=wave_row.id, keeps_dropped=not row.settings.waits)
    return _plan_and_reserve(context, workspace, replace(planned, scope=scope), lease)


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
        limits=limits(workspace.quarantine, row.settings, row.id, (wave.opens_at, wave.ends_at) if wave else None),
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


def _plan_and_reserve(context: Context, workspace: Workspace, planned: Planned, lease: Lease) -> int:
    wave_id = planned.wave_id
    with context.store.session() as session:
        with session.read() as tx:
            counted = decide(tx, planned)
            next_free = wave_rows.earliest_free(tx, planned.scope.now)
        store_decisions(session, planned, wave_id)
        reserved = _reserve_all(context, session, workspace, planned, lease)
        with session.write() as tx:
            next_plan = _next_plan_at(planned, next_free, counted, reserved)
            wave_rows.remember_plan(tx, wave_id, counted, planned.scope.now, next_plan)
    return reserved


def decide(tx: Transaction, planned: Planned) -> Counter[str]:
    """Decide on everybody and pace the wave, in temporary tables of this connection; returns the counts."""
    planning.decide(tx, planned.scope)
    gone_by = Counter[str]()
    if planned.scope.keeps_dropped and planned.scope.wave_id is not None:
        gone_by = wave_rows.dropped(tx, planned.campaign.id, planned.scope.wave_id)
    limit = planned.campaign.settings.daily_limit
    left = None
    if limit is not None:
        left = max(0, limit - reserved_since(tx, planned.campaign.id, planned.day_began_at))
    pacing.pace(tx, planned.scope, left, planned.next_day_at)
    return wave_rows.counts(tx) + gone_by


def store_decisions(session: Session, planned: Planned, wave_id: int) -> int:
    """Store the decisions that changed, in short transactions; returns how many."""
    stored = 0
    with session.read() as tx:
        low, high = wave_rows.people_range(tx)
        statement = wave_rows.changes(
            tx,
            planned.campaign.id,
            wave_id,
            planned.wave.ends_at,
            planned.campaign.settings.waits,
            planned.scope.now,
        )
    for start in range(low, high + 1, wave_rows.CHUNK):
        people = range(start, min(start + wave_rows.CHUNK, high + 1))
        with session.write() as tx:
            stored += wave_rows.store_changes(tx, statement, people)
    return stored


def _reserve_all(context: Context, session: Session, workspace: Workspace, planned: Planned, lease: Lease) -> int:
    rate = _messages_per_second(context, planned.sender)
    reserved = after = 0
    with session.read() as tx:
        recheck = reservation.prepare(tx, planned.scope)
    while not context.stopping.is_set():
        with session.reservation() as tx:
            batch = pacing.next_chosen(tx, after, reservation.BATCH)
            if not batch or not lease.renew(tx):
                break
            after = batch[-1][0]
            now = context.clock.now_ms()
            left = first_wave_left(tx, workspace.brakes, now)
            capacity = sending_capacity(tx, planned.sender.id, rate)
            at_most = min((n for n in (left, capacity) if n is not None), default=None)
            if at_most is not None and at_most <= 0:
                break
            done = reservation.reserve(tx, recheck, _quota(planned, at_most), [row[1] for row in batch], now)
            reserved += done.touches
        context.progress(f"{planned.campaign.name}: {reserved} reserved")
    return reserved


def _messages_per_second(context: Context, sender: ConnectionRow) -> float | None:
    """The sender's pace as its connector declares it; None: as fast as it goes.

    So it is taken for a sender that cannot be opened: the messages tell what is wrong with it, and one that is mended
    within a day loses nobody.
    """
    try:
        connector = context.opener.open(sender.name)
    except BoucleError:
        return None
    rate = getattr(connector, "rate_per_second", None)
    return None if rate is None else rate()


def _quota(planned: Planned, at_most: int | None) -> reservation.Quota:
    settings = planned.campaign.settings
    return reservation.Quota(
        wave_id=planned.wave_id,
        campaign_id=planned.campaign.id,
        type=settings.type,
        sender_id=planned.sender.id,
        window_ms=settings.window_days * DAY_MS,
        daily_limit=settings.daily_limit,
        day_began_at=planned.day_began_at,
        at_most=at_most,
    )


def _next_plan_at(planned: Planned, next_free: int | None, counted: Counter[str], reserved: int) -> int:
    now = planned.scope.now
    if reserved < counted["asked"]:
        return now + MINUTE_MS  # a brake or the sender's pace holds some back
    candidates = [now + REPLAN_MS, planned.next_day_at, planned.wave.ends_at]
    return min([at for at in [*candidates, next_free] if at is not None and at > now])
