"""The commands an operator types: `flask apply`, `flask tick` ... Their names, JSON and exit codes are stable."""

from __future__ import annotations

from importlib import import_module

import click
from flask.cli import AppGroup

#: Imported when they are called: `flask migrate` must not wait for what `flask tick` needs.
COMMANDS = {
    "apply": "web.cli.setup:apply",
    "campaigns": "web.cli.campaigns:group",
    "connections": "web.cli.connections:group",
    "deliveries": "web.cli.deliveries:group",
    "export": "web.cli.setup:export",
    "migrate": "web.cli.setup:migrate",
    "people": "web.cli.people:group",
    "preview": "web.cli.loop:preview",
    "responses": "web.cli.responses:group",
    "sample": "web.cli.setup:sample",
    "status": "web.cli.loop:status",
    "tick": "web.cli.loop:tick",
    "why": "web.cli.loop:why",
    "worker": "web.cli.loop:worker",
}


class Commands(AppGroup):
    """`app.cli`: the commands above, beside those somebody adds."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *COMMANDS})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return super().get_command(ctx, name)
        module, _, attribute = COMMANDS[name].partition(":")
        found: click.Command = getattr(import_module(module), attribute)
        return found
