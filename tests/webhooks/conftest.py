"""A door to knock at: the blueprint in an application, over a real database, with a connection of each kind tried."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select
from werkzeug.test import TestResponse

import connectors
import webhooks
from core.clock import FixedClock
from core.jobs.context import Context
from core.keyring import Keyring
from core.storage import schema
from core.storage.store import Store
from tests.ledger import add_connection
from tests.webhooks.probe import SECRET
from web.settings import Settings
from web.wiring import Opener
from webhooks.base import InboundRequest
from webhooks.routes import blueprint

FIXTURES = Path(__file__).parent / "fixtures"


@dataclass
class Door:
    """What a vendor sees of us, and what we keep."""

    app: Flask
    context: Context
    clock: FixedClock

    def knock(
        self, body: bytes, headers: Mapping[str, str], path: str = "/webhooks/probe/probe", method: str = "POST"
    ) -> TestResponse:
        return self.app.test_client().open(path, method=method, data=body, headers=dict(headers))

    def stored(self) -> list[Any]:
        with self.context.store.read() as tx:
            return list(tx.execute(select(schema.inbox).order_by(schema.inbox.c.id)))


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(datetime(2026, 12, 1, 9, tzinfo=UTC))


@pytest.fixture
def store(tmp_path: Path, clock: FixedClock) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'boucle.db'}", clock)
    schema.metadata.create_all(store.engine)
    yield store
    store.close()


@pytest.fixture
def door(store: Store, clock: FixedClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Door:
    monkeypatch.setitem(connectors.CONNECTORS, "probe", "tests.webhooks.probe:Probe")
    monkeypatch.setitem(webhooks.RECEIVERS, "probe", "tests.webhooks.probe:ProbeReceiver")
    monkeypatch.setenv("PROBE_SECRET", SECRET)
    with store.write() as tx:
        add_connection(tx, "probe", "probe", config={"webhook_secret": "env:PROBE_SECRET"})
        add_connection(tx, "crm", "csv", config={"path": "customers.csv"})
        add_connection(tx, "unset", "probe")
        add_connection(tx, "old", "probe", state="removed", config={"webhook_secret": "env:PROBE_SECRET"})
    settings = Settings(tmp_path, store.url, "https://nps.acme.example/in")
    app = Flask("door")
    app.config["BOUCLE"] = settings
    app.register_blueprint(blueprint)
    context = Context(
        store=store,
        clock=clock,
        keyring=Keyring({"k1": bytes(32)}),
        pepper=bytes(32),
        opener=Opener(store, settings),
        composer=None,  # type: ignore[arg-type]  # nothing is written here
        owner="door",
        parse_inbox=lambda kind, headers, body, at: webhooks.load(kind)().parse(
            InboundRequest("POST", "", headers, body, at)
        ),
    )
    app.extensions["boucle"] = context
    return Door(app, context, clock)


def fixtures(kind: str) -> list[Path]:
    """The captured bodies of a kind; each has its events beside it, as `<name>.expected.json`."""
    return sorted(path for path in (FIXTURES / kind).glob("*.json") if not path.name.endswith(".expected.json"))


def as_json(event: Any) -> dict[str, Any]:
    """An event as the fixtures write it."""
    values = {name: getattr(event, name) for name in event.__dataclass_fields__}
    document = {"event": type(event).__name__, **values, "at": event.at.isoformat()}
    return dict(json.loads(json.dumps(document)))
