"""How fast a million people are decided and ten thousand reserved, beside bare floors measured in the same run.

    python -m bench.planner [--people 1000000] [--reserve 10000] [--rounds 3]

What is measured is what the job does: decide (every clock, reasons, company shares) into temporary tables, store the
changed decisions in short transactions, reserve in batches of 250 under the lock. Each measurement is a process of its
own on a fresh copy of one database; rounds alternate with the floors and the medians are compared. The floors:

* plan: one INSERT .. SELECT that evaluates the same rules over the same rows into a temporary table (`bench.floors`);
* simple plan (gap, tenure, opt-out): the same with these three rules;
* reserve: one UPDATE .. RETURNING that takes the first people of the rotation where they wait as rows of the ledger,
  with its indexes; nothing is checked again, and neither links nor messages are written. The same over a table that has
  no index is printed beside it.

Waits are those of a writer of small IMMEDIATE transactions that never rests: in a process of its own, and as another
thread of the planning process (which is what the service runs), measured in runs of their own. How long its own writes
took tells what the disk was busy with meanwhile.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import floors
from bench.population import populate
from core.clock import DAY_MS, FixedClock
from core.frequency import limits
from core.jobs.plan_waves import Planned, decide, store_decisions
from core.storage import pacing, planning, reservation
from core.storage.settings import CampaignRow, ConnectionRow
from core.storage.store import Store
from core.waves import WavePlan, zone_now
from core.workspace import Campaign, Quarantine, Workspace

CLOCK = FixedClock(datetime(2026, 12, 1, 9, tzinfo=UTC))
NOW = CLOCK.now_ms()
WORKSPACE = Workspace(name="Acme", time_zone="Europe/Paris")
SIMPLE = Quarantine(
    same_type_days=0, after_answer_days=0, after_decline_days=0, after_silence_days=0, touches_per_365_days=365,
    company_share=1.0,
)  # fmt: skip


def planned(simple: bool) -> Planned:
    """The wave that is open: of a campaign every 90 days under every rule, or once under three."""
    cadence: dict[str, Any] = {"once": "2026-11-30"} if simple else {"every_days": 90}
    campaign = Campaign(name="r", source=("crm",), sender="crm", **cadence)
    wave = WavePlan(1, NOW - DAY_MS, NOW + 89 * DAY_MS)
    rules = SIMPLE if simple else Quarantine()
    scope = planning.Scope(
        limits=limits(rules, campaign, 1, None if simple else (wave.opens_at, wave.ends_at)),
        sources=[1],
        audience=campaign.who,
        now=NOW,
        zone=WORKSPACE.zone,
        wave_id=1,
        wave_ends_at=wave.ends_at,
    )
    sender = ConnectionRow(1, "crm", "csv", {}, "ok", "", "", 1, 1)
    row = CampaignRow(1, "r", "active", "", campaign, 0)
    return Planned(row, wave, scope, sender, NOW - DAY_MS // 3, NOW + DAY_MS // 2)


# --- what is measured, each in a process of its own ---------------------------------------------------------------


class Watch:
    """Wall and processor seconds of what happens inside."""

    def __enter__(self) -> Watch:
        self.seconds, self.cpu = -time.perf_counter(), -time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter()
        self.cpu += time.process_time()


def measure_plan(path: Path, reserve: int, simple: bool, with_thread: bool = False) -> dict[str, Any]:
    """The real thing: decide, store the decisions, reserve."""
    store, plan = Store(f"sqlite:///{path}", CLOCK), planned(simple)
    base_rss = peak_rss()
    with _thread_writer(store, with_thread) as waits, store.session() as session:
        with Watch() as deciding, session.read() as tx:
            counts = decide(tx, plan)
        with Watch() as storing:
            stored = store_decisions(session, plan, 1)
        with Watch() as reserving:
            reserved = _reserve(session, plan, reserve)
    store.close()
    return {
        "seconds": deciding.seconds + storing.seconds, "cpu": deciding.cpu + storing.cpu,
        "decide_seconds": deciding.seconds, "store_seconds": storing.seconds, "stored": stored,
        "reserve_seconds": reserving.seconds, "reserve_cpu": reserving.cpu, "reserved": reserved,
        "rss": peak_rss(), "base_rss": base_rss, "counts": dict(counts), "waits": waits,
    }  # fmt: skip


def _reserve(session: Any, plan: Planned, number: int) -> int:
    quota = reservation.Quota(1, 1, "nps", 1, 21 * DAY_MS, None, NOW - DAY_MS // 3)
    reserved = after = 0
    with session.read() as tx:
        recheck = reservation.prepare(tx, plan.scope)
    while reserved < number:
        with session.reservation() as tx:
            batch = pacing.next_chosen(tx, after, min(reservation.BATCH, number - reserved))
            if not batch:
                break
            after = batch[-1][0]
            identities = [identity for _, identity in batch]
            reserved += reservation.reserve(tx, recheck, quota, identities, NOW).touches
    return reserved


def measure_floor(path: Path, reserve: int, simple: bool) -> dict[str, Any]:
    """The bare statements."""
    zone = zone_now(WORKSPACE.zone, None, NOW)
    connection = floors.connect(path)
    connection.execute(floors.TEMPORARY_TABLE)
    statement = (floors.SIMPLE_RULES if simple else floors.EVERY_RULE).format(
        table="floor_decided", now=NOW, wave_opened=NOW - DAY_MS, wave_ends=NOW + 89 * DAY_MS,
        local_date=zone.local_date, next_day=zone.next_day_at,
    )  # fmt: skip
    with Watch() as deciding:
        connection.execute(statement)
    counts = dict(connection.execute("SELECT ifnull(rule, 'asked'), count(*) FROM floor_decided GROUP BY 1"))
    connection.execute(floors.BARE_TABLE)
    connection.execute(floors.WAITING.format(number=reserve))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with Watch() as bare:
        connection.execute(floors.RESERVE_BARE.format(now=NOW, number=reserve)).fetchall()
    take = floors.RESERVE.format(now=NOW, local_date=zone.local_date)
    with Watch() as reserving:
        reserved = len(connection.execute(take).fetchall())
    return {
        "seconds": deciding.seconds, "cpu": deciding.cpu, "counts": counts, "reserved": reserved,
        "reserve_seconds": reserving.seconds, "reserve_cpu": reserving.cpu,
        "bare_seconds": bare.seconds, "bare_cpu": bare.cpu,
    }  # fmt: skip


def peak_rss() -> float:
    """MB this process has held at most."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss begins with what the parent held when it started us
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def _thread_writer(store: Store, wanted: bool) -> Iterator[list[float]]:
    waits: list[float] = []
    stop = threading.Event()
    longest = [0.0]
    thread = threading.Thread(target=_write_on, args=(store, stop.is_set, waits, longest))
    if wanted:
        thread.start()
    try:
        yield waits
    finally:
        stop.set()
        if wanted:
            thread.join()
            waits[:] = [max(waits), statistics.median(waits), len(waits), longest[0]]


def _write_on(store: Store, is_over: Callable[[], bool], waits: list[float], longest: list[float]) -> None:
    """Small writes without a rest: how long each waited for its turn, and the longest a write of its own took."""
    number = 0
    while not is_over():
        asked = time.perf_counter()
        with store.write() as tx:
            began = time.perf_counter()
            waits.append(began - asked)
            number += 1
            tx.exec_driver_sql("UPDATE connections SET synced_at = ? WHERE id = 1", (number,))
        longest[0] = max(longest[0], time.perf_counter() - began)


def measure_writer(path: Path) -> dict[str, Any]:
    """A writer in a process of its own, until its input ends."""
    store = Store(f"sqlite:///{path}", CLOCK)
    over = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    waits: list[float] = []
    longest = [0.0]
    _write_on(store, over.is_set, waits, longest)
    store.close()
    return {"waits": [max(waits), statistics.median(waits), len(waits), longest[0]]}


# --- the runs -------------------------------------------------------------------------------------------------------


def child(name: str, path: Path, reserve: int) -> dict[str, Any]:
    """Run one measurement in a process of its own."""
    with _start(name, path, reserve) as process:
        return _result(process)


def _start(name: str, path: Path, reserve: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.planner", "--measure", name, str(path), "--reserve", str(reserve)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _result(process: subprocess.Popen[str]) -> dict[str, Any]:
    answer, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a measurement failed with exit code {process.returncode}")
    found: dict[str, Any] = json.loads(answer)
    return found


MEASUREMENTS: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "plan": lambda path, reserve: measure_plan(path, reserve, simple=False),
    "plan-simple": lambda path, reserve: measure_plan(path, reserve, simple=True),
    "plan-with-thread": lambda path, reserve: measure_plan(path, reserve, simple=False, with_thread=True),
    "floor": lambda path, reserve: measure_floor(path, reserve, simple=False),
    "floor-simple": lambda path, reserve: measure_floor(path, reserve, simple=True),
    "writer": lambda path, reserve: measure_writer(path),
}


def rounds(database: Path, number: int, reserve: int) -> dict[str, list[dict[str, Any]]]:
    """Each measurement `number` times in turn, on a fresh copy each time."""
    found: dict[str, list[dict[str, Any]]] = {}
    for _ in range(number):
        for name in ("floor", "plan", "floor-simple", "plan-simple"):
            found.setdefault(name, []).append(child(name, _copy(database), reserve))
            print(".", end="", file=sys.stderr, flush=True)
    path = _copy(database)
    with _start("writer", path, reserve) as writer:
        time.sleep(1)
        found["beside"] = [child("plan", path, reserve)]
        found["writer"] = [_result(writer)]
    found["plan-with-thread"] = [child("plan-with-thread", _copy(database), reserve)]
    print(file=sys.stderr)
    return found


def _copy(database: Path) -> Path:
    path = database.with_name("run.db")
    for old in path.parent.glob("run.db*"):
        old.unlink()
    shutil.copy(database, path)
    with path.open("rb") as copied:  # in memory, for all alike
        while copied.read(1 << 22):
            pass
    return path


def report(found: dict[str, list[dict[str, Any]]], people: int) -> None:
    """Print medians, ratios and waits."""

    def median(name: str, key: str) -> float:
        return float(statistics.median(run[key] for run in found[name]))

    def lines(label: str, name: str, floor: str, key: str) -> None:
        seconds, bare = median(name, f"{key}seconds"), median(floor, f"{key}seconds")
        cpu, bare_cpu = median(name, f"{key}cpu"), median(floor, f"{key}cpu")
        print(
            f"{label:<13}{seconds:8.2f} s, cpu {cpu:6.2f} s; floor {bare:6.2f} s, cpu {bare_cpu:6.2f} s;"
            f" ratio {seconds / bare:5.2f}, of cpu {cpu / bare_cpu:5.2f}"
        )

    plan = found["plan"][0]
    print(f"{people} people, {len(found['plan'])} rounds; medians. Decided: {json.dumps(plan['counts'])}")
    if plan["counts"] != found["floor"][0]["counts"]:
        print(f"  the floor decided differently: {json.dumps(found['floor'][0]['counts'])}")
    lines("plan", "plan", "floor", "")
    print(
        f"{'':13}of it deciding {median('plan', 'decide_seconds'):.2f} s,"
        f" storing {median('plan', 'store_seconds'):.2f} s"
    )
    lines("simple plan", "plan-simple", "floor-simple", "")
    lines(f"reserve {plan['reserved']}", "plan", "floor", "reserve_")
    print(f"{'':13}the same UPDATE over a table without an index takes {median('floor', 'bare_seconds'):.2f} s")
    rss, base = max(run["rss"] for run in found["plan"]), plan["base_rss"]
    print(f"{'memory':<13}{rss:8.0f} MB at most, {base:.0f} MB of it before the first statement")
    for label, name in (("process", "writer"), ("thread", "plan-with-thread")):
        longest, usual, number, own = found[name][0]["waits"]
        print(
            f"{'writer':<13}{longest * 1000:8.0f} ms at most, {usual * 1000:.1f} ms usually ({number} writes; {label});"
            f" the longest of its own small writes took {own * 1000:.0f} ms"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.planner", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--people", type=int, default=1_000_000)
    parser.add_argument("--reserve", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "DATABASE"), help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.measure:
        what, path = wanted.measure
        print(json.dumps(MEASUREMENTS[what](Path(path), wanted.reserve)))
        return
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "people.db"
        store = Store(f"sqlite:///{database}", CLOCK)
        populate(store, wanted.people, NOW)
        store.close()
        report(rounds(database, wanted.rounds, wanted.reserve), wanted.people)


if __name__ == "__main__":
    main()
