"""On which line each key of a TOML document stands. `tomllib` reads values; it does not say where they were.

For text that `tomllib` has accepted: the scanner follows keys, tables, arrays of tables, dotted keys, inline tables and
lists, and passes over values. Whatever it does not understand it passes over, too: at worst a line is missing.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping

Path = tuple[str | int, ...]

_CLOSERS = ",]}\n#"


def line_index(text: str) -> Mapping[Path, int]:
    """The line (from 1) of every key and list item, by its path: `("campaigns", "relationship", "source", 0)`."""
    return _Scanner(text).scan()


def line_of(lines: Mapping[Path, int], path: Path) -> int:
    """The line of a path, or of what it stands in: a missing key is shown at its table. 1 if there is nothing."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._table: Path = ()
        self._lists: dict[Path, int] = {}  # path of an array of tables -> its last index
        self._lines: dict[Path, int] = {}
        self._implied: dict[Path, int] = {}  # `[a.b]` makes a, too, which may have a header of its own further down
        self._counted_to = 0
        self._line = 1

    def scan(self) -> dict[Path, int]:
        while self._skip_blank():
            before = self._at
            if self._peek() == "[":
                self._header()
            else:
                self._pair(self._table)
            if self._at == before:
                self._at += 1  # nothing understood: never stand still
        return {**self._implied, **self._lines}

    # --- statements -------------------------------------------------------------------------------------------------

    def _header(self) -> None:
        line = self._here()
        repeated = self._text.startswith("[[", self._at)
        self._at += 2 if repeated else 1
        names = self._key()
        path = self._resolve(names[:-1])
        path = (*path, *names[-1:])
        if repeated:
            self._lists[path] = self._lists.get(path, -1) + 1
            self._lines.setdefault(path, line)
            path = (*path, self._lists[path])
        self._note(path, line)
        for length in range(1, len(path)):
            self._implied.setdefault(path[:length], line)
        self._table = path
        self._to_end_of_line()

    def _resolve(self, names: Path) -> Path:
        """`[[a]]` then `[a.b]` speaks of the last item of a."""
        path: Path = ()
        for name in names:
            path = (*path, name)
            if path in self._lists:
                path = (*path, self._lists[path])
        return path

    def _pair(self, table: Path) -> None:
        line = self._here()
        names = self._key()
        if not names:
            self._to_end_of_line()
            return
        path = (*table, *names)
        for length in range(len(table) + 1, len(path) + 1):
            self._note(path[:length], line)
        self._skip_spaces()
        if self._peek() == "=":
            self._at += 1
            self._value(path)

    # --- keys and values --------------------------------------------------------------------------------------------

    def _key(self) -> Path:
        names: list[str] = []
        while True:
            self._skip_spaces()
            start = self._at
            if self._peek() in "\"'" and self._peek():
                self._string()
                names.append(_unquoted(self._text[start : self._at]))
            else:
                while self._peek() and (self._peek().isalnum() or self._peek() in "_-"):
                    self._at += 1
                if self._at == start:
                    break
                names.append(self._text[start : self._at])
            self._skip_spaces()
            if self._peek() != ".":
                break
            self._at += 1
        return tuple(names)

    def _value(self, path: Path) -> None:
        self._skip_spaces()
        first = self._peek()
        if first == "{":
            self._inline_table(path)
        elif first == "[":
            self._list(path)
        elif first and first in "\"'":
            self._string()
        else:
            while self._peek() and self._peek() not in _CLOSERS:
                self._at += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        while self._skip_blank() and self._peek() != "}":
            before = self._at
            self._pair(path)
            self._skip_blank()
            if self._peek() == "," or self._at == before:
                self._at += 1
        self._at += 1

    def _list(self, path: Path) -> None:
        self._at += 1
        number = 0
        while self._skip_blank() and self._peek() != "]":
            before = self._at
            self._note((*path, number), self._here())
            self._value((*path, number))
            number += 1
            self._skip_blank()
            if self._peek() == "," or self._at == before:
                self._at += 1
        self._at += 1

    def _string(self) -> None:
        quote = self._peek()
        end = quote * 3 if self._text.startswith(quote * 3, self._at) else quote
        self._at += len(end)
        while self._at < len(self._text) and not self._text.startswith(end, self._at):
            self._at += 2 if quote == '"' and self._peek() == "\\" else 1
        self._at += len(end)
        while len(end) == 3 and self._peek() == quote:
            self._at += 1  # up to two more quotes belong to the text

    # --- moving on --------------------------------------------------------------------------------------------------

    def _peek(self) -> str:
        return self._text[self._at] if self._at < len(self._text) else ""

    def _skip_spaces(self) -> None:
        while self._peek() and self._peek() in " \t":
            self._at += 1

    def _skip_blank(self) -> bool:
        """To the next thing that is neither space nor comment; False at the end."""
        while self._peek():
            if self._peek() in " \t\r\n":
                self._at += 1
            elif self._peek() == "#":
                self._to_end_of_line()
            else:
                return True
        return False

    def _to_end_of_line(self) -> None:
        end = self._text.find("\n", self._at)
        self._at = len(self._text) if end < 0 else end

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted_to, self._at)
        self._counted_to = self._at
        return self._line

    def _note(self, path: Path, line: int) -> None:
        self._lines.setdefault(path, line)


def _unquoted(written: str) -> str:
    try:
        return str(tomllib.loads(f"key = {written}")["key"])
    except tomllib.TOMLDecodeError:
        return written
