"""What a workspace file changes in the database, and what somebody changed since: drift.

With each row stands the digest of its settings as a file last set them. Settings that do not match it any more were
edited in the interface.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from core.storage.deliveries import cancel_ready_sends
from core.storage.schema import bookmarks, campaigns, connections, deliveries, touches, workspace
from core.storage.touches import give_back
from core.touches import ReturnReason, TouchState


@dataclass(frozen=True, slots=True)
class Applied:
    """One object as stored. `drifted`: edited since a file last set it, or never set by a file."""

    id: int
    name: str
    kind: str  # of a connection; "" for others
    config: dict[str, Any]
    state: str
    drifted: bool

    def stands(self, config: dict[str, Any]) -> bool:
        """Whether a file with these settings has nothing to write."""
        return self.config == config and not self.drifted and self.state != "removed"


def applied_workspace(tx: Connection) -> Applied | None:
    """The workspace as stored."""
    row = tx.execute(select(workspace).where(workspace.c.id == 1)).one_or_none()
    return None if row is None else Applied(1, "workspace", "", row.config, "", row.digest != digest(row.config))


def applied_connections(tx: Connection) -> dict[str, Applied]:
    """Every connection, removed ones included, by name."""
    rows = tx.execute(select(connections).order_by(connections.c.id))
    return {row.name: _applied(row, row.kind) for row in rows}


def applied_campaigns(tx: Connection) -> dict[str, Applied]:
    """Every campaign, removed ones included, by name."""
    rows = tx.execute(select(campaigns).order_by(campaigns.c.id))
    return {row.name: _applied(row, "") for row in rows}


def put_workspace(tx: Connection, config: dict[str, Any], now: int) -> None:
    """Store the workspace's settings."""
    values = {"config": config, "digest": digest(config), "applied_at": now}
    if not tx.execute(update(workspace).where(workspace.c.id == 1).values(**values)).rowcount:
        tx.execute(insert(workspace).values(id=1, **values))


def put_connection(tx: Connection, old: Applied | None, name: str, kind: str, config: dict[str, Any], now: int) -> None:
    """Store a connection's settings. A changed one is read whole again before the next wave."""
    if old is not None and old.stands(config):
        return
    values: dict[str, Any] = {"config": config, "digest": digest(config), "changed_at": now}
    if old is None:
        tx.execute(insert(connections).values(name=name, kind=kind, **values))
        return
    if old.config != config or old.state == "removed":
        values |= {"kind": kind, "state": "new", "reason": "", "account": "", "full_read_at": None}
        tx.execute(delete(bookmarks).where(bookmarks.c.connection_id == old.id))
    tx.execute(update(connections).where(connections.c.id == old.id).values(**values))


def put_campaign(tx: Connection, old: Applied | None, config: dict[str, Any], now: int) -> None:
    """Store a campaign's settings. One that was removed is active again; a stopped or paused one stays so."""
    if old is not None and old.stands(config):
        return
    anonymous = bool(config.get("survey", {}).get("anonymous", False))
    values: dict[str, Any] = {
        "type": config.get("type", "nps"),
        "config": config,
        "anonymous": anonymous,
        "digest": digest(config),
        "changed_at": now,
    }
    if old is None:
        tx.execute(insert(campaigns).values(name=config["name"], created_at=now, **values))
        return
    if old.state == "removed":
        values |= {"state": "active", "reason": ""}
    tx.execute(update(campaigns).where(campaigns.c.id == old.id).values(**values))


def give_back_unsent(tx: Connection, connection_id: int, now: int) -> int:
    """A sender is removed: what it has not sent yet is returned to the people. Returns how many asks."""
    waiting = select(deliveries.c.touch_id).where(
        deliveries.c.connection_id == connection_id, deliveries.c.kind == "send", deliveries.c.state == "ready"
    )
    unsent = select(touches.c.id).where(touches.c.id.in_(waiting), touches.c.state == TouchState.RESERVED)
    ids = list(tx.scalars(unsent))
    cancel_ready_sends(tx, ids, now)
    give_back(tx, ids, ReturnReason.CANCELLED, "the connection was removed", now)
    return len(ids)


def has_asked(tx: Connection, campaign_id: int) -> bool:
    """Whether anybody was ever chosen by a campaign."""
    return tx.scalar(select(touches.c.id).where(touches.c.campaign_id == campaign_id).limit(1)) is not None


def digest(config: dict[str, Any]) -> str:
    """The same for the same settings, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:32]


def _applied(row: Row[Any], kind: str) -> Applied:
    return Applied(row.id, row.name, kind, row.config, row.state, row.digest != digest(row.config))
