"""Short ways to put people and touches into a database, for tests that look at what becomes of them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, insert, select

from core.storage import schema
from core.touches import TouchState


def add_connection(tx: Connection, name: str = "crm", kind: str = "csv", **values: Any) -> int:
    row = {"name": name, "kind": kind, "config": {}, "changed_at": 0, "state": "ok", "full_read_at": 1, **values}
    return _insert(tx, schema.connections, row)


def add_campaign(
    tx: Connection, name: str = "relationship", config: dict[str, Any] | None = None, **values: Any
) -> int:
    config = config or {"name": name, "source": ["crm"], "sender": "mail", "every_days": 90}
    row = {"name": name, "type": "nps", "config": config, "created_at": 0, "changed_at": 0, **values}
    return _insert(tx, schema.campaigns, row)


def add_wave(tx: Connection, campaign_id: int, number: int = 1, opens_at: int = 0, ends_at: int = 2**50) -> int:
    return _insert(
        tx,
        schema.waves,
        {"campaign_id": campaign_id, "number": number, "opens_at": opens_at, "ends_at": ends_at, "counts": {}},
    )


def add_company(tx: Connection, name: str) -> int:
    return _insert(tx, schema.companies, {"key": name.casefold(), "name": name})


def add_person(tx: Connection, connection_id: int = 1, email: str | None = "", **values: Any) -> tuple[int, int]:
    """A person with one record; returns (person id, identity id). `email=None` for none."""
    person: dict[str, Any] = {
        name: values.pop(name)
        for name in ("opted_out_at", "source_opted_out", "hold_until", "quarantine_until")
        if name in values
    }
    person_id = values.pop("person_id", None) or _insert(tx, schema.people, person)
    number = (tx.scalar(select(func.max(schema.identities.c.id))) or 0) + 1
    email = f"person{number}@acme.example" if email == "" else email
    row = {
        "person_id": person_id,
        "connection_id": connection_id,
        "external_id": f"id-{number}",
        "email": email,
        "address_hash": None if email is None else email.encode()[:16].ljust(16, b"."),
        "attributes": {},
        "digest": b"",
        **values,
    }
    return person_id, _insert(tx, schema.identities, row)


def add_touch(tx: Connection, person_id: int | None, state: TouchState, asked_at: int, **values: Any) -> int:
    number = (tx.scalar(select(func.max(schema.touches.c.id))) or 0) + 1
    row = {
        "public_id": f"touch{number}",
        "person_id": person_id,
        "state": state,
        "asked_at": asked_at,
        "reserved_at": asked_at,
        **values,
    }
    return _insert(tx, schema.touches, row)


def _insert(tx: Connection, table: Any, row: dict[str, Any]) -> int:
    key = tx.execute(insert(table).values(**row)).inserted_primary_key
    assert key is not None
    return int(key[0])
