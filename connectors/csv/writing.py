"""Writes nps_* columns into the rows of a CSV file; every other byte of it stays as it is.

Rows are found by their id, never by their place. Missing columns are added at the end. Where the company has a column
of its own for the last survey, that one is kept up to date, in its own way of writing dates. A row is never added.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import BinaryIO

from connectors.csv.cells import ISO, DateStyle, Style, clean_text, date_style, split_cells, split_line_end
from connectors.csv.config import CsvConfig
from connectors.csv.dialect import BLOCK, FALLBACK, Layout, Records, read_layout, read_records
from connectors.csv.mapping import HOLD, LAST_SURVEYED, NPS_FIELDS, PERSON_FIELDS, ColumnMap, map_columns
from core.dates import parse_moment
from core.ports import ScoreUpdate

#: Rows looked at to learn how a file is written.
SAMPLE = 2000
Value = str | int | datetime | None
WRITABLE = tuple(name for name in NPS_FIELDS if name != HOLD)


@dataclass(slots=True)
class Rewrite:
    """A copy of a file with these updates in it. `found` are the lines of their rows, by external id."""

    config: CsvConfig
    updates: Mapping[str, Sequence[ScoreUpdate]]
    add: Collection[str] = ()
    found: dict[str, int] = field(default_factory=dict)

    def copy(self, source: BinaryIO, target: BinaryIO) -> bool:
        """Write the copy; False if it is the same as before."""
        self.found = {}
        layout = read_layout(source, self.config)
        columns = map_columns(layout.names, self.config.fields, self.config.path.name)
        added = self._added(columns)
        rows = Rows(columns, added, learn_style(source, layout), learn_dates(source, layout, columns))
        target.write(layout.preamble + rows.header(layout.header))
        source.seek(layout.body_offset)
        changed = bool(added)
        for records in read_records(source, layout, layout.first_line):
            changed |= self._copy_records(records, rows, target)
        return changed

    def _added(self, columns: ColumnMap) -> list[str]:
        """The fields that need a column, in their usual order."""
        updates = (one for of_one in self.updates.values() for one in of_one)
        needed = {name for one in updates for name, value in one.fields.items() if value is not None}
        return [name for name in NPS_FIELDS if name in needed.union(self.add) and columns.column_of(name) < 0]

    def _copy_records(self, records: Records, rows: Rows, target: BinaryIO) -> bool:
        raws = rows.padded(records)
        changed = False
        for position, cells in enumerate(records.rows):
            if cells is None:
                continue
            external_id = rows.id_of(cells)
            # the first row of an id is the one that was read
            if external_id in self.updates and external_id not in self.found:
                self.found[external_id] = records.lines[position]
                before = raws[position]
                raws[position] = rows.updated(before, cells, self.updates[external_id])
                changed |= raws[position] != before
        target.write(b"".join(raws))
        return changed


class Rows:
    """Writes the rows of one file: what can be decided per file is decided here, once."""

    def __init__(self, columns: ColumnMap, added: Sequence[str], style: Style, dates: Mapping[int, DateStyle]) -> None:
        self._columns = columns
        self._added = added
        self._style = style
        self._dates = dates
        self._delimiter = style.delimiter.encode()
        self._padding = (self._delimiter + style.write("", style.encoding)) * len(added)
        width = len(columns.names)
        self._place = {name: columns.column_of(name) for name in WRITABLE}
        self._place |= {name: width + number for number, name in enumerate(added)}

    def id_of(self, cells: list[str]) -> str:
        """The external id of a row."""
        text = cells[self._columns.id_column].strip()
        return text.lower() if self._columns.id_is_email else text

    def header(self, raw: bytes) -> bytes:
        """The header with the names of the columns that are added."""
        body, end = split_line_end(raw)
        names = (self._style.write(self._columns.column_name(name), self._style.encoding) for name in self._added)
        return body + b"".join(self._delimiter + name for name in names) + end

    def padded(self, records: Records) -> list[bytes]:
        """The records with empty cells in the added columns.

        A row with too many cells gets them, too: else the new columns would make it fit. All else that is no whole row
        stays as it is.
        """
        if not self._added:
            return list(records.raws)
        padding = self._padding
        padded = []
        for position, (raw, cells) in enumerate(zip(records.raws, records.rows, strict=True)):
            if cells is not None or (position in records.problems and self._has_too_many(raw)):
                body = raw.rstrip(b"\r\n")
                raw = body + padding + raw[len(body) :]
            padded.append(raw)
        return padded

    def _has_too_many(self, raw: bytes) -> bool:
        return len(split_cells(raw.rstrip(b"\r\n"), self._style.delimiter)) > len(self._columns.names)

    def updated(self, raw: bytes, cells: list[str], updates: Iterable[ScoreUpdate]) -> bytes:
        """A row with new values; a cell that says the same already stays as it is written."""
        body, end = split_line_end(raw)
        parts = split_cells(body, self._style.delimiter)
        encoding = self._style.encoding_of(raw)
        shown = [*(cell.strip() for cell in cells), *("" for _ in self._added)]
        for update in updates:
            for name, value in update.fields.items():
                place = self._place[name]
                if place < 0:
                    continue  # there is no such column, and nothing to put into it
                text = self._text(place, value)
                if not self._stays(name, shown[place], text, value, update):
                    parts[place] = self._style.write(text, encoding, quoted=parts[place].startswith(b'"'))
                    shown[place] = text
        return self._delimiter.join(parts) + end

    def _stays(self, name: str, shown: str, text: str, value: Value, update: ScoreUpdate) -> bool:
        """Whether a cell is left as it is: it says so already, or somebody typed a newer date."""
        if shown == text or is_same_day(shown, value):
            return True
        return name == LAST_SURVEYED and is_newer_edit(shown, value, update)

    def _text(self, place: int, value: Value) -> str:
        if value is None:
            return ""
        if isinstance(value, datetime):
            return self._dates.get(place, ISO).write(value)
        return str(value) if isinstance(value, int) else clean_text(value)


def is_same_day(shown: str, value: Value) -> bool:
    """Whether a cell names the day we would write, in whatever way of writing dates alone."""
    if not isinstance(value, datetime):
        return False
    moment = parse_moment(shown, value.tzinfo or UTC)
    return moment is not None and moment.date_only and moment.day == value.date()


def is_newer_edit(shown: str, value: Value, update: ScoreUpdate) -> bool:
    """Whether the date in a file was typed there since we saw it last, so that it must not be overwritten.

    With an expectation: if it shows anything else. Without one: if it shows a later day than we want to write, though
    none that is still to come (a day more than here it may be elsewhere): nobody has asked anybody then.
    """
    expected = update.expected.get(LAST_SURVEYED)
    zone = _zone(value, expected)
    day = _day(shown, zone)
    if expected is not None:
        return (day or shown) != (_day(expected, zone) or expected.strip())
    return day is not None and isinstance(value, datetime) and value.date() < day <= date.today() + timedelta(days=1)


def _zone(value: Value, expected: str | None) -> tzinfo:
    """The account's zone, as the moments we are given carry it."""
    if isinstance(value, datetime):
        return value.tzinfo or UTC
    try:
        return datetime.fromisoformat(expected or "").tzinfo or UTC
    except ValueError:
        return UTC


def _day(text: str, zone: tzinfo) -> date | None:
    moment = parse_moment(text, zone)
    return moment.day if moment else None


# --- how the file is written --------------------------------------------------------------------------------------


def learn_style(source: BinaryIO, layout: Layout) -> Style:
    """How new cells are to be written: all in quotation marks if names and first row are, and in which encoding."""
    parts = split_cells(split_line_end(layout.header)[0], layout.delimiter)
    source.seek(layout.body_offset)
    for records in read_records(source, layout, layout.first_line):
        first = next((raw for raw, cells in zip(records.raws, records.rows, strict=True) if cells is not None), None)
        if first is not None:
            parts += split_cells(split_line_end(first)[0], layout.delimiter)
            break
    quote_all = bool(parts) and all(part.startswith(b'"') for part in parts)
    return Style(layout.delimiter, quote_all, layout.encoding or _encoding(source), layout)


def _encoding(source: BinaryIO) -> str:
    """The encoding of the first line that needs one; UTF-8 if none does."""
    source.seek(0)
    rest = b""
    while chunk := source.read(BLOCK):
        if chunk.isascii():
            rest = chunk[chunk.rfind(b"\n") + 1 :]
            continue
        lines = (rest + chunk + source.readline()).splitlines()
        line = next(line for line in lines if not line.isascii())
        try:
            line.decode()
        except UnicodeDecodeError:
            return FALLBACK
        return "utf-8"
    return "utf-8"


def learn_dates(source: BinaryIO, layout: Layout, columns: ColumnMap) -> dict[int, DateStyle]:
    """How dates are written in the columns we write to; the company's own column may follow its other dates."""
    asked = columns.own_date_asked
    since = columns.person[PERSON_FIELDS.index("customer_since")]
    wanted = {columns.column_of(name) for name in WRITABLE if name.endswith("_at")} | {asked, since}
    wanted.discard(-1)
    found: dict[int, DateStyle] = {}
    looked_at = 0
    source.seek(layout.body_offset)
    for records in read_records(source, layout, layout.first_line):
        for cells in records.usable()[1]:
            found |= {i: style for i in wanted if i not in found and (style := date_style(cells[i]))}
        looked_at += len(records.raws)
        if looked_at >= SAMPLE or wanted <= found.keys():
            break
    if asked >= 0 and asked not in found and since in found:
        found[asked] = found[since]
    return found
