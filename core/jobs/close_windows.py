"""What only the passing of time brings about: silence, reservations that ran out, the one reminder."""

from __future__ import annotations

import time

from core.clock import DAY_MS
from core.deliveries import is_reminder, reminder_key
from core.jobs.context import Context, JobReport
from core.storage import sends, settings, touches
from core.storage.sends import Unanswered
from core.storage.settings import CampaignRow
from core.storage.store import Transaction
from core.touches import ReturnReason
from core.waves import zone_now
from core.workspace import Workspace
from core.zones import zone_of

NAME = "close_windows"
BATCH = 200
#: Looking through the ledger takes a moment and disturbs nobody; writing is done in batches.
FOUND_AT_ONCE = 10_000
#: The moment asked may lie this long after the reservation: retries and send windows in between.
SLACK_DAYS = 10


def run(context: Context) -> JobReport:
    """Close what is over and remind who is due; `done` counts touches moved and reminders written."""
    started = time.monotonic()
    report = JobReport(NAME)
    report.done += _expire_sends(context)
    report.done += _close(context)
    report.done += _remind_all(context)
    report.seconds = time.monotonic() - started
    return report


def _close(context: Context) -> int:
    """Handed over, window closed, no answer: silent. What is in doubt stays in doubt."""
    closed = 0
    while not context.stopping.is_set():
        with context.store.read() as tx:
            found = touches.closed_windows(tx, context.clock.now_ms(), FOUND_AT_ONCE)
        for start in range(0, len(found), BATCH):
            with context.store.write() as tx:
                closed += touches.mark_silent(tx, found[start : start + BATCH])
        if len(found) < FOUND_AT_ONCE:
            break
    return closed


def _expire_sends(context: Context) -> int:
    """Not handed over within 24 h of permitted sending time: the quota returns."""
    expired = 0
    while not context.stopping.is_set():
        with context.store.write() as tx:
            now = context.clock.now_ms()
            overdue = sends.overdue_sends(tx, now, BATCH)
            sends.expire(tx, [one.delivery_id for one in overdue], now)
            for one in overdue:
                if not is_reminder(one.key):
                    last = f"; last: {one.error}" if one.error else ""
                    detail = f"not handed over in time{last}"
                    touches.give_back(tx, [one.touch_id], ReturnReason.EXPIRED, detail, now)
        expired += len(overdue)
        if len(overdue) < BATCH:
            break
    return expired


def _remind_all(context: Context) -> int:
    with context.store.read() as tx:
        workspace = settings.read_workspace(tx)
        rows = settings.read_campaigns(tx)
        senders = {connection.name: connection.id for connection in settings.read_connections(tx)}
    reminded = 0
    for row in rows:
        sender = senders.get(row.settings.sender)
        if workspace is not None and sender is not None and row.state == "active" and row.settings.reminds_after_days:
            reminded += _remind(context, workspace, row, sender)
    return reminded


def _remind(context: Context, workspace: Workspace, row: CampaignRow, sender: int) -> int:
    reminded = 0
    while not context.stopping.is_set():
        with context.store.write() as tx:
            now = context.clock.now_ms()
            asked_before = now - (row.settings.reminds_after_days or 0) * DAY_MS
            reserved_after = now - (row.settings.window_days + SLACK_DAYS) * DAY_MS
            due = sends.due_reminders(tx, row.id, asked_before, reserved_after, now, BATCH)
            for touch in due:
                reminded += _write_down(tx, touch, workspace, row, sender, now)
        if len(due) < BATCH:
            break
    return reminded


def _write_down(
    tx: Transaction, touch: Unanswered, workspace: Workspace, row: CampaignRow, sender: int, now: int
) -> bool:
    zone = zone_of(touch.time_zone, workspace.zone)
    due_at = zone_now(zone, row.settings.send_window, now).opens_at or now
    expires_at = touch.window_closes_at or due_at + DAY_MS
    return sends.add_reminder(tx, touch, reminder_key(touch.public_id), sender, due_at, expires_at, now)
