"""What of a read outlives it: plans to be made again, whether a source was read whole, what could not be used."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select, update

from core.clock import DAY_MS, MINUTE_MS, FixedClock
from core.errors import Unavailable
from core.jobs import sync_contacts
from core.jobs.context import Context, JobReport
from core.jobs.sync_contacts import LARGEST_BATCH, SMALLEST_BATCH, TRANSACTION_SECONDS, Pace
from core.ports import BadRecord, Bookmark, Contact, Page
from core.storage import bookmarks, schema
from core.storage.bad_records import bad_records_of
from core.storage.store import Store
from tests.ledger import add_campaign, add_connection, add_wave
from tests.shown import Listed, contact
from tests.world import make_context, set_workspace


class Crm:
    """One source, `crm`, and an open wave of people in it."""

    def __init__(self, store: Store, clock: FixedClock) -> None:
        self.store, self.clock = store, clock
        self.source: Any = Listed(page_size=2)
        set_workspace(store)
        with store.write() as tx:
            self.id = add_connection(tx, full_read_at=None, state="new")
            self.wave = add_wave(tx, add_campaign(tx))

    def context(self) -> Context:
        return make_context(self.store, self.clock, {"crm": self.source})

    def sync(self, *, due_only: bool = False) -> JobReport:
        return sync_contacts.run(self.context(), due_only=due_only)

    def plan(self) -> None:
        """As the planner leaves a wave: nothing to do for a day."""
        with self.store.write() as tx:
            tx.execute(update(schema.waves).values(next_plan_at=self.clock.now_ms() + DAY_MS))

    @property
    def row(self) -> Any:
        with self.store.read() as tx:
            return tx.execute(select(schema.connections).where(schema.connections.c.id == self.id)).one()

    @property
    def plans_wait(self) -> bool:
        with self.store.read() as tx:
            return tx.scalar(select(schema.waves.c.next_plan_at)) is None

    @property
    def bad(self) -> list[tuple[str, str]]:
        with self.store.read() as tx:
            return bad_records_of(tx, self.id)


@pytest.fixture
def crm(store: Store, clock: FixedClock) -> Crm:
    return Crm(store, clock)


def people(number: int) -> list[Contact]:
    return [contact(str(n), f"p{n}@acme.example", f"P{n}") for n in range(number)]


# --- plans ----------------------------------------------------------------------------------------------------------


def test_plans_are_made_again_for_what_a_killed_read_had_stored(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    crm.source.records = people(6)
    crm.sync()
    crm.source.records = [*(contact(str(n), f"new{n}@acme.example") for n in range(4)), *people(6)[4:]]
    crm.plan()
    monkeypatch.setattr(Listed, "read_contacts", killed_after(Listed.read_contacts, pages=2))
    with pytest.raises(Killed):
        crm.sync()
    monkeypatch.undo()
    assert not crm.plans_wait
    report = crm.sync()
    assert report.done == 0  # all that had changed was stored before, and nobody has planned it
    assert crm.plans_wait


def test_plans_are_made_again_when_a_source_breaks_off(crm: Crm) -> None:
    crm.source.records = people(6)
    crm.source.fails_after = (1, Unavailable("the line is down"))
    crm.plan()
    assert crm.sync().failed == 1
    assert crm.plans_wait


def test_read_without_news_leaves_plans_alone(crm: Crm) -> None:
    crm.source.records = people(6)
    crm.sync()
    crm.plan()
    crm.source.bad = [BadRecord("line 9", "has no id")]  # another version of the source, with the same records
    assert crm.sync().done == 0
    assert not crm.plans_wait


class Killed(BaseException):
    """As SIGKILL ends a process: no handler of ours sees it."""


def killed_after(read: Any, pages: int) -> Any:
    def read_contacts(self: Listed, start: Bookmark) -> Any:
        for number, page in enumerate(read(self, start)):
            if number == pages:
                raise Killed
            yield page

    return read_contacts


# --- read whole -----------------------------------------------------------------------------------------------------


def test_waves_wait_until_an_interrupted_first_read_is_complete(crm: Crm, clock: FixedClock) -> None:
    crm.source.records = people(6)
    crm.source.fails_after = (2, Unavailable("the line is down"))
    crm.sync()
    broken = crm.row
    assert (broken.full_read_at, broken.state, broken.reason) == (None, "broken", "the line is down")
    crm.source.fails_after = None
    clock.advance(hours=1)
    crm.sync()
    assert (crm.row.full_read_at, crm.row.state, crm.row.reason) == (clock.now_ms(), "ok", "")


class Changes:
    """A source that tells what has changed since a watermark, whoever began to read it."""

    def read_contacts(self, start: Bookmark) -> Any:
        if not start.watermark and not start.cursor:
            yield Page(people(1), Bookmark(cursor="2"))
            raise Unavailable("the line is down")
        yield Page(people(2), Bookmark(watermark="w2"), last=True)


def test_first_read_resumed_by_its_cursor_is_complete_at_its_end(crm: Crm, clock: FixedClock) -> None:
    crm.source = Changes()
    crm.sync()
    broken = crm.row
    assert broken.full_read_at is None
    clock.advance(days=1)
    crm.sync()
    first = crm.row.full_read_at
    assert first == clock.now_ms()
    clock.advance(days=1)
    crm.sync()  # changes alone
    assert (crm.row.full_read_at, crm.row.synced_at) == (first, clock.now_ms())


class Slow(Listed):
    """The clock moves while it is read."""

    clock: FixedClock

    def read_contacts(self, start: Bookmark) -> Any:
        for page in super().read_contacts(start):
            yield page
            self.clock.advance(seconds=10)


def test_a_source_was_read_when_the_read_began(crm: Crm, clock: FixedClock) -> None:
    """What it shows is older than the end of the read: a value we wrote meanwhile may not be in it."""
    crm.source = Slow(*people(6), page_size=2)
    crm.source.clock = clock
    began = clock.now_ms()
    crm.sync()
    assert crm.row.synced_at == began < clock.now_ms()


@pytest.mark.parametrize(("minutes", "read"), [(None, True), (1, True), (3, False)])
def test_a_worker_reads_a_source_as_often_as_its_settings_say(
    crm: Crm, clock: FixedClock, minutes: int | None, read: bool
) -> None:
    with crm.store.write() as tx:
        tx.execute(update(schema.connections).values(config={} if minutes is None else {"sync_minutes": minutes}))
    crm.sync()
    crm.source.records = people(1)
    clock.advance(minutes=2)
    assert crm.sync(due_only=True).done == int(read)
    assert crm.row.synced_at == clock.now_ms() - (0 if read else 2 * MINUTE_MS)


class Forgetful(Listed):
    """It says of a read that was resumed that it saw every record."""

    def read_contacts(self, start: Bookmark) -> Any:
        for page in super().read_contacts(start):
            yield replace(page, full=page.last)


def test_a_read_resumed_by_another_process_removes_nobody(crm: Crm) -> None:
    crm.source = Forgetful(*people(6), page_size=2)
    crm.source.fails_after = (2, Unavailable("the line is down"))
    crm.sync()
    crm.source.fails_after = None
    crm.sync()
    with crm.store.read() as tx:
        gone = select(schema.identities.c.external_id).where(schema.identities.c.gone_at.is_not(None))
        assert tx.scalars(gone).all() == []
    assert (crm.row.reason, crm.row.full_read_at) == ("", crm.clock.now_ms())


# --- what is missing, what cannot be used ---------------------------------------------------------------------------


def test_what_is_said_of_missing_records_is_taken_back_when_they_are_there_again(crm: Crm) -> None:
    crm.source.records = people(10)
    crm.sync()
    crm.source.records = people(5)
    crm.sync()
    assert crm.row.state == "ok"
    assert crm.row.reason.startswith("5 of 10 records are missing from the source; nobody was removed.")
    crm.sync()  # the same file once more
    assert crm.row.reason.startswith("5 of 10")
    crm.source.records = people(9)
    assert crm.sync().done == 1
    assert crm.row.reason == ""


def test_unreadable_date_is_told_until_it_is_mended(crm: Crm) -> None:
    ada, bo = contact("1", "ada@acme.example", last_surveyed_at="last spring", line=7), contact("2", line=8)
    crm.source.records = [ada, bo]
    report = crm.sync()
    told = ("line 7", '"last spring" is no date of a last survey; it was ignored')
    assert crm.bad == [told]
    assert report.messages == ["crm: 1 record could not be used: " + ": ".join(told)]
    crm.source.records = [ada, contact("2", "bo@acme.example", line=8)]
    crm.sync()  # the record itself has not changed
    assert crm.bad == [told]
    crm.source.records = [contact("1", "ada@acme.example", last_surveyed_at="2026-04-01", line=7), bo]
    crm.sync()
    assert crm.bad == []


def test_record_without_a_line_is_named_by_its_id(crm: Crm) -> None:
    crm.source.records = [contact("A-1", last_surveyed_at="?")]
    crm.sync()
    assert crm.bad[0][0] == "record A-1"


# --- in turns -------------------------------------------------------------------------------------------------------


def test_batches_follow_the_time_their_statements_take() -> None:
    pace = Pace()
    first = pace.size
    pace.note(first, TRANSACTION_SECONDS / 100)
    assert pace.size == 2 * first  # not at once: the next ones may be dearer
    for _ in range(10):
        pace.note(pace.size, TRANSACTION_SECONDS / 100)
    assert pace.size == LARGEST_BATCH
    pace.note(pace.size, 4 * TRANSACTION_SECONDS)
    assert pace.size == LARGEST_BATCH // 4
    pace.note(pace.size, 60)
    assert pace.size == SMALLEST_BATCH
    pace.note(0, 60)
    assert pace.size == SMALLEST_BATCH


def test_where_we_are_is_written_down_now_and_then_though_nothing_has_changed(
    crm: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    crm.source.records = people(6)
    crm.sync()
    crm.source.bad = [BadRecord("line 9", "has no id")]
    kept: list[Bookmark] = []

    def look(message: str) -> None:
        with crm.store.read() as tx:
            kept.append(bookmarks.read_bookmark(tx, crm.id))

    context = crm.context()
    context.progress = look
    monkeypatch.setattr(sync_contacts, "NOTED_SECONDS", -1.0)
    sync_contacts.run(context)
    look("")
    assert [bool(one.cursor) for one in kept] == [True, True, True, False]  # the end is noted last of all
