"""How CSV files of all kinds are read: dialects, words in cells, bad rows, bookmarks, memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from connectors import build
from connectors.csv import Csv, dialect
from connectors.csv.reading import PAGE
from connectors.csv.seen import SeenIds
from core.errors import Misconfigured, Unavailable
from core.ports import Bookmark, Contact, capabilities
from tests.conformance.contact_source import contacts_of, read, said

ROWS = "id,email,first_name,country\n1,ada@client.example,Ada,GB\n2,bo@client.example,Bo,FR\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "customers.csv"


def connect(path: Path, **config: Any) -> Any:
    return build("csv", {"path": str(path), **config})


def contacts(path: Path, content: str | bytes, **config: Any) -> dict[str, Contact]:
    """The contacts of a file of this content, none of which may be bad."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    pages = read(connect(path, **config))
    assert [bad for page in pages for bad in page.bad] == []
    return contacts_of(pages)


def complaints(path: Path, content: str | bytes, **config: Any) -> tuple[Sequence[str], list[tuple[str, str]]]:
    """The ids of the good rows, and the bad ones."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    pages = read(connect(path, **config))
    return list(contacts_of(pages)), [(bad.where, bad.reason) for page in pages for bad in page.bad]


def test_reads_writes_and_shows_fields_on_this_machine(path: Path) -> None:
    assert capabilities(Csv) == ("ContactSource", "ContactSink", "FieldAdmin")
    assert not connect(path).reaches_outside()


# --- dialects -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_usual_dialects_are_found_out(path: Path, delimiter: str, end: str, encoding: str) -> None:
    text = delimiter.join(("id", "email", "Prénom", "Société")) + end
    text += delimiter.join(("1", "zoe@client.example", "Zoé", f'"Müller{delimiter} ""Œuvres""{end}& fils"')) + end
    text += delimiter.join(("2", "bo@client.example", "Bo", "")) + end
    found = contacts(path, text.encode(encoding))
    assert found["1"].first_name == "Zoé"
    assert found["1"].company == f'Müller{delimiter} "Œuvres"{end}& fils'
    assert [one.line for one in found.values()] == [2, 4]


def test_rows_of_another_encoding_are_read_one_by_one(path: Path) -> None:
    head = b"id,email,Nom\n"
    found = contacts(path, head + "1,a@x.example,Zoé\n".encode() + "2,b@x.example,Zoé\n".encode("cp1252"))
    assert {one.last_name for one in found.values()} == {"Zoé"}


def test_the_last_row_needs_no_line_end(path: Path) -> None:
    assert list(contacts(path, ROWS.removesuffix("\n"))) == ["1", "2"]


def test_lines_may_end_differently(path: Path) -> None:
    assert list(contacts(path, "id,email\r\n1,a@x.example\n2,b@x.example\r3,c@x.example")) == ["1", "2", "3"]


def test_blank_lines_and_rows_of_empty_cells_are_nobody(path: Path) -> None:
    assert list(contacts(path, "\n\n" + ROWS + ",,,\n\n , ,,\n,\n")) == ["1", "2"]


def test_a_spreadsheets_hint_at_the_delimiter_is_taken(path: Path) -> None:
    assert list(contacts(path, "sep=;\r\nid;email\r\n1;a@x.example\r\n")) == ["1"]


def test_a_delimiter_that_is_frequent_in_texts_misleads_nobody(path: Path) -> None:
    found = contacts(
        path, 'id;email;Société\n1;a@x.example;"Dupont, Durand, fils"\n2;b@x.example;Un, deux, trois, quatre\n'
    )
    assert found["2"].company == "Un, deux, trois, quatre"


def test_one_column_of_addresses_is_enough(path: Path) -> None:
    found = contacts(path, "Courriel\nAda@Client.example\nbo@client.example\n")
    assert [(one.external_id, one.email) for one in found.values()] == [
        ("ada@client.example", "Ada@Client.example"),
        ("bo@client.example", "bo@client.example"),
    ]


def test_configured_delimiter_and_encoding_are_obeyed(path: Path) -> None:
    text = "id|email|Nom\n1|a@x.example|Łoś, żółw; ą\n"
    assert contacts(path, text.encode("cp1250"), delimiter="|", encoding="cp1250")["1"].last_name == "Łoś, żółw; ą"
    tabs = "id\temail\n1\ta,b;c@x.example\n"
    for name in ("tab", "\t"):
        assert contacts(path, tabs, delimiter=name)["1"].email == "a,b;c@x.example"


@pytest.mark.parametrize(
    ("config", "field"),
    [({"encoding": "klingon"}, "encoding"), ({"encoding": "utf-16"}, "encoding"),
     ({"encoding": "shift_jis"}, "encoding"), ({"encoding": "base64"}, "encoding"),
     ({"delimiter": ",,"}, "delimiter"), ({"delimiter": "a"}, "delimiter"),
     ({"delimiter": '"'}, "delimiter"), ({"colour": "red"}, "colour")],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(path: Path, config: dict[str, str], field: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        connect(path, **config)
    assert refused.value.field == field


# --- columns ------------------------------------------------------------------------------------------------------


def test_usual_names_are_guessed_in_two_languages(path: Path) -> None:
    french = (
        "Identifiant;Adresse e-mail;PRENOM;nom;Société;Langue;Pays;Fuseau horaire;Téléphone;Responsable;client_depuis"
        ";Désinscrit;Dernière enquête\n"
        "1;a@x.example;Ada;Lovelace;Client;Français;GB;Europe/London;+44;Olga;31/12/2020;oui;4/3/2026\n"
    )
    english = (
        "Customer-ID,E-Mail,First Name,Last_Name,Company,Language,Country,Time Zone,Phone,Account owner,Customer since"
        ",Opt-out,Last surveyed\n"
        "1,a@x.example,Ada,Lovelace,Client,fr-FR,GB,Europe/London,+44,Olga,2020-12-31,yes,4/3/2026\n"
    )
    (one,), (other,) = contacts(path, french).values(), contacts(path, english).values()
    assert said(one) == said(other)
    assert said(one) == Contact(
        "1", "a@x.example", "Ada", "Lovelace", "Client", "fr", "GB", "Europe/London", "+44", "Olga",
        date(2020, 12, 31), True, "4/3/2026",
    )  # fmt: skip


def test_configured_names_come_before_guesses_and_an_empty_one_is_none(path: Path) -> None:
    text = "id,Kundennummer,email,Offre,Langue\n7,K1,a@x.example,pro,fr\n"
    fields = {"external_id": "kundennummer", "plan": "Offre", "language": ""}
    (found,) = contacts(path, text, fields=fields).values()
    assert (found.external_id, found.attributes, found.language) == ("K1", {"plan": "pro"}, None)


def test_only_mapped_columns_are_attributes_and_the_others_are_shown(path: Path) -> None:
    path.write_text("id,email,Offre,Ville\n1,a@x.example,pro,Lille\n", encoding="utf-8")
    connector = connect(path, fields={"plan": "Offre"})
    (page,) = read(connector)
    assert [one.attributes for one in page.items] == [{"plan": "pro"}]  # type: ignore[union-attr]
    shown = {one.name: (one.mapped_to, one.guessed) for one in connector.read_fields() if one.exists}
    assert shown == {
        "id": ("external_id", True),
        "email": ("email", True),
        "Offre": ("plan", False),
        "Ville": ("", False),
    }


@pytest.mark.parametrize(
    ("header", "fields", "sentence"),
    [
        ("Nom,Ville\nx,y\n", {}, 'neither a column of ids nor one of e-mail addresses; it has "Nom", "Ville"'),
        ("id,email\n", {"plan": "Offre"}, 'fields.plan: customers.csv has no column "Offre"; it has "id", "email"'),
        ("id,email,Plan,plan\n", {"plan": "PLAN"}, '2 columns "PLAN"'),
        ("id,email,nps_score,NPS score\n", {}, "2 columns nps_score"),
        ('id,"email\n1,2\n', {}, "quotation mark"),
        ("\n\n", {}, "no names of columns"),
    ],
)
def test_a_header_that_cannot_work_is_told(path: Path, header: str, fields: dict[str, str], sentence: str) -> None:
    path.write_text(header, encoding="utf-8")
    with pytest.raises(Misconfigured) as told:
        connect(path, fields=fields).check()
    assert sentence in str(told.value)
    assert "customers.csv" in str(told.value)


def test_the_companys_own_date_of_the_last_survey_is_the_one_read(path: Path) -> None:
    text = "id,email,Sondé le,nps_last_surveyed_at\n1,a@x.example,04/03/2026,2025-01-01\n"
    (own,) = contacts(path, text, fields={"last_surveyed_at": "Sondé le"}).values()
    (ours,) = contacts(path, text).values()
    assert (own.last_surveyed_at, ours.last_surveyed_at) == ("04/03/2026", "2025-01-01")
    assert own.nps == ours.nps == {"nps_last_surveyed_at": "2025-01-01"}


def test_our_own_column_of_the_last_survey_comes_before_a_guess(path: Path) -> None:
    text = "id,last surveyed,nps_last_surveyed_at\n1,2026-03-04,2026-11-20\n"
    assert contacts(path, text)["1"].last_surveyed_at == "2026-11-20"


def test_our_columns_may_have_names_of_the_companys(path: Path) -> None:
    (found,) = contacts(path, "id,Note NPS\n1,9\n", fields={"nps_score": "Note NPS"}).values()
    assert found.nps == {"nps_score": "9"}


# --- words in cells -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "language"),
    [("fr", "fr"), ("FR", "fr"), ("fr-FR", "fr"), ("fr_CA", "fr"), ("français", "fr"), ("French", "fr"),
     ("Anglais", "en"), ("English", "en"), ("nl-BE", "nl"), ("", None), ("esperanto", "esperanto")],
)  # fmt: skip
def test_languages_are_understood(path: Path, text: str, language: str | None) -> None:
    assert contacts(path, f"id,langue\n1,{text}\n")["1"].language == language


@pytest.mark.parametrize(
    "text", ["yes", "Oui", "x", "X", "1", "TRUE", "vrai", "désinscrit", "2025-04-01", "01/04/2025"]
)
def test_opted_out_is_understood(path: Path, text: str) -> None:
    assert contacts(path, f"id,désinscrit\n1,{text}\n")["1"].opted_out


@pytest.mark.parametrize("text", ["", "no", "Non", "0", "false", "FAUX", "-", "n/a"])
def test_not_opted_out_is_understood(path: Path, text: str) -> None:
    assert not contacts(path, f"id,désinscrit\n1,{text}\n")["1"].opted_out


@pytest.mark.parametrize("text", ["2026-12-31", "31/12/2026", "31.12.2026", "31-12-2026", "2026-12-31 23:59:00"])
def test_dates_are_read_day_first_or_iso(path: Path, text: str) -> None:
    assert contacts(path, f"id,client depuis\n1,{text}\n")["1"].customer_since == date(2026, 12, 31)


def test_a_last_survey_that_is_no_date_passes_as_it_is(path: Path) -> None:
    assert contacts(path, "id,last surveyed\n1,in spring?\n")["1"].last_surveyed_at == "in spring?"


def test_a_comment_made_harmless_for_spreadsheets_is_read_as_it_was_written(path: Path) -> None:
    found = contacts(path, "id,nps_comment\n1,'=1+1\n2,'tis fine\n3,'-)\n4,\"'\"\n")
    assert [one.nps["nps_comment"] for one in found.values()] == ["=1+1", "'tis fine", "-)", "'"]


# --- bad rows -----------------------------------------------------------------------------------------------------


def test_bad_rows_are_told_by_line_and_stop_nobody(path: Path) -> None:
    good, bad = complaints(
        path,
        "id,email,client depuis,désinscrit,nps_hold_until\n"
        "1,a@x.example,2020-01-01,,\n"
        "2,b@x.example\n"
        ",c@x.example,,,\n"
        '4,"d\n@x.example",2020-02-30,,\n'
        "5,e@x.example,,perhaps,\n"
        "6,f@x.example,,,soon\n"
        "7,g\0@x.example,,,\n"
        "1,h@x.example,,,\n"
        "9,i@x.example,,,,\n"
        "10,j@x.example,,,2027-01-01\n",
    )
    assert good == ["1", "10"]
    assert [where for where, _ in bad] == [f"line {n}" for n in (3, 4, 5, 7, 8, 9, 10, 11)]
    assert [reason for _, reason in bad] == [
        "has 2 cells, and there are 5 columns",
        'has no id in the column "id"',
        '"2020-02-30" in the column "client depuis" is no date: write it as 2026-12-31 or 31/12/2026',
        '"perhaps" in the column "désinscrit" is neither yes nor no',
        '"soon" in the column "nps_hold_until" is no date: write it as 2026-12-31 or 31/12/2026',
        "holds a NUL character",
        'has the id "1" of line 2: each customer needs an id of their own',
        "has 6 cells, and there are 5 columns",
    ]


def test_bad_rows_tell_whose_they_are_so_that_nobody_counts_as_gone(path: Path) -> None:
    path.write_text(
        "email;id;client depuis\na@x.example;A;2020-01-01\nb@x.example;B;soon\nc@x.example;C\n;;soon\nlost\n",
        encoding="utf-8",
    )
    (page,) = read(connect(path))
    assert [bad.external_id for bad in page.bad] == ["B", "C", "", ""]


def test_two_rows_with_one_address_for_an_id_are_told(path: Path) -> None:
    good, bad = complaints(path, "email\nada@x.example\nbo@x.example\nADA@x.example\n")
    assert good == ["ada@x.example", "bo@x.example"]
    assert bad == [("line 4", 'has the id "ada@x.example" of line 2: each customer needs an id of their own')]


def test_one_id_twice_is_told_over_pages_and_after_a_crash(path: Path) -> None:
    rows = [f"{n},p{n}@x.example\n" for n in range(PAGE + 500)]
    path.write_text("id,email\n" + "".join(rows) + "7,other@x.example\n", encoding="utf-8")
    pages = read(connect(path))
    again = read(connect(path), pages[0].bookmark)
    for page in (pages[-1], again[-1]):
        ((where, reason),) = [(bad.where, bad.reason) for bad in page.bad]
        assert (where, reason.split(":")[0]) == (f"line {PAGE + 502}", 'has the id "7" of line 9')


def test_a_quotation_mark_that_is_never_closed_costs_its_row_alone(path: Path) -> None:
    rows = [f'{n},p{n}@x.example,"Client {n}"\n' for n in range(1, 20_001)]
    rows[4] = '5,p5@x.example,"Client\n'
    rows[9_999] = '10000,"p10000@x.example,Client\n'
    rows[-1] = '20000,p20000@x.example,"Client'
    good, bad = complaints(path, "id,email,société\n" + "".join(rows))
    assert len(good) == 19_997
    assert [where for where, _ in bad] == ["line 6", "line 10001", "line 20001"]
    assert all("quotation mark" in reason for _, reason in bad)


def test_a_quotation_mark_that_would_swallow_the_whole_file_does_not(path: Path) -> None:
    rows = "".join(f"{n},p{n}@x.example,Client {n}\n" for n in range(2, 40_001))
    good, bad = complaints(path, 'id,email,société\n1,"p1@x.example,Client\n' + rows)
    assert len(good) == 39_999
    assert [where for where, _ in bad] == ["line 2"]


def test_quotation_marks_that_pair_up_over_rows_cost_no_row_between_them(path: Path) -> None:
    good, bad = complaints(path, 'id,x\n1,"a\n2,b\n3,c",d\n4,e\n')
    assert good == ["2", "4"]
    assert [where for where, _ in bad] == ["line 2", "line 4"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_where_the_file_happens_to_be_cut_into_blocks_makes_no_difference(
    path: Path, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ["id,x", "1,a", '2,"b', '""', 'c"', "3,", "4", '5,"d', "6,e", "", "7,é"]
    path.write_bytes(end.join(rows).encode())
    expected = read(connect(path))
    assert [one.line for one in contacts_of(expected).values()] == [2, 3, 6, 9, 11]
    for size in (*range(1, 60), 10_000):
        monkeypatch.setattr(dialect, "BLOCK", size)
        for batch in (1, 2, 100):
            monkeypatch.setattr(dialect, "BATCH", batch)
            pages = read(connect(path))
            assert [page.bad for page in pages] == [page.bad for page in expected]
            assert contacts_of(pages) == contacts_of(expected)
            assert pages[-1].bookmark == expected[-1].bookmark


def test_a_quotation_mark_inside_a_cell_is_a_sign_like_others(path: Path) -> None:
    assert contacts(path, 'id,société\n1,Tubes 5" et 6"\n')["1"].company == 'Tubes 5" et 6"'


def test_a_row_that_no_encoding_fits_is_told(path: Path) -> None:
    good, bad = complaints(path, b"id,nom\n1,Zo\xc3\xa9\n2,\x81\x8d\n3,Bo\n")
    assert good == ["1", "3"]
    assert bad == [("line 3", "holds bytes that are not UTF-8 or cp1252")]
    good, bad = complaints(path, b"id,nom\n1,Zo\xe9\n2,Bo\n", encoding="utf-8")
    assert (good, bad) == (["2"], [("line 2", "holds bytes that are not utf-8")])


def test_a_cell_of_a_megabyte_costs_its_row_alone(path: Path) -> None:
    good, bad = complaints(path, f"id,nom\n1,a\n2,{'x' * 1_000_000}\n3,c\n")
    assert good == ["1", "3"]
    assert [where for where, _ in bad] == ["line 3"]


# --- files that are none ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04rest of a workbook", "is a spreadsheet"),
        (b"\xff\xfei\0d\0", "UTF-16"),
        (b"\x7fELF\0\0\0\0", "is no text"),
        (bytes(range(1, 256)) * 20, "is no text"),
    ],
)
def test_what_is_no_csv_file_is_told(path: Path, content: bytes, sentence: str) -> None:
    path.write_bytes(content)
    for call in (lambda: connect(path).check(), lambda: read(connect(path)), lambda: connect(path).read_fields()):
        with pytest.raises((Misconfigured, Unavailable)) as told:
            call()
        assert sentence in str(told.value)
        assert str(path) in str(told.value)


def test_a_file_that_is_missing_or_a_folder_is_told(path: Path) -> None:
    with pytest.raises(Unavailable, match="there is no file"):
        connect(path).check()
    path.mkdir()
    with pytest.raises(Misconfigured, match="is a folder"):
        connect(path).check()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told(path: Path) -> None:
    path.write_text(ROWS, encoding="utf-8")
    path.chmod(0)
    with pytest.raises(Unavailable, match="cannot be read: permission denied"):
        read(connect(path))


# --- bookmarks ----------------------------------------------------------------------------------------------------


def many(path: Path, number: int = 3 * PAGE) -> None:
    rows = (f"{n},p{n}@client.example,P{n}\n" for n in range(number))
    path.write_text("id,email,first_name\n" + "".join(rows), encoding="utf-8")


def test_a_file_written_anew_with_the_same_content_is_not_read_again(path: Path) -> None:
    path.write_text(ROWS, encoding="utf-8")
    bookmark = read(connect(path))[-1].bookmark
    path.unlink()
    path.write_text(ROWS, encoding="utf-8")
    (page,) = read(connect(path), bookmark)
    assert (page.items, page.bookmark, page.full) == ([], bookmark, False)


def test_the_same_bytes_under_other_settings_are_read_again(path: Path) -> None:
    path.write_text(ROWS, encoding="utf-8")
    bookmark = read(connect(path))[-1].bookmark
    (page,) = read(connect(path, fields={"land": "country"}), bookmark)
    assert page.full
    assert contacts_of([page])["2"].attributes == {"land": "FR"}


def test_a_change_of_the_same_size_and_time_is_seen(path: Path) -> None:
    path.write_text(ROWS, encoding="utf-8")
    status = path.stat()
    bookmark = read(connect(path))[-1].bookmark
    path.write_text(ROWS.replace("Ada", "Eda"), encoding="utf-8")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert contacts_of(read(connect(path), bookmark))["1"].first_name == "Eda"


def test_a_file_changed_while_it_is_read_leaves_no_bookmark(path: Path) -> None:
    many(path)
    pages = connect(path).read_contacts(Bookmark())
    next(pages)
    with path.open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"XXXX\n")
    last = list(pages)[-1]
    assert (last.last, last.full, last.bookmark) == (True, False, Bookmark())


def test_a_file_replaced_while_it_is_read_is_read_to_its_old_end_and_then_anew(path: Path) -> None:
    many(path)
    pages = connect(path).read_contacts(Bookmark())
    first = next(pages)
    new = path.with_name("new")
    new.write_text(ROWS, encoding="utf-8")
    new.rename(path)
    rest = list(pages)
    assert len(contacts_of([first, *rest])) == 3 * PAGE
    assert list(contacts_of(read(connect(path), rest[-1].bookmark))) == ["1", "2"]


def test_after_a_resumed_read_the_next_one_is_whole(path: Path) -> None:
    many(path)
    first = next(connect(path).read_contacts(Bookmark()))
    resumed = read(connect(path), first.bookmark)
    assert not resumed[-1].full
    whole = read(connect(path), resumed[-1].bookmark)
    assert whole[-1].full
    assert len(contacts_of(whole)) == 3 * PAGE


def test_content_that_comes_back_after_a_broken_read_of_another_is_read_again(path: Path) -> None:
    path.write_text(ROWS, encoding="utf-8")
    stored = read(connect(path))[-1].bookmark
    many(path)
    broken = next(connect(path).read_contacts(stored)).bookmark
    path.write_text(ROWS, encoding="utf-8")
    assert list(contacts_of(read(connect(path), broken))) == ["1", "2"]


def test_a_change_before_the_cursor_begins_anew(path: Path) -> None:
    many(path)
    first = next(connect(path).read_contacts(Bookmark()))
    path.write_text(path.read_text(encoding="utf-8").replace("p7@", "q7@"), encoding="utf-8")
    pages = read(connect(path), first.bookmark)
    assert pages[-1].full
    assert contacts_of(pages)["7"].email == "q7@client.example"


def test_a_file_cut_short_before_the_cursor_is_read_from_the_beginning(path: Path) -> None:
    many(path)
    first = next(connect(path).read_contacts(Bookmark()))
    many(path, 10)
    (page,) = read(connect(path), first.bookmark)
    assert page.full
    assert len(page.items) == 10


def test_columns_of_ours_that_are_added_change_no_digest(path: Path) -> None:
    before = contacts(path, ROWS)
    lines = ROWS.splitlines()
    wider = "\r\n".join([lines[0] + ",nps_score,nps_hold_until", *(f"{line},," for line in lines[1:])]) + "\r\n"
    assert {one.digest for one in contacts(path, wider).values()} == {one.digest for one in before.values()}


@pytest.mark.parametrize("field", ["nps_score", "nps_comment", "nps_hold_until", "nps_last_surveyed_at"])
def test_a_value_in_a_column_of_ours_changes_the_digest(path: Path, field: str) -> None:
    empty = contacts(path, f"id,{field}\n1,\n")["1"].digest
    one = contacts(path, f"id,{field}\n1,2026-12-01\n")["1"].digest
    other = contacts(path, f"id,{field}\n1,2026-12-02\n")["1"].digest
    assert len({empty, one, other}) == 3


def test_two_cells_that_change_places_change_the_digest(path: Path) -> None:
    one = contacts(path, "id,nom,pays,a,b\n1,x,,1,2\n", fields={"a": "a", "b": "b"})["1"].digest
    other = contacts(path, "id,nom,pays,a,b\n1,,x,1,2\n", fields={"a": "a", "b": "b"})["1"].digest
    renamed = contacts(path, "id,nom,pays,a,b\n1,x,,1,2\n", fields={"a": "a", "c": "b"})["1"].digest
    assert len({one, other, renamed}) == 3


# --- size ---------------------------------------------------------------------------------------------------------


def test_ids_are_remembered_beyond_one_table() -> None:
    seen = SeenIds(1)
    for start in range(0, 60_000, 1000):
        ids = [str(n) for n in range(start, start + 1000)]
        assert seen.add([*ids, ""], [n + 2 for n in range(start, start + 1001)]) == {}
    assert seen.add(["59999", "", "new", "0", "new"], [1, 2, 3, 4, 5]) == {0: 60_001, 3: 2, 4: 3}
    assert seen.add([str(n) for n in range(60_000)], range(60_000)) == {n: n + 2 for n in range(60_000)}


_READ = """
import resource, sys
from connectors import build
from core.ports import Bookmark
connector = build("csv", {"path": sys.argv[1]})
connector.check()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
number = sum(len(page.items) for page in connector.read_contacts(Bookmark()))
print(number, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_grow_with_the_file(path: Path) -> None:
    kilobytes = []
    for number in (20_000, 200_000):
        many(path, number)
        done = subprocess.run([sys.executable, "-c", _READ, str(path)], capture_output=True, text=True, check=True)
        read_in, used = done.stdout.split()
        assert int(read_in) == number
        kilobytes.append(int(used))
    assert kilobytes[1] < 1.2 * kilobytes[0] + 2048
    assert kilobytes[1] < 45_000
