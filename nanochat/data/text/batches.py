"""Batches for pretraining: rows of fixed length cut from token shards, as a pure function of the step.

All documents, in an order drawn anew for each epoch or in that of the shards, form one endless stream of
tokens (each document begins with bos). Row r holds the stream's tokens r*T to (r+1)*T as its targets, and as
its inputs the same tokens one place later, with bos in the first place:

    inputs   bos  t0   t1  ...  t(T-2)
    targets  t0   t1   t2  ...  t(T-1)

So every row begins with bos (what a model sees at inference), every token is a target exactly once per
epoch, nothing is cropped or padded, and any row is found by arithmetic and one binary search. Best-fit
packing, the alternative, lets only whole documents begin a row but throws about a third of all tokens away;
here the price is that a document cut by a row's end continues in a later row without its beginning. Where a
row happens to begin with a document, the target "bos after bos" means nothing and is masked (-1): less than
one position in two thousand (`accounting` reports it as packing_waste).

Nothing here knows of devices or processes: a rank or micro-batch asks for its rows of the batch, so the order
is the same for any number of ranks. An epoch's order is drawn at its first use (12 bytes a document in
memory); after that a batch costs what its rows hold, at any step. `nanochat.data.text.prefetch` reads ahead.
Shapes: B rows, T positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nanochat.config import IGNORED
from nanochat.data.text.token_shards import TokenShard
from nanochat.errors import DataError

Ints = npt.NDArray[np.int64]


class _Piece(NamedTuple):
    """Tokens that follow each other in a shard."""

    shard: int
    begin: int
    stop: int


def rows_from_stream(stream: Ints, sequence_len: int, bos_id: int) -> tuple[Ints, Ints]:
    """Cut a stream of B*T tokens into inputs and targets, (B, T) each."""
    targets = stream.reshape(-1, sequence_len).copy()  # (B, T)
    inputs = np.empty_like(targets)
    inputs[:, 0] = bos_id
    inputs[:, 1:] = targets[:, :-1]
    targets[targets[:, 0] == bos_id, 0] = IGNORED
    return inputs, targets


@dataclass(frozen=True)
class _DocumentOrder:
    """The documents of one epoch in reading order; `starts[i]` is where the i-th begins in the epoch."""

    documents: npt.NDArray[np.uint32]
    starts: Ints  # one more than documents: the last is the number of tokens


class PretrainBatches:
    """Training batches over shards: `batch(step)` depends on shards, sizes, seed and step only."""

    def __init__(
        self,
        shards: Sequence[TokenShard],
        batch_rows: int,
        sequence_len: int,
        seed: int,
        bos_id: int,
        *,
        shuffle: bool = True,
    ) -> None:
        """Take the shards in the given order, which is part of what decides the batches.

        Without `shuffle` it alone decides.
        """
        offsets = [shard.doc_offsets for shard in shards]
        if not sum(int(each[-1]) for each in offsets):
            raise DataError(f"no tokens to train on in {len(shards)} shards")
        digests = sorted({shard.digest for shard in shards})
        if len(digests) > 1:
            raise DataError(f"shards of {len(digests)} vocabularies: {', '.join(d[:12] for d in digests)}")
        self.batch_rows, self.sequence_len, self.seed, self.bos_id = batch_rows, sequence_len, seed, bos_id
        self._offsets, self._shuffle = offsets, shuffle
        self._first_document = np.cumsum([0, *(len(each) - 1 for each in offsets)])
        self._lengths = np.concatenate([np.diff(each).astype(np.int32) for each in offsets])
        self._tokens = [shard.tokens for shard in shards]
        self.tokens_per_epoch = int(self._lengths.sum(dtype=np.int64))
        self._order = lru_cache(maxsize=2)(self._draw_order)

    def batch(self, step: int, rows: slice = slice(None)) -> tuple[Ints, Ints]:
        """Return inputs and targets (B, T) of a step, or of some `rows` of its batch."""
        first, stop, stride = rows.indices(self.batch_rows)
        begin, length = step * self.batch_rows, self.sequence_len
        if stride == 1:
            pieces = self._pieces((begin + first) * length, max(stop - first, 0) * length)
        else:
            pieces = [
                p for r in range(first, stop, stride) for p in self._pieces((begin + r) * length, length)
            ]
        return rows_from_stream(self._gather(pieces), length, self.bos_id)

    def accounting(self, steps: int) -> dict[str, float]:
        """Count what the first `steps` batches hold: nothing is dropped without being counted here."""
        read = steps * self.batch_rows * self.sequence_len
        whole, rest = divmod(read, self.tokens_per_epoch)
        masked = cut = 0
        for epoch in range(whole + bool(rest)):
            starts = self._order(epoch).starts + epoch * self.tokens_per_epoch
            rows = starts // self.sequence_len
            masked += int(np.count_nonzero((starts[:-1] % self.sequence_len == 0) & (starts[:-1] < read)))
            last = (np.minimum(starts[1:], read) - 1) // self.sequence_len
            cut += int(np.count_nonzero(last > rows[:-1]))
        return {
            "tokens_per_epoch": self.tokens_per_epoch,
            "tokens_read": read,
            "epochs": read / self.tokens_per_epoch,
            "tokens_never_read": max(self.tokens_per_epoch - read, 0),
            "masked_targets": masked,
            "packing_waste": masked / read if read else 0.0,
            "added_bos_inputs": steps * self.batch_rows - masked,
            "cut_documents": cut,
        }

    def _gather(self, pieces: Sequence[_Piece]) -> Ints:
        """Return the tokens of pieces, one after the other."""
        stream = np.empty(sum(piece.stop - piece.begin for piece in pieces), np.int64)
        done = 0
        for shard, begin, stop in pieces:
            stream[done : done + stop - begin] = self._tokens[shard][begin:stop]
            done += stop - begin
        return stream

    def _draw_order(self, epoch: int) -> _DocumentOrder:
        documents = np.arange(len(self._lengths))
        if self._shuffle:
            documents = np.random.default_rng([self.seed, epoch]).permutation(documents)
        starts = np.zeros(len(documents) + 1, np.int64)
        np.cumsum(self._lengths[documents], out=starts[1:])
        return _DocumentOrder(documents.astype(np.uint32), starts)

    def _pieces(self, position: int, count: int) -> list[_Piece]:
        """Return where `count` tokens of the endless stream from `position` on are."""
        pieces: list[_Piece] = []
        while count:
            epoch, offset = divmod(position, self.tokens_per_epoch)
            part = min(count, self.tokens_per_epoch - offset)
            pieces += self._pieces_of_epoch(self._order(epoch), offset, offset + part)
            position, count = position + part, count - part
        return pieces

    def _pieces_of_epoch(self, order: _DocumentOrder, begin: int, end: int) -> Iterator[_Piece]:
        first = int(np.searchsorted(order.starts, begin, side="right")) - 1
        last = int(np.searchsorted(order.starts, end, side="left"))
        documents = order.documents[first:last].astype(np.int64)
        shards = np.searchsorted(self._first_document, documents, side="right") - 1
        in_shard = (documents - self._first_document[shards]).tolist()
        starts = order.starts[first : last + 1].tolist()
        for i, (shard, document) in enumerate(zip(shards.tolist(), in_shard, strict=True)):
            origin = int(self._offsets[shard][document]) - starts[i]
            yield _Piece(shard, origin + max(starts[i], begin), origin + min(starts[i + 1], end))


def val_batches(
    shard: TokenShard, rows: int, sequence_len: int, max_tokens: int, numbers: slice = slice(None)
) -> Iterator[tuple[Ints, Ints]]:
    """Yield the same validation batches each time: the shard's documents in order, up to `max_tokens`.

    The last batch may have fewer rows, and its last row is padded with masked targets; which tokens are
    counted does not depend on `rows`. `numbers` asks for only some of the batches.
    """
    begins = _val_begins(shard, rows, sequence_len, max_tokens)
    bos_id = int(shard.tokens[0])
    for begin in begins[numbers]:
        stream = shard.tokens[begin : min(begin + rows * sequence_len, begins.stop)].astype(np.int64)
        missing = -len(stream) % sequence_len
        padded = np.concatenate([stream, np.full(missing, bos_id, np.int64)])
        inputs, targets = rows_from_stream(padded, sequence_len, bos_id)
        targets.reshape(-1)[len(stream) :] = IGNORED
        yield inputs, targets


def val_batch_count(shard: TokenShard, rows: int, sequence_len: int, max_tokens: int) -> int:
    """Return how many batches `val_batches` yields."""
    return len(_val_begins(shard, rows, sequence_len, max_tokens))


def _val_begins(shard: TokenShard, rows: int, sequence_len: int, max_tokens: int) -> range:
    """Return where validation batches begin; it stops where the last one ends."""
    if not shard.n_tokens:
        raise DataError(f"{shard.path}: a validation shard without tokens")
    total = min(shard.n_tokens, max(max_tokens // sequence_len, 1) * sequence_len)
    return range(0, total, rows * sequence_len)
