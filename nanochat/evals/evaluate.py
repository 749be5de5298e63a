"""The evaluation stages: bits per byte, the chat tasks and, for the base model, CORE.

Every checkpoint is given the chat tasks, so that what chat training adds can be seen. Results depend on the
inputs and the configuration alone, except that a program near the sandbox's time limit may or may not pass.

`results.json` has

    model      base or chat
    tasks      chat task -> its numbers (`nanochat.evals.task_results`)
    core       CORE task -> its numbers; empty where CORE was not asked
    metrics    val_bpb, and means over tasks under names that say of what (`nanochat.evals.problem_sets`)
    protocol   how these came about (`nanochat.evals.protocol`)
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nanochat.chat.engine import Engine
from nanochat.config import EvaluateConfig
from nanochat.data.chat.tasks import ChatTask, load_scored_task
from nanochat.data.text.batches import val_batches
from nanochat.data.text.token_shards import TokenShard, vocabulary_digest
from nanochat.evals import choice, generative, problem_sets
from nanochat.evals.bpb import bits_per_byte
from nanochat.evals.core import score as core
from nanochat.evals.core.bundle import load_core
from nanochat.evals.item_results import ItemResult
from nanochat.evals.protocol import protocol
from nanochat.evals.task_results import TaskResult, summed
from nanochat.model.checkpoint import load_model
from nanochat.model.reproducible import cpu_threads
from nanochat.runtime import Runtime
from nanochat.tokenizer.chat_format import render_for_completion
from nanochat.tokenizer.tokenizer import Tokenizer

log = logging.getLogger(__name__)

_VAL_ROWS = 16
_SAMPLE_TOKENS = 64


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
        self.model = load_model(inputs["model"], device=runtime.device)
        self.model.eval()
        self.engine = Engine(self.model, self.tokenizer)

    def run(self, out: Path, kind: str, *, with_core: bool) -> dict[str, Any]:
        """Measure everything, write the files, return the numbers of the record."""
        with cpu_threads(self.runtime.threads):
            tasks = {name: self._chat_task(name) for name in self.config.chat_tasks}
            core_tasks = self._core() if with_core else {}
            metrics = {
                **problem_sets.means("core", core_tasks),
                **problem_sets.means("chatcore", tasks, sampled=self.config.temperature > 0),
                "val_bpb": self._val_bpb(),
            }
            samples = [{"prompt": p, "text": self._sample(p, kind)} for p in self.config.prompts]
        results = {
            "model": kind,
            "tasks": {name: result.to_json() for name, result in tasks.items()},
            "core": {name: result.to_json() for name, result in core_tasks.items()},
            "metrics": metrics,
            "protocol": protocol(self.config, with_core=with_core),
        }
        text = json.dumps(results, indent=1, sort_keys=True, ensure_ascii=False)
        (out / "results.json").write_text(text + "\n", encoding="utf-8")
        lines = [json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples]
        (out / "samples.jsonl").write_text("".join(lines), encoding="utf-8")
        return _numbers(tasks, core_tasks, metrics)

    def _chat_task(self, name: str) -> TaskResult:
        task = load_scored_task(self.inputs["tasks"], name)
        asked = problem_sets.asked(task, self.config.max_problems)
        items = self._counted(name, self._answered(task, asked), len(asked))
        return summed(items, baseline=task.baseline, of=len(task), votes=task.kind == "math")

    def _answered(self, task: ChatTask, indices: list[int]) -> Iterator[list[ItemResult]]:
        if task.kind == "choice":
            return choice.answered(self.model, self.tokenizer, task, indices)
        return generative.answered(self.engine, task, indices, self.config)

    def _core(self) -> dict[str, TaskResult]:
        results = {}
        for task in load_core(self.inputs["tasks"], self.config.core_max_problems):
            answered = core.answered(self.model, self.tokenizer, task)
            items = self._counted(f"core_{task.label}", answered, len(task.items))
            results[task.label] = summed(items, baseline=task.baseline, of=task.of or len(task.items))
        return results

    def _val_bpb(self) -> float:
        shard = TokenShard.open(self.inputs["val_tokens"], vocabulary_digest(self.tokenizer))
        length = self.model.config.sequence_len
        batches = val_batches(shard, _VAL_ROWS, length, self.config.bpb_tokens)
        return bits_per_byte(self.model, batches, self.tokenizer.token_bytes())

    def _sample(self, prompt: str, kind: str) -> str:
        if kind == "base":
            ids = [self.tokenizer.special("bos"), *self.tokenizer.encode(prompt)]
        else:
            ids = render_for_completion(self.tokenizer, [{"role": "user", "content": prompt}])
        tokens = min(_SAMPLE_TOKENS, self.config.max_new_tokens)
        return self.tokenizer.decode(list(self.engine.generate(ids, max_new_tokens=tokens)))

    def _counted(self, name: str, answered: Iterator[list[ItemResult]], problems: int) -> list[ItemResult]:
        """Return all items of a task; show how many are right while they come."""
        items: list[ItemResult] = []
        right = 0.0
        for batch in answered:
            self.runtime.raise_if_stopped()
            items += batch
            right += sum(sum(item.right) / len(item.right) for item in batch)
            accuracy = right / len(items)
            self.runtime.tracker.log({f"eval/{name}": accuracy}, step=len(items), total_steps=problems)
        log.info("%s: %.4f of %d problems", name, right / max(len(items), 1), problems)
        return items


def _numbers(
    tasks: Mapping[str, TaskResult], core_tasks: Mapping[str, TaskResult], metrics: Mapping[str, float]
) -> dict[str, Any]:
    """Return the numbers of the record; CORE and the chat tasks both have an arc_easy."""
    found = {f"eval/{name}": result.accuracy for name, result in tasks.items()}
    for name, result in tasks.items():
        found |= {f"eval/{name}_{what}": value for what, value in result.sampled().items()}
    found |= {f"eval/core_{name}": result.accuracy for name, result in core_tasks.items()}
    return found | {f"eval/{name}": value for name, value in metrics.items()}
