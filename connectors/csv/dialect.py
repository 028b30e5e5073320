"""How a CSV file is written, and its records one by one: the bytes of each, and the cells in them.

Rows are split by the standard library. What it would swallow is brought back: a quotation mark that is opened and never
closed costs its own row and not the rest of the file, since reading goes on at the next line. Lines end with CR LF, LF
or CR, also mixed; the number of a record is the line it begins on.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from connectors.csv.config import CsvConfig
from core.errors import Misconfigured, Unavailable

BLOCK = 256 * 1024
#: A header longer than this is no header.
HEAD = 1024 * 1024
LONGEST_LINE = 16 * 1024 * 1024
BOM = b"\xef\xbb\xbf"
#: Records handled at once: few enough to stay in the processor's cache, which halves the time per record.
BATCH = 250
DELIMITERS = (",", ";", "\t")
SAMPLE_LINES = 30
FALLBACK = "cp1252"

_CONTROL = bytes((*range(9), *range(14, 32)))
_STRAY_QUOTE = "a quotation mark is not closed, or stands undoubled inside a quoted cell"
_NOT_TEXT = {
    b"PK\x03\x04": "is a spreadsheet, not a CSV file: save it as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "is a spreadsheet, not a CSV file: save it as CSV UTF-8",
    b"\xff\xfe": "is written in UTF-16: save it as CSV UTF-8",
    b"\xfe\xff": "is written in UTF-16: save it as CSV UTF-8",
    b"%PDF": "is a PDF, not a CSV file",
}


@dataclass(slots=True)
class Records:
    """Some records, in parallel lists: the line each begins on, its bytes, its cells or None.

    `problems` says by position what is wrong with one that has no cells; a blank line has neither.
    """

    lines: Sequence[int]
    raws: list[bytes]
    rows: Sequence[list[str] | None]
    problems: dict[int, str] = field(default_factory=dict)

    def add(self, line: int, raw: bytes, cells: list[str] | None, problem: str) -> None:
        """Only to one that was made of empty lists."""
        if problem:
            self.problems[len(self.raws)] = problem
        self.lines.append(line)  # type: ignore[attr-defined]
        self.raws.append(raw)
        self.rows.append(cells)  # type: ignore[attr-defined]

    def usable(self) -> tuple[Sequence[int], Sequence[list[str]]]:
        """Lines and cells of those that have any, in parallel."""
        if None not in self.rows:
            return self.lines, self.rows  # type: ignore[return-value]
        lines = [line for line, cells in zip(self.lines, self.rows, strict=True) if cells is not None]
        return lines, [cells for cells in self.rows if cells is not None]


@dataclass(frozen=True, slots=True)
class Layout:
    """How one file is written. `encoding` is empty where each row is UTF-8, or else cp1252.

    `preamble` are the bytes before the header (byte order mark, blank lines, a spreadsheet's `sep=;`), `header` the
    bytes of the header itself; the first row begins on `first_line`.
    """

    delimiter: str
    encoding: str
    preamble: bytes
    header: bytes
    names: tuple[str, ...]
    first_line: int

    @property
    def body_offset(self) -> int:
        """The byte the first row begins at."""
        return len(self.preamble) + len(self.header)

    @property
    def bom(self) -> bool:
        return self.preamble.startswith(BOM)

    def describe(self) -> str:
        """In words, for `connections check`."""
        delimiter = {",": "commas", ";": "semicolons", "\t": "tabs"}.get(self.delimiter, f"the sign {self.delimiter}")
        encoding = self.encoding or ("UTF-8 with a byte order mark" if self.bom else "UTF-8 or cp1252")
        return f"{len(self.names)} columns separated by {delimiter}, {encoding}"


def read_layout(file: BinaryIO, config: CsvConfig) -> Layout:
    """How the file is written, from its beginning; the file stands somewhere behind it. Raises Misconfigured."""
    head = file.read(HEAD)
    _refuse_what_is_no_text(head, config)
    if head.startswith(BOM) and config.encoding not in ("", "utf-8"):
        raise Misconfigured(
            f"{config.path} begins with the byte order mark of UTF-8 and is configured as {config.encoding}:"
            " leave encoding out",
            field="encoding",
        )
    encoding = "utf-8" if head.startswith(BOM) else config.encoding
    lines = head.splitlines(keepends=True)
    before, told = _preamble(lines)
    if before == len(lines):
        raise Misconfigured(f"{config.path} holds no names of columns: write them into its first line", field="path")
    delimiter = config.separator or told or _likeliest(lines[before : before + SAMPLE_LINES], encoding)
    cells, used = _header(lines[before:], encoding, delimiter, config)
    return Layout(
        delimiter=delimiter,
        encoding=encoding,
        preamble=b"".join(lines[:before]) if before else (BOM if head.startswith(BOM) else b""),
        header=b"".join(lines[before : before + used]).removeprefix(BOM if not before else b""),
        names=tuple(cell.strip() for cell in cells),
        first_line=before + used + 1,
    )


def _refuse_what_is_no_text(head: bytes, config: CsvConfig) -> None:
    if not head:
        raise Unavailable(f"{config.path} is empty: perhaps it is just being written")
    for start, reason in _NOT_TEXT.items():
        if head.startswith(start):
            raise Misconfigured(f"{config.path} {reason}", field="path")
    names = head.splitlines()[0]
    if names != names.translate(None, delete=_CONTROL):
        raise Misconfigured(f"{config.path} is no text: save it as CSV UTF-8", field="path")


def _preamble(lines: list[bytes]) -> tuple[int, str]:
    """How many lines come before the header, and the delimiter a spreadsheet wrote there."""
    before, told = 0, ""
    while before < len(lines):
        line = lines[before].removeprefix(BOM if not before else b"").strip(b"\r\n ")
        if line[:4].lower() == b"sep=" and len(line) == 5:
            told = line[4:].decode("latin-1")
        elif line[:4].lower() == b"sep=" and len(line) == 4 and b"\t" in lines[before]:
            told = "\t"
        elif line:
            break
        before += 1
    return before, told


def _likeliest(lines: list[bytes], encoding: str) -> str:
    """The delimiter under which most rows have as many cells as the header."""
    texts = [_text(line.removeprefix(BOM), encoding) for line in lines]

    def score(delimiter: str) -> tuple[int, int]:
        rows: list[list[str]] = []
        try:
            rows.extend(csv.reader(texts, delimiter=delimiter, strict=True))
        except csv.Error:
            rows = rows or [texts[0].split(delimiter)]
        width = len(rows[0])
        return (sum(len(row) == width for row in rows) if width > 1 else 0, width)

    return max(DELIMITERS, key=score)


def _header(lines: list[bytes], encoding: str, delimiter: str, config: CsvConfig) -> tuple[list[str], int]:
    reader = csv.reader((_text(line.removeprefix(BOM), encoding) for line in lines), delimiter=delimiter, strict=True)
    try:
        return next(reader), reader.line_num
    except (csv.Error, StopIteration):
        raise Misconfigured(
            f"the names of columns in the first line of {config.path} cannot be read: is a quotation mark not closed?",
            field="path",
        ) from None


# --- records ------------------------------------------------------------------------------------------------------


def read_records(file: BinaryIO, layout: Layout, line: int) -> Iterator[Records]:
    """Every record from where the file stands, which is the beginning of `line`; many at a time, never none.

    Raises Misconfigured, OSError.
    """
    carried: list[bytes] = []
    for lines, final in _lines(file):
        lines = carried + lines if carried else lines
        texts, doubtful = _decode(lines, layout.encoding)
        carried = []
        records = _plain(lines, texts, layout, line) if not doubtful else None
        if records is None:
            records, carried = _one_by_one(lines, texts, layout, line, doubtful, final)
        if records.raws:
            yield records
        line += len(lines) - len(carried)


def _lines(file: BinaryIO) -> Iterator[tuple[list[bytes], bool]]:
    """The lines that follow, as many as make a batch, and whether they are the last."""
    rest = b""
    while chunk := file.read(BLOCK):
        data = rest + chunk
        # a CR at the very end may be half of a CR LF
        cut = data.rfind(b"\n") + 1 or data.rfind(b"\r", 0, len(data) - 1) + 1
        rest = data[cut:]
        if len(rest) > LONGEST_LINE:
            raise Misconfigured(
                f"a line of the file is longer than {LONGEST_LINE >> 20} MB: it is no CSV file", field="path"
            )
        lines = data[:cut].splitlines(keepends=True)
        for start in range(0, len(lines), BATCH):
            yield lines[start : start + BATCH], False
    yield rest.splitlines(keepends=True), True


def _plain(lines: list[bytes], texts: list[str], layout: Layout, line: int) -> Records | None:
    """The records of these lines if each line is a whole one without a fault, as is usual; else None."""
    try:
        rows = list(csv.reader(texts, delimiter=layout.delimiter, strict=True))
    except csv.Error:
        return None
    if len(rows) != len(lines) or not set(map(len, rows)) <= {len(layout.names)}:
        return None
    return Records(range(line, line + len(lines)), lines, rows)


def _one_by_one(
    lines: list[bytes], texts: list[str], layout: Layout, line: int, doubtful: bool, final: bool
) -> tuple[Records, list[bytes]]:
    """The records of these lines, each looked at, and the lines at the end that are no whole record yet."""
    width = len(layout.names)
    records = Records([], [], [])
    start = 0
    while start < len(lines):
        reader = csv.reader(texts[start:], delimiter=layout.delimiter, strict=True)
        first = start
        try:
            for cells in reader:
                end = first + reader.line_num
                if len(cells) != width and end > start + 1:  # a stray quotation mark has swallowed lines
                    break
                problem = _wrong_number(cells, width) or (_unreadable(cells, layout) if doubtful else "")
                usable = cells if len(cells) == width and not problem else None
                records.add(line + start, b"".join(lines[start:end]), usable, problem)
                start = end
            else:
                break
        except csv.Error as error:
            if not final and str(error) == "unexpected end of data":
                break
        records.add(line + start, lines[start], None, _STRAY_QUOTE)
        start += 1
    return records, lines[start:]


def _wrong_number(cells: list[str], width: int) -> str:
    if len(cells) == width or not any(cell.strip() for cell in cells):
        return ""
    return f"has {len(cells)} cell{'s' if len(cells) > 1 else ''}, and there are {width} columns"


def _decode(lines: list[bytes], encoding: str) -> tuple[list[str], bool]:
    """The texts of these lines, and whether each record must be looked at because some cannot be read."""
    try:
        texts = [*map(bytes.decode, lines)] if encoding in ("", "utf-8") else [line.decode(encoding) for line in lines]
        return texts, any("\0" in text for text in texts)
    except UnicodeError:
        texts = [_text(line, encoding) for line in lines]
        return texts, bool(_unreadable(texts, None))


def _text(line: bytes, encoding: str) -> str:
    """The text of a line; bytes that mean nothing become lone surrogates."""
    for tried in (encoding,) if encoding else ("utf-8", FALLBACK):
        try:
            return line.decode(tried)
        except UnicodeError:
            continue
    return line.decode("ascii", "surrogateescape")


def _unreadable(cells: list[str], layout: Layout | None) -> str:
    text = "".join(cells)
    if "\0" in text:
        return "holds a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"holds bytes that are not {(layout and layout.encoding) or 'UTF-8 or cp1252'}"
    return ""
