"""The commands an operator types: `flask apply`, `flask tick` ... Their names, JSON and exit codes are stable."""

from __future__ import annotations

from flask import Flask

from web.cli import campaigns, connections, deliveries, loop, people, setup


def register(app: Flask) -> None:
    """Add every command to `flask`."""
    for part in (setup, loop, connections, campaigns, deliveries, people):
        for command in part.COMMANDS:
            app.cli.add_command(command)
