"""One vendor account: its pace, its "too much", its refusal. Shared by all who use it, and nobody else's business."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from core.clock import Clock, FixedClock
from core.errors import Misconfigured, RateLimited, Rejected, Unauthorized, Unavailable, Unsupported
from core.jobs import deliver
from core.jobs.context import Context
from core.jobs.outlet import PAUSE_MS, REFUSED_PAUSE_MS
from core.storage import rates, schema
from core.storage.store import Store
from tests.jobs.mailing import ADA, BO, CLEO, MAIL, Composer, PacedSender, Sender, Town
from tests.ledger import add_connection
from tests.world import make_context

ACCOUNT = "smtp:one"
SECOND = 3


@pytest.fixture
def town(store: Store, clock: FixedClock) -> Town:
    return Town(store, clock)


@pytest.fixture
def sender() -> Sender:
    return Sender()


@pytest.fixture
def context(town: Town, store: Store, clock: FixedClock, sender: Sender) -> Context:
    return make_context(store, clock, {"mail": sender, "crm": None}, composer=Composer())


def add_second(context: Context, account: str) -> Sender:
    """Another connection that sends."""
    with context.store.write() as tx:
        assert add_connection(tx, "second", "smtp", account=account) == SECOND
    sender = Sender()
    context.opener.connectors["second"] = sender  # type: ignore[attr-defined]
    return sender


def blocked_seconds(context: Context) -> float:
    with context.store.read() as tx:
        return rates.blocked_for(tx, ACCOUNT, context.clock.now_ms())


# --- too much ---------------------------------------------------------------------------------------------------------


def test_too_much_means_later_for_everybody_on_the_account(context: Context, town: Town, sender: Sender) -> None:
    other, stranger = add_second(context, ACCOUNT), Sender()
    with context.store.write() as tx:
        third = add_connection(tx, "third", "smtp", account="smtp:another")
    context.opener.connectors["third"] = stranger  # type: ignore[attr-defined]
    ada = town.invite(ADA)
    sender.will(ADA, RateLimited("450 4.7.1 too much", retry_after=300.0))
    deliver.run(context)
    assert blocked_seconds(context) == 300.0
    assert town.delivery(ada).attempts == 0  # not the message's fault
    assert town.states(ada) == ("ready", "reserved")

    town.invite(BO, sender=SECOND)
    town.invite(CLEO, sender=third)
    report = deliver.run(context)
    assert (sender.reached, other.reached, stranger.reached) == ([], [], [CLEO])
    assert any(message.startswith("mail: the vendor asked") for message in report.messages)


def test_another_connection_of_the_account_stops_in_the_middle_too(
    context: Context, town: Town, sender: Sender, clock: FixedClock
) -> None:
    town.invite(ADA)
    bo = town.invite(BO)

    def somebody_is_told_to_wait(_: Any) -> None:
        with context.store.write() as tx:
            rates.block(tx, ACCOUNT, clock.now_ms() + 300_000)

    sender.will(ADA, somebody_is_told_to_wait)
    deliver.run(context)
    assert sender.reached == [ADA]
    assert town.states(bo) == ("ready", "reserved")


def test_a_pause_without_a_length_is_a_minute(context: Context, town: Town, sender: Sender) -> None:
    town.invite(ADA)
    sender.will(ADA, RateLimited("450 too much"))
    context.stopping.wait = lambda timeout=None: True  # type: ignore[method-assign]  # nobody waits that minute here
    deliver.run(context)
    assert blocked_seconds(context) == 60.0


def test_a_short_pause_is_waited_for(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'real.db'}", Clock())
    schema.metadata.create_all(store.engine)
    town = Town(store, store.clock)  # type: ignore[arg-type]  # the real clock
    sender = Sender()
    context = make_context(store, store.clock, {"mail": sender}, composer=Composer())
    town.invite(ADA)
    sender.will(ADA, RateLimited("450 too much", retry_after=0.3))
    started = time.monotonic()
    deliver.run(context)
    store.close()
    assert sender.reached == [ADA]
    assert time.monotonic() - started >= 0.3


# --- pace -------------------------------------------------------------------------------------------------------------


def test_messages_are_spaced_evenly_over_two_workers_on_one_account(tmp_path: Path) -> None:
    """Two connections of one account, each with a worker of its own: 20 a second together, not each."""
    store = Store(f"sqlite:///{tmp_path / 'real.db'}", Clock())
    schema.metadata.create_all(store.engine)
    town = Town(store, store.clock)  # type: ignore[arg-type]  # the real clock
    left_at: list[float] = []

    class Timed(PacedSender):
        def send_surveys(self, invitations: Any) -> Any:
            left_at.append(time.monotonic())
            return super().send_surveys(invitations)

    senders = [Timed(20.0), Timed(20.0)]
    with store.write() as tx:
        add_connection(tx, "second", "smtp", account=ACCOUNT)
    for number in range(12):
        town.invite(f"person{number}@acme.example", sender=(MAIL, SECOND)[number % 2])
    contexts = [
        make_context(store, store.clock, {"mail": senders[0], "second": senders[1]}, composer=Composer(), owner=owner)
        for owner in ("one", "two")
    ]
    threads = [threading.Thread(target=deliver.run, args=(context,)) for context in contexts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert sorted(senders[0].reached + senders[1].reached) == sorted(f"person{n}@acme.example" for n in range(12))
    took = max(left_at) - min(left_at)
    # some slack for a first message that was held up; each for itself they would take 0.25 s
    assert took >= 11 * 0.05 - 0.15, "faster than the account allows"


def test_a_paced_sender_that_is_asked_to_end_does_not_wait_for_its_token(
    context: Context, town: Town, clock: FixedClock
) -> None:
    paced = PacedSender(0.001)
    context.opener.connectors["mail"] = paced  # type: ignore[attr-defined]
    town.invite(ADA)
    bo = town.invite(BO)
    threading.Timer(0.2, context.stopping.set).start()
    started = time.monotonic()
    deliver.run(context)
    assert time.monotonic() - started < 5
    assert paced.reached == [ADA]
    assert town.states(bo) == ("ready", "reserved")


def test_a_paced_sender_does_not_wait_for_a_token_nobody_needs(context: Context, town: Town) -> None:
    paced = PacedSender(0.001)
    context.opener.connectors["mail"] = paced  # type: ignore[attr-defined]
    town.invite(ADA)
    started = time.monotonic()
    deliver.run(context)
    assert paced.reached == [ADA]
    assert time.monotonic() - started < 5


# --- refused, away ----------------------------------------------------------------------------------------------------


def test_a_vendor_that_refuses_us_breaks_the_connection_and_others_go_on(
    context: Context, town: Town, sender: Sender
) -> None:
    other = add_second(context, "smtp:another")
    ada, bo = town.invite(ADA), town.invite(BO)
    town.invite(CLEO, sender=SECOND)
    sender.will(ADA, Unauthorized("535 password wrong"))
    report = deliver.run(context)
    connection = town.row(schema.connections, MAIL)
    assert (connection.state, connection.reason) == ("broken", "535 password wrong")
    (incident,) = town.rows(schema.incidents)
    assert (incident.kind, incident.connection_id, incident.reason, incident.closed_at) == (
        "connection", MAIL, "535 password wrong", None,
    )  # fmt: skip
    assert town.states(ada) == town.states(bo) == ("ready", "reserved")
    assert town.delivery(ada).attempts == 0
    assert other.reached == [CLEO]
    assert (report.done, report.failed, report.messages) == (1, 1, ["mail: 535 password wrong"])


def test_what_worked_before_the_refusal_is_kept(context: Context, town: Town, sender: Sender) -> None:
    sender.send_batch_size = 3
    ada, bo, cleo = town.invite(ADA), town.invite(BO), town.invite(CLEO)
    sender.will(BO, Unauthorized("535 password wrong"))
    deliver.run(context)
    assert [town.states(one)[0] for one in (ada, bo, cleo)] == ["done", "ready", "ready"]


def test_a_vendor_that_works_again_closes_its_incident(
    context: Context, town: Town, sender: Sender, clock: FixedClock
) -> None:
    town.invite(ADA)
    sender.will(ADA, Misconfigured("the certificate is not accepted"))
    deliver.run(context)
    deliver.run(context)  # `tick` tries at once
    connection = town.row(schema.connections, MAIL)
    assert (connection.state, connection.reason, sender.reached) == ("ok", "", [ADA])
    (incident,) = town.rows(schema.incidents)
    assert incident.closed_at == clock.now_ms()


@pytest.mark.parametrize(
    ("problem", "pause_ms"),
    [(Unauthorized("535"), REFUSED_PAUSE_MS), (Unavailable("connection refused"), PAUSE_MS)],
    ids=["refused", "away"],
)
def test_a_worker_leaves_a_broken_connection_alone_for_a_while(
    context: Context, town: Town, sender: Sender, clock: FixedClock, problem: Exception, pause_ms: int
) -> None:
    town.invite(ADA)
    sender.will(ADA, problem)
    deliver.run(context, patient=True)
    clock.advance(milliseconds=pause_ms - 1)
    deliver.run(context, patient=True)
    assert sender.reached == []
    clock.advance(milliseconds=1)
    deliver.run(context, patient=True)
    assert sender.reached == [ADA]


def test_a_vendor_that_is_away_is_no_incident(context: Context, town: Town, sender: Sender) -> None:
    town.invite(ADA)
    sender.will(ADA, Unavailable("connection refused"))
    deliver.run(context)
    assert town.row(schema.connections, MAIL).state == "broken"
    assert town.rows(schema.incidents) == []


def test_a_connection_that_cannot_be_opened_says_why(
    context: Context, town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = town.invite(ADA)

    def fail(name: str) -> Any:
        raise Misconfigured(f"{name}: the password file is gone")

    monkeypatch.setattr(context.opener, "open", fail)
    report = deliver.run(context)
    assert town.row(schema.connections, MAIL).reason == "mail: the password file is gone"
    assert town.states(ada) == ("ready", "reserved")
    assert report.failed == 1


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (Rejected("554 policy"), "refused"),
        (Rejected("550 5.1.1 unknown", suppress=True), "bounced"),
        (Unsupported("no"), "refused"),
    ],
    ids=["rejected", "dead address", "unsupported"],
)
def test_a_refusal_that_is_raised_is_the_messages_and_not_the_connections(
    context: Context, town: Town, sender: Sender, problem: Exception, reason: str
) -> None:
    ada, bo = town.invite(ADA), town.invite(BO)
    sender.will(ADA, problem)
    deliver.run(context)
    assert (town.states(ada), town.touch(ada).reason) == (("failed", "returned"), reason)
    assert town.states(bo) == ("done", "handed_over")
    assert town.row(schema.connections, MAIL).state == "ok"


def test_a_sender_that_is_not_a_sender_stops_nobody_else(context: Context, town: Town, sender: Sender) -> None:
    """A bug in one connector is told, and the others go on."""
    other = add_second(context, "smtp:another")
    context.opener.connectors["mail"] = object()  # type: ignore[attr-defined]
    town.invite(ADA)
    town.invite(BO, sender=SECOND)
    report = deliver.run(context)
    assert other.reached == [BO]
    assert (report.done, report.failed) == (1, 1)
    assert report.messages[0].startswith("mail: AttributeError")
