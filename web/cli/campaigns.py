"""`flask campaigns`: list them, stop one at once, let it go on."""

from __future__ import annotations

import click

from core.jobs import brakes
from core.storage import audit, touches, waves
from core.storage.settings import campaign_named, mark_campaign
from core.storage.status import campaign_numbers
from web.cli.output import command, context, count, json_option, print_json, print_table, say

STOPPED = "stopped by hand"


@click.group("campaigns", short_help="List, stop and resume campaigns.")
def group() -> None:
    """List, stop and resume campaigns."""


@command("list")
@json_option
def list_(as_json: bool) -> None:
    """Every campaign with its state, its wave and what it has asked."""
    with context().store.read() as tx:
        found = campaign_numbers(tx)
    if as_json:
        print_json(
            [
                {"name": one.name, "state": one.state, "reason": one.reason, "wave": one.wave, "touches": one.touches}
                for one in found
            ]
        )
        return
    rows = [(one.name, one.state, one.wave, one.asked, one.touches.get("answered", 0), one.reason) for one in found]
    print_table(("name", "state", "wave", "asked", "answered", "reason"), rows)
    if not rows:
        say("no campaign is set up: apply a workspace file")


@command("stop")
@click.argument("name")
def stop(name: str) -> None:
    """Stop a campaign at once: what has not been sent returns to the people, what has been sent stays asked."""
    built = context()
    with built.store.reservation() as tx:
        row = campaign_named(tx, name)
        now = built.clock.now_ms()
        mark_campaign(tx, row.id, "stopped", STOPPED, now)
        returned = touches.cancel_for_campaign(tx, row.id, now)
        audit.note(tx, "cli", "campaigns.stop", name, {"returned": returned}, now)
    click.echo(f"{name} is stopped; {count(returned, 'ask')} not sent yet returned")


@command("resume")
@click.argument("name")
def resume(name: str) -> None:
    """Let a stopped or paused campaign go on."""
    built = context()
    with built.store.write() as tx:
        row = campaign_named(tx, name)
        now = built.clock.now_ms()
        mark_campaign(tx, row.id, "active", "", now)
        brakes.release(tx, row.id, now)
        waves.replan(tx)
        audit.note(tx, "cli", "campaigns.resume", name, {"was": row.state, "reason": row.reason}, now)
    click.echo(f"{name} goes on" if row.state != "active" else f"{name} was running already")


for _command in (list_, stop, resume):
    group.add_command(_command)
