"""Whatever happens to records, in whatever order: who is who, what follows from it, and no touch is ever lost."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import pytest
from sqlalchemy import select

from core.clock import FixedClock
from core.contacts import differ, is_role_address, name_key
from core.ports import ContactDeleted, ContactMerged
from core.storage import schema
from core.storage.people_links import link, split
from core.storage.store import Store
from core.touches import TouchState
from tests.sources import Source, World

NAMES = ("Ada", "Ada", "Ada", "Bo", None)
EMAILS = ("x@acme.example", "X+tag@acme.example", "y@acme.example", "info@acme.example", "z@acme.example", None)
IDS = tuple("123456")
DAYS = (None, None, "2026-03-01", "2026-10-10", "2026-11-28")


class Fate:
    """Changes two sources and the world at random, and knows what was sent from which record."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.choose = random.Random(seed)
        self.sent: dict[str, set[int]] = defaultdict(set)
        self.merged: dict[str, str] = {}  # loser -> winner
        for source in (world.crm, world.hub):
            source.whole = False

    def step(self) -> None:
        name, source = self.choose.choice((("crm", self.world.crm), ("hub", self.world.hub)))
        external_id = self.choose.choice(IDS)
        acts = (self.show, self.show, self.show, self.delete, self.merge, self.ask, self.ask, self.split, self.link)
        self.choose.choice(acts)(name, source, external_id)
        if self.choose.random() < 0.7:
            self.sync()
            self.world.clock.advance(hours=self.choose.randrange(1, 48))

    def sync(self) -> None:
        report = self.world.sync()
        assert not report.failed, report.messages

    def show(self, name: str, source: Source, external_id: str) -> None:
        pick = self.choose.choice
        self.merged.pop(f"{name}:{external_id}", None)  # the merge was undone
        source.put(
            external_id, pick(EMAILS), first_name=pick(NAMES), last_surveyed_at=pick(DAYS),
            opted_out=self.choose.random() < 0.1, hold_until=pick((None, None, "2027-01-01", "2027-02-02")),
        )  # fmt: skip

    def delete(self, name: str, source: Source, external_id: str) -> None:
        if source.contacts.pop(external_id, None) is not None:
            source.tell(ContactDeleted(external_id))
            self._forget(f"{name}:{external_id}")

    def merge(self, name: str, source: Source, external_id: str) -> None:
        winner = self.choose.choice(IDS)
        if winner != external_id and source.contacts.pop(external_id, None) is not None:
            source.tell(ContactMerged(winner, (external_id,)), first=self.choose.random() < 0.5)
            self.merged[f"{name}:{external_id}"] = f"{name}:{winner}"
            if winner not in source.contacts:
                self.show(name, source, winner)

    def ask(self, name: str, source: Source, external_id: str) -> None:
        self.sync()
        if external_id in source.contacts:
            person = self.world.person_row(f"{name}:{external_id}")
            state = self.choose.choice((TouchState.HANDED_OVER, TouchState.RESERVED, TouchState.RETURNED))
            if state is TouchState.RESERVED and (person.opted_out_at or person.source_opted_out):
                return
            touch = self.world.ask(f"{name}:{external_id}", state, days_ago=self.choose.randrange(100))
            self.sent[f"{name}:{external_id}"].add(touch)

    def split(self, name: str, source: Source, external_id: str) -> None:
        self.sync()
        if external_id in source.contacts and len(self._of_person(f"{name}:{external_id}")) > 1:
            with self.world.change() as tx:
                split(tx, self.world.record(f"{name}:{external_id}").id, self.world.now)

    def link(self, name: str, source: Source, external_id: str) -> None:
        self.sync()
        other = self.choose.choice(IDS)
        if external_id in source.contacts and other in self.world.hub.contacts:
            with self.world.change() as tx:
                link(tx, self.world.person(f"{name}:{external_id}"), self.world.person(f"hub:{other}"), self.world.now)

    def _forget(self, name: str) -> None:
        """A record was deleted, and with it those merged into it."""
        self.sent.pop(name, None)
        for loser in [loser for loser, winner in self.merged.items() if winner == name]:
            del self.merged[loser]
            self._forget(loser)

    def heir(self, name: str) -> str:
        """The record that stands for this one now."""
        while name in self.merged:
            name = self.merged[name]
        return name

    def _of_person(self, name: str) -> frozenset[str]:
        return next(records for records in self.world.people() if name in records)


def check(fate: Fate) -> None:
    world = fate.world
    rows = world.rows(select(schema.identities))
    live = [row for row in rows if row.gone_at is None]
    people = {row.id: row for row in world.rows(select(schema.people))}
    assert {row.person_id for row in live} == set(people), "everybody has a record, and every record a person"
    _check_people(live, people)
    _check_mailboxes(live)
    touches = {row.id: row for row in world.rows(select(schema.touches))}
    owners = {row.id: row.person_id for row in rows}
    for touch in touches.values():
        assert (touch.person_id is None) == (touch.identity_id is None)
        assert touch.identity_id is None or owners[touch.identity_id] == touch.person_id, "sent from a record of theirs"
    for name, sent in fate.sent.items():
        if sent:
            mine = world.person(fate.heir(name))
            assert all(touches[one].person_id == mine for one in sent), f"{name} lost what was sent to it"
    waiting = [touch.person_id for touch in touches.values() if touch.state == TouchState.RESERVED]
    opted_out = {one for one, row in people.items() if row.source_opted_out or row.opted_out_at}
    assert not opted_out & set(waiting), "nothing is to leave to who opted out"


def _check_people(live: list[Any], people: dict[int, Any]) -> None:
    records: dict[int, list[Any]] = defaultdict(list)
    for row in live:
        records[row.person_id].append(row)
    for person, theirs in records.items():
        assert people[person].source_opted_out == any(row.opted_out for row in theirs)
        holds = [row.hold_until for row in theirs if row.hold_until is not None]
        assert people[person].hold_until == max(holds, default=None)
        for connection in {row.connection_id for row in theirs}:
            primary = [row for row in theirs if row.connection_id == connection and row.is_primary]
            assert len(primary) == 1, "asked through one record of each source"
            reachable = any(row.email for row in theirs if row.connection_id == connection)
            assert not reachable or primary[0].email


def _check_mailboxes(live: list[Any]) -> None:
    mailboxes: dict[bytes, list[Any]] = defaultdict(list)
    for row in live:
        if row.address_hash is not None:
            mailboxes[row.address_hash].append(row)
    for rows in mailboxes.values():
        names: dict[int, list[str]] = defaultdict(list)
        for row in rows:
            names[row.connection_id].append(name_key(row.first_name, row.last_name))
        shared = is_role_address(rows[0].email) or any(map(differ, names.values()))
        assert {row.shared for row in rows} == {shared}
    assert not any(row.shared for row in live if row.address_hash is None)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_to_records_people_stay_consistent(store: Store, clock: FixedClock, seed: int) -> None:
    fate = Fate(World(store, clock), seed)
    for _ in range(20):
        fate.step()
    fate.sync()
    check(fate)
    before = fate.world.contents()
    fate.sync()
    assert fate.world.contents() == before, "a sync with nothing changed writes nothing"
