"""Which row of a cache a new text goes into, so that as little as possible of it is read again.

A row that is free keeps its text until another one needs the row. A new text goes into the row that it shares
the longest beginning with. If that row is in use, or would lose more than it gives, the beginning is copied
into the row that has been free for the longest, which takes a hundredth of the time of reading it. What free
rows hold is bounded: the memory of those that have been free for the longest is given back.
"""

from __future__ import annotations

from collections.abc import Sequence

from nanochat.model.kv_cache import KVCache
from nanochat.model.packed_rows import common_prefix

LEAST = 16  # tokens; sharing fewer is not worth a part in attention that differs from a text's beginning


class ResidentRows:
    """The rows of one cache: those in use, and those that are free with what they still hold."""

    def __init__(self, cache: KVCache, *, keep_slots: int | None = None, least: int = LEAST) -> None:
        """Keep at most `keep_slots` slots in free rows (None: any number); share at least `least` tokens."""
        self.cache = cache
        self._keep_slots, self._least = keep_slots, least
        self._free = list(range(cache.rows))  # the one that has been free for the longest comes first

    @property
    def free_rows(self) -> int:
        """Return the number of rows that are not in use."""
        return len(self._free)

    def shared(self, text: Sequence[int], other: Sequence[int]) -> int:
        """Return how many tokens at the beginning of a text need not be read, if another is held: 0 for few.

        The last one is always read, for what comes after it.
        """
        least = self._least
        if len(text) <= least or tuple(text[:least]) != tuple(other[:least]):
            return 0
        return min(common_prefix([list(text), list(other)]), len(text) - 1)

    def longest(self, text: Sequence[int]) -> tuple[int, int]:
        """Return the row that shares the longest beginning with a text, and that beginning's length."""
        lengths = [self.shared(text, held) for held in self.cache.texts]
        row = max(range(len(lengths)), key=lengths.__getitem__)
        return row, lengths[row]

    def take(self, text: Sequence[int]) -> tuple[int, int]:
        """Choose a free row for a text, and use it; return the row and how much of the text it holds."""
        source, length = self.longest(text)
        lost = len(self.cache.texts[source]) - length
        if length and source in self._free and (lost <= length or len(self._free) == 1):
            row = source
            self.cache.cut(row, length)
        else:
            row = next((row for row in self._free if not self.cache.texts[row]), self._free[0])
            if length and row == source and len(self._free) > 1:  # what is copied must not be lost
                row = self._free[1]
            self.cache.cut(row, 0)
            if length:
                self.cache.copy(source, row, length)
        self._free.remove(row)
        return row, length

    def free(self, row: int) -> None:
        """Use a row no longer; it keeps its text while there is room for it."""
        self._free.append(row)
        if self._keep_slots is None:
            return
        kept = sum(map(self.cache.slots, self._free))
        for row in list(self._free):
            if kept <= self._keep_slots:
                return
            kept -= self.cache.slots(row)
            self.cache.release(row)
