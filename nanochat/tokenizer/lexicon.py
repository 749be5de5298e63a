"""Bulk encoding through a lexicon: text is cut where the split pattern is certain to cut, and each stretch
between two cuts is encoded once a batch; those that recur are kept and looked up.

A cut is before each space that is followed by something other than white space, so most stretches are one
word with the marks behind it. No word of the split pattern continues across such a place, and the pattern
does not look back, so a stretch has the same tokens wherever it occurs. What is new is encoded by the
function that the lexicon was given. All work on a batch is done on arrays, and memory is bounded: batches
are taken in windows, and a full lexicon starts anew. This module knows no vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nanochat.tokenizer.split import FAR_BLANKS, utf8

Ids = npt.NDArray[np.uint32]
Positions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# 97 MB of documents: 17.6 MB a CPU second in windows of 8 MB, 18.1 in windows of 32 MB.
_WINDOW_BYTES = 8 << 20
# 243 MB of documents have 340,000 that recur; a process takes 380 MB with them and 130 MB without.
_MAX_STRETCHES = 1 << 19
_MAX_IDS = 1 << 22
_MAX_STRETCH_BYTES = 64  # longer ones hardly recur

_SPACE = ord(" ")
# Where a long text may be cut: before a space or after a newline that no white space follows.
_NO_BLANK = b"(?!" + b"|".join(FAR_BLANKS) + b")[!-~\xc2-\xf4]"
_CUT = re.compile(b" (?=" + _NO_BLANK + b")|(?<=[\r\n])(?=" + _NO_BLANK + b")")


class Lexicon:
    """The tokens of stretches of text that were seen before; for one thread at a time."""

    def __init__(self, encode: Callable[[str], Ids], token_bytes: npt.NDArray[Any]) -> None:
        self._encode = encode
        self._token_bytes = token_bytes.astype(np.int64)
        self._index: dict[bytes, int] = {}
        self._table = _NOTHING

    def encode_batch(self, texts: Iterable[str | bytes]) -> list[Ids]:
        """Return the tokens of each text (bytes are UTF-8), as views of larger arrays."""
        encoded: list[list[Ids]] = []
        for window in _windows(texts):
            found = self._encode_window([raw for _, raw in window])
            for (index, _), ids in zip(window, found, strict=True):
                if index == len(encoded):
                    encoded.append([])
                encoded[index].append(ids)
        return [parts[0] if len(parts) == 1 else np.concatenate(parts) for parts in encoded]

    def _encode_window(self, texts: Sequence[bytes]) -> list[Ids]:
        data = np.frombuffer(b"".join(texts), np.uint8)
        text_ends = np.fromiter(map(len, texts), np.int64, len(texts)).cumsum()
        cuts = _certain_cuts(data, text_ends)
        cuts[0] = True
        cuts[text_ends] = True
        bounds = np.flatnonzero(cuts)
        coded = _array(data, bounds).dictionary_encode()
        codes = coded.indices.to_numpy()
        rows, table = self._look_up(coded.dictionary, np.bincount(codes))
        ids, token_bounds = table.gather(rows[codes])
        return np.split(ids, token_bounds[np.searchsorted(bounds, text_ends[:-1])])

    def _look_up(self, stretches: pa.LargeBinaryArray, counts: Positions) -> tuple[Positions, _Table]:
        """Return the row of each stretch in a table; those that recur are kept for the next call."""
        if len(self._table.lengths) > _MAX_STRETCHES or len(self._table.ids) > _MAX_IDS:
            self._index, self._table = {}, _NOTHING
        known = self._table
        keys = stretches.to_pylist()
        rows = np.fromiter(map(self._index.get, keys, repeat(-1)), np.int64, len(keys))
        new = np.flatnonzero(rows < 0)
        if not len(new):
            return rows, known
        learnt = self._learn(stretches.take(pa.array(new)))
        rows[new] = np.arange(len(new)) + len(known.lengths)
        again = np.flatnonzero(counts[new] > 1)
        kept = [(keys[i], n) for i, n in zip(new[again].tolist(), again.tolist(), strict=True)]
        kept = [(key, n) for key, n in kept if len(key) <= _MAX_STRETCH_BYTES]
        self._index.update((key, len(known.lengths) + i) for i, (key, _) in enumerate(kept))
        self._table = known.extended(learnt.rows(np.array([n for _, n in kept], np.int64)))
        return rows, known.extended(learnt)

    def _learn(self, stretches: pa.LargeBinaryArray) -> _Table:
        """Encode stretches: one after the other in one text, where their beginnings are certain cuts."""
        joinable = _joinable(stretches)
        alone = [self._encode(raw.decode()) for raw in stretches.filter(pa.array(~joinable)).to_pylist()]
        text, bounds = _content(stretches.filter(pa.array(joinable)))
        joined = self._encode(text.tobytes().decode())
        token_ends = np.append(0, self._token_bytes[joined].cumsum())
        lengths = np.empty(len(stretches), np.int64)
        lengths[~joinable] = [len(ids) for ids in alone]
        lengths[joinable] = np.diff(np.searchsorted(token_ends, bounds))
        order = np.argsort(joinable, kind="stable")
        starts = np.empty_like(lengths)
        starts[order] = lengths[order].cumsum() - lengths[order]
        return _Table(np.concatenate([*alone, joined]), starts, lengths)


@dataclass(frozen=True)
class _Table:
    """Rows of token ids: row `i` is `ids[starts[i] : starts[i] + lengths[i]]`."""

    ids: Ids
    starts: Positions
    lengths: Positions

    def gather(self, rows: Positions) -> tuple[Ids, Positions]:
        """Return the ids of rows one after the other, and where each row begins and the last ends."""
        lengths = self.lengths[rows]
        bounds = np.append(0, lengths.cumsum())
        places = np.arange(bounds[-1]) + np.repeat(self.starts[rows] - bounds[:-1], lengths)
        return self.ids[places], bounds

    def rows(self, rows: Positions) -> _Table:
        ids, bounds = self.gather(rows)
        return _Table(ids, bounds[:-1], np.diff(bounds))

    def extended(self, other: _Table) -> _Table:
        return _Table(
            np.append(self.ids, other.ids),
            np.append(self.starts, other.starts + len(self.ids)),
            np.append(self.lengths, other.lengths),
        )


_NOTHING = _Table(np.empty(0, np.uint32), np.empty(0, np.int64), np.empty(0, np.int64))


def _windows(texts: Iterable[str | bytes]) -> Iterator[list[tuple[int, bytes]]]:
    """Yield parts of texts with the number of their text, some megabytes at a time."""
    window: list[tuple[int, bytes]] = []
    size = 0
    for index, text in enumerate(texts):
        for raw in _parts(text if isinstance(text, bytes) else utf8(text, f"text {index}")):
            window.append((index, raw))
            size += len(raw)
            if size >= _WINDOW_BYTES:
                yield window
                window, size = [], 0
    if window:
        yield window


def _parts(raw: bytes) -> Iterator[bytes]:
    """Cut a text that is longer than a window, where all patterns cut."""
    start = 0
    while len(raw) - start > _WINDOW_BYTES and (cut := _CUT.search(raw, start + _WINDOW_BYTES)):
        yield raw[start : cut.start()]
        start = cut.start()
    yield raw[start:] if start else raw


def _certain_cuts(data: npt.NDArray[np.uint8], text_ends: Positions) -> Mask:
    """Mark the spaces before something that is not white space, in texts that follow one another.

    The result has one entry more than `data`.
    """
    cuts = np.zeros(len(data) + 1, np.bool_)
    if len(data) > 1:
        np.logical_and(data[:-1] == _SPACE, data[1:] > _SPACE, out=cuts[: len(data) - 1])
        far = np.flatnonzero(cuts[:-2] & (data[1:] >= 0xC2))
        cuts[far[_is_far_blank(data, far + 1)]] = False
        cuts[text_ends - 1] = False
    return cuts


def _is_far_blank(data: npt.NDArray[np.uint8], at: Positions) -> Mask:
    """Mark where a character of white space beyond ASCII begins."""
    padded = np.append(data, np.zeros(2, np.uint8))
    three = padded[at].astype(np.int64) << 16 | padded[at + 1].astype(np.int64) << 8 | padded[at + 2]
    blanks = [int.from_bytes(blank) for blank in FAR_BLANKS]
    return np.isin(three, blanks) | np.isin(three >> 8, blanks)


def _joinable(stretches: pa.LargeBinaryArray) -> Mask:
    """Mark which stretches begin with a certain cut, so that they can be encoded one after the other."""
    data, bounds = _content(stretches)
    return _certain_cuts(data, bounds[1:])[bounds[:-1]]


def _array(data: npt.NDArray[np.uint8], bounds: Positions) -> pa.LargeBinaryArray:
    buffers = [None, pa.py_buffer(bounds), pa.py_buffer(data)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(bounds) - 1, buffers)


def _content(stretches: pa.LargeBinaryArray) -> tuple[npt.NDArray[np.uint8], Positions]:
    """Return the bytes of an array that owns its buffers, and where each entry begins and the last ends."""
    _, bounds, data = stretches.buffers()
    positions = np.frombuffer(bounds, np.int64)[: len(stretches) + 1]
    return np.frombuffer(data or b"", np.uint8)[: positions[-1]], positions
