"""`flask connections`: what is connected, whether it works, which fields it has."""

from __future__ import annotations

from typing import Any

import click

import connectors
from connectors.config import json_schema
from core.errors import BoucleError, Unsupported
from core.jobs.context import Context
from core.ports import FieldState, capabilities
from core.storage.settings import ConnectionRow, connection_named, mark_connection, set_account
from core.storage.status import connection_rows
from web.cli.output import command, context, json_option, print_json, print_table, say


@click.group("connections", short_help="What is connected.")
def group() -> None:
    """List, check and describe connections."""


@command("list")
@json_option
def list_(as_json: bool) -> None:
    """Every connection with its state and the reason."""
    built = context()
    with built.store.read() as tx:
        rows = connection_rows(tx, built.clock.now_ms())
    if as_json:
        print_json(rows)
        return
    table = [(one["name"], one["kind"], one["state"], one["records"], one["reason"]) for one in rows]
    print_table(("name", "kind", "state", "records", "reason"), table)
    if not rows:
        say("no connection is set up: apply a workspace file")


@command("check")
@click.argument("name")
@json_option
def check(name: str, as_json: bool) -> None:
    """Make one cheap call with a connection's credentials, and show how its fields are understood."""
    built = context()
    with built.store.read() as tx:
        row = connection_named(tx, name)
    try:
        connector = built.opener.open(name)
        account = connector.check()
        fields = list(connector.read_fields()) if _has_fields(row.kind) else []
    except BoucleError as error:
        _mark(built, row, "broken", str(error))
        raise
    _mark(built, row, "ok", "", account.id)
    document = {
        "name": name,
        "kind": row.kind,
        "account": account.id,
        "account_name": account.name,
        "note": account.note,
        "can": list(capabilities(connectors.load(row.kind))),
        "fields": [_field(one) for one in fields],
    }
    if as_json:
        print_json(document)
    else:
        _print_check(document)


def _mark(built: Context, row: ConnectionRow, state: str, reason: str, account: str = "") -> None:
    with built.store.write() as tx:
        mark_connection(tx, row.id, state, reason, built.clock.now_ms())
        if account:
            set_account(tx, row.id, account)


def _print_check(document: dict[str, Any]) -> None:
    click.echo(f"{document['name']} ({document['kind']}) works: {document['account_name'] or document['account']}")
    if document["note"]:
        click.echo(document["note"])
    _print_fields(document["fields"])


@command("schema")
@click.argument("kind")
@json_option
def schema(kind: str, as_json: bool) -> None:
    """Print the JSON Schema of the settings of a kind of connection: a JSON document with or without --json."""
    if kind not in connectors.kinds():
        raise click.UsageError(f"there is no kind {kind}; kinds: {', '.join(connectors.kinds())}")
    print_json(json_schema(connectors.load(kind).config_class))


@command("fields")
@click.argument("name")
@click.option("--create", is_flag=True, help="Create the NPS fields that are missing.")
@json_option
def fields(name: str, create: bool, as_json: bool) -> None:
    """The fields of a source, what each is taken for, and whether the NPS fields are there."""
    built = context()
    with built.store.read() as tx:
        row = connection_named(tx, name)
    if not _has_fields(row.kind):
        raise Unsupported(f"{name} ({row.kind}) has no fields to show")
    connector = built.opener.open(name)
    found = list(connector.read_fields())
    if create:
        missing = [one.name for one in found if not one.exists]
        if missing:
            connector.create_fields(missing)
            found = list(connector.read_fields())
        say(f"created {', '.join(missing)}" if missing else "nothing to create")
    shown = [_field(one) for one in found]
    if as_json:
        print_json(shown)
    else:
        _print_fields(shown)


def _field(one: FieldState) -> dict[str, Any]:
    return {
        "name": one.name,
        "mapped_to": one.mapped_to,
        "guessed": one.guessed,
        "exists": one.exists,
        "type": one.type,
    }


def _print_fields(fields: list[dict[str, Any]]) -> None:
    rows = [(one["name"], _taken_for(one)) for one in fields]
    if rows:
        click.echo("")
    print_table(("field", "taken for"), rows, indent="  ")


def _taken_for(one: dict[str, Any]) -> str:
    if not one["exists"]:
        return "missing: `flask connections fields NAME --create` makes it"
    if not one["mapped_to"]:
        return "-"
    return f"{one['mapped_to']} (guessed)" if one["guessed"] else str(one["mapped_to"])


def _has_fields(kind: str) -> bool:
    return "FieldAdmin" in capabilities(connectors.load(kind))


for _command in (list_, check, schema, fields):
    group.add_command(_command)
