"""What is configured: the workspace, its connections and campaigns, and the pepper of address hashes.

Rows of removed connections and campaigns stay: touches and answers refer to them. `read_connections` leaves the removed
ones out; `read_campaigns` shows them, with state `removed`, because their history still counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, Row, insert, select, update

from core.errors import BoucleError, NotFound
from core.keyring import Keyring
from core.storage.anonymous import sealed_with
from core.storage.schema import campaigns, connections, credentials, secrets, workspace
from core.workspace import Campaign, Workspace

PEPPER = "address_pepper"


@dataclass(frozen=True, slots=True)
class CampaignRow:
    """A campaign as stored. `state`: active | stopped | paused | removed; `reason` says why it does not run."""

    id: int
    name: str
    state: str
    reason: str
    settings: Campaign
    created_at: int


@dataclass(frozen=True, slots=True)
class ConnectionRow:
    """A connection as stored. `config` holds references to secrets, never secrets; its paths are absolute."""

    id: int
    name: str
    kind: str
    config: dict[str, Any]
    state: str
    reason: str
    account: str
    full_read_at: int | None
    synced_at: int | None


# --- reading --------------------------------------------------------------------------------------------------------


def read_workspace(tx: Connection) -> Workspace | None:
    """The workspace, or None before the first apply."""
    config = tx.scalar(select(workspace.c.config).where(workspace.c.id == 1))
    return None if config is None else _valid(Workspace, config, "the workspace")


def applied_workspace(tx: Connection) -> Workspace:
    """The workspace. Raises NotFound before the first apply."""
    found = read_workspace(tx)
    if found is None:
        raise NotFound("there is no workspace yet: apply a workspace file first")
    return found


def read_campaigns(tx: Connection) -> list[CampaignRow]:
    """Every campaign there ever was, in the order they were made."""
    return [_campaign(row) for row in tx.execute(select(campaigns).order_by(campaigns.c.id))]


def campaign_named(tx: Connection, name: str) -> CampaignRow:
    """One campaign. Raises NotFound, naming those there are."""
    row = tx.execute(select(campaigns).where(campaigns.c.name == name, campaigns.c.state != "removed")).one_or_none()
    if row is None:
        names = tx.scalars(select(campaigns.c.name).where(campaigns.c.state != "removed").order_by(campaigns.c.name))
        raise NotFound(f"there is no campaign {name}; {_those(list(names))}")
    return _campaign(row)


def campaign_with_id(tx: Connection, campaign_id: int) -> CampaignRow:
    """One campaign, removed ones included: what was asked may still be answered."""
    return _campaign(tx.execute(select(campaigns).where(campaigns.c.id == campaign_id)).one())


def read_connections(tx: Connection) -> list[ConnectionRow]:
    """Every connection that is not removed, in the order they were made."""
    rows = tx.execute(select(connections).where(connections.c.state != "removed").order_by(connections.c.id))
    return [_connection(row) for row in rows]


def connection_named(tx: Connection, name: str) -> ConnectionRow:
    """One connection. Raises NotFound, naming those there are."""
    row = tx.execute(
        select(connections).where(connections.c.name == name, connections.c.state != "removed")
    ).one_or_none()
    if row is None:
        raise NotFound(f"there is no connection {name}; {_those([row.name for row in read_connections(tx)])}")
    return _connection(row)


def read_pepper(tx: Connection, keyring: Keyring) -> bytes:
    """The pepper of address hashes. Raises NotFound before the first migration, UnknownKey without its key."""
    row = tx.execute(select(secrets).where(secrets.c.name == PEPPER)).one_or_none()
    if row is None:
        raise NotFound("the database has no address pepper yet; run flask migrate")
    return keyring.decrypt(row.ciphertext, row.key_id, _secret_context(PEPPER))


def keys_in_use(tx: Connection) -> list[tuple[str, str]]:
    """(key id, what it encrypts) of every stored secret and of the answers that are sealed."""
    kept = [(row.key_id, f"the secret {row.name}") for row in tx.execute(select(secrets.c.key_id, secrets.c.name))]
    rows = tx.execute(
        select(credentials.c.key_id, credentials.c.name, connections.c.name.label("connection")).join(
            connections, connections.c.id == credentials.c.connection_id
        )
    )
    kept += [(row.key_id, f"the {row.name} of connection {row.connection}") for row in rows]
    return kept + [(key_id, "anonymous answers") for key_id in sealed_with(tx)]


# --- writing --------------------------------------------------------------------------------------------------------


def keep_pepper(tx: Connection, keyring: Keyring, pepper: bytes) -> None:
    """Store the pepper if there is none. It is never rotated: hashed addresses cannot be hashed again."""
    if tx.execute(select(secrets.c.name).where(secrets.c.name == PEPPER)).one_or_none() is None:
        ciphertext, key_id = keyring.encrypt(pepper, _secret_context(PEPPER))
        tx.execute(insert(secrets).values(name=PEPPER, ciphertext=ciphertext, key_id=key_id))


def mark_connection(tx: Connection, connection_id: int, state: str, reason: str, now: int) -> None:
    """Say how a connection fares: `ok`, or `broken` with the reason. A removed one stays removed."""
    tx.execute(
        update(connections)
        .where(connections.c.id == connection_id, connections.c.state != "removed")
        .values(state=state, reason=reason, changed_at=now)
    )


def mark_synced(tx: Connection, connection_id: int, now: int, *, full: bool) -> None:
    """A read came to its end; `full`: it saw every record, so that waves may be planned."""
    values: dict[str, Any] = {"synced_at": now}
    if full:
        values["full_read_at"] = now
    tx.execute(update(connections).where(connections.c.id == connection_id).values(**values))


def set_account(tx: Connection, connection_id: int, account: str) -> None:
    """Remember the account a connection speaks for: it names the rate bucket."""
    tx.execute(update(connections).where(connections.c.id == connection_id).values(account=account))


def mark_campaign(tx: Connection, campaign_id: int, state: str, reason: str, now: int) -> None:
    """Set a campaign's state: active | stopped | paused | removed."""
    tx.execute(
        update(campaigns).where(campaigns.c.id == campaign_id).values(state=state, reason=reason, changed_at=now)
    )


# --- within ---------------------------------------------------------------------------------------------------------


def _campaign(row: Row[Any]) -> CampaignRow:
    config = _valid(Campaign, row.config, f"campaign {row.name}")
    return CampaignRow(row.id, row.name, row.state, row.reason, config, row.created_at)


def _connection(row: Row[Any]) -> ConnectionRow:
    return ConnectionRow(
        row.id, row.name, row.kind, row.config, row.state, row.reason, row.account, row.full_read_at, row.synced_at
    )


def _valid(model: type[Any], config: Any, what: str) -> Any:
    try:
        return model.model_validate(config)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BoucleError(
            f"{what} is stored with settings this release refuses ({place}: {first['msg']}); apply the file again"
        ) from None


def _those(names: list[str]) -> str:
    return f"there are: {', '.join(names)}" if names else "none is set up yet, apply a workspace file first"


def _secret_context(name: str) -> str:
    return f"secrets:{name}:ciphertext"
