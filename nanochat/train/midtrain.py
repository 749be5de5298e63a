"""Midtraining: whole conversations laid end to end, every token a target (but answers of weight 0).

Validation is bits per byte on conversations held out of the mixture (`nanochat.train.validation`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nanochat.config import MidtrainConfig
from nanochat.data.chat.chat_batches import MidtrainBatches
from nanochat.errors import ConfigError
from nanochat.optim.schedules import midtrain_multiplier, rising_momentum
from nanochat.ranks.rank_group import RankGroup
from nanochat.runtime import Runtime
from nanochat.train.chat_stage import ChatStage
from nanochat.train.loop import DEFAULT_CUT, Cut, TrainingPlan
from nanochat.train.training_run import TrainingJob, train
from nanochat.train.validation import bits_per_byte


def midtrain(
    config: MidtrainConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime
) -> dict[str, Any]:
    """Continue training `inputs`: tokenizer, model, chat (the rendered conversations)."""
    chat = ChatStage.open(inputs, runtime)
    model, tokenizer = chat.model, chat.tokenizer
    length = model.config.sequence_len
    batch_rows, rest = divmod(config.batch_tokens, length)
    if rest:
        raise ConfigError(
            f"midtrain.batch_tokens is {config.batch_tokens}, not a multiple of sequence_len ({length})",
            hint=f"use {max(batch_rows, 1) * length} or {(batch_rows + 1) * length}",
        )
    bos = tokenizer.special("bos")
    batches = MidtrainBatches(chat.training, batch_rows, length, bos, config.seed)
    val = MidtrainBatches(chat.validation, DEFAULT_CUT.rows_of(length, model.device.type), length, bos)

    def measure(cut: Cut, world: RankGroup) -> float:
        return bits_per_byte(model, (val.batch(i) for i in range(val.steps)), tokenizer, cut, world)

    steps = batches.steps * config.epochs
    plan = TrainingPlan(
        steps=steps,
        batch_rows=batch_rows,
        longest=length,
        batch=batches.batch,
        lr_multiplier=lambda step: midtrain_multiplier(step, steps),
        momentum=rising_momentum,
    )
    job = TrainingJob(
        config=config,
        plan=plan,
        measure_name="val/bpb",
        measure=measure,
        answer=chat.answer,
        statistics={f"data/{name}": value for name, value in batches.accounting.items()},
    )
    return train(model, job, out, runtime)
