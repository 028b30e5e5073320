"""Write-backs: every record behind is brought up to date from the ledger as it is, whatever happens on the way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, insert, select

import connectors
from core.clock import DAY_MS, FixedClock, from_ms
from core.errors import Misconfigured, RateLimited, Rejected, Unauthorized, Unavailable
from core.jobs import prune, push_scores
from core.jobs.context import Context
from core.jobs.outlet import LEASE_MS, PAUSE_MS
from core.ports import ScoreUpdate, WriteResult
from core.processes import this_process
from core.storage import deliveries, incidents, schema, touches, write_backs
from core.storage.store import Store
from core.touches import ReturnReason, TouchState
from tests.jobs.mailing import ADA, BO, CLEO, CRM, Asked, Town
from tests.ledger import add_campaign, add_connection
from tests.world import make_context, set_workspace

#: What happens to an update: a result, an error that is raised, or something done after it was written.
Happening = WriteResult | BaseException | Callable[[ScoreUpdate], None]


class Sink:
    """A source that takes what is written, unless told otherwise by external id; each happening is used once."""

    write_batch_size = 100

    def __init__(self) -> None:
        self.calls: list[list[ScoreUpdate]] = []
        self.shown: dict[str, dict[str, Any]] = {}
        self.told: dict[str, list[Happening]] = {}
        self.raises: list[Exception] = []

    def write_scores(self, updates: Sequence[ScoreUpdate]) -> Iterator[WriteResult]:
        self.calls.append(list(updates))
        if self.raises:
            raise self.raises.pop(0)
        for update in updates:
            waiting = self.told.get(update.external_id)
            happening = waiting.pop(0) if waiting else None
            if isinstance(happening, WriteResult):
                yield happening
                continue
            self.shown.setdefault(update.external_id, {}).update(update.fields)
            if isinstance(happening, BaseException):
                raise happening
            if happening is not None:
                happening(update)
            yield WriteResult.done(update.key)


class Killed(BaseException):
    """The process ends here, as far as the job can tell."""


@pytest.fixture
def town(store: Store, clock: FixedClock) -> Town:
    return Town(store, clock)


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def context(store: Store, clock: FixedClock, sink: Sink) -> Context:
    return make_context(store, clock, {"crm": sink})


@dataclass(frozen=True)
class Customer:
    """Somebody who was asked, with the record that must show it."""

    asked: Asked
    record: str


def ask(town: Town, address: str = ADA, score: int | None = None, comment: str = "") -> Customer:
    """Somebody who was asked now, and has answered if `score` is given."""
    asked = town.invite(address)
    now = town.clock.now_ms()
    with town.store.write() as tx:
        touches.hand_over(tx, [asked.touch_id], now)
        deliveries.request_write_back(tx, [asked.person_id], now)
    if score is not None:
        answer(town, asked, score, comment)
    return Customer(asked, town.row(schema.identities, asked.identity_id).external_id)


def answer(town: Town, asked: Asked, score: int, comment: str = "", verdict: str = "confirmed") -> None:
    now = town.clock.now_ms()
    with town.store.write() as tx:
        tx.execute(schema.responses.delete().where(schema.responses.c.touch_id == asked.touch_id))
        tx.execute(
            insert(schema.responses).values(
                id=asked.touch_id, campaign_id=town.campaign, touch_id=asked.touch_id, person_id=asked.person_id,
                score=score, comment=comment, verdict=verdict, signals=[], answered_at=now,
            )
        )  # fmt: skip
        deliveries.request_write_back(tx, [asked.person_id], now)


def write_back_of(town: Town, customer: Customer) -> Row[Any]:
    query = select(schema.deliveries).where(
        schema.deliveries.c.kind == "write_back", schema.deliveries.c.identity_id == customer.asked.identity_id
    )
    with town.store.read() as tx:
        return tx.execute(query).one()


def behind(town: Town) -> int:
    with town.store.read() as tx:
        return write_backs.behind(tx).get(CRM, 0)


# --- what is written --------------------------------------------------------------------------------------------------


def test_an_answer_and_the_dates_are_written_into_the_record(context: Context, town: Town, sink: Sink) -> None:
    ada = ask(town, ADA, 9, "Great")
    report = push_scores.run(context)
    assert (report.done, report.failed) == (1, 0)
    now = context.clock.now()
    shown = sink.shown[ada.record]
    assert (shown["nps_score"], shown["nps_category"], shown["nps_comment"]) == (9, "promoter", "Great")
    assert shown["nps_responded_at"] == shown["nps_last_surveyed_at"] == now
    assert shown["nps_may_be_asked_at"] == from_ms(context.clock.now_ms() + 90 * DAY_MS)
    assert write_back_of(town, ada).state == "done"
    assert behind(town) == 0


def test_moments_carry_the_zone_of_the_workspace(context: Context, town: Town, sink: Sink, clock: FixedClock) -> None:
    set_workspace(town.store, time_zone="Europe/Paris")
    clock.at = datetime(2026, 12, 1, 23, 30, tzinfo=UTC)
    ada = ask(town, ADA, 9)
    push_scores.run(context)
    shown = sink.shown[ada.record]
    assert shown["nps_last_surveyed_at"].isoformat() == "2026-12-02T00:30:00+01:00"


def test_a_file_that_keeps_dates_alone_shows_the_day_it_was_in_the_workspace(
    store: Store, town: Town, clock: FixedClock, tmp_path: Path
) -> None:
    set_workspace(store, time_zone="Europe/Paris")
    clock.at = datetime(2026, 12, 1, 23, 30, tzinfo=UTC)
    ada = ask(town, ADA, 9)
    path = tmp_path / "customers.csv"
    path.write_text(f"id,email\n{ada.record},{ADA}\n")
    with connectors.build("csv", {"path": str(path)}) as connector:
        assert push_scores.run(make_context(store, clock, {"crm": connector})).done == 1
    header, row = (line.split(",") for line in path.read_text().splitlines())
    assert dict(zip(header, row, strict=True))["nps_last_surveyed_at"] == "2026-12-02"


def test_what_is_asked_for_often_is_written_once_with_the_values_of_that_moment(
    context: Context, town: Town, sink: Sink
) -> None:
    ada = ask(town, ADA, 3)
    answer(town, ada.asked, 8)
    answer(town, ada.asked, 10, "after all")
    push_scores.run(context)
    (call,) = sink.calls
    assert [update.external_id for update in call] == [ada.record]
    assert sink.shown[ada.record]["nps_score"] == 10


def test_what_changes_while_it_is_written_is_written_again(
    context: Context, town: Town, sink: Sink, clock: FixedClock
) -> None:
    ada = ask(town, ADA, 3)

    def answer_anew(update: ScoreUpdate) -> None:
        clock.advance(seconds=1)
        answer(town, ada.asked, 9)

    sink.told[ada.record] = [answer_anew]
    push_scores.run(context)
    assert sink.shown[ada.record]["nps_score"] == 3
    assert write_back_of(town, ada).state == "ready"
    assert behind(town) == 1
    push_scores.run(context)
    assert sink.shown[ada.record]["nps_score"] == 9
    assert behind(town) == 0


def test_nothing_is_written_where_nothing_is_behind(context: Context, town: Town, sink: Sink) -> None:
    ask(town)
    push_scores.run(context)
    report = push_scores.run(context)
    assert (report.done, len(sink.calls)) == (0, 1)


def test_a_suspect_answer_is_shown_nowhere(context: Context, town: Town, sink: Sink) -> None:
    ada = ask(town)
    answer(town, ada.asked, 2, verdict="suspect")
    push_scores.run(context)
    assert "nps_score" not in sink.shown[ada.record]


def test_an_answer_that_is_dismissed_later_is_cleared(context: Context, town: Town, sink: Sink) -> None:
    ada = ask(town, ADA, 9, "Great")
    push_scores.run(context)
    answer(town, ada.asked, 9, verdict="dismissed")
    push_scores.run(context)
    shown = sink.shown[ada.record]
    assert (shown["nps_score"], shown["nps_category"], shown["nps_comment"]) == (None, None, None)


def test_a_record_that_is_gone_needs_nothing(context: Context, town: Town, sink: Sink) -> None:
    ada = ask(town)
    town.change(schema.identities, ada.asked.identity_id, gone_at=1)
    push_scores.run(context)
    assert sink.calls == []
    assert write_back_of(town, ada).state == "done"


def test_large_heaps_go_in_the_batches_the_connector_takes(context: Context, town: Town, sink: Sink) -> None:
    for number in range(7):
        ask(town, f"person{number}@acme.example")
    sink.write_batch_size = 3
    assert push_scores.run(context).done == 7
    assert [len(call) for call in sink.calls] == [3, 3, 1]


# --- the date after a bounce ------------------------------------------------------------------------------------------


def bounce(town: Town, customer: Customer) -> None:
    with town.store.write() as tx:
        touches.give_back(tx, [customer.asked.touch_id], ReturnReason.BOUNCED, "550", town.clock.now_ms())


def source_was_read(town: Town, customer: Customer, shows: str | None) -> None:
    """The record as its source showed it a moment ago."""
    town.change(schema.identities, customer.asked.identity_id, last_surveyed_seen=shows)
    town.change(schema.connections, CRM, synced_at=town.clock.now_ms())


def test_after_a_bounce_the_date_is_rolled_back(context: Context, town: Town, sink: Sink, clock: FixedClock) -> None:
    ada = ask(town)
    push_scores.run(context)
    clock.advance(hours=1)
    source_was_read(town, ada, "2026-12-01")
    bounce(town, ada)
    push_scores.run(context)
    assert sink.shown[ada.record]["nps_last_surveyed_at"] is None
    assert sink.calls[-1][0].expected == {"nps_last_surveyed_at": "2026-12-01"}


def test_after_a_bounce_a_date_that_somebody_edited_stays(
    context: Context, town: Town, sink: Sink, clock: FixedClock
) -> None:
    ada = ask(town)
    push_scores.run(context)
    clock.advance(hours=1)
    source_was_read(town, ada, "2026-11-28")
    bounce(town, ada)
    push_scores.run(context)
    assert sink.shown[ada.record]["nps_last_surveyed_at"] == datetime(2026, 12, 1, 9, tzinfo=UTC)


def test_a_source_read_while_we_wrote_is_no_witness_of_an_edit(
    context: Context, town: Town, sink: Sink, clock: FixedClock
) -> None:
    ada = ask(town)

    def read_before_the_write_was_over(update: ScoreUpdate) -> None:
        source_was_read(town, ada, None)
        clock.advance(seconds=1)

    sink.told[ada.record] = [read_before_the_write_was_over]
    push_scores.run(context)
    bounce(town, ada)
    push_scores.run(context)
    assert sink.shown[ada.record]["nps_last_surveyed_at"] is None
    assert sink.calls[-1][0].expected == {"nps_last_surveyed_at": "2026-12-01T09:00:00+00:00"}


# --- one bad record ---------------------------------------------------------------------------------------------------


def test_one_bad_record_stops_nobody_and_is_shown_in_the_vendors_words(
    context: Context, town: Town, sink: Sink
) -> None:
    ada, bo = ask(town, ADA, 9), ask(town, BO, 7)
    sink.told[ada.record] = [WriteResult.rejected(f"write_back:1:{ada.asked.identity_id}", "no such row")]
    report = push_scores.run(context)
    assert (report.done, report.failed) == (1, 1)
    assert report.messages == [f"crm, record {ada.record}: no such row"]
    assert sink.shown[bo.record]["nps_score"] == 7
    failed = write_back_of(town, ada)
    assert (failed.state, failed.error) == ("failed", "no such row")
    assert behind(town) == 1


def test_a_refused_record_is_tried_again_every_day(context: Context, town: Town, sink: Sink, clock: FixedClock) -> None:
    ada = ask(town, ADA, 9)
    sink.told[ada.record] = [WriteResult.rejected(f"write_back:1:{ada.asked.identity_id}", "locked")] * 2
    push_scores.run(context)
    clock.advance(hours=23)
    prune.run(context)
    assert push_scores.run(context).done == 0
    for done in (0, 1):
        clock.advance(days=1, minutes=1)
        prune.run(context)
        assert push_scores.run(context).done == done
    assert sink.shown[ada.record]["nps_score"] == 9
    assert behind(town) == 0


def test_a_refused_record_is_tried_at_once_when_there_is_news(context: Context, town: Town, sink: Sink) -> None:
    ada = ask(town, ADA, 9)
    sink.told[ada.record] = [WriteResult.rejected(f"write_back:1:{ada.asked.identity_id}", "locked")]
    push_scores.run(context)
    answer(town, ada.asked, 10)
    assert push_scores.run(context).done == 1


def test_an_operator_may_replay_it(context: Context, town: Town, sink: Sink) -> None:
    ada = ask(town, ADA, 9)
    sink.told[ada.record] = [WriteResult.rejected(f"write_back:1:{ada.asked.identity_id}", "locked")]
    push_scores.run(context)
    with town.store.write() as tx:
        assert deliveries.replay(tx, [write_back_of(town, ada).id], context.clock.now_ms()) != []
    assert push_scores.run(context).done == 1


@pytest.mark.parametrize("result", [WriteResult.retry("", "busy"), WriteResult.uncertain("", "no answer")])
def test_what_is_not_known_to_be_written_is_written_again_after_5_then_15_minutes(
    context: Context, town: Town, sink: Sink, clock: FixedClock, result: WriteResult
) -> None:
    ada = ask(town, ADA, 9)
    key = write_back_of(town, ada).key
    sink.told[ada.record] = [WriteResult(key, result.outcome, reason=result.reason)] * 2
    for minutes in (5, 15):
        assert push_scores.run(context).failed == 1
        row = write_back_of(town, ada)
        assert (row.state, row.due_at, row.error) == ("ready", clock.now_ms() + minutes * 60_000, result.reason)
        clock.advance(minutes=minutes)
    assert push_scores.run(context).done == 1
    assert write_back_of(town, ada).attempts == 0


def test_a_connector_with_a_bug_loses_nothing(context: Context, town: Town, sink: Sink, clock: FixedClock) -> None:
    ada, bo = ask(town, ADA, 9), ask(town, BO, 7)
    sink.told[bo.record] = [ValueError("unexpected")]
    report = push_scores.run(context)
    assert (report.done, report.failed) == (1, 1)
    assert [write_back_of(town, one).state for one in (ada, bo)] == ["done", "ready"]
    clock.advance(minutes=5)
    assert push_scores.run(context).done == 1


def test_an_error_of_the_whole_call_that_means_never_is_never(context: Context, town: Town, sink: Sink) -> None:
    ada = ask(town)
    sink.raises = [Rejected("this file takes nothing")]
    push_scores.run(context)
    assert write_back_of(town, ada).state == "failed"


# --- the connection ---------------------------------------------------------------------------------------------------


def connection(town: Town, number: int = CRM) -> Row[Any]:
    return town.row(schema.connections, number)


def test_a_source_that_is_away_is_marked_broken_and_mended_by_the_next_success(
    context: Context, town: Town, sink: Sink, clock: FixedClock
) -> None:
    ada = ask(town)
    sink.raises = [Unavailable("customers.csv is not there")]
    report = push_scores.run(context)
    assert (report.done, report.failed, report.messages) == (0, 1, ["crm: customers.csv is not there"])
    assert (connection(town).state, connection(town).reason) == ("broken", "customers.csv is not there")
    row = write_back_of(town, ada)
    assert (row.state, row.attempts) == ("ready", 0)  # not the record's fault
    push_scores.run(context, patient=True)
    assert len(sink.calls) == 1  # left alone for a while
    clock.advance(seconds=PAUSE_MS / 1000)
    assert push_scores.run(context, patient=True).done == 1
    assert (connection(town).state, connection(town).reason) == ("ok", "")


@pytest.mark.parametrize("error", [Unauthorized("the key was revoked"), Misconfigured("the path is a folder")])
def test_a_source_that_refuses_us_calls_a_human(context: Context, town: Town, sink: Sink, error: Exception) -> None:
    ask(town)
    sink.raises = [error]
    push_scores.run(context)
    with town.store.read() as tx:
        (incident,) = incidents.open_incidents(tx)
    assert (incident.connection_id, incident.reason) == (CRM, str(error))
    push_scores.run(context)
    with town.store.read() as tx:
        assert incidents.open_incidents(tx) == []


def test_a_vendor_that_wants_less_is_left_alone_until_then(
    context: Context, town: Town, sink: Sink, clock: FixedClock
) -> None:
    ada = ask(town)
    sink.raises = [RateLimited("too much", retry_after=300)]
    report = push_scores.run(context)
    assert (report.failed, report.messages) == (0, ["crm: the vendor asked to be left alone until 09:05 UTC"])
    clock.advance(seconds=200)
    report = push_scores.run(context)
    assert report.messages == ["crm: the vendor asked to be left alone until 09:05 UTC"]  # the same words
    assert len(sink.calls) == 1
    clock.advance(seconds=101)
    assert push_scores.run(context).done == 1
    assert write_back_of(town, ada).state == "done"
    assert connection(town).state == "ok"


def second_target(town: Town) -> int:
    """Another source with a record of everybody who is asked from now on, written back to as well."""
    with town.store.write() as tx:
        hub = add_connection(tx, "hub")
        config = {"name": "other", "source": ["crm"], "sender": "mail", "write_back": ["hub"], "every_days": 90}
        add_campaign(tx, "other", config)
        return hub


def test_a_source_that_does_not_work_stops_no_other(store: Store, clock: FixedClock, town: Town, sink: Sink) -> None:
    hub = second_target(town)
    ask(town, ADA, 9)
    bo = town.invite(BO)
    town.change(schema.identities, bo.identity_id, connection_id=hub)
    with store.write() as tx:
        deliveries.request_write_back(tx, [bo.person_id], clock.now_ms())
        touches.hand_over(tx, [bo.touch_id], clock.now_ms())
    away, works = sink, Sink()
    away.raises = [Unavailable("away")]
    report = push_scores.run(make_context(store, clock, {"crm": away, "hub": works}))
    assert (report.done, report.failed) == (1, 1)
    assert len(works.shown) == 1


def test_a_source_that_cannot_be_built_is_told_and_stops_no_other(
    store: Store, clock: FixedClock, town: Town, sink: Sink
) -> None:
    class Broken:
        def open(self, name: str) -> Any:
            raise Misconfigured("the path is missing")

        def close(self) -> None: ...

    ask(town)
    context = make_context(store, clock, opener=Broken())
    report = push_scores.run(context)
    assert (report.failed, report.messages) == (1, ["crm: the path is missing"])
    assert connection(town).state == "broken"


def test_a_worker_that_is_asked_to_end_claims_nothing_more(context: Context, town: Town, sink: Sink) -> None:
    ada, bo = ask(town, ADA), ask(town, BO)
    sink.write_batch_size = 1
    sink.told[ada.record] = [lambda update: context.stopping.set()]
    push_scores.run(context)
    assert [write_back_of(town, one).state for one in (ada, bo)] == ["done", "ready"]


# --- crashes and several workers --------------------------------------------------------------------------------------


def test_a_crash_between_write_and_record_is_written_again_harmlessly(
    context: Context, town: Town, sink: Sink, clock: FixedClock
) -> None:
    ada = ask(town, ADA, 9)
    sink.told[ada.record] = [Killed()]
    with pytest.raises(Killed):
        push_scores.run(context)
    assert write_back_of(town, ada).state == "sending"
    once = dict(sink.shown[ada.record])
    push_scores.run(context)
    assert len(sink.calls) == 1  # the dead worker may only be slow
    clock.advance(seconds=LEASE_MS / 1000)
    assert push_scores.run(context).done == 1
    assert sink.shown[ada.record] == once
    assert write_back_of(town, ada).state == "done"


def test_the_claims_of_a_process_that_is_gone_are_not_waited_for(context: Context, town: Town, sink: Sink) -> None:
    ada = ask(town, ADA, 9)
    sink.told[ada.record] = [Killed()]
    gone = f"{this_process().rsplit(':', 2)[0]}:999999999:1"
    with pytest.raises(Killed):
        push_scores.run(make_context(context.store, context.clock, {"crm": sink}, owner=gone))
    assert push_scores.run(context).done == 1


def test_a_worker_that_comes_back_too_late_does_not_speak_for_the_other(
    context: Context, town: Town, sink: Sink, clock: FixedClock
) -> None:
    ada = ask(town, ADA, 9)
    other = Sink()

    def change_their_mind(update: ScoreUpdate) -> None:
        clock.advance(seconds=1)
        answer(town, ada.asked, 0)

    def sleep_while_another_takes_over(update: ScoreUpdate) -> None:
        clock.advance(seconds=LEASE_MS / 1000)
        answer(town, ada.asked, 10)
        other.told[ada.record] = [change_their_mind]
        push_scores.run(make_context(context.store, clock, {"crm": other}, owner="another process"))

    sink.told[ada.record] = [sleep_while_another_takes_over]
    push_scores.run(context)
    assert other.shown[ada.record]["nps_score"] == 10
    row = write_back_of(town, ada)
    assert (row.state, row.done_version < row.wanted_version) == ("ready", True)  # 0 is still to be written
    assert push_scores.run(context).done == 1
    assert sink.shown[ada.record]["nps_score"] == 0


def test_two_workers_at_once_write_each_record_once(store: Store, clock: FixedClock, town: Town, sink: Sink) -> None:
    for number in range(30):
        ask(town, f"person{number}@acme.example", 9)
    sink.write_batch_size = 2
    workers = [
        threading.Thread(target=push_scores.run, args=(make_context(store, clock, {"crm": sink}, owner=f"worker {n}"),))
        for n in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    written = [update.external_id for call in sink.calls for update in call]
    assert len(written) == len(set(written)) == 30
    assert behind(town) == 0


def test_both_records_of_one_person_show_the_same_date(store: Store, clock: FixedClock, town: Town, sink: Sink) -> None:
    hub = second_target(town)
    ada = ask(town, ADA, 9)
    with store.write() as tx:
        tx.execute(
            insert(schema.identities).values(
                person_id=ada.asked.person_id, connection_id=hub, external_id="H1", email=ADA, attributes={}, digest=b""
            )
        )
        deliveries.request_write_back(tx, [ada.asked.person_id], clock.now_ms())
    other = Sink()
    assert push_scores.run(make_context(store, clock, {"crm": sink, "hub": other})).done == 2
    assert other.shown["H1"]["nps_last_surveyed_at"] == sink.shown[ada.record]["nps_last_surveyed_at"]
    assert other.shown["H1"]["nps_score"] == 9


def test_a_touch_in_doubt_counts_as_asked_in_the_record(context: Context, town: Town, sink: Sink) -> None:
    cleo = town.invite(CLEO)
    with town.store.write() as tx:
        touches.mark_unknown(tx, [cleo.touch_id], context.clock.now_ms())
        deliveries.request_write_back(tx, [cleo.person_id], context.clock.now_ms())
    assert town.touch(cleo).state == TouchState.UNKNOWN
    push_scores.run(context)
    (shown,) = sink.shown.values()
    assert shown["nps_last_surveyed_at"] == context.clock.now()
