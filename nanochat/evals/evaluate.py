"""The evaluation stages: bits per byte, the chat tasks and, for the base model, CORE.

Every checkpoint is given the chat tasks, so that what chat training adds can be seen. Results depend on the
inputs and the configuration alone, except that a program near the sandbox's time limit may or may not pass.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.chat import samples
from nanochat.chat.engine import Engine
from nanochat.config import EvaluateConfig
from nanochat.data.chat.tasks import ChatTask, load_scored_task
from nanochat.data.text.batches import val_batches
from nanochat.data.text.token_shards import TokenShard, vocabulary_digest
from nanochat.evals import choice, generative
from nanochat.evals.bpb import bits_per_byte
from nanochat.evals.core import score as core
from nanochat.evals.core.bundle import load_core
from nanochat.evals.item_results import ItemResult
from nanochat.model.checkpoint import load_model
from nanochat.model.device import device_of
from nanochat.model.reproducible import cpu_threads
from nanochat.runtime import Runtime
from nanochat.tokenizer.tokenizer import Tokenizer

log = logging.getLogger(__name__)

_ORDER_SEED = 42  # which problems a limited evaluation asks
_VAL_ROWS = 16
_SAMPLE_TOKENS = 64


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """Accuracy on one task; `centered` is 0 for guessing and 1 for all correct."""

    accuracy: float
    baseline: float
    problems: int

    @property
    def centered(self) -> float:
        """Return the accuracy above guessing."""
        return (self.accuracy - self.baseline) / (1 - self.baseline)

    def to_json(self) -> dict[str, float | int]:
        """Return the form that is kept in `results.json`."""
        return {
            "accuracy": self.accuracy,
            "baseline": self.baseline,
            "centered": self.centered,
            "problems": self.problems,
        }


def evaluate_base(
    config: EvaluateConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime
) -> dict[str, Any]:
    """Evaluate a pretrained model: bits per byte, chat tasks, CORE if asked for."""
    return _Evaluation(config, inputs, runtime).run(out, "base", with_core=config.core)


def evaluate_chat(
    config: EvaluateConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime
) -> dict[str, Any]:
    """Evaluate a chat model: bits per byte and chat tasks."""
    return _Evaluation(config, inputs, runtime).run(out, "chat", with_core=False)


class _Evaluation:
    def __init__(self, config: EvaluateConfig, inputs: Mapping[str, Path], runtime: Runtime) -> None:
        self.config, self.inputs, self.runtime = config, inputs, runtime
        self.tokenizer = Tokenizer.load(inputs["tokenizer"])
        self.model = load_model(inputs["model"], device=device_of(runtime.device))
        self.model.eval()
        self.engine = Engine(self.model, self.tokenizer)

    def run(self, out: Path, kind: str, *, with_core: bool) -> dict[str, Any]:
        """Measure everything, write the files, return the numbers of the record."""
        with cpu_threads(self.runtime.threads):
            tasks = {name: self._chat_task(name) for name in self.config.chat_tasks}
            core_tasks = self._core() if with_core else {}
            metrics = {
                "core": _mean_centered(core_tasks),
                "chatcore": _mean_centered(tasks),
                "val_bpb": self._val_bpb(),
            }
            shown = [{"prompt": p, "text": self._sample(p, kind)} for p in self.config.prompts]
        results = {
            "model": kind,
            "tasks": {name: result.to_json() for name, result in tasks.items()},
            "core": {name: result.to_json() for name, result in core_tasks.items()},
            "metrics": metrics,
        }
        text = json.dumps(results, indent=1, sort_keys=True, ensure_ascii=False)
        (out / "results.json").write_text(text + "\n", encoding="utf-8")
        lines = [json.dumps(sample, ensure_ascii=False) + "\n" for sample in shown]
        (out / "samples.jsonl").write_text("".join(lines), encoding="utf-8")
        # CORE and the chat tasks both have an arc_easy.
        found = {f"eval/{name}": result.accuracy for name, result in tasks.items()}
        found |= {f"eval/core_{name}": result.accuracy for name, result in core_tasks.items()}
        return found | {f"eval/{name}": value for name, value in metrics.items() if value is not None}

    def _chat_task(self, name: str) -> TaskResult:
        task = load_scored_task(self.inputs["tasks"], name)
        indices = list(range(len(task)))
        random.Random(_ORDER_SEED).shuffle(indices)
        indices = indices[: self.config.max_problems]
        return self._result(name, self._answered(task, indices), len(indices), task.baseline)

    def _answered(self, task: ChatTask, indices: list[int]) -> Iterator[list[ItemResult]]:
        if task.kind == "choice":
            return choice.answered(self.model, self.tokenizer, task, indices)
        return generative.answered(self.engine, task, indices, self.config.max_new_tokens)

    def _core(self) -> dict[str, TaskResult]:
        results = {}
        for task in load_core(self.inputs["tasks"], self.config.core_max_problems):
            answered = core.answered(self.model, self.tokenizer, task)
            results[task.label] = self._result(f"core_{task.label}", answered, len(task.items), task.baseline)
        return results

    def _val_bpb(self) -> float:
        shard = TokenShard.open(self.inputs["val_tokens"], vocabulary_digest(self.tokenizer))
        length = self.model.config.sequence_len
        batches = val_batches(shard, _VAL_ROWS, length, self.config.bpb_tokens)
        return bits_per_byte(self.model, batches, self.tokenizer.token_bytes())

    def _sample(self, prompt: str, kind: str) -> str:
        write = samples.continuation if kind == "base" else samples.reply
        return write(self.engine, prompt, min(_SAMPLE_TOKENS, self.config.max_new_tokens))

    def _result(
        self, name: str, answered: Iterator[list[ItemResult]], problems: int, baseline: float
    ) -> TaskResult:
        done = right = 0
        for batch in answered:
            self.runtime.raise_if_stopped()
            done += len(batch)
            right += sum(result.right[0] for result in batch)
            self.runtime.tracker.log({f"eval/{name}": right / done}, step=done, total_steps=problems)
        result = TaskResult(accuracy=right / max(problems, 1), baseline=baseline, problems=problems)
        log.info("%s: %.4f of %d problems (guessing: %.4f)", name, result.accuracy, problems, baseline)
        return result


def _mean_centered(results: Mapping[str, TaskResult]) -> float | None:
    """Return the mean accuracy above guessing, or None where there are no tasks."""
    return sum(result.centered for result in results.values()) / len(results) if results else None
