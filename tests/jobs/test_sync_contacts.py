"""Reading the sources: page by page, killed anywhere, by several at once, from files that are broken."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from connectors import build
from core.clock import FixedClock
from core.errors import RateLimited, Unauthorized, Unavailable
from core.jobs import sync_contacts
from core.ports import BadRecord, Bookmark, ContactDeleted
from core.storage import bookmarks, leases, schema
from core.storage.deliveries import request_write_back
from core.storage.people_gone import SeenRecords
from core.storage.store import Store
from core.touches import TouchState
from tests.sources import World

ROOT = Path(__file__).resolve().parent.parent.parent
HEADER = ["id", "email", "first_name", "last_name", "company", "last_surveyed", "nps_score"]


@pytest.fixture
def world(store: Store, clock: FixedClock) -> World:
    return World(store, clock)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "customers.csv"


@pytest.fixture
def filed(store: Store, clock: FixedClock, file: Path) -> World:
    """A third source: a real file through the real connector. It comes first."""
    write_rows(file, rows(5))
    return World(store, clock, {"file": build("csv", {"path": str(file)})})


def rows(number: int, **changed: str) -> list[list[str]]:
    return [
        [str(i), changed.get(f"email{i}", f"c{i}@acme.example"), f"First{i}", f"Last{i}", f"Company {i % 7}",
         "2026-06-01" if i % 4 == 0 else "", ""]
        for i in range(number)
    ]  # fmt: skip


def write_rows(path: Path, written: Sequence[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([HEADER, *written])


def state_of(world: World, name: str) -> tuple[str, str]:
    (row,) = world.rows(select(schema.connections).where(schema.connections.c.name == name))
    return row.state, row.reason


# --- whole reads ------------------------------------------------------------------------------------------------------


def test_a_first_read_makes_people_and_allows_waves(world: World) -> None:
    for number in range(5):
        world.crm.put(str(number), f"c{number}@acme.example")
    report = world.sync()
    assert (report.done, report.failed, report.messages) == (5, 0, [])
    (row,) = world.rows(select(schema.connections).where(schema.connections.c.name == "crm"))
    assert (row.state, row.full_read_at, row.synced_at) == ("ok", world.now, world.now)


def test_history_is_imported_as_outside_asks_before_the_first_wave_may_run(world: World) -> None:
    for number in range(10):
        world.crm.put(str(number), f"c{number}@acme.example", last_surveyed_at="2026-06-01")
    world.crm.page_size, world.crm.error = 3, None
    stopped = iter(world.crm.read_contacts(Bookmark()))
    pages = [next(stopped), next(stopped)]
    world.crm.read_contacts = lambda start: iter(pages)  # type: ignore[method-assign]  # it ends half-way
    world.sync()
    (row,) = world.rows(select(schema.connections).where(schema.connections.c.name == "crm"))
    assert row.full_read_at is None, "no wave yet"
    del world.crm.read_contacts
    world.sync()
    (row,) = world.rows(select(schema.connections).where(schema.connections.c.name == "crm"))
    assert row.full_read_at == world.now
    assert {row.source for row in world.rows(select(schema.touches))} == {"outside"}
    assert world.count(schema.touches) == 10


def test_a_second_sync_with_nothing_changed_writes_nothing(filed: World) -> None:
    filed.crm.put("1", "ada@acme.example", last_surveyed_at="2026-06-01", nps={"nps_score": "3"})
    filed.hub.put("7", "ada@acme.example", opted_out=True)
    filed.sync()
    before = filed.contents()
    filed.clock.advance(hours=1)
    assert filed.sync().done == 0
    assert filed.contents() == before


def test_a_file_saved_again_with_the_same_rows_writes_nothing_but_its_bookmark(filed: World, file: Path) -> None:
    filed.sync()
    before = filed.contents("bookmarks")
    text = file.read_text()
    file.write_text(text.replace("\r\n", "\n"), newline="")
    assert filed.sync().done == 0
    assert filed.contents("bookmarks") == before


def test_a_change_of_one_row_writes_that_row_alone(filed: World, file: Path) -> None:
    filed.sync()
    write_rows(file, rows(5, email3="new@acme.example"))
    assert filed.sync().done == 1
    assert filed.record("file:3").email == "new@acme.example"


def test_plans_are_made_again_only_after_a_change(world: World) -> None:
    def next_plan() -> Any:
        return world.rows(select(schema.waves.c.next_plan_at))[0][0]

    def planned() -> None:
        with world.store.write() as tx:
            tx.execute(schema.waves.update().values(next_plan_at=world.now + 1))

    world.crm.put("1", "ada@acme.example")
    planned()
    world.sync()
    assert next_plan() is None
    planned()
    world.sync()
    assert next_plan() is not None


def test_a_worker_leaves_a_source_alone_that_it_read_a_moment_ago(world: World) -> None:
    world.sync()
    world.crm.put("1", "ada@acme.example")
    assert sync_contacts.run(world.context, due_only=True).done == 0
    world.clock.advance(minutes=sync_contacts.SYNC_MINUTES)
    assert sync_contacts.run(world.context, due_only=True).done == 1


# --- bad rows ---------------------------------------------------------------------------------------------------------


def test_bad_rows_are_kept_with_their_line_and_stop_nobody(filed: World, file: Path) -> None:
    written = rows(6)
    written[2][0] = ""
    written[4][5] = "soon"
    write_rows(file, written)
    report = filed.sync()
    assert report.failed == 0
    bad = filed.rows(select(schema.bad_records).order_by(schema.bad_records.c.place))
    assert [row.place for row in bad] == ["line 4", "line 6"]
    assert "no id" in bad[0].reason
    assert '"soon" is no date' in bad[1].reason
    assert len(filed.people()) == 5
    assert any("2 records could not be used: line" in message for message in report.messages)
    write_rows(file, rows(6))
    filed.sync()
    assert filed.count(schema.bad_records) == 0, "mended"


def test_of_very_many_bad_records_a_thousand_are_kept_and_all_are_counted(world: World) -> None:
    world.crm.put("1", "ada@acme.example")
    world.crm.bad = [BadRecord(f"line {number}", "is odd") for number in range(1200)]
    (message,) = world.sync().messages
    assert "1200 records could not be used" in message
    assert "and 1197 more" in message
    assert world.count(schema.bad_records) == 1000


# --- sources that fail ------------------------------------------------------------------------------------------------


def test_a_vanished_file_marks_its_connection_broken_and_the_others_go_on(filed: World, file: Path) -> None:
    filed.sync()
    people = filed.count(schema.people)
    file.rename(file.with_suffix(".away"))
    filed.crm.put("1", "ada@acme.example")
    report = filed.sync()
    assert (report.done, report.failed) == (1, 1)
    state, reason = state_of(filed, "file")
    assert state == "broken"
    assert str(file) in reason
    assert any(reason in message for message in report.messages)
    assert filed.count(schema.people) == people + 1, "nobody is gone because a file is"
    file.with_suffix(".away").rename(file)
    assert filed.sync().failed == 0
    assert state_of(filed, "file") == ("ok", "")


def test_a_file_of_another_kind_marks_its_connection_broken(filed: World, file: Path) -> None:
    filed.sync()
    file.write_bytes(b"PK\x03\x04" + bytes(range(256)) * 20)
    assert filed.sync().failed == 1
    assert state_of(filed, "file")[0] == "broken"
    assert len(filed.people()) == 5


def test_a_refused_source_opens_an_incident_and_closes_it_when_it_works_again(world: World) -> None:
    world.crm.error = Unauthorized("the token was refused")
    assert world.sync().failed == 1
    (incident,) = world.rows(select(schema.incidents))
    assert (incident.kind, incident.closed_at) == ("connection", None)
    world.crm.error = None
    world.sync()
    (incident,) = world.rows(select(schema.incidents))
    assert incident.closed_at == world.now


def test_an_error_nobody_thought_of_stops_one_source_alone(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def explode(start: Bookmark) -> Any:
        raise ZeroDivisionError("division by zero")

    world.crm.read_contacts = explode  # type: ignore[method-assign]
    world.hub.put("7", "ada@acme.example")
    report = world.sync()
    assert (report.done, report.failed) == (1, 1)
    assert "crm: ZeroDivisionError" in report.messages[0]


def test_a_source_that_wants_less_is_left_alone_for_as_long_as_it_says(world: World) -> None:
    world.crm.error = RateLimited("slowly", retry_after=120)
    world.sync()
    (bucket,) = world.rows(select(schema.rate_buckets))
    assert bucket.blocked_until == world.now + 120_000
    assert state_of(world, "crm")[0] == "new", "that is no fault"
    world.crm.error = None
    world.crm.put("1", "ada@acme.example")
    assert world.sync().messages == ["crm: the vendor asked to wait 120 s"]
    assert world.crm.pages_read == 0
    world.clock.advance(seconds=120)
    assert world.sync().done == 1


def test_a_read_that_breaks_off_goes_on_where_it_was(world: World) -> None:
    for number in range(10):
        world.crm.put(str(number), f"c{number}@acme.example")
    world.crm.page_size = 3
    whole = world.crm.read_contacts

    def breaks_off(start: Bookmark) -> Any:
        pages = whole(start)
        yield next(pages)
        yield next(pages)
        raise Unavailable("the line is dead")

    world.crm.read_contacts = breaks_off  # type: ignore[method-assign]
    assert world.sync().done == 6
    world.crm.read_contacts = whole  # type: ignore[method-assign]
    world.crm.pages_read = 0
    assert world.sync().done == 4
    assert world.crm.pages_read == 2
    assert len(world.people()) == 10


# --- those that are missing -------------------------------------------------------------------------------------------


def test_records_a_whole_read_does_not_show_are_gone(filed: World, file: Path) -> None:
    write_rows(file, rows(10))
    filed.sync()
    write_rows(file, rows(10)[2:])
    assert filed.sync().done == 2
    assert filed.people() == [{f"file:{number}"} for number in range(2, 10)]
    assert filed.count(schema.tombstones) == 2


def test_a_row_that_becomes_unreadable_loses_nobody(filed: World, file: Path) -> None:
    write_rows(file, rows(10))
    filed.sync()
    written = rows(10)
    written[3] = written[3][:2]  # somebody's editor has cut it off
    write_rows(file, written)
    assert filed.sync().done == 0
    assert {"file:3"} in filed.people()
    write_rows(file, rows(10))
    assert filed.sync().done == 0


def test_who_is_missing_goes_at_the_next_read_if_this_one_ends_before(filed: World, file: Path) -> None:
    """The records were read and stored; the disk is full when those that are gone are to be removed."""
    write_rows(file, rows(10))
    filed.sync()
    written = rows(10, email5="new@acme.example")[1:]
    written[3][0] = ""
    write_rows(file, written)
    with filed.store.write() as tx:
        tx.exec_driver_sql(
            "CREATE TRIGGER full BEFORE INSERT ON tombstones BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        )
    assert filed.sync().failed == 1
    assert len(filed.people()) == 10
    with filed.store.write() as tx:
        tx.exec_driver_sql("DROP TRIGGER full")
    filed.sync()
    assert filed.people() == [{f"file:{number}"} for number in range(10) if number not in (0, 4)]
    assert filed.count(schema.bad_records) == 1, "what is wrong with the file is not forgotten either"


def test_more_than_a_fifth_missing_removes_nobody_and_says_so(filed: World, file: Path) -> None:
    write_rows(file, rows(10))
    filed.sync()
    write_rows(file, rows(10)[3:])
    report = filed.sync()
    assert len(filed.people()) == 10
    assert "3 of 10 records are missing from the source; nobody was removed" in report.messages[0]
    state, reason = state_of(filed, "file")
    assert (state, reason[:7]) == ("ok", "3 of 10")
    write_rows(file, rows(10))
    filed.sync()
    assert state_of(filed, "file") == ("ok", ""), "mended"


def test_an_empty_file_removes_nobody(filed: World, file: Path) -> None:
    filed.sync()
    write_rows(file, [])
    filed.sync()
    assert len(filed.people()) == 5


def test_a_read_of_changes_alone_removes_nobody(world: World) -> None:
    for number in range(10):
        world.crm.put(str(number), f"c{number}@acme.example")
    world.sync()
    world.crm.whole = False
    world.crm.remove("3")
    world.sync()
    assert len(world.people()) == 10


def test_what_the_source_says_is_gone_is_gone(world: World) -> None:
    world.crm.put("1", "ada@acme.example")
    world.sync()
    pending = world.ask("crm:1", TouchState.RESERVED)
    world.crm.whole = False
    del world.crm.contacts["1"]
    world.crm.tell(ContactDeleted("1"))
    assert world.sync().done == 1
    assert world.people() == []
    assert (world.touch(pending).state, world.message(pending)) == (TouchState.RETURNED, "cancelled")
    world.crm.tell(ContactDeleted("1"))
    assert world.sync().done == 0


def test_seen_records_know_a_million_in_little_room() -> None:
    seen = SeenRecords()
    assert all(seen.add(number) for number in range(0, 1_000_000, 7))
    assert not seen.add(7)
    assert 7 in seen
    assert 8 not in seen
    assert 5_000_000 not in seen
    assert len(seen._bits) < 150_000


# --- what we wrote ourselves ------------------------------------------------------------------------------------------


def answer(world: World, name: str, score: int = 9) -> None:
    with world.store.write() as tx:
        tx.execute(
            schema.responses.insert().values(
                id=1, campaign_id=world.campaign, person_id=world.person(name), identity_id=world.record(name).id,
                score=score, comment="Fast; friendly", verdict="confirmed", signals=[], answered_at=world.now,
            )
        )  # fmt: skip
    want(world, name)


def want(world: World, name: str) -> None:
    with world.store.write() as tx:
        request_write_back(tx, [world.person(name)], world.now)


def test_our_own_echo_stores_nothing(world: World) -> None:
    world.crm.put("1", "ada@acme.example")
    world.sync()
    world.ask("crm:1", days_ago=1)
    answer(world, "crm:1")
    assert world.push().done == 1
    world.clock.advance(minutes=5)
    world.sync()
    assert len(world.touches("crm:1")) == 1
    assert world.behind() == set()
    before = world.contents()
    world.clock.advance(minutes=5)
    assert world.sync().done == 0
    assert world.push().done == 0
    assert world.contents() == before


@pytest.mark.parametrize("edited", ["3", "", "nine"])
def test_an_edited_score_is_put_back(world: World, edited: str) -> None:
    world.crm.put("1", "ada@acme.example")
    world.sync()
    world.ask("crm:1", days_ago=1)
    answer(world, "crm:1")
    world.push()
    world.clock.advance(minutes=5)
    world.sync()
    nps = {**world.crm.contacts["1"].nps, "nps_score": edited}
    world.crm.change("1", nps={name: text for name, text in nps.items() if text})
    world.clock.advance(minutes=5)
    world.sync()
    assert world.behind() == {"crm:1"}
    world.push()
    assert world.crm.contacts["1"].nps["nps_score"] == "9"


def test_an_edited_score_in_a_file_is_put_back(filed: World, file: Path) -> None:
    with filed.store.write() as tx:
        config = {"name": "relationship", "source": ["file"], "sender": "mail", "every_days": 90,
                  "write_back": ["file"]}  # fmt: skip
        tx.execute(schema.campaigns.update().values(config=config))
    filed.sync()
    answer(filed, "file:3")
    assert filed.push().done == 1
    assert column(file, "nps_score") == ["", "", "", "9", ""]
    filed.clock.advance(minutes=5)
    filed.sync()
    assert filed.behind() == set()
    file.write_text(file.read_text().replace(",9,", ",2,"), newline="")
    filed.clock.advance(minutes=5)
    filed.sync()
    filed.push()
    assert column(file, "nps_score") == ["", "", "", "9", ""]


def column(file: Path, name: str) -> list[str]:
    with file.open(encoding="utf-8", newline="") as opened:
        return [row[name] for row in csv.DictReader(opened)]


# --- killed, and several at once --------------------------------------------------------------------------------------


def process(database: Path, file: Path, clock: str = "2026-12-01T09:00") -> subprocess.Popen[bytes]:
    """A process that syncs the file once."""
    code = f"""
import logging, sys
from datetime import datetime, UTC
from pathlib import Path
from connectors import build
from core.clock import FixedClock
from core.jobs import sync_contacts
from core.processes import this_process
from core.storage.store import Store
from tests.world import make_context
clock = FixedClock(datetime.fromisoformat("{clock}").replace(tzinfo=UTC))
store = Store("sqlite:///{database}", clock)
context = make_context(store, clock, {{"file": build("csv", {{"path": "{file}"}})}}, owner=this_process())
report = sync_contacts.run(context)
print(report.done, report.failed, *report.messages)
sys.exit(1 if report.failed else 0)
"""
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)


def comparable(store: Store) -> dict[str, list[str]]:
    """What people, records and touches say, without numbers that depend on the order of things."""
    i, t, p, c = schema.identities.c, schema.touches.c, schema.people.c, schema.companies.c
    with store.read() as tx:
        return {
            "records": sorted(
                map(str, tx.execute(
                    select(i.external_id, i.email, i.first_name, i.last_surveyed_seen, i.digest, i.shared, i.is_primary,
                           c.name, p.source_opted_out)
                    .join(schema.people, p.id == i.person_id).outerjoin(schema.companies, c.id == i.company_id)
                ))
            ),
            "touches": sorted(
                map(str, tx.execute(
                    select(i.external_id, t.asked_at, t.state, t.source, t.origin)
                    .join(schema.identities, i.id == t.identity_id)
                    .where(i.person_id == t.person_id)
                ))
            ),
            "people": [str(tx.execute(select(schema.people.c.id)).all().__len__())],
        }  # fmt: skip


def fresh(folder: Path, clock: FixedClock, file: Path) -> World:
    folder.mkdir()
    store = Store(f"sqlite:///{folder / 'boucle.db'}", clock)
    schema.metadata.create_all(store.engine)
    world = World(store, clock, {"file": build("csv", {"path": str(file)})})
    with store.write() as tx:  # the other two are of this process alone
        tx.execute(schema.connections.update().where(schema.connections.c.name != "file").values(state="removed"))
    return world


NUMBER = 12_000


@pytest.fixture
def large(file: Path) -> Path:
    """Some addresses twice, with one name or with two."""
    written = rows(NUMBER)
    for number in range(0, NUMBER, 50):
        written[number][1] = written[number // 2][1]
    write_rows(file, written)
    return file


def test_killed_between_pages_and_run_again_equals_an_uninterrupted_run(
    tmp_path: Path, clock: FixedClock, large: Path
) -> None:
    whole = fresh(tmp_path / "whole", clock, large)
    whole.sync()
    killed = fresh(tmp_path / "killed", clock, large)
    kills = 0
    for wanted in (1, 2_000, 4_000, 6_000):
        child = process(tmp_path / "killed" / "boucle.db", large)
        while child.poll() is None and killed.count(schema.identities) < wanted:
            time.sleep(0.005)
        kills += child.poll() is None
        child.send_signal(signal.SIGKILL)
        child.communicate()
    assert kills >= 2, "the machine was too fast for this test: make the file larger"
    child = process(tmp_path / "killed" / "boucle.db", large)
    child.communicate()
    assert child.returncode == 0
    assert comparable(killed.store) == comparable(whole.store)
    for world in (whole, killed):
        world.store.close()


def test_two_processes_syncing_one_source_at_once_store_each_record_once(
    tmp_path: Path, clock: FixedClock, large: Path
) -> None:
    whole = fresh(tmp_path / "whole", clock, large)
    whole.sync()
    both = fresh(tmp_path / "both", clock, large)
    children = [process(tmp_path / "both" / "boucle.db", large) for _ in range(2)]
    assert [child.wait() for child in children] == [0, 0]
    for child in children:
        child.communicate()
    assert comparable(both.store) == comparable(whole.store)
    for world in (whole, both):
        world.store.close()


def test_a_reader_who_slept_through_its_lease_writes_nothing_more(world: World) -> None:
    """Its successor has begun: what the two read would be mixed."""
    for number in range(6):
        world.crm.put(str(number), f"c{number}@acme.example")
    world.crm.page_size = 2
    whole = world.crm.read_contacts
    taken: list[int | None] = []

    def slow(start: Bookmark) -> Any:
        for page in whole(start):
            yield page
            if not taken:
                world.clock.advance(minutes=10)
                with world.store.write() as tx:
                    lease = f"sync:{world.connections['crm']}"
                    taken.append(leases.acquire(tx, lease, "another process", world.now, 60_000))

    world.crm.read_contacts = slow  # type: ignore[method-assign]
    world.sync()
    assert taken == [2]
    assert world.count(schema.identities) == 2, "the page stored before"


def test_who_slept_until_another_had_read_removes_nobody(world: World) -> None:
    """The other one knows records that this one has not seen."""
    for number in range(10):
        world.crm.put(str(number), f"c{number}@acme.example")
    world.sync()
    whole = world.crm.read_contacts

    def overtaken(start: Bookmark) -> Any:
        pages = list(whole(start))
        world.crm.read_contacts = whole  # type: ignore[method-assign]
        world.crm.put("new", "new@acme.example")
        world.clock.advance(minutes=10)
        assert world.sync().done == 2
        yield from pages

    world.crm.remove("9")
    world.crm.read_contacts = overtaken  # type: ignore[method-assign]
    report = world.sync()
    assert any("another process" in message for message in report.messages)
    assert world.people() == [*({f"crm:{number}"} for number in range(9)), {"crm:new"}]


def test_a_page_whose_bookmark_somebody_moved_is_not_committed(world: World) -> None:
    for number in range(6):
        world.crm.put(str(number), f"c{number}@acme.example")
    world.crm.page_size = 3
    whole = world.crm.read_contacts

    def overtaken(start: Bookmark) -> Any:
        for page in whole(start):
            with world.store.write() as tx:
                bookmarks.put_bookmark(tx, world.connections["crm"], Bookmark("other"), world.now, bookmarks.CONTACTS)
            yield page

    world.crm.read_contacts = overtaken  # type: ignore[method-assign]
    report = world.sync()
    assert any("another process" in message for message in report.messages)
    assert world.count(schema.identities) == 0
    with world.store.read() as tx:
        assert bookmarks.read_bookmark(tx, world.connections["crm"]) == Bookmark("other")


def test_a_sync_that_is_asked_to_stop_ends_between_pages_and_goes_on_later(world: World) -> None:
    for number in range(9):
        world.crm.put(str(number), f"c{number}@acme.example")
    world.crm.page_size = 3
    whole = world.crm.read_contacts

    def stops(start: Bookmark) -> Any:
        for page in whole(start):
            world.context.stopping.set()
            yield page

    world.crm.read_contacts = stops  # type: ignore[method-assign]
    assert world.sync().done == 3
    world.context.stopping = threading.Event()
    world.crm.read_contacts = whole  # type: ignore[method-assign]
    assert world.sync().done == 6
    assert len(world.people()) == 9


def test_nobody_waits_long_while_thousands_are_stored(world: World) -> None:
    """A page of ours that wants to write gets its turn between two transactions of a sync."""
    for number in range(8000):
        world.crm.put(str(number), f"c{number}@acme.example", last_surveyed_at="2026-06-01" if number % 5 else None)
    world.crm.page_size = 4000
    waits: list[float] = []
    over = threading.Event()

    def page() -> None:
        while not over.is_set():
            started = time.monotonic()
            with world.store.write() as tx:
                leases.finish(tx, "page", "somebody", world.now)
            waits.append(time.monotonic() - started)
            time.sleep(0.01)

    visitor = threading.Thread(target=page)
    visitor.start()
    world.sync()
    over.set()
    visitor.join()
    assert len(waits) > 5
    assert sorted(waits)[len(waits) // 2] < 0.25, f"{len(waits)} waits, the longest {max(waits):.3f} s"
