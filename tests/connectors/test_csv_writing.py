"""How scores get into CSV files: every other byte stays, nobody's change is lost, and no file is ever half written."""

from __future__ import annotations

import csv
import io
import os
import random
import re
import resource
import signal
import stat
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors import build
from connectors.csv.cells import LONGEST_TEXT, clean_text, date_style
from connectors.csv.replacing import ATTEMPTS, SUFFIX, KeepsChanging, replace
from core.errors import Misconfigured, Unavailable
from core.ports import Outcome, ScoreUpdate
from tests.conformance.contact_sink import outcomes, write
from tests.conformance.contact_source import contacts_of, read

PARIS = ZoneInfo("Europe/Paris")
ASKED = datetime(2026, 12, 3, 0, 30, tzinfo=PARIS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "customers.csv"


def connect(path: Path, **config: Any) -> Any:
    return build("csv", {"path": str(path), **config})


def score(external_id: str, value: Any = 9, **fields: Any) -> ScoreUpdate:
    return ScoreUpdate(f"write-back:{external_id}", external_id, fields or {"nps_score": value})


def written(path: Path, before: str | bytes, *updates: ScoreUpdate, **config: Any) -> str:
    """The file after these updates, all of which are done."""
    path.write_bytes(before.encode() if isinstance(before, str) else before)
    results = write(connect(path, **config), *updates)
    assert set(outcomes(results).values()) <= {Outcome.DONE}
    return path.read_bytes().decode()


def debris(path: Path) -> list[str]:
    """What else is in the folder."""
    return [name for name in os.listdir(path.parent) if name != path.name]  # noqa: PTH208


# --- as it was ----------------------------------------------------------------------------------------------------


def test_columns_are_added_at_the_end_in_one_order(path: Path) -> None:
    after = written(path, "id,email\n1,a@x.example\n2,b@x.example\n", score("2", nps_comment="no", nps_score=0))
    assert after == "id,email,nps_score,nps_comment\n1,a@x.example,,\n2,b@x.example,0,no\n"


def test_columns_that_are_there_are_filled_where_they_stand(path: Path) -> None:
    after = written(path, "nps_score;id;NPS Comment\n;1;old\n3;2;\n", score("1", nps_score=9, nps_comment=None))
    assert after == "nps_score;id;NPS Comment\n9;1;\n3;2;\n"


def test_quotation_marks_stay_where_they_were(path: Path) -> None:
    before = 'id,"name",email,nps_score\r\n"1",Ada,"a@x.example","3"\r\n2,"Bo ""B"" Martin",,\r\n'
    after = written(path, before, score("1"), score("2"))
    assert after == before.replace('"3"', '"9"').replace(",,\r\n", ",,9\r\n")


def test_a_file_with_everything_in_quotation_marks_stays_so(path: Path) -> None:
    after = written(path, '"id";"email"\n"1";"a"\n"2";"b"\n', score("2"))
    assert after == '"id";"email";"nps_score"\n"1";"a";""\n"2";"b";"9"\n'


def test_line_ends_stay_also_mixed_and_also_missing(path: Path) -> None:
    after = written(path, "id,x\r\n1,a\n2,b\r3,c\r\n\n4,d", *(score(one) for one in "1234"))
    assert after == "id,x,nps_score\r\n1,a,9\n2,b,9\r3,c,9\r\n\n4,d,9"


def test_byte_order_mark_and_hint_stay(path: Path) -> None:
    after = written(path, "\ufeffsep=;\r\nid;nom\r\n1;Zoé\r\n", score("1"))
    assert after == "\ufeffsep=;\r\nid;nom;nps_score\r\n1;Zoé;9\r\n"


def test_bad_rows_stay_as_they_are(path: Path) -> None:
    bad = b'2,too,many\n3,"open\n\n4,bo\0\n1,double\n,,\n' + b"5,\x81\n"
    path.write_bytes(b"id,x\n1,a\n" + bad + b"6,z\n")
    results = write(connect(path), score("1"), score("6"), score("3"), score("5"))
    assert [result.outcome for result in results.values()] == [Outcome.DONE] * 2 + [Outcome.REJECTED] * 2
    after = path.read_bytes()
    assert (
        after
        == b"id,x,nps_score\n1,a,9\n"
        + bad.replace(b"1,double\n", b"1,double,\n").replace(b"many\n", b"many,\n")
        + b"6,z,9\n"
    )


def test_nothing_new_leaves_the_file_alone(path: Path) -> None:
    written(path, "id,x\n1,a\n2,b\n", score("1"), score("2", nps_last_surveyed_at=ASKED))
    before = path.stat()
    write(connect(path), score("1"), score("2", nps_last_surveyed_at=ASKED), score("7"))
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert debris(path) == []


def test_two_updates_of_one_row_are_made_in_order(path: Path) -> None:
    one, two = score("1", 3), ScoreUpdate("other", "1", {"nps_score": None})
    assert written(path, "id,nps_score\n1,\n", one, two) == "id,nps_score\n1,\n"


def test_mode_and_link_stay(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    target = folder / "real.csv"
    target.write_text("id,x\n1,a\n", encoding="utf-8")
    target.chmod(0o640)
    path.symlink_to(target)
    write(connect(path), score("1"))
    assert path.is_symlink()
    assert target.read_text(encoding="utf-8").endswith("1,a,9\n")
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert os.listdir(folder) == ["real.csv"]  # noqa: PTH208


def test_a_change_of_the_file_by_us_brings_the_right_contacts_again(path: Path) -> None:
    path.write_text("id,x\n1,a\n2,b\n", encoding="utf-8")
    connector = connect(path)
    first = read(connector)
    write(connector, score("2"))
    again = read(connector, first[-1].bookmark)
    before, after = contacts_of(first), contacts_of(again)
    assert after["1"].digest == before["1"].digest
    assert after["2"].digest != before["2"].digest


# --- any file at all ----------------------------------------------------------------------------------------------

CELL_TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from('",;\t\r\n= '), max_size=12
)


@st.composite
def files(draw: st.DrawFn) -> dict[str, Any]:
    """A file in pieces: names, rows of cells as they are written, line ends, delimiter, encoding."""
    delimiter = draw(st.sampled_from([",", ";", "\t"]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "cp1252"]))
    others = draw(st.integers(0, 3))
    ours = draw(st.lists(st.sampled_from(["nps_score", "nps_comment", "nps_last_surveyed_at"]), unique=True))
    names = draw(st.permutations(["id", *(f"column {n}" for n in range(others)), *ours]))

    def raw(text: str) -> bytes:
        text = text.encode(encoding.removesuffix("-sig"), "replace").decode(encoding.removesuffix("-sig"))
        plain = not text.startswith('"') and not set(text) & {delimiter, "\r", "\n"}
        if plain and not draw(st.booleans()):
            return text.encode(encoding.removesuffix("-sig"))
        return b'"' + text.replace('"', '""').encode(encoding.removesuffix("-sig")) + b'"'

    rows = [
        [raw(f"{number}é" if name == "id" else draw(CELL_TEXT)) for name in names]
        for number in range(draw(st.integers(0, 5)))
    ]
    ends = [draw(st.sampled_from([b"\n", b"\r\n", b"\r"])) for _ in range(len(rows) + 1)]
    if draw(st.booleans()) and rows:
        ends[-1] = b""
    return {"names": names, "rows": rows, "ends": ends, "delimiter": delimiter, "encoding": encoding}


def bytes_of(file: dict[str, Any]) -> bytes:
    sign = file["delimiter"].encode()
    lines = [[name.encode() for name in file["names"]], *file["rows"]]
    body = b"".join(sign.join(cells) + end for cells, end in zip(lines, file["ends"], strict=True))
    return ("\ufeff".encode() if file["encoding"] == "utf-8-sig" else b"") + body


class Scanner:
    """Walks over what was written, cell by cell, knowing only what a cell of a CSV file is."""

    def __init__(self, content: bytes, delimiter: str) -> None:
        self.rest = content
        self.cell = re.compile(rb'"(?:[^"]|"")*"|[^%s\r\n]*' % re.escape(delimiter.encode()))

    def expect(self, exactly: bytes) -> None:
        assert self.rest.startswith(exactly), (self.rest[:80], exactly)
        self.rest = self.rest[len(exactly) :]

    def take(self) -> bytes:
        found = self.cell.match(self.rest)
        assert found
        self.rest = self.rest[found.end() :]
        return found[0]


def meaning(cell: bytes, encoding: str) -> str:
    text = cell.decode(encoding.removesuffix("-sig"))
    return text[1:-1].replace('""', '"') if text.startswith('"') else text


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=files(), data=st.data())
def test_whatever_the_file_every_byte_that_is_not_ours_stays(tmp_path: Path, file: dict[str, Any], data: Any) -> None:
    path = tmp_path / "any.csv"
    path.write_bytes(bytes_of(file))
    comments = {
        f"{number}é": data.draw(st.none() | CELL_TEXT, label="comment")
        for number in range(len(file["rows"]))
        if data.draw(st.booleans(), label="updated")
    }
    config = {"encoding": "cp1252"} if file["encoding"] == "cp1252" else {}
    connector = connect(path, delimiter=file["delimiter"], **config)
    before = contacts_of(read(connector))
    assert len(before) == len(file["rows"])
    write(connector, *(score(one, nps_score=9, nps_comment=text) for one, text in comments.items()))

    names, encoding = file["names"], file["encoding"].removesuffix("-sig")
    needed = ["nps_score"] * bool(comments) + ["nps_comment"] * any(text is not None for text in comments.values())
    added = [name for name in needed if name not in names]
    scanner = Scanner(path.read_bytes(), file["delimiter"])
    sign = file["delimiter"].encode()
    if file["encoding"] == "utf-8-sig":
        scanner.expect("\ufeff".encode())
    scanner.expect(sign.join(name.encode() for name in names))
    for name in added:
        scanner.expect(sign)
        assert meaning(scanner.take(), encoding) == name
    scanner.expect(file["ends"][0])
    for number, (cells, end) in enumerate(zip(file["rows"], file["ends"][1:], strict=True)):
        updated = f"{number}é" in comments
        comment = clean_text(comments.get(f"{number}é") or "").encode(encoding, "replace").decode(encoding)
        values = {"nps_score": "9", "nps_comment": comment} if updated else {}
        for position, name in enumerate([*names, *added]):
            if position:
                scanner.expect(sign)
            if name in values:
                assert meaning(scanner.take(), encoding).strip() == values[name]
            elif name in added:
                assert meaning(scanner.take(), encoding) == ""
            else:
                scanner.expect(cells[position])
        scanner.expect(end)
    assert scanner.rest == b""
    after = contacts_of(read(connector))
    assert {one: contact.nps.get("nps_score") for one, contact in after.items() if one in comments} == dict.fromkeys(
        comments, "9"
    )
    assert {one: after[one].digest for one in before if one not in comments} == {
        one: before[one].digest for one in before if one not in comments
    }


# --- what stands in cells -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "comment", ["=HYPERLINK(A1)", "+1 for that", "-- bad", "@you", " =1+1", "\t=1", "\r=1", "＝1+1", "\n=1"]
)
def test_a_comment_that_a_spreadsheet_would_run_is_made_harmless_and_read_back_as_it_was(
    path: Path, comment: str
) -> None:
    after = written(path, "id\n1\n", score("1", nps_comment=comment))
    (row,) = csv.DictReader(io.StringIO(after, newline=""))
    assert row["nps_comment"] == "'" + comment.strip()
    assert contacts_of(read(connect(path)))["1"].nps["nps_comment"] == comment.strip()


def test_what_the_encoding_cannot_say_becomes_a_question_mark(path: Path) -> None:
    path.write_bytes("id,nom\n1,Zoé\n2,Bo\n".encode("cp1252"))
    write(connect(path), score("1", nps_comment="très bien 🌻"), score("2", nps_comment="ça va → 👍"))
    assert path.read_bytes().decode("cp1252") == "id,nom,nps_comment\n1,Zoé,très bien ?\n2,Bo,ça va ? ?\n"


def test_a_new_word_takes_the_encoding_of_its_row_in_a_file_of_two(path: Path) -> None:
    path.write_bytes("id,nom\n1,Zoé\n".encode("cp1252") + "2,Zoé\n3,Bo\n".encode())
    write(connect(path), *(score(one, nps_comment="é") for one in "123"))
    assert path.read_bytes() == "id,nom,nps_comment\n1,Zoé,é\n".encode("cp1252") + "2,Zoé,é\n".encode() + b"3,Bo,\xe9\n"


def test_a_plain_file_gets_utf_8(path: Path) -> None:
    assert written(path, "id\n1\n", score("1", nps_comment="é🌻")) == "id,nps_comment\n1,é🌻\n"


def test_a_comment_is_cleaned_and_cut(path: Path) -> None:
    written(path, "id\n1\n", score("1", nps_comment=" a\x00b\x07\r\nc\rd\ud800" + "e" * 100_000))
    comment = contacts_of(read(connect(path)))["1"].nps["nps_comment"]
    assert comment.startswith("ab\nc\nd?e")
    assert len(comment) == LONGEST_TEXT


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("2026-01-31", "2026-12-03"), ("2026/01/31", "2026/12/03"), ("31/01/2026", "03/12/2026"),
        ("31.01.2026", "03.12.2026"), ("1.2.2026", "3.12.2026"), ("31-01-2026", "03-12-2026"),
        ("2026-01-31 14:30", "2026-12-03 00:30"), ("31/01/2026 14h30", "03/12/2026 00h30"),
        ("2026-01-31T14:30:00Z", "2026-12-02T23:30:00Z"),
        ("2026-01-31T14:30:00.000+02:00", "2026-12-03T00:30:00+01:00"),
        ("2026-01-31 14:30:00 +0200", "2026-12-03 00:30:00 +0100"), ("no date", "2026-12-03"), ("", "2026-12-03"),
    ],
)  # fmt: skip
def test_the_companys_own_column_keeps_its_way_of_writing_dates(path: Path, style: str, expected: str) -> None:
    before = f"id,last surveyed,x\n1,,a\n2,{style},b\n"
    after = written(path, before, score("1", nps_last_surveyed_at=ASKED))
    assert after == f"id,last surveyed,x\n1,{expected},a\n2,{style},b\n"


def test_an_empty_column_of_the_companys_follows_its_other_dates(path: Path) -> None:
    before = "id,client depuis,dernière enquête\n1,31/01/2020,\n"
    after = written(path, before, score("1", nps_last_surveyed_at=ASKED, nps_responded_at=ASKED))
    assert after.endswith("1,31/01/2020,03/12/2026,2026-12-03\n")


def test_our_columns_follow_a_spreadsheet_that_rewrote_them(path: Path) -> None:
    before = "id,nps_last_surveyed_at\n1,31/01/2026\n2,\n"
    after = written(path, before, score("1", nps_last_surveyed_at=ASKED), score("2", nps_last_surveyed_at=ASKED))
    assert after == "id,nps_last_surveyed_at\n1,03/12/2026\n2,03/12/2026\n"


def test_a_cell_that_names_the_same_day_stays_as_it_is_written(path: Path) -> None:
    before = "id,last surveyed\n1,3/12/2026\n2,2026-12-03\n"
    after = written(path, before, score("1", nps_last_surveyed_at=ASKED), score("2", nps_last_surveyed_at=ASKED))
    assert after == before


@pytest.mark.parametrize("text", ["32/01/2026 x", "in spring", "2026", "", "2026-01/31"])
def test_what_is_no_date_has_no_style(text: str) -> None:
    assert date_style(text) is None


# --- newer edits --------------------------------------------------------------------------------------------------


def test_a_later_day_typed_meanwhile_is_not_overwritten(path: Path) -> None:
    before = "id,last surveyed\n1,05/11/2020\n2,01/11/2020\n3,31/12/2199\n"
    asked = datetime(2020, 11, 3, 12, tzinfo=PARIS)
    after = written(path, before, *(score(one, nps_last_surveyed_at=asked) for one in "123"))
    # a day that is still to come is no ask
    assert after == "id,last surveyed\n1,05/11/2020\n2,03/11/2020\n3,03/11/2020\n"


@pytest.mark.parametrize(
    ("shown", "expected", "stays"),
    [
        ("2026-11-20", "2026-11-20", False),
        ("20/11/2026", "2026-11-20", False),
        ("20/11/2026", "2026-11-20T00:30:00+01:00", False),
        ("2026-11-20", "2026-11-19T23:30:00+00:00", False),
        ("2026-11-21", "2026-11-20", True),
        ("", "2026-11-20", True),
        ("by phone", "2026-11-20", True),
        ("by phone", "by phone", False),
        ("", "", False),
    ],
)
def test_a_date_is_taken_back_only_from_what_was_expected(path: Path, shown: str, expected: str, stays: bool) -> None:
    before = f"id,last surveyed,x\n1,{shown},a\n"
    back = datetime(2026, 3, 4, 12, tzinfo=PARIS)
    update = ScoreUpdate("key", "1", {"nps_last_surveyed_at": back}, {"nps_last_surveyed_at": expected})
    after = written(path, before, update)
    assert (after == before) is stays


# --- other people -------------------------------------------------------------------------------------------------


def appending(path: Path, line: bytes, times: int, in_place: bool = True) -> Callable[[BinaryIO, BinaryIO], bool]:
    """Copies the file in small letters; the first times, somebody else appends a line meanwhile."""
    left = [times]

    def copy(source: BinaryIO, target: BinaryIO) -> bool:
        target.write(source.read().lower())
        if left[0]:
            left[0] -= 1
            if in_place:
                with path.open("ab") as file:
                    file.write(line)
            else:
                new = path.with_name("new")
                new.write_bytes(path.read_bytes() + line)
                new.rename(path)
        return True

    return copy


@pytest.mark.parametrize("in_place", [True, False], ids=["in place", "by renaming"])
def test_a_row_somebody_adds_while_we_copy_is_not_lost(path: Path, in_place: bool) -> None:
    path.write_bytes(b"ID\nA\n")
    assert replace(path, appending(path, b"B\n", 2, in_place))
    assert path.read_bytes() == b"id\na\nb\nb\n"
    assert debris(path) == []


def test_a_change_of_the_same_size_and_time_while_we_copy_is_not_lost(path: Path) -> None:
    path.write_bytes(b"ID\nA\n")
    status = path.stat()
    edits = iter([b"ID\nB\n"])

    def copy(source: BinaryIO, target: BinaryIO) -> bool:
        target.write(source.read().lower())
        for content in edits:
            path.write_bytes(content)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return True

    assert replace(path, copy)
    assert path.read_bytes() == b"id\nb\n"


def test_a_file_that_never_stands_still_is_left_for_later(path: Path) -> None:
    path.write_bytes(b"ID\nA\n")
    with pytest.raises(KeepsChanging):
        replace(path, appending(path, b"B\n", 1000))
    assert path.read_bytes() == b"ID\nA\n" + b"B\n" * ATTEMPTS
    assert debris(path) == []


def test_a_row_that_moved_meanwhile_gets_its_own_score(path: Path) -> None:
    path.write_text("id,x\n1,a\n2,b\n", encoding="utf-8")
    connector = connect(path)
    read(connector)
    path.write_text("x,id\nnew,9\nb,2\na,1\n", encoding="utf-8")
    write(connector, score("2", 0), score("1", 10))
    assert path.read_text(encoding="utf-8") == "x,id,nps_score\nnew,9,\nb,2,0\na,1,10\n"


# --- processes and disks ------------------------------------------------------------------------------------------


@pytest.fixture
def forks() -> Iterator[Callable[[Callable[[], None]], int]]:
    """Runs something in a process of its own, which ends with the test; returns its id."""
    started: list[int] = []

    def fork(work: Callable[[], None]) -> int:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                work()
                code = 0
            finally:
                os._exit(code)
        started.append(pid)
        return pid

    yield fork
    for pid in started:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            continue  # it ended and was waited for


def ended_well(pid: int) -> bool:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_killed_process_leaves_a_whole_file_and_no_debris_for_long(
    path: Path, forks: Callable[[Callable[[], None]], int]
) -> None:
    seed = random.Random(7)
    rows = [f"{n},Client {n}\n" for n in range(4000)]
    path.write_text("id,x,nps_score\n" + "".join(row.replace("\n", ",0\n") for row in rows), encoding="utf-8")

    def write_for_ever() -> None:
        connector = connect(path)
        for value in range(1, 1_000_000):
            list(connector.write_scores([score(str(n), value) for n in range(4000)]))

    left = 0
    for _ in range(30):
        pid = forks(write_for_ever)
        time.sleep(seed.uniform(0.01, 0.12))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        found = rows_of(path)
        assert [f"{row['id']},{row['x']}\n" for row in found] == rows
        assert len({row["nps_score"] for row in found}) == 1
        assert len(debris(path)) <= 1
        left += len(debris(path))
    assert left, "no process was killed while it wrote: the test proves nothing"
    write(connect(path), score("1", "done"))
    assert debris(path) == []


def test_two_processes_at_once_lose_nothing(path: Path, forks: Callable[[Callable[[], None]], int]) -> None:
    path.write_text("id\n" + "".join(f"{n}\n" for n in range(200)), encoding="utf-8")

    def write_mine(first: int) -> None:
        connector = connect(path)
        for n in range(first, 200, 4):
            assert write(connector, score(str(n)))[f"write-back:{n}"].outcome is Outcome.DONE

    pids = [forks(lambda first=first: write_mine(first)) for first in range(4)]  # type: ignore[misc]
    assert [ended_well(pid) for pid in pids] == [True] * 4
    assert {row["nps_score"] for row in rows_of(path)} == {"9"}
    assert debris(path) == []


def test_a_full_disk_leaves_the_file_as_it_was(path: Path, forks: Callable[[Callable[[], None]], int]) -> None:
    before = "id\n" + "".join(f"{n}\n" for n in range(5000))
    path.write_text(before, encoding="utf-8")

    def write_too_much() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        with pytest.raises(Unavailable, match="which is as it was: file too large"):
            write(connect(path), score("1"))

    assert ended_well(forks(write_too_much))
    assert path.read_text(encoding="utf-8") == before
    assert debris(path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to_is_told(path: Path) -> None:
    path.write_text("id\n1\n", encoding="utf-8")
    path.parent.chmod(0o500)
    try:
        with pytest.raises(Unavailable, match="may not be written to: permission denied"):
            write(connect(path), score("1"))
        assert "scores cannot be written back" in connect(path).check().note
    finally:
        path.parent.chmod(0o700)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_may_not_be_written_to_is_not_replaced(path: Path) -> None:
    path.write_text("id\n1\n", encoding="utf-8")
    path.chmod(0o444)
    with pytest.raises(Unavailable, match="it may not be written to"):
        write(connect(path), score("1"))
    assert path.read_text(encoding="utf-8") == "id\n1\n"


def test_debris_of_other_files_is_none_of_ours(path: Path) -> None:
    path.write_text("id\n1\n", encoding="utf-8")
    stranger = path.with_name(f".boucle-000000000000-1-2{SUFFIX}")
    stranger.touch()
    write(connect(path), score("1"))
    assert stranger.exists()


def test_a_file_that_cannot_be_written_into_as_it_is_configured_is_told(path: Path) -> None:
    path.write_text("id\n1\n", encoding="utf-8")
    with pytest.raises(Misconfigured, match="Offre"):
        write(connect(path, fields={"plan": "Offre"}), score("1"))


def test_a_field_that_is_not_ours_is_refused_alone(path: Path) -> None:
    path.write_text("id\n1\n2\n", encoding="utf-8")
    results = write(connect(path), score("1", email="eve@evil.example", nps_score=1), score("2"))
    assert [result.outcome for result in results.values()] == [Outcome.REJECTED, Outcome.DONE]
    assert path.read_text(encoding="utf-8") == "id,nps_score\n1,\n2,9\n"


def test_a_moment_in_utc_is_written_as_its_day_there(path: Path) -> None:
    after = written(path, "id\n1\n", score("1", nps_responded_at=ASKED.astimezone(UTC)))
    assert after == "id,nps_responded_at\n1,2026-12-02\n"
