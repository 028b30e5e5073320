"""One look over everything: which use cases have something due, and starting those. It finds what nobody told of.

A use case runs for as long as it needs, beside the others; the sweep itself is over in a moment. Its end is written
down (`core.storage.status.SWEEP`): all that was due then is running or was started.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from core.jobs import apply_inbox, close_windows, deliver, plan_waves, prune, push_scores, sync_contacts, turns
from core.jobs.context import Context, JobReport
from core.storage import deliveries, inbox, leases
from core.storage.status import SWEEP
from core.storage.store import Transaction

EVERY_SECONDS = 5.0
#: The end of a sweep is written down at most this often: a disk should not be woken every 5 s to learn nothing.
NOTED_MS = 15_000


@dataclass(frozen=True, slots=True)
class UseCase:
    """A job as a worker runs it.

    `is_due` is a cheap look for work; None: the job looks itself, just as cheaply. `then` are the jobs it makes work
    for, once it has done something. `every_seconds`: it runs by time alone, so often.
    """

    run: Callable[[Context], JobReport]
    is_due: Callable[[Transaction, int], bool] | None = None
    then: tuple[str, ...] = ()
    every_seconds: float | None = None


def _has_deliveries(kind: str, tx: Transaction, now: int) -> bool:
    return bool(deliveries.connections_with_work(tx, kind, now))


def _prune_is_due(tx: Transaction, now: int) -> bool:
    return turns.is_due(tx, prune.NAME, prune.EVERY_MS, now)


#: Everything a service does by itself. What talks to vendors is patient: one that failed a moment ago is left alone.
USE_CASES: Mapping[str, UseCase] = {
    apply_inbox.NAME: UseCase(apply_inbox.run, inbox.is_due, then=(push_scores.NAME,)),
    sync_contacts.NAME: UseCase(
        partial(sync_contacts.run, due_only=True), then=(plan_waves.NAME, deliver.NAME, push_scores.NAME)
    ),
    close_windows.NAME: UseCase(
        close_windows.run, then=(deliver.NAME, push_scores.NAME, plan_waves.NAME), every_seconds=60
    ),
    plan_waves.NAME: UseCase(partial(plan_waves.run, due_only=True), then=(deliver.NAME,)),
    deliver.NAME: UseCase(
        partial(deliver.run, patient=True), partial(_has_deliveries, "send"), then=(push_scores.NAME,)
    ),
    push_scores.NAME: UseCase(partial(push_scores.run, patient=True), partial(_has_deliveries, "write_back")),
    prune.NAME: UseCase(prune.run, _prune_is_due, then=(push_scores.NAME,)),
}


def run(context: Context, start: Callable[[str], None], use_cases: Mapping[str, UseCase] = USE_CASES) -> list[str]:
    """Look at everything and `start` the use cases that are due; returns their names. Raises what the database does."""
    with context.store.read() as tx:
        now = context.clock.now_ms()
        due = [name for name, use_case in use_cases.items() if _is_due(tx, name, use_case, now)]
        noted = leases.read(tx, SWEEP)
    for name in due:
        start(name)
    if noted is None or noted.finished_at is None or not 0 <= now - noted.finished_at < NOTED_MS:
        with context.store.write() as tx:
            leases.finish(tx, SWEEP, context.owner, context.clock.now_ms())
    return due


def _is_due(tx: Transaction, name: str, use_case: UseCase, now: int) -> bool:
    if use_case.every_seconds is not None:
        return turns.is_due(tx, turn_name(name), round(use_case.every_seconds * 1000), now)
    return use_case.is_due is None or use_case.is_due(tx, now)


def turn_name(name: str) -> str:
    """The row of `leases` that tells when a job which runs by time last did."""
    return f"cron:{name}"
