"""Which ids a file has shown so far, and on which line, in a few bytes each.

A set of a million texts takes 100 MB. Here each id is a 40-bit fingerprint beside its line in an open-addressed table
of 8-byte slots, whose place gives 21 bits more: that two of a million ids are taken for one happens in one file of some
millions. The table has one size up to a million rows; when it is nearly full another one is begun.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

SMALL, LARGE = 1 << 14, 1 << 21
#: Bytes of a file for which the small table will do.
SMALL_FILE = 512 * 1024
_LINE = (1 << 24) - 1


class SeenIds:
    """Remembers ids with their lines; a line beyond 16 million is remembered as that."""

    def __init__(self, file_size: int) -> None:
        self._slots = SMALL if file_size < SMALL_FILE else LARGE
        self._full: list[array[int]] = []
        self._table = self._new_table()
        self._used = 0

    def _new_table(self) -> array[int]:
        return array("q", (0,)) * self._slots

    def add(self, ids: Sequence[str], lines: Sequence[int]) -> dict[int, int]:
        """Remember these; of those that were there before, position -> line of the first. Empty ids do not count."""
        if self._used + len(ids) > self._slots * 3 // 4:
            self._full.append(self._table)
            self._table = self._new_table()
            self._used = 0
        self._used += len(ids)
        numbered: Iterable[tuple[int, int]] = enumerate(map(hash, ids))
        known: dict[int, int] = {}
        if self._full or "" in ids:
            numbered = [one for one in numbered if ids[one[0]]]
            for table in self._full:
                known |= self._find(table, numbered)
            numbered = [one for one in numbered if one[0] not in known]
        return known | self._keep(numbered, lines)

    def _keep(self, numbered: Iterable[tuple[int, int]], lines: Sequence[int]) -> dict[int, int]:
        table, last = self._table, self._slots - 1
        known: dict[int, int] = {}
        for number, hashed in numbered:
            slot = hashed & last
            wanted = hashed | _LINE
            while there := table[slot]:
                if there | _LINE == wanted:
                    known[number] = there & _LINE
                    break
                slot = (slot + 1) & last
            else:
                table[slot] = wanted ^ _LINE ^ min(lines[number], _LINE)
        return known

    def _find(self, table: array[int], numbered: Sequence[tuple[int, int]]) -> dict[int, int]:
        last = self._slots - 1
        known: dict[int, int] = {}
        for number, hashed in numbered:
            slot = hashed & last
            while there := table[slot]:
                if there | _LINE == hashed | _LINE:
                    known[number] = there & _LINE
                    break
                slot = (slot + 1) & last
        return known
