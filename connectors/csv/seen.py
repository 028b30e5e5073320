"""Which ids a file has shown so far, and on which line, in a few bytes each.

A set of a million texts takes 100 MB. Here each id is a 40-bit fingerprint beside its line in an open-addressed table
of 8-byte slots, whose place gives 21 bits more: that two of a million ids are taken for one happens in one file of some
millions. The table has one size up to a million rows; when it is nearly full another one is begun.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

SMALL, LARGE = 1 << 14, 1 << 21
#: Bytes of a file for which the small table will do.
SMALL_FILE = 512 * 1024
_LINE_BITS = 24
_LINE_MASK = (1 << _LINE_BITS) - 1
_HASH_MASK = (1 << 64) - 1


class SeenIds:
    """Remembers ids with their lines; a line beyond 16 million is remembered as that."""

    def __init__(self, file_size: int) -> None:
        self._slots = SMALL if file_size < SMALL_FILE else LARGE
        self._tables = [array("Q", bytes(8 * self._slots))]
        self._used = 0

    def add(self, ids: Sequence[str], lines: Sequence[int]) -> dict[int, int]:
        """Remember these; of those that were there before, position -> line of the first. Empty ids do not count."""
        if self._used + len(ids) > self._slots * 3 // 4:
            self._tables.append(array("Q", bytes(8 * self._slots)))
            self._used = 0
        self._used += len(ids)
        if len(self._tables) == 1:
            return self._add(ids, lines)
        known = self._look_up(ids)
        kept = [number for number in range(len(ids)) if number not in known]
        added = self._add([ids[number] for number in kept], [lines[number] for number in kept])
        return known | {kept[number]: line for number, line in added.items()}

    def _add(self, ids: Sequence[str], lines: Sequence[int]) -> dict[int, int]:
        table, last = self._tables[-1], self._slots - 1
        known: dict[int, int] = {}
        for number, one in enumerate(ids):
            if not one:
                continue
            hashed = hash(one) & _HASH_MASK
            slot = hashed & last
            entry = hashed & ~_LINE_MASK
            while there := table[slot]:
                if (there ^ entry) <= _LINE_MASK:
                    known[number] = there & _LINE_MASK
                    break
                slot = (slot + 1) & last
            else:
                table[slot] = entry | min(lines[number], _LINE_MASK)
        return known

    def _look_up(self, ids: Sequence[str]) -> dict[int, int]:
        known: dict[int, int] = {}
        last = self._slots - 1
        for table in self._tables[:-1]:
            for number, one in enumerate(ids):
                if not one:
                    continue
                hashed = hash(one) & _HASH_MASK
                slot = hashed & last
                entry = hashed & ~_LINE_MASK
                while there := table[slot]:
                    if (there ^ entry) <= _LINE_MASK:
                        known[number] = there & _LINE_MASK
                        break
                    slot = (slot + 1) & last
        return known
