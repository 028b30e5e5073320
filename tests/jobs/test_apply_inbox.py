"""The inbox: applied in order, each event once, whoever dies in between."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import select

from core.clock import FixedClock
from core.events import ContactChanged, Event, UnknownEvent
from core.jobs import apply_inbox
from core.jobs.context import Context, JobReport
from core.processes import this_process
from core.storage import inbox, leases, schema
from tests.ledger import add_connection


class Reader:
    """Reads bodies that are lists of event names; some names are trouble."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, kind: str, headers: Mapping[str, str], body: bytes, received_at: datetime) -> Iterable[Event]:
        for name in json.loads(body):
            self.read.append(name)
            if name == "bug":
                raise ZeroDivisionError("a bug of the receiver")
            if name == "unsupported":
                yield ContactChanged(key=name, at=received_at)
            else:
                yield UnknownEvent(key=name, at=received_at, name=kind)


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture(autouse=True)
def listening(context: Context, reader: Reader) -> None:
    context.parse_inbox = reader
    with context.store.write() as tx:
        add_connection(tx, "hub", "hub")


def receive(context: Context, *names: str) -> None:
    with context.store.write() as tx:
        body = json.dumps(names).encode()
        assert inbox.receive(tx, 1, "+".join(names), {}, body, context.clock.now_ms())


def rows(context: Context) -> dict[str, Any]:
    with context.store.read() as tx:
        return {row.delivery_id: row for row in tx.execute(select(schema.inbox))}


def events(context: Context) -> list[str]:
    with context.store.read() as tx:
        return sorted(tx.scalars(select(schema.events.c.key)))


def test_requests_are_applied_in_the_order_they_came(context: Context, reader: Reader) -> None:
    names = [f"e{number:03}" for number in range(120)]  # more than a batch
    for name in names:
        receive(context, name)
    report = apply_inbox.run(context)
    assert (report.done, report.failed) == (120, 0)
    assert reader.read == names == events(context)
    assert {row.state for row in rows(context).values()} == {"done"}
    assert apply_inbox.run(context).done == 0


def test_an_event_told_in_two_requests_is_applied_once(context: Context) -> None:
    receive(context, "a", "b")
    receive(context, "b", "c")
    assert apply_inbox.run(context).done == 2
    assert events(context) == ["a", "b", "c"]


def test_a_request_nobody_can_read_stops_no_other(context: Context, clock: FixedClock) -> None:
    receive(context, "bug")
    receive(context, "a")
    report = apply_inbox.run(context)
    assert (report.done, report.failed) == (1, 1)
    assert "a bug of the receiver" in report.messages[0]
    bad = rows(context)["bug"]
    assert (bad.state, bad.due_at) == ("ready", clock.now_ms() + 5 * 60_000)
    assert "ZeroDivisionError" in bad.error


def test_an_event_that_cannot_be_applied_stops_no_other_of_its_request(context: Context) -> None:
    receive(context, "a", "unsupported", "b")
    report = apply_inbox.run(context)
    assert (report.done, report.failed) == (0, 1)
    assert events(context) == ["a", "b"]
    assert rows(context)["a+unsupported+b"].state == "failed"  # it would be the same tomorrow


def test_after_several_attempts_it_is_left_for_a_human(context: Context, clock: FixedClock) -> None:
    receive(context, "bug")
    for _ in range(apply_inbox.ATTEMPTS):
        assert apply_inbox.run(context).failed == 1
        clock.advance(hours=5)
    assert rows(context)["bug"].state == "failed"
    assert apply_inbox.run(context).failed == 0


def test_what_a_dead_worker_began_is_taken_over_at_once(context: Context) -> None:
    receive(context, "a")
    machine = this_process().rpartition(":")[0].rpartition(":")[0]
    with context.store.write() as tx:
        leases.acquire(tx, apply_inbox.NAME, f"{machine}:4194303:1", context.clock.now_ms(), apply_inbox.LEASE_MS)
        assert inbox.claim(tx, context.clock.now_ms(), 10)
        assert inbox.is_due(tx, context.clock.now_ms())
    assert apply_inbox.run(context).done == 1


def test_a_worker_at_work_is_left_alone(context: Context, clock: FixedClock) -> None:
    receive(context, "a")
    with context.store.write() as tx:
        leases.acquire(tx, apply_inbox.NAME, "somebody", clock.now_ms(), apply_inbox.LEASE_MS)
    assert apply_inbox.run(context).done == 0
    clock.advance(milliseconds=apply_inbox.LEASE_MS)
    assert apply_inbox.run(context).done == 1


def test_a_worker_that_was_taken_over_commits_nothing(context: Context) -> None:
    receive(context, "a")

    def slept(kind: str, headers: Mapping[str, str], body: bytes, received_at: datetime) -> Iterable[Event]:
        with context.store.write() as tx:  # its lease ran out, and another has begun the same request
            inbox.claim(tx, context.clock.now_ms(), 10)
        yield UnknownEvent(key="a", at=received_at, name="late")

    context.parse_inbox = slept
    with context.store.write() as tx:
        (row,) = inbox.claim(tx, context.clock.now_ms(), 10)
    apply_inbox._apply(context, row, JobReport("test"))
    assert events(context) == []
    assert rows(context)["a"].state == "applying"


def test_a_request_that_kills_workers_is_given_up_and_the_others_are_not_blamed(context: Context) -> None:
    for name in ("a", "killer", "z"):
        receive(context, name)

    class Killed(BaseException):
        """A worker ends here, without a word."""

    def read(kind: str, headers: Mapping[str, str], body: bytes, received_at: datetime) -> Iterable[Event]:
        if b"killer" in body:
            raise Killed
        yield UnknownEvent(key=body.decode(), at=received_at, name=kind)

    context.parse_inbox = read
    deaths = 0
    for _ in range(20):
        try:
            apply_inbox.run(context)
        except Killed:
            deaths += 1
    state = rows(context)
    assert deaths == apply_inbox.ATTEMPTS
    assert {name: row.state for name, row in state.items()} == {"a": "done", "killer": "failed", "z": "done"}
    assert state["z"].attempts <= 2


def test_two_workers_at_once_apply_each_request_once(context: Context) -> None:
    for number in range(60):
        receive(context, f"e{number}")
    reports = []
    threads = [threading.Thread(target=lambda: reports.append(apply_inbox.run(context))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(report.done for report in reports) == 60
    assert {row.attempts for row in rows(context).values()} == {1}


def test_without_a_receiver_it_says_so(context: Context) -> None:
    receive(context, "a")
    context.parse_inbox = None
    report = apply_inbox.run(context)
    assert report.messages == ["hub: nothing here can read what hub sends"]
