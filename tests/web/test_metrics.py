"""/healthz, /readyz and /metrics of the real application."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

import web.metrics
from core.jobs import sweep
from core.jobs.context import Context
from core.storage import inbox, leases, schema, status
from core.touches import TouchState
from tests.ledger import add_touch
from tests.web.app import Installation
from web.wiring import close_context


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    monkeypatch.setattr(web.metrics, "KEPT_SECONDS", 0.0)
    app = Installation(tmp_path).set_up().app()
    context = app.extensions["boucle"]
    yield app
    close_context(context)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def context(app: Flask) -> Context:
    found: Context = app.extensions["boucle"]
    return found


def with_worker(app: Flask) -> None:
    app.config["BOUCLE"] = dataclasses.replace(app.config["BOUCLE"], embedded_worker=True)


def swept(context: Context, seconds_ago: float) -> None:
    with context.store.write() as tx:
        leases.finish(tx, status.SWEEP, "somebody", context.clock.now_ms() - round(seconds_ago * 1000))


def samples(client: FlaskClient) -> dict[tuple[str, ...], float]:
    """(name, label values ...) -> value, read as a monitor reads it."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.mimetype == "text/plain"
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_a_process_that_answers_is_healthy_whatever_else_is_wrong(app: Flask, client: FlaskClient) -> None:
    app.extensions.pop("boucle")
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json) == (200, {"status": "ok"})


def test_a_process_without_a_worker_is_ready_when_its_database_is(client: FlaskClient) -> None:
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json) == (200, {"status": "ready"})


def test_with_a_worker_it_is_ready_after_the_first_sweep(app: Flask, client: FlaskClient, context: Context) -> None:
    with_worker(app)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "first sweep" in answer.json["reason"]  # type: ignore[index]
    sweep.run(context, lambda name: None)
    assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize(("seconds", "code"), [(0, 200), (55, 200), (65, 503), (86_400, 503)])
def test_a_worker_that_does_not_get_round_is_not_ready(
    app: Flask, client: FlaskClient, context: Context, seconds: float, code: int
) -> None:
    with_worker(app)
    swept(context, seconds)
    answer = client.get("/readyz")
    assert answer.status_code == code
    assert ("last sweep ended" in answer.text) is (code == 503)


def test_a_database_of_another_release_is_not_ready(client: FlaskClient, context: Context) -> None:
    with context.store.write() as tx:
        tx.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "flask migrate" in answer.text


def test_a_database_that_is_away_is_not_ready(client: FlaskClient, context: Context, tmp_path: Path) -> None:
    context.store.close()
    for path in (tmp_path / "instance").glob("boucle.db*"):
        path.unlink()
    (tmp_path / "instance" / "boucle.db").mkdir()
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "does not answer" in answer.text
    assert "Traceback" not in answer.text


def test_a_service_that_is_not_set_up_is_not_ready(app: Flask, client: FlaskClient) -> None:
    app.extensions.pop("boucle")
    assert client.get("/readyz").status_code == 503


def test_metrics_count_by_state(client: FlaskClient, context: Context) -> None:
    with context.store.write() as tx:
        for state in (TouchState.HANDED_OVER, TouchState.HANDED_OVER, TouchState.UNKNOWN):
            add_touch(tx, None, state, 1)
        inbox.receive(tx, 1, "d1", {}, b"{}", 1)
    found = samples(client)
    assert found["boucle_touches", "handed_over"] == 2
    assert found["boucle_touches", "unknown"] == 1
    assert found["boucle_touches", "silent"] == 0
    assert found["boucle_inbox", "ready"] == 1
    assert found["boucle_deliveries", "failed"] == 0
    assert found["boucle_incidents",] == 0


def test_metrics_tell_how_each_connection_fares(client: FlaskClient, context: Context) -> None:
    with context.store.write() as tx:
        tx.execute(schema.connections.update().where(schema.connections.c.name == "mail").values(state="broken"))
        tx.execute(
            schema.connections.update()
            .where(schema.connections.c.name == "crm")
            .values(synced_at=context.clock.now_ms() - 90_000)
        )
    found = samples(client)
    assert found["boucle_connection_up", "mail", "mailbox"] == 0
    assert found["boucle_connection_up", "crm", "csv"] == 1
    assert 90 <= found["boucle_connection_lag_seconds", "crm", "csv"] < 150
    assert ("boucle_connection_lag_seconds", "mail", "mailbox") not in found


def test_metrics_tell_when_the_last_sweep_ended(client: FlaskClient, context: Context) -> None:
    assert ("boucle_sweep_age_seconds",) not in samples(client)
    swept(context, 30)
    assert 30 <= samples(client)["boucle_sweep_age_seconds",] < 90


def test_several_scrapes_share_one_count(
    client: FlaskClient, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web.metrics, "KEPT_SECONDS", 60.0)
    before = samples(client)
    with context.store.write() as tx:
        add_touch(tx, None, TouchState.SILENT, 1)
    assert samples(client) == before


def test_no_person_and_no_secret_stands_in_metrics(client: FlaskClient) -> None:
    text = client.get("/metrics").text
    assert "@" not in text
    assert "customers.csv" not in text
