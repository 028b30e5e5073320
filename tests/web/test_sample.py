"""The sample workspace: invented customers whose dates make sense on any day, written without overwriting anything."""

from __future__ import annotations

import csv
import os
import re
import stat
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import pytest

from core.workspace_file import Surroundings, load_workspace_file
from web.sample import make_sample, with_dates
from web.wiring import Catalogue

TODAY = date(2026, 11, 25)


def customers(folder: Path) -> list[dict[str, str]]:
    with (folder / "customers.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_dates_are_counted_from_the_day_it_is_written(tmp_path: Path) -> None:
    assert with_dates("today-1,today+25,today,yesterday-3", TODAY) == "2026-11-24,2026-12-20,today,yesterday-3"
    make_sample(tmp_path, TODAY)
    assert not re.search(r"today[+-]\d", (tmp_path / "customers.csv").read_text(encoding="utf-8"))
    since = [date.fromisoformat(row["customer_since"]) for row in customers(tmp_path)]
    assert max(since) < TODAY
    assert max(since) > TODAY - timedelta(days=30)  # somebody is too new to be asked


def test_sample_shows_what_the_rule_is_for(tmp_path: Path) -> None:
    make_sample(tmp_path, TODAY)
    rows = customers(tmp_path)
    assert 55 <= len(rows) <= 70
    assert len({row["country"] for row in rows}) >= 10
    assert {row["language"] for row in rows} == {"en", "fr"}
    assert any(row["opted_out"] for row in rows)
    assert any(row["last_surveyed"] for row in rows)
    addresses = Counter(row["email"].casefold() for row in rows if row["email"])
    named = {(row["email"].casefold(), row["first_name"]) for row in rows}
    twice = [address for address, number in addresses.items() if number > 1]
    names = {address: {name for email, name in named if email == address} for address in twice}
    assert any(len(found) > 1 for found in names.values()), "a mailbox of two people"
    assert any(len(found) == 1 for found in names.values()), "one person with two records"
    assert Counter(row["company"] for row in rows).most_common(1)[0][1] >= 10, "a company whose share holds"
    assert all(row["email"].endswith(".example") for row in rows if "@" in row["email"]), "nobody real"


def test_sample_is_a_workspace_file_without_errors(tmp_path: Path) -> None:
    make_sample(tmp_path, TODAY)
    file = load_workspace_file(tmp_path / "workspace.toml", Surroundings(Catalogue()))
    assert [one.kind for one in file.connections] == ["csv", "mailbox"]
    assert [one.name for one in file.campaigns] == ["relationship"]


def test_what_is_there_already_stays_as_it_is(tmp_path: Path) -> None:
    make_sample(tmp_path, TODAY)
    (tmp_path / "customers.csv").write_text("mine")
    assert make_sample(tmp_path, TODAY) == []
    assert (tmp_path / "customers.csv").read_text() == "mine"
    (tmp_path / "workspace.toml").unlink()
    assert make_sample(tmp_path, TODAY) == [tmp_path / "workspace.toml"]
    assert {path.name for path in tmp_path.iterdir()} == {"customers.csv", "workspace.toml"}


def test_what_is_there_stays_where_the_file_system_knows_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "customers.csv").write_text("mine")
    assert make_sample(tmp_path, TODAY) == [tmp_path / "workspace.toml"]
    assert (tmp_path / "customers.csv").read_text() == "mine"


def test_folder_of_the_sample_is_its_owners_alone(tmp_path: Path) -> None:
    make_sample(tmp_path / "sample", TODAY)
    assert stat.S_IMODE((tmp_path / "sample").stat().st_mode) == 0o700


def test_sample_that_was_cut_short_is_made_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workspace file comes last: where it stands, the customers do too."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(os, "link", full)
        full_disk.setattr(Path, "rename", full)
        with pytest.raises(OSError, match="No space"):
            make_sample(tmp_path, TODAY)
    assert not list(tmp_path.iterdir())
    assert len(make_sample(tmp_path, TODAY)) == 2
