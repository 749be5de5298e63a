"""Midtraining: whole conversations laid end to end, every token a target.

Validation is bits per byte on conversations held out of the mixture (`nanochat.train.validation`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nanochat.config import MidtrainConfig
from nanochat.data.chat_batches import midtrain_batches
from nanochat.errors import ConfigError
from nanochat.model.checkpoint import load_model
from nanochat.runtime import Runtime
from nanochat.tokenizer.tokenizer import Tokenizer
from nanochat.train.chat_data import chat_data
from nanochat.train.loop import Plan, rows_per_pass
from nanochat.train.run import Job, device_of, train
from nanochat.train.schedules import midtrain_multiplier, rising_momentum
from nanochat.train.validation import bits_per_byte, chat_answer, require_vocabulary


def midtrain(
    config: MidtrainConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime
) -> dict[str, Any]:
    """Continue training `inputs`: tokenizer, model, tasks (the chat data)."""
    tokenizer = Tokenizer.load(inputs["tokenizer"])
    model = load_model(inputs["model"], device_of(runtime))
    require_vocabulary(tokenizer, model.config)
    length = model.config.sequence_len
    batch_rows, rest = divmod(config.batch_tokens, length)
    if rest:
        raise ConfigError(
            f"midtrain.batch_tokens is {config.batch_tokens}, not a multiple of sequence_len ({length})",
            hint=f"use {max(batch_rows, 1) * length} or {(batch_rows + 1) * length}",
        )
    conversations, validation = chat_data(inputs["tasks"], config)
    batches = midtrain_batches(conversations, tokenizer, batch_rows, length, seed=config.seed)
    val_rows = rows_per_pass(length, model.device.type)
    val = midtrain_batches(validation, tokenizer, val_rows, length)

    def measure() -> float:
        return bits_per_byte(model, (val.batch(i) for i in range(val.steps)), tokenizer)

    steps = batches.steps * config.epochs
    plan = Plan(
        steps=steps,
        batch=batches.batch,
        lr_multiplier=lambda step: midtrain_multiplier(step, steps),
        momentum=rising_momentum,
    )
    job = Job(
        config=config,
        plan=plan,
        optimizer=config.optimizer,
        measure_name="val/bpb",
        measure=measure,
        eval_every=config.eval_every,
        prompts=config.prompts,
        answer=lambda prompt: chat_answer(model, tokenizer, prompt),
        sample_every=config.sample_every,
        statistics={f"data/{name}": value for name, value in batches.accounting.items()},
    )
    return train(model, job, out, runtime)
