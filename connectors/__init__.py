"""What Boucle says to the outside: one module per kind, imported on first use.

Packages of other people add kinds by the entry point group `boucle.connectors` (`kind = "module:Class"`); a kind listed
here is never replaced by one of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from core.errors import Misconfigured

if TYPE_CHECKING:
    from connectors.base import Connector, Credentials

ENTRY_POINTS = "boucle.connectors"

CONNECTORS = {
    "csv": "connectors.csv:Csv",
    "mailbox": "connectors.mailbox:Mailbox",
    "smtp": "connectors.smtp:Smtp",
}


def kinds() -> tuple[str, ...]:
    """Every kind that can be configured, sorted; nothing is imported."""
    return tuple(sorted({*CONNECTORS, *_added()}))


@cache
def load(kind: str) -> type[Connector[Any]]:
    """The class of a kind. Raises Misconfigured, naming the kinds there are, or what an added one lacks."""
    if kind in CONNECTORS:
        module, _, name = CONNECTORS[kind].partition(":")
        found = getattr(import_module(module), name)
    elif kind in _added():
        found = _load_added(_added()[kind])
    else:
        raise Misconfigured(f'there is no connector of kind "{kind}"; known kinds: {", ".join(kinds())}', field="kind")
    return found  # type: ignore[no-any-return]


def build(
    kind: str,
    values: Mapping[str, Any],
    *,
    bucket: Callable[[], None] = lambda: None,
    allow_private: bool = False,
    credentials: Credentials | None = None,
) -> Connector[Any]:
    """A connector of these settings, secrets already resolved (`config.resolve_secrets`). Raises Misconfigured."""
    from connectors.base import StaticCredentials
    from connectors.config import read_config
    from connectors.http import HttpClient

    found = load(kind)
    config = read_config(found.config_class, values)
    http = HttpClient(kind=kind, bucket=bucket, allow_private=allow_private)
    return found(config, http, credentials or StaticCredentials())


@cache
def _added() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS) if entry.name not in CONNECTORS}


def _load_added(entry: EntryPoint) -> type[Connector[Any]]:
    from connectors.base import Connector

    try:
        found = entry.load()
    except Exception as error:  # whatever somebody else's package does on import
        raise Misconfigured(
            f'the connector "{entry.name}" ({entry.value}) cannot be loaded: {error}', field="kind"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Connector)):
        raise Misconfigured(
            f'the connector "{entry.name}" ({entry.value}) is no connectors.base.Connector', field="kind"
        )
    if getattr(found, "kind", None) != entry.name:
        raise Misconfigured(
            f'the connector "{entry.name}" ({entry.value}) names another kind in its class', field="kind"
        )
    return found
