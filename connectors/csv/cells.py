"""Single cells as bytes: split without losing how they were written, and written the way their file is. Pure.

A comment is what a customer typed, so it may hold anything. Line ends inside it become LF, other control characters are
dropped, what the encoding of the file cannot express becomes "?", and what is longer than a spreadsheet's cell is cut.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from connectors.csv.dialect import FALLBACK, Layout
from connectors.csv.formulas import with_guard

#: What a cell of a spreadsheet holds.
LONGEST_TEXT = 32_767
_LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_CONTROL = dict.fromkeys((*range(9), *range(14, 32), 127))
_DATE = re.compile(
    r"(?:(?P<year>\d{4})(?P<sep1>[-/])(?P<m1>\d{1,2})(?P=sep1)(?P<d1>\d{1,2})"
    r"|(?P<d2>\d{1,2})(?P<sep2>[-/.])(?P<m2>\d{1,2})(?P=sep2)\d{4})"
    r"(?:(?P<gap>[Tt ])\d{1,2}(?P<colon>[:h])\d{2}(?P<seconds>:\d{2})?(?P<fraction>[.,]\d{1,9})?"
    r"(?P<space> ?)(?P<zone>[zZ]|[+-]\d{2}(?P<offset_colon>:?)\d{2})?)?",
    re.ASCII,
)


@lru_cache(maxsize=16)
def _cell_pattern(delimiter: bytes) -> re.Pattern[bytes]:
    return re.compile(rb'"[^"]*+(?:""[^"]*+)*"|[^' + re.escape(delimiter) + rb"]*+")


def split_cells(body: bytes, delimiter: str) -> list[bytes]:
    """The cells of a record as they are written, quotation marks and all; joined by the delimiter they are it again."""
    sign = delimiter.encode()
    match_at = _cell_pattern(sign).match
    cells = []
    start = 0
    while True:
        found = match_at(body, start)
        end = found.end() if found else start
        cells.append(body[start:end])
        if body[end : end + 1] != sign:
            # what follows a closed quotation mark otherwise was refused when the record was read
            return cells if end == len(body) else []
        start = end + 1


def split_line_end(raw: bytes) -> tuple[bytes, bytes]:
    """A record without its line end, and the line end: nothing at the end of some files."""
    body = raw.rstrip(b"\r\n")
    return body, raw[len(body) :]


# --- how a file is written ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DateStyle:
    """How dates of a column are written: `31/12/2026`, `2026-12-31`, `31.12.2026 14:30` ..."""

    year_first: bool = True
    separator: str = "-"
    padded: bool = True
    time: str = ""  # what strftime makes of it, with the gap before; empty: dates alone
    zone: str = ""  # "Z", "+00:00", "+0000", or empty: the time of the account's zone

    def write(self, moment: datetime) -> str:
        """A moment; its day is that of the zone it comes in."""
        if self.zone == "Z":
            moment = moment.astimezone(UTC)
        pad = "02" if self.padded else ""
        day, month = f"{moment.day:{pad}}", f"{moment.month:{pad}}"
        parts = [f"{moment.year:04}", month, day] if self.year_first else [day, month, f"{moment.year:04}"]
        offset = moment.strftime("%z") if self.zone and self.zone != "Z" else self.zone
        if ":" in self.zone:
            offset = f"{offset[:3]}:{offset[3:5]}"
        return self.separator.join(parts) + (moment.strftime(self.time) + offset if self.time else "")


ISO = DateStyle()


@lru_cache(maxsize=1024)
def date_style(text: str) -> DateStyle | None:
    """How this date is written, or None if it is no date."""
    found = _DATE.fullmatch(text.strip()) if len(text) <= 40 else None
    if found is None:
        return None
    time = zone = ""
    if found["gap"]:
        time = f"{found['gap']}%H{found['colon']}%M" + (":%S" if found["seconds"] else "")
        zone = found["zone"] or ""
        zone = "Z" if zone in ("z", "Z") else f"+00{found['offset_colon']}00" if zone else ""
        time += found["space"] if zone else ""
    parts = (found["m1"], found["d1"]) if found["year"] else (found["m2"], found["d2"])
    return DateStyle(bool(found["year"]), found["sep1"] or found["sep2"], all(len(p) == 2 for p in parts), time, zone)


@dataclass(frozen=True, slots=True)
class Style:
    """How new cells of a file are written. `encoding` is that of rows whose own bytes do not tell."""

    delimiter: str
    quote_all: bool
    encoding: str
    layout: Layout

    def encoding_of(self, raw: bytes) -> str:
        """The encoding of a record, so that no row is written in two."""
        if self.layout.encoding or raw.isascii():
            return self.encoding
        try:
            raw.decode()
        except UnicodeDecodeError:
            return FALLBACK
        return "utf-8"

    def write(self, text: str, encoding: str, *, quoted: bool = False) -> bytes:
        """A cell; `quoted` if the one it replaces was."""
        needed = any(sign in text for sign in (self.delimiter, '"', "\n", "\r"))
        if needed or quoted or self.quote_all:
            text = '"' + text.replace('"', '""') + '"'
        return text.encode(encoding, "replace")


def clean_text(text: str) -> str:
    """What may stand in a cell of what somebody wrote."""
    text = _LINE_ENDS.sub("\n", text).translate(_CONTROL).strip()
    text = text.encode("utf-8", "replace").decode()  # lone surrogates
    text = with_guard(text)
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
