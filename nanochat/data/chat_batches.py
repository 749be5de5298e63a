"""Batches of rendered conversations, as pure functions of the step.

Two ways to fill a batch:

- `midtrain_batches`: conversations laid end to end and cut into rows of fixed length, every token a target,
  cut as in `nanochat.data.batches`.
- `sft_batches`: one conversation a row, padded with assistant_end to the longest of its batch; only what the
  assistant says is a target, everything else is -1.

The first epoch keeps the given order (a mixture is shuffled already); each later one draws its own from the
seed. All conversations are rendered once, at the start, and kept as int32. How conversations are rendered
and masked is decided by `nanochat.tokenizer.chat_format`. Shapes: B rows, T positions.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nanochat.data.batches import IGNORED, Ints, rows_from_stream
from nanochat.errors import DataError
from nanochat.tokenizer.chat_format import Conversation, render
from nanochat.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class _Rendered:
    """Conversations as tokens: number i is `ids[starts[i] : starts[i + 1]]`."""

    ids: npt.NDArray[np.int32]
    mask: npt.NDArray[np.bool_]  # True where the token is a target
    starts: Ints
    skipped: int  # conversations without anything to learn from
    truncated: int  # conversations that reached max_tokens

    def __len__(self) -> int:
        return len(self.starts) - 1

    def order(self, seed: int, epoch: int) -> Ints:
        if epoch == 0:
            return np.arange(len(self))
        return np.random.default_rng([seed, epoch]).permutation(len(self))


class MidtrainBatches:
    """Rows cut from conversations laid end to end."""

    def __init__(
        self, rendered: _Rendered, batch_rows: int, sequence_len: int, seed: int, bos_id: int
    ) -> None:
        """Take rendered conversations; see `midtrain_batches`."""
        self._rendered, self._seed, self._bos_id = rendered, seed, bos_id
        self.batch_rows, self.sequence_len = batch_rows, sequence_len
        self.steps = -(-len(rendered.ids) // (batch_rows * sequence_len))
        self._epoch: tuple[int, npt.NDArray[np.int32]] = (0, rendered.ids)

    def batch(self, step: int, rows: slice = slice(None)) -> tuple[Ints, Ints]:
        """Return inputs and targets (B, T) of a step; `steps` steps make an epoch."""
        epoch, in_epoch = divmod(step, self.steps)
        stream = self._stream(epoch)
        size = self.batch_rows * self.sequence_len
        # The last batch of an epoch is filled up from the epoch's start.
        tokens = stream.take(np.arange(in_epoch * size, (in_epoch + 1) * size), mode="wrap")
        wanted = tokens.reshape(self.batch_rows, self.sequence_len)[rows]
        return rows_from_stream(wanted.astype(np.int64).reshape(-1), self.sequence_len, self._bos_id)

    @property
    def accounting(self) -> dict[str, int]:
        """Return what an epoch holds: nothing is dropped without being counted here."""
        tokens = len(self._rendered.ids)
        return {
            "conversations": len(self._rendered),
            "skipped": self._rendered.skipped,
            "truncated": self._rendered.truncated,
            "tokens": tokens,
            "repeated_tokens": self.steps * self.batch_rows * self.sequence_len - tokens,
        }

    def _stream(self, epoch: int) -> npt.NDArray[np.int32]:
        if self._epoch[0] != epoch:
            starts = self._rendered.starts
            pieces = [
                self._rendered.ids[starts[i] : starts[i + 1]] for i in self._rendered.order(self._seed, epoch)
            ]
            self._epoch = (epoch, np.concatenate(pieces))
        return self._epoch[1]


class SftBatches:
    """One conversation a row."""

    def __init__(self, rendered: _Rendered, batch_rows: int, seed: int, pad_id: int) -> None:
        """Take rendered conversations; see `sft_batches`."""
        self._rendered, self._seed, self._pad_id = rendered, seed, pad_id
        self.batch_rows = min(batch_rows, len(rendered))
        self.steps = len(rendered) // self.batch_rows
        self._epoch = (0, rendered.order(seed, 0))

    @property
    def longest(self) -> int:
        """Return the T of the longest batch."""
        return int(np.diff(self._rendered.starts).max()) - 1

    def batch(self, step: int, rows: slice = slice(None)) -> tuple[Ints, Ints]:
        """Return inputs and targets (B, T) of a step, or of some `rows` of its batch.

        T is that of the longest conversation in the whole batch.
        """
        epoch, in_epoch = divmod(step, self.steps)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._rendered.order(self._seed, epoch))
        chosen = self._epoch[1][in_epoch * self.batch_rows : (in_epoch + 1) * self.batch_rows]
        longest = int((self._rendered.starts[chosen + 1] - self._rendered.starts[chosen]).max()) - 1
        chosen = chosen[rows]
        begins, ends = self._rendered.starts[chosen], self._rendered.starts[chosen + 1]
        inputs = np.full((len(chosen), longest), self._pad_id, np.int64)
        targets = np.full((len(chosen), longest), IGNORED, np.int64)
        for row, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            length = end - begin - 1
            inputs[row, :length] = self._rendered.ids[begin : end - 1]
            counted = self._rendered.mask[begin + 1 : end]
            targets[row, :length] = np.where(counted, self._rendered.ids[begin + 1 : end], IGNORED)
        return inputs, targets

    @property
    def accounting(self) -> dict[str, int]:
        """Return what an epoch holds: nothing is dropped without being counted here."""
        return {
            "conversations": len(self._rendered),
            "skipped": self._rendered.skipped,
            "truncated": self._rendered.truncated,
            "left_over": len(self._rendered) - self.steps * self.batch_rows,
            "targets": int(self._rendered.mask.sum()),
        }


def midtrain_batches(
    conversations: Iterable[Conversation],
    tokenizer: Tokenizer,
    batch_rows: int,
    sequence_len: int,
    *,
    seed: int = 0,
    max_tokens: int = 2048,
) -> MidtrainBatches:
    """Lay conversations end to end; each is cut off at `max_tokens`. Raises DataError if there are none."""
    rendered = _render_all(conversations, tokenizer, max_tokens, needs_targets=False)
    return MidtrainBatches(rendered, batch_rows, sequence_len, seed, tokenizer.special("bos"))


def sft_batches(
    conversations: Iterable[Conversation],
    tokenizer: Tokenizer,
    batch_rows: int,
    *,
    seed: int = 0,
    max_tokens: int = 2048,
) -> SftBatches:
    """Put one conversation in each row, cut off at `max_tokens`.

    Conversations without a target are skipped and counted; an epoch's last rows that do not fill a batch
    are left over (each epoch leaves out others). Raises DataError if nothing is left.
    """
    rendered = _render_all(conversations, tokenizer, max_tokens, needs_targets=True)
    return SftBatches(rendered, batch_rows, seed, tokenizer.special("assistant_end"))


def _render_all(
    conversations: Iterable[Conversation],
    tokenizer: Tokenizer,
    max_tokens: int,
    *,
    needs_targets: bool,
) -> _Rendered:
    ids: list[npt.NDArray[np.int32]] = []
    masks: list[npt.NDArray[np.bool_]] = []
    skipped = truncated = 0
    for conversation in conversations:
        tokens, mask = render(tokenizer, conversation, max_tokens)
        if len(tokens) < 2 or (needs_targets and not any(mask[1:])):
            skipped += 1
            continue
        truncated += len(tokens) >= max_tokens
        ids.append(np.array(tokens, np.int32))
        masks.append(np.array(mask, np.bool_))
    if not ids:
        raise DataError(
            f"no conversation to train on ({skipped} skipped)",
            hint="give the stage's mixture at least one data set",
        )
    starts = np.array([0, *itertools.accumulate(map(len, ids))], np.int64)
    return _Rendered(np.concatenate(ids), np.concatenate(masks), starts, skipped, truncated)
