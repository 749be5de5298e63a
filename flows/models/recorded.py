"""The scores that a model's own evaluation has kept, as if the model had been scored again; nothing is run.

They are taken only where asking again would ask the same in the same way.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.models.find import input_of
from flows.models.score import (
    BPB_ASKED,
    CORE_ASKED,
    Examinee,
    Questions,
    Scores,
    evaluating,
    kept_items,
    own_evaluation,
    settings_of,
)
from flows.store import Record
from nanochat.errors import StoreError
from nanochat.evals.shown_items import CORE_PREFIX
from nanochat.tokenizer.tokenizer import Tokenizer

_AGAIN = "leave out --recorded to ask the model again"
# Settings that say which results there are, or where they came about, not what they are.
_SELECTING = {"chat_tasks", "core", "prompts", "allow_unsafe_code"}


def recorded_scores(questions: Questions, examinee: Examinee) -> Scores:
    """Return what a model's own evaluation found; raise StoreError where it did not ask these questions."""
    record = _evaluation(questions, examinee)
    with tempfile.TemporaryDirectory(dir=questions.scratch) as name:
        folder = questions.store.fetch(record, Path(name) / "evaluation")
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        items = kept_items(folder)
        words = questions.store.fetch(
            input_of(questions.store, record, "tokenizer"), Path(name) / "tokenizer"
        )
        tokenizer = Tokenizer.load(words)
    if questions.with_core and not results["core"]:
        raise StoreError(f"{_named(record)} has kept no items of {CORE_ASKED}", hint=_AGAIN)
    chosen = _chosen(questions, results)
    if missing := [task for task in _names(chosen) if task not in items]:
        raise StoreError(f"{_named(record)} has kept no items of {missing[0]}", hint=_AGAIN)
    return Scores(
        examinee=examinee,
        results=chosen,
        items={task: items[task] for task in _names(chosen)},
        seconds={},
        tokenizer=tokenizer,
    )


def _evaluation(questions: Questions, examinee: Examinee) -> Record:
    model = examinee.model
    record = own_evaluation(questions.store, model) if isinstance(model, Record) else None
    if record is None or not isinstance(model, Record):
        raise StoreError(f"no evaluation of {examinee.name} is in {questions.store.url}", hint=_AGAIN)
    if record.payload.get("version") != evaluating(model).version:
        raise StoreError(f"{_named(record)} is of a version that judges otherwise", hint=_AGAIN)
    if input_of(questions.store, record, "tasks").digest != questions.source.digest:
        raise StoreError(f"{_named(record)} asked other problems than those of the first model", hint=_AGAIN)
    wanted = questions.config.identity()
    aside = _SELECTING | (set() if questions.with_core else {"core_max_problems"})
    for name, value in settings_of(record).items():
        if name not in aside and wanted.get(name) != value:
            raise StoreError(
                f"{_named(record)} asked with {name} {value}, not {wanted.get(name)}", hint=_AGAIN
            )
    asked = [task for task in questions.config.chat_tasks if task not in settings_of(record)["chat_tasks"]]
    if asked:
        raise StoreError(f"{_named(record)} did not ask {asked[0]}", hint=_AGAIN)
    return record


def _chosen(questions: Questions, results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of results that is asked for; means only over all that they are means over."""
    tasks = {name: results["tasks"][name] for name in questions.config.chat_tasks}
    core = results["core"] if questions.with_core else {}
    whole = {"chatcore": tasks.keys() == results["tasks"].keys(), "core": questions.with_core}
    metrics = {
        name: value
        for name, value in results["metrics"].items()
        if (questions.with_bpb if name == BPB_ASKED else whole[name.partition("_")[0]])
    }
    return {**results, "tasks": tasks, "core": core, "metrics": metrics}


def _names(results: Mapping[str, Any]) -> list[str]:
    return [*results["tasks"], *(f"{CORE_PREFIX}{label}" for label in results["core"])]


def _named(record: Record) -> str:
    return f"{record.stage}/{record.key[:12]}"
