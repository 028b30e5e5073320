"""Looking at and mending single things by command: connections, campaigns, deliveries, responses, people."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select, update

from core.storage import schema
from tests.web.app import Installation, Said


@pytest.fixture
def site(tmp_path: Path) -> Installation:
    return Installation(tmp_path).set_up()


@pytest.fixture
def asked(site: Installation) -> Installation:
    assert site.flask("tick").code == 0
    return site


def refused(said: Said, part: str, code: int = 1) -> None:
    assert (said.code, said.out) == (code, ""), said
    assert "Traceback" not in said.err
    assert part in said.err


# --- connections ----------------------------------------------------------------------------------------------------


def test_connections_are_listed(asked: Installation) -> None:
    found = asked.flask("connections", "list", "--json").document
    assert [(one["name"], one["kind"], one["state"]) for one in found] == [
        ("crm", "csv", "ok"),
        ("mail", "mailbox", found[1]["state"]),
    ]
    assert found[0]["records"] == 4
    assert asked.flask("connections", "list").lines[1].split()[:3] == ["crm", "csv", "ok"]


def test_check_shows_how_the_fields_are_understood(site: Installation) -> None:
    said = site.flask("connections", "check", "crm", "--json")
    assert said.code == 0, said
    found = said.document
    assert (found["name"], found["kind"]) == ("crm", "csv")
    assert {"ContactSource", "ContactSink"} <= set(found["can"])
    assert {one["name"]: one["mapped_to"] for one in found["fields"]}["email"] == "email"
    assert "works" in site.flask("connections", "check", "crm").out


def test_check_of_a_file_that_is_gone_marks_the_connection(site: Installation) -> None:
    (site.folder / "customers.csv").unlink()
    refused(site.flask("connections", "check", "crm", "--json"), "customers.csv")
    assert site.flask("connections", "list", "--json").document[0]["state"] == "broken"
    site.write()
    assert site.flask("connections", "check", "crm").code == 0
    assert site.flask("connections", "list", "--json").document[0]["state"] == "ok"


@pytest.mark.parametrize("kind", ["csv", "smtp", "mailbox"])
def test_schema_of_a_kind_is_json_schema(site: Installation, kind: str) -> None:
    for said in (site.flask("connections", "schema", kind), site.flask("connections", "schema", kind, "--json")):
        assert said.code == 0
        assert said.document["type"] == "object"
        assert said.document["properties"]


def test_fields_that_are_missing_are_made(site: Installation) -> None:
    before = {one["name"]: one["exists"] for one in site.flask("connections", "fields", "crm", "--json").document}
    assert before["nps_score"] is False
    said = site.flask("connections", "fields", "crm", "--create", "--json")
    assert said.code == 0
    assert "created" in said.err
    assert all(one["exists"] for one in said.document)
    header = (site.folder / "customers.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header.startswith("id,first_name,last_name,email,language,opted_out,nps_")
    assert "nothing to create" in site.flask("connections", "fields", "crm", "--create").err


def test_what_is_not_connected_is_told_with_what_is(site: Installation) -> None:
    refused(site.flask("connections", "check", "cmr"), "there is no connection cmr; there are: crm, mail")
    refused(site.flask("connections", "fields", "mail"), "has no fields to show")
    refused(site.flask("connections", "schema", "cvs"), "there is no kind cvs", code=2)
    refused(site.flask("connections", "fields", "crm", "--mak"), "No such option", code=2)


# --- campaigns ------------------------------------------------------------------------------------------------------


def test_stopped_campaign_asks_nobody_until_it_is_resumed(site: Installation) -> None:
    said = site.flask("campaigns", "stop", "relationship")
    assert (said.code, said.lines) == (0, ["relationship is stopped; 0 asks not sent yet returned"])
    assert site.flask("tick").code == 0
    assert site.flask("status", "--json").document["touches"]["handed_over"] == 0
    (listed,) = site.flask("campaigns", "list", "--json").document
    assert (listed["name"], listed["state"], listed["reason"]) == ("relationship", "stopped", "stopped by hand")
    assert site.flask("campaigns", "resume", "relationship").lines == ["relationship goes on"]
    assert site.flask("tick").code == 0
    assert site.flask("status", "--json").document["touches"]["handed_over"] == 3
    assert site.flask("campaigns", "resume", "relationship").lines == ["relationship was running already"]


def test_campaigns_are_listed(asked: Installation) -> None:
    (row,) = asked.flask("campaigns", "list").lines[1:]
    assert row.split()[:4] == ["relationship", "active", "1", "3"]


@pytest.mark.parametrize("act", ["stop", "resume"])
def test_campaign_that_is_not_there_is_told_with_those_that_are(site: Installation, act: str) -> None:
    refused(site.flask("campaigns", act, "absent"), "there is no campaign absent; there are: relationship")
    refused(site.flask("campaigns", act), "Missing argument", code=2)


# --- deliveries -----------------------------------------------------------------------------------------------------


def fail_write_backs(site: Installation) -> list[int]:
    with site.context() as context, context.store.write() as tx:
        d = schema.deliveries
        tx.execute(update(d).where(d.c.kind == "write_back").values(state="failed", error="row 3 is gone"))
        return list(tx.scalars(select(d.c.id).where(d.c.kind == "write_back").order_by(d.c.id)))


def test_failed_deliveries_are_listed_in_the_vendors_words_and_replayed(asked: Installation) -> None:
    ids = fail_write_backs(asked)
    assert ids
    said = asked.flask("deliveries", "list", "--state", "failed", "--json")
    assert said.code == 0
    assert sorted(one["id"] for one in said.document) == ids
    assert {one["error"] for one in said.document} == {"row 3 is gone"}
    assert {one["state"] for one in said.document} == {"failed"}
    assert all(one["created_at"].endswith("Z") for one in said.document)
    replayed = asked.flask("deliveries", "replay", *map(str, ids))
    assert replayed.code == 0
    assert asked.flask("deliveries", "list", "--state", "failed", "--json").document == []


def test_survey_is_never_replayed(asked: Installation) -> None:
    """The person may have it already: the next wave asks them by the rules."""
    with asked.context() as context, context.store.write() as tx:
        d = schema.deliveries
        tx.execute(update(d).where(d.c.kind == "send").values(state="failed"))
        (first, *_) = tx.scalars(select(d.c.id).where(d.c.kind == "send"))
    refused(asked.flask("deliveries", "replay", str(first)), "not replayed")
    refused(asked.flask("deliveries", "replay", "999999"), "do not exist")


def test_deliveries_list_is_cut_where_asked(asked: Installation) -> None:
    assert len(asked.flask("deliveries", "list", "--limit", "1", "--json").document) == 1
    assert len(asked.flask("deliveries", "list").lines) > 3
    refused(asked.flask("deliveries", "list", "--state", "faild"), "'faild' is not one of", code=2)
    refused(asked.flask("deliveries", "list", "--limit", "0"), "--limit", code=2)
    refused(asked.flask("deliveries", "replay", "x"), "is not a valid integer", code=2)
    refused(asked.flask("deliveries", "replay"), "Missing argument", code=2)


def test_no_delivery_is_an_empty_list(site: Installation) -> None:
    assert site.flask("deliveries", "list", "--json").document == []
    assert "no delivery yet" in site.flask("deliveries", "list").err


# --- responses ------------------------------------------------------------------------------------------------------


def test_no_suspect_answer_is_an_empty_list(site: Installation) -> None:
    assert site.flask("responses", "list", "--json").document == []
    assert "no answer is suspect" in site.flask("responses", "list").err
    for act in ("release", "dismiss"):
        refused(site.flask("responses", act, "7"), "7")
        refused(site.flask("responses", act, "x"), "is not a valid integer", code=2)


def test_suspect_answer_counts_once_it_is_released(asked: Installation) -> None:
    asked.answer("ada@acme.example", 2, "Buy now!", website="https://spam.example")
    assert asked.flask("tick").code == 0
    (suspect,) = asked.flask("responses", "list", "--json").document
    assert (suspect["campaign"], suspect["score"]) == ("relationship", 2)
    assert suspect["answered_at"].endswith("Z")
    assert "honeypot" in suspect["signals"]
    assert asked.rows()["1"].get("nps_score", "") == ""
    assert "1 answer may be a machine's" in asked.flask("status").out
    released = asked.flask("responses", "release", str(suspect["id"]))
    assert released.lines == [f"answer {suspect['id']} counts now"]
    assert asked.flask("tick").code == 0
    assert asked.rows()["1"]["nps_score"] == "2"
    assert asked.flask("responses", "list", "--json").document == []


def test_dismissed_answer_is_taken_back(asked: Installation) -> None:
    asked.answer("ada@acme.example", 2, "Not mine.")
    assert asked.flask("tick").code == 0
    assert asked.rows()["1"]["nps_score"] == "2"
    with asked.context() as context, context.store.read() as tx:
        (answer,) = tx.scalars(select(schema.responses.c.id))
    assert asked.flask("responses", "dismiss", str(answer)).code == 0
    assert asked.flask("tick").code == 0
    assert asked.rows()["1"]["nps_score"] == ""


# --- people ---------------------------------------------------------------------------------------------------------


def test_erased_person_is_gone_and_never_asked_again(asked: Installation) -> None:
    said = asked.flask("people", "erase", "ada@acme.example")
    assert said.code == 0
    assert said.lines[0].startswith("1 person erased.")
    with asked.context() as context, context.store.read() as tx:
        assert not list(
            tx.scalars(select(schema.identities.c.id).where(schema.identities.c.email == "ada@acme.example"))
        )
    later = asked.moved(400)
    assert later.flask("tick").code == 0
    assert later.flask("status", "--json").document["touches"]["handed_over"] >= 2
    ada = [path for path in (asked.folder / "mailbox").rglob("*.eml*") if b"ada@acme.example" in path.read_bytes()]
    assert len(ada) == 1  # the one from before


def test_stranger_cannot_be_erased(asked: Installation) -> None:
    refused(asked.flask("people", "erase", "nobody@acme.example"), "nothing was erased")
    refused(asked.flask("people", "erase"), "Missing argument", code=2)


def test_every_command_explains_itself(site: Installation) -> None:
    from web.cli import COMMANDS

    for name in COMMANDS:
        said = site.flask(name, "--help")
        assert said.code == 0
        assert said.out.startswith(f"Usage: flask {name}")
