"""The commands around the loop, and the JSON that other programs rely on: tick, preview, why, status."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from core.touches import TouchState
from tests.web.app import CUSTOMERS, WORKSPACE, Installation

JOBS = ["apply_inbox", "sync_contacts", "close_windows", "plan_waves", "deliver", "push_scores", "prune"]


@pytest.fixture
def site(tmp_path: Path) -> Installation:
    return Installation(tmp_path).set_up()


@pytest.fixture
def asked(site: Installation) -> Installation:
    """Everybody who may be asked was asked."""
    done = site.flask("tick")
    assert done.code == 0, done
    return site


def moment(text: str) -> datetime:
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


# --- tick -----------------------------------------------------------------------------------------------------------


def test_tick_json_has_a_row_per_use_case(site: Installation) -> None:
    said = site.flask("tick", "--json")
    assert said.code == 0
    assert list(said.document) == ["jobs"]
    assert [one["job"] for one in said.document["jobs"]] == JOBS
    for one in said.document["jobs"]:
        assert list(one) == ["job", "done", "failed", "seconds"]
        assert one["failed"] == 0
    assert len(site.mails()) == 3


def test_tick_prints_a_line_per_use_case(site: Installation) -> None:
    said = site.flask("tick")
    assert [line.split()[0] for line in said.lines] == ["job", *JOBS]


def test_second_tick_asks_nobody(asked: Installation) -> None:
    before = asked.mails()
    assert asked.flask("tick").code == 0
    assert asked.mails() == before


def test_tick_goes_on_where_a_source_is_gone_and_ends_with_1(asked: Installation) -> None:
    (asked.folder / "customers.csv").unlink()
    said = asked.flask("tick", "--json")
    assert said.code == 1
    assert "customers.csv" in said.err
    assert [one["job"] for one in said.document["jobs"]] == JOBS
    (crm,) = [one for one in asked.flask("status", "--json").document["connections"] if one["name"] == "crm"]
    assert crm["state"] == "broken"
    assert "customers.csv" in crm["reason"]


def test_loop_from_customer_to_score_and_round_again(asked: Installation) -> None:
    asked.answer("ada@acme.example", 9, "Quick, friendly.")
    assert asked.flask("tick").code == 0
    ada, bo = asked.rows()["1"], asked.rows()["2"]
    assert (ada["nps_score"], ada["nps_category"], ada["nps_comment"]) == ("9", "promoter", "Quick, friendly.")
    assert ada["nps_responded_at"]
    assert (bo["nps_score"], bool(bo["nps_last_surveyed_at"])) == ("", True)
    later = asked.moved(91)
    assert later.flask("tick").code == 0
    assert len(list((asked.folder / "mailbox").rglob("*.eml*"))) == 6  # the same three, and never Dot


# --- preview --------------------------------------------------------------------------------------------------------


def preview(site: Installation, *options: str) -> dict[str, Any]:
    said = site.flask("preview", "relationship", "--json", *options)
    assert said.code == 0, said
    document: dict[str, Any] = said.document
    return document


def test_preview_tells_who_would_be_asked_and_who_not(asked: Installation) -> None:
    found = preview(asked.moved(91))
    assert {"campaign", "at", "counts", "asked", "not_asked", "expected_answers", "expected_margin"} <= set(found)
    assert found["campaign"] == "relationship"
    assert found["counts"] == {"asked": 3, "not_asked": {"opted_out": 1}}
    assert [set(one) for one in found["asked"]] == [{"person", "email"}] * 3
    assert [one["email"] for one in found["asked"]] == ["ada@acme.example", "bo@bolt.example", "cleo@corp.example"]
    (dot,) = found["not_asked"]
    assert set(dot) == {"person", "email", "rule", "until"}
    assert (dot["email"], dot["rule"], dot["until"]) == ("dot@dash.example", "opted_out", None)


def test_preview_reports_the_rule_and_the_date_that_frees(asked: Installation) -> None:
    found = preview(asked)
    assert found["counts"]["asked"] == 0
    ada = found["not_asked"][0]
    assert ada["rule"] == "same_type"
    assert moment(ada["until"]) - datetime.now(UTC) > timedelta(days=89)


def test_preview_changes_nothing(site: Installation) -> None:
    before = site.flask("status", "--json").out
    preview(site)
    after = site.flask("status", "--json").out
    assert re.sub(r'"lag_seconds": [\d.]+', "", after) == re.sub(r'"lag_seconds": [\d.]+', "", before)


def test_preview_at_another_moment(asked: Installation) -> None:
    later = (datetime.now(UTC) + timedelta(days=91)).replace(microsecond=0)
    found = preview(asked, "--at", later.isoformat())
    assert moment(found["at"]) == later
    assert found["counts"]["asked"] == 3
    assert preview(asked, "--at", later.date().isoformat())["at"].endswith("T00:00:00Z")


def test_limit_cuts_the_lists_and_never_the_counts(asked: Installation) -> None:
    found = preview(asked.moved(91), "--limit", "1")
    assert (len(found["asked"]), len(found["not_asked"])) == (1, 1)
    assert found["counts"]["asked"] == 3
    assert preview(asked.moved(91), "--limit", "0")["asked"] == []


def test_preview_for_people_names_rules_and_the_forecast(asked: Installation) -> None:
    said = asked.moved(91).flask("preview", "relationship", "--limit", "2")
    assert "Would be asked: 3" in said.out
    assert "and 1 more (--limit)" in said.out
    assert "opted_out" in said.out
    assert "Expected: " in said.out


@pytest.mark.parametrize(
    ("options", "code", "part"),
    [
        (["absent"], 1, "there is no campaign absent; there are: relationship"),
        (["relationship", "--at", "soon"], 2, "write it like 2026-12-24T09:00"),
        (["relationship", "--at", "0001-01-01"], 0, ""),
        (["relationship", "--limit", "-1"], 2, "--limit"),
        (["relationship", "--limit", "many"], 2, "--limit"),
        ([], 2, "Missing argument"),
    ],
)
def test_preview_of_what_is_not_there(asked: Installation, options: list[str], code: int, part: str) -> None:
    said = asked.flask("preview", *options)
    assert (said.code, "Traceback" in said.err, "should not" in said.err) == (code, False, False), said
    assert part in said.err


# --- why ------------------------------------------------------------------------------------------------------------


def why(site: Installation, address: str) -> dict[str, Any]:
    said = site.flask("why", address, "--json")
    assert said.code == 0, said
    document: dict[str, Any] = said.document
    return document


def test_why_shows_clocks_touches_and_the_next_free_date(asked: Installation) -> None:
    found = why(asked, "ada@acme.example")
    assert {"person", "identities", "clocks", "touches", "free_at"} <= set(found)
    (identity,) = found["identities"]
    assert (identity["connection"], identity["external_id"]) == ("crm", "1")
    clocks = {one["rule"]: one for one in found["clocks"]}
    for clock in clocks.values():
        assert {"rule", "last_at", "free_at", "blocks"} <= set(clock)
    assert clocks["same_type"]["blocks"] is True
    days = moment(clocks["same_type"]["free_at"]) - moment(clocks["same_type"]["last_at"])
    assert days == timedelta(days=90)
    (touch,) = found["touches"]
    assert {"campaign", "wave", "source", "state", "reserved_at"} <= set(touch)
    assert (touch["campaign"], touch["wave"], touch["source"]) == ("relationship", 1, "boucle")
    assert touch["state"] == "handed_over"
    assert found["free_at"] == clocks["same_type"]["free_at"]


def test_why_takes_the_address_as_it_is_compared(asked: Installation) -> None:
    assert why(asked, "ADA@acme.example")["person"] == why(asked, "ada@acme.example")["person"]
    assert why(asked, "ada+news@acme.example")["person"] == why(asked, "ada@acme.example")["person"]


def test_why_of_somebody_whom_no_date_frees(asked: Installation) -> None:
    found = why(asked, "dot@dash.example")
    assert found["free_at"] is None
    assert [one["rule"] for one in found["clocks"] if one["blocks"]] == ["opted_out"]
    assert "No date frees this person" in asked.flask("why", "dot@dash.example").out


def test_answer_binds_instead_of_the_ask(asked: Installation) -> None:
    asked.answer("cleo@corp.example", 3, "Late.")
    found = why(asked, "cleo@corp.example")
    assert found["touches"][0]["state"] == "answered"
    assert "after_answer" in {one["rule"] for one in found["clocks"] if one["blocks"]}


def test_why_for_people_is_readable(asked: Installation) -> None:
    said = asked.flask("why", "ada@acme.example")
    assert "Clocks" in said.out
    assert "Free from " in said.out
    assert asked.moved(120).flask("why", "ada@acme.example").out.rstrip().endswith("Free now.")


@pytest.mark.parametrize("address", ["nobody@acme.example", "not an address", "é@ü.example", ""])
def test_why_of_a_stranger_is_told_in_a_sentence(asked: Installation, address: str) -> None:
    said = asked.flask("why", address)
    assert (said.code, said.out) == (1, "")
    assert "is known" in said.err


# --- status ---------------------------------------------------------------------------------------------------------


def status(site: Installation) -> dict[str, Any]:
    said = site.flask("status", "--json")
    assert said.code == 0, said
    document: dict[str, Any] = said.document
    return document


def test_status_counts_every_state(asked: Installation) -> None:
    found = status(asked)
    assert {"touches", "deliveries", "inbox", "connections", "incidents"} <= set(found)
    assert set(found["touches"]) == {state.value for state in TouchState}
    assert found["touches"]["handed_over"] == 3
    assert found["inbox"] == {"ready": 0, "applying": 0, "done": 0, "failed": 0}
    assert found["incidents"] == []
    crm, mail = found["connections"]
    assert {"name", "kind", "state", "reason", "lag_seconds", "missing"} <= set(crm)
    assert (crm["name"], crm["kind"], crm["state"], crm["reason"]) == ("crm", "csv", "ok", "")
    assert 0 <= crm["lag_seconds"] < 60
    assert crm["missing"] == 0
    assert mail["lag_seconds"] is None


def test_status_of_an_empty_workspace(tmp_path: Path) -> None:
    site = Installation(tmp_path)
    site.flask("migrate")
    assert status(site)["connections"] == []
    assert "No connection is set up" in site.flask("status").out


def test_status_shows_the_moved_clock(asked: Installation) -> None:
    assert status(asked)["clock_offset"] == 0
    assert status(asked.moved(91))["clock_offset"] == 91 * 86400
    assert "91 days" in asked.moved(91).flask("status").out


def test_status_for_people(asked: Installation) -> None:
    said = asked.flask("status")
    assert said.err == ""
    assert re.search(r"^touches: +3 handed_over$", said.out, re.M)


# --- not live -------------------------------------------------------------------------------------------------------


def test_workspace_that_is_not_live_sends_to_test_recipients_alone(tmp_path: Path) -> None:
    trial = WORKSPACE.replace('name = "Acme"', 'name = "Acme"\nlive = false\ntest_recipients = ["me@acme.example"]')
    site = Installation(tmp_path).set_up(trial, CUSTOMERS)
    assert site.flask("tick").code == 0
    assert set(site.mails()) <= {"me@acme.example"}
    assert "not live" in site.flask("preview", "relationship").out
