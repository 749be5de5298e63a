"""Pretraining: next-token prediction on token shards. The run around it is `nanochat.train.training_run`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nanochat.chat import samples
from nanochat.chat.engine import Engine
from nanochat.config import PretrainConfig
from nanochat.data.text.batches import PretrainBatches, val_batches
from nanochat.data.text.token_shards import TokenShard, vocabulary_digest
from nanochat.model.device import device_of
from nanochat.model.gpt import GPT
from nanochat.optim.schedules import pretrain_schedule
from nanochat.ranks.rank_group import RankGroup
from nanochat.runtime import Runtime
from nanochat.tokenizer.tokenizer import Tokenizer
from nanochat.train.hooks import SAMPLE_TOKENS
from nanochat.train.loop import DEFAULT_CUT, Cut, TrainingPlan
from nanochat.train.training_run import TrainingJob, train
from nanochat.train.validation import bits_per_byte, require_apart, require_vocabulary


def pretrain(
    config: PretrainConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime
) -> dict[str, Any]:
    """Train a new model on `inputs`: tokenizer, train_tokens (a folder of shards), val_tokens."""
    tokenizer = Tokenizer.load(inputs["tokenizer"])
    require_vocabulary(tokenizer, config.model)
    digest = vocabulary_digest(tokenizer)
    folders = sorted(path for path in inputs["train_tokens"].iterdir() if path.is_dir())
    shards = [TokenShard.open(folder, digest) for folder in folders]
    val_shard = TokenShard.open(inputs["val_tokens"], digest)
    require_apart(shards, val_shard)
    length = config.model.sequence_len
    bos, batch_rows = tokenizer.special("bos"), config.batch_tokens // length
    batches = PretrainBatches(shards, batch_rows, length, config.seed, bos, shuffle=config.shuffle)

    device = device_of(runtime.device)
    shape = config.model
    if config.documents_apart:
        shape = shape.model_copy(update={"document_token": bos})
    with torch.device(device):
        model = GPT(shape)
    model.init_weights(torch.Generator().manual_seed(config.seed))
    val_rows = DEFAULT_CUT.rows_of(length, device.type)

    def measure(cut: Cut, world: RankGroup) -> float:
        val = val_batches(val_shard, val_rows, length, config.eval_tokens)
        return bits_per_byte(model, val, tokenizer, cut, world)

    def answer(prompt: str) -> str:
        return samples.continuation(Engine(model, tokenizer), prompt, SAMPLE_TOKENS)

    schedule = pretrain_schedule(config)
    plan = TrainingPlan(
        steps=config.steps,
        batch_rows=batch_rows,
        longest=length,
        batch=batches.batch,
        lr_multiplier=schedule.lr_multiplier,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
    )
    job = TrainingJob(
        config=config,
        plan=plan,
        measure_name="val/bpb",
        measure=measure,
        answer=answer,
        statistics={f"data/{name}": value for name, value in batches.accounting(config.steps).items()},
    )
    return train(model, job, out, runtime)
