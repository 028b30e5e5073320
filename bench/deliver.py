"""Sends a heap of surveys to a mail server on loopback, beside what the disk and the conversation alone cost.

    python -m bench.deliver [--messages 5000] [--runs 3] [--json]

`deliver` is the real job over the real connector, composer and database: every message is claimed, and its outcome
recorded, in transactions that have reached the disk. `floor` does what cannot be left out, and nothing else: one
conversation of `smtplib`, one message of the same size after the other, and before each one transaction of one UPDATE
of one small row, synced. `unsynced` is `deliver` with a database that does not wait for the disk, which shows what is
left to our own code. The kinds take turns and the median counts. None of it is limited by the server, which keeps
nothing.
"""

from __future__ import annotations

import argparse
import base64
import json
import smtplib
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event

from core.jobs import deliver, plan_waves, sync_contacts
from core.jobs.context import Context
from web.settings import load
from web.wiring import build_context, close_context

ROOT = Path(__file__).resolve().parent.parent
KEY = "k1:" + base64.b64encode(bytes(32)).decode()
WORKSPACE = """\
[workspace]
name = "Acme"
[brakes]
first_wave = 0
[connections.crm]
kind = "csv"
config = {{ path = "customers.csv" }}
[connections.mail]
kind = "smtp"
config = {{ host = "127.0.0.1", port = {port}, security = "none", sender = "Acme <survey@acme.example>" }}
[campaigns.relationship]
source = "crm"
sender = "mail"
write_back = ["crm"]
every_days = 90
"""


@contextmanager
def mail_server(folder: Path) -> Iterator[int]:
    """The simulator, without waiting for the disk; yields its port."""
    command = [sys.executable, "-m", "tests.simulators.smtp", "--record", str(folder / "record"), "--fast"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


@contextmanager
def planned(folder: Path, port: int, messages: int) -> Iterator[Context]:
    """A workspace whose customers have all been reserved, so that nothing is left but to send."""
    rows = (f"C{n},First{n % 900},person{n}@company{n}.example" for n in range(messages))
    (folder / "customers.csv").write_text("\n".join(["id,first_name,email", *rows]) + "\n")
    (folder / "workspace.toml").write_text(WORKSPACE.format(port=port))
    environ = {"BOUCLE_INSTANCE": str(folder), "BOUCLE_SECRET_KEYS": KEY, "FLASK_APP": f"{ROOT / 'wsgi.py'}:app"}
    for command in (["migrate"], ["apply", str(folder / "workspace.toml")]):
        subprocess.run(
            [sys.executable, "-m", "flask", *command], cwd=folder, env=environ, check=True, capture_output=True
        )
    context = build_context(load(environ, folder / "no.env"))
    try:
        sync_contacts.run(context)
        plan_waves.run(context)
        yield context
    finally:
        close_context(context)


# --- what is measured -----------------------------------------------------------------------------------------------


def send(folder: Path, messages: int, *, synced: bool) -> dict[str, Any]:
    """The real thing."""
    with mail_server(folder) as port, planned(folder, port, messages) as context:
        if not synced:
            event.listen(context.store.engine, "checkout", lambda raw, *_: raw.execute("PRAGMA synchronous = OFF"))

        def run() -> int:
            report = deliver.run(context)
            assert (report.done, report.failed) == (messages, 0), report.messages
            return report.done

        return timed(run)


def floor(folder: Path, messages: int) -> dict[str, Any]:
    """The conversation and the disk."""
    size = 12_000  # of a survey mail, about
    line = "x" * 70 + "\r\n"
    database = sqlite3.connect(folder / "floor.db", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, state TEXT)")
    database.executemany("INSERT INTO messages VALUES (?, 'ready')", ((n,) for n in range(messages)))
    with mail_server(folder) as port, smtplib.SMTP("127.0.0.1", port, "bench.example") as server:

        def run() -> int:
            for number in range(messages):
                database.execute("BEGIN IMMEDIATE")
                database.execute("UPDATE messages SET state = 'sending' WHERE id = ?", (number,))
                database.execute("COMMIT")
                head = f"From: a@acme.example\r\nDate: Tue, 1 Dec 2026 09:00:00 +0000\r\nSubject: {number}\r\n\r\n"
                server.sendmail("a@acme.example", f"person{number}@b.example", head + line * (size // len(line)))
            return messages

        figures = timed(run)
    database.close()
    return figures


def timed(work: Callable[[], int]) -> dict[str, Any]:
    """Messages per second, and what each cost."""
    started, used = time.perf_counter(), time.process_time()
    done = work()
    took, cpu = time.perf_counter() - started, time.process_time() - used
    return {"per_second": done / took, "ms_each": took / done * 1000, "cpu_ms_each": cpu / done * 1000}


KINDS: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "floor": floor,
    "deliver": lambda folder, messages: send(folder, messages, synced=True),
    "unsynced": lambda folder, messages: send(folder, messages, synced=False),
}


def measure(messages: int, runs: int) -> dict[str, dict[str, float]]:
    """The median of each figure of each kind."""
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for _ in range(runs):
        for kind, run in KINDS.items():
            with tempfile.TemporaryDirectory(prefix="bench-deliver-") as folder:
                found[kind].append(run(Path(folder), messages))
    return {
        kind: {name: statistics.median(one[name] for one in figures) for name in figures[0]}
        for kind, figures in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=5_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measure(options.messages, options.runs)
    ratio = figures["deliver"]["per_second"] / figures["floor"]["per_second"]
    if options.json:
        print(json.dumps({**figures, "ratio_to_floor": ratio}, indent=2))
        return
    for kind, one in figures.items():
        print(f"{kind:9} {one['per_second']:7.0f}/s  {one['ms_each']:6.2f} ms each, {one['cpu_ms_each']:.2f} ms of CPU")
    print(f"deliver sends {ratio:.2f}x as fast as its floor")


if __name__ == "__main__":
    main()
