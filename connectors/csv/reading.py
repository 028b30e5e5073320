"""Reads contacts out of a CSV file, page by page, in flat memory.

A file has no list of changes: it has changed or it has not. The watermark of a bookmark is the signature of the content
that was last read whole (and of the settings it was read with): as long as it is the same there is nothing to read.
The cursor is a place in one content, with the signature of all that comes before it. A read that goes on from there is
not a whole one, so it leaves no watermark, and the next one begins at the beginning: rows that are gone are found then.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date
from hashlib import blake2b
from operator import itemgetter
from os import fstat
from typing import BinaryIO

from connectors.csv.config import CsvConfig
from connectors.csv.dialect import Records, read_layout, read_records
from connectors.csv.formulas import without_guard
from connectors.csv.mapping import PERSON_FIELDS, ColumnMap, day_of, is_yes, language_of, map_columns
from connectors.csv.seen import SeenIds
from core.dates import parse_moment
from core.ports import BadRecord, Bookmark, Contact, ContactRecord, Page

PAGE = 4000
PAGE_BYTES = 4 * 1024 * 1024
#: Changes when the same bytes are read into other contacts than before.
VERSION = "1"
HASHED_AT_ONCE = 1024 * 1024
#: Texts of one kind remembered with their meaning, so that memory does not grow with the file.
REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a file: the byte and the line the next record begins at, and the signature of what comes before."""

    offset: int
    line: int
    before: str
    settings: str

    def __str__(self) -> str:
        return f"{VERSION} {self.offset} {self.line} {self.before} {self.settings}"

    @classmethod
    def parse(cls, text: str) -> Cursor | None:
        """The cursor of a bookmark, or None if it is not one of ours."""
        parts = text.split(" ")
        if len(parts) != 5 or parts[0] != VERSION or not (parts[1].isdigit() and parts[2].isdigit()):
            return None
        return cls(int(parts[1]), int(parts[2]), parts[3], parts[4])


class Reading:
    """One read of one open file."""

    def __init__(self, file: BinaryIO, config: CsvConfig) -> None:
        self._file = file
        self._config = config
        self._settings = _settings_signature(config)
        self._state = _state(file)
        file.seek(0)
        self.layout = read_layout(file, config)
        self.columns = map_columns(self.layout.names, config.fields, config.path.name)
        self._contacts = ContactMaker(self.columns, self.layout.delimiter)
        self._seen = SeenIds(0)
        self._hash = _hasher()
        self._offset = 0
        self._line = self.layout.first_line

    def pages(self, start: Bookmark) -> Iterator[Page[ContactRecord]]:
        """The pages after `start`."""
        if start.watermark and not start.cursor and self._is_content(start.watermark):
            yield Page([], start, last=True)
            return
        resumed = self._resume(Cursor.parse(start.cursor))
        if not resumed:
            self._begin()
        yield from self._rest(whole=not resumed)

    # --- where to begin -----------------------------------------------------------------------------------------

    def _is_content(self, watermark: str) -> bool:
        """Whether the file is what was read whole before."""
        version, _, rest = watermark.partition(" ")
        size, _, rest = rest.partition(" ")
        signature, _, settings = rest.partition(" ")
        if version != VERSION or size != str(self._state[0]) or settings != self._settings:
            return False
        self._file.seek(0)
        return hash_of(self._file) == signature and self._state == _state(self._file)

    def _begin(self) -> None:
        self._file.seek(0)
        self._hash = _hasher()
        self._offset = self.layout.body_offset
        self._line = self.layout.first_line
        self._seen = SeenIds(self._state[0])
        self._hash.update(self._file.read(self._offset))

    def _resume(self, cursor: Cursor | None) -> bool:
        """Stand where the cursor says, the ids before it in mind. False if the file is another one by now."""
        if cursor is None or cursor.settings != self._settings or cursor.offset < self.layout.body_offset:
            return False
        self._begin()
        for records in read_records(self._file, self.layout, self._line):
            before = bisect_left(records.lines, cursor.line)
            self._take(records, before)
            lines, rows = records.usable()
            here = bisect_left(lines, cursor.line)
            self._seen.add([self._contacts.id_of(cells) for cells in rows[:here]], lines[:here])
            if before < len(records.raws) or self._offset >= cursor.offset:
                break
        if (self._offset, self._hash.hexdigest()) != (cursor.offset, cursor.before):
            return False
        self._line = cursor.line
        self._file.seek(self._offset)
        return True

    # --- pages --------------------------------------------------------------------------------------------------

    def _rest(self, whole: bool) -> Iterator[Page[ContactRecord]]:
        page = _Growing()
        for records in read_records(self._file, self.layout, self._line):
            if page.rows >= PAGE or page.size >= PAGE_BYTES:
                yield Page(page.contacts, Bookmark(cursor=str(self._cursor())), bad=page.bad)
                page = _Growing()
            self._contacts.make(records, self._seen, page.contacts, page.bad)
            page.size += self._take(records, len(records.raws))
            page.rows += len(records.raws)
        untouched = self._state == _state(self._file)
        end = Bookmark(self._watermark()) if whole and untouched else Bookmark()
        yield Page(page.contacts, end, last=True, full=whole and untouched, bad=page.bad)

    def _take(self, records: Records, number: int) -> int:
        """Note that the first of these records lie behind us; returns their bytes."""
        joined = b"".join(records.raws[:number])
        self._hash.update(joined)
        self._offset += len(joined)
        if number:
            self._line = records.lines[number - 1] + max(1, len(records.raws[number - 1].splitlines()))
        return len(joined)

    def _cursor(self) -> Cursor:
        return Cursor(self._offset, self._line, self._hash.hexdigest(), self._settings)

    def _watermark(self) -> str:
        return f"{VERSION} {self._offset} {self._hash.hexdigest()} {self._settings}"


@dataclass(slots=True)
class _Growing:
    """A page being filled."""

    contacts: list[ContactRecord] = field(default_factory=list)
    bad: list[BadRecord] = field(default_factory=list)
    rows: int = 0
    size: int = 0


def hash_of(file: BinaryIO) -> str:
    """The signature of what follows in a file."""
    hashed = _hasher()
    while chunk := file.read(HASHED_AT_ONCE):
        hashed.update(chunk)
    return hashed.hexdigest()


def _hasher() -> blake2b:
    return blake2b(digest_size=20)


def _state(file: BinaryIO) -> tuple[int, int]:
    """What tells that an open file was written to: its size and the time of the last change."""
    status = fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _settings_signature(config: CsvConfig) -> str:
    said = repr((VERSION, config.delimiter, config.encoding, sorted(config.fields.items())))
    return blake2b(said.encode(errors="surrogatepass"), digest_size=8).hexdigest()


# --- contacts -----------------------------------------------------------------------------------------------------


class _Meanings(dict[str, "date | bool | str | None"]):
    """What the texts of one column mean, each looked up once."""

    def __init__(self, meaning: Callable[[str], date | bool | str | None]) -> None:
        super().__init__()
        self._meaning = meaning

    def __missing__(self, text: str) -> date | bool | str | None:
        if len(self) >= REMEMBERED:
            self.clear()
        found = self[text] = self._meaning(text)
        return found


FIELDS = len(PERSON_FIELDS)
_DOUBLE = "each customer needs an id of their own"


class ContactMaker:
    """Makes contacts of rows: what can be decided per file is decided here, once, and not per row."""

    def __init__(self, columns: ColumnMap, delimiter: str) -> None:
        self._columns = columns
        self._delimiter = delimiter
        self._nps = columns.nps
        self._pick = itemgetter(*columns.person, *(index for _, index in columns.attributes))
        self._attributes = tuple((name, FIELDS + number) for number, (name, _) in enumerate(columns.attributes))
        # the names of attributes are part of what a record says, those of nps columns come with their values
        names = blake2b(repr((VERSION, self._attributes, columns.id_is_email)).encode(), digest_size=16).digest()
        self._empty = blake2b(digest_size=16, person=names)
        self._languages = _Meanings(language_of)
        self._days = _Meanings(day_of)
        self._yes = _Meanings(is_yes)
        self._holds = _Meanings(lambda text: text if not text or parse_moment(text, UTC) else None)

    def id_of(self, cells: list[str]) -> str:
        """The external id of a row; empty if it has none."""
        text = cells[self._columns.id_column].strip()
        return text.lower() if self._columns.id_is_email else text

    def make(self, records: Records, seen: SeenIds, contacts: list[ContactRecord], bad: list[BadRecord]) -> None:
        """Add the contacts of these records, and what is wrong with the others, in the order of the file."""
        lines, rows = records.usable()
        column = self._columns.id_column
        ids = [cells[column].strip() for cells in rows]
        if self._columns.id_is_email:
            ids = [one.lower() for one in ids]
        known = seen.add(ids, lines)
        wrong = [
            (records.lines[position], problem, self._id_within(records.raws[position]))
            for position, problem in records.problems.items()
        ]
        for number, made in enumerate(self._contacts(ids, lines, rows)):
            if made is None:
                wrong.append((lines[number], self._complaint(ids[number], rows[number]), ids[number]))
            elif number in known:
                doubled = f'has the id "{_short(ids[number])}" of line {known[number]}: {_DOUBLE}'
                wrong.append((made.line, doubled, ids[number]))
            else:
                contacts.append(made)
        bad.extend(BadRecord(f"line {line}", reason, known_as) for line, reason, known_as in sorted(wrong) if reason)

    def _id_within(self, raw: bytes) -> str:
        """The id of a row that cannot be taken apart, as far as its pieces tell."""
        pieces = raw.decode("utf-8", "replace").split(self._delimiter)
        column = self._columns.id_column
        text = pieces[column].strip(' "\r\n') if column < len(pieces) else ""
        return text.lower() if self._columns.id_is_email else text

    def _contacts(
        self, ids: Sequence[str], lines: Sequence[int], rows: Sequence[list[str]]
    ) -> Iterator[Contact | None]:
        """The contact of each row; None if something is wrong with it. One long loop: calls cost more than the work."""
        pick, strip, attribute_columns, nps_columns = self._pick, str.strip, self._attributes, self._nps
        days, yes, languages, holds, empty = self._days, self._yes, self._languages, self._holds, self._empty
        for external_id, line, cells in zip(ids, lines, rows, strict=True):
            cells.append("")  # where the index -1 of a missing column leads
            values = [*map(strip, pick(cells))]
            (_, email, first_name, last_name, company, language, country, time_zone, phone, owner, since, opted_out,
             surveyed, hold, *_) = values  # fmt: skip
            day = days[since] if since else None
            out = yes[opted_out] if opted_out else False
            if not external_id or (since and day is None) or out is None or (hold and holds[hold] is None):
                yield None
                continue
            attributes: dict[str, str] = {}
            for name, index in attribute_columns:
                attributes[name] = values[index]
            said = "\x1f".join(values)
            nps: dict[str, str] = {}
            if nps_columns:
                nps = self._nps_of(cells)
                said = f"{said}\x1e{nps}" if nps else said
            digest = empty.copy()
            digest.update(said.encode())
            yield Contact(
                external_id,
                email or None,
                first_name or None,
                last_name or None,
                company or None,
                languages[language] if language else None,  # type: ignore[arg-type]
                country or None,
                time_zone or None,
                phone or None,
                owner or None,
                day,  # type: ignore[arg-type]
                out,  # type: ignore[arg-type]
                surveyed or None,
                hold or None,
                attributes,
                nps,
                None,
                digest.digest(),
                line,
            )

    def _nps_of(self, cells: list[str]) -> dict[str, str]:
        nps = {name: cell for name, index in self._nps if (cell := cells[index].strip())}
        if "nps_comment" in nps:
            nps["nps_comment"] = without_guard(nps["nps_comment"])
        return nps

    def _complaint(self, external_id: str, cells: list[str]) -> str:
        """What is wrong with a row; nothing for a row of empty cells."""
        cells = [cell.strip() for cell in cells]
        if not any(cells):
            return ""
        if not external_id:
            return f"has no {'e-mail address' if self._columns.id_is_email else 'id'} in the column {self._id_name()}"
        since, opted_out = (self._cell(name, cells) for name in ("customer_since", "opted_out"))
        if since[1] and self._days[since[1]] is None:
            return _no_date(*since)
        if opted_out[1] and self._yes[opted_out[1]] is None:
            return f'"{_short(opted_out[1])}" in the column "{opted_out[0]}" is neither yes nor no'
        return _no_date(*self._cell("nps_hold_until", cells))

    def _cell(self, field: str, cells: list[str]) -> tuple[str, str]:
        """The name of a field's column, and what stands there."""
        index = self._columns.person[PERSON_FIELDS.index(field)]
        return (self._columns.names[index], cells[index]) if index >= 0 else ("", "")

    def _id_name(self) -> str:
        return f'"{self._columns.names[self._columns.id_column]}"'


def _no_date(column: str, text: str) -> str:
    return f'"{_short(text)}" in the column "{column}" is no date: write it as 2026-12-31 or 31/12/2026'


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
