"""Incidents and the suppression list: one open row per subject; an address that is never mailed again."""

from __future__ import annotations

import pytest

from core.storage import incidents, schema, suppressions
from core.storage.incidents import IncidentKind
from core.storage.store import Store, Transaction
from core.storage.suppressions import SuppressionReason

BRAKE, CONNECTION, DECLARED = IncidentKind.BRAKE, IncidentKind.CONNECTION, IncidentKind.DECLARED


def reasons(tx: Transaction) -> list[str]:
    return [one.reason for one in incidents.open_incidents(tx)]


def test_one_open_incident_per_subject_with_its_newest_reason(store: Store) -> None:
    with store.write() as tx:
        incidents.open_incident(tx, CONNECTION, "first", 1, connection_id=7)
        incidents.open_incident(tx, CONNECTION, "again", 2, connection_id=7)
        incidents.open_incident(tx, CONNECTION, "another", 3, connection_id=8)
        found = incidents.open_incidents(tx)
    assert [(one.reason, one.opened_at, one.connection_id) for one in found] == [("again", 1, 7), ("another", 3, 8)]


def test_kinds_and_subjects_do_not_mix(store: Store) -> None:
    with store.write() as tx:
        incidents.open_incident(tx, DECLARED, "everybody", 1)
        incidents.open_incident(tx, DECLARED, "one company", 2, company_id=5)
        incidents.open_incident(tx, BRAKE, "brake", 3, campaign_id=5)
        assert incidents.close_incidents(tx, DECLARED, 9) == 1
        assert reasons(tx) == ["one company", "brake"]
        assert incidents.close_incidents(tx, DECLARED, 9, company_id=6) == 0
        assert incidents.close_incidents(tx, DECLARED, 9, company_id=5) == 1
        assert reasons(tx) == ["brake"]


def test_after_it_is_closed_the_next_is_a_new_one(store: Store) -> None:
    with store.write() as tx:
        incidents.open_incident(tx, CONNECTION, "first", 1, connection_id=7)
        incidents.close_incidents(tx, CONNECTION, 2, connection_id=7)
        incidents.open_incident(tx, CONNECTION, "second", 3, connection_id=7)
        assert len(tx.execute(schema.incidents.select()).all()) == 2
        assert reasons(tx) == ["second"]


def test_when_the_last_brake_was_let_go_or_pulled(store: Store) -> None:
    with store.write() as tx:
        assert incidents.last_brake_at(tx, 1) == 0
        incidents.open_incident(tx, BRAKE, "too many bounces", 10, campaign_id=1)
        assert incidents.last_brake_at(tx, 1) == 10
        incidents.close_incidents(tx, BRAKE, 20, campaign_id=1)
        assert incidents.last_brake_at(tx, 1) == 20
        assert incidents.last_brake_at(tx, 2) == 0


# --- the suppression list ---------------------------------------------------------------------------------------------


def listed(store: Store) -> list[tuple[str, str, int]]:
    with store.read() as tx:
        return [(row.reason, row.source, row.created_at) for row in tx.execute(schema.suppressions.select())]


@pytest.mark.parametrize(
    ("first", "second", "stands"),
    [
        (SuppressionReason.HARD_BOUNCE, SuppressionReason.MANUAL, ("hard_bounce", "a", 1)),
        (SuppressionReason.HARD_BOUNCE, SuppressionReason.COMPLAINT, ("complaint", "b", 2)),
        (SuppressionReason.COMPLAINT, SuppressionReason.HARD_BOUNCE, ("complaint", "a", 1)),
        (SuppressionReason.COMPLAINT, SuppressionReason.COMPLAINT, ("complaint", "a", 1)),
    ],
)
def test_a_complaint_outlasts_everything_else_the_first_reason_stands(
    store: Store, first: SuppressionReason, second: SuppressionReason, stands: tuple[str, str, int]
) -> None:
    with store.write() as tx:
        suppressions.suppress(tx, b"ada", first, "", "a", 1)
        suppressions.suppress(tx, b"ada", second, "", "b", 2)
        assert suppressions.is_suppressed(tx, b"ada")
        assert not suppressions.is_suppressed(tx, b"bo")
    assert listed(store) == [stands]


def test_nobody_is_suppressed_without_an_address(store: Store) -> None:
    with store.write() as tx:
        suppressions.suppress(tx, None, SuppressionReason.MANUAL, "", "admin", 1)
    assert listed(store) == []


def test_what_a_vendor_says_is_cut_to_what_a_page_can_show(store: Store) -> None:
    with store.write() as tx:
        suppressions.suppress(tx, b"ada", SuppressionReason.HARD_BOUNCE, "x" * 5_000, "mail", 1)
        (row,) = tx.execute(schema.suppressions.select())
    assert len(row.detail) == 500
