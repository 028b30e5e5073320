"""How commands speak: results on stdout, everything else on stderr, errors in a sentence, never a stack trace.

Exit codes: 0 done, 1 failed, 2 wrong use. With `--json` stdout holds exactly one JSON document.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import click
from flask import current_app
from flask.cli import with_appcontext

from core.errors import BoucleError
from core.jobs.context import Context
from core.storage.opening import told_by_database
from web.settings import ROOT, Settings
from web.wiring import build_context, close_context


class Command(click.Command):
    """A command that tells its errors in a sentence."""

    def invoke(self, ctx: click.Context) -> Any:
        with_codes = super().invoke
        try:
            return with_codes(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, OSError, KeyboardInterrupt) as error:
            if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
                fail(f"{error.filename or 'the system'}: {error.strerror or error}")
            raise
        except BoucleError as error:
            fail(str(error))
        except Exception as error:
            fail(told_by_database(error, settings().database_url) or _unexpected(error))


def command(name: str, **options: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """A command inside the application."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        return click.command(name, cls=Command, **options)(with_appcontext(function))

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")


def settings() -> Settings:
    """The settings of this process."""
    found: Settings = current_app.config["BOUCLE"]
    return found


def context() -> Context:
    """The world for the jobs, closed when the command ends. Raises BoucleError if it cannot be built."""
    built = build_context(settings(), progress=_progress())
    click.get_current_context().call_on_close(lambda: close_context(built))
    return built


def stop_gently(built: Context) -> None:
    """A first Ctrl+C or SIGTERM asks the jobs to end early, a second one ends at once."""

    def ask(number: int, _frame: object) -> None:
        if built.stopping.is_set():
            raise KeyboardInterrupt
        built.stopping.set()
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)


def say(message: str) -> None:
    """Something for the person at the terminal that is no result."""
    clear_progress()
    click.echo(message, err=True)


def fail(message: str, code: int = 1) -> NoReturn:
    """Say what went wrong and end."""
    say("\n".join(f"boucle: {line}" if number == 0 else line for number, line in enumerate(message.splitlines())))
    raise click.exceptions.Exit(code)


def print_json(document: Any) -> None:
    """The one document on stdout."""
    clear_progress()
    click.echo(json.dumps(document, ensure_ascii=False, indent=2))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]], indent: str = "") -> None:
    """Aligned columns; numbers to the right; the last column as long as it likes."""
    if not rows:
        return
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    numeric = [all(_is_number(row[column]) for row in rows) for column in range(len(headings))]
    widths = [max(len(row[column]) for row in [list(headings), *texts]) for column in range(len(headings))]
    for row in ([list(headings)] if any(headings) else []) + texts:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        click.echo((indent + "  ".join(cells)).rstrip())


def when(text: str | None) -> str:
    """A moment of a JSON document as people read it: minutes are enough."""
    if not text:
        return "-"
    return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M UTC")


def count(number: int, one: str, many: str = "") -> str:
    """`1 mail`, `3 mails`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def clear_progress() -> None:
    """Take the progress line away."""
    if sys.stderr.isatty():
        click.echo("\r\033[K", err=True, nl=False)


def _progress() -> Callable[[str], None]:
    """One line that changes, on a terminal only."""
    if not sys.stderr.isatty():
        return lambda message: None
    width = shutil.get_terminal_size().columns - 1
    return lambda message: click.echo(f"\r\033[K{message[:width]}", err=True, nl=False)


def _is_number(cell: object) -> bool:
    return cell is None or (isinstance(cell, int | float) and not isinstance(cell, bool))


def _unexpected(error: Exception) -> str:
    """What nobody foresaw: said with the place it happened in our code, for a bug report."""
    ours = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(ROOT) and ".venv" not in frame.filename
    ]
    place = f" ({Path(ours[-1].filename).relative_to(ROOT)}:{ours[-1].lineno})" if ours else ""
    lines = str(error).splitlines() or [""]
    return f"something went wrong that should not: {type(error).__name__}: {lines[0]}{place}"
