"""Reads a file of a million customers into the store, beside what the bare driver needs for the same rows.

    python -m bench.sync [--rows 1000000] [--small 100000] [--runs 3] [--json]

Each measurement is a process of its own with a database of its own, opened as the service opens it; the kinds take
turns, and the median counts. `sync` is the real connector and the real job, `again` its second run over the same file.
The floors share no code with them: `csv` module and `executemany` upserts. `floor` leaves the same rows behind, with
address hashes, digests and outside asks, in transactions of 10,000 rows; `short` does so in transactions that are as
short as the service's, so that others can write meanwhile; `barest` stores people, records and companies alone, with
nothing computed. None could be killed, read a changed file, or tell people apart.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import hmac
import json
import random
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from core.clock import DAY_MS, FixedClock
from core.storage import schema
from core.storage.store import Store

NOW = datetime(2026, 12, 1, 9, tzinfo=UTC)
HEADER = (
    "id", "first_name", "last_name", "email", "company", "country", "language", "plan", "customer_since",
    "last_surveyed",
)  # fmt: skip
PER_COMPANY = 20
WITHOUT_ADDRESS = 0.02
ASKED_BEFORE = 0.2
FLOOR_BATCH = 10_000
SHORT_BATCH = 1_000
PEPPER = bytes(range(32))


# --- the file and the database --------------------------------------------------------------------------------------


def write_file(path: Path, rows: int, seed: int = 1) -> None:
    """Customers in twenties of a company, in several countries; some without an address, some asked before."""
    choose = random.Random(seed)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for i in range(rows):
            company = i // PER_COMPANY
            email = "" if choose.random() < WITHOUT_ADDRESS else f"first{i % 900}.last{i}@company{company}.example"
            asked = f"2026-{choose.randrange(1, 9):02}-11" if choose.random() < ASKED_BEFORE else ""
            writer.writerow(
                (
                    f"C{i:07}", f"First{i % 900}", f"Last{i % 7000}", email, f"Company {company}",
                    choose.choice(("FR", "BE", "DE", "US")), choose.choice(("fr", "en")),
                    choose.choice(("free", "pro", "team")),
                    f"20{choose.randrange(10, 26)}-0{choose.randrange(1, 10)}-15", asked,
                )
            )  # fmt: skip


def open_store(path: Path) -> Store:
    """A fresh database with one connection, `crm`."""
    store = Store(f"sqlite:///{path}", FixedClock(NOW))
    schema.metadata.create_all(store.engine)
    with store.write() as tx:
        tx.execute(schema.connections.insert().values(name="crm", kind="csv", config={}, changed_at=0))
        tx.execute(schema.workspace.insert().values(id=1, config={"name": "Bench"}, applied_at=0, digest=""))
    return store


# --- what is measured: each returns its figures by name -------------------------------------------------------------


def sync(file: Path, database: Path) -> dict[str, Any]:
    """The real thing, twice."""
    from connectors import build
    from core.jobs import sync_contacts
    from core.jobs.context import Context
    from core.keyring import Keyring

    store = open_store(database)
    connector = build("csv", {"path": str(file), "fields": {"plan": "plan"}})
    context = Context(
        store=store,
        clock=store.clock,
        keyring=Keyring({"k1": bytes(32)}),
        pepper=PEPPER,
        opener=_Opener(connector),
        composer=None,  # type: ignore[arg-type]  # nothing is composed here
        owner="bench",
    )
    first = _timed(lambda: sync_contacts.run(context).done)
    with store.read() as tx:
        people = tx.exec_driver_sql("SELECT count(*) FROM people").scalar()
    before = _contents(database)
    again = _timed(lambda: sync_contacts.run(context).done)
    store.close()
    return {
        "sync": {**first, "rows": people},
        "again": {**again, "written": _differing(before, _contents(database))},
    }


class _Opener:
    def __init__(self, connector: Any) -> None:
        self._connector = connector

    def open(self, connection_name: str) -> Any:
        return self._connector

    def close(self) -> None:
        return None


def _contents(database: Path) -> dict[str, str]:
    """A digest of every table."""
    with sqlite3.connect(database) as connection:
        digests = {}
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            digest = hashlib.blake2b(digest_size=16)
            for row in connection.execute(f"SELECT * FROM {table}"):
                digest.update(repr(row).encode())
            digests[table] = digest.hexdigest()
    return digests


def _differing(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return sorted(table for table in after if after[table] != before.get(table))


def floor(file: Path, database: Path) -> dict[str, Any]:
    """The same rows in the same tables."""
    return {"floor": _timed(lambda: _load(file, database, _whole_rows))}


def short(file: Path, database: Path) -> dict[str, Any]:
    """The same rows in the same tables, a thousand at a time."""
    return {"short": _timed(lambda: _load(file, database, _whole_rows, SHORT_BATCH))}


def barest(file: Path, database: Path) -> dict[str, Any]:
    """People, records and companies, with nothing computed."""
    return {"barest": _timed(lambda: _load(file, database, _bare_rows))}


_COMPANIES = "INSERT INTO companies (id, key, name) VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING"
_PEOPLE = "INSERT INTO people (id, source_opted_out) VALUES (?, 0) ON CONFLICT (id) DO NOTHING"
_IDENTITIES = """INSERT INTO identities (id, person_id, connection_id, external_id, email, address_hash, company_id,
    first_name, last_name, language, country, customer_since, last_surveyed_seen, attributes, digest)
    VALUES (?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (connection_id, external_id) DO UPDATE SET email = excluded.email, address_hash = excluded.address_hash,
        company_id = excluded.company_id, first_name = excluded.first_name, last_name = excluded.last_name,
        language = excluded.language, country = excluded.country, customer_since = excluded.customer_since,
        last_surveyed_seen = excluded.last_surveyed_seen, attributes = excluded.attributes, digest = excluded.digest"""
_TOUCHES = """INSERT INTO touches (public_id, person_id, identity_id, company_id, type, source, origin, state,
    address_hash, handed_over_at, asked_at, asked_local_date)
    VALUES (?, ?, ?, ?, 'nps', 'outside', 'crm', 'handed_over', ?, ?, ?, ?)"""

Rows = tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]  # records, touches


def _load(
    file: Path,
    database: Path,
    make: Callable[[list[list[str]], int, dict[str, int]], Rows],
    size: int = FLOOR_BATCH,
) -> int:
    store = open_store(database)
    with store.engine.connect() as opened, file.open(encoding="utf-8", newline="") as text:
        cursor: sqlite3.Cursor = opened.connection.cursor()  # type: ignore[assignment]
        companies: dict[str, int] = {}
        rows = csv.reader(text)
        next(rows)
        number = 0
        while batch := list(islice(rows, size)):
            cursor.execute("BEGIN IMMEDIATE")
            cursor.executemany(_COMPANIES, list(_new_companies(batch, companies)))
            records, touches = make(batch, number + 1, companies)
            cursor.executemany(_PEOPLE, [(one[0],) for one in records])
            cursor.executemany(_IDENTITIES, records)
            cursor.executemany(_TOUCHES, touches)
            cursor.execute("COMMIT")
            number += len(batch)
    store.close()
    return number


def _new_companies(batch: Iterable[list[str]], companies: dict[str, int]) -> Iterator[tuple[int, str, str]]:
    for row in batch:
        key = row[4].casefold()
        if key not in companies:
            companies[key] = len(companies) + 1
            yield companies[key], key, row[4]


def _whole_rows(batch: list[list[str]], start: int, companies: dict[str, int]) -> Rows:
    records, touches = [], []
    for number, row in enumerate(batch, start):
        external_id, first, last, email, company, country, language, plan, since, asked = row
        address = hmac.digest(PEPPER, email.lower().encode(), "sha256")[:16] if email else None
        company_id = companies[company.casefold()]
        records.append(
            (
                number, number, external_id, email or None, address, company_id, first, last, language, country,
                _ms(since), asked or None, json.dumps({"plan": plan}, ensure_ascii=False),
                hashlib.blake2b("\x1f".join(row).encode(), digest_size=16).digest(),
            )
        )  # fmt: skip
        if asked:
            at = _ms(asked) + DAY_MS - 1
            touches.append((f"{number:016x}", number, number, company_id, address, at, at, asked))
    return records, touches


def _bare_rows(batch: list[list[str]], start: int, companies: dict[str, int]) -> Rows:
    return [
        (
            number, number, row[0], row[3] or None, None, companies[row[4].casefold()], row[1], row[2], row[6], row[5],
            None, row[9] or None, "{}", b"",
        )
        for number, row in enumerate(batch, start)
    ], []  # fmt: skip


def _ms(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * 1000


def _timed(work: Callable[[], int]) -> dict[str, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    rows = work()
    return {
        "rows": rows,
        "seconds": round(time.perf_counter() - wall, 3),
        "cpu": round(time.process_time() - cpu, 3),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


# --- running and telling --------------------------------------------------------------------------------------------

MEASURED: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "sync": sync,
    "floor": floor,
    "short": short,
    "barest": barest,
}


def in_a_process(kind: str, file: Path, folder: Path) -> dict[str, Any]:
    """One measurement, alone in a process with a fresh database."""
    database = folder / "bench.db"
    for left in folder.glob("bench.db*"):
        left.unlink()
    command = [sys.executable, "-m", "bench.sync", "--measure", kind, str(file), str(database)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent)
    return dict(json.loads(done.stdout))


def measure(rows: int, runs: int, folder: Path) -> dict[str, dict[str, Any]]:
    """The medians of some runs, each kind in turn."""
    file = folder / f"{rows}.csv"
    write_file(file, rows)
    found: dict[str, list[dict[str, Any]]] = {}
    for _ in range(runs):
        for kind in MEASURED:
            for name, figures in in_a_process(kind, file, folder).items():
                found.setdefault(name, []).append(figures)
    file.unlink()
    return {name: _median(each) for name, each in found.items()}


def _median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    middle: dict[str, Any] = {key: statistics.median(run[key] for run in runs) for key in ("seconds", "cpu", "peak_mb")}
    return {**runs[0], **middle}


def tell(rows: int, found: dict[str, dict[str, Any]]) -> None:
    """A table of one size."""
    print(f"\n{rows:,} rows")
    print(f"  {'':8}{'rows/s':>10}{'seconds':>10}{'CPU s':>8}{'peak MB':>9}")
    for name, one in found.items():
        speed = rows / one["seconds"]
        print(f"  {name:8}{speed:>10,.0f}{one['seconds']:>10.2f}{one['cpu']:>8.2f}{one['peak_mb']:>9.1f}")
    sync, again = found["sync"], found["again"]
    for name in ("floor", "short", "barest"):
        wall, cpu = found[name]["seconds"] / sync["seconds"], found[name]["cpu"] / sync["cpu"]
        print(f"  speed to {name}: {wall:.2f}x by time, {cpu:.2f}x by CPU")
    share = again["seconds"] / sync["seconds"]
    print(f"  second sync: {share:.4f} of the first; it changed the tables: {', '.join(again['written']) or 'none'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--small", type=int, default=100_000, help="the size peak memory is compared to")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the files and databases are put (default: a temporary one)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", nargs=3, metavar=("KIND", "FILE", "DATABASE"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        kind, file, database = chosen.measure
        print(json.dumps(MEASURED[kind](Path(file), Path(database))))
        return
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        sizes = sorted({min(chosen.small, chosen.rows), chosen.rows})
        found = {rows: measure(rows, chosen.runs, Path(folder)) for rows in sizes}
    if chosen.json:
        print(json.dumps(found, indent=2))
        return
    for rows, each in found.items():
        tell(rows, each)
    low, high = (found[rows]["sync"]["peak_mb"] for rows in (sizes[0], sizes[-1]))
    print(f"\npeak memory of the sync: {high / low:.2f}x that of {sizes[0]:,} rows")


if __name__ == "__main__":
    main()
