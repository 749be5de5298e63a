"""Scores a model of the store on the benchmarks again, with fewer or other problems; keeps nothing.

A model that was trained here is scored on the problems of its own recipe, an imported one on those of the
newest evaluation in the store, with its validation text encoded by the model's own tokenizer.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flows.models.find import input_of, trained
from flows.run.execute import run_function
from flows.stage import Stage
from flows.stages import EVALUATE_BASE, EVALUATE_SFT, EVALUATIONS, IMPORT, PRETRAIN, TOKENIZE, TRAINED
from flows.store import Record, Store
from flows.store.lineage import lineage
from flows.store.records import input_refs
from nanochat.config import EvaluateConfig, TokenizeConfig
from nanochat.errors import ConfigError, StoreError
from nanochat.recipes.overrides import explain
from nanochat.runtime import Runtime


def evaluate_model(
    store: Store, record: Record, *, max_problems: int | None = None, tasks: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the results of the model that a record names.

    The settings are those of the evaluation that the data is taken from, or the defaults.
    """
    model = trained(store, record)
    imported = model.stage == IMPORT.name
    evaluation, parts = (_newest if imported else _own)(store, model)
    config = _changed(EvaluateConfig(), _config(evaluation) if evaluation else {})
    change: dict[str, Any] = {"max_problems": max_problems or config.max_problems}
    if tasks:
        change |= {"chat_tasks": tuple(tasks), "core": False}
    config = _changed(config, change)
    stage = _evaluating(model)
    with tempfile.TemporaryDirectory() as scratch:
        inputs = {name: store.fetch(part, Path(scratch) / name) for name, part in parts.items()}
        if imported:
            inputs["val_tokens"] = _encode(inputs, Path(scratch) / "val_tokens")
        out = Path(scratch) / "out"
        out.mkdir()
        run_function(stage.run)(config, inputs, out, Runtime())
        return dict(json.loads((out / "results.json").read_text(encoding="utf-8")))


def _changed(config: EvaluateConfig, change: Mapping[str, Any]) -> EvaluateConfig:
    try:
        return EvaluateConfig.model_validate({**config.model_dump(), **change})
    except ValidationError as error:
        raise ConfigError(
            explain(error), hint="`nanochat show toy` lists the names of chat tasks at evaluate.chat_tasks"
        ) from None


def _config(record: Record) -> dict[str, Any]:
    """Return the configuration that a record was made with; raise StoreError where it has none."""
    config = record.payload.get("config")
    if not isinstance(config, dict):
        raise StoreError(f"{record.stage}/{record.key[:12]} does not say what it was made with")
    return config


def _evaluating(model: Record) -> Stage:
    """Return the stage that evaluates models such as this one."""
    trained_by = TRAINED.get(model.stage)
    upstream = trained_by.upstream if trained_by else _config(model).get("source")
    return EVALUATIONS.get(str(upstream), EVALUATE_SFT)  # models that no stage of ours trains are chat models


def _own(store: Store, model: Record) -> tuple[Record | None, dict[str, Record]]:
    """Return a model's own evaluation, if there was one, and the parts that belong to it."""
    ancestors = {r.stage: r for r in lineage(store, model)} | {model.stage: model}
    evaluations = store.catalog.newest(store.catalog.listed(_evaluating(model).name))
    recorded = next((r for r in evaluations if (model.stage, model.key) in input_refs(r)), None)
    return recorded, {
        "model": model,
        "tokenizer": input_of(store, model, "tokenizer"),
        "tasks": _tasks(store, recorded, ancestors),
        "val_tokens": input_of(store, ancestors[PRETRAIN.name], "val_tokens"),
    }


def _newest(store: Store, model: Record) -> tuple[Record, dict[str, Record]]:
    """Return an evaluation in the store, and its data around an imported model."""
    last_training_first = reversed(EVALUATIONS.values())
    listings = (store.catalog.listed(stage.name) for stage in last_training_first)
    found = next((r for listed in listings for r in store.catalog.newest(listed)), None)
    if found is None:
        raise StoreError(
            f"{store.url} has no evaluation yet, and so no problems for {model.stage}/{model.key[:12]}",
            hint=f"run a recipe with --until {EVALUATE_BASE.name} first: its data is used",
        )
    shard = input_of(store, input_of(store, found, "val_tokens"), "shard")
    return found, {
        "model": model,
        "tokenizer": model,
        "tasks": input_of(store, found, "tasks"),
        "shard": shard,
    }


def _encode(inputs: Mapping[str, Path], out: Path) -> Path:
    """Write the validation text in tokens of the model's own tokenizer."""
    out.mkdir()
    run_function(TOKENIZE.run)(TokenizeConfig(), inputs, out, Runtime())
    return out


def _tasks(store: Store, recorded: Record | None, ancestors: Mapping[str, Record]) -> Record:
    if recorded:
        return input_of(store, recorded, "tasks")
    if "tasks" in ancestors:
        return ancestors["tasks"]
    raise StoreError(
        "this model has no chat and evaluation data yet",
        hint=f"run its recipe with --until {EVALUATE_BASE.name} first",
    )
