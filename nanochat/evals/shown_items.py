"""Items as people read them: what was asked, in words, beside what the model made of it.

Prompts are rendered again from the problems; for chat tasks the digest that was kept with the result proves
that they are the same. Models are not run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanochat.config import EvaluateConfig
from nanochat.data.chat.tasks import ChatTask, load_scored_task
from nanochat.errors import DataError
from nanochat.evals.core.bundle import CoreTask, load_core
from nanochat.evals.item_results import ItemResult, prompt_digest
from nanochat.tokenizer.chat_format import render_for_completion
from nanochat.tokenizer.tokenizer import Tokenizer

CORE_PREFIX = "core_"  # of the names of CORE's tasks where they are beside chat tasks


@dataclass(frozen=True)
class ShownItem:
    """One item in words."""

    prompt: str
    options: tuple[str, ...] = ()  # what the model chose from, where the prompt does not list it
    gold: str = ""
    exact: bool = False  # asks whether each token of the gold answer is the likeliest

    def said(self, result: ItemResult) -> tuple[str, ...]:
        """Return what a model made of it, in words: once, or once for each sample."""
        if self.options:
            return tuple(self.options[int(prediction)] for prediction in result.predictions)
        if self.exact:
            return tuple("this" if right else "something else" for right in result.right)
        return result.replies or result.predictions


@dataclass
class Prompts:
    """The prompts of the problems at one place, read as they are needed."""

    root: Path
    tokenizer: Tokenizer
    config: EvaluateConfig
    _chat: dict[str, ChatTask] = field(default_factory=dict)
    _core: Mapping[str, CoreTask] | None = None

    def shown(self, task: str, result: ItemResult) -> ShownItem:
        """Return an item of a task; raise DataError where it is not what was asked."""
        return (
            self._core_item(task, result) if task.startswith(CORE_PREFIX) else self._chat_item(task, result)
        )

    def _chat_item(self, name: str, result: ItemResult) -> ShownItem:
        task = self._chat.get(name) or self._chat.setdefault(name, load_scored_task(self.root, name))
        conversation = task.conversation(result.item)
        if prompt_digest([render_for_completion(self.tokenizer, conversation)]) != result.prompt_sha256:
            raise DataError(
                f"{name}, item {result.item}: the problem is not the one that was asked",
                hint="score the model again: its results are of other data",
            )
        return ShownItem(_text(conversation[0]["content"]), gold=result.gold)

    def _core_item(self, name: str, result: ItemResult) -> ShownItem:
        if self._core is None:
            self._core = {t.label: t for t in load_core(self.root, self.config.core_max_problems)}
        task = self._core[name.removeprefix(CORE_PREFIX)]
        prompts = task.prompts(task.index(result.item))
        if task.kind == "language_modeling":
            return ShownItem(prompts[0], gold=prompts[1][len(prompts[0]) :], exact=True)
        common = _common_beginning(prompts)
        options = tuple(prompt[len(common) :] for prompt in prompts)
        return ShownItem(common, options, gold=options[int(result.gold)])


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _common_beginning(texts: Sequence[str]) -> str:
    shortest = min(texts, key=len)
    differing = (i for i, character in enumerate(shortest) if any(text[i] != character for text in texts))
    return shortest[: next(differing, len(shortest))]
