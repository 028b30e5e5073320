"""Puts the parts together: settings in, a `core.jobs.context.Context` out. Refuses in a sentence what cannot work."""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import connectors
import webhooks
from connectors.base import Connector
from connectors.config import (
    Input,
    absolute_paths,
    check_references,
    config_fields,
    problems,
    resolve_secrets,
)
from core.clock import Clock
from core.errors import BoucleError, Invalid, NotFound
from core.events import Event
from core.jobs.context import Context
from core.keyring import Keyring, read_key_file
from core.ports import Composer, capabilities
from core.processes import this_process
from core.settings_errors import Found, did_you_mean
from core.storage import rates
from core.storage.migrate import is_current, migrate
from core.storage.opening import open_checked
from core.storage.settings import (
    ConnectionRow,
    connection_named,
    keep_pepper,
    keys_in_use,
    read_connections,
    read_pepper,
)
from core.storage.store import Store
from web.settings import Settings
from webhooks.base import InboundRequest

PEPPER_BYTES = 32
NOT_MIGRATED = "the database is not up to date; run: flask migrate"


def build_context(settings: Settings, progress: Callable[[str], None] | None = None) -> Context:
    """The world for the jobs. Raises BoucleError with one sentence: keys missing, database not migrated ..."""
    keyring = read_keyring(settings)
    store = open_store(settings)
    try:
        with store.read() as tx:
            if not is_current(tx):
                raise NotFound(NOT_MIGRATED)
            keyring.require(keys_in_use(tx))
            pepper = read_pepper(tx, keyring)
            rows = read_connections(tx)
        _refuse_moved_clock(settings, rows)
    except BaseException:
        store.close()
        raise
    context = Context(
        store=store,
        clock=store.clock,
        keyring=keyring,
        pepper=pepper,
        opener=Opener(store, settings),
        composer=_composer(settings),
        owner=this_process(),
        parse_inbox=_parse_stored,
    )
    if progress is not None:
        context.progress = progress
    return context


def close_context(context: Context) -> None:
    """Give back what is open."""
    context.opener.close()
    context.store.close()


def prepare_database(settings: Settings) -> list[str]:
    """Migrate, and make the pepper at the first time; returns the revisions that were run."""
    keyring = read_keyring(settings)
    store = open_store(settings)
    try:
        done = migrate(store)
        with store.write() as tx:
            keyring.require(keys_in_use(tx))
            keep_pepper(tx, keyring, secrets.token_bytes(PEPPER_BYTES))
    finally:
        store.close()
    return done


def read_keyring(settings: Settings) -> Keyring:
    """The keys of BOUCLE_SECRET_KEYS, else of the key file."""
    return Keyring.from_text(settings.secret_keys or read_key_file(settings.key_file))


def open_store(settings: Settings) -> Store:
    """The database, which must answer."""
    try:
        settings.instance.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Invalid(f"the folder {settings.instance} (BOUCLE_INSTANCE) cannot be used: {error.strerror}") from None
    return open_checked(settings.database_url, Clock(settings.clock_offset))


def _refuse_moved_clock(settings: Settings, rows: Sequence[ConnectionRow]) -> None:
    if not settings.clock_offset:
        return
    catalogue = Catalogue()
    outside = [row.name for row in rows if catalogue.reaches_outside(row.kind, row.config)]
    if outside:
        raise Invalid(
            f"BOUCLE_CLOCK_OFFSET is set, and {', '.join(outside)} reaches beyond this machine: people would be asked"
            " under a false date. Unset it"
        )


def _composer(settings: Settings) -> Composer:
    from web.survey.composer import SurveyComposer

    return SurveyComposer(settings.base_url)


def _parse_stored(kind: str, headers: Mapping[str, str], body: bytes, received_at: datetime) -> Iterable[Event]:
    """What the receiver of this kind makes of a request it stored before."""
    return webhooks.load(kind)().parse(InboundRequest("POST", "", headers, body, received_at))


# --- connectors -----------------------------------------------------------------------------------------------------


class Catalogue:
    """What there is to connect to: `core.workspace_file.KindCatalogue` over the registry of connectors."""

    def kinds(self) -> Sequence[str]:
        return connectors.kinds()

    def capabilities(self, kind: str) -> Collection[str]:
        return capabilities(connectors.load(kind))

    def problems(self, kind: str, config: Mapping[str, Any], folder: Path) -> Sequence[Found]:
        """What is wrong with the settings; what a secret's reference leads to is not looked at here."""
        model = connectors.load(kind).config_class
        found = [_found(problem, tuple(model.model_fields)) for problem in check_references(config, model)]
        found += _mistaken_switches(config, model)
        wrong = {one.path[0] for one in found}
        try:
            model.model_validate(self.at_home(kind, config, folder))
        except ValueError as error:
            if not hasattr(error, "errors"):
                raise
            listed = problems(error, model)  # type: ignore[arg-type]
            found += [_found(one, tuple(model.model_fields)) for one in listed if not wrong & set(one.path[:1])]
        return found

    def at_home(self, kind: str, config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        model = connectors.load(kind).config_class
        return dict(json.loads(json.dumps(absolute_paths(config, model, folder), default=str)))

    def reaches_outside(self, kind: str, config: Mapping[str, Any]) -> bool:
        try:
            return connectors.build(kind, config).reaches_outside()
        except BoucleError:
            return True  # nobody knows where it would go


def _mistaken_switches(config: Mapping[str, Any], model: type[BaseModel]) -> list[Found]:
    """`port = true` would be read as port 1."""
    switches = {one.name for one in config_fields(model) if one.input is Input.SWITCH}
    return [
        Found((name,), f"must not be {str(value).lower()}: it is no switch")
        for name, value in config.items()
        if isinstance(value, bool) and name in model.model_fields and name not in switches
    ]


def _found(problem: Any, known: Sequence[str]) -> Found:
    message = problem.message
    if message.startswith("there is no such setting") and problem.path:
        message = message.replace(";", f"{did_you_mean(str(problem.path[-1]), known)};", 1)
    return Found(tuple(problem.path), message)


class Opener:
    """Builds the connector of a connection: `core.ports.ConnectionOpener`.

    Each thread keeps its own, so that mail servers are spoken to over one connection, and gets a new one when the
    settings have changed.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._mine = threading.local()
        self._all: weakref.WeakSet[Connector[Any]] = weakref.WeakSet()
        self._lock = threading.Lock()

    def open(self, connection_name: str) -> Connector[Any]:
        """The connector, ready to use by this thread. Raises Misconfigured, NotFound."""
        with self._store.read() as tx:
            row = connection_named(tx, connection_name)
        opened: dict[str, tuple[str, Connector[Any]]] = self._mine.__dict__.setdefault("opened", {})
        written = f"{row.kind} {json.dumps(row.config, sort_keys=True)}"
        before = opened.get(row.name)
        if before is not None and before[0] == written:
            return before[1]
        if before is not None:
            before[1].close()
        connector = self.build(row)
        opened[row.name] = (written, connector)
        with self._lock:
            self._all.add(connector)
        return connector

    def build(self, row: ConnectionRow) -> Connector[Any]:
        """A connector of its own for a connection, secrets resolved."""
        model = connectors.load(row.kind).config_class
        config = resolve_secrets(row.config, model, os.environ, self._settings.instance)
        account = row.account or f"connection:{row.name}"
        holder: list[Connector[Any]] = []
        connector = connectors.build(
            row.kind,
            config,
            bucket=lambda: self._take_token(account, holder),
            allow_private=self._settings.allow_private_endpoints,
        )
        holder.append(connector)
        return connector

    def _take_token(self, account: str, holder: Sequence[Connector[Any]]) -> None:
        rate = holder[0].rate_per_second() if holder else None
        if rate is not None:
            time.sleep(rates.take(self._store, account, rate, 1.0, self._store.clock))

    def close(self) -> None:
        """Give back what is open in any thread."""
        with self._lock:
            opened = list(self._all)
            self._all.clear()
        for connector in opened:
            connector.close()
