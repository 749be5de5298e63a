"""The evaluation stages: bits per byte, the chat tasks and, for the base model, CORE.

Every checkpoint is given the chat tasks, so that what chat training adds can be seen. Results depend on the
inputs and the configuration alone, except that a program near its limit of processor time may pass or not.
All ranks of an evaluation call its function; rank 0 alone writes:

- `items/<task>.parquet`, `items/core_<label>.parquet`: what the model made of each item
  (`nanochat.evals.item_files`);
- `results.json`: the numbers that follow from them (`nanochat.evals.summary`);
- `samples.jsonl`: continuations of the configured prompts.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nanochat.chat.engine import Engine
from nanochat.config import EvaluateConfig
from nanochat.data.chat.tasks import load_scored_task
from nanochat.evals import parts
from nanochat.evals.core.bundle import load_core
from nanochat.evals.item_files import as_result
from nanochat.evals.kept_rows import Found, write_answers
from nanochat.evals.portions import EvaluationPart
from nanochat.evals.shared_work import make_all
from nanochat.evals.summary import metrics, results
from nanochat.evals.task_results import TaskResult, summed
from nanochat.model.checkpoint import load_model
from nanochat.model.device import device_of
from nanochat.model.reproducible import cpu_threads
from nanochat.ranks.rank_group import RankGroup
from nanochat.runtime import Runtime
from nanochat.tokenizer.tokenizer import Tokenizer

log = logging.getLogger(__name__)


def evaluate_base(
    config: EvaluateConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime
) -> dict[str, Any]:
    """Evaluate a pretrained model: bits per byte, chat tasks, CORE if asked for."""
    return _evaluate(config, inputs, out, runtime, "base", with_core=config.core)


def evaluate_chat(
    config: EvaluateConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime
) -> dict[str, Any]:
    """Evaluate a chat model: bits per byte and chat tasks."""
    return _evaluate(config, inputs, out, runtime, "chat", with_core=False)


def _evaluate(
    config: EvaluateConfig,
    inputs: Mapping[str, Path],
    out: Path,
    runtime: Runtime,
    kind: str,
    *,
    with_core: bool,
) -> dict[str, Any]:
    """Measure everything, write the files, return the numbers of the record."""
    world = RankGroup.current()
    chat_tasks = [load_scored_task(inputs["tasks"], name) for name in config.chat_tasks]
    core_tasks = load_core(inputs["tasks"], config.core_max_problems) if with_core else []
    with cpu_threads(runtime.threads):
        model = _load(inputs, runtime)
        chat = [parts.chat_part(model, config, task) for task in chat_tasks]
        core = [parts.core_part(model, task) for task in core_tasks]
        # Whoever asks for single tasks gives no validation text.
        bpb = [parts.bpb_part(model, config, inputs["val_tokens"])] if "val_tokens" in inputs else []
        samples = parts.samples_part(model, config, kind)
        found = make_all([*chat, *core, *bpb, samples], runtime, world)
    if not world.main:
        return {}
    write_answers(out, [*chat, *core], found)
    _write_samples(out, found)
    chat_results = {
        task.name: _summed(part, found, len(task), votes=task.kind == "math")
        for task, part in zip(chat_tasks, chat, strict=True)
    }
    core_results = {
        task.label: _summed(part, found, task.of or len(task.items))
        for task, part in zip(core_tasks, core, strict=True)
    }
    val_bpb = parts.bits_per_byte(found[parts.VAL_BPB]) if bpb else None
    precision = str(model.gpt.precision).removeprefix("torch.")
    measured = results(kind, config, chat_results, core_results, val_bpb, precision=precision)
    text = json.dumps(measured, indent=1, sort_keys=True, ensure_ascii=False)
    (out / "results.json").write_text(text + "\n", encoding="utf-8")
    return metrics(chat_results, core_results, measured["metrics"])


def _load(inputs: Mapping[str, Path], runtime: Runtime) -> parts.Model:
    tokenizer = Tokenizer.load(inputs["tokenizer"])
    device = device_of(runtime.device)
    gpt = load_model(inputs["model"], device=device).eval()
    gpt.compute_in(torch.bfloat16 if device.type == "cuda" else torch.float32)
    return parts.Model(gpt, tokenizer, Engine(gpt, tokenizer), runtime.threads)


def _summed(part: EvaluationPart, found: Found, of: int, *, votes: bool = False) -> TaskResult:
    """Return the numbers of a task that has `of` problems."""
    items = [as_result(row) for _, row in sorted(found[part.name].items())]
    result = summed(items, baseline=part.baseline or 0.0, of=of, votes=votes)
    log.info(
        "%s: %.4f of %d problems (guessing: %.4f)",
        *(part.name, result.accuracy, len(items), result.baseline),
    )
    return result


def _write_samples(out: Path, found: Found) -> None:
    shown = [sample for _, sample in sorted(found[parts.SAMPLES].items())]
    lines = [json.dumps(sample, ensure_ascii=False) + "\n" for sample in shown]
    (out / "samples.jsonl").write_text("".join(lines), encoding="utf-8")
