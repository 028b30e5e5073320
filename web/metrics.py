"""For machines that watch: /healthz (the process answers), /readyz (work gets done), /metrics (counts and lags)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Response, current_app, jsonify
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from core.jobs.context import Context
from core.storage import status
from core.storage.migrate import is_current
from core.storage.opening import problem_of
from web.settings import Settings

LATE_SECONDS = 60.0
#: Counting a large ledger takes a moment: several scrapes within this time share one count.
KEPT_SECONDS = 10.0

blueprint = Blueprint("metrics", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """The process answers."""
    return jsonify(status="ok")


@blueprint.get("/readyz")
def readyz() -> tuple[Response, int]:
    """The database answers, is up to date, and the worker of this process gets round."""
    reason = why_not_ready(current_app.extensions.get("boucle"), current_app.config["BOUCLE"])
    return (jsonify(status="not ready", reason=reason), 503) if reason else (jsonify(status="ready"), 200)


def why_not_ready(context: Context | None, settings: Settings) -> str:
    """Why requests or work would fail now, or nothing."""
    if context is None:
        return "the service is not set up; its log says why"
    problem = problem_of(context.store)
    if problem:
        return f"the database does not answer: {problem}"
    with context.store.read() as tx:
        if not is_current(tx):
            return "the database is not up to date; run: flask migrate"
        swept_at = status.last_sweep_at(tx)
    if not settings.embedded_worker:
        return ""
    if swept_at is None:
        return "the worker has not finished its first sweep yet"
    age = (context.clock.now_ms() - swept_at) / 1000
    return f"the last sweep ended {age:.0f} s ago" if age > LATE_SECONDS else ""


@blueprint.get("/metrics")
def metrics() -> Response:
    """Counts and lags in the format of Prometheus."""
    registry = CollectorRegistry()
    registry.register(_Counted(_counts(current_app.extensions["boucle"])))
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


_lock = threading.Lock()
_kept: dict[str, tuple[float, dict[str, Any]]] = {}


def _counts(context: Context) -> dict[str, Any]:
    with _lock:
        counted_at, document = _kept.get(context.store.url, (0.0, {}))
        if not document or time.monotonic() - counted_at > KEPT_SECONDS:
            with context.store.read() as tx:
                now = context.clock.now_ms()
                document = status.status(tx, now, context.clock.offset_seconds)
                swept_at = status.last_sweep_at(tx)
            document["sweep_age"] = None if swept_at is None else (now - swept_at) / 1000
            _kept[context.store.url] = (time.monotonic(), document)
        return document


class _Counted(Collector):
    """One scrape."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name in ("touches", "deliveries", "inbox"):
            family = GaugeMetricFamily(f"boucle_{name}", f"{name.capitalize()} by state", labels=["state"])
            for state, number in self._document[name].items():
                family.add_metric([state], number)
            yield family
        yield from self._connections()
        yield _single("boucle_incidents", "Open incidents", len(self._document["incidents"]))
        yield _single("boucle_suspect_answers", "Answers that wait for a human", self._document["suspect_answers"])
        yield _single("boucle_clock_offset_seconds", "BOUCLE_CLOCK_OFFSET", self._document["clock_offset"])
        if self._document["sweep_age"] is not None:
            yield _single("boucle_sweep_age_seconds", "Since the last full sweep", self._document["sweep_age"])

    def _connections(self) -> Iterator[GaugeMetricFamily]:
        labels = ["connection", "kind"]
        well = GaugeMetricFamily("boucle_connection_up", "1 unless a connection is broken", labels=labels)
        lag = GaugeMetricFamily("boucle_connection_lag_seconds", "Since a source was last read", labels=labels)
        behind = GaugeMetricFamily("boucle_connection_missing", "Records that do not show our scores", labels=labels)
        for row in self._document["connections"]:
            names = [row["name"], row["kind"]]
            well.add_metric(names, float(row["state"] != "broken"))
            behind.add_metric(names, row["missing"])
            if row["lag_seconds"] is not None:
                lag.add_metric(names, row["lag_seconds"])
        yield from (well, lag, behind)


def _single(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help_text)
    family.add_metric([], value)
    return family
