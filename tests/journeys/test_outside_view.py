"""What an outsider noticed: the commands agree with each other, and what is erased stays erased."""

from __future__ import annotations

from pathlib import Path

from tests.web.app import WORKSPACE, Installation
from tests.web.survey import Respondent, link_of

READY = WORKSPACE.replace("[connections.crm]", "[brakes]\nfirst_wave = 0\n\n[connections.crm]")
COLLEAGUES = "id,first_name,email,company\n" + "".join(f"{n},Zoé,co{n}@firm.example,Firm\n" for n in range(10))


def asked_by(installed: Installation) -> set[str]:
    return {
        row.split(",")[2] for row in (installed.folder / "customers.csv").read_text().splitlines()[1:] if ",202" in row
    }


def test_the_preview_names_those_the_next_tick_asks(tmp_path: Path) -> None:
    installed = Installation(tmp_path).set_up(READY, COLLEAGUES)
    installed.flask("connections", "check", "crm")
    # the source is read, nobody may be asked yet
    assert installed.flask("campaigns", "stop", "relationship").code == 0
    assert installed.flask("tick").code == 0
    assert installed.flask("campaigns", "resume", "relationship").code == 0
    promised = {one["email"] for one in installed.flask("preview", "relationship", "--json").document["asked"]}
    assert len(promised) == 2
    assert installed.flask("tick").code == 0
    assert asked_by(installed) == promised


def test_why_knows_that_nothing_of_the_companys_share_is_left(tmp_path: Path) -> None:
    installed = Installation(tmp_path).set_up(READY, COLLEAGUES)
    assert installed.flask("tick").code == 0
    waiting = next(f"co{n}@firm.example" for n in range(10) if f"co{n}@firm.example" not in asked_by(installed))
    why = installed.flask("why", waiting, "--json").document
    (share,) = [clock for clock in why["clocks"] if clock["rule"] == "company_share"]
    assert share["blocks"] and why["free_at"] == share["free_at"]
    assert why["campaigns"][0]["rule"] == "company_share"
    rules = installed.flask("preview", "relationship", "--json").document["not_asked"]
    assert {one["until"] for one in rules if one["email"] == waiting} == {share["free_at"]}


def test_the_preview_lists_whom_a_campaign_that_skips_has_dropped(tmp_path: Path) -> None:
    lately = COLLEAGUES.replace("company\n", "company,last_surveyed\n").replace("Firm\n", "Firm,2026-11-01\n")
    installed = Installation(tmp_path).set_up(READY + 'blocked = "skip"\n', lately)
    assert installed.flask("tick").code == 0
    document = installed.flask("preview", "relationship", "--json").document
    assert sum(document["counts"]["not_asked"].values()) == len(document["not_asked"]) == 10
    assert {one["rule"] for one in document["not_asked"]} == {"same_type"}


def test_our_columns_do_not_make_a_row_fit_that_did_not(tmp_path: Path) -> None:
    rows = "id,email,x\n1,ada@acme.example,a\n2,bo@bolt.example,a,junk,2027-01-01\n"
    installed = Installation(tmp_path, {"BOUCLE_BASE_URL": "http://nps.example"}).set_up(READY, rows)
    for _ in range(3):
        assert installed.flask("tick").code == 0
    text = (tmp_path / "customers.csv").read_text()
    assert "2,bo@bolt.example,a,junk,2027-01-01" in text
    assert installed.flask("why", "bo@bolt.example").code == 1


def test_who_is_erased_and_still_in_the_source_comes_back_without_history(tmp_path: Path) -> None:
    installed = Installation(tmp_path, {"BOUCLE_BASE_URL": "http://nps.example"}).set_up(READY)
    assert installed.flask("tick").code == 0
    Respondent(installed.app(), link_of(installed, "ada@acme.example")).answer(2, "Never again")
    assert installed.flask("people", "erase", "ada@acme.example").code == 0
    database = b"".join(path.read_bytes() for path in (tmp_path / "instance").glob("boucle.db*"))
    assert b"ada@acme.example" not in database
    assert b"Never again" not in database
    assert installed.flask("tick").code == 0
    why = installed.flask("why", "ada@acme.example", "--json").document
    # the date that still stands in the file is all there is
    assert [(touch["source"], touch["answered_at"]) for touch in why["touches"]] == [("outside", None)]
    rules = {clock["rule"] for clock in why["clocks"] if clock["blocks"]}
    assert "opted_out" in rules and "after_answer" not in rules


def test_the_database_is_its_owners_alone(tmp_path: Path) -> None:
    installed = Installation(tmp_path).set_up(READY)
    for path in (installed.folder / "instance").glob("boucle.db*"):
        assert path.stat().st_mode & 0o077 == 0, path
