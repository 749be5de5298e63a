"""Supervised fine-tuning: one conversation a row, only the assistant's words are targets.

Validation is the mean loss on conversations that do not train (`nanochat.train.chat_data`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nanochat.config import SftConfig
from nanochat.data.chat_batches import sft_batches
from nanochat.model.checkpoint import load_model
from nanochat.runtime import Runtime
from nanochat.tokenizer.tokenizer import Tokenizer
from nanochat.train.chat_data import chat_data
from nanochat.train.loop import Plan
from nanochat.train.run import Job, device_of, train
from nanochat.train.schedules import fixed_momentum, sft_multiplier
from nanochat.train.validation import chat_answer, mean_loss, require_vocabulary

_VAL_ROWS = 8


def sft(config: SftConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime) -> dict[str, Any]:
    """Fine-tune `inputs`: tokenizer, model, tasks (the chat data)."""
    tokenizer = Tokenizer.load(inputs["tokenizer"])
    model = load_model(inputs["model"], device_of(runtime))
    require_vocabulary(tokenizer, model.config)
    context = model.config.sequence_len  # what lies beyond it was never trained
    conversations, validation = chat_data(inputs["tasks"], config)
    batches = sft_batches(conversations, tokenizer, config.batch_rows, seed=config.seed, max_tokens=context)
    val = sft_batches(validation, tokenizer, _VAL_ROWS, max_tokens=context)
    steps = batches.steps * config.epochs
    plan = Plan(
        steps=steps,
        batch=batches.batch,
        lr_multiplier=lambda step: sft_multiplier(step, steps),
        momentum=fixed_momentum,
    )
    job = Job(
        config=config,
        plan=plan,
        optimizer=config.optimizer,
        lr_factor=config.init_lr_frac,
        measure_name="val/loss",
        measure=lambda: mean_loss(model, (val.batch(i) for i in range(val.steps))),
        eval_every=config.eval_every,
        prompts=config.prompts,
        answer=lambda prompt: chat_answer(model, tokenizer, prompt),
        sample_every=config.sample_every,
        statistics={f"data/{name}": value for name, value in batches.accounting.items()},
    )
    return train(model, job, out, runtime)
