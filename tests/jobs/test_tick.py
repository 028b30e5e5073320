"""A tick: everything that is due, until a whole round finds nothing to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from core.errors import Unavailable
from core.jobs import sync_contacts, tick
from core.jobs.context import Context, JobReport

Job = Callable[[Context], JobReport]


def job(name: str, *rounds: Any) -> tuple[Job, list[int]]:
    """A job that does `rounds[n]` in its n-th run, nothing afterwards: a number done, an error, or a report."""
    runs: list[int] = []

    def run(context: Context) -> JobReport:
        what = rounds[len(runs)] if len(runs) < len(rounds) else 0
        runs.append(1)
        if isinstance(what, Exception):
            raise what
        return what if isinstance(what, JobReport) else JobReport(name, done=what, seconds=0.5)

    return run, runs


def jobs(**given: Job) -> Mapping[str, Job]:
    return given


def test_rounds_go_on_until_one_finds_nothing(context: Context) -> None:
    first, first_runs = job("first", 3, 0, 1)
    second, second_runs = job("second", 1, 2)
    reports = tick.run(context, jobs(first=first, second=second))
    assert [(one.job, one.done, one.failed) for one in reports] == [("first", 4, 0), ("second", 3, 0)]
    assert len(first_runs) == len(second_runs) == 4
    assert reports[0].seconds == 2.0


def test_nothing_to_do_is_one_round(context: Context) -> None:
    only, runs = job("only")
    assert tick.run(context, jobs(only=only)) == [JobReport("only", seconds=0.5)]
    assert len(runs) == 1


def test_a_job_that_fails_is_reported_once_and_stops_no_other(context: Context) -> None:
    gone = Unavailable("crm: customers.csv is not there")
    failing, _ = job("failing", gone, gone, gone)
    other, other_runs = job("other", 1, 1)
    reports = {one.job: one for one in tick.run(context, jobs(failing=failing, other=other))}
    assert (reports["failing"].failed, reports["failing"].messages) == (1, ["crm: customers.csv is not there"])
    assert reports["other"].done == 2
    assert len(other_runs) == 3


def test_two_failures_are_two(context: Context) -> None:
    failing, _ = job("failing", Unavailable("first"), Unavailable("second"))
    other, _ = job("other", 1, 1)
    (report, _other) = tick.run(context, jobs(failing=failing, other=other))
    assert (report.failed, report.messages) == (2, ["first", "second"])


def test_a_bug_is_told_with_its_type_and_logged(context: Context, caplog: pytest.LogCaptureFixture) -> None:
    failing, _ = job("failing", ZeroDivisionError("division by zero"))
    (report,) = tick.run(context, jobs(failing=failing))
    assert report.messages == ["ZeroDivisionError: division by zero"]
    assert [record.getMessage() for record in caplog.records] == ["failing failed"]


def test_a_failure_alone_does_not_make_another_round(context: Context) -> None:
    failing, runs = job("failing", *[JobReport("failing", failed=1, messages=["refused"])] * 9)
    (report,) = tick.run(context, jobs(failing=failing))
    assert (report.failed, len(runs)) == (1, 1)


def test_a_job_that_never_runs_dry_ends_all_the_same_and_says_so(context: Context) -> None:
    endless, runs = job("endless", *[1] * 999)
    *_, stuck = tick.run(context, jobs(endless=endless))
    assert (stuck.job, stuck.failed) == ("tick", 1)
    assert "still due" in stuck.messages[0]
    assert len(runs) == tick.MOST_ROUNDS


def test_it_ends_early_when_asked_to(context: Context) -> None:
    def stop(context: Context) -> JobReport:
        context.stopping.set()
        return JobReport("stop", done=1)

    other, runs = job("other", 1)
    reports = tick.run(context, jobs(stop=stop, other=other))
    assert [one.done for one in reports] == [1, 0]
    assert runs == []


def test_a_source_is_read_whole_once_and_later_only_if_it_changed(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def read(context: Context, *, due_only: bool = False) -> JobReport:
        asked.append(due_only)
        return JobReport(sync_contacts.NAME)

    monkeypatch.setitem(tick.JOBS, sync_contacts.NAME, read)
    monkeypatch.setitem(tick.AGAIN, sync_contacts.NAME, lambda context: read(context, due_only=True))
    other, _ = job("other", 1, 1)
    tick.run(context, {sync_contacts.NAME: read, "other": other})
    assert asked == [False, True, True]


def test_the_document_is_what_design_says(context: Context) -> None:
    only, _ = job("only", JobReport("only", done=2, failed=1, seconds=1.23456, messages=["x"]))
    assert tick.document(tick.run(context, jobs(only=only))) == {
        "jobs": [{"job": "only", "done": 2, "failed": 1, "seconds": 1.735}]
    }


def test_an_empty_workspace_has_nothing_to_do(context: Context) -> None:
    reports = tick.run(context)
    assert [one.job for one in reports] == list(tick.JOBS)
    assert {(one.done, one.failed) for one in reports} == {(0, 0)}
