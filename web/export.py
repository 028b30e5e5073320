"""Writes the workspace back as a TOML file that `flask apply` takes: the settings as stored, secrets as references."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from typing import Any

import connectors
from connectors.config import masked
from core.errors import NotFound
from core.storage.settings import ConnectionRow, read_campaigns, read_connections, read_workspace
from core.storage.store import Transaction
from core.workspace import Campaign

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
#: Keys of a campaign that hold dates; as JSON they are texts.
_DATES = frozenset({"once", "start", "end"})


def export_workspace(tx: Transaction) -> str:
    """The text of a workspace file. Raises NotFound before the first apply."""
    workspace = read_workspace(tx)
    if workspace is None:
        raise NotFound("there is no workspace yet: apply a workspace file first")
    values = workspace.model_dump(by_alias=True, exclude_defaults=True)
    parts = {key: values.pop(key) for key in ("quarantine", "brakes") if key in values}
    quiet = values.pop("quiet_periods", ())
    lines = [*_section("workspace", values)]
    for name, part in parts.items():
        lines += ["", *_section(name, part)]
    for period in quiet:
        lines += ["", "[[quiet_periods]]", *_pairs(period)]
    for connection in read_connections(tx):
        lines += ["", *_section(f"connections.{_key(connection.name)}", _connection(connection))]
    for row in read_campaigns(tx):
        if row.state != "removed":
            lines += ["", *_section(f"campaigns.{_key(row.name)}", _campaign(row.settings))]
    return "\n".join(lines) + "\n"


def _connection(row: ConnectionRow) -> dict[str, Any]:
    """A secret that is no reference, set in the interface, is left out as a mask: the file never holds one."""
    return {"kind": row.kind, "config": masked(row.config, connectors.load(row.kind).config_class)}


def _campaign(settings: Campaign) -> dict[str, Any]:
    values = settings.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    del values["name"]
    for key in _DATES & values.keys():
        values[key] = date.fromisoformat(values[key])
    return values


def _section(name: str, values: Mapping[str, Any]) -> Iterator[str]:
    yield f"[{name}]"
    yield from _pairs(values)


def _pairs(values: Mapping[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        if value is not None:
            yield f"{_key(key)} = {toml_value(value)}"


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def toml_value(value: Any) -> str:
    """A value as TOML, tables inline."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, time):
        return f'"{value:%H:%M}"'
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_key(key)} = {toml_value(item)}" for key, item in value.items() if item is not None)
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    return _text(str(value))


def _text(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    escaped = re.sub(r"[\x00-\x1f\x7f]", lambda match: f"\\u{ord(match[0]):04x}", escaped)
    return f'"{escaped}"'
