"""The world as a job sees it, over a real database file: for tests of jobs and of what wakes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.clock import Clock
from core.jobs.context import Context
from core.keyring import Keyring
from core.storage import schema
from core.storage.store import Store
from core.workspace import Workspace

PEPPER = bytes(range(32))


class Opened:
    """`core.ports.ConnectionOpener` over connectors that a test has at hand."""

    def __init__(self, connectors: Mapping[str, Any] | None = None) -> None:
        self.connectors = dict(connectors or {})

    def open(self, connection_name: str) -> Any:
        return self.connectors[connection_name]

    def close(self) -> None:
        return None


def make_context(store: Store, clock: Clock, connectors: Mapping[str, Any] | None = None, **values: Any) -> Context:
    """A context whose process is alive in nobody's eyes: `owner` is a name, not a pid."""
    return Context(
        **{
            "store": store,
            "clock": clock,
            "keyring": Keyring({"k1": bytes(32)}),
            "pepper": PEPPER,
            "opener": Opened(connectors),
            "composer": None,
            "owner": "this process",
            **values,
        }
    )


def set_workspace(store: Store, **values: Any) -> None:
    """The `[workspace]` part, as `flask apply` would store it."""
    config = Workspace(**{"name": "Acme", **values}).model_dump(mode="json", by_alias=True)
    with store.write() as tx:
        tx.execute(schema.workspace.delete())
        tx.execute(schema.workspace.insert().values(id=1, config=config, applied_at=0, digest=""))
