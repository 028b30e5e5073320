"""How a CSV file is written, and its records one by one: the bytes of each, and the cells in them.

Rows are split by the standard library. What it would swallow is brought back: a quotation mark that is opened and never
closed costs its own row and not the rest of the file, since reading goes on at the next line. Lines end with CR LF, LF
or CR, also mixed; the number of a record is the line it begins on.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from connectors.csv.config import CsvConfig
from core.errors import Misconfigured, Unavailable

BLOCK = 256 * 1024
#: A header longer than this is no header.
HEAD = 1024 * 1024
LONGEST_LINE = 16 * 1024 * 1024
BOM = b"\xef\xbb\xbf"
DELIMITERS = (",", ";", "\t")
SAMPLE_LINES = 30
FALLBACK = "cp1252"

#: The line a record begins on, its bytes, its cells, or None and what is wrong (nothing: a blank line).
Record = tuple[int, bytes, list[str] | None, str]

_NOT_TEXT = {
    b"PK\x03\x04": "is a spreadsheet, not a CSV file: save it as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "is a spreadsheet, not a CSV file: save it as CSV UTF-8",
    b"\xff\xfe": "is written in UTF-16: save it as CSV UTF-8",
    b"\xfe\xff": "is written in UTF-16: save it as CSV UTF-8",
    b"%PDF": "is a PDF, not a CSV file",
}


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
    if b"\0" in head[:4096]:
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


def read_records(file: BinaryIO, layout: Layout, line: int) -> Iterator[Record]:
    """Every record from where the file stands, which is the beginning of `line`. Raises Misconfigured, OSError."""
    carried: list[bytes] = []
    for lines, final in _blocks(file, layout):
        lines = carried + lines
        used = 0
        for start, end, cells, problem in _split(lines, layout, final):
            raw = lines[start] if end == start + 1 else b"".join(lines[start:end])
            yield line + start, raw, cells, problem
            used = end
        carried = lines[used:]
        line += used


def _blocks(file: BinaryIO, layout: Layout) -> Iterator[tuple[list[bytes], bool]]:
    """The lines that follow, many at a time, and whether they are the last."""
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
        if cut:
            yield data[:cut].splitlines(keepends=True), False
    yield rest.splitlines(keepends=True), True


def _split(lines: list[bytes], layout: Layout, final: bool) -> Iterator[tuple[int, int, list[str] | None, str]]:
    """(first line, line after, cells, problem) of each record. Stops before one that is not complete yet."""
    decode, doubtful = _decoder(lines, layout.encoding)
    width = len(layout.names)
    start = 0
    while start < len(lines):
        reader = csv.reader(map(decode, lines[start:]), delimiter=layout.delimiter, strict=True)
        first = start
        try:
            for cells in reader:
                end = first + reader.line_num
                if len(cells) == width:
                    problem = _unreadable(cells, layout) if doubtful else ""
                    yield start, end, None if problem else cells, problem
                elif end > start + 1:  # a stray quotation mark has swallowed lines
                    break
                else:
                    yield start, end, None, _wrong_number(cells, width)
                start = end
            else:
                return
        except csv.Error as error:
            if not final and str(error) == "unexpected end of data":
                return
        yield start, start + 1, None, "a quotation mark is not closed, or stands inside a quoted cell undoubled"
        start += 1


def _wrong_number(cells: list[str], width: int) -> str:
    if not any(cell.strip() for cell in cells):
        return ""
    return f"has {len(cells)} cell{'s' if len(cells) > 1 else ''}, and there are {width} columns"


def _decoder(lines: list[bytes], encoding: str) -> tuple[Callable[[bytes], str], bool]:
    """How to read these lines, and whether each record must be looked at because some cannot be read."""
    block = b"".join(lines)
    doubtful = b"\0" in block
    try:
        block.decode(encoding or "utf-8")
    except UnicodeError:
        return lambda line: _text(line, encoding), True
    if encoding in ("", "utf-8"):
        return bytes.decode, doubtful
    return lambda line: line.decode(encoding), doubtful


def _text(line: bytes, encoding: str) -> str:
    """The text of a line; bytes that mean nothing become lone surrogates."""
    for tried in (encoding,) if encoding else ("utf-8", FALLBACK):
        try:
            return line.decode(tried)
        except UnicodeError:
            continue
    return line.decode("ascii", "surrogateescape")


def _unreadable(cells: list[str], layout: Layout) -> str:
    text = "".join(cells)
    if "\0" in text:
        return "holds a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"holds bytes that are not {layout.encoding or 'UTF-8 or cp1252'}"
    return ""
