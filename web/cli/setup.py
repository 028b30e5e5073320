"""Commands that set things up: migrate, apply, export, sample."""

from __future__ import annotations

from pathlib import Path

import click

from core.clock import Clock
from core.jobs import apply_workspace
from core.jobs.apply_workspace import Drift
from core.storage.applied import applied_connections
from core.workspace_file import Surroundings, load_workspace_file
from web.cli.output import command, context, count, fail, say, settings
from web.export import export_workspace
from web.sample import make_sample
from web.wiring import Catalogue, prepare_database


@command("migrate", short_help="Bring the database up to date.")
def migrate() -> None:
    """Bring the database up to date. Safe to run again, and beside another process that does the same."""
    done = prepare_database(settings())
    say(f"the database is now at {done[-1]}" if done else "the database is up to date")


@command("apply", short_help="Apply a workspace file.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--force", is_flag=True, help="Overwrite what was edited in the interface since the last apply.")
@click.option("--prune", is_flag=True, help="Remove connections and campaigns the file does not name.")
def apply(file: Path, force: bool, prune: bool) -> None:
    """Apply a workspace file (TOML): print what changed, or refuse the whole file with every error and its line."""
    built = context()
    with built.store.read() as tx:
        existing = {name: row.kind for name, row in applied_connections(tx).items() if row.state != "removed"}
    around = Surroundings(Catalogue(), existing, prune, settings().clock_offset != 0)
    read = load_workspace_file(file, around)
    try:
        changes = apply_workspace.run(built, read, force=force, prune=prune)
    except Drift as drift:
        for line in drift.lines:
            click.echo(line)
        fail(str(drift))
    for line in changes:
        click.echo(line)
    if not changes:
        say("nothing to change")


@command("export", short_help="Print the workspace as a file.")
def export() -> None:
    """Print the workspace as a workspace file (TOML), secrets as references, fit for `flask apply`."""
    with context().store.read() as tx:
        click.echo(export_workspace(tx), nl=False)


@command("sample", short_help="Make the sample workspace.")
@click.option(
    "--into",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="The folder to write it into; files that are there already stay as they are.",
)
def sample(folder: Path) -> None:
    """Write the sample workspace, invented customers with dates around today, into a folder. Overwrites nothing."""
    written = make_sample(folder, Clock(settings().clock_offset).now().date())
    say(f"wrote {count(len(written), 'file')} into {folder}" if written else f"{folder} has the sample already")
