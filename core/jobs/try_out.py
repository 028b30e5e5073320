"""A workspace that is not live: each test recipient gets one message of every campaign whose wave is open.

Nothing of it counts: not for the clocks, the shares, the limits or the figures, and nothing is written back. A message
is sent again when the campaign's settings have changed, so that a change can be looked at before anybody else sees it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence

from core.clock import DAY_MS
from core.contacts import address_hash, clean_address
from core.jobs.context import Context
from core.storage import trials
from core.storage.settings import CampaignRow, ConnectionRow
from core.storage.trials import Trial
from core.waves import WavePlan, wave_at
from core.workspace import Workspace

_CROCKFORD = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "0123456789abcdefghjkmnpqrstvwxyz")


def run(
    context: Context, workspace: Workspace, rows: Sequence[CampaignRow], connections: Mapping[str, ConnectionRow]
) -> int:
    """Write down the test messages that are missing; returns how many."""
    written = 0
    for row in rows:
        now = context.clock.now_ms()
        wave = wave_at(row.settings, row.created_at, workspace.zone, now) if row.state == "active" else None
        sender = connections.get(row.settings.sender)
        if wave is not None and sender is not None:
            written += _try_campaign(context, workspace, row, connections, sender, wave, now)
    return written


def _try_campaign(
    context: Context,
    workspace: Workspace,
    row: CampaignRow,
    connections: Mapping[str, ConnectionRow],
    sender: ConnectionRow,
    wave: WavePlan,
    now: int,
) -> int:
    sources = [connections[name].id for name in row.settings.source if name in connections]
    written = 0
    with context.store.write() as tx:
        for email in workspace.test_recipients:
            address = clean_address(email)
            hashed = address_hash(context.pepper, address) if address else None
            trial = Trial(
                public_id=_name(row, wave, email),
                campaign_id=row.id,
                type=row.settings.type,
                sender_id=sender.id,
                recipient=trials.recipient_of(tx, email, hashed, sources),
                asked_at=now,
                window_closes_at=now + row.settings.window_days * DAY_MS,
                expires_at=now + DAY_MS,
            )
            written += trials.add_trial(tx, trial)
    return written


def _name(row: CampaignRow, wave: WavePlan, email: str) -> str:
    """The same for the same try: 80 bits in the alphabet of `core.ids.public_id`."""
    tried = f"{row.id}\0{wave.number}\0{email.casefold()}\0{row.settings.model_dump_json()}"
    digest = hashlib.sha256(tried.encode()).digest()[:10]
    return base64.b32encode(digest).decode().translate(_CROCKFORD)
