"""Batches of rendered conversations, as pure functions of the step.

Two ways to fill a batch:

- `MidtrainBatches`: conversations laid end to end and cut into rows of fixed length, cut as in
  `nanochat.data.text.batches`.
- `SftBatches`: one conversation a row, padded with assistant_end to the longest of its batch.

What the mask of the conversations leaves out is not a target: -1.

The first epoch keeps the given order (a mixture is shuffled already); each later one draws its own from the
seed. What is rendered, and what of it is a target, was decided before (`nanochat.data.chat.chat_tokens`).
Shapes: B rows, T positions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nanochat.config import IGNORED
from nanochat.data.chat.chat_tokens import ChatTokens
from nanochat.data.text.batches import Ints, rows_from_stream
from nanochat.data.text.token_shards import Tokens
from nanochat.errors import DataError

Mask = npt.NDArray[np.bool_]

_EMPTY = -1  # a row of a batch in which there is no conversation


class _ConversationOrder:
    """Which conversations an epoch has, and in which order."""

    def __init__(self, chat: ChatTokens, chosen: Ints, seed: int) -> None:
        if not len(chosen):
            raise DataError(
                f"no conversation to train on ({len(chat)} skipped)",
                hint="give the stage's mixture at least one data set",
            )
        self._chosen, self._seed = chosen, seed
        self._epoch = (0, chosen)

    def of(self, epoch: int) -> Ints:
        """Return the conversations of an epoch: the first as given, each later one shuffled."""
        if epoch == 0:
            return self._chosen
        if self._epoch[0] != epoch:
            shuffled = np.random.default_rng([self._seed, epoch]).permutation(len(self._chosen))
            self._epoch = (epoch, self._chosen[shuffled])
        return self._epoch[1]


class MidtrainBatches:
    """Rows cut from conversations laid end to end."""

    def __init__(
        self, chat: ChatTokens, batch_rows: int, sequence_len: int, bos_id: int, seed: int = 0
    ) -> None:
        """Raise DataError if there are no conversations."""
        self._chat, self._bos_id = chat, bos_id
        self._order = _ConversationOrder(chat, np.arange(len(chat)), seed)
        self.batch_rows, self.sequence_len = batch_rows, sequence_len
        self.steps = -(-chat.shard.n_tokens // (batch_rows * sequence_len))
        self._epoch: tuple[int, Tokens, Mask] = (0, chat.shard.tokens, chat.mask)

    def batch(self, step: int, rows: slice = slice(None)) -> tuple[Ints, Ints]:
        """Return inputs and targets (B, T) of a step; `steps` steps make an epoch."""
        epoch, in_epoch = divmod(step, self.steps)
        tokens, mask = self._stream(epoch)
        shape = self.batch_rows, self.sequence_len
        size = self.batch_rows * self.sequence_len
        # The last batch of an epoch is filled up from the epoch's start.
        places = np.arange(in_epoch * size, (in_epoch + 1) * size)
        wanted = tokens.take(places, mode="wrap").reshape(shape)[rows]
        inputs, targets = rows_from_stream(
            wanted.astype(np.int64).reshape(-1), self.sequence_len, self._bos_id
        )
        targets[~mask.take(places, mode="wrap").reshape(shape)[rows]] = IGNORED
        return inputs, targets

    @property
    def accounting(self) -> dict[str, int]:
        """Return what an epoch holds: nothing is dropped without being counted here."""
        tokens = self._chat.shard.n_tokens
        return {
            "conversations": len(self._chat),
            "truncated": self._chat.truncated,
            "tokens": tokens,
            "repeated_tokens": self.steps * self.batch_rows * self.sequence_len - tokens,
        }

    def _stream(self, epoch: int) -> tuple[Tokens, Mask]:
        if self._epoch[0] != epoch:
            tokens, mask = self._chat.shard.tokens, self._chat.mask
            if epoch:
                spans = [self._chat.span(i) for i in self._order.of(epoch).tolist()]
                shuffled = np.empty_like(tokens)
                tokens = np.concatenate([tokens[span] for span in spans], out=shuffled)
                mask = np.concatenate([mask[span] for span in spans])
            self._epoch = (epoch, tokens, mask)
        return self._epoch[1:]


class SftBatches:
    """One conversation a row.

    Conversations without a target are skipped and counted; an epoch's last rows that do not fill a batch
    are left over (different ones in each epoch), as upstream does it. With `whole` they are a batch that
    empty rows fill up: those have no target and change nothing.
    """

    def __init__(
        self, chat: ChatTokens, batch_rows: int, pad_id: int, seed: int = 0, *, whole: bool = False
    ) -> None:
        """Raise DataError if there is no conversation with a target."""
        self._chat, self._pad_id = chat, pad_id
        self._lengths = np.diff(chat.shard.doc_offsets).astype(np.int64)
        self._chosen = np.flatnonzero(_targets(chat))
        self._order = _ConversationOrder(chat, self._chosen, seed)
        self.batch_rows = min(batch_rows, len(self._chosen))
        self.steps = len(self._chosen) // self.batch_rows
        if whole:
            self.steps = -(-len(self._chosen) // self.batch_rows)

    @property
    def longest(self) -> int:
        """Return the T of the longest batch."""
        return int(self._lengths[self._chosen].max()) - 1

    def batch(self, step: int, rows: slice = slice(None)) -> tuple[Ints, Ints]:
        """Return inputs and targets (B, T) of a step, or of some `rows` of its batch.

        T is that of the longest conversation in the whole batch.
        """
        epoch, in_epoch = divmod(step, self.steps)
        chosen = self._order.of(epoch)[in_epoch * self.batch_rows : (in_epoch + 1) * self.batch_rows]
        longest = int(self._lengths[chosen].max()) - 1
        missing = self.batch_rows - len(chosen)
        chosen = np.pad(chosen, (0, missing), constant_values=_EMPTY)[rows]
        inputs = np.full((len(chosen), longest), self._pad_id, np.int64)
        targets = np.full((len(chosen), longest), IGNORED, np.int64)
        for row, index in enumerate(chosen.tolist()):
            if index == _EMPTY:
                continue
            span = self._chat.span(index)
            ids, mask = self._chat.shard.tokens[span], self._chat.mask[span]
            inputs[row, : len(ids) - 1] = ids[:-1]
            targets[row, : len(ids) - 1] = np.where(mask[1:], ids[1:].astype(np.int64), IGNORED)
        return inputs, targets

    @property
    def accounting(self) -> dict[str, int]:
        """Return what an epoch holds: nothing is dropped without being counted here."""
        return {
            "conversations": len(self._chosen),
            "skipped": len(self._chat) - len(self._chosen),
            "truncated": self._chat.truncated,
            "left_over": max(len(self._chosen) - self.steps * self.batch_rows, 0),
            "targets": int(self._chat.mask.sum()),
        }


def _targets(chat: ChatTokens) -> Ints:
    """Return how many tokens of each conversation are targets; its first token, bos, never is."""
    counts: Ints = np.add.reduceat(chat.mask, chat.shard.doc_offsets[:-1].astype(np.int64), dtype=np.int64)
    return counts
