"""Supervised fine-tuning: one conversation a row, only the assistant's words are targets.

Validation is the mean loss on conversations held out of the mixture (`nanochat.train.validation`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nanochat.config import SftConfig
from nanochat.data.chat.chat_batches import SftBatches
from nanochat.data.chat.chat_tokens import has_own_rows
from nanochat.data.chat.row_counts import MOST_LOST
from nanochat.optim.schedules import fixed_momentum, sft_multiplier
from nanochat.ranks.rank_group import RankGroup
from nanochat.runtime import Runtime
from nanochat.train.chat_stage import ChatStage
from nanochat.train.loop import Cut, TrainingPlan
from nanochat.train.training_run import TrainingJob, train
from nanochat.train.validation import mean_loss

_VAL_ROWS = 8


def sft(config: SftConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime) -> dict[str, Any]:
    """Fine-tune `inputs`: tokenizer, model, chat (the rendered conversations)."""
    chat = ChatStage.open(inputs, runtime)
    pad = chat.tokenizer.special("assistant_end")
    own = has_own_rows(inputs["chat"])  # of these none is left over
    batches = SftBatches(chat.training, config.batch_rows, pad, config.seed, whole=own)
    val = SftBatches(chat.validation, _VAL_ROWS, pad, whole=True)

    def measure(cut: Cut, world: RankGroup) -> float:
        return mean_loss(chat.model, (val.batch(i) for i in range(val.steps)), cut, world)

    steps = batches.steps * config.epochs
    plan = TrainingPlan(
        steps=steps,
        batch_rows=batches.batch_rows,
        longest=batches.longest,
        batch=batches.batch,
        lr_multiplier=lambda step: sft_multiplier(step, steps),
        momentum=fixed_momentum,
    )
    job = TrainingJob(
        config=config,
        plan=plan,
        lr_factor=config.init_lr_frac,
        measure_name="val/loss",
        measure=measure,
        answer=chat.answer,
        statistics={f"data/{name}": value for name, value in batches.accounting.items()},
    )
    return {**train(chat.model, job, out, runtime), "notes": _notes(batches, val)}


def _notes(batches: SftBatches, val: SftBatches) -> list[str]:
    """Say which rows an epoch does not reach, and which validation does not measure, if any."""
    trained, measured = batches.accounting, val.accounting
    notes = []
    if left := trained["left_over"]:
        rows = trained["conversations"]
        warning = "warning: " if left > MOST_LOST * rows else ""
        notes.append(
            f"{warning}{left:,} of {rows:,} rows left over in an epoch of {batches.steps:,} whole batches of"
            f" {batches.batch_rows:,}; a smaller batch_rows leaves fewer"
        )
    if skipped := measured["skipped"]:
        total = skipped + measured["conversations"]
        notes.append(f"{skipped:,} of {total:,} rows to validate on have no answer within the context")
    return notes
