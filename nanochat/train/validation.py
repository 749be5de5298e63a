"""Measurements during training on data that is not trained on, and the checks before it. No eval tasks."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from nanochat.config import IGNORED, ModelConfig
from nanochat.data.text.token_shards import TokenShard
from nanochat.errors import ConfigError, DataError
from nanochat.evals import bpb
from nanochat.model.gpt import GPT
from nanochat.ranks.rank_group import RankGroup
from nanochat.tokenizer.tokenizer import Tokenizer
from nanochat.train.feed import Ints
from nanochat.train.loop import Batch, Cut, micro_batches


def require_vocabulary(tokenizer: Tokenizer, model: ModelConfig) -> None:
    """Raise ConfigError if the tokenizer has ids that the model does not know."""
    if tokenizer.vocab_size > model.vocab_size:
        raise ConfigError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model {model.vocab_size}",
            hint="set tokenizer.vocab_size and pretrain.model.vocab_size to the same number",
        )


def require_apart(train: Sequence[TokenShard], val: TokenShard) -> None:
    """Raise DataError if the validation text is trained on as well, under whatever name."""
    for number, shard in enumerate(train):
        if shard.header.tokens_sha256 == val.header.tokens_sha256:
            raise DataError(
                f"training shard {number} (counted from 0) has the very text that validates:"
                f" {val.n_tokens:,} equal tokens",
                hint="take the copy out of corpus.source, or name another file: -o corpus.val_shard=NAME",
            )


def bits_per_byte(
    model: GPT, batches: Iterable[Batch], tokenizer: Tokenizer, cut: Cut, world: RankGroup
) -> float:
    """Measure bits per byte in the precision of training; each rank takes some of the batches."""
    mine = itertools.islice(batches, world.rank, None, world.size)
    parts = (
        part for batch in mine for part in _parts(*batch, cut.rows_of(batch[0].shape[1], model.device.type))
    )
    sums = bpb.nats_and_bytes(model, parts, tokenizer.token_bytes())
    return bpb.as_bits_per_byte(*world.total(*sums))


@torch.no_grad()
def mean_loss(model: GPT, batches: Iterable[Batch], cut: Cut, world: RankGroup) -> float:
    """Return the mean cross entropy in nats over all targets; each rank takes some of the batches."""
    losses, counted = [], 0
    for batch in itertools.islice(batches, world.rank, None, world.size):
        for inputs, targets in micro_batches(*batch, model.device.type, cut):
            x, y = (torch.from_numpy(a).to(model.device) for a in (inputs, targets))
            losses.append(model(x, y, loss_reduction="sum"))
            counted += int(np.count_nonzero(targets != IGNORED))
    nats = sum(torch.stack(losses).tolist()) if losses else 0.0  # read once, when all is queued
    all_nats, all_counted = world.total(nats, counted)
    return all_nats / max(all_counted, 1)


def _parts(inputs: Ints, targets: Ints, rows: int) -> Iterator[Batch]:
    for begin in range(0, len(inputs), rows):
        yield inputs[begin : begin + rows], targets[begin : begin + rows]
