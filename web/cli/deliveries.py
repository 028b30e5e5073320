"""`flask deliveries`: each effect outside, what failed and in whose words, and trying again."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from core.clock import from_ms
from core.deliveries import DeliveryState
from core.storage import audit
from core.storage.deliveries import DeliveryRow, list_deliveries
from core.storage.deliveries import replay as replay_deliveries
from web.cli.output import command, context, count, fail, json_option, print_json, print_table, say, when


@click.group("deliveries", short_help="List deliveries, try failed ones again.")
def group() -> None:
    """List deliveries, try failed ones again."""


@command("list")
@click.option("--state", type=click.Choice([state.value for state in DeliveryState]), help="Only those in this state.")
@click.option("--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="The newest so many.")
@json_option
def list_(state: str | None, limit: int, as_json: bool) -> None:
    """Deliveries, the newest first, each with the error in the vendor's words."""
    with context().store.read() as tx:
        rows = list_deliveries(tx, DeliveryState(state) if state else None, limit)
    shown = [_shown(row) for row in rows]
    if as_json:
        print_json(shown)
        return
    table = [
        (one["id"], one["kind"], one["connection"], one["state"], one["attempts"], when(one["due_at"]), one["error"])
        for one in shown
    ]
    print_table(("id", "kind", "connection", "state", "tries", "due", "error"), table)
    if not rows:
        say("no delivery" + (f" is in state {state}" if state else " yet"))


def _shown(row: DeliveryRow) -> dict[str, Any]:
    moments = ("due_at", "created_at", "done_at")
    values = asdict(row) | {"state": row.state.value}
    return values | {name: _iso(values[name]) for name in moments}


def _iso(ms: int | None) -> str | None:
    return None if ms is None else from_ms(ms).isoformat().replace("+00:00", "Z")


@command("replay")
@click.argument("ids", nargs=-1, required=True, type=int, metavar="ID...")
def replay(ids: tuple[int, ...]) -> None:
    """Try failed deliveries again. A failed survey is not repeated: the next wave asks the person by the rules."""
    built = context()
    with built.store.write() as tx:
        now = built.clock.now_ms()
        done = replay_deliveries(tx, ids, now)
        audit.note(tx, "cli", "deliveries.replay", "", {"ids": done}, now)
    if done:
        click.echo(f"{count(len(done), 'delivery', 'deliveries')} ready again: {', '.join(map(str, done))}")
    left = [str(one) for one in ids if one not in done]
    if left:
        fail(f"not replayed, because they have not failed, are surveys, or do not exist: {', '.join(left)}")


for _command in (list_, replay):
    group.add_command(_command)
