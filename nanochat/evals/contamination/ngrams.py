"""Runs of n words as 64-bit numbers, and which texts share one with a set of others.

Words are lower-cased runs of letters and digits: case, punctuation and white space make no difference, and a
script without spaces has long words. The numbers are hashes. Two different runs are expected to get the
same one 0.00002 times for 50 million words compared with 8 million runs, and hashes are compared within one
process only, so it does not matter that other versions of polars make others. What the texts are, and what is
done with those that share a run, is up to the caller.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_WORD = r"[\p{L}\p{N}]+"
_SAME_WORD = re.compile(r"[^\W_]+")  # for Python's engine
_SEED = 0
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no word's hash loses bits on its way
_PIECE_BYTES = 16 << 20
_SEAM_CHARACTERS = 1 << 16  # where the words that two pieces share are looked for
_SLOTS_PER_GRAM = 8  # of the sieve: at most one gram in eight passes that is not in the index


@dataclass(frozen=True)
class WordGrams:
    """The grams of several texts one after the other, those that cross the end of a text included."""

    hashes: npt.NDArray[np.uint64]  # by the position of the first word
    text_ends: Numbers  # position after the last word of each text
    n: int

    @classmethod
    def of(cls, texts: pl.Series, n: int) -> WordGrams:
        """Cut texts (strings, none of them null) into words and these into grams."""
        words = texts.str.to_lowercase().str.extract_all(_WORD)
        text_ends = words.list.len().cast(pl.Int64).cum_sum().to_numpy()
        of_words = words.explode(empty_as_null=False).hash(_SEED).to_numpy()
        hashes = np.zeros(max(len(of_words) - n + 1, 0), np.uint64)
        for i in range(n):  # a polynomial of the words' hashes modulo 2**64: their order counts
            hashes *= _MULTIPLIER
            hashes += of_words[i : i + len(hashes)]
        return cls(hashes, text_ends, n)

    def owners(self, positions: Numbers) -> tuple[Numbers, Mask]:
        """Return the text in which each of these grams begins, and whether it ends there as well."""
        texts = np.searchsorted(self.text_ends, positions, side="right")
        return texts, positions + self.n <= self.text_ends[texts]


def pieces(raw: bytes, n: int) -> Iterator[str]:
    """Cut a long text, which is UTF-8, into pieces that have its grams of n words, and no others."""
    start, seam = 0, _SEAM_CHARACTERS
    while start + _PIECE_BYTES + seam < len(raw):
        piece = raw[start : start + _PIECE_BYTES + seam].decode(errors="ignore")  # of a cut last character
        words = list(_SAME_WORD.finditer(piece, max(len(piece) - seam, 1)))
        if len(words) <= n:
            seam *= 2
            continue
        # The first word may have begun before the seam, and the last may go on after it.
        yield piece[: words[n - 1].end()]
        start += len(piece[: words[1].start()].encode())
        seam = _SEAM_CHARACTERS
    yield raw[start:].decode()


class Shared(NamedTuple):
    """The grams that texts share with an index, one entry for each time one occurs in them."""

    texts: Numbers
    grams: Numbers  # as the index numbers them


class GramIndex:
    """The grams of a fixed set of texts, to compare other texts with; each gram has a number."""

    def __init__(self, texts: pl.Series, n: int) -> None:
        """Index texts; takes about 60 bytes per gram."""
        found = WordGrams.of(texts, n)
        owners, whole = found.owners(np.arange(len(found.hashes)))
        self._n = n
        self._owners = owners[whole]
        self._grams, self._numbers = np.unique(found.hashes[whole], return_inverse=True)
        bits = max((_SLOTS_PER_GRAM * len(self._grams)).bit_length(), 10)
        self._shift = np.uint64(64 - bits)
        self._sieve = np.zeros(1 << bits, np.bool_)
        self._sieve[self._grams >> self._shift] = True

    def __len__(self) -> int:
        """Return the number of different grams."""
        return len(self._grams)

    def long_enough(self) -> Numbers:
        """Return the indexed texts that have a gram, in order."""
        return np.unique(self._owners)

    def find(self, texts: pl.Series) -> Shared:
        """Return which of these texts share which grams with the indexed ones."""
        grams = WordGrams.of(texts, self._n)
        # Nearly no gram is in the index. A look at one byte settles most; looking up the others in sorted
        # order finds the same part of the index in the processor's cache.
        maybe = np.flatnonzero(self._sieve[grams.hashes >> self._shift])
        maybe = maybe[np.argsort(grams.hashes[maybe])]
        wanted = grams.hashes[maybe]
        numbers = np.minimum(np.searchsorted(self._grams, wanted), len(self._grams) - 1)
        owners, whole = grams.owners(maybe)
        there = whole & (self._grams[numbers] == wanted)
        return Shared(owners[there], numbers[there])

    def holders(self, grams: Mask) -> Numbers:
        """Return the indexed texts that hold one of the marked grams, in order."""
        return np.unique(self._owners[grams[self._numbers]])
