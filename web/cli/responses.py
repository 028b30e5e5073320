"""`flask responses`: answers that look like a machine's, and letting one count."""

from __future__ import annotations

from typing import Any

import click

from core.clock import from_ms
from core.storage import audit
from core.storage.responses import dismiss as dismiss_response
from core.storage.responses import release as release_response
from core.storage.status import suspect_rows
from web.cli.output import command, context, json_option, print_json, print_table, say, when


@click.group("responses", short_help="Answers that look like a machine's.")
def group() -> None:
    """Answers that look like a machine's count for nothing until somebody releases them."""


@command("list")
@json_option
def list_(as_json: bool) -> None:
    """The suspect answers, and why each is suspected."""
    with context().store.read() as tx:
        rows = [row | {"answered_at": _iso(row["answered_at"])} for row in suspect_rows(tx)]
    if as_json:
        print_json(rows)
        return
    table = [(one["id"], one["campaign"], one["score"], when(one["answered_at"]), _signals(one)) for one in rows]
    print_table(("id", "campaign", "score", "answered", "because"), table)
    if not rows:
        say("no answer is suspect")


def _signals(row: dict[str, Any]) -> str:
    return ", ".join(str(signal) for signal in row["signals"])


def _iso(ms: int | None) -> str | None:
    return None if ms is None else from_ms(ms).isoformat().replace("+00:00", "Z")


@command("release")
@click.argument("response_id", type=int, metavar="ID")
def release(response_id: int) -> None:
    """Let a suspect answer count: a human has looked at it."""
    built = context()
    with built.store.write() as tx:
        now = built.clock.now_ms()
        release_response(tx, response_id, now)
        audit.note(tx, "cli", "responses.release", str(response_id), {}, now)
    click.echo(f"answer {response_id} counts now")


@command("dismiss")
@click.argument("response_id", type=int, metavar="ID")
def dismiss(response_id: int) -> None:
    """Say that an answer does not count; what was written back of it is taken back."""
    built = context()
    with built.store.write() as tx:
        now = built.clock.now_ms()
        dismiss_response(tx, response_id, now)
        audit.note(tx, "cli", "responses.dismiss", str(response_id), {}, now)
    click.echo(f"answer {response_id} does not count")


for _command in (list_, release, dismiss):
    group.add_command(_command)
